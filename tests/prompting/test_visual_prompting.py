import dataclasses
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.prompting.cases import METHODS, REPEATED, doubled, task
from vpcore import InputError
from vpcore.bench import plain_protocol
from vpcore.data.images import Images
from vpcore.networks.frozen import Frozen
from vpcore.prompting import visual_prompting
from vpcore.prompting.fixed_prompts import PadPrompt
from vpcore.prompting.label_mapping import MAPPINGS, Found, frequencies
from vpcore.prompting.learner import Learner
from vpcore.prompting.one_to_one import priorities
from vpcore.prompting.prompts import PromptKind, build
from vpcore.prompting.visual_prompting import Prompted, visual_prompt

SETTINGS = {"canvas": 16, "image_px": 8, "epochs": 5, "lr": 0.1}


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What the plain algorithm has after an epoch."""

    state: dict[str, Tensor]
    used: Tensor  # the mapping that the epoch was trained with
    now: Tensor  # that of the prompt as it is
    accuracy: tuple[float, float]  # on all images, under either


def plain(
    network: Frozen, train: Images, *, prompt: str, name: str, epochs: int, batch: int, lr: float, seed: int
) -> list[Epoch]:
    """The epochs of `plain_protocol`."""
    module, data, history = doubled(prompt).make([seed], 16, 8), (train.images, train.labels), []

    def note(state: plain_protocol.Prompting) -> None:
        used = state.mapping.detach().clone()
        now = state.find() if name in REPEATED else used
        tensors = {key: value.clone() for key, value in module.state_dict().items()}
        history.append(Epoch(tensors, used, now, (state.accuracy(data, used), state.accuracy(data, now))))

    plain_protocol.visual_prompt(
        network, module, MAPPINGS[name], data, targets=3, sources=7, epochs=epochs, batch=batch, lr=lr, seed=seed,
        after_epoch=note,
    )  # fmt: skip
    return history


def same(ours: Prompted, state: dict[str, Tensor], way: Tensor) -> None:
    """The first member has this state and reads it this way."""
    torch.testing.assert_close(ours.mapping[:1], way, rtol=1e-5, atol=1e-5)
    for key, value in state.items():
        torch.testing.assert_close(ours.prompt.state_dict()[key][:1], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("prompt", "name"), METHODS)
@pytest.mark.parametrize("batch", [128, 10])
def test_prompting_agrees_with_the_plain_algorithm(network: Frozen, prompt: str, name: str, batch: int) -> None:
    """Also where one pass serves for the mapping and the step."""
    train = task(prompt, tint=0 if prompt == "pad" else 80)
    settings = {"prompt": prompt, "epochs": 5, "batch": batch, "lr": 0.1}
    history = plain(network, train, name=name, seed=4, **settings)
    settings |= {"canvas": 16, "image_px": 8, "mapping": name, "seeds": [4], "prompt": doubled(prompt)}
    ours = visual_prompt(network, train, **settings)
    same(ours, history[-1].state, history[-1].now)
    if prompt == "pad":  # so that a mapping that is found too often, or not often enough, would be seen
        assert (name in REPEATED) != all(torch.equal(epoch.used, epoch.now) for epoch in history)


@pytest.mark.parametrize(("prompt", "name", "batch"), [("pad", "ilm", 128), ("pad", "blm", 10), ("smm", "blm+", 128)])
def test_a_stale_mapping_is_that_of_the_last_epoch(network: Frozen, prompt: str, name: str, batch: int) -> None:
    train = task(prompt, tint=0 if prompt == "pad" else 80)
    settings = {"prompt": prompt, "epochs": 1, "batch": batch, "lr": 200.0}  # of one epoch, by the schedule a hundredth
    last = plain(network, train, name=name, seed=4, **settings)[-1]
    settings |= {"canvas": 16, "image_px": 8, "mapping": name, "seeds": [4], "prompt": doubled(prompt)}
    stale = visual_prompt(network, train, last_mapping="stale", **settings)
    same(stale, last.state, last.used)
    assert not torch.equal(last.used, last.now)


@pytest.mark.parametrize(("prompt", "name"), METHODS)
def test_a_cohort_learns_what_its_members_learn_alone(network: Frozen, prompt: str, name: str) -> None:
    train = task(prompt)
    index = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(k))[:21] for k in range(3)])
    for batch in (128, 10) if (prompt, name) == ("pad", "ilm") else (10,):
        settings = {**SETTINGS, "prompt": doubled(prompt), "mapping": name, "batch": batch}
        together = visual_prompt(network, train, index=index, seeds=[5, 6, 7], **settings)
        logits = together(train.images)
        for k in range(3):
            alone = visual_prompt(network, train, index=index[k : k + 1], seeds=[5 + k], **settings)
            assert alone.learned.keys() == together.learned.keys()
            for key, value in together.learned.items():
                torch.testing.assert_close(alone.learned[key][0], value[k], rtol=1e-5, atol=1e-5)
            assert torch.equal(alone.sources[0], together.sources[k])
            torch.testing.assert_close(alone(train.images)[0], logits[k], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prompt", "name"), METHODS)
def test_some_members_of_a_cohort(network: Frozen, prompt: str, name: str) -> None:
    train = task(prompt)
    settings = {"canvas": 16, "image_px": 8, "epochs": 2, "lr": 0.1, "prompt": doubled(prompt), "mapping": name, "batch": 10}
    whole = visual_prompt(network, train, seeds=[4, 5, 6], **settings)
    some, before = whole.members(1, 3), whole(train.images)
    torch.testing.assert_close(some(train.images), before[1:], rtol=1e-5, atol=1e-6)
    assert torch.equal(some.sources, whole.sources[1:])
    assert all(torch.equal(value, whole.learned[key][1:]) for key, value in some.learned.items())
    assert torch.equal(whole(train.images), before)  # the whole is as it was
    assert whole.members(0, 3).loss == whole.loss
    assert whole.losses.mean(1).tolist() == pytest.approx(whole.loss, rel=1e-4)
    assert some.loss == pytest.approx(whole.losses[:, 1:].mean(1).tolist())


def test_nothing_of_a_training_stays_in_memory(network: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even until Python looks for cycles: on a GPU what was recorded would stay, too."""
    made: list[weakref.ref] = []

    class Watched(Learner):
        def __init__(self, *arguments: object, **settings: object) -> None:
            super().__init__(*arguments, **settings)
            made.append(weakref.ref(self))

    monkeypatch.setattr(visual_prompting, "Learner", Watched)
    gc.disable()
    try:
        learned = visual_prompt(network, task(), canvas=16, image_px=8, epochs=2)
        assert [learner() for learner in made] == [None]
    finally:
        gc.enable()
    assert len(learned.loss) == 2


@pytest.mark.parametrize(("prompt", "name"), [("pad", "ilm"), ("smm", "blm"), ("frame", "full")])
@pytest.mark.parametrize("last", ["fresh", "stale"])
def test_the_best_epoch_is_picked_for_each_member(network: Frozen, prompt: str, name: str, last: str) -> None:
    """The first of the epochs with the highest accuracy on the images given, prompt and mapping as they were then."""
    train = task(prompt, tint=0 if prompt == "pad" else 80)
    settings = {**SETTINGS, "prompt": doubled(prompt), "mapping": name, "batch": 10, "last_mapping": last, "select": train}
    ours = visual_prompt(network, train, seeds=[4, 5, 6], **settings)
    picked = []
    for seed in (4, 5, 6):
        history = plain(network, train, prompt=prompt, name=name, epochs=5, batch=10, lr=0.1, seed=seed)
        accuracy = [epoch.accuracy[last == "fresh"] for epoch in history]
        picked.append(accuracy.index(max(accuracy)))
        if seed == 4:
            best = history[picked[0]]
            same(ours, best.state, best.used if last == "stale" else best.now)
    assert ours.epoch == [number + 1 for number in picked]
    assert ours.epoch != [SETTINGS["epochs"]] * 3
    assert len(ours.loss) == SETTINGS["epochs"]


def test_predictions_are_those_of_the_prompted_images(network: Frozen) -> None:
    train = task()
    index = torch.stack([torch.arange(12), torch.arange(12, 24)])
    prompted = visual_prompt(network, train, index=index, batch=128, seeds=[0, 1], **SETTINGS)
    logits = prompted(train.images)
    program = prompted.learned["program"]
    assert logits.shape == (2, 24, 3)
    assert prompted.epoch == [5, 5]
    for k in range(2):
        with torch.no_grad():
            views = F.pad(train.images.float() / 255, [4] * 4) + prompted.prompt.border * torch.sigmoid(program[k])
            torch.testing.assert_close(logits[k], network(views)[:, prompted.mapping[k]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prompt", "name"), METHODS)
def test_what_is_learned_is_enough_to_predict(network: Frozen, prompt: str, name: str) -> None:
    """The saved tensors of one member, put into a fresh prompt, give its predictions, whatever the size of the batches."""
    train = task(prompt)
    settings = {**SETTINGS, "epochs": 2, "prompt": prompt, "mapping": name, "batch": 10, "seeds": [0, 1]}
    prompted = visual_prompt(network, train, **settings)
    saved = {key: value[1:].clone() for key, value in prompted.learned.items()}
    matrix = saved.pop("mapping", prompted.sources[1:])
    fresh = build(prompt, canvas=16, image_px=8, seeds=[9]).eval()
    fresh.load_state_dict(saved)
    alone = Prompted(network, fresh, matrix, [], [2], torch.zeros(2, 1), prompted.px)
    logits = prompted(train.images)[1]
    torch.testing.assert_close(alone(train.images)[0], logits, rtol=1e-4, atol=1e-4)
    parts = torch.cat([alone(part)[0] for part in train.images.split(7)])
    torch.testing.assert_close(parts, logits, rtol=1e-4, atol=1e-4)
    assert prompted.sources.shape == (2, 3)
    assert prompted.sources.dtype == torch.int64


@pytest.mark.parametrize(("prompt", "name"), [
    *METHODS, ("watermark", "random"), ("frame", "assignment"), ("fixed_patch", "blm"), ("scale", "full"), ("smm", "full"),
])  # fmt: skip
def test_prompting_lowers_the_loss(network: Frozen, prompt: str, name: str) -> None:
    train = task(prompt)
    settings = {**SETTINGS, "epochs": 16, "lr": 0.05, "prompt": prompt, "mapping": name, "batch": 128, "seeds": [0]}
    loss = visual_prompt(network, train, **settings).loss
    assert loss[-1] < 0.97 * loss[0]


def test_a_learned_mapping_moves_and_a_drawn_one_stays(network: Frozen) -> None:
    for name in ("full", "random"):
        prompted = visual_prompt(network, task(), **SETTINGS, mapping=name, batch=128, seeds=[3])
        start = MAPPINGS[name].start([3], targets=3, sources=7)
        assert torch.equal(prompted.mapping.to(start.dtype), start) == (name == "random")


@pytest.mark.parametrize("epochs", [1, 3])
def test_frequency_mappings_see_the_untouched_prompt(network: Frozen, epochs: int) -> None:
    train = task()
    settings = {**SETTINGS, "epochs": epochs, "mapping": "frequency", "batch": 128, "seeds": [3]}
    prompted = visual_prompt(network, train, **settings)
    with torch.no_grad():
        logits = network(F.pad(train.images.float() / 255, [4] * 4, value=0.5))[None]
    priority = priorities([3], targets=3, sources=7)
    assert torch.equal(prompted.mapping, MAPPINGS["ilm"].update(logits, train.labels[None], priority))


def test_ties_go_where_they_are_sent(network: Frozen) -> None:
    """One image in all: every class but one of the task has no count, and the lowest source classes are taken."""
    train = task()
    settings = {**SETTINGS, "epochs": 1, "batch": 128, "seeds": [0]}
    index = torch.tensor([[0]])
    by_index = visual_prompt(network, train, index=index, ties="index", **settings).mapping[0].tolist()
    at_random = visual_prompt(network, train, index=index, **settings).mapping[0].tolist()
    assert at_random[0] == by_index[0]
    assert by_index[1:] == [s for s in range(7) if s != by_index[0]][:2]
    assert at_random[1:] != by_index[1:]


@pytest.mark.parametrize(("wrong", "message"), [
    ({"prompt": "pads"}, "unknown prompt 'pads'; did you mean 'pad'"),
    ({"mapping": "blm++"}, r"unknown mapping 'blm\+\+'; did you mean 'blm\+'"),
    ({"ties": "first"}, "unknown ties 'first'; There are: index, random"),
    ({"last_mapping": "best"}, "unknown last_mapping 'best'; There are: fresh, stale"),
    ({"prompt": "frame"}, "`train.images` must have a side of 16 px for the prompt 'added frame', got 8 x 8; load them at"),
    ({"image_px": 10}, "`train.images` must have a side of 10 px for the prompt 'padded border', got 8 x 8"),
    ({"canvas": 8, "image_px": None}, "`image_px` must be in 1..7, below the canvas of 8 px, got 8"),
    ({"seeds": []}, r"`seeds` must hold a whole number for each run, got \[\]"),
    ({"seeds": [0, 1], "index": torch.zeros(3, 4).long()}, "`seeds` must be as many as `index` has rows, 3; got 2"),
    ({"index": torch.arange(24)}, r"`index` must be \(K, n\) rows of .* got a tensor of \(24,\) .*; use index\[None\]"),
    ({"index": torch.zeros(1, 4)}, r"`index` must be \(K, n\) rows .* whole numbers, .* of \(1, 4\) torch.float32"),
    ({"index": torch.zeros(1, 0).long()}, r"`index` must be .* got a tensor of \(1, 0\) torch.int64"),
    ({"index": [[0, 0.5]]}, "`index` must be .* got a list"),
    ({"index": torch.tensor([[0, 24]])}, r"`index` must be in 0..23, rows of the 24 training images; got 0 to 24"),
    ({"index": torch.tensor([[-1, 2]])}, r"`index` must be in 0..23, .* got -1 to 2"),
    ({"epochs": 0}, "`epochs` must be a whole number of at least 1, got 0"),
    ({"batch": 0}, "`batch` must be a whole number of at least 1, got 0"),
    ({"batch": 2.5}, "`batch` must be a whole number of at least 1, got 2.5"),
    ({"lr": 0.0}, r"`lr` must be a number in \(0, 1e\+38\), got 0.0; use 0.01, which is usual"),
    ({"lr": float("nan")}, r"`lr` must be a number in \(0, 1e\+38\), got nan"),
])  # fmt: skip
def test_wrong_settings(network: Frozen, wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        visual_prompt(network, task(), **{**SETTINGS, "batch": 8, **wrong})


@pytest.mark.parametrize(("wrong", "message"), [
    ({"images": lambda x: x.float() / 255}, r"`train.images` must be uint8 in 0..255, got torch.float32 up to 1; use \(im"),
    ({"images": lambda x: x.long()}, r"must be uint8 in 0..255, got torch.int64 up to 255; use images.round\(\)"),
    ({"images": lambda x: x[:, 0]}, r"must be a tensor of \(N, 3, H, W\) images, got a tensor of \(24, 8, 8\) .*; torch"),
    ({"images": lambda x: x.numpy()}, r"must be a tensor of \(N, 3, H, W\) images, got a ndarray of \(24, 3"),
    ({"images": lambda x: x[:5]}, "`train.images` must be as many as there are labels, 24; got 5"),
    ({"images": lambda x: x[..., :7]}, "must have a side of 8 px for the prompt 'padded border', got 8 x 7"),
    ({"labels": lambda y: y + 1}, "`train.labels` must lie in 0..2, got 1..3; number the classes from 0"),
    ({"labels": lambda y: y - 1}, "`train.labels` must lie in 0..2, got -1..1"),
    ({"labels": lambda y: y.float()}, "`train.labels` must be whole numbers, got torch.float32"),
    ({"classes": lambda c: tuple("abcdefgh")}, "as many source classes as the task has classes, 8; the network has 7"),
])  # fmt: skip
def test_wrong_images(network: Frozen, wrong: dict, message: str) -> None:
    train = task()
    ((field, change),) = wrong.items()
    with pytest.raises(InputError, match=message):
        visual_prompt(network, dataclasses.replace(train, **{field: change(getattr(train, field))}), batch=8, **SETTINGS)


def test_only_frozen_networks_are_prompted_and_only_images_are_read(network: Frozen) -> None:
    with pytest.raises(InputError, match=r"`network` must be a Frozen network, got a Linear; use Frozen\(model\)"):
        visual_prompt(nn.Linear(2, 2), task(), **SETTINGS)
    prompted = visual_prompt(network, task(), **SETTINGS)
    with pytest.raises(InputError, match="`images` must be uint8 in 0..255, got torch.float32"):
        prompted(task().images / 255)


def test_a_matrix_takes_more_classes_than_the_network_has(network: Frozen) -> None:
    for mapping in ("blm", "full"):
        assert visual_prompt(network, task(targets=9), mapping=mapping, **SETTINGS)(task().images).shape == (1, 24, 9)


def test_the_defaults_are_the_authors_recipe(network: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam, 0.01, 100 epochs, all images, their batch for such a budget, and the image at the side that it has."""
    train = task()
    ours = visual_prompt(network, train, canvas=16)
    settings = {"index": torch.arange(24)[None], "image_px": 8, "epochs": 100, "batch": 32, "lr": 0.01, "seeds": [0]}
    theirs = visual_prompt(network, train, canvas=16, **settings)
    assert ours.loss == theirs.loss
    assert len(ours.loss) == 100
    frame = visual_prompt(network, task("frame"), canvas=16, prompt="frame", epochs=1)
    assert int(frame.prompt.unit[0].bool().sum()) == 16**2 - 9**2  # 4 / 7 of 16 px


def test_prompts_and_mappings_of_ones_own(network: Frozen) -> None:
    """An object takes the place of a name; the parameter of a prompt has any name."""

    class Grey(PadPrompt):
        def __init__(self, cohort: int, **sizes: int) -> None:
            super().__init__(cohort, **sizes)
            self.level = nn.Parameter(torch.zeros(cohort, 3, 1, 1))
            del self.program

        @property
        def frame(self) -> Tensor:
            return self.border * torch.sigmoid(self.level)

    def likeliest(counts: Tensor, priority: Tensor) -> Tensor:
        return counts.argmax(2)

    kind = PromptKind("grey", lambda seeds, canvas, px: Grey(len(seeds), canvas=canvas, image_px=px), shown_small=True)
    rule = Found(label="likeliest", count=frequencies, choose=likeliest, repeat=True)
    prompted = visual_prompt(network, task(), prompt=kind, mapping=rule, seeds=[0, 1], **SETTINGS)
    assert prompted(task().images).shape == (2, 24, 3)
    assert prompted.learned["level"].abs().min() > 0
    assert prompted.loss[-1] < prompted.loss[0]


def test_a_diverging_prompt_is_an_error(network: Frozen) -> None:
    broken = network
    broken.head.weight.fill_(torch.inf)
    with pytest.raises(InputError, match="loss must be a finite number, got nan in epoch 1 of visual prompting"):
        visual_prompt(broken, task(), **SETTINGS)
