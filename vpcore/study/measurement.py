"""What a job computes: the measurement of a network on its source task, or a cohort of transfers on it.

Predictions are made once, metrics follow from them; both are kept. Test images serve for nothing but the one evaluation at
the end; `selection = "test"`, which shows what the authors' choice of an epoch does, is the exception.

The records of a job are written at its end, in one file: all of its runs are done, or none is. `seconds` of a record are
the run's share of its job. Those of a transfer do not count the reading of the images of its task, which are decoded once
and cached for all runs; those on the source task count everything, the making of the ticket as well.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from vpcore.calibration import recalibration
from vpcore.calibration.all_metrics import metrics
from vpcore.calibration.binned import reliability
from vpcore.calibration.conformal import conformal_sets
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import accuracy, nll
from vpcore.data.corruptions import CORRUPTIONS, SEVERITIES
from vpcore.data.images import Images
from vpcore.data.splits import saturated, shots
from vpcore.errors import InputError
from vpcore.networks.training import predict
from vpcore.prompting.prompts import input_px
from vpcore.study.adaptation import ADAPTATIONS, Adapted, Arrays, Task, some
from vpcore.study.chains import make_ticket
from vpcore.study.provenance import code, provenance
from vpcore.study.run import Run
from vpcore.study.session import Session
from vpcore.study.store import Record

TRAIN_IMAGES_MEASURED = 5000  # the training accuracy is measured on about so many images
SPLITS = ("test", "val")
COVERAGE = 0.9  # of conformal sets
Logits = dict[str, Tensor]  # split -> (K, N, T)


def measure_source(run: Run, session: Session) -> list[Record]:
    """Measure the network of a run on its source task; its ticket is made if there is none."""
    start = time.perf_counter()
    make_ticket(run, session)
    network = session.network(run)
    train = session.source_images(run, "train")
    few = shots(train.labels, max(1, TRAIN_IMAGES_MEASURED // len(train.labels.unique())), task=run.source, seed=0)
    fitted = Predictions.from_logits(predict(network.frozen, train.images[few], device=session.device), train.labels[few])
    facts: Record = {
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
    adapted = Adapted(lambda images, split: predict(network.frozen, images, device=session.device)[None], [facts], [{}])
    _finish((run,), session, held_out, adapted, start)
    return session.store.write((run,), adapted.facts, adapted.arrays)


def adapt(runs: tuple[Run, ...], session: Session) -> list[Record]:
    """Adapt the frozen network for every member of a cohort, predict test and val once, and write all records together."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(run.task, []).append(run)
    together: dict[tuple[int, int], list[Task]] = {}
    for own in members.values():
        task = _task(tuple(own), session)
        together.setdefault(task.shape, []).append(task)
    found: dict[Run, tuple[Record, Arrays]] = {}
    for tasks in together.values():
        for task, adapted in zip(tasks, _adapt_together(tasks, session), strict=True):
            found |= zip(task.runs, zip(adapted.facts, adapted.arrays, strict=True), strict=True)
    return session.store.write(runs, [found[run][0] for run in runs], [found[run][1] for run in runs])


def _task(runs: tuple[Run, ...], session: Session) -> Task:
    """The task of members that differ in their seed alone, and their images of it."""
    run, px = runs[0], image_side(runs[0])
    train = session.images(run.task, "train", px=px)
    held_out = {split: session.images(run.task, split, px=px, per_class=run.test_per_class) for split in SPLITS}
    for split, images in held_out.items():
        if not len(images):
            raise InputError(
                f"`task` {run.task} must have images in its split {split}, got none; {split} is cut from what a class has, "
                "so use a set with at least 5 images a class"
            )
    index = torch.stack([shots(train.labels, run.budget, task=run.task, seed=r.seed) for r in runs])
    return Task(runs, train, index, held_out)


def _adapt_together(tasks: list[Task], session: Session) -> list[Adapted]:
    """Adapt to tasks of one shape in one pass, and measure each."""
    run, start = tasks[0].runs[0], time.perf_counter()
    company = [f"{r.task} {r.seed}" for task in tasks for r in task.runs]
    found = ADAPTATIONS[run.method](tasks, session)
    each = (time.perf_counter() - start) / len(company)
    for task, adapted in zip(tasks, found, strict=True):
        start = time.perf_counter() - each * len(task.runs)  # its share of what was done together
        shared: Record = {
            "density": session.network(run).density,
            "train_images": task.index.shape[1],
            "saturated": saturated(task.train.labels, run.budget),
            "classes": list(task.train.classes),
            "data": session.data_digest(task.runs[0].task),
        }
        if len(tasks) > 1:
            shared["company"] = company
        for facts, arrays, rows in zip(adapted.facts, adapted.arrays, task.index, strict=True):
            facts |= shared
            arrays["index"] = rows
        _finish(task.runs, session, task.held_out, adapted, start)
    return found


def image_side(run: Run) -> int:
    """The side, in pixels, at which the images of the task are read."""
    if run.method == "vp":
        return input_px(run.prompt, canvas=run.canvas, image_px=run.image_px)
    return run.image_px if run.method == "lp" and run.view == "canvas" else run.canvas


def _finish(runs: tuple[Run, ...], session: Session, held_out: dict[str, Images], adapted: Adapted, start: float) -> None:
    """Add what a record holds to the facts of each run: its metrics, those of val with a prefix, provenance, ..."""
    run, logits = runs[0], {split: adapted.predict(images.images, split) for split, images in held_out.items()}
    if run.robustness_images:
        _corrupted(run, session, held_out["test"], adapted)
    for k, (facts, arrays) in enumerate(zip(adapted.facts, adapted.arrays, strict=True)):
        for split, images in held_out.items():
            prefix = "" if split == "test" else f"{split}_"
            facts |= {prefix + name: value for name, value in metrics(logits[split][k], images.labels).items()}
            arrays |= {f"{prefix}logits": logits[split][k].contiguous(), f"{prefix}labels": images.labels}
        facts |= _recalibrated({split: logits[split][k] for split in SPLITS}, held_out)
        sets = conformal_sets(logits["val"][k], held_out["val"].labels, logits["test"][k], level=COVERAGE)
        covered = sets.covered(held_out["test"].labels)
        facts |= {"set_size": float(sets.size.double().mean()), "set_coverage": float(covered.double().mean())}
        arrays |= {"set_size": sets.size, "covered": covered}
    stamp = {
        "cohort": [r.seed for r in runs],
        "ticket": session.ticket_digest(run),
        "source_data": session.data_digest(run.source),
        "seconds": (time.perf_counter() - start) / len(runs),
        "code": code(),
        **provenance(session.device),
    }
    for facts in adapted.facts:
        facts |= stamp


def _recalibrated(logits: Logits, held_out: dict[str, Images]) -> Record:
    """The temperature that is optimal on val, and the ECE and NLL on test at this temperature."""
    tau = recalibration.optimal_temperature(logits["val"], held_out["val"].labels)
    cooled = Predictions.from_logits(logits["test"] / tau, held_out["test"].labels)
    return {"temperature": tau, "ece_temperature": reliability(cooled).ece, "nll_temperature": nll(cooled)}


def _corrupted(run: Run, session: Session, test: Images, adapted: Adapted) -> None:
    """Add accuracy and ECE on corrupted test images, by corruption and severity, and the result for every image."""
    few = some(test, run.robustness_images)
    labels, cohort = test.labels[few], len(adapted.facts)
    kinds = session.corrupted(run.task, test, few)
    shape = (cohort, len(CORRUPTIONS), len(SEVERITIES), len(few))
    right, confidence = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape)
    found: list[list[Predictions]] = [[] for _ in range(cohort)]
    for place, (name, severity, images) in enumerate(kinds):
        logits = adapted.predict(images, f"{name} {severity}")
        row, column = divmod(place, len(SEVERITIES))
        for k in range(cohort):
            predictions = Predictions.from_logits(logits[k], labels)
            right[k, row, column], confidence[k, row, column] = predictions.right, predictions.confidence
            found[k].append(predictions)
    for k, (facts, arrays) in enumerate(zip(adapted.facts, adapted.arrays, strict=True)):
        facts |= {
            "corruption": [f"{name} {severity}" for name, severity, _ in kinds],
            "corrupted_accuracy": [accuracy(predictions) for predictions in found[k]],
            "corrupted_ece": [reliability(predictions).ece for predictions in found[k]],
        }
        arrays |= {"corrupted_right": right[k].contiguous(), "corrupted_confidence": confidence[k].contiguous()}
