"""Scores: how good predictions are, and how sure we can be of that from N of them.

A proper score is best for the true probabilities, so it measures accuracy and calibration at once:

    NLL = -mean_i log p_i,label           Brier = mean_i sum_t (p_it - [t = label_i])^2                       (Brier 1950)

Brier splits into what calibration costs, what telling samples apart gains, and what the task is worth (Murphy 1973):

    Brier = reliability - resolution + uncertainty

over bins b of the probabilities of each class t, with mean probability p_tb, share of labels y_tb and base rate y_t:
reliability = sum_tb (n_tb / N) (p_tb - y_tb)^2, uncertainty = sum_t y_t (1 - y_t), and resolution = sum_tb (n_tb / N)
(y_tb - y_t)^2 when all probabilities of a bin are equal. When they are not, two terms within bins join the resolution, minus
the variance of the probabilities and plus twice their covariance with the labels, and the sum is exact for any predictions
(Stephenson, Coelho & Jolliffe 2008, Weather and Forecasting 23).

A selective classifier answers where it is most confident. Its risk is the error rate among the answers, its coverage the
share of them; AURC is the mean risk over the coverages 1/N, 2/N, ..., 1 (Geifman & El-Yaniv 2017, arXiv 1705.08500; Geifman
et al. 2019, arXiv 1805.08206).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpcore.calibration.binned import BINS, classwise
from vpcore.calibration.predictions import Predictions, check_predictions
from vpcore.checks import is_real, kind_of, scalar, share, whole_number
from vpcore.errors import InputError


def accuracy(predictions: Predictions) -> float:
    """Share of predictions whose most probable class is the label, in [0, 1].

    >>> accuracy(Predictions.from_logits(torch.tensor([[2.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1])))
    0.5
    """
    return float(predictions.right.mean())


def nll(predictions: Predictions) -> float:
    """Negative log-likelihood in nats; a label of probability 0 counts as the smallest normal float64."""
    likelihood = predictions.probs.gather(1, predictions.labels[:, None]).double()
    return float(-likelihood.clamp(min=torch.finfo(torch.float64).tiny).log().mean())


def brier(predictions: Predictions) -> float:
    """Brier score, the squared distance to the one-hot label summed over classes, in [0, 2]."""
    distances = []
    for probs, labels in zip(predictions.probs.split(256), predictions.labels.split(256), strict=True):
        difference = probs.to(torch.float64, copy=True)  # part by part, in the cache of the processor
        difference[torch.arange(len(labels)), labels] -= 1
        distances.append(difference.square_().sum(1))
    return float(torch.cat(distances).mean())


@dataclass(frozen=True)
class BrierParts:
    """Brier = reliability - resolution + uncertainty.

    Attributes:
        reliability: what miscalibration costs, 0 at best.
        resolution: what telling samples apart gains, within-bin terms included.
        uncertainty: the Brier score of the base rates, a property of the labels alone.
    """

    reliability: float
    resolution: float
    uncertainty: float


def brier_parts(predictions: Predictions, *, bins: int = BINS) -> BrierParts:
    """Split the Brier score, over bins of equal width for each class; exact but for rounding.

    Args:
        predictions: N predictions.
        bins: number of bins for each class.

    Returns:
        The three parts; the resolution is the generalized one of Stephenson et al. (2008), from their identity.

    Raises:
        InputError: for a number of bins that is no whole number of at least 1.

    >>> parts = brier_parts(Predictions.from_probs(torch.eye(2), torch.tensor([0, 1])))
    >>> parts.reliability, parts.resolution, parts.uncertainty
    (0.0, 0.5, 0.5)
    """
    table = classwise(predictions, bins=bins)
    size = len(predictions.labels)
    reliability = float((table.count * (table.confidence - table.accuracy) ** 2).sum() / size)
    rates = torch.bincount(predictions.labels).double() / size
    uncertainty = float((rates * (1 - rates)).sum())
    return BrierParts(reliability, reliability + uncertainty - brier(predictions), uncertainty)


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The curve behind AURC.

    Attributes:
        coverage: (N,) 1/N, 2/N, ..., 1.
        risk: (N,) error rate among the most confident predictions of that share.
    """

    coverage: Tensor
    risk: Tensor

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve, in [0, 1]: the mean risk."""
        return float(self.risk.mean())


def risk_coverage(predictions: Predictions) -> RiskCoverage:
    """Error rate among the most confident predictions, for every coverage.

    Predictions of equal confidence have no order: each counts as the mean error of them all, which is the expected risk over
    their random orders.

    Args:
        predictions: N predictions.

    Returns:
        The curve of N points, in shares of the predictions.

    >>> predictions = Predictions.from_probs(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), torch.tensor([0, 1]))
    >>> risk_coverage(predictions).risk.tolist()
    [0.0, 0.5]
    """
    confidence, order = predictions.confidence.sort(descending=True)
    _, group, size = torch.unique_consecutive(confidence, return_inverse=True, return_counts=True)
    errors = torch.bincount(group, weights=1 - predictions.right[order]) / size
    answered = torch.arange(1, len(order) + 1, dtype=torch.float64)
    return RiskCoverage(answered / len(order), errors[group].cumsum(0) / answered)


@dataclass(frozen=True)
class Interval:
    """A metric of all predictions, and where it may lie as far as N predictions can tell."""

    value: float
    low: float
    high: float


def interval(
    predictions: Predictions,
    metric: Callable[[Predictions], float],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = 1000,
) -> Interval:
    """Percentile bootstrap interval over predictions (Efron 1979): draw N of the N with replacement, measure, repeat.

    The draws depend on `seed` and N alone, so two networks on the same images are resampled alike. An error that noise
    enlarges, such as ECE, is larger still in a resample: the interval of `ece` may lie above its value, that of
    `ece_debiased` is the fairer one.

    Args:
        predictions: N predictions.
        metric: predictions -> number.
        seed: of the draws.
        level: share of resamples inside the interval, in (0, 1).
        resamples: how many.

    Returns:
        The metric of all predictions, and the bounds of the interval.

    Raises:
        InputError: for an argument that is not as told here.

    >>> predictions = Predictions.from_probs(torch.eye(2)[[0] * 100], torch.tensor([0] * 80 + [1] * 20))
    >>> interval(predictions, accuracy, seed=0)
    Interval(value=0.8, low=0.72, high=0.88)
    """
    check_predictions(predictions)
    if not callable(metric):
        raise InputError(f"`metric` must be a function of predictions, such as METRICS['ece'], got {metric!r}")
    level, resamples = share(level, name="level"), whole_number(resamples, name="resamples")
    seed = whole_number(seed, name="seed", least=0)
    generator, size = np.random.default_rng(seed), len(predictions.labels)
    value = scalar(metric(predictions))
    if not is_real(value):
        raise InputError(f"`metric` must give a number, got {kind_of(value)}; use one such as METRICS['ece']")
    drawn = [metric(predictions.take(torch.from_numpy(generator.integers(size, size=size)))) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
