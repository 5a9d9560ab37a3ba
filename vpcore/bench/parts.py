"""Bench of the parts around the transfer: metrics, source training, pruning and the loader, against other libraries."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from vpcore.bench.floor import launches
from vpcore.bench.plain_protocol import decode
from vpcore.bench.timing import CLASSES, Longer, Row, Setting, compared, medians
from vpcore.calibration.all_metrics import METRICS
from vpcore.calibration.predictions import Predictions
from vpcore.data import tasks
from vpcore.networks.backbones import PRECISIONS, build, prunable
from vpcore.networks.training import Recipe, fit
from vpcore.pruning.masks import apply_, full, magnitude, select

# device type -> images a step of source training, and the steps of a short and a long training, see `Longer`
TRAINED = {"cpu": (32, 0, 2), "cuda": (256, 8, 40)}


def metrics(setting: Setting) -> Iterator[Row]:
    """Metrics of 100,000 predictions of 1,000 classes, against torchmetrics."""
    size, names = 100_000, ("accuracy", "ece", "mce")
    logits = torch.randn(size, CLASSES, generator=torch.Generator().manual_seed(0)) * 3
    probs, labels = logits.softmax(1), torch.arange(size) % CLASSES
    del logits

    def ours() -> list[float]:
        predictions = Predictions.from_probs(probs, labels)
        return [METRICS[name](predictions) for name in names]

    what = f"{', '.join(names)} of {size:,} x {CLASSES:,} probabilities"
    row = Row("metrics", what, against="torchmetrics", label="metrics: torchmetrics")
    try:
        from torchmetrics.functional import classification as other
    except ImportError:
        yield from compared(setting, dataclasses.replace(row, note="torchmetrics is not installed"), ours)
        return

    def theirs() -> list[Tensor]:
        error = partial(other.multiclass_calibration_error, probs, labels, CLASSES, n_bins=15)
        return [other.multiclass_accuracy(probs, labels, CLASSES, average="micro"), error(norm="l1"), error(norm="max")]

    yield from compared(setting, row, ours, theirs)


def train(setting: Setting) -> Iterator[Row]:
    """Source training against the bare passes, launched in the fastest way (`floor.launches`); compiled only in bf16."""
    batch, few, many = TRAINED[setting.device.type]
    images, labels = setting.images(many * batch, setting.canvas).to(setting.device), torch.arange(many * batch) % CLASSES
    model = build(setting.model, classes=CLASSES, seed=0).to(setting.device).to(memory_format=torch.channels_last).train()
    x = torch.randn(batch, 3, setting.canvas, setting.canvas).to(setting.device, memory_format=torch.channels_last)

    def bare(network: nn.Module, precision: str) -> Tensor:
        network.train().zero_grad()
        with torch.autocast(x.device.type, PRECISIONS[precision], enabled=precision != "float32", cache_enabled=False):
            loss = network(x).float().sum()
        loss.backward()
        return loss.detach()

    def ours(steps: int, precision: str) -> None:
        recipe = Recipe(epochs=1, batch=batch, lr=1e-4, weight_decay=1e-4, augment="none", precision=precision, seed=0)
        fit(model, images[: steps * batch], labels[: steps * batch], recipe)

    for precision in PRECISIONS:
        once, timed = partial(bare, precision=precision), Longer(setting, partial(ours, precision=precision), few, many)
        steps = launches(once, model, setting.device, compiled=precision == "bf16")
        found = medians(setting, {"ours": timed, **steps})
        floor = min(found[way] for way in steps)
        what, label = f"source training, {2 * batch} images, {precision}", f"training, {precision}: bare passes"
        yield Row("train", what, 2 * timed.seconds, "forward and all gradients", 2 * floor, label=label)


def prune(setting: Setting) -> Iterator[Row]:
    """Ranking and masking all weights once, against torch.nn.utils.prune."""
    model = build(setting.model, classes=CLASSES, seed=0)
    names = prunable(model)

    def ours() -> None:
        masks = full(model, names)
        apply_(model, select(magnitude(model, masks), masks, density=0.2))

    def theirs() -> None:
        fresh = copy.deepcopy(model)
        parts = [(fresh.get_submodule(name.removesuffix(".weight")), "weight") for name in names]
        torch_prune.global_unstructured(parts, pruning_method=torch_prune.L1Unstructured, amount=0.8)

    label = "pruning: torch.nn.utils.prune"
    row = Row("prune", "rank and mask all weights", against="torch.nn.utils.prune", label=label)
    yield from compared(setting, row, ours, theirs)


def load(setting: Setting) -> Iterator[Row]:
    """Images of a Parquet set, decoded and then memory-mapped, against decoding them one by one."""
    count = 1000
    with tempfile.TemporaryDirectory() as folder:
        files = photos(Path(folder) / "photos", count)
        read = partial(tasks.load, "photos", "train", px=64, folder=Path(folder))
        read(cache=Path(folder) / "cache")
        t = medians(
            setting,
            {
                "decode": lambda: read(cache=None),
                "map": lambda: read(cache=Path(folder) / "cache").images.float().mean(),
                "naive": lambda: decode(files, px=64),
            },
        )
    for what, seconds, label in (
        (f"decode {count:,} photos to 64 px", t["decode"], "photos: one by one"),
        (f"{count:,} photos that were decoded before", t["map"], "photos, again: one by one"),
    ):
        yield Row("load", what, seconds, "one by one", t["naive"], label=label)


def photos(folder: Path, count: int) -> list[bytes]:
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
