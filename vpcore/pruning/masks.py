"""Pruning: masks say which weights of a network are kept.

Masks are a dict, name of a weight -> bool tensor of its shape, True where the weight is kept. Density is kept / prunable, in
(0, 1]. Magnitude pruning keeps the weights that are largest in absolute value, ranked over all layers at once:

    M = top-k of |W|,   k = round(density * number of prunable weights),   within the mask of the round before,

or, with the scope "layer", within each layer; all layers then have the same density. Counts are exact: among equal scores
those that come first are kept, and the numbers for each layer are rounded so that they sum to k.

    masks = prune(model, density=0.2)      # which weights are kept
    apply_(model, masks)                   # the others become zero

Iterative magnitude pruning (`iterative`) keeps `1 - rate` of what is left in every round, so that round r has density
(1 - rate)^r (Frankle & Carbin 2019, arXiv 1803.03635; with rewinding: Frankle et al. 2020, arXiv 1912.05671).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from vpcore.checks import check_network, kind_of, share, whole_number
from vpcore.errors import InputError, difference, entry, unknown
from vpcore.networks.backbones import PARTS, prunable
from vpcore.networks.state import check_finite, check_masks

Masks = dict[str, Tensor]
Scores = dict[str, Tensor]

SCOPES = ("global", "layer")


def prune(
    model: nn.Module,
    *,
    density: float,
    scope: str = "global",
    part: str = "body",
    scores: Scores | None = None,
    weights: Iterable[str] | None = None,
    within: Masks | None = None,
) -> Masks:
    """Masks that keep the weights of a network that are largest in absolute value, as many as a density allows.

    Args:
        model: any network; left as it is.
        density: kept / prunable, in (0, 1].
        scope: one of `SCOPES`: "global" ranks the weights of all layers at once, "layer" within each layer.
        part: a key of `backbones.PARTS`; in "body" the first and the last layer stay dense.
        scores: name of a weight -> tensor of its shape, ranked in place of absolute values; the highest are kept. Only these
            weights are pruned, unless `weights` names others.
        weights: names of the parameters that are pruned, in place of those of `part`.
        within: masks of an earlier round, in place of `weights`; what they leave out stays out, so `density` cannot be above
            theirs.

    Returns:
        Name of a weight -> bool tensor of its shape, True where it is kept: round(density * prunable) in all.

    Raises:
        InputError: for a density outside (0, 1] or above that of `within`; an unknown scope, part or name; for weights that
            are not finite floating-point numbers, and scores that are no real numbers or of other shapes.

    >>> model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    >>> masks = prune(model, density=0.25)
    >>> apply_(model, masks)
    >>> {name: int(mask.sum()) for name, mask in masks.items()}, density(masks), measure(model, masks)
    ({'1.weight': 4}, 0.25, {'1.weight': 0.25})
    """
    check_network(model)
    entry("part", part, PARTS)
    if within is not None and weights is not None:
        raise InputError("`weights` must be None with `within`, whose masks name the weights; give one of the two")
    if within is not None:
        check_masks(model, masks := within, where="`within`")
    else:
        if weights is None:
            weights = prunable(model, part) if scores is None else scores
        masks = full(model, weights)
    if not masks:
        raise InputError(f"`weights` must name some, but `part` {part} of {type(model).__name__} is empty; use part='all'")
    check_finite(model)
    for name in masks:
        if not (kind := model.get_parameter(name).dtype).is_floating_point:
            raise InputError(f"`weights` must be real floating-point numbers, but {name} is {kind}; leave it out")
    return select(magnitude(model, masks) if scores is None else scores, masks, density=density, scope=scope)


def full(model: nn.Module, names: Iterable[str]) -> Masks:
    """Masks that keep everything, one for each name; raises an `InputError` for a name that is not a parameter's."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in named(model, names).items()}


def magnitude(model: nn.Module, masks: Iterable[str]) -> Scores:
    """Scores |W| for `select`, in float32 at least, of the weights that `masks` names; raises errors as `full` does."""
    return {name: _ranked(weight.detach().abs()) for name, weight in named(model, masks).items()}


def _ranked(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def named(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Name -> parameter of the network, for each of the names.

    Raises:
        InputError: for a name that is not a parameter's.
    """
    check_network(model)
    weights = dict(model.named_parameters())
    names = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if strangers := [str(name) for name in names if name not in weights]:
        lines = difference([], strangers)
        raise InputError(
            f"`weights`, or else `scores`, must have names of parameters of {type(model).__name__}, such as "
            f"{next(iter(weights), 'none')}; these are none:\n{lines}"
        )
    return {name: weights[name] for name in names}


def select(scores: Scores, masks: Masks, *, density: float, scope: str = "global") -> Masks:
    """Keep the weights with the highest scores, an exact number of them, within the masks given.

    Args:
        scores: name -> score of every weight; higher is kept.
        masks: which weights are still there; what they leave out stays out, so that masks are nested.
        density: kept / prunable after the selection, in (0, 1].
        scope: "global" ranks all weights at once; "layer" gives every layer the same density and ranks within it.

    Returns:
        New masks with exactly round(density * prunable) weights kept; among equal scores those that come first.

    Raises:
        InputError: for a density outside (0, 1], or above that of `masks`, an unknown scope, or scores that are NaN.

    >>> kept = select({"w": torch.tensor([1.0, 3.0, 3.0, 2.0])}, {"w": torch.ones(4, dtype=torch.bool)}, density=0.25)
    >>> kept["w"].tolist()
    [False, True, False, False]
    """
    check_scope(scope)
    keep, layers = budget(masks, density=density), list(masks.values())
    if not isinstance(scores, Mapping):
        raise InputError(
            f"`scores` must be a dict, name of a weight -> tensor of its shape, got {kind_of(scores)}; "
            "use magnitude(model, masks)"
        )
    for name, mask in masks.items():
        score = scores.get(name)
        if not isinstance(score, Tensor) or score.shape != mask.shape or score.is_complex():
            raise InputError(
                f"`scores` of {name} must be real numbers, a tensor of shape {tuple(mask.shape)}, got {kind_of(score)}; "
                "give every weight that is pruned a score"
            )
    scores = {name: _ranked(scores[name]).to(mask.device) for name, mask in masks.items()}
    if scope == "layer":
        counts = apportion(keep, shares=[m.numel() for m in layers], most=[int(m.sum()) for m in layers])
        return select_counts(scores, masks, dict(zip(masks, counts, strict=True)))
    ranked, alive = torch.cat([scores[name].flatten() for name in masks]), torch.cat([m.flatten() for m in layers])
    parts = top(ranked, alive, count=keep).split([m.numel() for m in layers])
    return {name: part.view(masks[name].shape) for name, part in zip(masks, parts, strict=True)}


def select_counts(scores: Scores, masks: Masks, counts: dict[str, int]) -> Masks:
    """Keep the weights with the highest scores within the masks given: in each layer as many as `counts` says.

    Raises:
        InputError: as `top`, for each layer.
    """
    return {name: top(scores[name], mask, count=counts[name], where=name) for name, mask in masks.items()}


def top(scores: Tensor, mask: Tensor, *, count: int, where: str = "the network") -> Tensor:
    """The mask of the `count` highest scores within a mask; among equal scores those that come first.

    Raises:
        InputError: for more weights than the mask has, or scores that are NaN within it; `where` names the mask in its text.
    """
    alive = int(mask.sum())
    if not 0 <= count <= alive:
        raise InputError(
            f"`count` must be in 0..{alive}, which is what {where} has left, got {count}; what is pruned stays pruned"
        )
    if count == 0:
        return torch.zeros_like(mask)
    flat = scores.masked_fill(~mask, -torch.inf).flatten()
    if missing := int(flat.isnan().sum()):
        raise InputError(
            f"`scores` of {where} must be numbers, but {missing} of {alive} are NaN; "
            "if the training has diverged, use a smaller learning rate"
        )
    least = flat.kthvalue(len(flat) - count + 1).values
    kept = flat > least
    kept[(flat == least).nonzero()[: count - int(kept.sum())]] = True
    return kept.view(mask.shape)


def budget(masks: Masks, *, density: float) -> int:
    """How many weights a density keeps: round(density * prunable).

    Raises:
        InputError: for a density outside (0, 1], or one that `masks` cannot have (any more).
    """
    density = share(density, name="density", one=True)
    check_masks(masks, masks)
    total = sum(mask.numel() for mask in masks.values())
    keep, alive = round(density * total), sum(int(mask.sum()) for mask in masks.values())
    if keep < 1:
        raise InputError(f"`density` must keep a weight, but {density} of {total} is none; use {1 / total:.2g} or more")
    if keep > alive:
        raise InputError(
            f"`density` must be at most {alive / total:g}, as the masks that it is selected within keep {alive} of {total} "
            f"weights and what is pruned stays pruned, got {density}; use a lower one, or prune without these masks"
        )
    return keep


def apportion(total: int, *, shares: list[int], most: list[int]) -> list[int]:
    """Divide a number of weights among layers.

    Layer i gets min(most_i, e share_i), with the one e for which these sum to `total`; what rounding down leaves over goes
    to the largest remainders.

    Args:
        total: to be divided; no more than the sum of `most`.
        shares: positive, one for each layer.
        most: upper bound of each layer.

    >>> apportion(10, shares=[1, 1, 1], most=[2, 100, 100])
    [2, 4, 4]
    """
    quota, rest, free = [float(bound) for bound in most], total, list(range(len(shares)))
    while free:
        e = rest / sum(shares[i] for i in free)
        bound = {i for i in free if e * shares[i] >= most[i]}
        if not bound:
            break
        rest -= sum(most[i] for i in bound)
        free = [i for i in free if i not in bound]
    for i in free:
        quota[i] = e * shares[i]
    counts = [int(q) for q in quota]
    by_remainder = sorted(range(len(quota)), key=lambda i: counts[i] - quota[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def check_scope(scope: str) -> None:
    """Refuse a scope that is none of `SCOPES`."""
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)


def density_of_round(number: int, *, rate: float) -> float:
    """Density after `number` rounds that each remove the share `rate` of what is left: (1 - rate)^number.

    Raises:
        InputError: for a rate outside (0, 1), or a negative number.

    >>> [round(density_of_round(r, rate=0.2), 3) for r in (0, 1, 2, 3)]
    [1.0, 0.8, 0.64, 0.512]
    """
    return (1 - share(rate, name="rate")) ** whole_number(number, name="round", least=0, otherwise=", 0 for dense")


def apply_(model: nn.Module, masks: Masks) -> None:
    """Set the weights that the masks leave out to zero, in place.

    Raises:
        InputError: for masks that are not those of the network or keep nothing, and for weights that are NaN or infinite;
            nothing is changed then.
    """
    check_masks(model, masks)
    check_finite(model)
    zero_(model, masks)


@torch.no_grad()
def zero_(model: nn.Module, masks: Masks) -> None:
    """As `apply_`, without its checks, for every step of a training; there may be no masks."""
    weights = dict(model.named_parameters())
    for name, mask in masks.items():
        weights[name].mul_(mask.to(weights[name].device))


def density(masks: Masks) -> float:
    """Kept / prunable, over all layers, in [0, 1].

    Raises:
        InputError: for masks that are no masks, or keep nothing.
    """
    check_masks(masks, masks)
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())


def measure(model: nn.Module, names: Iterable[str]) -> dict[str, float]:
    """Name -> share of its weights that are not zero, in [0, 1], counted in the network itself and not in masks."""
    return {name: float((weight != 0).float().mean()) for name, weight in named(model, names).items()}
