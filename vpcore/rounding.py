"""Rounding to integers that gradients pass through.

    q = clip(round(x / s), lowest, highest)        dq / dx = 1 / s where x is in range, else 0

The gradient is that of the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): rounding is left out of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF = 0.4999  # steps beyond its ends that a grid reaches: half a one, as in torch, but surely rounded to the end


def to_integers(x: Tensor, scale: Tensor, lowest: int | Tensor, highest: int | Tensor) -> Tensor:
    """q - z: x in units of `scale`, rounded half to even and clamped; NaN stays NaN, so that logits show it.

    >>> to_integers(torch.tensor([-9.0, 0.5, 1.5, 9.0]), torch.ones(1), -3, 4).tolist()
    [-3.0, 0.0, 2.0, 4.0]
    """
    return _Round.apply(x, scale, lowest, highest)


class _Round(torch.autograd.Function):
    """Straight-through: the gradient passes where x is in range; of the forward pass one byte a number is kept for it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: Tensor, lowest: int, highest: int) -> Tensor:
        scaled = wide(x, scale) * scale.reciprocal()
        clamped = scaled.clamp(lowest - HALF, highest + HALF)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(clamped == scaled, scale)
            ctx.kind = x.dtype
        return clamped.round_()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inside, scale = ctx.saved_tensors
        return (gradient * inside * scale.reciprocal()).to(ctx.kind), None, None, None


def wide(x: Tensor, scale: Tensor) -> Tensor:
    """x in the wider of the two types; to mix types in an operation takes several times as long on a CPU."""
    return x.to(torch.promote_types(x.dtype, scale.dtype))
