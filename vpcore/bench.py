"""Bench: how fast the pieces are, as ratios measured side by side in one run.

We are compared with the floor, the bare passes of the same network on the same batch (`floor`), with the naive way, the
protocol as one writes it first (`naive`), and with other libraries. Images are noise, since speed does not depend on them.
Where the naive way would take hours it is measured on a part, an epoch or some of the images, and extrapolated in
proportion; the table says so.
"""

from __future__ import annotations

import copy
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from vpcore import data, naive, probing, pruning, transfer
from vpcore.floor import Bare, best_precision
from vpcore.frozen import Frozen
from vpcore.metrics import METRICS
from vpcore.models import PRECISIONS, build, head_name, prunable
from vpcore.predictions import Predictions
from vpcore.timing import CLASSES, Row, Setting, medians
from vpcore.training import Recipe, fit, predict

TARGETS = 10  # classes of the task: CIFAR-10
SHOTS, TRAIN, TEST = 100, 50_000, 10_000  # images of a 10-shot budget, of the whole training set, of the test set
EPOCHS, BATCH = 100, 128  # of the paper's recipe
COHORT = 15


class _Stamped:
    """A frozen network that notes when it is called: from one call to the next is a whole step of training."""

    def __init__(self, frozen: Frozen, setting: Setting) -> None:
        self.frozen, self.setting, self.times = frozen, setting, []
        self.device, self.classes = frozen.device, frozen.classes

    def __call__(self, images: Tensor) -> Tensor:
        self.setting.sync()
        self.times.append(time.perf_counter())
        return self.frozen(images)


def _prompt(setting: Setting, network: object, *, count: int, cohort: int, epochs: int) -> transfer.Prompted:
    index = torch.arange(count).expand(cohort, count)
    images, labels = setting.images(count, setting.image_px), torch.arange(count) % TARGETS
    return transfer.visual_prompt(
        network, images, labels, index, targets=TARGETS, canvas=setting.canvas, image_px=setting.image_px,
        epochs=epochs, batch=BATCH, lr=0.01, seeds=list(range(cohort)),
    )  # fmt: skip


def floor(setting: Setting) -> Iterator[Row]:
    """The bare pass, and the product of large matrices: what the machine can do."""
    count = min(SHOTS, BATCH)
    precision, layout, rows = best_precision(setting, count)
    yield from rows
    bare = Bare(setting, precision, layout, count)
    size = 4096
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).to(setting.device, PRECISIONS[precision])
    found = medians(setting, {"forward": bare.forward, "product": lambda: a @ a})
    yield Row("floor", f"forward, {count} images, {precision}/{layout}", found["forward"])
    yield Row("floor", f"product of {size} x {size} matrices, {precision}", found["product"])


def step(setting: Setting) -> Iterator[Row]:
    """A step of visual prompting against the floor, at the same batch."""
    count = min(SHOTS, BATCH)
    precision, layout, _ = best_precision(setting, count)
    bare = Bare(setting, precision, layout, count)
    stamped = _Stamped(Frozen(setting.network(), precision=precision, device=setting.device), setting)
    steps: list[float] = []

    def ours() -> None:
        stamped.times = []
        _prompt(setting, stamped, count=count, cohort=1, epochs=3)
        steps.extend(after - before for before, after in zip(stamped.times[:-1], stamped.times[1:], strict=True))

    def floor_three_times() -> None:
        for _ in range(3):
            bare.step()

    found = medians(setting, {"floor": floor_three_times, "ours": ours})
    seconds = statistics.median(steps[3:])  # without those of the warm-up
    yield Row("step", f"prompt step, {count} images, {precision}", seconds, f"floor ({layout})", found["floor"] / 3)


def prompt(setting: Setting) -> Iterator[Row]:
    """A job of ILM-VP, 10-shot CIFAR-10, against the naive way."""
    precision, _, _ = best_precision(setting, SHOTS)
    frozen, model = Frozen(setting.network(), precision=precision, device=setting.device), setting.network()
    model.to(setting.device)
    few = 64  # test images that are measured
    train = setting.images(SHOTS, setting.image_px), torch.arange(SHOTS) % TARGETS
    test = setting.images(few, setting.image_px), torch.arange(few) % TARGETS
    prompted = _prompt(setting, frozen, count=SHOTS, cohort=1, epochs=1)

    def naively(epochs: int, tested: naive.Labelled | None = None) -> None:
        naive.visual_prompt(
            model, train, tested, targets=TARGETS, canvas=setting.canvas, epochs=epochs, batch=BATCH, lr=0.01, seed=0
        )

    t = medians(
        setting,
        {
            "1": lambda: _prompt(setting, frozen, count=SHOTS, cohort=1, epochs=1),
            "3": lambda: _prompt(setting, frozen, count=SHOTS, cohort=1, epochs=3),
            "test": lambda: transfer.prompted_logits(frozen, prompted, test[0]),
            "naive 1": lambda: naively(1),
            "naive 2": lambda: naively(2),
            "naive 1, tested": lambda: naively(1, test),
        },
    )
    ours = t["1"] + (EPOCHS - 1) * (t["3"] - t["1"]) / 2 + t["test"] * TEST / few
    epoch, test_pass = t["naive 2"] - t["naive 1"], (t["naive 1, tested"] - t["naive 1"]) * TEST / few
    job = f"job: {SHOTS} images, {EPOCHS} epochs, {TEST:,} test images, {precision}"
    note = f"extrapolated from 1 to 3 epochs and {few} test images"
    yield Row("prompt", job, ours, "naive, tested once", EPOCHS * epoch + test_pass, note)
    yield Row("prompt", job, ours, "naive, tested in every epoch", EPOCHS * (epoch + test_pass), note)


def probe(setting: Setting) -> Iterator[Row]:
    """A job of linear probing, with 10 shots and with all images, against the naive way."""
    precision, _, _ = best_precision(setting, SHOTS)
    frozen, plain = Frozen(setting.network(), precision=precision, device=setting.device), setting.network()
    plain.set_submodule(head_name(plain), nn.Identity())
    plain.to(setting.device)
    shown, few = setting.images(64, setting.canvas), 64
    width = frozen.features(shown[:1].to(setting.device).float() / 255).shape[1]
    for count, name in ((SHOTS, "10-shot"), (TRAIN, "all images")):
        features = torch.randn(count, width, generator=torch.Generator().manual_seed(0)).to(setting.device)
        labels, epochs = torch.arange(count) % TARGETS, EPOCHS if count == SHOTS else 2

        def ours(features: Tensor = features, labels: Tensor = labels, epochs: int = epochs) -> None:
            probing.linear_probe(
                features, labels, torch.arange(len(labels))[None],
                targets=TARGETS, epochs=epochs, batch=BATCH, lr=0.01, seeds=[0],
            )  # fmt: skip

        def naively(features: Tensor = features, labels: Tensor = labels, epochs: int = epochs) -> None:
            naive.linear_head(features, labels, targets=TARGETS, epochs=epochs, batch=BATCH, lr=0.01, seed=0)

        t = medians(
            setting,
            {
                "features": lambda: predict(frozen.features, shown, device=setting.device),
                "naive features": lambda: naive.features(plain, shown),
                "head": ours,
                "naive head": naively,
            },
        )
        each, naive_each = t["features"] / few, t["naive features"] / few
        head, naive_head = (t[name] * EPOCHS / epochs for name in ("head", "naive head"))
        job = f"job: {count:,} images ({name}), {EPOCHS} epochs, {TEST:,} test images, {precision}"
        seconds, images = each * (count + TEST) + head, count + TEST
        note = f"extrapolated from {few} images" + ("" if epochs == EPOCHS else f" and {epochs} epochs")
        yield Row("probe", job, seconds, "naive, features computed once", naive_each * images + naive_head, note)
        yield Row(
            "probe", job, seconds, "naive, features and test in every epoch", EPOCHS * naive_each * images + naive_head, note
        )


def cohort(setting: Setting) -> Iterator[Row]:
    """Few-shot prompts learned in one pass, against one at a time."""
    precision, _, _ = best_precision(setting, COHORT * TARGETS)
    frozen = Frozen(setting.network(), precision=precision, device=setting.device)

    def alone() -> None:
        for _ in range(COHORT):
            _prompt(setting, frozen, count=TARGETS, cohort=1, epochs=2)

    t = medians(
        setting, {"together": lambda: _prompt(setting, frozen, count=TARGETS, cohort=COHORT, epochs=2), "alone": alone}
    )
    yield Row(
        "cohort", f"{COHORT} prompts of {TARGETS} images together, {precision}", t["together"], "one at a time", t["alone"]
    )


def metrics(setting: Setting) -> Iterator[Row]:
    """Metrics of 100,000 predictions of 1,000 classes, against torchmetrics."""
    size = 100_000
    logits = torch.randn(size, CLASSES, generator=torch.Generator().manual_seed(0)) * 3
    probs, labels = logits.softmax(1), torch.arange(size) % CLASSES
    del logits
    names = ("accuracy", "ece", "mce")

    def ours() -> list[float]:
        predictions = Predictions.from_probs(probs, labels)
        return [METRICS[name](predictions) for name in names]

    functions: dict[str, Callable[[], object]] = {"ours": ours}
    try:
        from torchmetrics.functional import classification as other
    except ImportError:
        other = None
    if other is not None:
        functions["torchmetrics"] = lambda: (
            other.multiclass_accuracy(probs, labels, CLASSES, average="micro"),
            *(other.multiclass_calibration_error(probs, labels, CLASSES, n_bins=15, norm=norm) for norm in ("l1", "max")),
        )
    t = medians(setting, functions)
    what = f"{', '.join(names)} of {size:,} x {CLASSES:,} probabilities"
    yield Row(
        "metrics", what, t["ours"], "torchmetrics", t.get("torchmetrics"), "" if other else "torchmetrics is not installed"
    )


def train(setting: Setting) -> Iterator[Row]:
    """Source training against the bare passes."""
    count = 2 * 32
    images, labels = setting.images(count, setting.canvas), torch.arange(count) % CLASSES
    model = build(setting.model, classes=CLASSES, seed=0).to(setting.device, memory_format=torch.channels_last).train()
    for precision in PRECISIONS:
        recipe = Recipe(epochs=1, batch=32, lr=1e-4, weight_decay=1e-4, augment="none", precision=precision, seed=0)
        x = torch.randn(32, 3, setting.canvas, setting.canvas).to(setting.device, memory_format=torch.channels_last)

        def bare(x: Tensor = x, precision: str = precision) -> None:
            for _ in range(2):
                model.zero_grad()
                with torch.autocast(setting.device.type, PRECISIONS[precision], enabled=precision != "float32"):
                    loss = model(x).float().sum()
                loss.backward()

        t = medians(
            setting, {"ours": lambda recipe=recipe: fit(model, images.to(setting.device), labels, recipe), "bare": bare}
        )
        yield Row(
            "train", f"source training, {count} images, {precision}", t["ours"], "forward and all gradients", t["bare"]
        )


def prune(setting: Setting) -> Iterator[Row]:
    """Ranking and masking all weights once, against torch.nn.utils.prune."""
    model = build(setting.model, classes=CLASSES, seed=0)
    names = prunable(model)

    def ours() -> None:
        masks = pruning.full(model, names)
        pruning.apply_(model, pruning.select(pruning.magnitude(model, masks), masks, density=0.2))

    def theirs() -> None:
        fresh = copy.deepcopy(model)
        parts = [(fresh.get_submodule(name.removesuffix(".weight")), "weight") for name in names]
        torch_prune.global_unstructured(parts, pruning_method=torch_prune.L1Unstructured, amount=0.8)

    t = medians(setting, {"ours": ours, "theirs": theirs})
    yield Row("prune", "rank and mask all weights", t["ours"], "torch.nn.utils.prune", t["theirs"])


def load(setting: Setting) -> Iterator[Row]:
    """Images of a Parquet set, decoded and then memory-mapped, against decoding them one by one."""
    count = 1000
    with tempfile.TemporaryDirectory() as folder:
        files = _photos(Path(folder) / "photos", count)
        shared = {"px": 64, "folder": Path(folder)}
        data.load("photos", "train", cache=Path(folder) / "cache", **shared)
        t = medians(
            setting,
            {
                "decode": lambda: data.load("photos", "train", cache=None, **shared),
                "map": lambda: data.load("photos", "train", cache=Path(folder) / "cache", **shared).images.float().mean(),
                "naive": lambda: naive.decode(files, px=64),
            },
        )
    yield Row("load", f"decode {count:,} photos to 64 px", t["decode"], "one by one", t["naive"])
    yield Row("load", f"{count:,} photos that were decoded before", t["map"], "one by one", t["naive"])


def _photos(folder: Path, count: int) -> list[bytes]:
    """JPEG files of 160 x 120 px in the Hugging Face Parquet layout."""
    generator, files = torch.Generator().manual_seed(0), []
    for _ in range(count):
        small = torch.randint(256, (12, 16, 3), generator=generator).to(torch.uint8)
        Image.fromarray(small.numpy()).resize((160, 120)).save(content := io.BytesIO(), "jpeg")
        files.append(content.getvalue())
    folder.mkdir()
    table = pa.table({"image": [{"bytes": content, "path": None} for content in files], "label": [0, 1] * (count // 2)})
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    card = {"name": folder.name, "classes": ["a", "b"], "splits": {"train": count, "test": count}}
    (folder / "dataset.json").write_text(json.dumps(card))
    return files


# name -> what it measures
PIECES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "floor": floor, "step": step, "prompt": prompt, "probe": probe, "cohort": cohort, "metrics": metrics, "train": train,
    "prune": prune, "load": load,
}  # fmt: skip
