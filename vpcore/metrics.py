"""Metrics: everything that a record holds about one set of predictions.

Predict once, measure many: `metrics` gives a row of the results table; the functions of `METRICS` give each number alone, to
be put into `scores.interval`. What they mean is told where they are made: `calibration` (with bins; Guo et al. 2017, arXiv
1706.04599), `smooth` (without; Blasiok & Nakkiran 2023, arXiv 2309.12236), `scores` and `legacy`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vpcore.calibration import classwise, reliability, toplabel
from vpcore.legacy import legacy_ece
from vpcore.predictions import Predictions
from vpcore.scores import accuracy, brier, brier_parts, nll, risk_coverage
from vpcore.smooth import ks, smooth

METRICS: dict[str, Callable[[Predictions], float]] = {
    "accuracy": accuracy,
    "confidence": lambda predictions: float(predictions.confidence.mean()),
    "nll": nll,
    "brier": brier,
    "brier_reliability": lambda predictions: brier_parts(predictions).reliability,
    "brier_resolution": lambda predictions: brier_parts(predictions).resolution,
    "brier_uncertainty": lambda predictions: brier_parts(predictions).uncertainty,
    "ece": lambda predictions: reliability(predictions).ece,
    "ece_mass": lambda predictions: reliability(predictions, binning="mass").ece,
    "mce": lambda predictions: reliability(predictions).mce,
    "ece_debiased": lambda predictions: reliability(predictions).ece_debiased,
    "ece_classwise": lambda predictions: classwise(predictions).ece,
    "ece_toplabel": lambda predictions: toplabel(predictions).ece,
    "ece_smooth": lambda predictions: smooth(predictions).ece,
    "ks": ks,
    "aurc": lambda predictions: risk_coverage(predictions).aurc,
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
    bins = reliability(predictions)
    return {
        **{name: metric(predictions) for name, metric in METRICS.items()},
        "legacy_ece": legacy_ece(logits, labels, batch=legacy_batch),
        "images": len(labels),
        "bin_count": bins.count.tolist(),
        "bin_confidence": bins.confidence.tolist(),
        "bin_accuracy": bins.accuracy.tolist(),
    }
