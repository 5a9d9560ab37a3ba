"""What a network weighs: its weights, bits, bytes and multiplications, those with weights of zero told apart.

A weight that is mostly zero is held as a ticket holds it, one bit a weight and what is kept; a quantized one with its bits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from vpcore.networks.frozen import Frozen
from vpcore.networks.watching import operations
from vpcore.quantization.layers import TakenOver
from vpcore.weights.foreign import plain

Facts = dict[str, int | float | str | None]


def random_images(frozen: Frozen, canvas: int, *, count: int = 2) -> Tensor:
    """Random images for a first look at a network."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, 3, canvas, canvas), generator=generator).to(frozen.device)


def make_plain_(network: nn.Module) -> tuple[dict[str, int], list[str]]:
    """Put plain numbers in the place of weights of torchao: the same function. Tells the bits of each, and what is lost."""
    bits: dict[str, int] = {}
    notes: list[str] = []
    for name, value in list(network.named_parameters()):
        if plain(value) is not value:
            bits[name] = _bits(value)
            if getattr(value, "act_quant_kwargs", None) is not None and not notes:
                notes.append("torchao rounds its activations, too, which is left out here: its weights alone are quantized")
            owner, _, last = name.rpartition(".")
            setattr(network.get_submodule(owner), last, nn.Parameter(plain(value).detach(), requires_grad=False))
    return bits, notes


def held_bits(path: Path) -> dict[str, int]:
    """The bits of the weights of torchao in a file; a file that has some has brought torchao in when it was read."""
    if "torchao" not in sys.modules or path.suffix == ".safetensors":
        return {}
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {name: _bits(value) for name, value in content.items() if isinstance(value, Tensor) and plain(value) is not value}


def _bits(value: Tensor) -> int:
    """Bits in which a number of a tensor is held, the scales of torchao counted in."""
    if not hasattr(value, "__tensor_flatten__"):
        return 8 * value.element_size()
    parts = [part for part in map(value.__getattribute__, value.__tensor_flatten__()[0]) if isinstance(part, Tensor)]
    return max(1, round(sum(_bits(part) * part.numel() for part in parts) / value.numel()))


def weigh(frozen: Frozen, canvas: int, *, bits: Mapping[str, int] = MappingProxyType({})) -> Facts:
    """What a network weighs.

    Args:
        frozen: the network; its batch norms are part of its convolutions.
        canvas: side of its images, px.
        bits: of weights that are held in another form than they are computed with.

    Returns:
        `weights`, of convolutions and linear layers; `weights_left`, those that are not zero; `bits`, the least of a layer;
        `bytes`, of all parameters, each weight in the shorter of two forms: as it is, or its mask and what is kept;
        `multiplications` of one image, and `multiplications_left`, those with weights that are not zero. A program hides its
        layers: where it has none, the last two and `bits` are None.
    """
    layers: dict[str, nn.Conv2d | nn.Linear] = {
        name: module
        for name, module in frozen.body.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not name.endswith(".wide")
    }
    bits = dict(bits) | {
        f"{name}.layer.weight": module.weight_bits
        for name, module in frozen.body.named_modules()
        if isinstance(module, TakenOver)
    }
    tensors = dict((*frozen.body.named_parameters(), *frozen.body.named_buffers()))
    weights = [f"{name}.weight" for name in layers] or [name for name, value in tensors.items() if value.ndim > 1]
    total = left = size = 0
    for name, values in tensors.items():
        width = bits.get(name, _bits(values))
        kept = int(values.count_nonzero())
        size += math.ceil(min(values.numel() * width, values.numel() + kept * width) / 8)
        if name in weights:
            total, left = total + values.numel(), left + kept
    facts: Facts = {"weights": total, "weights_left": left, "bits": None, "bytes": size}
    facts |= {"multiplications": None, "multiplications_left": None}
    if layers:
        facts["bits"] = min(bits.get(f"{name}.weight", _bits(layer.weight)) for name, layer in layers.items())
        facts["multiplications"], facts["multiplications_left"] = _multiplications(frozen, layers, canvas)
    return facts


def _multiplications(frozen: Frozen, layers: dict[str, nn.Conv2d | nn.Linear], canvas: int) -> tuple[int, int]:
    """Those of convolutions and linear layers for one image: all, and those with a weight that is not zero."""
    with torch.no_grad():
        counts, total, left = operations(lambda: frozen(random_images(frozen, canvas, count=1))), 0, 0
    for name, layer in layers.items():
        found = counts.get("Frozen.head" if layer is frozen.head else f"Frozen.body.{name}", 0)
        places = found // 2 // layer.weight.numel()  # at which each weight is multiplied
        total, left = total + places * layer.weight.numel(), left + places * int(layer.weight.count_nonzero())
    return total, left
