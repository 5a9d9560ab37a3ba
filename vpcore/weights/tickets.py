"""Ticket files: sparse networks on disk, small and checked; and trainings that were cut short.

    save_ticket(path, model, masks)        # a pruned network, to a file
    masks = load_ticket_(path, model)      # and back, into a network of the same kind

A ticket is a sealed file (`sealed`) with the whole state of a network. A pruned weight is stored as its mask, one bit a
weight (`NAME.mask`), and the kept values (`NAME.kept`), which at density d makes 1 + 32 d bits of 32. The header says what
made it. Tickets that were written when only their tensors were sealed are checked by that.

A training that is not finished lies beside the ticket that it will become, see `resumable`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor, nn

from vpcore.checks import as_path, check_network, check_state, kind_of
from vpcore.errors import InputError
from vpcore.networks import parallel
from vpcore.networks.state import check_finite, check_masks, load_weights_
from vpcore.weights.sealed import OF_TENSORS, metadata, read_sealed, write_sealed

State = dict[str, Tensor]

KEYS = ("header", "shapes")  # of the metadata


def save_ticket(
    path: Path | str, model: nn.Module, masks: dict[str, Tensor], *, header: dict[str, object] | None = None
) -> None:
    """Write the ticket of a network.

    Args:
        path: of the file; its folder is created.
        model: any network, with zeros where a mask is False.
        masks: name of a weight -> bool tensor of its shape, True where it is kept.
        header: what is to be known of it; anything that JSON can hold.

    Raises:
        InputError: for masks that are not those of the network or are not applied, and for weights that are not finite.
        WriteError: when the file cannot be written. Nothing half-written stays behind.

    >>> import tempfile
    >>> model = nn.Linear(2, 1)
    >>> masks = {"weight": torch.tensor([[True, False]])}
    >>> model.weight.data[0, 1] = 0
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_ticket(f"{folder}/ticket.safetensors", model, masks)
    ...     load_ticket_(f"{folder}/ticket.safetensors", nn.Linear(2, 1))
    {'weight': tensor([[ True, False]])}
    """
    as_path(path, name="path")
    check_masks(model, masks)
    check_finite(model)
    write_ticket(path, model.state_dict(), masks, header={} if header is None else header)


def load_ticket_(path: Path | str, model: nn.Module) -> dict[str, Tensor]:
    """Load a ticket into a network of the same kind, in place.

    Returns:
        Its masks, name of a weight -> bool tensor, on the device of the weight; none of a dense network.

    Raises:
        InputError: when the file is missing, damaged or no ticket, or holds another network; nothing is loaded then.
    """
    as_path(path, name="path")
    check_network(model)
    state, masks, _ = read_ticket(path)
    load_weights_(model, state, where=str(path))
    return {name: mask.to(model.get_parameter(name).device) for name, mask in masks.items()}


def write_ticket(path: Path | str, state: State, masks: dict[str, Tensor], *, header: dict[str, object]) -> None:
    """Write a ticket from a state dict and masks that fit it, as `save_ticket` does from a network.

    Args:
        path: of the file.
        state: the state dict of the network; where a mask is False the weight must be 0.
        masks: name -> bool tensor, for the pruned weights; empty for a dense network.
        header: what made the ticket; anything JSON can hold.

    Raises:
        InputError: for masks that are not those of the state, a weight that is not 0 where its mask is False, a state of
            other things than tensors, or a header that is not for JSON.
        WriteError: when the file cannot be written.
    """
    path, tensors = as_path(path, name="path"), {}
    check_state(state)
    if not isinstance(masks, dict) or masks:
        check_masks(state, masks)
    for name, value in state.items():
        value = value.detach().cpu().clone(memory_format=torch.contiguous_format)  # two names may share one tensor
        if name in masks:
            mask = masks[name].cpu()
            if bool((value[~mask] != 0).any()):
                raise InputError(
                    f"weights must be zero where `masks` are False; {name} is not; use apply_(model, masks) first"
                )
            tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(mask.numpy().ravel()))
            tensors[f"{name}.kept"] = value[mask]
        else:
            tensors[name] = value
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    try:
        if not isinstance(header, dict):
            raise TypeError(f"it is {kind_of(header)}")
        meta = {"header": json.dumps(header), "shapes": json.dumps(shapes)}
    except (TypeError, ValueError) as error:
        raise InputError(
            f"`header` must be a dict of what JSON can hold: text, numbers, lists, dicts ({error}); use str(...) for others"
        ) from error
    if parallel.is_first():
        write_sealed(path, tensors, meta)
    parallel.wait()


def read_ticket(path: Path | str) -> tuple[State, dict[str, Tensor], dict[str, object]]:
    """Read a ticket: the state dict (zeros where pruned), the masks and the header.

    Raises:
        InputError: when the file is missing, is no ticket, or its content does not have the SHA-256 it says.
    """
    path = as_path(path, name="path")
    if not path.exists():
        raise InputError(f"there is no ticket {path}; `vpcore run` makes those of a study, others must be copied there")
    again = "if `vpcore run` made it, delete it and run again, otherwise copy it again; load_checkpoint reads other forms"
    try:
        tensors, meta = read_sealed(path, keys=KEYS)
        header, shapes = json.loads(meta["header"]), json.loads(meta["shapes"])
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path} must be a ticket file; it is damaged or something else ({error}); {again}") from error
    masks, packed = {}, {f"{name}.{part}" for name in shapes for part in ("kept", "mask")}
    state = {name: value for name, value in tensors.items() if name not in packed}
    for name, shape in shapes.items():
        bits, kept = tensors[f"{name}.mask"].numpy(), tensors[f"{name}.kept"]
        masks[name] = torch.from_numpy(np.unpackbits(bits, count=int(np.prod(shape)))).bool().view(shape)
        state[name] = torch.zeros(shape, dtype=kept.dtype).masked_scatter_(masks[name], kept)
    return state, masks, header


def ticket_digest(path: Path) -> str:
    """Twelve hexadecimal digits that stand for the weights of a ticket, as the file says; whatever its header holds."""
    return metadata(path)[OF_TENSORS][:12]


def ticket_header(path: Path) -> dict[str, object]:
    """The header of a ticket, without its weights."""
    return json.loads(metadata(path)["header"])


def is_ticket(path: Path) -> bool:
    """Whether a file is a ticket of ours, and not tensors that others have put into a safetensors file, or none at all."""
    try:
        return metadata(path).keys() >= set(KEYS)
    except (safetensors.SafetensorError, OSError):
        return False


def ticket_path(folder: Path, number: int) -> Path:
    """Where the ticket of a round lies."""
    return Path(folder) / f"round-{number:02d}.safetensors"
