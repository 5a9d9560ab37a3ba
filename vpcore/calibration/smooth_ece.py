"""Calibration without bins: smooth ECE and the Kolmogorov-Smirnov error.

The value of a binned ECE jumps when an edge moves past a prediction. Two errors of the same confidences c_i and outcomes r_i
that have no edges:

    smECE = integral_0^1 |g(t)| dt,  g(t) = (1/N) sum_i (r_i - c_i) K(t, c_i; s)  (Blasiok & Nakkiran 2023, arXiv 2309.12236)
    KS    = max_u |(1/N) sum_{c_i <= u} (r_i - c_i)|                              (Gupta et al. 2021, arXiv 2006.12800)

K is a Gaussian of width s, reflected at 0 and 1. smECE falls as s grows, and the width is where the two are equal,
s = smECE(s): the error that is found is as large as the scale at which it was looked for. Between 0 and 1 the reflected
Gaussian is the heat kernel, so that smoothing multiplies the k-th cosine coefficient by exp(-(pi k s)^2 / 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import dct
from scipy.optimize import brentq
from torch import Tensor

from vpcore.calibration.predictions import Predictions
from vpcore.checks import is_real, scalar
from vpcore.errors import InputError

GRID = 4096  # intervals of [0, 1]; a width below 1 / GRID is not resolved


@dataclass(frozen=True, eq=False)
class Smooth:
    """The curve behind a smooth ECE: what a reliability diagram without bins draws.

    Attributes:
        width: s of the kernel, in units of confidence.
        confidence: (GRID + 1,) points t from 0 to 1.
        density: (GRID + 1,) smoothed density of the confidences, with integral 1.
        gap: (GRID + 1,) g(t); the accuracy near t is about t + gap / density.
    """

    width: float
    confidence: Tensor
    density: Tensor
    gap: Tensor

    @property
    def ece(self) -> float:
        """Smooth expected calibration error, in [0, 1]."""
        return float(torch.trapezoid(self.gap.abs(), dx=1 / GRID))


def smooth(predictions: Predictions, *, width: float | None = None) -> Smooth:
    """Smooth the calibration error of the predictions over their confidence.

    Args:
        predictions: N predictions.
        width: of the kernel, at least 1 / GRID; None for the one that equals its smooth ECE.

    Returns:
        The curve; its `ece` is smECE.

    Raises:
        InputError: for a width that the grid does not resolve.

    >>> certain = Predictions.from_probs(torch.eye(2)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1]))
    >>> round(smooth(certain).ece, 4)  # 100 % sure, 75 % right
    0.25
    """
    width = scalar(width)
    if width is not None and not (is_real(width) and 1 / GRID <= width < math.inf):
        raise InputError(
            f"`width` must be a number of at least 1 / {GRID}, got {width!r}; in units of confidence, 0.05 for example"
        )
    confidence = predictions.confidence.numpy()
    residuals = _cosines(confidence, predictions.right.numpy() - confidence)
    if width is None:
        width = _fixed_point(residuals)
    density = _smoothed(_cosines(confidence, np.ones_like(confidence)), width)
    points = torch.linspace(0, 1, GRID + 1, dtype=torch.float64)
    return Smooth(width, points, torch.from_numpy(density), torch.from_numpy(_smoothed(residuals, width)))


def _cosines(confidence: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(GRID + 1,) coefficients (1/N) sum_i w_i cos(pi k c_i), each w_i shared between the two grid points beside c_i."""
    position = confidence * GRID
    cell = position.astype(np.int64).clip(0, GRID - 1)
    upper = (position - cell) * weights
    mass = np.bincount(cell, weights - upper, GRID + 1) + np.bincount(cell + 1, upper, GRID + 1)
    mass[[0, -1]] *= 2  # the transform counts inner points twice
    return dct(mass, type=1) / (2 * len(confidence))


def _smoothed(cosines: np.ndarray, width: float) -> np.ndarray:
    return dct(cosines * np.exp(-((np.pi * np.arange(GRID + 1) * width) ** 2) / 2), type=1)


def _fixed_point(residuals: np.ndarray) -> float:
    def excess(width: float) -> float:
        return float(np.trapezoid(np.abs(_smoothed(residuals, width)), dx=1 / GRID)) - width

    # no smECE is above 1, so that the excess is below 0 at 2; where it is so at the finest width, that is the width
    return brentq(excess, 1 / GRID, 2, xtol=1e-9) if excess(1 / GRID) > 0 else 1 / GRID


def cumulative_gap(predictions: Predictions) -> tuple[Tensor, Tensor]:
    """What a KS error is the largest value of: the sum of r_i - c_i over confidences up to u, over N.

    Args:
        predictions: N predictions.

    Returns:
        (M,) the distinct confidences u in increasing order, and (M,) the sums.
    """
    confidence, order = predictions.confidence.sort()
    sums = (predictions.right[order] - confidence).cumsum(0) / len(confidence)
    last = torch.cat([confidence[1:] != confidence[:-1], torch.tensor([True])])  # of equal confidences
    return confidence[last], sums[last]


def ks(predictions: Predictions) -> float:
    """Kolmogorov-Smirnov calibration error, in [0, 1]; equal confidences enter together, so their order does not matter."""
    return float(cumulative_gap(predictions)[1].abs().max())
