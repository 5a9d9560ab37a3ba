"""Rounding to integers, and a rounding that gradients pass through.

    q - z = clip(round(x / s), lowest, highest)        d(q - z) / dx = 1 / s where x is in range, else 0

The gradient is that of the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): rounding is left out of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

HALF = 0.4999  # steps beyond its ends that a grid reaches: half a one, as in torch, but surely rounded to the end


def to_integers(x: Tensor, scale: Tensor, lowest: int | Tensor, highest: int | Tensor) -> Tensor:
    """q - z: x in units of `scale`, rounded half to even and clamped; NaN stays NaN, so that logits show it.

    >>> to_integers(torch.tensor([-9.0, 0.5, 1.5, 9.0]), torch.ones(1), -3, 4).tolist()
    [-3.0, 0.0, 2.0, 4.0]
    """
    return (x * scale.reciprocal()).round_().clamp_(lowest, highest)


def straight_through(x: Tensor, scale: float, lowest: int, highest: int) -> Tensor:
    """The same in the precision of x, which must hold the integers, and with the gradient of the straight-through estimator.

    Computed in float32 at least, on a grid of one scale; of the forward pass x is kept.

    >>> x = torch.tensor([-9.0, 0.5, 1.5, 9.0], dtype=torch.bfloat16, requires_grad=True)
    >>> torch.autograd.grad(straight_through(x, 0.5, -3, 4).sum(), x)[0].tolist()
    [0.0, 2.0, 2.0, 0.0]
    """
    if has_torch_function_unary(x):
        return handle_torch_function(straight_through, (x,), x, scale, lowest, highest)
    return _StraightThrough.apply(x, scale, lowest, highest)


class _StraightThrough(torch.autograd.Function):
    """As few passes over memory as torch has operators for: on a CPU these take longer than a depthwise convolution."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: float, lowest: int, highest: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grid = scale, lowest, highest
        wide = torch.promote_types(x.dtype, torch.float32)
        return x.to(wide, copy=True).mul_(1 / scale).round_().clamp_(lowest, highest).to(x.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (scale, lowest, highest) = ctx.saved_tensors, ctx.grid
        ends = (lowest - HALF) * scale, (highest + HALF) * scale
        return torch.ops.aten.hardtanh_backward(gradient, x, *ends) * (1 / scale), None, None, None
