"""Patterns: masks that do not simply keep the largest weights.

The same density allows many choices of weights. Besides the largest in magnitude (`masks`), these can be kept:

    random      by scores drawn at random, the control that ignores the weights
    ERK         more of small layers, less of large ones: densities proportional to (n_in + n_out + h + w) / (n_in n_out h w)
                (Erdos-Renyi kernel: Mocanu et al. 2018, arXiv 1707.04780; Evci et al. 2020, arXiv 1911.11134)
    2:4         two of every four consecutive input channels, which sparse tensor cores can skip
                (Mishra et al. 2021, arXiv 2104.08378)
    channels    whole filters, which are the weights of one output channel (Li et al. 2017, arXiv 1608.08710)

These can be combined: RigL, for instance, starts from random masks with ERK counts.
"""

from __future__ import annotations

import torch

from vpcore.errors import InputError
from vpcore.pruning.masks import Masks, Scores, apportion, budget, check_scope


def random_scores(masks: Masks, *, seed: int) -> Scores:
    """Scores drawn from [0, 1). A seed always gives the same ones, so that its masks at several densities are nested."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(mask.shape, generator=generator) for name, mask in masks.items()}


def erk(masks: Masks, *, density: float) -> dict[str, int]:
    """How many weights each layer keeps under the Erdos-Renyi-kernel distribution, for `masks.select_counts`.

    A layer of shape (n_out, n_in, h, w) has the density min(1, e (n_in + n_out + h + w) / (n_in n_out h w)), a linear layer
    the same without h and w. The factor e is the one that gives `density` over all layers (Evci et al. 2020, section 3).

    >>> erk({"a": torch.ones(8, 8, 3, 3).bool(), "b": torch.ones(4, 2, 1, 1).bool()}, density=0.1)
    {'a': 50, 'b': 8}
    """
    layers, keep = list(masks.values()), budget(masks, density=density)
    counts = apportion(keep, shares=[sum(m.shape) for m in layers], most=[int(m.sum()) for m in layers])
    return dict(zip(masks, counts, strict=True))


def two_of_four(scores: Scores, masks: Masks) -> Masks:
    """Keep the two highest-scored of every four consecutive input channels, within the masks given.

    Groups lie along axis 1 of a weight: the inputs of a linear layer, the input channels of a convolution at one position
    of one filter, as in NVIDIA's ASP. A layer whose inputs are no multiple of four, such as a depthwise convolution, stays
    as it is: the density over all layers is then above 0.5.

    >>> two_of_four({"w": torch.tensor([[4.0, 1.0, 2.0, 3.0]])}, {"w": torch.ones(1, 4, dtype=torch.bool)})["w"].tolist()
    [[True, False, False, True]]
    """
    kept = {}
    for name, mask in masks.items():
        if mask.shape[1] % 4:
            kept[name] = mask.clone()
            continue
        groups = scores[name].masked_fill(~mask, -torch.inf).unflatten(1, (-1, 4))
        best = groups.argsort(dim=2, descending=True, stable=True)[:, :, :2]
        kept[name] = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, best, True).flatten(1, 2) & mask
    return kept


def channels(scores: Scores, masks: Masks, *, density: float, scope: str = "global") -> Masks:
    """Keep whole filters, highest-scored first, each that still fits: the density is `density` or just below it.

    A filter is scored by the root mean square of the scores of its weights, their L2 norm made comparable between filters of
    different sizes. The highest-scored one of every layer is always kept, since a layer without filters passes nothing on.

    Args:
        scores: name -> score of every weight; axis 0 of a weight counts its output channels.
        masks: which weights are still there.
        density: kept / prunable, in (0, 1], which is not exceeded.
        scope: "global" ranks all filters at once by score; "layer" by their place within their layer, so that every layer
            loses about the same share.

    Raises:
        InputError: for a density outside (0, 1] or too small for one filter in every layer, and for an unknown scope.

    >>> ones = {"w": torch.ones(3, 2, dtype=torch.bool)}
    >>> channels({"w": torch.tensor([[1.0, 1.0], [0.0, 3.0], [2.0, 2.0]])}, ones, density=0.9)["w"].tolist()
    [[False, False], [True, True], [True, True]]
    """
    check_scope(scope)
    room, ranked = budget(masks, density=density), []
    for name, mask in masks.items():
        norms = scores[name].flatten(1).square().mean(1).sqrt()
        sizes = mask.flatten(1).sum(1).tolist()
        for place, channel in enumerate(norms.argsort(descending=True, stable=True).tolist()):
            score = -place / len(sizes) if scope == "layer" else float(norms[channel])
            ranked.append((torch.inf if place == 0 else score, name, channel, sizes[channel]))
    least = sum(size for score, _, _, size in ranked if score == torch.inf)
    if least > room:
        raise InputError(
            f"`density` {density} keeps {room} weights, but one filter in every layer takes {least}; use a larger density"
        )
    kept = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for _, name, channel, size in sorted(ranked, key=lambda entry: entry[0], reverse=True):
        if size <= room:
            kept[name][channel], room = masks[name][channel], room - size
    return kept
