"""Ranges: the two numbers between which the grid of a quantized layer lies.

A grid of n equal steps from `low` to `high` has the scale s = (high - low) / n and the zero point z = round(-low / s). A
wide range clips nothing and rounds coarsely, a narrow one clips and rounds finely; at 2 to 4 bits this choice decides if
a network still works. There are three rules, for all channels of a weight at once or for the inputs of a layer, which are
counted on unlabelled images (`observe`):

    minmax      the whole range of the values
    percentile  the range without the outermost 0.1 %
    mse         the range of least squared error, ||Q(x) - x||^2 (Nagel et al. 2021, arXiv 2106.08295, section 3.1)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from vpcore.errors import InputError
from vpcore.networks.integer_grid import to_integers
from vpcore.networks.watching import watch

PERCENTILE = 99.9  # upper end of a range; its lower end is the percentile 100 - PERCENTILE
RATIOS = tuple(k / 50 for k in range(50, 0, -1))  # shares of the whole range that `mse` tries
BINS = 2048  # points at which the inputs of a layer are counted

Range = tuple[Tensor, Tensor]  # (C,) lower and (C,) upper ends, low <= 0 <= high
RangeRule = Callable[[Tensor, Tensor, int], Range]


def grid(ends: Range, steps: int) -> tuple[Tensor, Tensor]:
    """(C,) scales and (C,) zero points, in 0..steps, of C ranges; the scale of an empty range is 1."""
    low, high = ends
    scale = (high - low) / steps
    scale = torch.where(scale > torch.finfo(scale.dtype).tiny, scale, 1.0)
    return scale, (-low / scale).round().clamp(0, steps)


def minmax(values: Tensor, counts: Tensor, steps: int) -> Range:
    """The whole range of values, of each of C channels.

    Args:
        values: (C, V).
        counts: (C, V) how often each value occurs, or (1, 1) for all of them.
        steps: of the grid.

    Returns:
        (C,) lower ends, at most 0, and (C,) upper ends, at least 0.

    >>> minmax(torch.tensor([[1.0, 3.0], [-2.0, -1.0]]), torch.ones(1, 1), 255)
    (tensor([ 0., -2.]), tensor([3., 0.]))
    """
    return values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)


def percentile(values: Tensor, counts: Tensor, steps: int) -> Range:
    """From the percentile 100 - `PERCENTILE` to `PERCENTILE` (nearest rank); arguments as in `minmax`."""
    values, order = values.sort(1)
    rank = counts.double().expand_as(values).gather(1, order).cumsum(1)

    def at(percent: float) -> Tensor:
        return values.gather(1, torch.searchsorted(rank, percent / 100 * rank[:, -1:])).squeeze(1)

    return at(100 - PERCENTILE).clamp(max=0), at(PERCENTILE).clamp(min=0)


def mse(values: Tensor, counts: Tensor, steps: int) -> Range:
    """The range of least squared error among those whose ends are `RATIOS` of the whole; arguments as in `minmax`."""
    low, high = best_low, best_high = minmax(values, counts, steps)
    lows = low * values.new_tensor(RATIOS if bool((low < 0).any()) else (1.0,))[:, None]  # tried at once
    least = torch.full_like(high, torch.inf, dtype=torch.float64)
    for ratio in RATIOS:
        scale, zero = (column[..., None] for column in grid((lows, (high * ratio).expand_as(lows)), steps))
        rounded = to_integers(values, scale, -zero, steps - zero) * scale
        error, row = ((rounded - values).square() * counts).sum(-1, dtype=torch.float64).min(0)
        best_low = torch.where(error < least, lows.gather(0, row[None])[0], best_low)
        best_high = torch.where(error < least, high * ratio, best_high)
        least = torch.minimum(error, least)
    return best_low, best_high


# name -> the rule that chooses a range
QUANT_RANGES: dict[str, RangeRule] = {"minmax": minmax, "percentile": percentile, "mse": mse}


@torch.no_grad()
def observe(network: nn.Module, layers: Mapping[str, nn.Module], batches: list[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Name of a layer -> (1, BINS) points over the range of its inputs, and (1, BINS) counts of those nearest to each."""
    ends: dict[str, tuple[float, float]] = dict.fromkeys(layers, (0.0, 0.0))
    counts: dict[str, Tensor] = {}

    def widen(name: str, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        low, high = (float(end) for end in x.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError(f"`batches` must give finite inputs of layers, but those of layer {name} are NaN or infinite")
        ends[name] = min(low, ends[name][0]), max(high, ends[name][1])

    def count(name: str, layer: nn.Module, x: Tensor, output: Tensor) -> None:
        low, high = ends[name]
        half = (high - low) / (BINS - 1) / 2
        counts[name] = counts.get(name, 0) + torch.histc(x.float(), BINS, low - half, high + half).double()

    for look in (widen, count):
        watch(network, layers, batches, look)
    if missing := ", ".join(name for name in layers if name not in counts):
        raise InputError(
            f"`batches` must give inputs to every layer, but they give none to {missing}; give some hundred images, and "
            "take out layers that are not used"
        )
    return {name: (torch.linspace(*ends[name], BINS, device=n.device)[None], n[None]) for name, n in counts.items()}
