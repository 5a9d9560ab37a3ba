"""Images in a frame that they share: what an image does not reach is computed once for all images.

A visual prompt shows a small image in the centre of a canvas whose border is the same for every image of a step. A
convolution looks at a few pixels around each place, so that after some layers most of a feature map still depends on the
border alone. A `Framed` holds such a map as two parts,

    around      (K, C, H, W)         the map of the border, once for each of K prompts
    inside      (K n, C, h, w)       the part that the images reach, at the place (top, left), once for each image,

and goes through a network in place of a tensor (`__torch_function__`). A convolution computes `around` as it is, and
`inside` from itself and a ring cut out of `around`, as wide as the kernel reaches; the place grows from layer to layer. What
is known to act on each number alone acts on both parts. Anything else, and a place that has grown over most of the map,
gets the `whole` tensor. The numbers are those of the whole canvas; the gradient of the border is summed where it is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpcore.networks.integer_grid import straight_through

Function = Callable[..., Any]  # of torch, called with what the network calls it with
Side = int | tuple[int, ...] | list[int]  # of a window: one number, or one for each axis
Act = Callable[[Tensor, tuple[int, int]], Tensor]  # a window over a map with so much padding

MAX_INSIDE_SHARE = 0.6  # of a map is worth keeping in two parts

# functions of each number alone, or of each channel: those of networks in evaluation mode
POINTWISE: set[Function] = {
    F.relu, torch.relu, torch.relu_, F.relu6, F.hardtanh, F.silu, F.gelu, F.dropout, F.batch_norm,
    straight_through,
}  # fmt: skip


class Framed:
    """A batch of K n maps, see above.

    Args:
        around: (K, C, H, W)
        inside: (K n, C, h, w), those of a prompt after each other.
        top, left: where in the map `inside` lies.
    """

    def __init__(self, around: Tensor, inside: Tensor, *, top: int, left: int) -> None:
        self.around, self.inside, self.top, self.left = around, inside, top, left

    @property
    def share(self) -> float:
        """Of the map that the images reach."""
        return self.inside[0, 0].numel() / self.around[0, 0].numel()

    def each(self, function: Callable[[Tensor], Tensor]) -> Framed:
        """A function of each number, or of each channel."""
        return Framed(function(self.around), function(self.inside), top=self.top, left=self.left)

    @property
    def place(self) -> tuple[int, int, int, int]:
        """First row and the one after the last, first column and the one after the last, that the images reach."""
        height, width = self.inside.shape[2:]
        return self.top, self.top + height, self.left, self.left + width

    def cut(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """(K n, C, bottom - top, right - left) a part of all maps."""
        if (top, bottom, left, right) == self.place:
            return self.inside
        count = len(self.inside) // len(self.around)
        around, inside = (part.permute(0, 2, 3, 1) for part in (self.around, self.inside))  # as channels-last maps lie
        first, last, start, end = self.place
        rows, columns = slice(max(top, first), min(bottom, last)), slice(max(left, start), min(right, end))
        found = around[:, top:bottom, left:right].repeat_interleave(count, 0)
        found[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = inside[
            :, rows.start - first : rows.stop - first, columns.start - start : columns.stop - start
        ]
        return found.permute(0, 3, 1, 2)

    def whole(self) -> Tensor:
        """(K n, C, H, W) the maps in one part."""
        height, width = self.around.shape[2:]
        return self.cut(0, height, 0, width)

    @property
    def shape(self) -> torch.Size:
        """(K n, C, H, W) of the whole maps."""
        return torch.Size([len(self.inside), *self.around.shape[1:]])

    @property
    def dtype(self) -> torch.dtype:
        return self.inside.dtype

    @property
    def requires_grad(self) -> bool:
        return self.around.requires_grad or self.inside.requires_grad

    def to(self, dtype: torch.dtype) -> Framed:
        return self.each(lambda part: part.to(dtype))

    def float(self) -> Framed:
        return self.to(torch.float32)

    def __add__(self, other: Framed) -> Framed:
        """Of two maps of one size; a place that holds both."""
        if not isinstance(other, Framed):
            return self.whole() + other
        ends = zip(self.place, other.place, strict=True)
        place = [min(pair) if n % 2 == 0 else max(pair) for n, pair in enumerate(ends)]
        inside = self.cut(*place) + other.cut(*place)
        return Framed(self.around + other.around, inside, top=place[0], left=place[2])

    def __radd__(self, other: Tensor) -> Tensor:
        return other + self.whole()

    def __getattr__(self, name: str) -> object:
        return getattr(self.whole(), name)

    @classmethod
    def __torch_function__(
        cls,
        function: Function,
        types: tuple[type, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        """What a function of torch does with a `Framed` for its first argument, or for any other."""
        x, *rest = args
        kwargs = kwargs or {}
        if isinstance(x, Framed) and function in POINTWISE:
            return x.each(lambda part: function(part, *rest, **kwargs))
        if isinstance(x, Framed) and function in WINDOWS:
            return WINDOWS[function](x, *rest, **kwargs)
        return function(*(value.whole() if isinstance(value, Framed) else value for value in args), **kwargs)


def _convolve(
    x: Framed,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Side = 1,
    padding: Side | str = 0,
    dilation: Side = 1,
    groups: int = 1,
) -> Framed | Tensor:
    if isinstance(padding, str):
        return F.conv2d(x.whole(), weight, bias, stride, padding, dilation, groups)
    reach = [d * (k - 1) + 1 for d, k in zip(_pair(dilation), weight.shape[2:], strict=True)]

    def act(part: Tensor, pad: tuple[int, int]) -> Tensor:
        return F.conv2d(part, weight, bias, stride, pad, dilation, groups)

    return _slide(x, act, reach, _pair(stride), _pair(padding), fill=0.0)


def _pool(
    x: Framed,
    kernel_size: Side,
    stride: Side | None = None,
    padding: Side = 0,
    dilation: Side = 1,
    ceil_mode: bool = False,
    **rest: object,
) -> Framed | Tensor:
    reach = [d * (k - 1) + 1 for d, k in zip(_pair(dilation), _pair(kernel_size), strict=True)]
    stride = kernel_size if stride is None or stride == [] else stride
    if ceil_mode:
        return F.max_pool2d(x.whole(), kernel_size, stride, padding, dilation, ceil_mode)

    def act(part: Tensor, pad: tuple[int, int]) -> Tensor:
        return F.max_pool2d(part, kernel_size, stride, pad, dilation)

    return _slide(x, act, reach, _pair(stride), _pair(padding), fill=-torch.inf)


def _pad(x: Framed, pad: list[int], mode: str = "constant", value: float | None = None) -> Framed | Tensor:
    if mode != "constant" or len(pad) != 4 or min(pad) < 0:
        return F.pad(x.whole(), pad, mode, value)
    return Framed(F.pad(x.around, pad, value=value), x.inside, top=x.top + pad[2], left=x.left + pad[0])


# functions that change the size of the map, or look at more than one place of it
WINDOWS: dict[Function, Function] = {F.conv2d: _convolve, torch.max_pool2d: _pool, F.max_pool2d: _pool, F.pad: _pad}


def _slide(
    x: Framed, act: Act, reach: list[int], stride: tuple[int, int], padding: tuple[int, int], *, fill: float
) -> Framed | Tensor:
    """A window over both parts: its output o sees the inputs from o stride - padding on, as many as it reaches."""
    around = act(x.around, padding)
    begins, cuts, pads = [], [], list[int]()
    for axis in (0, 1):
        first, end, size = *x.place[2 * axis : 2 * axis + 2], x.around.shape[2 + axis]
        s, p, r = stride[axis], padding[axis], reach[axis]
        begin = max(0, -((r - 1 - p - first) // s))  # the first output that sees the images
        last = min(around.shape[2 + axis] - 1, (end - 1 + p) // s)
        if begin > last:
            return act(x.whole(), padding)
        low, high = begin * s - p, last * s - p + r
        begins.append(begin)
        cuts += [max(low, 0), min(high, size)]
        pads = [max(-low, 0), max(high - size, 0), *pads]
    part = x.cut(*cuts)
    inside = act(F.pad(part, pads, value=fill) if any(pads) else part, (0, 0))
    found = Framed(around, inside, top=begins[0], left=begins[1])
    return found if found.share <= MAX_INSIDE_SHARE else found.whole()


def _pair(value: Side) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
