"""What an audit measures: a network on a task, by visual prompting and linear probing, a row for each budget and seed.

Networks are compared in pairs: for an equal task, budget and seed they see the same training images, start from the same
prompt and break ties alike. Predictions are made once, and metrics follow from them. Validation images fit the temperature
and the conformal threshold; test images are looked at once, at the end.

    vp    the image in a learned border, read through a mapping of the classes that is found anew before every epoch
    lp    a linear classifier on the features of the image at the full side of the canvas
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vpcore.audit.design import Design
from vpcore.audit.networks import Audited
from vpcore.audit.tasks import Task
from vpcore.calibration.all_metrics import METRICS, metrics
from vpcore.calibration.conformal import conformal_sets
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.recalibration import optimal_temperature
from vpcore.calibration.scores import accuracy
from vpcore.data.images import Images
from vpcore.data.splits import shots
from vpcore.errors import InputError
from vpcore.networks.training import predict
from vpcore.probing.linear_probing import Classifiers, probe_features
from vpcore.prompting.visual_prompting import visual_prompt

PROBE_EPOCHS, PROBE_RATE = 100, 0.01  # the paper's recipe
COVERAGE = 0.9  # of conformal sets
Row = dict[str, Any]
Show = Callable[[Tensor], Tensor]  # (N, 3, px, px) uint8 images -> (K, N, T) logits


def measure(
    networks: Sequence[Audited], tasks: Sequence[Task], design: Design, task: int, number: int, method: str
) -> list[Row]:
    """The rows of one network on one task by one method; none where it cannot be prompted.

    Args:
        networks: the dense one first.
        tasks: see `Task`.
        design: what is measured.
        task, number, method: the place of the task and of the network, and a key of `METHODS`.

    Returns:
        Rows with `network`, the number of the network; the fields of a run (`method`, `task`, `budget`, `seed`, and `round`,
        0 for dense); what `metrics` gives; `val_accuracy`; NAME_temperature, the metrics at the temperature that is optimal
        on validation images; `set_size` and `set_coverage` of conformal sets; `corrupted_accuracy` and `corrupted_ece`, at
        the largest budget and the first seed; `mapped`, the source class of each class, of a prompt; and `seconds`.

    Raises:
        InputError: when the network gives numbers that are not finite, with its name.
    """
    network, mine = networks[number], tasks[task]
    if method == "vp" and (network.no_gradients or len(mine.classes) > network.frozen.classes):
        return []
    start = time.perf_counter()
    try:
        rows = list((_prompted if method == "vp" else _probed)(network, mine, design))
    except InputError as error:
        raise InputError(f"{network.name} on the task {mine.name}: {error}") from error
    shared = {"network": number, "round": int(number > 0), "method": method, "task": mine.name}
    seconds = (time.perf_counter() - start) / len(rows)
    return [{**shared, **row, "seconds": seconds} for row in rows]


def _index(task: Task, labels: Tensor, budget: int, design: Design) -> Tensor:
    """(K, n) rows of the training images for each seed."""
    return torch.stack([shots(labels, budget, task=task.name, seed=seed) for seed in design.seeds])


def _prompted(network: Audited, task: Task, design: Design) -> Iterator[Row]:
    px = design.image_px
    train = task.read("train", px)
    for budget in design.shots:
        learned = visual_prompt(
            network.frozen, train, canvas=design.canvas, image_px=px, index=_index(task, train.labels, budget, design),
            epochs=design.epochs, lr=design.lr, seeds=design.seeds, progress=False,
        )  # fmt: skip
        corrupted = learned.members(0, 1) if budget == design.shots[-1] else None
        for k, row in enumerate(_rows(task, px, learned, corrupted)):
            yield {**row, **_about(train, budget, design, k), "mapped": learned.sources[k].tolist()}


def _probed(network: Audited, task: Task, design: Design) -> Iterator[Row]:
    train, px, device = task.read("train", design.canvas), design.canvas, network.frozen.device
    rows = {budget: _index(task, train.labels, budget, design) for budget in design.shots}
    used = torch.cat([index.flatten() for index in rows.values()]).unique()
    features = predict(network.frozen.features, train.images[used], device=device).to(device)
    seen: dict[int, tuple[Tensor, Tensor]] = {}  # images, which must stay as long as they are known by their place, features

    def show(probe: Classifiers, images: Tensor) -> Tensor:
        if id(images) not in seen:
            seen[id(images)] = images, predict(network.frozen.features, images, device=device).to(device)
        return probe(seen[id(images)][1]).cpu()

    for budget, index in rows.items():
        probe = probe_features(
            features, train.labels[used], torch.searchsorted(used, index), targets=len(task.classes), epochs=PROBE_EPOCHS,
            batch=None, lr=PROBE_RATE, seeds=design.seeds,
        )  # fmt: skip
        corrupted = partial(show, probe.members(0, 1)) if budget == design.shots[-1] else None
        for k, row in enumerate(_rows(task, px, partial(show, probe), corrupted)):
            yield {**row, **_about(train, budget, design, k)}


def _about(train: Images, budget: int, design: Design, k: int) -> Row:
    few = torch.bincount(train.labels, minlength=len(train.classes)).clamp(max=budget)
    return {"budget": budget, "seed": design.seeds[k], "classes": list(train.classes), "train_images": int(few.sum())}


def _rows(task: Task, px: int, show: Show, corrupted: Show | None) -> Iterator[Row]:
    """The metrics of K members; the first is also shown corrupted images, where `corrupted` shows them to it."""
    test, val = task.read("test", px), task.read("val", px)
    logits = show(test.images)
    held_out = show(val.images) if len(val) else None
    for k, z in enumerate(logits):
        row: Row = dict(metrics(z, test.labels))
        if held_out is not None:
            tau = optimal_temperature(held_out[k], val.labels)
            cooled = Predictions.from_logits(z / tau, test.labels)
            worse = {f"{name}_temperature": metric(cooled) for name, metric in METRICS.items() if metric.worse}
            sets = conformal_sets(held_out[k], val.labels, z, level=COVERAGE)
            row |= {"temperature": tau, **worse, "set_size": float(sets.size.double().mean())}
            row["set_coverage"] = float(sets.covered(test.labels).double().mean())
            row["val_accuracy"] = accuracy(Predictions.from_logits(held_out[k], val.labels))
        if corrupted is not None and k == 0:
            changed = task.read("corrupted", px)
            found = metrics(corrupted(changed.images)[0], changed.labels)
            row |= {"corrupted_accuracy": found["accuracy"], "corrupted_ece": found["ece"]}
        yield row


def own_task(network: Audited, task: Task, canvas: int) -> tuple[Tensor, Tensor]:
    """(N, S) logits of the test images of the network's own task at the side of the canvas, and (N,) labels.

    Raises:
        InputError: when the task has other numbers of classes than the network.
    """
    if len(task.classes) != network.frozen.classes:
        raise InputError(
            f"`own_task` must have the {network.frozen.classes} classes of {network.name}, in their order; {task.name} has "
            f"{len(task.classes)}; leave it out, or name the set that the network was trained on"
        )
    test = task.read("test", canvas)
    return predict(network.frozen, test.images, device=network.frozen.device), test.labels


def source_classes(network: Audited, task: Task, canvas: int) -> Tensor:
    """(N,) the source classes that a network sees in validation images of a task, or in test images where there are none."""
    images = task.read("val", canvas) if len(task.read("val", canvas)) else task.read("train", canvas)
    return predict(network.frozen, images.images, device=network.frozen.device).argmax(1)
