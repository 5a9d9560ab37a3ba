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

from torch import Tensor

from vpcore.calibration.authors_ece import legacy_ece
from vpcore.calibration.binned import classwise, reliability, toplabel
from vpcore.calibration.predictions import Predictions
from vpcore.calibration.scores import accuracy, brier, brier_parts, nll, risk_coverage
from vpcore.calibration.smooth_ece import ks, smooth


@dataclass(frozen=True)
class Metric:
    """A number: predictions -> float.

    Attributes:
        make: what computes it, or something that holds it.
        read: the attribute of what was made; "" for itself.
    """

    make: Callable[[Predictions], Any]
    read: str = ""

    def of(self, made: Any) -> float:
        """The number, of what `make` has made."""
        return float(getattr(made, self.read) if self.read else made)

    def __call__(self, predictions: Predictions) -> float:
        return self.of(self.make(predictions))


_reliability_mass = functools.partial(reliability, binning="mass")

METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy),
    "confidence": Metric(lambda predictions: predictions.confidence.mean()),
    "nll": Metric(nll),
    "brier": Metric(brier),
    "brier_reliability": Metric(brier_parts, "reliability"),
    "brier_resolution": Metric(brier_parts, "resolution"),
    "brier_uncertainty": Metric(brier_parts, "uncertainty"),
    "ece": Metric(reliability, "ece"),
    "ece_mass": Metric(_reliability_mass, "ece"),
    "mce": Metric(reliability, "mce"),
    "ece_debiased": Metric(reliability, "ece_debiased"),
    "ece_classwise": Metric(classwise, "ece"),
    "ece_toplabel": Metric(toplabel, "ece"),
    "ece_smooth": Metric(smooth, "ece"),
    "ks": Metric(ks),
    "aurc": Metric(risk_coverage, "aurc"),
}


def metrics(logits: Tensor, labels: Tensor, *, legacy_batch: int = 128) -> dict[str, float | list[float]]:
    """The metrics of a record, and the bins that give its ECE.

    Args:
        logits: (N, T).
        labels: (N,) classes.
        legacy_batch: size of the test batches that `legacy_ece` depends on.

    Returns:
        Every name of `METRICS`; `legacy_ece`; `images`, N; `bin_count`, `bin_confidence`, `bin_accuracy`, a list each.

    Raises:
        InputError: when the logits are not logits, or do not fit the labels.

    >>> import torch
    >>> round(metrics(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))["nll"], 4)
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
