"""What a job computes: the measurement of a network on its source task, or a cohort of transfers on it.

Predictions are made once, metrics follow from them; both are kept. Test images serve for nothing but the one evaluation at
the end; `selection = "test"`, which shows what the authors' choice of an epoch does, is the exception.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.calibration import recalibration
from vpcore.calibration.all_metrics import metrics
from vpcore.calibration.binned import reliability
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import accuracy, nll
from vpcore.data.images import Images
from vpcore.data.splits import saturated, shots
from vpcore.errors import InputError
from vpcore.networks.backbones import backbone
from vpcore.networks.repeat import within_memory
from vpcore.networks.training import predict
from vpcore.probing.fine_tuning import fine_tune
from vpcore.probing.linear_probing import probe_features
from vpcore.probing.optimal_probing import optimal_probe
from vpcore.prompting.prompts import input_px
from vpcore.prompting.visual_prompting import visual_prompt
from vpcore.study.run import Run
from vpcore.study.session import Session, make_ticket
from vpcore.study.store import Record, provenance

TRAIN_IMAGES_MEASURED = 5000  # about so many training images tell the training accuracy
PIXELS_TRAINED = 2**22  # most that a step shows to a network, unless one member alone has more: with 128 px, 256 images
SPLITS = ("test", "val")
Logits = dict[str, Tensor]  # split -> (K, N, T)


def measure_source(run: Run, session: Session) -> Record:
    """Measure the network of a run on its source task; its ticket is made if there is none."""
    start = time.perf_counter()
    make_ticket(run, session)
    network = session.network(run)
    train = session.source_images(run, "train")
    few = shots(train.labels, max(1, TRAIN_IMAGES_MEASURED // len(train.labels.unique())), task=run.source, seed=0)
    fitted = Predictions.from_logits(predict(network.frozen, train.images[few], device=session.device), train.labels[few])
    measured: Record = {
        "density": network.density,
        "layer": list(network.layers),
        "layer_density": [share for share, _ in network.layers.values()],
        "layer_weights": [size for _, size in network.layers.values()],
        "loss": network.header["history"],
        "epochs_seen": network.header.get("epochs_seen"),
        "ticket_bytes": network.ticket_bytes,
        "train_images": len(train),
        "train_accuracy": accuracy(fitted),
        "train_confidence": float(fitted.confidence.mean()),
    }
    held_out = {split: session.source_images(run, split) for split in SPLITS}
    logits = {split: predict(network.frozen, held_out[split].images, device=session.device)[None] for split in SPLITS}
    return _finish((run,), session, held_out, logits, [measured], [{}], start)[0]


@dataclass(frozen=True)
class Task:
    """What a cohort learns from, and what it is measured on.

    Attributes:
        train: all training images of the task.
        index: (K, n) those that each member learns from.
        held_out: the splits "test" and "val".
    """

    train: Images
    index: Tensor
    held_out: dict[str, Images]

    @property
    def targets(self) -> int:
        """Number of target classes T."""
        return len(self.train.classes)


def adapt(runs: tuple[Run, ...], session: Session) -> tuple[Record, ...]:
    """Adapt the frozen network for every seed of a cohort, predict test and val once, and write a record each."""
    run, start = runs[0], time.perf_counter()
    px = image_side(run)
    train = session.images(run.task, "train", px=px)
    held_out = {split: session.images(run.task, split, px=px, per_class=run.test_per_class) for split in SPLITS}
    for split, images in held_out.items():
        if not len(images):
            raise InputError(
                f"`task` {run.task} must have images in its split {split}, got none; {split} is cut from what a class has, "
                "so use a set with at least 5 images a class"
            )
    index = torch.stack([shots(train.labels, run.budget, task=run.task, seed=r.seed) for r in runs])
    shared: Record = {
        "density": session.network(run).density,
        "train_images": index.shape[1],
        "saturated": saturated(train.labels, run.budget),
        "classes": list(train.classes),
    }
    measured: list[Record] = [dict(shared) for _ in runs]
    arrays: list[dict[str, Tensor]] = [{"index": part} for part in index]
    logits = ADAPTATIONS[run.method](runs, session, Task(train, index, held_out), measured, arrays)
    return _finish(runs, session, held_out, logits, measured, arrays, start)


def image_side(run: Run) -> int:
    """The side, in pixels, at which the images of the task are read."""
    if run.method == "vp":
        return input_px(run.prompt, canvas=run.canvas, image_px=run.image_px)
    return run.image_px if run.method == "lp" and run.view == "canvas" else run.canvas


def _visual_prompt(
    runs: tuple[Run, ...], session: Session, task: Task, measured: list[Record], arrays: list[dict[str, Tensor]]
) -> Logits:
    """So many members at a time as memory allows; they learn the same together or alone."""
    step = min(runs[0].batch, task.index.shape[1]) * runs[0].canvas ** 2  # pixels of a member

    def in_parts(size: int) -> Logits:
        parts = [slice(first, first + size) for first in range(0, len(runs), size)]
        found = [
            _prompted_together(runs[p], session, dataclasses.replace(task, index=task.index[p]), measured[p], arrays[p])
            for p in parts
        ]
        return {split: torch.cat([logits[split] for logits in found]) for split in SPLITS}

    return within_memory(in_parts, min(len(runs), max(1, PIXELS_TRAINED // step)))


def _prompted_together(
    runs: tuple[Run, ...], session: Session, task: Task, measured: list[Record], arrays: list[dict[str, Tensor]]
) -> Logits:
    run = runs[0]
    prompted = visual_prompt(
        session.network(run).frozen,
        task.train,
        index=task.index,
        canvas=run.canvas,
        image_px=run.image_px,
        prompt=run.prompt,
        mapping=run.mapping,
        ties=run.ties,
        last_mapping=run.last_mapping,
        select=task.held_out.get(run.selection),
        epochs=run.epochs,
        batch=run.batch,
        lr=run.lr,
        seeds=[r.seed for r in runs],
    )
    names = session.source_classes(run)
    for k, sources in enumerate(prompted.sources.tolist()):
        measured[k] |= {"mapped": sources, "mapped_names": [names[s] for s in sources], "loss": prompted.loss}
        measured[k] |= {"epoch": prompted.epoch[k], "prompt_size": prompted.prompt.size}
        arrays[k] |= {name: value[k].cpu() for name, value in prompted.learned.items()}
    return {split: prompted(task.held_out[split].images) for split in SPLITS}


def _linear_probe(
    runs: tuple[Run, ...], session: Session, task: Task, measured: list[Record], arrays: list[dict[str, Tensor]]
) -> Logits:
    run = runs[0]
    rows = None if run.budget is None else task.index.unique()
    features = session.features(run, task.train.images, "train", rows).to(session.device)
    held_out = {split: session.features(run, images.images, split) for split, images in task.held_out.items()}
    if run.probe == "optimum":
        val = held_out["val"].to(session.device), task.held_out["val"].labels
        probe = optimal_probe(features, task.train.labels, task.index, targets=task.targets, val=val)
        for k, strength in enumerate(probe.strength):
            measured[k]["l2"] = strength
    else:
        picked = held_out.get(run.selection)
        probe = probe_features(
            features,
            task.train.labels,
            task.index,
            targets=task.targets,
            epochs=run.epochs,
            batch=run.batch,
            lr=run.lr,
            seeds=[r.seed for r in runs],
            select=None if picked is None else (picked, task.held_out[run.selection].labels),
        )
    return {split: probe(held_out[split]).cpu() for split in SPLITS}


def _fine_tune(
    runs: tuple[Run, ...], session: Session, task: Task, measured: list[Record], arrays: list[dict[str, Tensor]]
) -> Logits:
    run, network = runs[0], session.network(runs[0])
    tuned = fine_tune(
        network.model,
        task.train,
        masks=network.masks,
        index=task.index,
        epochs=run.epochs,
        batch=run.batch,
        lr=run.lr,
        seeds=[r.seed for r in runs],
        precision=run.precision,
        device=session.device,
        statistics=backbone(run.model).statistics,
    )
    return {split: tuned(task.held_out[split].images) for split in SPLITS}


# method -> how a cohort is adapted by it: adds to the records and arrays of the members, returns their logits
ADAPTATIONS = {"vp": _visual_prompt, "lp": _linear_probe, "ft": _fine_tune}


def _finish(
    runs: tuple[Run, ...],
    session: Session,
    held_out: dict[str, Images],
    logits: Logits,
    measured: list[Record],
    arrays: list[dict[str, Tensor]],
    start: float,
) -> tuple[Record, ...]:
    """Add the metrics of each run, those of val with a prefix, and those after temperature scaling; write the records."""
    records = []
    for k in range(len(runs)):
        for split, images in held_out.items():
            prefix = "" if split == "test" else f"{split}_"
            measured[k] |= {prefix + name: value for name, value in metrics(logits[split][k], images.labels).items()}
            arrays[k] |= {f"{prefix}logits": logits[split][k].contiguous(), f"{prefix}labels": images.labels}
        measured[k] |= _recalibrated({split: logits[split][k] for split in SPLITS}, held_out)
    stamp = {"seconds": (time.perf_counter() - start) / len(runs), **provenance(session.device)}
    for run, record, kept in zip(runs, measured, arrays, strict=True):
        records.append(session.store.write(run, {**record, **stamp}, kept))
    return tuple(records)


def _recalibrated(logits: dict[str, Tensor], held_out: dict[str, Images]) -> Record:
    """The temperature that val asks for, and what it makes of ECE and NLL on test."""
    tau = recalibration.optimal_temperature(logits["val"], held_out["val"].labels)
    cooled = Predictions.from_logits(logits["test"] / tau, held_out["test"].labels)
    return {"temperature": tau, "ece_temperature": reliability(cooled).ece, "nll_temperature": nll(cooled)}
