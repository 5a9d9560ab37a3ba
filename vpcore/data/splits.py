"""Splits and few-shot budgets: which images of a set serve for what.

`test` is the set's own test split and serves for one evaluation at the end of a run. `val` is cut from the training images
(a fifth of each class, at most 50 images) for every choice that has to be made; `train` is the rest. A budget of N shots is
the first N images of each class in an order that depends on the task and the seed alone, so that budgets are nested (the 10
shots contain the 1 shot) and dense and compressed networks see the same images.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from vpcore import checks
from vpcore.checks import Array, as_labels, whole_number
from vpcore.errors import InputError

SPLITS = ("train", "val", "test")
VAL_FRACTION, VAL_MOST = 0.2, 50  # of each class


def shots(labels: Array, budget: int | None, *, task: str, seed: int) -> Tensor:
    """Indices of the images of a few-shot budget: nested in the budget, the same for every network.

    Args:
        labels: (N,) labels of the training split.
        budget: images a class; None for all. A class that has fewer gives all it has (see `saturated`).
        task: with `seed`, fixes the order in which the images of a class are taken.
        seed: see `task`.

    Returns:
        (n,) indices in ascending order.

    Raises:
        InputError: for a budget that is no whole number of images, and for labels that are no (N,) whole numbers.

    >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
    >>> one, two = (set(shots(labels, n, task="t", seed=0).tolist()) for n in (1, 2))
    >>> len(one), len(two), one < two
    (2, 4, True)
    """
    if budget is not None:
        budget = whole_number(budget, name="budget", of="images a class", otherwise=", or None for all")
    seed = whole_number(seed, name="seed", least=0)
    if not isinstance(task, str):
        raise InputError(f"`task` must be text, whatever the images are called, got {task!r}; use 'photos'")
    return first(as_labels(labels), budget, f"shots {task} {seed}").sort().values


def saturated(labels: Tensor, budget: int | None) -> bool:
    """Whether some class that occurs has fewer than `budget` images, so that the budget says more than it gives."""
    return budget is not None and bool((torch.bincount(labels)[labels.unique()] < budget).any())


def first(labels: Tensor, count: int | None, key: str) -> Tensor:
    """The first `count` indices of each class in the random order that `key` fixes; None for all, not sorted by class.

    Args:
        labels: (N,) labels.
        count: indices a class; a class that has fewer gives all it has.
        key: its CRC-32 is the seed of the order.

    Returns:
        (n,) indices, class by class.
    """
    order = _shuffled(len(labels), key)
    return order if count is None else _each_class(labels, order, lambda size: count)


def hold_out(labels: Tensor, key: str, *, share: float = VAL_FRACTION, most: int | None = VAL_MOST) -> tuple[Tensor, Tensor]:
    """Indices, each in ascending order, of what is kept (train) and what is held out (val), drawn class by class.

    A class with fewer than 1 / (2 share) images gives none, so that val is empty where all are as small as that: below 3
    images a class by default, below 5 for a share of a tenth.

    Args:
        labels: (N,) labels.
        key: fixes the draw; the name of the task.
        share: of each class that is held out, in [0, 1], rounded to whole images. A set that comes without a test split gets
            one by a first call; the default is that of val.
        most: at most so many images a class are held out; None for no limit.

    Returns:
        (n,) indices of what is kept, and (N - n,) of what is held out.

    Raises:
        InputError: for a share outside [0, 1].

    >>> train, val = hold_out(torch.tensor([0, 1]).repeat(10), "t", share=0.3, most=None)
    >>> len(train), len(val)
    (14, 6)
    """
    share, order = checks.share(share, name="share", ends=True), _shuffled(len(labels), f"val {key}")
    out = _each_class(labels, order, lambda size: min(int(size * share + 0.5), size if most is None else most))
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[out] = False
    return kept.nonzero()[:, 0], out.sort().values


def _shuffled(count: int, key: str) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))


def _each_class(labels: Tensor, order: Tensor, count: Callable[[int], int]) -> Tensor:
    """Class by class, the first count(size of the class) of its indices, as `order` has them."""
    rows = [order[labels[order] == label] for label in labels.unique()]
    return torch.cat([order[:0], *(mine[: count(len(mine))] for mine in rows)])
