"""Inputs of layers: the vectors that a layer multiplies with the weights of its output channels.

A linear layer and a convolution compute the same at each place of their output, y = W x: x is the input of the linear layer,
or the window of the convolution, flattened in the order of its weights. Methods that prune after training need x on some
hundred images (`reconstruction`, `after_training`). A few places of each image, drawn at random, are enough for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.checks import as_batches
from vpcore.errors import InputError
from vpcore.networks.watching import watch
from vpcore.pruning.masks import Masks

Layer = nn.Conv2d | nn.Linear


def checked_batches(batches: Iterable[Tensor]) -> list[Tensor]:
    """Batches of inputs as a list of at least one; images are laid out channels-last, which is a third faster on a CPU."""
    found = as_batches(batches)
    if not found:
        raise InputError("`batches` must hold at least one batch of images, got none; some hundred images are enough")
    return [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in found]


def watch_masked(
    model: nn.Module, masks: Masks, batches: Iterable[Tensor], see: Callable[[str, Layer, Tensor, Tensor], None]
) -> None:
    """Show the input and the output of each masked layer to `see`, with the name of its weight, as `watch` does.

    Raises:
        InputError: for a mask of a weight whose inputs cannot be seen, such as those in torchvision's attention.
    """
    layers = {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, Layer)}
    seen = set()

    def note(name: str, layer: Layer, x: Tensor, output: Tensor) -> None:
        seen.add(name)
        see(name, layer, x, output)

    watch(model, {name: layer for name, layer in layers.items() if name in masks}, batches, note)
    if unseen := [name for name in masks if name not in seen]:
        raise InputError(
            "`masks` must be of convolutions and linear layers whose inputs can be seen, unlike those inside torchvision's "
            f"attention; these cannot: {', '.join(unseen[:3])} ({len(unseen)} in all); prune others, or take another network"
        )


def add_ridge(gram: Tensor, ridge: float) -> Tensor:
    """(groups, d, d) X'X -> X'X + l I in place, where l is `ridge` times the mean of the diagonal; returns its argument."""
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal.add_((ridge * diagonal.mean(1)).clamp(min=torch.finfo(gram.dtype).tiny)[:, None])
    return gram


def draw_places(values: Tensor, positions: int, generator: torch.Generator) -> Tensor:
    """(N, P) places, without repetition, of (N, L, O) outputs: at most `positions` for each image."""
    return torch.rand(values.shape[:2], generator=generator).topk(min(positions, values.shape[1])).indices


def by_place(layer: nn.Module, output: Tensor) -> Tensor:
    """(N, L, O) outputs of a layer at the L places of each image, row by row; after global pooling L is 1."""
    if isinstance(layer, nn.Linear):
        return output.reshape(len(output), -1, output.shape[-1])
    return output.flatten(2).transpose(1, 2)


def at(values: Tensor, places: Tensor) -> Tensor:
    """(N, L, O) values and (N, P) places -> (N, P, O) values at these places."""
    return values[torch.arange(len(places))[:, None], places]


def inputs_at(layer: Layer, x: Tensor, shape: torch.Size, places: Tensor) -> Tensor:
    """The inputs that a layer multiplies with its weights at some places of its output.

    Args:
        layer: a linear layer or a convolution with zero padding.
        x: its input; shape: that of its output.
        places: (N, P) places in the output, counted row by row.

    Returns:
        (groups, N * P, d), where d is the number of weights of an output channel; they are in the order of these weights.
    """
    if isinstance(layer, nn.Linear):
        return at(by_place(layer, x), places).flatten(0, 1)[None]
    pads: list[int] = []
    for axis, (kernel, step, stretch) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        # the size of the output tells the padding, also that of TensorFlow ("same", more on the right): no attribute does
        total = (shape[axis + 2] - 1) * step + stretch * (kernel - 1) + 1 - x.shape[axis + 2]
        before = layer.padding[axis] if isinstance(layer.padding, tuple) and layer.padding[axis] else max(total, 0) // 2
        pads = [before, max(total - before, 0), *pads]
    x = F.pad(x, pads)
    for axis in (2, 3):
        span = layer.dilation[axis - 2] * (layer.kernel_size[axis - 2] - 1) + 1
        x = x.unfold(axis, span, layer.stride[axis - 2])  # a view: only the places that are picked take memory
    x = x[..., :: layer.dilation[0], :: layer.dilation[1]]
    images = torch.arange(len(places))[:, None]
    picked = x[images, :, places // shape[3], places % shape[3]]  # (N, P, C, kh, kw)
    return picked.flatten(0, 1).unflatten(1, (layer.groups, -1)).transpose(0, 1).flatten(2)
