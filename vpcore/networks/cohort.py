"""What all transfer methods share: draws from seeds, the schedule of the learning rate, the loss, the choice of an epoch.

A cohort is K runs trained in one pass. Adam acts on each number alone, so that with the sum of the members' mean losses each
member moves as if it were trained alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vpcore.checks import Array, number, whole_number
from vpcore.networks.inputs import as_index, as_seeds
from vpcore.networks.training import check_loss

MILESTONES = (0.5, 0.72)  # shares of the epochs at which the learning rate is divided by 10 (the paper's recipe)
BATCHES = {1: 8, 10: 32, 50: 64, 100: 128}  # images a class -> images a step, in the code of the paper's authors
LARGEST_BATCH = 256  # where there are more images a class, as in whole training sets
READ_EVERY = 10  # epochs between two looks at their losses


def set_rate(optimizer: torch.optim.Optimizer, lr: float, epoch: int, epochs: int) -> None:
    """Set the learning rate for an epoch: `lr`, divided by 10 at each of `MILESTONES`.

    >>> optimizer = torch.optim.Adam([torch.zeros(1)], lr=1.0)
    >>> set_rate(optimizer, 1.0, 5, 10)
    >>> optimizer.param_groups[0]["lr"]
    0.1
    """
    passed = sum(epoch >= int(share * epochs) for share in MILESTONES)
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * 0.1**passed)
        else:
            group["lr"] = lr * 0.1**passed


def usual_batch(images: int, *, targets: int) -> int:
    """Images a step of the authors' code, for so many training images of T classes (`BATCHES`).

    >>> [usual_batch(10 * shots, targets=10) for shots in (1, 2, 10, 50, 100, 5000)]
    [8, 32, 32, 64, 128, 256]
    """
    return next((batch for shots, batch in BATCHES.items() if images <= shots * targets), LARGEST_BATCH)


def check_cohort(
    index: Array | None,
    *,
    count: int,
    targets: int,
    seeds: Iterable[int] | Array,
    epochs: int,
    batch: int | None,
    lr: float,
) -> tuple[Tensor, list[int], int, int, float]:
    """What K runs learn from and how, in the form that is computed with; refuses what is out of range.

    Args:
        index: (K, n) rows of the training images that each run learns from; None: all of them for each seed.
        count: number of training images M.
        targets: number of target classes T.
        seeds: K seeds.
        epochs: passes over the n images, at least 1.
        batch: images a step; None: `usual_batch`.
        lr: learning rate at the start.

    Returns:
        (K, n) rows, the seeds, the epochs, the images a step and the learning rate.

    Raises:
        InputError: for an argument of another kind, or out of its range.
    """
    seeds = as_seeds(seeds)
    if index is None:
        index = torch.arange(count).expand(len(seeds), -1)
    index = as_index(index, count=count, members=len(seeds))
    epochs, lr = whole_number(epochs, name="epochs"), number(lr, name="lr", use="0.01, which is usual")
    batch = usual_batch(index.shape[1], targets=targets) if batch is None else whole_number(batch, name="batch")
    return index, seeds, epochs, batch, lr


def generators_of(seeds: Iterable[int]) -> list[torch.Generator]:
    """A generator on the CPU for each seed, so that every device sees the same draws."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def uniform_start(generators: Sequence[torch.Generator], shape: tuple[int, ...], *, inputs: int) -> Tensor:
    """(K, *shape) numbers uniform in +-1 / sqrt(inputs), as layers of torch start; row k from generator k."""
    draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
    return (draws * 2 - 1) * inputs**-0.5


def in_order(index: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """(K, n) rows, those of each member shuffled by its generator, on the CPU."""
    order = torch.stack([torch.randperm(index.shape[1], generator=generator) for generator in generators])
    return index.gather(1, order)


class History:
    """The mean losses of the epochs. They stay on the device and are read now and then, since a GPU waits for a look.

    Args:
        what: is learned, for the message when a loss is no longer a number.
        lr: learning rate, likewise.
    """

    def __init__(self, what: str, *, lr: float) -> None:
        self.what, self.lr = what, lr
        self.known: list[float] = []
        self.waiting: list[Tensor] = []

    def append_(self, loss: Tensor) -> None:
        """Add the loss of an epoch."""
        self.waiting.append(loss)
        if len(self.waiting) == READ_EVERY:
            self.read()

    def read(self) -> list[float]:
        """The losses of all epochs so far; refuses one that is not a finite number."""
        for loss in torch.stack(self.waiting).tolist() if self.waiting else []:
            self.known.append(loss)
            check_loss(loss, f"epoch {len(self.known)} of {self.what}", lr=self.lr)
        self.waiting.clear()
        return list(self.known)


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
