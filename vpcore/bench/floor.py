"""The floor: the least time that any implementation of a prompt can take.

The bare forward pass and the gradient with respect to the images, of a frozen network on one batch that is there already: no
prompt, no mapping, no loss, no optimizer. Which precision and memory format are the fastest depends on the machine and the
network; all are tried, and the best is the floor. On a GPU it also depends on how the kernels are launched: one by one from
Python (eager), recorded and replayed (captured, see `networks.repeat`), or compiled and then recorded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from vpcore.bench.timing import CLASSES, Row, Setting, medians
from vpcore.networks.backbones import PRECISIONS
from vpcore.networks.repeat import WARM_UP, repeat

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
LAUNCHES = {"cpu": ("eager",), "cuda": ("eager", "captured", "compiled")}  # device type -> ways to launch a bare pass
Step = Callable[[nn.Module], Tensor]


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

    def step(self, network: nn.Module | None = None) -> Tensor:
        """Forward, and the gradient of the images; of the network, or of what was compiled from it."""
        self.x.grad = None
        logits = (network or self.network)(self.x)
        logits.backward(self.gradient)
        return logits.detach()


def launched(step: Step, network: nn.Module, launch: str, device: torch.device) -> Callable[[], Tensor]:
    """A step of a network, launched in one of `LAUNCHES`, and ready: what has to be recorded or compiled is."""
    if launch == "compiled":
        torch.compiler.reset()  # it gives up after some networks
        network = cast(nn.Module, torch.compile(network))
    once = functools.partial(step, network)
    ready = once if launch == "eager" else repeat(once, device=device)
    for _ in range(WARM_UP + 1 if launch != "eager" else 0):
        ready()
    return ready


def launches(step: Step, network: nn.Module, device: torch.device, *, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """A step of a network in all ways to launch it on the device, where it compiles; `compiled`: whether that is tried."""
    found = {}
    for launch in LAUNCHES.get(device.type, ("eager",)):
        if launch != "compiled":
            found[launch] = launched(step, network, launch, device)
        elif compiled:
            with contextlib.suppress(RuntimeError, ImportError):  # without a compiler, with another Python, ...
                found[launch] = launched(step, network, launch, device)
    return found


@functools.lru_cache
def best_precision(setting: Setting, count: int) -> tuple[str, str, list[Row]]:
    """The precision and memory format with the fastest step, and the times of all; measured once for a setting."""
    once = dataclasses.replace(setting, repeats=max(2, setting.repeats // 2))
    formats = [(precision, layout) for precision in PRECISIONS for layout in FORMATS]
    found: dict[str, float] = {}
    for turn in [formats] if setting.device.type == "cpu" else [[one] for one in formats]:  # a GPU holds few at a time
        steps = {}
        for precision, layout in turn:
            bare = Bare(setting, precision, layout, count)
            for launch, step in launches(bare.step, bare.network, setting.device, compiled=False).items():
                steps["/".join([precision, layout, *([launch] if launch != "eager" else [])])] = step
        found |= medians(once, steps)
    rows = [Row("floor", f"forward and input gradient, {count} images, {name}", s) for name, s in found.items()]
    precision, layout, *_ = min(found, key=found.__getitem__).split("/")
    return precision, layout, rows
