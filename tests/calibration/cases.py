"""Random predictions that the tests of metrics share: few and many, absent classes, confidences of exactly 0 and 1."""

import pytest
import torch
from torch import Tensor

from vpcore.calibration.predictions import Predictions


def random_logits(
    seed: int, *, n: int, classes: int, temperature: float = 1.0, absent: bool = False, certain: bool = False
) -> tuple[Tensor, Tensor]:
    """(N, T) float64 logits of a network that is calibrated at temperature 1, under-confident above, over-confident below.

    `absent` leaves the upper half of the classes without a sample; `certain` makes a third of the softmaxes exactly 0 and 1.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    if absent:
        labels %= (classes + 1) // 2
    logits /= temperature
    if certain:
        rows = torch.arange(0, n, 3)
        logits[rows, torch.randint(classes, (len(rows),), generator=generator)] += 2000
    return logits, labels


def random_predictions(seed: int, **case: float) -> Predictions:
    return Predictions.from_logits(*random_logits(seed, **case))


SIZES, TAUS, KINDS = ((30, 2), (300, 10), (150, 60)), (0.4, 1.0, 3.0), ({}, {"absent": True}, {"certain": True})
# every size meets every temperature and every kind in a third of the cases; the others are slow ones
GRID = [
    pytest.param(
        {"seed": 9 * i + 3 * j + k, "n": n, "classes": t, "temperature": tau, **kind},
        id=f"{n}x{t}-tau{tau}{''.join(kind)}",
        marks=[pytest.mark.slow] if (i + j + k) % 3 else [],
    )
    for i, (n, t) in enumerate(SIZES)
    for j, tau in enumerate(TAUS)
    for k, kind in enumerate(KINDS)
]
