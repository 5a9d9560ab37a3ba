"""Watching: what the layers of a network take in and put out while it computes, and how many operations that takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vpcore.checks import kind_of
from vpcore.errors import InputError

Layer = TypeVar("Layer", bound=nn.Module)


def watch(
    network: nn.Module,
    layers: Mapping[str, Layer],
    batches: Iterable[Tensor],
    see: Callable[[str, Layer, Tensor, Tensor], None],
) -> None:
    """Run a network on batches, and show what some of its layers compute, each time that one has done so.

    Args:
        network: left without hooks, also after an error.
        layers: name -> layer of the network.
        batches: (n, 3, H, W) inputs of the network each.
        see: is called with the name, the layer, its first input and its output. What it raises ends the pass.

    Raises:
        InputError: for a batch that the network cannot compute with.

    >>> network = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> watch(network, {"1": network[1]}, [Tensor([[-1, 2]])], lambda name, layer, x, y: print(name, x.tolist(), y.tolist()))
    1 [[-1.0, 2.0]] [[0.0, 2.0]]
    """

    def hook(name: str) -> Callable[[Layer, tuple[Tensor, ...], Tensor], None]:
        return lambda layer, inputs, output: see(name, layer, inputs[0], output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        for batch in batches:
            try:
                network(batch)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # of torch, about shapes, precisions or devices
                raise InputError(
                    f"`batches` must be what the network takes, got {kind_of(batch)} ({error}); normalise the images, and "
                    "give them the size, the precision and the device of the network"
                ) from error
    finally:
        for handle in handles:
            handle.remove()


def operations(call: Callable[[], object]) -> dict[str, int]:
    """Floating-point operations of the convolutions and matrix products in a call, as torch counts them.

    A multiplication and the addition of its product are two.

    Returns:
        Name of a module -> operations, those of the modules within it counted in; the name begins with the class of the
        outermost one. "Global" has all.

    >>> layer = nn.Linear(3, 5, bias=False)
    >>> operations(lambda: layer(torch.zeros(2, 3)))
    {'Global': 60, 'Linear': 60}
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return {"Global": 0} | {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
