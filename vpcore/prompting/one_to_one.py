"""One-to-one label mappings: each target class reads a source class of its own.

    greedy        again and again the largest n[t, s] of the targets and sources that are left (Chen et al. 2023, eq. 2)
    assignment    the largest sum of n[t, s] of all one-to-one mappings
    random        drawn from the seed

    n[t, s] = number of training images of target class t that are predicted as source class s

At few shots most counts are equal (at 1 shot all of them). Ties are broken by a priority in [0, 1) for each pair: by default
drawn at random once per run and the same for every network. In the authors' code the lowest index wins (`ties="index"`),
which at 1 shot maps targets to source classes 0, 1, 2, ... whatever the network sees. A target class without images has only
zeros and gets what is left.

Chen et al., arXiv 2211.11635.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpcore.errors import InputError
from vpcore.networks.cohort import generators_of


def priorities(seeds: Sequence[int], *, targets: int, sources: int) -> Tensor:
    """(K, T, S) numbers in [0, 1) that break ties: one draw for each seed, whatever the network."""
    return torch.stack([torch.rand((targets, sources), generator=generator) for generator in generators_of(seeds)])


def lowest_first(seeds: Sequence[int], *, targets: int, sources: int) -> Tensor:
    """(K, T, S) numbers in [0, 1) by which ties go to the lowest source class and then the lowest target class.

    In `assignment` the numbers of a mapping are added up: it takes the lowest source classes, in an order of its own.

    >>> lowest_first([0], targets=2, sources=2).tolist()
    [[[0.75, 0.25], [0.5, 0.0]]]
    """
    rank = torch.arange(targets * sources, dtype=torch.float64).view(sources, targets).T
    return (1 - (rank + 1) / (targets * sources)).expand(len(seeds), -1, -1)


@dataclass(frozen=True)
class Ties:
    """How ties are broken: what tables and figures call it, and (seeds, targets=T, sources=S) -> (K, T, S) priorities."""

    label: str
    priorities: Callable[..., Tensor]


TIES: dict[str, Ties] = {
    "random": Ties("ties at random", priorities),
    "index": Ties("ties to the lowest class", lowest_first),
}


def check_one_to_one(targets: int, sources: int) -> None:
    """Refuse a task that has more classes than the network."""
    if targets > sources:
        raise InputError(
            f"a one-to-one mapping needs at least as many source classes as the task has classes, {targets}; "
            f"the network has {sources}; use a network with more classes, another task, or the mapping 'blm' or 'full'"
        )


def greedy(counts: Tensor, priority: Tensor) -> Tensor:
    """The one-to-one frequency mapping: again and again the largest count of the targets and sources that are left.

    Args:
        counts: (K, T, S) from `frequencies`; left as they are.
        priority: (K, T, S) in [0, 1), added to the counts, so that it decides between equal counts and nothing else.

    Returns:
        (K, T) source classes, all different within a mapping.

    Raises:
        InputError: when there are more target classes than source classes.

    >>> greedy(torch.tensor([[[3, 2], [4, 0]]]), torch.zeros(1, 2, 2)).tolist()
    [[1, 0]]
    """
    cohort, targets, sources = counts.shape
    check_one_to_one(targets, sources)
    score = counts.double() + priority.to(counts.device)
    mapping = torch.empty((cohort, targets), dtype=torch.int64, device=counts.device)
    taken = torch.full_like(score[:, :1, :1], -1)  # on the device: assigning a Python number would wait for the CPU
    for _ in range(targets):
        best = score.flatten(1).argmax(1)[:, None]
        target, source = best // sources, best % sources
        mapping.scatter_(1, target, source)
        score.scatter_(1, target[:, :, None].expand(-1, 1, sources), taken.expand(-1, 1, sources))
        score.scatter_(2, source[:, None, :].expand(-1, targets, 1), taken.expand(-1, targets, 1))
    return mapping


def assignment(counts: Tensor, priority: Tensor) -> Tensor:
    """The one-to-one mapping under which most images are predicted as the source class of their target class.

    Counts are multiplied by T, so that the T priorities of a mapping, which sum to less than T, decide between mappings with
    the same number of such images and nothing else.

    Args:
        counts: (K, T, S) from `frequencies`; left as they are.
        priority: (K, T, S) in [0, 1).

    Returns:
        (K, T) source classes, all different within a mapping.

    Raises:
        InputError: when there are more target classes than source classes.

    >>> assignment(torch.tensor([[[3, 2], [4, 0]]]), torch.zeros(1, 2, 2)).tolist()  # 2 + 4, where the other has 3 + 0
    [[1, 0]]
    """
    from scipy.optimize import linear_sum_assignment  # takes a moment, which only this mapping waits for

    _, targets, sources = counts.shape
    check_one_to_one(targets, sources)
    score = (counts.double() * targets + priority.to(counts.device)).cpu().numpy()
    columns = [linear_sum_assignment(member, maximize=True)[1] for member in score]
    return torch.stack([torch.from_numpy(column).long() for column in columns]).to(counts.device)


def random_index(seeds: Sequence[int], *, targets: int, sources: int) -> Tensor:
    """(K, T) different source classes, drawn from each seed, whatever the network."""
    check_one_to_one(targets, sources)
    return torch.stack([torch.randperm(sources, generator=generator)[:targets] for generator in generators_of(seeds)])
