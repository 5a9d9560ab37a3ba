"""Metrics: everything that a record holds about one set of predictions.

Predict once, measure many: `metrics` gives a row of the results table; the functions of `METRICS` give each number alone, to
be put into `scores.interval`. What they mean is told where they are made: `binned` (with bins; Guo et al. 2017, arXiv
1706.04599), `smooth_ece` (without; Blasiok & Nakkiran 2023, arXiv 2309.12236), `scores` and `authors_ece`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vpcore.calibration.authors_ece import legacy_ece
from vpcore.calibration.binned import classwise, reliability, toplabel
from vpcore.calibration.predictions import Predictions, check_predictions
from vpcore.calibration.scores import accuracy, brier, brier_parts, nll, risk_coverage
from vpcore.calibration.smooth_ece import ks, smooth
from vpcore.checks import Array


@dataclass(frozen=True)
class Metric:
    """A number: predictions -> float. A new one is a line of `METRICS`; tables, statistics and figures take it from there.

    Attributes:
        make: what computes it, or something that holds it.
        label: its name in tables and figures.
        worse: True where more is worse, False where more is better, None where neither is.
        read: the attribute of what was made; "" for itself.
        percent: whether it is shown in per cent, as everything but the NLL.
    """

    make: Callable[[Predictions], Any]
    label: str
    worse: bool | None
    read: str = ""
    percent: bool = True

    def of(self, made: Any) -> float:
        """The number, of what `make` has made."""
        return float(getattr(made, self.read) if self.read else made)

    def __call__(self, predictions: Predictions) -> float:
        check_predictions(predictions)
        return self.of(self.make(predictions))


def confidence(predictions: Predictions) -> float:
    """Mean confidence, in [0, 1]."""
    return float(predictions.confidence.mean())


_reliability_mass = functools.partial(reliability, binning="mass")

METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, "accuracy", False),
    "confidence": Metric(confidence, "confidence", None),
    "nll": Metric(nll, "NLL, nats", True, percent=False),
    "brier": Metric(brier, "Brier score", True),
    "brier_reliability": Metric(brier_parts, "Brier score: reliability", True, "reliability"),
    "brier_resolution": Metric(brier_parts, "Brier score: resolution", False, "resolution"),
    "brier_uncertainty": Metric(brier_parts, "Brier score: uncertainty", None, "uncertainty"),
    "ece": Metric(reliability, "ECE, 15 bins of equal width", True, "ece"),
    "ece_mass": Metric(_reliability_mass, "ECE, bins of equal mass", True, "ece"),
    "mce": Metric(reliability, "MCE, the worst bin", True, "mce"),
    "ece_debiased": Metric(reliability, "ECE, debiased", True, "ece_debiased"),
    "ece_classwise": Metric(classwise, "class-wise ECE", True, "ece"),
    "ece_toplabel": Metric(toplabel, "top-label ECE", True, "ece"),
    "ece_smooth": Metric(smooth, "smooth ECE", True, "ece"),
    "ks": Metric(ks, "Kolmogorov-Smirnov error", True),
    "aurc": Metric(risk_coverage, "AURC", True, "aurc"),
}


def metrics(logits: Array, labels: Array, *, legacy_batch: int = 128) -> dict[str, float | list[float]]:
    """The metrics of a record, and the bins that give its ECE.

    Args:
        logits: (N, T); a tensor of any type and device, an array, or lists.
        labels: (N,) classes, 0..T-1.
        legacy_batch: size of the test batches that `legacy_ece` depends on.

    Returns:
        Every name of `METRICS`; `legacy_ece`; `images`, N; `bin_count`, `bin_confidence`, `bin_accuracy`, a list each. The
        `ece` of few images is too large, since noise counts as error: compare `ece_debiased` or `ece_smooth` there.

    Raises:
        InputError: when the logits are not logits, or do not fit the labels.

    >>> round(metrics([[2.0, 0.0]], [0])["nll"], 4)
    0.1269
    """
    predictions = Predictions.from_logits(logits, labels)
    made = {make: make(predictions) for make in dict.fromkeys(metric.make for metric in METRICS.values())}  # each once
    bins = made[reliability]
    return {
        **{name: metric.of(made[metric.make]) for name, metric in METRICS.items()},
        "legacy_ece": legacy_ece(logits, labels, batch=legacy_batch),
        "images": len(labels),
        "bin_count": bins.count.tolist(),
        "bin_confidence": bins.confidence.tolist(),
        "bin_accuracy": bins.accuracy.tolist(),
    }
