"""The floor: the least time that any implementation of a prompt can take.

The bare forward pass and the gradient with respect to the images, of a frozen network on one batch that is there already: no
prompt, no mapping, no loss, no optimizer. Which precision and memory format are the fastest depends on the machine and the
network; all are tried, and the best is the floor.
"""

from __future__ import annotations

import dataclasses
import functools

import torch

from vpcore.bench.timing import CLASSES, Row, Setting, medians
from vpcore.networks.backbones import PRECISIONS

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


class Bare:
    """The bare network on one batch: what the floor is measured with."""

    def __init__(self, setting: Setting, precision: str, layout: str, count: int) -> None:
        frozen = setting.frozen(precision)
        self.network = frozen.body.to(memory_format=FORMATS[layout])
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(count, 3, setting.canvas, setting.canvas, generator=generator)
        self.x = x.to(setting.device, frozen.dtype, memory_format=FORMATS[layout]).requires_grad_()
        self.gradient = torch.randn(count, CLASSES, generator=generator).to(setting.device, frozen.dtype)

    def forward(self) -> None:
        with torch.no_grad():
            self.network(self.x)

    def step(self) -> None:
        self.x.grad = None
        self.network(self.x).backward(self.gradient)


@functools.lru_cache
def best_precision(setting: Setting, count: int) -> tuple[str, str, list[Row]]:
    """The precision and memory format with the fastest step, and the times of all; measured once for a setting."""
    bare = {(p, layout): Bare(setting, p, layout, count) for p in PRECISIONS for layout in FORMATS}
    once = dataclasses.replace(setting, repeats=max(2, setting.repeats // 2))
    found = medians(once, {"/".join(key): each.step for key, each in bare.items()})
    rows = [Row("floor", f"forward and input gradient, {count} images, {name}", s) for name, s in found.items()]
    precision, layout = min(found, key=found.__getitem__).split("/")
    return precision, layout, rows
