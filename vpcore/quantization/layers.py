"""Quantization: a trained network computes with integers of 2 to 8 bits, and gradients still pass to the images.

A number x is held as an integer q on a grid of n equal steps (Jacob et al. 2018, arXiv 1712.05877, eq. 1):

    x ~ s (q - z),      q = clamp(round(x / s) + z, 0, n),      round half to even

with scale s and zero point z. Weights have a scale for each output channel and a symmetric grid, q - z in -m..m with
m = 2^(bits-1) - 1, so that a pruned weight stays exactly 0 (at 2 bits: -1, 0, 1). The inputs of a layer have one scale and
n = 2^bits - 1; their range always has 0 in it, so that padding with zeros is exact. A layer computes like integer hardware,

    y = s_x s_w layer(q_x - z_x) + b,      layer: the convolution or matrix product with the integer weights, without bias.

Integers up to 2^8 are exact in bf16; scales and biases stay in float32 whatever the network is cast to. The gradient treats
rounding as the identity (straight-through estimator, Bengio et al. 2013, arXiv 1308.3432), and clamping as what it is.

Nothing is trained: ranges come from the weights and from unlabelled images (`ranges`). The two products inside attention,
softmax, norms, activation functions, sums, biases and embeddings are not quantized.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from vpcore.checks import as_batches, scalar
from vpcore.errors import InputError, entry
from vpcore.networks.folding import fold_batch_norm_
from vpcore.networks.integer_grid import straight_through, to_integers
from vpcore.networks.state import check_finite
from vpcore.quantization.ranges import QUANT_RANGES, RangeRule, grid, observe

FLOAT = 32  # bits of what is not quantized
EDGE_BITS = 8  # fewest bits of the first and the last layer, as in LSQ (arXiv 1902.08153) and OFQ (arXiv 2302.02210)
PART = 256  # channels whose ranges are found at a time

# name -> what is done to batch norms first. A norm that is kept acts in float after the quantized convolution. It multiplies
# a channel by one number, and a channel has its own scale, so the integers are the same; sums in lower precision are not
BATCH_NORMS: dict[str, Callable[[nn.Module], None]] = {"folded": fold_batch_norm_, "kept": lambda network: None}


class Float32(nn.Module):
    """Numbers, usually float32, that keep their precision when the network is cast, and move with it to another device."""

    input_scale: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__()
        for name, value in numbers.items():
            self.register_buffer(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32:
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._buffers.update({name: value.to(self.get_buffer(name).device) for name, value in kept.items()})
        return self


def weight_scale(weight: Tensor, bits: int, choose: RangeRule) -> Tensor:
    """(C,) scales of the output channels of a weight; the scale of a channel of zeros is 1."""
    most = 2 ** (bits - 1) - 1
    parts = weight.float().abs().flatten(1).split(PART)
    return torch.cat([grid(choose(part, part.new_ones(1, 1), most), most)[0] for part in parts])


class TakenOver(nn.Module):
    """Takes the place of a convolution or a linear layer; until bits are set it computes what that computes."""

    layer: nn.Conv2d | nn.Linear

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer, self.convolves = layer, isinstance(layer, nn.Conv2d)
        self.weight_bits, self.input_bits = FLOAT, FLOAT
        size = "out_channels" if self.convolves else "out_features"  # by which a classifier is recognised
        setattr(self, size, getattr(layer, size))

    @property
    def weight(self) -> TakenOver:
        """The layer itself, for code that calls F.linear(x, layer.weight, layer.bias), as torchvision's Swin does."""
        return self

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """F.linear(x, layer, ...) is layer(x); no other function takes a layer for a weight."""
        return args[1](args[0]) if function is F.linear else NotImplemented

    def scaled(self, y: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """scale * y + bias for each output channel of y, in float32 at least and in one pass, in the precision of y."""
        wide = torch.promote_types(y.dtype, torch.float32)
        scale, bias = scale.to(wide), bias.to(wide)
        rows = y if self.convolves else y.flatten(0, -2)
        # a batch norm of mean 0 and variance 1 computes this
        rows = F.batch_norm(rows, torch.zeros_like(scale), torch.ones_like(scale), scale, bias, eps=0)
        return rows if rows.shape == y.shape else rows.view_as(y)  # operations in place are slow on a view


class Quantized(TakenOver):
    """A layer with integer weights that are not trained; its bias is added after the scale."""

    float32: Float32
    input_grid: tuple[float, int, int]

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__(layer)
        one = torch.ones(1, device=layer.weight.device)
        bias = one.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
        bias = bias.to(torch.promote_types(bias.dtype, torch.float32))
        self.bias = layer.bias = None
        # registered after the layer: a kept batch norm would be folded into a convolution that comes right before it
        self.float32 = Float32(input_scale=one, scale=torch.ones_like(bias), bias=bias)

    def quantize_weight_(self, bits: int, choose: RangeRule) -> None:
        """Round the weights to integers; the range of a channel is chosen for the absolute values of its weights."""
        weight, most = self.layer.weight.detach(), 2 ** (bits - 1) - 1
        scale = weight_scale(weight, bits, choose)
        column = scale.view(-1, *[1] * (weight.ndim - 1))
        integers = to_integers(weight.float(), column, -most, most)
        self.layer.weight = nn.Parameter(integers.to(weight.dtype), requires_grad=False)
        self.float32.scale = self.float32.scale * scale
        self.weight_bits = bits

    def quantize_input_(self, bits: int, choose: RangeRule, points: Tensor, counts: Tensor) -> None:
        """Round inputs to integers from now on, with a range chosen for the inputs that `observe` has counted."""
        steps = 2**bits - 1
        scale, zero = grid(choose(points, counts, steps), steps)
        self.float32.input_scale, self.float32.scale = scale, self.float32.scale * scale
        self.input_grid, self.input_bits = (float(scale), -int(zero), steps - int(zero)), bits

    def forward(self, x: Tensor) -> Tensor:
        """Inputs of the layer -> its outputs, in the precision of the inputs."""
        if self.input_bits < FLOAT:
            x = straight_through(x, *self.input_grid)
        return self.scaled(self.layer(x), self.float32.scale, self.float32.bias)


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of x with itself, with layers as projections; (N, L, D) -> (N, L, D) and None."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        extra = attention.in_proj_weight is None or attention.bias_k is not None or attention.add_zero_attn
        if extra or not attention.batch_first:
            raise InputError("attention in `model` must be batch_first, without kdim, add_bias_kv and add_zero_attn")
        self.heads, self.out_proj = attention.num_heads, attention.out_proj
        self.in_proj = nn.utils.skip_init(nn.Linear, attention.embed_dim, 3 * attention.embed_dim)
        self.in_proj.weight, self.in_proj.bias = attention.in_proj_weight, attention.in_proj_bias

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        if key is not query or value is not query or need_weights:
            raise InputError("attention in `model` must be self-attention with need_weights=False")
        parts = self.in_proj(query).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)), None


def check_quantizable(model: nn.Module, weight_bits: int, activation_bits: int) -> tuple[int, int]:
    """The bits as integers; raises an `InputError` if they are out of range or the network cannot be quantized."""
    check_finite(model)
    if any(isinstance(module, TakenOver) for module in model.modules()):
        raise InputError("`model` must be a float network, but it is quantized already; take the one that it was made from")
    if others := [f"{name} is {p.dtype}" for name, p in model.named_parameters() if not p.is_floating_point()]:
        raise InputError(f"`model` must have weights of floating-point numbers, but {others[0]}; use model.float()")
    known = {"weight_bits": scalar(weight_bits), "activation_bits": scalar(activation_bits)}
    for name, bits in known.items():
        if not isinstance(bits, int) or bits not in (*range(2, 9), FLOAT):
            raise InputError(f"`{name}` must be a whole number in 2..8, or {FLOAT} for float, got {bits!r}; 8 is usual")
    return known["weight_bits"], known["activation_bits"]


Kind = TypeVar("Kind", bound=TakenOver)


def take_over_(network: nn.Module, kind: Callable[[nn.Conv2d | nn.Linear], Kind]) -> dict[str, Kind]:
    """Replace each convolution, linear layer and projection of attention by a layer of a kind; returns name -> layer."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.MultiheadAttention):
            network.set_submodule(name, SelfAttention(module))
    found = {name: module for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    check_finite(network)
    if strange := [name for name, module in found.items() if not _proportional(module)]:
        raise InputError(
            "`model` must have layers whose outputs are proportional to weights of their own, so that a scale can be taken "
            f"out; {strange[0]} ({type(found[strange[0]]).__name__}) is not such a layer; take a network without "
            "standardised or parametrised weights"
        )
    layers = {name: kind(module) for name, module in found.items()}
    for name, layer in layers.items():
        network.set_submodule(name, layer)
    return layers


@torch.no_grad()
def _proportional(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether twice the weights give twice the outputs, without the bias: not if a layer standardises its weights."""
    own = dict(layer.named_parameters(recurse=False))
    if "weight" not in own:
        return False
    shape = (
        (1, layer.in_channels, *(s + 8 for s in layer.kernel_size))
        if isinstance(layer, nn.Conv2d)
        else (1, layer.in_features)
    )
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(own["weight"])
    zeros = {name: torch.zeros_like(value) for name, value in own.items() if name == "bias"}
    once, twice = (functional_call(layer, {"weight": factor * own["weight"], **zeros}, (x,)) for factor in (1, 2))
    return torch.allclose(twice, 2 * once, rtol=1e-3)


def with_edges(names: Iterable[str], bits: int) -> dict[str, int]:
    """Name -> bits of a layer: those given, but at least `EDGE_BITS` in the first and the last layer.

    >>> with_edges(["stem", "block", "head"], 2), with_edges(["only"], FLOAT)
    ({'stem': 8, 'block': 2, 'head': 8}, {'only': 32})
    """
    names = list(names)
    return {name: max(bits, EDGE_BITS) if name in (names[0], names[-1]) else bits for name in names}


def layer_bits(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Name of each convolution and linear layer of a quantized network -> bits of its weights and of its inputs."""
    return {
        name: (layer.weight_bits, layer.input_bits)
        for name, layer in network.named_modules()
        if isinstance(layer, TakenOver)
    }


def quantize(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    weight_bits: int,
    activation_bits: int,
    quant_range: str = "mse",
    batch_norm: str = "folded",
) -> nn.Module:
    """A network whose convolutions and linear layers compute with integers, in evaluation mode and with frozen weights.

    It is quantized after training (Jacob et al. 2018, arXiv 1712.05877); `prepare_lsq` and `finish_lsq` do it in training.

    Args:
        model: left as it is; a copy is quantized. Its first and its last layer get at least `EDGE_BITS`.
        batches: (n, 3, H, W) normalised inputs of the network, without labels; not needed when only weights are quantized.
        weight_bits: 2 to 8, or 32 for float weights.
        activation_bits: of the inputs of every layer, 2 to 8, or 32 for float; if both are 32, the copy is not quantized.
        quant_range: a key of `QUANT_RANGES`, for weights and activations.
        batch_norm: a key of `BATCH_NORMS`.

    Returns:
        The network, with the inputs and outputs of the model; `layer_bits` tells the bits of each layer.

    Raises:
        InputError: for bits out of range, or an unknown name; for a model that is quantized already, or whose layers cannot
            be; for weights or inputs of a layer that are not finite, with its name.

    >>> network = quantize(nn.Sequential(nn.Linear(2, 1)), [torch.eye(2)], weight_bits=8, activation_bits=8)
    >>> network[0].layer.weight.abs().max()
    tensor(127.)
    """
    weight_bits, activation_bits = check_quantizable(model, weight_bits, activation_bits)
    choose, treat_ = entry("quant_range", quant_range, QUANT_RANGES), entry("batch_norm", batch_norm, BATCH_NORMS)
    network = copy.deepcopy(model).eval().requires_grad_(False)
    if weight_bits == activation_bits == FLOAT:
        return network
    treat_(network)
    layers = take_over_(network, Quantized)
    observed = observe(network, layers, as_batches(batches)) if activation_bits < FLOAT else {}
    of_weights, of_inputs = with_edges(layers, weight_bits), with_edges(layers, activation_bits)
    for name, layer in layers.items():
        if weight_bits < FLOAT:
            layer.quantize_weight_(of_weights[name], choose)
        if activation_bits < FLOAT:
            layer.quantize_input_(of_inputs[name], choose, *observed[name])
    return network
