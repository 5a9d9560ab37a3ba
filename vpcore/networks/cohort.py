"""What all transfer methods share: the schedule of the learning rate, the loss of a cohort, and the choice of an epoch.

A cohort is K runs trained in one pass. Adam acts on each number alone, so that with the sum of the members' mean losses each
member moves as if it were trained alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MILESTONES = (0.5, 0.72)  # shares of the epochs at which the learning rate is divided by 10 (the paper's recipe)


def set_rate(optimizer: torch.optim.Optimizer, lr: float, epoch: int, epochs: int) -> None:
    """Set the learning rate for an epoch: `lr`, divided by 10 at each of `MILESTONES`.

    >>> optimizer = torch.optim.Adam([torch.zeros(1)], lr=1.0)
    >>> set_rate(optimizer, 1.0, 5, 10)
    >>> optimizer.param_groups[0]["lr"]
    0.1
    """
    passed = sum(epoch >= int(share * epochs) for share in MILESTONES)
    for group in optimizer.param_groups:
        group["lr"] = lr * 0.1**passed


def member_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """(K, n, T) logits and (K, n) labels -> (K,) mean cross-entropy of each member."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(1)


class Best:
    """The state of each member in the epoch in which its accuracy was highest; the earliest one, when several are.

    The authors' code picks the epoch on test images, so that the accuracy it reports is a maximum over epochs. Here the
    images are an argument: what that does can be measured, and validation images do it rightly.

    Args:
        cohort: K.
    """

    def __init__(self, cohort: int) -> None:
        self.accuracy = torch.full((cohort,), -1.0)
        self.state: dict[str, Tensor] = {}

    def update_(self, state: dict[str, Tensor], logits: Tensor, labels: Tensor) -> None:
        """Keep the members of `state` that do better than before.

        Args:
            state: name -> (K, ...) tensors of the epoch.
            logits: (K, N, T) of the images on which the epoch is picked.
            labels: (N,) their classes.
        """
        accuracy = (logits.detach().argmax(2).cpu() == labels.cpu()).double().mean(1).float()
        better = accuracy > self.accuracy
        self.accuracy = torch.where(better, accuracy, self.accuracy)
        for name, value in state.items():
            value = value.detach()
            pick = better.to(value.device).view(-1, *[1] * (value.ndim - 1))
            self.state[name] = torch.where(pick, value, self.state.get(name, value))
