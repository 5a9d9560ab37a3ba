"""Quantized in training: a network adapts its weights, and the step sizes of its grids, to few bits.

Quantization after training (`layers`) breaks networks at 4 bits and below; those of the paper were trained further with
quantized weights and activations. Here that is done with learned step sizes (LSQ; Esser et al. 2020, arXiv 1902.08153):

    y = s_x s_w layer(q_x, q_w) + b,      q = clip(round(v), lowest, highest),      v = x / s,

where the weights stay floats that are rounded anew in each step, and the gradients are

    dL/dx = dL/d(s q) inside the grid, else 0,
    dL/ds = g sum of dL/d(s q) (q - v inside the grid, else q),      g = 1 / sqrt(n highest)

where n is the count of numbers that share s: the weights of an output channel, or the inputs of one image (section 2.2). The
factor g makes the steps learn about as fast as the weights. Three things differ from LSQ:

    weights     have a step for each output channel, not one for a layer. So they have after training, and the two shall
                differ in the training alone; besides, the channels of depthwise layers differ too much to share a step.
                The grid has all integers of so many bits, -2^(bits-1) .. 2^(bits-1) - 1.
    inputs      that can be negative have a zero point, as in LSQ+ (Bhalgat et al. 2020, arXiv 2004.09576): an integer that
                is found on the first images and then fixed, so that padding with zeros is exact. Where inputs are never
                negative, as after a ReLU, it is 0 and the grid is that of LSQ.
    the start   is the trained dense network with the ranges of least squared error, those of quantization after training.

A step that becomes negative counts by its absolute value, and a filter of zeros stays one. Batch norms are trained, in
training mode and in float, and become part of the scales in the end.

    network = prepare_lsq(dense, batches, weight_bits=3, activation_bits=3)
    fit(network, images, labels, recipe)                # as any network
    quantized = finish_lsq(network)                     # integers, frozen, as `quantize` gives them
    again = load_lsq(build(...), network.state_dict())  # the state dict is all that has to be kept
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vpcore.checks import as_batches, check_network, check_state
from vpcore.errors import entry
from vpcore.networks.integer_grid import learned_step, to_integers
from vpcore.networks.state import check_finite, load_weights_
from vpcore.quantization.layers import (
    BATCH_NORMS,
    FLOAT,
    Quantized,
    TakenOver,
    check_quantizable,
    take_over_,
    weight_scale,
    with_edges,
)
from vpcore.quantization.ranges import grid, mse, observe


class LearnedSteps(TakenOver):
    """A layer in training: float weights and inputs, which are rounded in every pass, and the steps of their grids.

    Its state holds, beside the parameters, the grids: the bits of weights and inputs, and the zero point of the inputs.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__(layer)
        self.bias, layer.bias = layer.bias, None
        self.weight_step = nn.Parameter(layer.weight.new_ones(len(layer.weight)))
        self.input_step = nn.Parameter(torch.ones_like(self.weight_step[:1]))
        self.input_zero = 0

    def forward(self, x: Tensor) -> Tensor:
        """Inputs of the layer -> its outputs."""
        weight, scale = self.layer.weight, torch.ones_like(self.weight_step)
        if self.weight_bits < FLOAT:
            ends, step = self.weight_ends, self.column(self.weight_step.abs())
            weight = learned_step(weight, step, *ends, slowed=(weight[0].numel() * ends[1]) ** -0.5)
            scale = self.weight_step.detach().abs()
        if self.input_bits < FLOAT:
            ends, step = self.input_ends, self.input_step.abs()
            x = learned_step(x, step, *ends, slowed=(x[0].numel() * max(ends[1], 1)) ** -0.5)
            scale = scale * step.detach()
        y = functional_call(self.layer, {"weight": weight}, (x,))
        return self.scaled(y, scale, torch.zeros_like(scale) if self.bias is None else self.bias)

    @property
    def weight_ends(self) -> tuple[int, int]:
        """The least and the greatest integer of a weight."""
        return -(2 ** (self.weight_bits - 1)), 2 ** (self.weight_bits - 1) - 1

    @property
    def input_ends(self) -> tuple[int, int]:
        """The least and the greatest integer of an input, less its zero point."""
        return -self.input_zero, 2**self.input_bits - 1 - self.input_zero

    def column(self, step: Tensor) -> Tensor:
        """(C,) steps in a shape that broadcasts with the weights."""
        return step.view(-1, *[1] * (self.layer.weight.ndim - 1))

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.weight_bits, self.input_bits, self.input_zero])

    def set_extra_state(self, state: Tensor) -> None:
        self.weight_bits, self.input_bits, self.input_zero = state.tolist()

    def unit(self) -> nn.Conv2d | nn.Linear:
        """The plain layer with weights of 1: after a batch norm is folded into it, they are the factors of this norm."""
        layer = copy.deepcopy(self.layer)
        nn.init.ones_(layer.weight)
        layer.bias = self.bias
        return layer

    def integers(self, unit: nn.Conv2d | nn.Linear) -> Quantized:
        """The layer with its weights rounded to integers, and with the factors and the bias of `unit`."""
        layer, scale = copy.deepcopy(self.layer), unit.weight.flatten(1)[:, 0].clone()
        if self.weight_bits < FLOAT:
            step = self.weight_step.abs()
            layer.weight.copy_(to_integers(layer.weight, self.column(step), *self.weight_ends))
            scale *= step
        layer.bias = unit.bias
        done = Quantized(layer)
        if self.input_bits < FLOAT:
            done.float32.input_scale = self.input_step.abs()
            done.input_grid = float(done.float32.input_scale), *self.input_ends
            scale *= done.float32.input_scale
        done.float32.scale, done.weight_bits, done.input_bits = scale, self.weight_bits, self.input_bits
        return done


def prepare_lsq(model: nn.Module, batches: Iterable[Tensor], *, weight_bits: int, activation_bits: int) -> nn.Module:
    """A network that is ready to be trained with weights and activations of few bits (LSQ; Esser et al. 2020, 1902.08153).

    Args:
        model: a trained dense network, left as it is; a copy is prepared. Its first and last layer get at least `EDGE_BITS`.
        batches: (n, 3, H, W) normalised inputs without labels, which the steps are initialised on; not needed when only
            weights are quantized.
        weight_bits: 2 to 8, or 32 for float weights.
        activation_bits: of the inputs of every layer, 2 to 8, or 32 for float; if both are 32, the copy stays a float
            network: the control that is trained for as long.

    Returns:
        The network in training mode, with the inputs of the model. Its parameters include a step for each output channel of
        a weight and one for the inputs of each layer. Train it as any network, then use `finish_lsq`.

    Raises:
        InputError: for bits out of range; for a model that is quantized already, or whose layers cannot be; for weights or
            inputs of a layer that are not finite, with its name.

    >>> from vpcore import MODELS, Recipe, fit
    >>> images, labels = torch.arange(12 * 8 * 8).remainder(251).to(torch.uint8).view(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    >>> network = prepare_lsq(MODELS["resnet8"].make(2), [images / 255], weight_bits=3, activation_bits=4)
    >>> recipe = Recipe(epochs=1, batch=2, lr=0.01, weight_decay=0.0, augment="none", precision="float32", seed=0)
    >>> fit(network, images, labels, recipe)
    >>> finish_lsq(network).layer1[0].conv1.layer.weight.abs().max() <= 4
    tensor(True)
    """
    weight_bits, activation_bits = check_quantizable(model, weight_bits, activation_bits)
    network = copy.deepcopy(model).eval()
    if weight_bits == activation_bits == FLOAT:
        return network.train()
    layers = take_over_(network, LearnedSteps)
    observed = observe(network, layers, as_batches(batches)) if activation_bits < FLOAT else {}
    of_weights, of_inputs = with_edges(layers, weight_bits), with_edges(layers, activation_bits)
    with torch.no_grad():
        for name, layer in layers.items():
            layer.weight_bits, layer.input_bits = of_weights[name], of_inputs[name]
            if weight_bits < FLOAT:
                layer.weight_step.copy_(weight_scale(layer.layer.weight, layer.weight_bits, mse))
            if activation_bits < FLOAT:
                steps = 2**layer.input_bits - 1
                scale, zero = grid(mse(*observed[name], steps), steps)
                layer.input_step.copy_(scale)
                layer.input_zero = int(zero)
    return network.train()


def finish_lsq(model: nn.Module, *, batch_norm: str = "folded") -> nn.Module:
    """A network of `prepare_lsq` with integer weights, in evaluation mode and frozen, as `quantize` gives it.

    Args:
        model: from `prepare_lsq`, trained; left as it is. With 32 bits it is a float network, and so is the copy.
        batch_norm: a key of `BATCH_NORMS`; a folded norm becomes part of the scales, and the integers do not change.

    Raises:
        InputError: for an unknown `batch_norm`, and for weights or steps that are not finite, with the name of the layer.
    """
    treat_ = entry("batch_norm", batch_norm, BATCH_NORMS)
    check_finite(model)
    network = copy.deepcopy(model).eval().requires_grad_(False)
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LearnedSteps)}
    if not layers:
        return network
    for name, layer in layers.items():
        network.set_submodule(name, layer.unit())
    treat_(network)
    for name, layer in layers.items():
        unit = network.get_submodule(name)
        assert isinstance(unit, (nn.Conv2d, nn.Linear))
        network.set_submodule(name, layer.integers(unit))
    return network


def load_lsq(model: nn.Module, state: dict[str, Tensor], *, where: str = "`state`") -> nn.Module:
    """A network of `prepare_lsq` from its state dict, which holds the bits as well; it can be trained further, or finished.

    Args:
        model: a network of the same kind, with any weights; left as it is.
        state: the state dict of a trained network of `prepare_lsq`; with 32 bits it is that of a float network.
        where: what error messages call the state.

    Raises:
        InputError: when the state is not of this network, with the names that are missing (-) or too many (+).

    >>> model = nn.Sequential(nn.Linear(2, 1))
    >>> network = prepare_lsq(model, [torch.eye(2)], weight_bits=8, activation_bits=8)
    >>> torch.equal(load_lsq(model, network.state_dict())(torch.eye(2)), network(torch.eye(2)))
    True
    """
    check_network(model)
    check_state(state, where=where)
    network = copy.deepcopy(model)
    if any(name.endswith("_extra_state") for name in state):
        take_over_(network, LearnedSteps)
    load_weights_(network, state, where=where)
    return network.train()
