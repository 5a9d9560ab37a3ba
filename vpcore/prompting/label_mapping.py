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

How the one-to-one ones are found, and how they break ties, is told in `one_to_one`. In a matrix a target class without
images weighs all source classes alike.

Chen et al., arXiv 2211.11635. Cai et al., arXiv 2410.24018. Tsao et al., arXiv 2310.08381.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vpcore.errors import entry
from vpcore.networks.cohort import generators_of, uniform_start
from vpcore.prompting.one_to_one import assignment, check_one_to_one, greedy, random_index

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
    weights = (given_source / total).masked_fill(total == 0, 1 / counts.shape[2])
    return weights.transpose(1, 2).contiguous()


def linear_start(seeds: Sequence[int], *, targets: int, sources: int) -> Tensor:
    """(K, S + 1, T) weights and biases, drawn from each seed as torch.nn.Linear starts."""
    return uniform_start(generators_of(seeds), (sources + 1, targets), inputs=sources)


# Where a mapping comes from --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class LabelMapping:
    """How a mapping is found while a prompt is learned: the interface of all rules. A new one is an entry in `MAPPINGS`.

    Attributes:
        label: what tables and figures call it.
        ranked: ties in what is found are broken by priorities (`one_to_one.TIES`).
        repeat: found anew for every epoch, so that the last one may be out of date when training ends.
        running: what is found for the next epoch is found in what the training steps of this one have predicted, under a
            prompt that changed from step to step, instead of in a pass of its own.
        learned: a parameter, trained together with the prompt.
        on_host: `update` needs the CPU, so that a GPU waits for it.
    """

    label: str
    ranked: bool = False
    repeat: bool = False
    running: bool = False
    learned: bool = False
    on_host: bool = False

    def start(self, seeds: Sequence[int], *, targets: int, sources: int) -> Tensor | None:
        """The mapping before any image is seen; None when it has to be found first.

        Raises:
            InputError: when a one-to-one mapping cannot be, as the task has more classes than the network.
        """
        raise NotImplementedError

    def due(self, epoch: int) -> bool:
        """Whether it is found, by `update`, in the training images under the prompt as it is before an epoch."""
        return False

    def update(self, logits: Tensor, labels: Tensor, priority: Tensor) -> Tensor:
        """Find the mapping in predictions.

        Args:
            logits: (K, N, S) of the training images.
            labels: (K, N) their target classes.
            priority: (K, T, S) in [0, 1), for ties.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Drawn(LabelMapping):
    """Drawn from the seeds and then left as it is, or, when `learned`, trained. `draw`: (seeds, targets=T, sources=S)."""

    draw: Callable[..., Tensor]

    def start(self, seeds: Sequence[int], *, targets: int, sources: int) -> Tensor:
        return self.draw(seeds, targets=targets, sources=sources)


@dataclass(frozen=True, kw_only=True)
class Found(LabelMapping):
    """Found in predictions: under the untouched prompt, and again as `repeat` and `running` say.

    Attributes:
        count: what the predictions of a class add up to, as `frequencies` does.
        choose: (K, T, S) counts and priorities -> the mapping.
    """

    count: Callable[..., Tensor]
    choose: Callable[[Tensor, Tensor], Tensor]

    def start(self, seeds: Sequence[int], *, targets: int, sources: int) -> None:
        if self.ranked:
            check_one_to_one(targets, sources)

    def due(self, epoch: int) -> bool:
        return epoch == 0 or (self.repeat and not self.running)

    def update(self, logits: Tensor, labels: Tensor, priority: Tensor) -> Tensor:
        chosen = self.choose(self.count(logits, labels, targets=priority.shape[1]), priority)
        return chosen.to(logits.dtype) if chosen.is_floating_point() else chosen


def _weighed(counts: Tensor, priority: Tensor) -> Tensor:
    return F.pad(bayesian(counts), (0, 0, 0, 1))  # no biases


MAPPINGS: dict[str, LabelMapping] = {
    "random": Drawn(label="random", draw=random_index),
    "frequency": Found(label="frequency, once (FLM)", count=frequencies, choose=greedy, ranked=True),
    "ilm": Found(label="iterative (ILM)", count=frequencies, choose=greedy, ranked=True, repeat=True),
    "ilm-running": Found(
        label="iterative, from the steps", count=frequencies, choose=greedy, ranked=True, repeat=True, running=True
    ),
    "assignment": Found(
        label="iterative, optimal assignment", count=frequencies, choose=assignment, ranked=True, repeat=True, on_host=True
    ),
    "blm": Found(label="Bayesian (BLM)", count=frequencies, choose=_weighed, repeat=True),
    "blm+": Found(label="Bayesian (BLM+)", count=top_probabilities, choose=_weighed, repeat=True),
    "full": Drawn(label="learned (FullyMap)", draw=linear_start, learned=True),
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


def mapping_named(mapping: str | LabelMapping) -> LabelMapping:
    """A rule as it is, or the entry of `MAPPINGS`; an unknown name is refused."""
    return mapping if isinstance(mapping, LabelMapping) else entry("mapping", mapping, MAPPINGS)
