"""Several processes that train one network: each takes its share of every batch, and all take the same step.

    torchrun --nproc-per-node 8 -m vpcore train --profile imagenet --data DIR

torch's launcher starts the processes. They hold the same network, and draw the same batches from the same seeds. Shares are
of one size, so that the gradient of the mean loss of a batch is the mean of theirs. Batch norm takes mean and variance over
the batch, since those of a share are others. With x_p the share of process p of P, and E the mean over it:

    m = 1/P sum_p E[x_p]        v = 1/P sum_p E[(x_p - m)^2]

So P processes learn what one does, up to rounding; one process computes as if this file were not there. Data parallel
training is torch's (Li et al., VLDB 2020, arXiv 2006.15704), batch norm over devices as of Peng et al. (2018, arXiv
1711.07240).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vpcore.errors import InputError

BACKENDS = {"cuda": "nccl"}  # by type of device; gloo on others


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return processes() == 1 or dist.get_rank() == 0


@contextlib.contextmanager
def launched(device: torch.device) -> Iterator[None]:
    """The processes that `torchrun` has started train together for the time of a with-block; each has a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(BACKENDS.get(device.type, "gloo"))
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Go on when all processes have come so far, as when the first has written a file that others read."""
    if processes() > 1:
        dist.barrier()


def agreed(value: Callable[[], bool], device: torch.device) -> bool:
    """What the first process finds, which the others wait for."""
    if processes() == 1:
        return value()
    found = torch.tensor(is_first() and value(), device=device, dtype=torch.uint8)
    dist.broadcast(found, src=0)
    return bool(found)


def share(batch: Tensor) -> Tensor:
    """The rows of a batch that this process computes with.

    Raises:
        InputError: when the processes cannot have as many each.
    """
    if processes() == 1:
        return batch
    if len(batch) % processes():
        raise InputError(
            f"`source_batch` must be a multiple of the number of processes, {processes()}, got {len(batch)}; use another "
            "--nproc-per-node"
        )
    size = len(batch) // processes()
    return batch[dist.get_rank() * size :][:size]


def replica(model: nn.Module) -> nn.Module:
    """What to call in place of a network, so that its gradients become the mean over the processes."""
    if processes() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model)


def whole_batches() -> contextlib.AbstractContextManager[Any]:
    """Within it, batch norm in training takes the batches of all processes together."""
    return _WholeBatches() if processes() > 1 else contextlib.nullcontext()


class _Mean(torch.autograd.Function):
    """The mean of a tensor over the processes; the loss is one, so that its gradient is a mean over them, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        mean = value.contiguous() / processes()
        dist.all_reduce(mean)
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Mean.forward(ctx, gradient)


def mean(value: Tensor) -> Tensor:
    """The mean over the processes; passes gradients."""
    return value if processes() == 1 else _Mean.apply(value)


class _WholeBatches(TorchFunctionMode):
    """Puts `_batch_norm` in the place of torch's."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        chosen = _batch_norm if function is F.batch_norm and (kwargs or {}).get("training") else function
        return chosen(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` of (n, C, ...) numbers in training, over the batch of all processes."""
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    centre = mean(wide.mean(axes))
    centred = wide - centre.view(shape)
    variance = mean(centred.square().mean(axes))
    if running_mean is not None and running_var is not None:
        count = x.numel() // x.shape[1] * processes()
        with torch.no_grad():
            running_mean.lerp_(centre.to(running_mean), momentum)
            running_var.lerp_(variance.to(running_var) * count / (count - 1), momentum)
    scale = (variance + eps).rsqrt()
    y = centred * (scale if weight is None else scale * weight).view(shape)
    return (y if bias is None else y + bias.view(shape)).to(x.dtype)
