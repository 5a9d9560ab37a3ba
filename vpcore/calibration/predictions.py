"""Predictions: what every metric takes, as a value that is checked once.

Logits are never probabilities: which of the two a matrix holds is said by the constructor, and refused when it cannot be so.

    p_it = exp(z_it) / sum_s exp(z_is)                  probabilities (N, T) from logits (N, T)

A softmax in float32 rounds a confidence near 1 to 1; from logits it is therefore taken in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.errors import InputError

RANGE = 1e-6  # how far a probability may lie outside [0, 1]
SUM = 1e-3  # how far the sum of a row may be from 1; half precision needs it


def _are_probs(values: Tensor) -> bool:
    low, high = map(float, values.aminmax())
    return low >= -RANGE and high <= 1 + RANGE and bool(((values.sum(1) - 1).abs() <= SUM).all())


def check(values: Tensor, labels: Tensor, *, name: str) -> tuple[Tensor, Tensor]:
    """Logits or probabilities (N, T) and labels (N,) that fit each other, on the CPU, in float32 or float64 and int64.

    Raises:
        InputError: naming what is wrong: shapes, no sample, numbers that are not finite, labels out of range.
    """
    if values.ndim != 2 or not values.numel():
        raise InputError(f"`{name}` must have the shape (N, T) with N >= 1 and T >= 1, got {tuple(values.shape)}")
    if labels.shape != values.shape[:1]:
        raise InputError(f"`labels` must have the shape ({len(values)},), got {tuple(labels.shape)}")
    if labels.is_floating_point():
        raise InputError(f"`labels` must be whole numbers, got {labels.dtype}; use labels.long()")
    values, labels = values.detach().cpu().contiguous(), labels.cpu().long()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.double()
    if not all(math.isfinite(bound) for bound in map(float, values.aminmax())):
        raise InputError(
            f"`{name}` must be finite numbers; there are NaN or infinite ones: the network or its training is broken"
        )
    lowest, highest = map(int, labels.aminmax())
    if lowest < 0 or highest >= values.shape[1]:
        raise InputError(f"`labels` must lie in 0..{values.shape[1] - 1}, got {lowest}..{highest}")
    return values, labels


def check_logits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, T) and labels (N,) as `check` gives them.

    Raises:
        InputError: for what `check` refuses, and for probabilities.
    """
    logits, labels = check(logits, labels, name="logits")
    if logits.shape[1] > 1 and _are_probs(logits):
        raise InputError(
            "`logits` must be logits, but all rows lie in [0, 1] and sum to 1; probabilities? use from_probs for metrics, "
            "and their logarithm where logits are needed"
        )
    return logits, labels


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities and labels, checked once: made by `from_logits` or `from_probs`, and by nothing else.

    Attributes:
        probs: (N, T) float64 in [0, 1], rows sum to 1; float32 ones that were given stay float32 and are widened where they
            are added up.
        labels: (N,) int64 in 0..T-1.
        predicted: (N,) int64, the most probable class, the first of equal ones.
        confidence: (N,) float64, its probability.
    """

    probs: Tensor
    labels: Tensor
    predicted: Tensor
    confidence: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, labels: Tensor) -> Predictions:
        """Take the softmax of logits, in float64.

        Args:
            logits: (N, T), N and T at least 1.
            labels: (N,) whole numbers in 0..T-1.

        Raises:
            InputError: when a number is not finite, the shapes or labels don't fit, or all rows are probabilities already.

        >>> Predictions.from_logits(torch.tensor([[0.0, 2.0]]), torch.tensor([0])).predicted.tolist()
        [1]
        """
        logits, labels = check_logits(logits, labels)
        return cls._of(torch.softmax(logits, 1, dtype=torch.float64), labels)

    @classmethod
    def from_probs(cls, probs: Tensor, labels: Tensor) -> Predictions:
        """Take probabilities as they are, without a copy.

        Args:
            probs: (N, T) in [0, 1], each row with the sum 1, N and T at least 1.
            labels: (N,) whole numbers in 0..T-1.

        Raises:
            InputError: when a number is outside [0, 1], a row does not sum to 1, or the shapes or labels don't fit.

        >>> Predictions.from_probs(torch.tensor([[2.0, 1.0]]), torch.tensor([0]))
        Traceback (most recent call last):
        vpcore.errors.InputError: `probs` must be in [0, 1] and each row must sum to 1; row 0 is in 1..2 and sums to 3; \
logits? use Predictions.from_logits
        """
        probs, labels = check(probs, labels, name="probs")
        if not _are_probs(probs):
            row = next(row for row in range(len(probs)) if not _are_probs(probs[row : row + 1]))
            low, high = map(float, probs[row].aminmax())
            raise InputError(
                f"`probs` must be in [0, 1] and each row must sum to 1; row {row} is in {low:.4g}..{high:.4g} and "
                f"sums to {float(probs[row].sum()):.4g}; logits? use Predictions.from_logits"
            )
        return cls._of(probs, labels)

    @classmethod
    def _of(cls, probs: Tensor, labels: Tensor) -> Predictions:
        # NumPy's argmax is vectorised, torch's is not (6 times slower); both take the first of equal ones
        predicted = torch.from_numpy(probs.numpy().argmax(1))
        return cls(probs, labels, predicted, probs.gather(1, predicted[:, None])[:, 0].double())

    @property
    def right(self) -> Tensor:
        """(N,) float64: 1 where the predicted class is the label, 0 elsewhere."""
        return (self.predicted == self.labels).double()

    def take(self, rows: Tensor) -> Predictions:
        """The predictions at `rows`, (M,) int64; a row may come more than once."""
        return Predictions(self.probs[rows], self.labels[rows], self.predicted[rows], self.confidence[rows])
