"""A step that is taken again and again: on a CPU as it is, on a GPU replayed from a CUDA graph.

A step of training a prompt on a GPU is some hundred kernels, each launched from Python in more time than it takes to run. A
CUDA graph records them once and launches them together (Ng et al. 2021, "Accelerating PyTorch with CUDA graphs"):

    calls 1 to 3 of a shape    the step itself, on a stream of its own, so that libraries set themselves up
    call 4                     its kernels are recorded, without being run, and then run from the record
    all later ones             inputs are copied to where the first ones lay; the record is run

So a step must be a function of tensors that does the same to the same memory each time. What it reads besides its inputs
(weights, images, the state of an optimizer, masks) may change in place, but not be replaced. It may not ask for a value
(`float(x)`, `x.tolist()`, `if x > 0`, indexing by a mask) nor make a tensor from Python numbers, and numbers of Python are
those of the recording forever; hence the learning rate of `adam` is a tensor on the device. A step that does wait for the
device, as someone's own network may, is noticed in the first calls and never recorded.
"""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, cast

import torch
from torch import Tensor

WARM_UP = 3  # calls of a shape before it is recorded
WAITED = "called a synchronizing CUDA operation"  # what torch says of a step that waits for the device
Outputs = Tensor | tuple[Tensor, ...]
Step = TypeVar("Step", bound=Callable[..., Outputs])
Found = TypeVar("Found")


class Recorder(Protocol):
    """What records steps on a kind of device. `waits`: the step that it prepared last waited for the device."""

    waits: bool

    def prepare(self, step: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> Outputs:
        """Take the step, as before a recording."""

    def record(self, step: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], Outputs]:
        """Record the step without taking it: what takes it again on these inputs, and the outputs that this overwrites."""


class CudaRecorder:
    """Records CUDA graphs; those of one recorder share their memory, since they never run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.stream, self.pool, self.waits = torch.cuda.Stream(device), torch.cuda.graph_pool_handle(), False

    def prepare(self, step: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> Outputs:
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught, torch.cuda.stream(self.stream):
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                outputs = step(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        current.wait_stream(self.stream)
        self.waits = any(WAITED in str(warning.message) for warning in caught)
        return outputs

    def record(self, step: Callable[..., Outputs], inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], Outputs]:
        graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()  # an older graph that is freed during a recording spoils it
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                outputs = step(*inputs)
        except RuntimeError as error:  # the end of a recording that broke off is an error, too, and hides the first
            if isinstance(error.__context__, torch.OutOfMemoryError):
                raise error.__context__ from None
            raise
        finally:
            if collects:
                gc.enable()
        return graph.replay, outputs


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CudaRecorder}  # by type of device; others take the step


class _Repeated:
    """A step that is recorded for each shape of its inputs that comes often enough."""

    def __init__(self, step: Callable[..., Outputs], recorder: Recorder) -> None:
        self.step, self.recorder, self.told = step, recorder, False
        self.calls: Counter[tuple[object, ...]] = Counter()
        self.waits: dict[tuple[object, ...], bool] = {}
        self.recorded: dict[tuple[object, ...], tuple[tuple[Tensor, ...], Callable[[], None], Outputs]] = {}

    def __call__(self, *inputs: Tensor) -> Outputs:
        shape = tuple((x.shape, x.dtype) for x in inputs)
        self.calls[shape] += 1
        if self.calls[shape] <= WARM_UP or self.waits[shape]:
            if self.calls[shape] > WARM_UP:
                self._tell()
            outputs = self.recorder.prepare(self.step, inputs)
            self.waits[shape] = self.recorder.waits  # in the first call constants are made; the last one counts
            return outputs
        if shape not in self.recorded:
            buffers = tuple(x.detach().clone(memory_format=torch.contiguous_format) for x in inputs)
            self.recorded[shape] = buffers, *self.recorder.record(self.step, buffers)
        buffers, replay, outputs = self.recorded[shape]
        for buffer, value in zip(buffers, inputs, strict=True):
            buffer.copy_(value, non_blocking=True)
        replay()
        return outputs.clone() if isinstance(outputs, Tensor) else tuple(output.clone() for output in outputs)

    def _tell(self) -> None:
        if not self.told:
            self.told = True
            warnings.warn(
                "a step waits for the GPU (for a value, or a tensor made from Python numbers), so that it is launched "
                "kernel by kernel instead of replayed, which is slower; look for float(), .item(), if, or a mask as an "
                "index in the forward pass of the network",
                stacklevel=3,
            )


def repeat(step: Step, *, device: torch.device, on_host: bool = False) -> Step:
    """The step, or what replays it where the device can.

    Args:
        step: a function of tensors on the device, as described above; gives a tensor or a tuple of them, without gradients.
        device: where it runs.
        on_host: it needs the CPU in between, so that it is never recorded.

    >>> repeat(torch.add, device=torch.device("cpu")) is torch.add
    True
    """
    if on_host or device.type not in RECORDERS:
        return step
    return cast(Step, _Repeated(step, RECORDERS[device.type](device)))


def adam(parameters: Iterable[Tensor], *, lr: float, device: torch.device, fused: bool) -> torch.optim.Adam:
    """Adam for a step that is repeated. `fused`: on a CPU; where steps are recorded it always is."""
    if device.type not in RECORDERS:
        return torch.optim.Adam(parameters, lr=lr, fused=fused)
    return torch.optim.Adam(parameters, lr=torch.tensor(lr, device=device), fused=True, capturable=device.type == "cuda")


def within_memory(work: Callable[[int], Found], size: int) -> Found:
    """work(size), or with half the size as often as a GPU runs out of memory; a size of 1 that does not fit is an error.

    >>> within_memory(lambda size: size, 8)
    8
    """
    while True:
        try:
            return work(size)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        size = max(1, size // 2)  # after the exception, which holds what the work had in memory
        gc.collect()
        torch.cuda.empty_cache()
