"""Pruning: which weights of a network are kept, as masks.

A mask is a dict, name of a weight -> bool tensor of its shape, True where the weight is kept. Density is kept / prunable, in
(0, 1]. Magnitude pruning keeps the weights that are largest in absolute value, ranked over all layers at once:

    M = top-k of |W|,   k = round(density * number of prunable weights),   within the mask of the round before.

Iterative magnitude pruning (`tickets`) takes `1 - rate` of what is left in every round, so that round r has density
(1 - rate)^r (Frankle & Carbin 2019, arXiv 1803.03635; with rewinding: Frankle et al. 2020, arXiv 1912.05671).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vpcore.errors import InputError

Masks = dict[str, Tensor]


def full(model: nn.Module, names: Iterable[str]) -> Masks:
    """The masks that keep everything: one for each name."""
    weights = dict(model.named_parameters())
    return {name: torch.ones_like(weights[name], dtype=torch.bool) for name in names}


def magnitude(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Scores |W| of the masked weights, to be ranked by `select`."""
    weights = dict(model.named_parameters())
    return {name: weights[name].detach().abs() for name in masks}


def select(scores: dict[str, Tensor], masks: Masks, *, density: float) -> Masks:
    """Keep the best-scored weights over all layers, an exact number of them, within the masks given.

    Args:
        scores: name -> score of every weight; higher is kept.
        masks: what is still there; what they leave out stays out, so masks are nested.
        density: kept / prunable after the selection, in (0, 1].

    Returns:
        New masks with exactly round(density * prunable) weights kept; among equal scores those that come first.

    Raises:
        InputError: for a density outside (0, 1], or above that of `masks`.

    >>> kept = select({"w": torch.tensor([1.0, 3.0, 3.0, 2.0])}, {"w": torch.ones(4, dtype=torch.bool)}, density=0.25)
    >>> kept["w"].tolist()
    [False, True, False, False]
    """
    if not 0 < density <= 1:
        raise InputError(
            f"`density` must be in (0, 1], got {density}"
            + (f"; percent? use {density / 100:g}" if 1 < density <= 100 else "")
        )
    total = sum(mask.numel() for mask in masks.values())
    keep, alive = round(density * total), sum(int(mask.sum()) for mask in masks.values())
    if keep < 1 or keep > alive:
        raise InputError(
            f"`density` {density} keeps {keep} of {total} weights, but between 1 and {alive} can be kept; "
            "use another density"
        )
    flat = torch.cat([scores[name].masked_fill(~masks[name], -torch.inf).flatten() for name in masks])
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[:keep]] = True  # stable: among ties the first ones
    parts = kept.split([mask.numel() for mask in masks.values()])
    return {name: part.view_as(masks[name]) for name, part in zip(masks, parts, strict=True)}


def density_of_round(number: int, *, rate: float) -> float:
    """Density after `number` rounds that each remove the share `rate` of what is left: (1 - rate)^number.

    >>> [round(density_of_round(r, rate=0.2), 3) for r in (0, 1, 2, 3)]
    [1.0, 0.8, 0.64, 0.512]
    """
    if not 0 < rate < 1:
        raise InputError(
            f"`rate` must be in (0, 1), got {rate}" + (f"; percent? use {rate / 100:g}" if 1 <= rate < 100 else "")
        )
    if number < 0:
        raise InputError(f"`round` must be 0 (dense) or more, got {number}")
    return (1 - rate) ** number


def apply_(model: nn.Module, masks: Masks) -> None:
    """Set the weights that the masks leave out to zero, in place."""
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask.to(weights[name].device))


def density(masks: Masks) -> float:
    """Kept / prunable, over all layers."""
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def measure(model: nn.Module, names: Iterable[str]) -> dict[str, float]:
    """Name -> share of the weights that are not zero, as the network really is, not as a mask says."""
    weights = dict(model.named_parameters())
    return {name: float((weights[name] != 0).float().mean()) for name in names}
