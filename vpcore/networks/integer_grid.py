"""Rounding to integers, and a rounding that gradients pass through.

    q - z = clip(round(x / s), lowest, highest)        d(q - z) / dx = 1 / s where x is in range, else 0

The gradient is that of the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): rounding is left out of it.

In training the step s may be learned, too (`learned_step`; LSQ, Esser et al. 2020, arXiv 1902.08153, eq. 3 and 5): with
v = x / s and the number s q that the integer q = clip(round(v), lowest, highest) stands for,

    d(s q) / ds = q - v where lowest < v < highest, else q;        d(s q) / dx = 1 where lowest < v < highest, else 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

PART = 2**18  # numbers that are rounded at a time where the step is learned: they stay in a CPU's cache, ten times as fast
HALF = 0.4999  # steps beyond its ends that a grid reaches: half a one, as in torch, but surely rounded to the end


def to_integers(x: Tensor, scale: Tensor, lowest: int | Tensor, highest: int | Tensor) -> Tensor:
    """q - z: x in units of `scale`, rounded half to even and clamped; NaN stays NaN, so that logits show it.

    >>> to_integers(torch.tensor([-9.0, 0.5, 1.5, 9.0]), torch.ones(1), -3, 4).tolist()
    [-3.0, 0.0, 2.0, 4.0]
    """
    return (x * scale.reciprocal()).round_().clamp_(lowest, highest)  # type: ignore[arg-type] # torch takes both kinds


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
    def forward(ctx: Any, x: Tensor, scale: float, lowest: int, highest: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grid = scale, lowest, highest
        wide = torch.promote_types(x.dtype, torch.float32)
        return x.to(wide, copy=True).mul_(1 / scale).round_().clamp_(lowest, highest).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (scale, lowest, highest) = ctx.saved_tensors, ctx.grid
        ends = (lowest - HALF) * scale, (highest + HALF) * scale
        return torch.ops.aten.hardtanh_backward(gradient, x, *ends) * (1 / scale), None, None, None


def learned_step(x: Tensor, step: Tensor, lowest: int, highest: int, *, slowed: float = 1.0) -> Tensor:
    """Integers clip(round(x / step), lowest, highest) in the precision of x, with gradients for x and for the step.

    The number that an integer stands for is step times the integer. Whoever multiplies by the step later takes it for a
    constant there (`Tensor.detach`): its whole gradient arises here.

    Args:
        x: (N, ...) in a precision that holds the integers.
        step: positive; of one number, or one for each row of x, (N, 1, ...).
        lowest, highest: ends of the grid.
        slowed: what the gradient of the step is multiplied with, in LSQ 1 / sqrt(n highest) for n numbers that share it.

    >>> x, step = torch.tensor([-9.0, 0.5, 2.75, 9.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    >>> q = learned_step(x, step, -3, 4)
    >>> q.tolist(), [g.tolist() for g in torch.autograd.grad((step.detach() * q).sum(), (x, step))]
    ([-3.0, 0.0, 1.0, 4.0], [[0.0, 1.0, 1.0, 0.0], [0.375]])
    """
    return _LearnedStep.apply(x, step, lowest, highest, slowed)


class _LearnedStep(torch.autograd.Function):
    """Computed in float32 at least; part by part where all numbers share a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, lowest: int, highest: int, slowed: float) -> Tensor:
        inverse, integers = step.reciprocal(), torch.empty_like(x)
        rows = max(1, len(x) if step.numel() > 1 or x.is_cuda else PART * len(x) // max(1, x.numel()))
        for values, out in zip(x.split(rows), integers.split(rows), strict=True):
            out.copy_((values * inverse).round_().clamp_(lowest, highest))
        ctx.save_for_backward(x, integers, inverse)
        ctx.rest = lowest, highest, slowed, rows
        return integers

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, integers, inverse), (lowest, highest, slowed, rows) = ctx.saved_tensors, ctx.rest
        of_x, of_step = torch.empty_like(x), torch.zeros_like(inverse)
        parts = (tensor.split(rows) for tensor in (x, integers, gradient, of_x))
        for values, integer, upstream, out in zip(*parts, strict=True):
            v = values * inverse
            upstream = upstream.to(v.dtype)
            passed = torch.ops.aten.hardtanh_backward(upstream, v, lowest, highest)
            of_step += (upstream * integer).sub_(v.mul_(passed)).sum_to_size(inverse.shape)
            out.copy_(passed.mul_(inverse))
        return of_x, of_step.mul_(inverse).mul_(slowed), None, None, None
