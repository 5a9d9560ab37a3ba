"""Label mappings: which source class stands for each target class.

A frozen network predicts S source classes; a target task has T <= S classes. A mapping is a (T,) tensor: the logit of target
class t is the logit of source class mapping[t]. The frequency mapping (Chen et al. 2023, ILM-VP, arXiv 2211.11635, eq. 2)
pairs a target class with the source class that the network most often predicts for its images, one to one and greedily:

    n[t, s] = number of training images of target class t that are predicted as source class s
    repeat: take the largest n[t, s] of the targets and sources that are left; map t to s

At few shots most counts are equal (at 1 shot all of them). Ties are broken at random by a priority in [0, 1) for each pair,
drawn once per run and the same for every network; a tie that went to the lowest index would map targets to source classes
0, 1, 2, ... whatever the network sees. A target class without images has only zeros and gets what is left.

All functions work on a cohort: a leading dimension K of independent mappings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vpcore.errors import InputError


def frequencies(logits: Tensor, labels: Tensor, *, targets: int) -> Tensor:
    """Count the predicted source classes of each target class.

    Args:
        logits: (K, N, S) of the source classes.
        labels: (K, N) target classes.
        targets: T.

    Returns:
        (K, T, S) int64 counts.

    >>> frequencies(torch.tensor([[[0.0, 1.0], [2.0, 1.0]]]), torch.tensor([[0, 0]]), targets=2).tolist()
    [[[1, 1], [0, 0]]]
    """
    cohort, _, sources = logits.shape
    pairs = labels * sources + logits.argmax(2)
    counts = torch.zeros((cohort, targets * sources), dtype=torch.int64, device=logits.device)
    return counts.scatter_add_(1, pairs, torch.ones_like(pairs)).view(cohort, targets, sources)


def priorities(seeds: list[int], *, targets: int, sources: int) -> Tensor:
    """(K, T, S) numbers in [0, 1) that break ties: one draw for each seed, whatever the network."""
    return torch.stack([torch.rand((targets, sources), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def greedy(counts: Tensor, priority: Tensor) -> Tensor:
    """The one-to-one frequency mapping.

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
    if targets > sources:
        raise InputError(
            f"a one-to-one mapping needs at least as many source classes as the task has classes, {targets}; "
            f"the network has {sources}; use a network with more classes, or another task"
        )
    score = counts.double() + priority.to(counts.device)
    mapping = torch.empty((cohort, targets), dtype=torch.int64, device=counts.device)
    member = torch.arange(cohort, device=counts.device)
    for _ in range(targets):
        best = score.flatten(1).argmax(1)
        target, source = best // sources, best % sources
        mapping[member, target] = source
        score[member, target, :] = -1
        score[member, :, source] = -1
    return mapping


def target_logits(logits: Tensor, mapping: Tensor) -> Tensor:
    """(K, N, S) source logits and (K, T) mappings -> (K, N, T) target logits."""
    return logits.gather(2, mapping[:, None, :].expand(-1, logits.shape[1], -1))
