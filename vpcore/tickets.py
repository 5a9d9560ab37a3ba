"""Lottery tickets: rounds of training and pruning, each a file, each resumable.

Iterative magnitude pruning with weight rewinding (Frankle et al. 2020, arXiv 1912.05671):

    round 0     train the dense network for the whole schedule; keep its weights of epoch `rewind`
    round r     masks of density (1 - rate)^r from the magnitudes at the end of round r - 1;
                go back to the weights of epoch `rewind` under these masks; train from there to the end of the schedule

so every round, the dense one included, ends after the same number of epochs of the same schedule.

A ticket file (safetensors) holds the whole state of the network. A pruned weight is stored as its mask, one bit a weight
(`NAME.mask`), and the kept values (`NAME.kept`). The header says what made it and holds a SHA-256 of the content, so that a
damaged file is refused.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vpcore import pruning
from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.models import load_weights_, prunable
from vpcore.pruning import Masks
from vpcore.training import Recipe, fit

State = dict[str, Tensor]


def save_ticket(path: Path, state: State, masks: Masks, *, header: dict[str, object]) -> None:
    """Write a ticket.

    Args:
        path: of the file.
        state: the state dict of the network; where a mask is False the weight must be 0.
        masks: name -> bool tensor, for the pruned weights.
        header: what made the ticket; anything JSON can hold.
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
    meta = {"header": json.dumps(header), "shapes": json.dumps(shapes), "sha256": _digest(tensors)}
    write_atomically(path, lambda file: file.write(save(tensors, metadata=meta)))


def load_ticket(path: Path) -> tuple[State, Masks, dict[str, object]]:
    """Read a ticket: the state dict (zeros where pruned), the masks and the header.

    Raises:
        InputError: when the file is missing, is no ticket, or its content does not have the SHA-256 it says.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"there is no ticket {path}; `vpcore run` trains it")
    try:
        with safetensors.safe_open(path, "pt") as file:
            meta = file.metadata() or {}
        tensors = load_file(path)
        header, shapes, digest = json.loads(meta["header"]), json.loads(meta["shapes"]), meta["sha256"]
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(
            f"{path} must be a ticket file; it is damaged or something else ({error!r}); delete it, it is trained again"
        ) from error
    if _digest(tensors) != digest:
        raise InputError(
            f"{path} must have the SHA-256 {digest[:12]}..., its content has another: it is damaged; "
            "delete it, it is trained again"
        )
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


def _digest(tensors: State) -> str:
    content = hashlib.sha256()
    for name in sorted(tensors):
        content.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        content.update(tensors[name].numpy().tobytes())
    return content.hexdigest()


def train_round(
    number: int,
    build: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    folder: Path,
    rate: float,
    rewind: int,
    device: torch.device,
    header: dict[str, object],
    log: Callable[[str], None] = lambda text: None,
) -> None:
    """Train round `number` of iterative magnitude pruning and write `folder`/round-NN.safetensors.

    A round that was killed goes on from its last finished epoch (`folder`/unfinished-NN.pt, gone at the end).

    Args:
        number: 0 for dense; the ticket of the round before must exist.
        build: makes the network with the fresh weights of the chain.
        images: (N, 3, H, W) uint8 images of the source task; `labels`: (N,).
        recipe: of every round.
        folder: of the chain.
        rate: share of the weights that each round removes.
        rewind: epoch of round 0 to whose weights every later round goes back.
        device: where it trains.
        header: provenance, kept in the ticket.
        log: is told the progress, a line an epoch.
    """
    if not 0 <= rewind < recipe.epochs:
        raise InputError(f"`rewind` must be an epoch in 0..{recipe.epochs - 1}, got {rewind}")
    model, rewound, unfinished = build(), folder / "rewound.safetensors", folder / f"unfinished-{number:02d}.pt"
    masks = pruning.full(model, prunable(model))
    if number:
        if not rewound.exists():
            raise InputError(
                f"round {number} goes back to {rewound}, which is missing; delete {folder}, the chain is trained anew"
            )
        before, older, _ = load_ticket(ticket_path(folder, number - 1))
        load_weights_(model, before, where=str(ticket_path(folder, number - 1)))
        masks = pruning.select(
            pruning.magnitude(model, masks), {**masks, **older}, density=pruning.density_of_round(number, rate=rate)
        )
        load_weights_(model, load_ticket(rewound)[0], where=str(rewound))
        pruning.apply_(model, masks)
    elif rewind == 0:
        save_ticket(rewound, model.state_dict(), {}, header=header)
    first, optimizer_state, history = (rewind if number else 0), None, []
    if unfinished.exists():
        try:
            saved = torch.load(unfinished, weights_only=True)
            first, optimizer_state, history = saved["epoch"], saved["optimizer"], saved["history"]
            load_weights_(model, saved["model"], where=str(unfinished))
        except Exception as error:  # noqa: BLE001 torch.load fails on rubbish in many ways
            raise InputError(
                f"the unfinished training {unfinished} is damaged ({error}); delete it, the round starts anew"
            ) from error
    model.to(device)
    masks = {name: mask.to(device) for name, mask in masks.items()}
    after_step = (lambda: pruning.apply_(model, masks)) if number else (lambda: None)

    begun = time.perf_counter()

    def after_epoch(epoch: int, loss: float, optimizer: dict) -> None:
        history.append(loss)
        left = (time.perf_counter() - begun) / (epoch - first) * (recipe.epochs - epoch)
        if number == 0 and epoch == rewind:
            save_ticket(rewound, model.state_dict(), {}, header=header)
        state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer, "history": history}
        write_atomically(unfinished, lambda file: torch.save(state, file))
        log(f"round {number}, epoch {epoch}/{recipe.epochs}, loss {loss:.3f}, {left:.0f} s left in this round")

    fit(
        model,
        images,
        labels,
        recipe,
        first_epoch=first,
        optimizer_state=optimizer_state,
        after_step=after_step,
        after_epoch=after_epoch,
    )
    kept = {name: mask for name, mask in masks.items() if number}
    save_ticket(ticket_path(folder, number), model.state_dict(), kept, header={**header, "history": history})
    unfinished.unlink(missing_ok=True)


def ticket_path(folder: Path, number: int) -> Path:
    """Where the ticket of a round lies."""
    return Path(folder) / f"round-{number:02d}.safetensors"
