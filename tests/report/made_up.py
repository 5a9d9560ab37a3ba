"""Made-up records of a study: what its runs would leave if compression cost what a test says it does."""

from __future__ import annotations

import zlib

import numpy as np
import pandas as pd

from vpcore.calibration.all_metrics import METRICS
from vpcore.data.corruptions import CORRUPTIONS, SEVERITIES
from vpcore.study.profile import Profile
from vpcore.study.run import Run, identity, run_id

CLASSES = {"gtsrb": 43, "oxford_pets": 37, "flowers102": 102, "caltech101": 101, "tiny_imagenet": 200}
ACCURACY = {"vp": 0.25, "lp": 0.5, "ft": 0.7, "source": 0.4}
STAMP = {"commit": "made-up", "versions": "none", "device": "none", "seconds": 1.0, "finished": "2026-01-01T00:00:00+00:00"}
ERRORS = [name for name, metric in METRICS.items() if metric.worse]


def _noise(sd: float, *of: object) -> float:
    """A draw that is the same for the same things."""
    return sd * float(np.random.default_rng(zlib.crc32(repr(of).encode())).standard_normal())


def record(run: Run, *, loss: float, shift: float, gap: float = 0.3, noise: float = 0.004) -> dict[str, object]:
    """The record of a run.

    Args:
        run: of a study.
        loss: of accuracy, where a network is compressed; it grows with what is removed, and by half at one image a class.
        shift: what compression adds to confidence minus accuracy.
        gap: confidence minus accuracy of dense networks at one image a class; 0.1 less for ten times as many.
        noise: of a chain at a task.
    """
    classes, seen = CLASSES.get(run.task, 10), run.budget or 1000
    harm = 0.0 if run.weight_bits == 32 else 0.3 * (8 - run.weight_bits) / 4
    harm += {0: 0.0, 1: 0.4}.get(run.round, 1.0) * (0 if run.sparsifier == "imp-unmasked" else 1)
    lost = harm * (loss * (1.5 if run.budget == 1 else 1) + _noise(noise, run.source_seed, run.task, run.method))
    lost += 0.15 * (run.source_epochs == 3)
    level = 1 / classes + ACCURACY[run.method] * (0.3 + 0.12 * np.log10(seen)) + _noise(0.03, run.task)
    level += 0.02 * (run.selection == "test") - 0.03 * (run.ties == "index") + _noise(noise, run.source_seed, run.task)
    accuracy = float(np.clip(level - lost + _noise(0.003, run), 0.01, 1))
    gap += -0.1 * np.log10(seen) + harm * shift + _noise(0.003, run, "gap")
    ece, size = abs(gap) + 0.01, min(classes, 2 + classes * (0.5 - 0.4 * accuracy))
    measured = dict.fromkeys(ERRORS, ece) | {"nll": 2 - accuracy, "aurc": 1 - accuracy, "ece_temperature": ece / 3}
    row: dict[str, object] = {
        "id": run_id(run), **identity(run), "task": run.task, "seed": run.seed, **STAMP, **measured,
        "density": run.density, "accuracy": accuracy, "confidence": accuracy + gap, "val_accuracy": accuracy + 0.001,
        "val_confidence": accuracy + gap, "ece_debiased": ece - 0.005, "legacy_ece": 1e-3 + (0.1 - gap) * 1e-2,
        "brier_uncertainty": 1 - 1 / classes, "images": 1000, "set_size": size, "set_coverage": 0.9 + _noise(0.01, run),
        "train_images": seen * classes, "nll_temperature": 2 - accuracy,
    }  # fmt: skip
    if run.method == "source":
        return row | {
            "ticket_bytes": 1000,
            "epochs_seen": 12,
            "train_accuracy": accuracy,
            "val_accuracy": 0.4 - 0.002 * harm,
        }
    row |= {"classes": [str(number) for number in range(classes)], "saturated": False}
    if run.method == "vp":
        row["mapped"] = [number + (number % 7 < 3 * harm) for number in range(classes)]
    if run.method == "lp":
        row["cka"] = 1 - 0.3 * harm + _noise(0.01, run.source_seed, run.task)
    if run.robustness_images:
        kinds = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
        row["corruption"] = [f"{name} {severity}" for name, severity in kinds]
        row["corrupted_accuracy"] = [max(accuracy - 0.03 * severity * (1 + 2 * lost), 0.01) for _, severity in kinds]
        row["corrupted_ece"] = [ece + 0.01 * severity for _, severity in kinds]
    return row


def records(profile: Profile, *, loss: float, shift: float) -> pd.DataFrame:
    """The records of all runs of a profile, see `record`."""
    return pd.DataFrame([record(run, loss=loss, shift=shift) for run in profile.runs])
