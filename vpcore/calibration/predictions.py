"""Predictions: what every metric takes, as a value that is checked once.

Logits are never probabilities: which of the two a matrix holds is said by the constructor, and refused when it cannot be so.

    p_it = exp(z_it) / sum_s exp(z_is)                  probabilities (N, T) from logits (N, T)

A softmax in float32 rounds a confidence near 1 to 1; from logits it is therefore taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpcore.errors import InputError

Array = Tensor | np.ndarray | Sequence[Any]  # what logits and labels may be given as
RANGE = 1e-6  # how far a probability may lie outside [0, 1]
SUM = 1e-3  # how far the sum of a row may be from 1; half precision needs it


def _are_probs(values: Tensor) -> bool:
    low, high = map(float, values.aminmax())
    return low >= -RANGE and high <= 1 + RANGE and bool(((values.sum(1) - 1).abs() <= SUM).all())


def as_tensor(values: Array, *, name: str) -> Tensor:
    """A tensor as it is, an array or lists of numbers as a tensor, copied only where it must be.

    Raises:
        InputError: for anything else.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must be a tensor, an array, or lists of numbers of equal length ({error})") from error


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
        raise InputError(f"`{name}` must have the shape (N, T) with N >= 1 and T >= 1, got {tuple(values.shape)}")
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


def as_logits(logits: Array, *, name: str = "logits") -> Tensor:
    """Logits as `real_matrix` gives them.

    Raises:
        InputError: for what `real_matrix` refuses, and for probabilities.
    """
    logits = real_matrix(logits, name=name)
    if logits.shape[1] > 1 and _are_probs(logits):
        raise InputError(
            f"`{name}` must be logits, but all rows lie in [0, 1] and sum to 1; probabilities? use from_probs for metrics, "
            "and their logarithm where logits are needed"
        )
    return logits


def as_labels(labels: Array, shape: Sequence[int], *, name: str = "labels") -> Tensor:
    """Labels as an (N,) int64 tensor on the CPU.

    Args:
        labels: (N,) whole numbers: a tensor, an array, or a list.
        shape: (N, T), of the logits or probabilities.
        name: of the argument, for the message.

    Raises:
        InputError: naming what is wrong: the shape, the type, a label outside 0..T-1.
    """
    labels, (size, classes) = as_tensor(labels, name=name), shape
    if labels.shape != (size,):
        hint = f"; one-hot? use {name}.argmax(1)" if labels.shape == (size, classes) else ""
        raise InputError(f"`{name}` must have the shape ({size},), got {tuple(labels.shape)}{hint}")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"`{name}` must be whole numbers, got {labels.dtype}; use {name}.long()")
    labels = labels.cpu().long()
    lowest, highest = map(int, labels.aminmax())
    if lowest < 0 or highest >= classes:
        raise InputError(f"`{name}` must lie in 0..{classes - 1}, got {lowest}..{highest}")
    return labels


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
        return cls._of(torch.softmax(logits, 1, dtype=torch.float64), as_labels(labels, logits.shape))

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
        labels = as_labels(labels, probs.shape)
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
