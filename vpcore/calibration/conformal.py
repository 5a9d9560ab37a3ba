"""Conformal prediction sets: classes, as many as are needed for the label to be among them with a stated probability.

A confidence of 0.9 need not come true in 90 % of the cases; a conformal set does, for any network, if only validation and
test images are exchangeable (Vovk, Gammerman & Shafer 2005; Angelopoulos & Bates 2021, arXiv 2107.07511). With a score
s(x, t) of how badly class t fits image x, n validation images, and the coverage 1 - a that is wanted,

    q = the ceil((n + 1) (1 - a))-th smallest of s(x_i, label_i)          set(x) = {t : s(x, t) <= q}

    1 - a <= P(label in set) <= 1 - a + 1 / (n + 1)                       (the upper bound where no scores are equal)

What a miscalibrated network costs is then the size of the sets. Two scores, of p_t = softmax(z)_t:

    lac    1 - p_t                           the smallest sets on average, some empty (Sadinle et al. 2019, arXiv 1609.00451)
    aps    the sum of p_s over p_s >= p_t    larger sets for harder images            (Romano et al. 2020, arXiv 2006.02544)

APS is here without its random draw, so that its sets are somewhat too large rather than different at every call. Where n is
so small that the ceil(...) is n + 1, all classes are in every set: below n = 9 for 90 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.calibration.predictions import as_logits, labels_of
from vpcore.checks import Array, share
from vpcore.errors import entry


@dataclass(frozen=True, eq=False)
class ConformalSets:
    """The sets of N images.

    Attributes:
        members: (N, T) bool, whether a class is in the set of an image.
        threshold: q, in the units of the score; infinite where there are too few validation images.
    """

    members: Tensor
    threshold: float

    @property
    def size(self) -> Tensor:
        """(N,) int64, the number of classes in each set, 0..T."""
        return self.members.sum(1)

    def covered(self, labels: Array) -> Tensor:
        """(N,) bool: whether the label is in the set; its mean is the coverage.

        Raises:
            InputError: for labels that do not fit.
        """
        return self.members.gather(1, labels_of(self.members, labels)[:, None])[:, 0]


def conformal_sets(
    val_logits: Array, val_labels: Array, test_logits: Array, *, level: float = 0.9, score: str = "lac"
) -> ConformalSets:
    """Split conformal prediction: a threshold from validation images, sets for test images.

    Args:
        val_logits: (n, T), of images that neither training nor any choice has seen.
        val_labels: (n,) classes.
        test_logits: (N, T), of the same network.
        level: the coverage that is wanted, 1 - a, in (0, 1).
        score: a key of `SCORES`.

    Returns:
        The sets of the test images.

    Raises:
        InputError: for a level outside (0, 1), an unknown score, numbers of classes that differ, or what
            `Predictions.from_logits` refuses.

    >>> logits = torch.eye(3)[[0] * 9] * torch.arange(1.0, 10)[:, None]  # ever more sure of class 0, and always right
    >>> sets = conformal_sets(logits, [0] * 9, torch.tensor([[0.5, 0.0, 0.0], [5.0, 0.0, 0.0]]), level=0.8)
    >>> sets.size.tolist(), round(sets.threshold, 2)  # 8 of 9 were surer than 0.45 + 0.34
    ([0, 1], 0.21)
    """
    level, badness = share(level, name="level"), entry("conformal score", score, SCORES)
    val = as_logits(val_logits, name="val_logits")
    labels, test = (
        labels_of(val, val_labels, name="val_labels"),
        as_logits(test_logits, name="test_logits", classes=val.shape[1]),
    )
    fit, scores = (badness(logits.softmax(1, dtype=torch.float64)) for logits in (val, test))
    fit = fit.gather(1, labels[:, None])[:, 0].sort().values
    rank = math.ceil((len(fit) + 1) * level - 1e-9)  # 0.55 * 100 is a little above 55
    threshold = float(fit[rank - 1]) if rank <= len(fit) else math.inf
    return ConformalSets(scores <= threshold, threshold)


def _lac(probs: Tensor) -> Tensor:
    return 1 - probs


def _aps(probs: Tensor) -> Tensor:
    ordered, order = probs.sort(1, descending=True)
    last = torch.searchsorted(-ordered, -ordered, right=True) - 1  # of equal probabilities, which have one score
    return torch.empty_like(probs).scatter_(1, order, ordered.cumsum(1).gather(1, last))


SCORES: dict[str, Callable[[Tensor], Tensor]] = {"lac": _lac, "aps": _aps}
