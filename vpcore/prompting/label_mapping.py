"""Label mappings: how the source classes of a frozen network are read as target classes.

A network gives logits of S source classes; a target task has T classes. A mapping turns the ones into the others, in one of
two forms, which `target_logits` applies alike (each in a cohort of K):

    index    (K, T)         target t reads source class mapping[t]: one to one, T <= S
    matrix   (K, S + 1, T)  target logits = source logits W + b: S rows of weights, then one of biases

    random       index drawn from the seed
    frequency    index, greedy by n[t, s], once, under the untouched prompt            (FLM; Chen et al. 2023, ILM-VP, eq. 2)
    ilm          the same before every epoch                                           (the paper)
    assignment   index with the largest sum of n[t, s], before every epoch
    blm          matrix of P(t | s) from n[t, s], before every epoch                   (Cai et al. 2024, BLM)
    blm+         the same, from the probabilities of the likeliest source classes
    full         matrix that is learned together with the prompt                       (FullyMap; Tsao et al. 2024, AutoVP)

    n[t, s] = number of training images of target class t that are predicted as source class s

At few shots most counts are equal (at 1 shot all of them). One-to-one mappings break ties by a priority in [0, 1) for each
pair: by default drawn at random once per run and the same for every network. In the authors' code the lowest index wins
(`ties="index"`), which at 1 shot maps targets to source classes 0, 1, 2, ... whatever the network sees. A target class
without images has only zeros: one to one it gets what is left, in a matrix it weighs all source classes alike.

Chen et al., arXiv 2211.11635. Cai et al., arXiv 2410.24018. Tsao et al., arXiv 2310.08381.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from vpcore.errors import InputError

LAPLACE = 1.0  # lambda of BLM
TOP_SHARE = 0.15  # BLM+ looks at this many source classes, as a share of the number of target classes


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


def top_probabilities(logits: Tensor, labels: Tensor, *, targets: int) -> Tensor:
    """Add up the probabilities of the likeliest source classes of each image, for each target class (BLM+).

    Of an image the int(0.15 T) likeliest source classes count, at least one of them; T because that is how the authors' code
    has it.

    Args:
        logits: (K, N, S) of the source classes.
        labels: (K, N) target classes.
        targets: T.

    Returns:
        (K, T, S), of the type of the logits.

    >>> logits = torch.tensor([[[0.0, 0.0, 9.0], [0.0, 9.0, 0.0]]])
    >>> top_probabilities(logits, torch.tensor([[0, 0]]), targets=2).round().tolist()
    [[[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]
    """
    most = min(max(1, int(TOP_SHARE * targets)), logits.shape[2])
    values, places = logits.softmax(2).topk(most, dim=2)
    kept = torch.zeros_like(logits).scatter_(2, places, values)
    return F.one_hot(labels, targets).to(kept.dtype).transpose(1, 2) @ kept


def priorities(seeds: list[int], *, targets: int, sources: int) -> Tensor:
    """(K, T, S) numbers in [0, 1) that break ties: one draw for each seed, whatever the network."""
    return torch.stack([torch.rand((targets, sources), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def lowest_first(seeds: list[int], *, targets: int, sources: int) -> Tensor:
    """(K, T, S) numbers in [0, 1) by which ties go to the lowest source class and then the lowest target class.

    In `assignment` the numbers of a mapping are added up: it takes the lowest source classes, in an order of its own.

    >>> lowest_first([0], targets=2, sources=2).tolist()
    [[[0.75, 0.25], [0.5, 0.0]]]
    """
    rank = torch.arange(targets * sources, dtype=torch.float64).view(sources, targets).T
    return (1 - (rank + 1) / (targets * sources)).expand(len(seeds), -1, -1)


# name -> the priorities by which one-to-one mappings break ties
TIES: dict[str, Callable[..., Tensor]] = {"random": priorities, "index": lowest_first}


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
    member = torch.arange(cohort, device=counts.device)
    for _ in range(targets):
        best = score.flatten(1).argmax(1)
        target, source = best // sources, best % sources
        mapping[member, target] = source
        score[member, target, :] = -1
        score[member, :, source] = -1
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
    _, targets, sources = counts.shape
    check_one_to_one(targets, sources)
    score = (counts.double() * targets + priority.to(counts.device)).cpu().numpy()
    columns = [linear_sum_assignment(member, maximize=True)[1] for member in score]
    return torch.stack([torch.from_numpy(column).long() for column in columns]).to(counts.device)


def bayesian(counts: Tensor) -> Tensor:
    """The matrix of Bayesian label mapping.

        W[s, t] = P(t | s) / sum_s' P(t | s'),      P(t | s) = n[t, s] / (sum_t' n[t', s] + lambda),     lambda = 1

    It weighs logits, as in the authors' code, so that cross-entropy and softmax are right on what comes out.

    Args:
        counts: (K, T, S) from `frequencies` (BLM) or `top_probabilities` (BLM+); left as they are.

    Returns:
        (K, S, T) float64; columns sum to one. A target class without counts has 1 / S everywhere.

    >>> bayesian(torch.tensor([[[1, 3], [1, 0], [0, 0]]])).round(decimals=3).tolist()
    [[[0.308, 1.0, 0.5], [0.692, 0.0, 0.5]]]
    """
    counts = counts.double()
    given_source = counts / (counts.sum(1, keepdim=True) + LAPLACE)
    total = given_source.sum(2, keepdim=True)
    weights = torch.where(total > 0, given_source / total, 1 / counts.shape[2])
    return weights.transpose(1, 2).contiguous()


def random_index(seeds: list[int], *, targets: int, sources: int) -> Tensor:
    """(K, T) different source classes, drawn from each seed, whatever the network."""
    check_one_to_one(targets, sources)
    draws = [torch.randperm(sources, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws)[:, :targets]


def linear_start(seeds: list[int], *, targets: int, sources: int) -> Tensor:
    """(K, S + 1, T) weights and biases uniform in +-1 / sqrt(S), as torch.nn.Linear starts, drawn from each seed."""
    shape = (sources + 1, targets)
    draws = torch.stack([torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return (draws * 2 - 1) * sources**-0.5


@dataclass(frozen=True)
class Rule:
    """Where a mapping comes from: it is drawn from seeds or found in predictions, exactly one of the two.

    Attributes:
        draw: (seeds, targets=T, sources=S) -> mapping, before anything is seen.
        find: (K, N, S) logits of the training images, their (K, N) labels, (K, T, S) priorities -> mapping.
        ranked: ties in what is found are broken by the priorities.
        repeat: found anew before every epoch.
        running: in what the training pass of the epoch before has predicted, under a prompt that changed from step to step,
            instead of in a pass of its own.
        learned: what is drawn is then trained with the prompt.
    """

    draw: Callable[..., Tensor] | None = None
    find: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    ranked: bool = False
    repeat: bool = False
    running: bool = False
    learned: bool = False


def _counted(choose: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda logits, labels, priority: choose(frequencies(logits, labels, targets=priority.shape[1]), priority)


def _weighed(count: Callable[..., Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def find(logits: Tensor, labels: Tensor, priority: Tensor) -> Tensor:
        weights = bayesian(count(logits, labels, targets=priority.shape[1])).to(logits.dtype)
        return F.pad(weights, (0, 0, 0, 1))  # no biases

    return find


# name -> where the mapping comes from
MAPPINGS: dict[str, Rule] = {
    "random": Rule(draw=random_index),
    "frequency": Rule(find=_counted(greedy), ranked=True),
    "ilm": Rule(find=_counted(greedy), ranked=True, repeat=True),
    "ilm-running": Rule(find=_counted(greedy), ranked=True, repeat=True, running=True),
    "assignment": Rule(find=_counted(assignment), ranked=True, repeat=True),
    "blm": Rule(find=_weighed(frequencies), repeat=True),
    "blm+": Rule(find=_weighed(top_probabilities), repeat=True),
    "full": Rule(draw=linear_start, learned=True),
}


def target_logits(logits: Tensor, mapping: Tensor) -> Tensor:
    """(K, N, S) source logits -> (K, N, T) target logits, under (K, T) indices or (K, S + 1, T) matrices."""
    if mapping.ndim == 2:
        return logits.gather(2, mapping[:, None, :].expand(-1, logits.shape[1], -1))
    return logits @ mapping[:, :-1] + mapping[:, -1:]


def strongest(mapping: Tensor) -> Tensor:
    """(K, T) the source class that each target class reads; of a matrix, the one with the largest weight.

    >>> strongest(torch.tensor([[[0.2, 1.0], [0.8, 0.0], [5.0, 5.0]]])).tolist()
    [[1, 0]]
    """
    return mapping if mapping.ndim == 2 else mapping[:, :-1].argmax(1)
