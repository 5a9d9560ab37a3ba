"""Calibration: does a confidence of 0.8 come true in 80 % of the cases?

All metrics take `Predictions`: probabilities (N, T), never logits, with their labels, over all N predictions at once: a mean
over batches is not an estimate of the whole (`authors_ece` shows what it does). With confidence c_i = max_t p_it, and
r_i = 1 where the most probable class is the label and 0 elsewhere, sorted by confidence into bins b,

    ECE = sum_b (n_b / N) |mean r - mean c|     MCE = max_b |mean r - mean c|       (Naeini et al. 2015; Guo et al. 2017)

Bins are right-closed, (e_{b-1}, e_b], with a confidence of exactly 0 in the first (Guo et al. 2017, arXiv 1706.04599). Of
equal width: e_b = b / B. Of equal mass (adaptive ECE, Nguyen & O'Connor 2015, arXiv 1508.05154): e_b is the ceil(b N / B)-th
smallest confidence, so that bins differ by one prediction at most; equal confidences are never separated, they all fall
into the first bin that reaches them.

A confident network can be calibrated on average and yet not for any one class. Two finer errors, the same sum over a table
(T, B) of bins: class-wise ECE (static calibration error) bins p_it of every class t, whether predicted or not (Nixon et al.
2019, arXiv 1904.01685; Kull et al. 2019, arXiv 1910.12656); top-label error bins c_i among the predictions of each class
(Gupta & Ramdas 2022, arXiv 2107.08353).

The ECE of few predictions is too large, since noise counts as error. Kumar et al. (2019, arXiv 1909.10155) subtract it: all
of it from a squared error, `squared_debiased`, and part of it from an absolute one, `ece_debiased`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpcore.calibration.predictions import Predictions, check_predictions
from vpcore.checks import whole_number
from vpcore.errors import entry

BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """The bins behind a calibration error: what a reliability diagram draws.

    Attributes:
        edges: (B + 1,) from 0 to 1; bin b is (edges[b], edges[b + 1]].
        count: (B,) predictions in each bin; (T, B) for `classwise` and `toplabel`.
        confidence: like count, the mean confidence in each bin; 0 where a bin is empty.
        accuracy: like count, the share of right predictions in each bin; 0 where a bin is empty.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]; of a (T, B) table, its class-wise or top-label form.

        Of few predictions it is biased upwards, since the noise of the accuracies counts as error: a calibrated network of
        ten classes has about 0.12 on 100 images, and 0.01 on 10,000. `ece_debiased` is the fairer number there, and between
        sets of different sizes.
        """
        return float((self.count / self.count.sum() * (self.accuracy - self.confidence).abs()).sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error, in [0, 1]: the largest gap of any bin, however few predictions it holds."""
        return float((self.accuracy - self.confidence).abs().max())

    @property
    def squared_debiased(self) -> float:
        """Squared L2 calibration error without the noise of the accuracies; can be below 0 (Kumar et al. 2019, section 5).

        sum_b (n_b / N) ((a_b - c_b)^2 - a_b (1 - a_b) / (n_b - 1)), where a bin with fewer than two predictions adds 0.
        """
        noise = self.accuracy * (1 - self.accuracy) / (self.count - 1).clamp(min=1)
        squared = (self.accuracy - self.confidence) ** 2 - noise
        return float((self.count * squared)[self.count > 1].sum() / self.count.sum())

    @property
    def ece_debiased(self) -> float:
        """2 ECE - E[ECE*]: the ECE less part of what noise adds to it; can be below 0 (Kumar et al. 2019, their p = 1).

        ECE* is the ECE of accuracies drawn from a normal with mean a_b and variance s_b^2 = a_b (1 - a_b) / n_b. They
        simulate it; the mean of a folded normal gives it in closed form: with g = a_b - c_b,
        E|g*| = s sqrt(2 / pi) exp(-g^2 / 2 s^2) + g erf(g / (s sqrt 2)).
        Where the gaps are all noise, 2 - sqrt 2 = 59 % of the ECE remains; where they are all error, all of it.
        """
        gap = self.accuracy - self.confidence
        noise = (self.accuracy * (1 - self.accuracy) / self.count.clamp(min=1)).sqrt()
        z = gap / noise.clamp(min=1e-12)
        folded = noise * math.sqrt(2 / math.pi) * torch.exp(-z.square() / 2) + gap * torch.erf(z / math.sqrt(2))
        return float((self.count / self.count.sum() * (2 * gap.abs() - folded)).sum())


def _equal_width(confidence: Tensor, bins: int) -> Tensor:
    # the edges as they are written, b / B; ceil(p * B) would be off by one for p = b / B rounded up
    return torch.arange(bins + 1, dtype=torch.float64) / bins


def _equal_mass(confidence: Tensor, bins: int) -> Tensor:
    size = len(confidence)
    last = torch.tensor([-(-b * size // bins) - 1 for b in range(1, bins)], dtype=torch.int64)
    return torch.cat([torch.zeros(1), confidence.sort().values[last], torch.ones(1)])


BINNINGS: dict[str, Callable[[Tensor, int], Tensor]] = {"width": _equal_width, "mass": _equal_mass}


def _edges(confidence: Tensor, bins: int, binning: str = "width") -> Tensor:
    return entry("binning", binning, BINNINGS)(confidence, whole_number(bins, name="bins", most=10**6))


def _bin(values: Tensor, edges: Tensor) -> Tensor:
    return torch.bucketize(values, edges[1:-1])  # right-closed


def _total(number: Tensor, shape: tuple[int, ...], weights: Tensor | None = None) -> Tensor:
    """Sums of weights, or of ones, over the values in each bin."""
    return torch.bincount(number, weights=weights, minlength=math.prod(shape)).double().view(shape)


def _means(edges: Tensor, count: Tensor, confidence: Tensor, right: Tensor) -> Reliability:
    """The means of sums over the predictions of each bin; an empty bin has the means 0."""
    sums, some = count.clamp(min=1), count > 0
    return Reliability(edges, count, confidence / sums * some, right / sums * some)


def reliability(predictions: Predictions, *, bins: int = BINS, binning: str = "width") -> Reliability:
    """Bin the predictions by their confidence.

    Args:
        predictions: N predictions.
        bins: number of bins, B.
        binning: a name of `BINNINGS`: "width" for equal width, "mass" for equal mass.

    Returns:
        (B,) bins; empty ones are kept.

    Raises:
        InputError: for what are no predictions, no bins, or an unknown binning.

    >>> probs = torch.tensor([[0.8, 0.2], [0.8, 0.2]])
    >>> round(reliability(Predictions.from_probs(probs, torch.tensor([0, 1]))).ece, 4)  # right half of the time, 80 % sure
    0.3
    """
    check_predictions(predictions)
    return _binned(predictions, _edges(predictions.confidence, bins, binning), (bins,))


def toplabel(predictions: Predictions, *, bins: int = BINS) -> Reliability:
    """Bin the confidences of each predicted class, in bins of equal width (Gupta & Ramdas 2022).

    Args:
        predictions: N predictions.
        bins: number of bins for each class, B.

    Returns:
        (T, B) bins that hold N predictions; its ECE is the mean of the classes' ECEs, each weighted by its predictions.

    Raises:
        InputError: for a number of bins that is no whole number of at least 1.
    """
    return _binned(predictions, _edges(predictions.confidence, bins), (predictions.probs.shape[1], bins))


def _binned(predictions: Predictions, edges: Tensor, shape: tuple[int, ...]) -> Reliability:
    """The confidences in (B,) bins, or in those of the predicted class, (T, B)."""
    number = _bin(predictions.confidence, edges)
    if len(shape) == 2:
        number += predictions.predicted * shape[1]
    return _means(edges, *(_total(number, shape, w) for w in (None, predictions.confidence, predictions.right)))


def classwise(predictions: Predictions, *, bins: int = BINS) -> Reliability:
    """Bin the probabilities of each class, in bins of equal width (static calibration error, Nixon et al. 2019).

    Args:
        predictions: N predictions.
        bins: number of bins for each class, B.

    Returns:
        (T, B) bins that hold N * T probabilities; accuracy is the share of labels of that class. Its ECE is the plain mean
        of the classes' ECEs; a class without samples counts with the probability it was given.

    Raises:
        InputError: for a number of bins that is no whole number of at least 1.
    """
    probs, labels = predictions.probs, predictions.labels
    edges, shape = _edges(predictions.confidence, bins), (probs.shape[1], bins)
    # A row sums to 1, so that fewer than B of its T probabilities are above 1 / B: only these are sorted into bins, and the
    # first bin of a class is what is left of its N probabilities.
    flat = probs.numpy().ravel()
    high = torch.from_numpy(np.flatnonzero(flat > edges[1].numpy()))
    value = probs.view(-1)[high].double()
    number = high % shape[0] * bins + _bin(value, edges)
    count, total = _total(number, shape), _total(number, shape, value)
    count[:, 0] = len(labels) - count[:, 1:].sum(1)
    total[:, 0] = sum(part.double().sum(0) for part in probs.split(256)) - total[:, 1:].sum(1)
    hit = labels * bins + _bin(probs.gather(1, labels[:, None])[:, 0].double(), edges)
    return _means(edges, count, total, _total(hit, shape))
