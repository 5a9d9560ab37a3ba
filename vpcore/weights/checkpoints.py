"""Checkpoints: trained weights from a file, compared strictly with the network.

Files may have any form that `foreign` lists; what comes of them is a state dict and masks, under the names of the network.
Names in the file may carry the prefixes of wrappers (`module.`, `model.`).

Four things are never passed over: a name or a shape that the network does not have, or that the file lacks; weights that are
no finite floating-point numbers; a mask that does not fit, or is not there; and a masked weight that is not zero. The last
happens in the authors' own loading code, which multiplies the masks with the weights under their short names, and then
overwrites these with the unmasked ones: there the ticket is dense. Masks that leave out layers, or nothing at all, may be
meant so, and are warned of.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from vpcore.checks import as_path, check_network
from vpcore.errors import InputError
from vpcore.networks.backbones import prunable
from vpcore.networks.state import check_masks, check_weights
from vpcore.weights.foreign import read_weights
from vpcore.weights.tickets import State

PREFIXES = ("module.", "model.")  # of DataParallel, and of a network inside another
COUNTER = "num_batches_tracked"


def load_checkpoint(path: Path, model: nn.Module) -> tuple[State, dict[str, Tensor]]:
    """Read trained weights for a network from a file of any form listed in `foreign`.

    Args:
        path: of the file.
        model: the network, for its names and shapes; it may be on the device "meta" and is left as it is.

    Returns:
        The state dict, in the order of the network, zero where a mask is False; and the masks, name of a weight -> bool
        tensor of its shape, none for a dense network. Counters of batch norms that older files lack are 0; evaluation
        does not depend on them.

    Raises:
        InputError: when a file is missing, damaged or holds more than tensors, or a ticket has no masks; with the names that
            are missing (-) and those too many (+); naming a weight that is no finite floating-point number, or a mask that
            does not fit.

    Warns:
        UserWarning: when the masks keep every weight, or leave out a layer between the first and the last.
    """
    path = as_path(path, name="path")
    check_network(model)
    state, masks = read_weights(path)
    return fitted(state, masks, model, where=str(path))


def fitted(state: State, masks: dict[str, Tensor], model: nn.Module, *, where: str) -> tuple[State, dict[str, Tensor]]:
    """A state dict and masks under the names of the network, checked, and the masks applied; see `load_checkpoint`.

    Args:
        state, masks: as `read_weights` returns them.
        model: the network.
        where: what errors and warnings call the state dict.
    """
    known = model.state_dict()
    state, masks = short(state, known, where=where), short(masks, known, where=where)
    state |= {name: torch.tensor(0) for name in known if name.endswith(COUNTER) and name not in state}
    check_weights(model, state, where=where)
    for name, value in state.items():
        if value.is_floating_point() != known[name].is_floating_point():
            raise InputError(
                f"{where} must hold floating-point numbers where the network has them, but {name} is {value.dtype}; "
                "save the weights as float32"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{where} must hold finite weights, but {name} has NaN or infinite ones; take another checkpoint"
            )
    masks = {name: _zeros_and_ones(name, masks[name], where=where) for name in (*known, *masks) if name in masks}
    if masks:
        check_masks(model, masks, where=f"the masks of {where}")
        if all(bool(mask.all()) for mask in masks.values()):
            warnings.warn(f"the masks of {where} keep every weight: this is a dense network", stacklevel=3)
        if unmasked := [name for name in prunable(model, "all")[1:-1] if name not in masks]:
            some = ", ".join(unmasked[:3]) + (", ..." if len(unmasked) > 3 else "")
            warnings.warn(f"the masks of {where} leave out {len(unmasked)} layers, which are dense: {some}", stacklevel=3)
    return {name: state[name].masked_fill(~masks[name], 0) if name in masks else state[name] for name in known}, masks


def _zeros_and_ones(name: str, mask: Tensor, *, where: str) -> Tensor:
    """A mask as bool."""
    if not bool(((mask == 0) | (mask == 1)).all()):
        values = f"values from {float(mask.min()):g} to {float(mask.max()):g}" if not mask.is_complex() else mask.dtype
        raise InputError(
            f"the mask of {name} in {where} must hold 0 and 1 alone, got {values}; "
            "save it as bool, True where the weight is kept"
        )
    return mask.bool()


def short(named: dict[str, Tensor], known: dict[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """The same tensors without the prefixes that the network's names do not have."""
    found = {}
    for name, value in named.items():
        plain = name
        while plain not in known and plain.startswith(PREFIXES):
            plain = plain.partition(".")[2]
        if plain in found:
            raise InputError(f"{where} must hold {plain} once; it does so with a prefix ({name}) and without; delete one")
        found[plain] = value
    return found
