"""Sparse training: what happens to the masks while a network trains.

Masks change in the function that `training.fit` calls in place of an optimizer's step, so that the weights that are left out
are zero after every single step:

    fixed         the masks stay as they are
    gradual       fewer and fewer weights, by the cubic schedule of Zhu & Gupta 2017 (arXiv 1710.01878, eq. 1): when the
                  share x of the pruning period has passed, the density is d(x) = d + (1 - d) (1 - x)^3
    alternating   AC/DC: dense and sparse phases alternate; a sparse phase begins by keeping the weights that are the largest
                  at that time, and the last phase is sparse (Peste et al. 2021, arXiv 2106.12379)
    rewired       RigL: at regular intervals the smallest weights of each layer are dropped, and as many are grown from
                  zero, where the gradient is largest (Evci et al. 2020, arXiv 1911.11134, algorithm 1); the share that is
                  replaced falls from `DROPPED` to 0 along half a cosine, f(x) = DROPPED / 2 (1 + cos(pi x))

All times are shares of the schedule, so that a short one has the same phases as a long one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from vpcore.checks import whole_number
from vpcore.errors import InputError
from vpcore.networks.training import Step
from vpcore.pruning.masks import Masks, full, magnitude, select, top, zero_

GRADUAL = (0.2, 0.75)  # where gradual pruning begins, at the highest learning rate, and where it ends
GRADUAL_TIMES = 100  # how often it prunes, at most once a step
DENSE_UNTIL, PHASE, LAST_DENSE, LAST_SPARSE = 10, 5, 75, 85  # percent of the steps: the phases of AC/DC
DROPPED = 0.3  # share of a layer's weights that RigL replaces at first
REWIRED_UNTIL = 0.75  # where the masks of RigL change for the last time
REWIRED_TIMES = 30  # how often RigL replaces weights, as far as the number of steps in between
REWIRED_EVERY = (10, 100)  # stays within these bounds


@dataclass(frozen=True)
class SparsityTarget:
    """What the masks are to be at the end.

    Attributes:
        density: kept / prunable, in (0, 1].
        steps: of the whole schedule.
        scope: among which weights each weight is ranked, one of `masks.SCOPES`.
    """

    density: float
    steps: int
    scope: str


def check_rewind(rewind: int, *, epochs: int) -> None:
    """Raise an `InputError` for what is not an epoch before the end of a schedule."""
    if whole_number(rewind, name="rewind", least=0) >= epochs:
        raise InputError(f"`rewind` must be an epoch in 0..{epochs - 1}, got {rewind}; use 0 for the fresh weights")


def fixed(model: nn.Module, masks: Masks, target: SparsityTarget | None = None) -> Step:
    """Steps under masks that stay as they are."""

    def take_step(optimizer: torch.optim.Optimizer, step: int) -> None:
        optimizer.step()
        zero_(model, masks)

    return take_step


def gradual_density(step: int, target: SparsityTarget) -> float:
    """The density that the cubic schedule has reached by a step, between 1 and that of the target.

    >>> [round(gradual_density(step, SparsityTarget(0.1, 100, "global")), 3) for step in (0, 20, 30, 50, 75, 99)]
    [1.0, 1.0, 0.593, 0.185, 0.1, 0.1]
    """
    begin, end = GRADUAL
    done = min(max((step / target.steps - begin) / (end - begin), 0.0), 1.0)
    return target.density + (1 - target.density) * (1 - done) ** 3


def gradual(model: nn.Module, masks: Masks, target: SparsityTarget) -> Step:
    """Steps in which more and more weights are pruned for good, by their magnitude at that time; changes `masks`."""
    every = max(1, round((GRADUAL[1] - GRADUAL[0]) * target.steps / GRADUAL_TIMES))

    def take_step(optimizer: torch.optim.Optimizer, step: int) -> None:
        if step % every == 0 or step == target.steps - 1:
            density = gradual_density(step + 1, target)
            masks.update(select(magnitude(model, masks), masks, density=density, scope=target.scope))
        optimizer.step()
        zero_(model, masks)

    return take_step


def in_sparse_phase(step: int, target: SparsityTarget) -> bool:
    """Whether AC/DC trains sparsely in a step.

    As in the paper's 100 epochs of ImageNet, the first 10 % of the schedule are dense; then sparse and dense phases of 5 %
    alternate; the last two phases, a dense and a sparse one, take 10 % and 15 %.

    >>> "".join("-S"[in_sparse_phase(step, SparsityTarget(0.1, 20, "global"))] for step in range(20))
    '--S-S-S-S-S-S-S--SSS'
    """
    percent = 100 * step // target.steps
    by_turns = DENSE_UNTIL <= percent < LAST_DENSE and (percent - DENSE_UNTIL) // PHASE % 2 == 0
    return by_turns or percent >= LAST_SPARSE or step == target.steps - 1


def alternating(model: nn.Module, masks: Masks, target: SparsityTarget) -> Step:
    """Steps of AC/DC; changes `masks`, which keep everything in a dense phase."""

    def take_step(optimizer: torch.optim.Optimizer, step: int) -> None:
        before, now = in_sparse_phase(step - 1, target), in_sparse_phase(step, target)
        if now and not before:
            masks.update(select(magnitude(model, masks), masks, density=target.density, scope=target.scope))
        elif before and not now:
            masks.update(full(model, masks))
            optimizer.state.clear()  # the momentum is stale for the weights that come back (Peste et al. 2021)
        optimizer.step()
        zero_(model, masks)

    return take_step


def rewired_share(step: int, target: SparsityTarget) -> float:
    """The share of a layer's weights that RigL replaces in a step in which it replaces any.

    >>> [round(rewired_share(step, SparsityTarget(0.1, 100, "global")), 3) for step in (0, 25, 50, 75)]
    [0.3, 0.225, 0.075, 0.0]
    """
    return DROPPED / 2 * (1 + math.cos(math.pi * step / (REWIRED_UNTIL * target.steps)))


def rewire(model: nn.Module, masks: Masks, *, share: float) -> Masks:
    """Drop the smallest weights of each layer and grow as many where the gradient is largest.

    Args:
        model: its weights have gradients, also where the masks leave them out.
        masks: left as they are.
        share: of the kept weights of a layer that are dropped; their number is rounded down.

    Returns:
        New masks with the same count in every layer. A weight that was dropped may be grown again, and then stays as it is.
    """
    weights, moved = dict(model.named_parameters()), {}
    for name, mask in masks.items():
        count = int(mask.sum())
        drop = int(share * count)
        stay = top(weights[name].detach().abs(), mask, count=count - drop)
        gradient = weights[name].grad
        moved[name] = stay if gradient is None else stay | top(gradient.abs(), ~stay, count=drop)
    return moved


def rewired(model: nn.Module, masks: Masks, target: SparsityTarget) -> Step:
    """Steps of RigL; changes `masks`, but not how many weights each layer keeps.

    A step that replaces weights does not train the others, as in the paper's algorithm 1. A weight that is grown starts at
    0, without momentum.
    """
    every = min(max(REWIRED_EVERY[0], int(REWIRED_UNTIL * target.steps / REWIRED_TIMES)), REWIRED_EVERY[1])
    weights = dict(model.named_parameters())

    def take_step(optimizer: torch.optim.Optimizer, step: int) -> None:
        if 0 < step < REWIRED_UNTIL * target.steps and step % every == 0:
            moved = rewire(model, masks, share=rewired_share(step, target))
            for name, mask in moved.items():
                optimizer.state[weights[name]]["momentum_buffer"][mask & ~masks[name]] = 0
            masks.update(moved)
        else:
            optimizer.step()
        zero_(model, masks)

    return take_step
