"""Calibration: does a confidence of 0.8 come true in 80 % of the cases?

All metrics take probabilities (N, T), whose rows sum to one, never logits, and are computed over all N predictions at once:
a mean over batches is not an estimate of the whole. For predictions with confidence p_i = max_t p_it that fall into bin b,

    ECE = sum_b (n_b / N) |accuracy_b - confidence_b|                         (Naeini et al. 2015; Guo et al. 2017, eq. 3)
    NLL = -mean_i log p_i,label            Brier = mean_i sum_t (p_it - [t = label_i])^2            (Brier 1950)

Bins are right-closed, ((b-1)/B, b/B], with a confidence of exactly 0 in the first (Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.errors import InputError

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """The bins behind an ECE: what a reliability diagram draws.

    Attributes:
        count: (B,) predictions in each bin.
        confidence: (B,) mean confidence in each bin; 0 where a bin is empty.
        accuracy: (B,) share of right predictions in each bin; 0 where a bin is empty.
    """

    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]."""
        return float((self.count / self.count.sum() * (self.accuracy - self.confidence).abs()).sum())


def check(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The arguments as float64 and int64, refused unless they are probabilities and labels that fit.

    Raises:
        InputError: naming what is wrong; logits are recognised by what probabilities cannot be.
    """
    if probs.ndim != 2 or not len(probs):
        raise InputError(f"`probs` must have the shape (N, T) with N >= 1, got {tuple(probs.shape)}")
    if labels.shape != probs.shape[:1]:
        raise InputError(f"`labels` must have the shape ({len(probs)},), got {tuple(labels.shape)}")
    probs, labels = probs.double(), labels.long()
    if not bool(torch.isfinite(probs).all()):
        raise InputError("`probs` must be finite numbers; there are NaN or infinite ones")
    if bool((probs < -1e-6).any()) or bool(((probs.sum(1) - 1).abs() > 1e-3).any()):
        row = int((probs.sum(1) - 1).abs().argmax())
        raise InputError(
            f"`probs` must be in [0, 1] and each row must sum to 1; row {row} sums to {float(probs[row].sum()):.4g}; "
            "logits? use logits.softmax(1)"
        )
    if bool((labels < 0).any()) or bool((labels >= probs.shape[1]).any()):
        raise InputError(f"`labels` must lie in 0..{probs.shape[1] - 1}, got {int(labels.min())}..{int(labels.max())}")
    return probs, labels


def reliability(probs: Tensor, labels: Tensor, *, bins: int = BINS) -> Reliability:
    """Bin the predictions by their confidence.

    Args:
        probs: (N, T) probabilities.
        labels: (N,) classes.
        bins: number of bins of equal width.

    >>> probs = torch.tensor([[0.8, 0.2], [0.8, 0.2]])
    >>> round(reliability(probs, torch.tensor([0, 1])).ece, 4)  # right half of the time, 80 % sure
    0.3
    """
    probs, labels = check(probs, labels)
    if bins < 1:
        raise InputError(f"`bins` must be at least 1, got {bins}")
    confidence, predicted = probs.max(1)
    # the edges as they are written, b/B; ceil(p * B) would be off by one for p = b/B rounded up
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    number = torch.bucketize(confidence, edges)  # right-closed
    count = torch.bincount(number, minlength=bins).double()
    at_least_one = count.clamp(min=1)
    mean = torch.bincount(number, weights=confidence, minlength=bins) / at_least_one
    right = torch.bincount(number, weights=(predicted == labels).double(), minlength=bins) / at_least_one
    return Reliability(count, mean, right)


def accuracy(probs: Tensor, labels: Tensor) -> float:
    """Share of predictions whose most probable class is the label, in [0, 1]."""
    probs, labels = check(probs, labels)
    return float((probs.argmax(1) == labels).double().mean())


def nll(probs: Tensor, labels: Tensor) -> float:
    """Negative log-likelihood in nats; a label of probability 0 counts as the smallest normal float64."""
    probs, labels = check(probs, labels)
    return float(-probs.gather(1, labels[:, None]).clamp(min=torch.finfo(torch.float64).tiny).log().mean())


def brier(probs: Tensor, labels: Tensor) -> float:
    """Brier score, the squared distance to the one-hot label summed over classes, in [0, 2]."""
    probs, labels = check(probs, labels)
    onehot = torch.nn.functional.one_hot(labels, probs.shape[1])
    return float(((probs - onehot) ** 2).sum(1).mean())


def metrics(logits: Tensor, labels: Tensor) -> dict[str, float | list[float]]:
    """Everything that a record holds about one set of predictions: the metrics, and the bins that give the ECE.

    >>> round(metrics(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))["nll"], 4)
    0.1269
    """
    if not bool(torch.isfinite(logits).all()):
        raise InputError(
            "`logits` must be finite numbers; there are NaN or infinite ones: the network or its training is broken"
        )
    probs = logits.double().softmax(1)
    bins = reliability(probs, labels)
    return {
        "accuracy": accuracy(probs, labels),
        "ece": bins.ece,
        "nll": nll(probs, labels),
        "brier": brier(probs, labels),
        "confidence": float(probs.max(1).values.mean()),
        "images": len(labels),
        "bin_count": bins.count.tolist(),
        "bin_confidence": bins.confidence.tolist(),
        "bin_accuracy": bins.accuracy.tolist(),
    }
