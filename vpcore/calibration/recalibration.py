"""Recalibration: confidences corrected on validation data, for a network that stays as it is.

Each fit takes validation logits z (N, T) and labels, and returns a function from logits to probabilities:

    temperature   softmax(z / tau): one number, the argmax stays as it is         (Guo et al. 2017, arXiv 1706.04599)
    vector        softmax(w * z / tau + b): 2 T numbers                           (the same, section 4.2)
    isotonic      f_t(p_t) for each class, f_t rising, then divided by their sum  (Zadrozny & Elkan 2002, KDD)
    histogram     the same, f_t constant on bins of equal width                   (Zadrozny & Elkan 2001, ICML)

tau, w and b have the least NLL. Vector scaling as published sends b of an absent class to minus infinity and learns the
noise of few samples; here w and b have standard normal priors around 1 and 0, so that without samples temperature scaling is
left, and the priors fade as N grows. In the last two, a class without validation samples, a bin without any, and a row in
which nothing is left keep their probability.

Logits are wanted for the fit and after it: probabilities, numbers that are not finite, and other classes are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import brentq, isotonic_regression, minimize
from torch import Tensor

from vpcore.calibration.binned import BINS, classwise
from vpcore.calibration.predictions import Predictions, as_logits, labels_of
from vpcore.checks import Array
from vpcore.errors import entry

COLDEST, HOTTEST = 1e-3, 1e3

Recalibration = Callable[[Array], Tensor]


def optimal_temperature(logits: Array, labels: Array) -> float:
    """The temperature tau with the least NLL of softmax(z / tau), in COLDEST..HOTTEST.

    The NLL is convex in 1 / tau, and its slope, the mean of E[z] - z_label, has at most one zero. Where all predictions are
    right, it decreases as tau goes to 0, and where they are worse than chance, as tau grows: then tau is the bound. Where
    the temperature makes no difference, it is 1.

    Args:
        logits: (N, T) of the validation data.
        labels: (N,) classes.

    Returns:
        tau, without unit.

    Raises:
        InputError: for what `Predictions.from_logits` refuses.

    >>> logits = 5 * torch.tensor([[0.0, 1.0]]).repeat(4, 1)  # 99 % sure
    >>> round(5 / optimal_temperature(logits, torch.tensor([1, 1, 1, 0])), 4)  # log(3), for 75 % right
    1.0986
    """
    logits = as_logits(logits)
    labels = labels_of(logits, labels)
    excess = logits.double() - logits.gather(1, labels[:, None]).double()  # z - z_label

    def slope(log_tau: float) -> float:
        return float(((excess * math.exp(-log_tau)).softmax(1) * excess).sum(1).mean())

    if slope(0.0) == 0:
        return 1.0
    if slope(math.log(COLDEST)) <= 0:
        return COLDEST
    if slope(math.log(HOTTEST)) >= 0:
        return HOTTEST
    return math.exp(brentq(slope, math.log(COLDEST), math.log(HOTTEST), xtol=1e-12))


def temperature(logits: Array, labels: Array) -> Recalibration:
    """Temperature scaling: one number for all classes, so that accuracy stays as it is.

    Args:
        logits: (N, T) of the validation data.
        labels: (N,) classes.

    Returns:
        (M, T) logits -> (M, T) probabilities in float64.

    Raises:
        InputError: here and by the function returned, as `fit` says.
    """
    logits = as_logits(logits)
    tau, classes = optimal_temperature(logits, labels), logits.shape[1]
    return lambda logits: (as_logits(logits, classes=classes).double() / tau).softmax(1)


def vector(logits: Array, labels: Array) -> Recalibration:
    """Vector scaling: a factor and an offset for each class, around temperature scaling.

    Args:
        logits: (N, T) of the validation data.
        labels: (N,) classes.

    Returns:
        (M, T) logits -> (M, T) probabilities in float64.

    Raises:
        InputError: here and by the function returned, as `fit` says.
    """
    logits = as_logits(logits)
    labels = labels_of(logits, labels)
    tau = optimal_temperature(logits, labels)
    size, classes = logits.shape
    scaled, onehot = logits.double() / tau, torch.nn.functional.one_hot(labels, classes)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        factor, offset = torch.from_numpy(flat).view(2, classes)
        logs = (factor * scaled + offset).log_softmax(1)
        error = logs.exp() - onehot
        prior = ((factor - 1).square().sum() + offset.square().sum()) / 2
        gradient = torch.cat([(error * scaled).sum(0) + factor - 1, error.sum(0) + offset])
        return float((prior - (logs * onehot).sum()) / size), (gradient / size).numpy()

    def curvature(flat: np.ndarray) -> np.ndarray:
        factor, offset = torch.from_numpy(flat).view(2, classes)
        probs = (factor * scaled + offset).softmax(1)
        weighed = probs * scaled
        both = torch.cat([weighed, probs], 1)
        blocks = [[weighed * scaled, weighed], [weighed, probs]]
        own = torch.cat([torch.cat([block.sum(0).diag() for block in row], 1) for row in blocks])
        return ((own - both.T @ both + torch.eye(2 * classes)) / size).numpy()

    start = np.repeat([1.0, 0.0], classes)
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-9}).x
    factor, offset = torch.from_numpy(found).view(2, classes)
    return lambda logits: (factor * (as_logits(logits, classes=classes).double() / tau) + offset).softmax(1)


def isotonic(logits: Array, labels: Array) -> Recalibration:
    """Isotonic regression of each class against the rest, linear between the validation probabilities.

    Args:
        logits: (N, T) of the validation data.
        labels: (N,) classes.

    Returns:
        (M, T) logits -> (M, T) probabilities in float64; they can be exactly 0 and 1.

    Raises:
        InputError: here and by the function returned, as `fit` says.
    """
    predictions = Predictions.from_logits(logits, labels)
    knots = {}
    for label in predictions.labels.unique().tolist():
        points, group, count = predictions.probs[:, label].unique(return_inverse=True, return_counts=True)
        rate = torch.bincount(group, weights=(predictions.labels == label).double()) / count
        knots[label] = points.numpy(), isotonic_regression(rate.numpy(), weights=count.double().numpy()).x

    def rates(probs: Tensor) -> Tensor:
        raw = probs.clone()
        for label, (points, rate) in knots.items():
            raw[:, label] = torch.from_numpy(np.interp(probs[:, label].numpy(), points, rate))
        return raw

    return _one_against_rest(rates, predictions.probs.shape[1])


def histogram(logits: Array, labels: Array) -> Recalibration:
    """Histogram binning of each class against the rest, in the bins that `binned.classwise` measures.

    Args:
        logits: (N, T) of the validation data.
        labels: (N,) classes.

    Returns:
        (M, T) logits -> (M, T) probabilities in float64; they can be exactly 0 and 1.

    Raises:
        InputError: here and by the function returned, as `fit` says.
    """
    table = classwise(Predictions.from_logits(logits, labels))
    known = (table.count > 0) & (table.accuracy.sum(1, keepdim=True) > 0)
    rows = torch.arange(len(known)) * BINS

    def rates(probs: Tensor) -> Tensor:
        place = rows + torch.bucketize(probs, table.edges[1:-1])
        return torch.where(known.view(-1)[place], table.accuracy.view(-1)[place], probs)

    return _one_against_rest(rates, len(known))


def _one_against_rest(rates: Callable[[Tensor], Tensor], classes: int) -> Recalibration:
    """Each class by itself: (M, T) probabilities -> how often the class was the label, divided by the sum of the row.

    A row in which nothing is left keeps its probabilities.
    """

    def recalibrate(logits: Array) -> Tensor:
        probs = as_logits(logits, classes=classes).double().softmax(1)
        raw = rates(probs)
        total = raw.sum(1, keepdim=True)
        return torch.where(total > 0, raw / total.clamp(min=torch.finfo(torch.float64).tiny), probs)

    return recalibrate


RECALIBRATIONS: dict[str, Callable[[Array, Array], Recalibration]] = {
    "temperature": temperature,
    "vector": vector,
    "isotonic": isotonic,
    "histogram": histogram,
}


def fit(name: str, logits: Array, labels: Array) -> Recalibration:
    """Fit a recalibration of `RECALIBRATIONS` by its name, on validation data.

    Args:
        name: a key of `RECALIBRATIONS`.
        logits: (N, T) of the validation data.
        labels: (N,) classes.

    Returns:
        (M, T) logits -> (M, T) probabilities in float64.

    Raises:
        InputError: for an unknown name; here and by the function returned, for logits that are not finite or are
            probabilities, and for another number of classes than the labels or the fit had.

    >>> logits, labels = 9 * torch.eye(2)[[0, 0, 1, 1]], torch.tensor([0, 1, 0, 1])  # sure, and half right
    >>> fit("temperature", logits, labels)(logits).round(decimals=2)[0].tolist()
    [0.5, 0.5]
    """
    return entry("recalibration", name, RECALIBRATIONS)(logits, labels)
