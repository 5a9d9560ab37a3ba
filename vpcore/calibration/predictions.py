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

from vpcore.checks import Array, as_labels, as_tensor
from vpcore.errors import InputError

RANGE = 1e-6  # how far a probability may lie outside [0, 1]
SUM = 1e-3  # how far the sum of a row may be from 1; half precision needs it


def _are_probs(values: Tensor) -> bool:
    low, high = map(float, values.aminmax())
    return low >= -RANGE and high <= 1 + RANGE and bool(((values.sum(1) - 1).abs() <= SUM).all())


def real_matrix(values: Array, *, name: str) -> Tensor:
    """Logits or probabilities as an (N, T) tensor on the CPU, in float32 or float64: halves and integers are widened.

    Args:
        values: (N, T) numbers: a tensor of any type and device, an array, or lists.
        name: of the argument, for the message.

    Raises:
        InputError: naming what is wrong: the type, the shape, no sample, numbers that are not finite.
    """
    values = as_tensor(values, name=name)
    if values.ndim != 2 or not values.numel():
        hints = {1: f"; of one image? use {name}[None]", 3: f"; of K networks? take them one by one, {name}[0], ..."}
        raise InputError(
            f"`{name}` must have the shape (N, T) with N >= 1 and T >= 1, got {tuple(values.shape)}"
            f"{hints.get(values.ndim, '') if values.numel() else '; there are no predictions to measure'}"
        )
    if values.is_complex() or values.dtype == torch.bool:
        raise InputError(f"`{name}` must be real numbers, got {values.dtype}")
    values = values.detach().cpu().contiguous()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.double()
    if not all(math.isfinite(bound) for bound in map(float, values.aminmax())):
        raise InputError(
            f"`{name}` must be finite numbers; there are NaN or infinite ones: the network or its training is broken"
        )
    return values


def as_logits(logits: Array, *, name: str = "logits", classes: int | None = None) -> Tensor:
    """Logits as `real_matrix` gives them.

    Args:
        logits: (N, T) numbers.
        name: of the argument, for the message.
        classes: T of the validation logits that they go with; None for any number.

    Raises:
        InputError: for what `real_matrix` refuses, for another number of classes, and for probabilities.
    """
    logits = real_matrix(logits, name=name)
    if classes not in (None, logits.shape[1]):
        raise InputError(f"`{name}` must have the {classes} classes of the validation logits, got {logits.shape[1]}")
    if logits.shape[1] > 1 and _are_probs(logits):
        raise InputError(
            f"`{name}` must be logits, but all rows lie in [0, 1] and sum to 1; probabilities? use from_probs for metrics, "
            "and their logarithm where logits are needed"
        )
    return logits


def labels_of(values: Tensor, labels: Array, *, name: str = "labels") -> Tensor:
    """The (N,) int64 labels of (N, T) logits, probabilities or sets; raises an `InputError` for what does not fit."""
    return as_labels(labels, name=name, size=values.shape[0], classes=values.shape[1])


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
    def from_logits(cls, logits: Array, labels: Array) -> Predictions:
        """Take the softmax of logits, in float64.

        Args:
            logits: (N, T), N and T at least 1; a tensor of any type and device, an array, or lists.
            labels: (N,) whole numbers in 0..T-1.

        Raises:
            InputError: when a number is not finite or not real, the shapes or labels don't fit, or all rows are
                probabilities already.

        >>> Predictions.from_logits(torch.tensor([[0.0, 2.0]]), torch.tensor([0])).predicted.tolist()
        [1]
        """
        logits = as_logits(logits)
        return cls._of(torch.softmax(logits, 1, dtype=torch.float64), labels_of(logits, labels))

    @classmethod
    def from_probs(cls, probs: Array, labels: Array) -> Predictions:
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
        probs = real_matrix(probs, name="probs")
        labels = labels_of(probs, labels)
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


def check_predictions(predictions: object) -> None:
    """Accept predictions; raises an `InputError` for anything else, such as logits."""
    if not isinstance(predictions, Predictions):
        raise InputError(f"`predictions` must be Predictions, got {type(predictions).__name__}; use Predictions.from_logits")
