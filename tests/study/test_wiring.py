"""What a profile says reaches what computes it: two runs that differ in every field, and what the functions are given."""

import dataclasses
import functools
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore import InputError
from vpcore.data.images import Images
from vpcore.data.splits import shots
from vpcore.data.tasks import load
from vpcore.networks.backbones import HALF, IMAGENET, MODELS, Backbone, ResNet, build, prunable
from vpcore.pruning.masks import Masks, apply_
from vpcore.pruning.methods import METHODS
from vpcore.study import adaptation, chains
from vpcore.study import session as sessions
from vpcore.study.chains import make_ticket
from vpcore.study.execution import execute
from vpcore.study.measurement import adapt
from vpcore.study.run import Run, source_run, ticket_run
from vpcore.study.session import Session, shown_to_probe
from vpcore.study.store import Store
from vpcore.weights.tickets import read_ticket

USUAL = Run(
    source="shapes", source_per_class=10, source_epochs=2, round=1, weight_bits=8, activation_bits=8, task="digits",
    budget=1, epochs=2, test_per_class=4,
)  # fmt: skip
OTHER = Run(
    source="digits", model="one-block", canvas=24, source_per_class=58, augment="shift", source_epochs=3, source_batch=80,
    source_lr=0.1, source_decay=2e-3, label_smoothing=0.1, mixup=0.2, precision="bf16", source_seed=5,
    sparsifier="oneshot", scope="layer",
    part="body+stem", rate=0.4, rewind=2, round=2, weight_bits=4, activation_bits=6, quant_range="percentile",
    batch_norm="kept", task="shapes", budget=2, seed=3, image_px=18, prompt="frame", mapping="assignment", ties="index",
    last_mapping="stale", selection="val", probe="optimum", view="canvas", epochs=4, batch=8, lr=0.02, test_per_class=3,
    robustness_images=5,
)  # fmt: skip
ONE_BLOCK = Backbone(lambda classes: ResNet(classes, blocks=(1,), widths=(8,), stem=(3, 2)), statistics=HALF)
SPIED = [
    (sessions, "build"), (chains, "Recipe"), (chains, "make_round"), (sessions, "quantize"), (sessions, "Frozen"),
    (adaptation, "visual_prompt"), (adaptation, "probe_features"), (adaptation, "optimal_probe"),
    (adaptation, "fine_tune"),
]  # fmt: skip
NEAR = {"rtol": 0.02, "atol": 0.02}  # in bf16 batches of other sizes give other roundings
Arguments = dict[str, object]


def spy(patch: pytest.MonkeyPatch, module: object, name: str) -> Arguments:
    """The arguments of the last call of a function, defaults included, once it is called; it works on."""
    real, given = getattr(module, name), {}

    @functools.wraps(real)
    def noted(*args: object, **named: object) -> object:
        bound = inspect.signature(real).bind(*args, **named)
        bound.apply_defaults()
        given.update(bound.arguments)
        return real(*args, **named)

    patch.setattr(module, name, noted)
    return given


@dataclass(frozen=True)
class Study:
    """A run, done with every method for two seeds, what functions were given, and how many images a way looked at."""

    run: Run
    store: Store
    given: dict[str, Arguments]
    looked_at: int

    @property
    def seeds(self) -> list[int]:
        return [self.run.seed, self.run.seed + 1]

    def with_(self, **fields: object) -> Run:
        return dataclasses.replace(self.run, **fields)

    def images(self, task: str, split: str, *, px: int, per_class: int | None) -> Images:
        return load(task, split, px=px, per_class=per_class, cache=self.store.cache)

    def source_images(self) -> Images:
        return self.images(self.run.source, "train", px=self.run.canvas, per_class=self.run.source_per_class)

    def task_images(self, split: str, *, px: int) -> Images:
        per_class = None if split == "train" else self.run.test_per_class
        return self.images(self.run.task, split, px=px, per_class=per_class)

    def prompted(self, split: str) -> Images:
        """What a prompt is put on: images that it surrounds, or that fill the canvas."""
        return self.task_images(split, px=self.run.image_px if self.run.prompt == "pad" else self.run.canvas)

    def features(self, split: str) -> Tensor:
        """Of what a linear probe sees."""
        run, network = self.run, Session(self.store, torch.device("cpu")).network(self.run).frozen
        if run.view == "frame":
            shown = self.task_images(split, px=run.canvas).images.float() / 255
        else:
            small = self.task_images(split, px=run.image_px).images.float() / 255
            shown = F.pad(small, [(run.canvas - run.image_px) // 2] * 4, value=0.5)
        with torch.no_grad():
            return network.features(shown)

    def index(self) -> Tensor:
        """(2, n) the training images of each seed."""
        labels = self.task_images("train", px=self.run.canvas).labels
        return torch.stack([shots(labels, self.run.budget, task=self.run.task, seed=seed) for seed in self.seeds])


@pytest.fixture(scope="module", params=[USUAL, OTHER], ids=["usual", "other"])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterable[Study]:
    run, store, looked_at = request.param, Store(tmp_path_factory.mktemp("results"), "tiny"), []
    store.cache = cache

    def look(model: nn.Module, masks: Masks, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        apply_(model, masks)
        looked_at.extend(image for images, _ in batches for image in images)

    def finish(*runs: Run) -> None:
        assert [done.error for done in execute(runs, store, device=torch.device("cpu")) if done.error] == []

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, OTHER.model, ONE_BLOCK)
        patch.setitem(METHODS, "magnitude-bn", dataclasses.replace(METHODS["magnitude-bn"], adjust_=look))
        finish(ticket_run(dataclasses.replace(run, sparsifier="magnitude-bn")))
        given = {name: spy(patch, module, name) for module, name in SPIED}
        kinds = [("vp", run.probe), ("lp", "adam"), ("lp", "optimum"), ("ft", run.probe)]
        adapted = [dataclasses.replace(run, method=method, probe=probe) for method, probe in kinds]
        finish(source_run(run), *(dataclasses.replace(r, seed=r.seed + k) for r in adapted for k in (0, 1)))
        yield Study(run, store, {name: dict(arguments) for name, arguments in given.items()}, len(looked_at))


def test_the_two_runs_differ_in_every_field() -> None:
    """A field that is added to `Run` is added here; methods are all walked through, and other weights have a test below."""
    same = {name for name, value in vars(USUAL).items() if value == getattr(OTHER, name)}
    assert same == {"method", "weights", "quant_training"}


@pytest.mark.parametrize(
    ("function", "argument", "field"),
    [
        ("build", "name", "model"),
        ("build", "seed", "source_seed"),
        ("Recipe", "epochs", "source_epochs"),
        ("Recipe", "batch", "source_batch"),
        ("Recipe", "lr", "source_lr"),
        ("Recipe", "weight_decay", "source_decay"),
        ("Recipe", "label_smoothing", "label_smoothing"),
        ("Recipe", "mixup", "mixup"),
        ("Recipe", "augment", "augment"),
        ("Recipe", "precision", "precision"),
        ("Recipe", "seed", "source_seed"),
        ("make_round", "sparsifier", "sparsifier"),
        ("make_round", "number", "round"),
        *(("make_round", name, name) for name in ("rate", "rewind", "scope", "part")),
        *(("quantize", name, name) for name in ("weight_bits", "activation_bits", "quant_range", "batch_norm")),
        ("Frozen", "precision", "precision"),
        *(("visual_prompt", name, name) for name in ("canvas", "image_px", "prompt", "mapping", "ties", "last_mapping")),
        *(("visual_prompt", name, name) for name in ("epochs", "batch", "lr")),
        *(("probe_features", name, name) for name in ("epochs", "batch", "lr")),
        *(("fine_tune", name, name) for name in ("epochs", "batch", "lr", "precision")),
    ],
)  # fmt: skip
def test_a_function_is_given_the_field(study: Study, function: str, argument: str, field: str) -> None:
    assert study.given[function][argument] == getattr(study.run, field)


def test_the_images_of_the_source(study: Study) -> None:
    assert torch.equal(study.given["make_round"]["images"], study.source_images().images)
    assert torch.equal(study.given["make_round"]["labels"], study.source_images().labels)


def test_the_part_whose_density_is_measured(study: Study) -> None:
    record = study.store.table((source_run(study.run),)).iloc[0]
    assert record["layer"] == prunable(build(study.run.model, classes=10, seed=0), study.run.part)


@pytest.mark.parametrize("function", ["make_round", "Frozen", "fine_tune"])
def test_the_statistics_of_the_network(study: Study, function: str) -> None:
    assert study.given[function]["statistics"] == (HALF if study.run is OTHER else IMAGENET)


def test_what_finds_the_ranges(study: Study) -> None:
    """At most 51 images of each of the 10 classes of the source, which makes about 512, normalised for the network."""
    shown, run = torch.cat(study.given["quantize"]["batches"]), study.run
    assert len(shown) == 10 * min(51, run.source_per_class)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (HALF if run is OTHER else IMAGENET))
    pixels = ((shown * std + mean) * 255).round().to(torch.uint8)
    found, known = ({image.numpy().tobytes() for image in some} for some in (pixels, study.source_images().images))
    assert found <= known


def test_what_a_way_looks_at_that_does_not_train(study: Study) -> None:
    assert study.looked_at == min(512, 10 * study.run.source_per_class)


@pytest.mark.parametrize("function", ["visual_prompt", "probe_features", "optimal_probe", "fine_tune"])
def test_the_images_of_each_seed(study: Study, function: str) -> None:
    assert torch.equal(study.given[function]["index"], study.index())


@pytest.mark.parametrize("function", ["visual_prompt", "probe_features", "fine_tune"])
def test_the_seeds(study: Study, function: str) -> None:
    assert study.given[function]["seeds"] == study.seeds


@pytest.mark.parametrize("function", ["visual_prompt", "probe_features", "fine_tune"])
def test_a_study_shows_no_bars_within_its_jobs(study: Study, function: str) -> None:
    assert study.given[function]["progress"] is False


def test_the_images_that_a_prompt_is_learned_on(study: Study) -> None:
    train = study.prompted("train")
    given = study.given["visual_prompt"]["train"]
    assert torch.equal(given.images, train.images)
    assert torch.equal(given.labels, train.labels)
    assert given.classes == train.classes


@pytest.mark.parametrize("function", ["probe_features", "optimal_probe"])
def test_the_features_are_those_of_the_view(study: Study, function: str) -> None:
    rows = study.index()[0]
    torch.testing.assert_close(study.given[function]["features"][rows], study.features("train")[rows], **NEAR)


def test_the_strength_is_chosen_on_val(study: Study) -> None:
    features, labels = study.given["optimal_probe"]["val"]
    torch.testing.assert_close(features, study.features("val"), **NEAR)
    assert torch.equal(labels, study.prompted("val").labels)


@pytest.mark.parametrize("selection", ["last", "val", "test"])
@pytest.mark.parametrize("method", ["vp", "lp"])
def test_the_images_that_choose_the_epoch(
    study: Study, method: str, selection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = spy(monkeypatch, *((adaptation, "visual_prompt") if method == "vp" else (adaptation, "probe_features")))
    run = study.with_(method=method, probe="adam", selection=selection)
    adapt((run,), Session(study.store, torch.device("cpu")))
    if selection == "last":
        assert given["select"] is None
        return
    select = given["select"]
    shown, labels = (select.images, select.labels) if method == "vp" else select
    torch.testing.assert_close(
        shown, study.prompted(selection).images if method == "vp" else study.features(selection), **NEAR
    )
    assert torch.equal(labels, study.prompted(selection).labels)


def test_what_is_tuned_is_the_float_network_under_its_masks(study: Study) -> None:
    state, masks, _ = read_ticket(study.store.ticket_path(study.run))
    given = study.given["fine_tune"]
    assert masks.keys() == given["masks"].keys()
    assert all(torch.equal(mask, given["masks"][name]) for name, mask in masks.items())
    assert all(torch.equal(value, state[name]) for name, value in given["model"].state_dict().items())
    images = study.task_images("train", px=study.run.canvas)
    assert torch.equal(given["train"].images, images.images)
    assert torch.equal(given["train"].labels, images.labels)


@pytest.mark.parametrize("method", ["source", "vp", "lp", "ft"])
def test_the_images_that_are_measured(study: Study, method: str) -> None:
    run = source_run(study.run) if method == "source" else study.with_(method=method)
    arrays = study.store.arrays(run)
    for split, prefix in (("test", ""), ("val", "val_")):
        expected = study.images(run.task, split, px=run.canvas, per_class=run.test_per_class)
        assert torch.equal(arrays[f"{prefix}labels"], expected.labels)
    assert not torch.equal(arrays["logits"], arrays["val_logits"])


@pytest.mark.parametrize(
    "fields",
    [
        {"view": "frame"},
        {"image_px": 16},
        {"test_per_class": 2},
        {"quant_range": "minmax"},
        {"weight_bits": 3},
        {"round": 0},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_is_kept_for_the_next_run_is_not_taken_for_another(study: Study, fields: dict[str, object]) -> None:
    """A network and its features are computed once for runs that follow each other; alone, a run has the same numbers."""
    first = study.with_(method="lp", probe="adam", view="canvas")
    second, together = dataclasses.replace(first, **fields), Session(study.store, torch.device("cpu"))
    adapt((first,), together)
    adapt((second,), together)
    after = study.store.arrays(second)["logits"]
    adapt((second,), Session(study.store, torch.device("cpu")))
    assert torch.equal(after, study.store.arrays(second)["logits"])


def test_a_probe_at_its_optimum_says_how_strong_l2_was(study: Study) -> None:
    optimum, adam = (study.with_(method="lp", probe=probe) for probe in ("optimum", "adam"))
    table = study.store.table((optimum, adam))
    assert table["l2"][0] > 0
    assert table["l2"].isna()[1]
    assert table["nll"].is_unique


def test_what_a_linear_probe_sees() -> None:
    images, run = torch.rand(2, 3, 18, 18), dataclasses.replace(OTHER, canvas=25)
    assert shown_to_probe(dataclasses.replace(run, view="frame"), images) is images
    assert torch.equal(shown_to_probe(run, images), F.pad(images, [3, 4, 3, 4], value=0.5))


@pytest.mark.parametrize(
    ("run", "weights"),
    [
        (Run(model="resnet18", weights="random"), "random"),
        (Run(model="resnet18", weights="random", sparsifier="tickets:x{round}", round=3), "tickets:x{round}"),
    ],
    ids=["dense", "sparse"],
)
def test_weights_from_elsewhere(
    store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run, weights: str
) -> None:
    asked = []

    def pretrained(model: str, weights: str, *, folder: Path, round: int, **more: object) -> tuple[dict, dict]:
        asked.append((model, weights, folder, round))
        return {}, {}

    monkeypatch.setattr(chains, "pretrained", pretrained)
    make_ticket(run, Session(store, cpu, folder=tmp_path))
    assert asked == [("resnet18", weights, tmp_path, run.round)]
    assert store.ticket_path(run).exists()


@pytest.mark.parametrize("classes", [48, 7])
def test_a_network_from_a_file_has_the_classes_of_the_source_task(tmp_path: Path, cache: Path, classes: int) -> None:
    """As many as that has: another number is refused, with the names that differ; the file is not needed twice."""
    torch.save(build("resnet8", classes=classes, seed=0).state_dict(), tmp_path / "mine.pth")
    store = Store(tmp_path / "results", "own")
    store.cache = cache
    run = source_run(
        dataclasses.replace(USUAL, source="glyphs", source_per_class=2, weights="tickets:mine.pth", sparsifier="magnitude")
    )
    done = list(execute((run,), store, device=torch.device("cpu"), folder=tmp_path))
    if classes == 7:
        with pytest.raises(InputError, match=r"(?s)mine.pth for resnet8 with 1,000 classes .*\+ fc.weight \(7, 64\)"):
            raise next(each.error for each in done if each.error)
        return
    assert [each.error for each in done] == [None] * len(done)
    (tmp_path / "mine.pth").unlink()
    session = Session(store, torch.device("cpu"), folder=tmp_path)
    assert session.network(run).frozen.classes == len(session.source_classes(run)) == 48
