"""The state of a network: weights that fit it and are finite, and masks that fit its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vpcore.checks import check_network, check_state, kind_of
from vpcore.errors import InputError, difference


def check_weights(model: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Refuse a state dict whose names or shapes are not those of the network.

    Raises:
        InputError: with the names that are missing (-) and those too many (+).
    """
    check_network(model)
    check_state(state, where=where)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        lines = difference([f"{n} {s}" for n, s in expected.items()], [f"{n} {s}" for n, s in found.items()])
        raise InputError(f"{where} must hold the weights of the network; missing (-) and unexpected (+) names:\n{lines}")


def load_weights_(model: nn.Module, state: dict[str, Tensor], *, where: str) -> None:
    """Load a state dict strictly: it passes `check_weights`, else nothing is loaded."""
    check_weights(model, state, where=where)
    model.load_state_dict(state)


def load_optimizer_(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimizer of the same network; an `InputError` for anything else."""
    try:
        optimizer.load_state_dict(state)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"`optimizer_state` must be what `after_epoch` was given for this network, got {kind_of(state)} ({error}); "
            "leave it out to begin with fresh momentum"
        ) from error


def check_finite(model: nn.Module) -> None:
    """Refuse what is no network, and one with weights, or running statistics, that are NaN or infinite.

    Raises:
        InputError: with the name of the first.
    """
    check_network(model)
    statistics = ((name, value) for name, value in model.named_buffers() if name.rpartition(".")[2].startswith("running_"))
    for name, value in (*model.named_parameters(), *statistics):
        if value.is_meta:
            raise InputError(f"`model` must have weights, but {name} is on the device meta; use to_empty, and load them")
        # the sum of finite numbers is finite unless it overflows, and quick
        if not bool(torch.isfinite(value.sum())) and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"`model` must have finite weights, but {name} holds NaN or infinite ones; "
                "if a training has diverged, use a smaller learning rate; if weights were loaded, load them again"
            )


def check_masks(weights: Mapping[str, Tensor] | nn.Module, masks: dict[str, Tensor], *, where: str = "`masks`") -> None:
    """Refuse masks that are none, or not those of the weights.

    Args:
        weights: name -> weight, or the network whose parameters they are.
        masks: name of a weight -> bool tensor of its shape.
        where: what errors call the masks.

    Raises:
        InputError: naming the mask, unless they are bool tensors with names and shapes of weights and keep something.
    """
    way_out = "take those of this very network, as `prune` returns them"
    if not isinstance(masks, dict) or not masks:
        raise InputError(
            f"{where} must be a dict, name of a weight -> bool tensor, with at least one, "
            f"got {'{}' if isinstance(masks, dict) else kind_of(masks)}; {way_out}"
        )
    if not isinstance(weights, Mapping):
        check_network(weights)
        weights = dict(weights.named_parameters())
    if strangers := [str(name) for name in masks if name not in weights]:
        lines = difference([], strangers)
        raise InputError(f"{where} must be named as weights of the network; {way_out}; these are not:\n{lines}")
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise InputError(
                f"{where} must be bool tensors, True where a weight is kept; that of {name} is {kind_of(mask)}; {way_out}"
            )
        if mask.shape != weights[name].shape:
            expected, found = tuple(weights[name].shape), tuple(mask.shape)
            raise InputError(f"{where} must have the shapes of the weights, {expected} for {name}, got {found}; {way_out}")
    if not any(bool(mask.any()) for mask in masks.values()):
        raise InputError(f"{where} must keep at least one weight, but all are False, or 0; {way_out}")
