"""Ticket files: sparse networks on disk, small and checked; and trainings that were cut short.

A ticket (safetensors) holds the whole state of a network. A pruned weight is stored as its mask, one bit a weight
(`NAME.mask`), and the kept values (`NAME.kept`), which at density d makes 1 + 32 d bits of 32. The header says what made it
and holds two SHA-256, of the tensors and of itself, so that a damaged file is refused. Tickets that were written when there
was only the first are checked by that.

An unfinished training lies beside the ticket that it will become, from one epoch to the next: the network, its masks, the
state of the optimizer and the losses so far.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.networks.backbones import load_weights_

State = dict[str, Tensor]

KEYS = {"header", "shapes", "sha256"}  # of the metadata of all tickets; newer ones have `HEADER_DIGEST`, too
HEADER_DIGEST = "sha256_meta"


def save_ticket(path: Path, state: State, masks: dict[str, Tensor], *, header: dict[str, object]) -> None:
    """Write a ticket.

    Args:
        path: of the file.
        state: the state dict of the network; where a mask is False the weight must be 0.
        masks: name -> bool tensor, for the pruned weights.
        header: what made the ticket; anything JSON can hold.

    Raises:
        InputError: when a weight is not 0 where its mask is False.
        WriteError: when the file cannot be written.
    """
    tensors = {}
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        if name in masks:
            mask = masks[name].cpu()
            if bool((value[~mask] != 0).any()):
                raise InputError(f"`state` must be zero where `masks` are False; {name} is not; use pruning.apply_ first")
            tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(mask.numpy().ravel()))
            tensors[f"{name}.kept"] = value[mask]
        else:
            tensors[name] = value
    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    meta = {"header": json.dumps(header), "shapes": json.dumps(shapes)}
    meta |= {"sha256": _digest(tensors), HEADER_DIGEST: _digest_of_meta(meta)}
    write_atomically(path, lambda file: file.write(save(tensors, metadata=meta)))


def load_ticket(path: Path) -> tuple[State, dict[str, Tensor], dict[str, object]]:
    """Read a ticket: the state dict (zeros where pruned), the masks and the header.

    Raises:
        InputError: when the file is missing, is no ticket, or its content does not have the SHA-256 it says.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no ticket {path}; `vpcore run` makes those of a study, others must be copied there")
    again = "if `vpcore run` made it, delete it and run again, otherwise copy it again"
    try:
        meta, tensors = _metadata(path), load_file(path)
        if not KEYS <= meta.keys() <= KEYS | {HEADER_DIGEST}:
            raise ValueError(f"its metadata are {', '.join(meta) or 'empty'}")
        header, shapes = json.loads(meta["header"]), json.loads(meta["shapes"])
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path} must be a ticket file; it is damaged or something else ({error}); {again}") from error
    digests = {"sha256": _digest(tensors), HEADER_DIGEST: _digest_of_meta(meta)}
    if wrong := [key for key in digests if key in meta and digests[key] != meta[key]]:
        digest = meta[wrong[0]][:12]
        raise InputError(f"{path} must have the SHA-256 {digest}..., its content has another: it is damaged; {again}")
    masks, state = {}, {}
    for name, value in tensors.items():
        if name.endswith(".kept"):
            weight = name.removesuffix(".kept")
            size = int(np.prod(shapes[weight]))
            mask = torch.from_numpy(np.unpackbits(tensors[f"{weight}.mask"].numpy(), count=size)).bool().view(shapes[weight])
            masks[weight] = mask
            state[weight] = torch.zeros(shapes[weight], dtype=value.dtype).masked_scatter_(mask, value)
        elif not name.endswith(".mask"):
            state[name] = value
    return state, masks, header


def is_ticket(path: Path) -> bool:
    """Whether a file is a ticket of ours, and not tensors that others have put into a safetensors file, or none at all."""
    try:
        return {"header", "shapes"} <= _metadata(path).keys()
    except (safetensors.SafetensorError, OSError):
        return False


def _metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}


def _digest_of_meta(meta: dict[str, str]) -> str:
    return hashlib.sha256(f"{meta['header']}\n{meta['shapes']}".encode()).hexdigest()


def _digest(tensors: State) -> str:
    content = hashlib.sha256()
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())  # bytes of any kind, bfloat16 too
    return content.hexdigest()


def ticket_path(folder: Path, number: int) -> Path:
    """Where the ticket of a round lies."""
    return Path(folder) / f"round-{number:02d}.safetensors"


def unfinished_path(path: Path) -> Path:
    """Where the training of a ticket lies until it is finished."""
    return Path(path).with_suffix(".unfinished")


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs of the schedule that are done.
        optimizer: state of the optimizer; None for fresh momentum.
        history: loss of each epoch that was trained.
    """

    epoch: int
    optimizer: dict | None
    history: list[float]


def save_unfinished(path: Path, model: nn.Module, masks: dict[str, Tensor], progress: Progress) -> None:
    """Write down how far the training of the ticket `path` is.

    Raises:
        WriteError: when the file cannot be written.
    """
    state = {"model": model.state_dict(), "masks": masks, **vars(progress)}
    write_atomically(unfinished_path(path), lambda file: torch.save(state, file))


def resume_(path: Path, model: nn.Module, masks: dict[str, Tensor], *, first: int) -> Progress:
    """Put a network and its masks back to where the training of the ticket `path` was cut short, if it was.

    Args:
        path: of the ticket.
        model: gets the weights.
        masks: get replaced by those of that time.
        first: epoch where a training begins that was not cut short.

    Raises:
        InputError: when what lies there is damaged or of another network.
    """
    unfinished = unfinished_path(path)
    if not unfinished.exists():
        return Progress(first, None, [])
    try:
        saved = torch.load(unfinished, weights_only=True, map_location="cpu")
        load_weights_(model, saved["model"], where=str(unfinished))
        masks.update({name: mask.to(masks[name].device) for name, mask in saved["masks"].items()})
        return Progress(saved["epoch"], saved["optimizer"], saved["history"])
    except Exception as error:  # noqa: BLE001 torch.load fails on rubbish in many ways
        raise InputError(
            f"the unfinished training {unfinished} is damaged ({error}); delete it, the round starts anew"
        ) from error
