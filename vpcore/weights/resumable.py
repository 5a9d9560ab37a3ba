"""Trainings that can be cut short: what was trained lies beside the ticket to come, and is gone when the ticket is there.

After each epoch the network, its masks, the state of the optimizer and the losses so far are written down, behind their
SHA-256. Since the order of the images depends on the seed and the epoch alone, a training that goes on from there ends in
the same weights.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.networks import parallel
from vpcore.networks.backbones import IMAGENET, Statistics
from vpcore.networks.state import load_weights_
from vpcore.networks.training import Recipe, Step, fit

DIGEST = hashlib.sha256().digest_size  # bytes


def fit_resumably(
    path: Path,
    model: nn.Module,
    masks: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    header: dict[str, object],
    first: int = 0,
    statistics: Statistics = IMAGENET,
    take_step: Callable[[nn.Module, dict[str, Tensor]], Step] = lambda model, masks: (
        lambda optimizer, step: optimizer.step()
    ),
    after_epoch: Callable[[int], None] = lambda epoch: None,
    log: Callable[[str], None] = lambda text: None,
) -> list[float]:
    """Train a network in place, on from where an earlier training of the same ticket was cut short.

    Args:
        path: of the ticket that it will become.
        model: in training on the device of its weights.
        masks: changed by a training that changes them, and by going on.
        images, labels, recipe, statistics: as for `fit`.
        header: of the ticket; what was cut short must have the same, but for the time and the code.
        first: epoch where the training begins when it was not cut short.
        take_step: model and masks -> how a step is taken.
        after_epoch: is told how many epochs are done.
        log: is told the progress, a line an epoch.

    Returns:
        The training loss of each epoch, those of before included.

    Raises:
        InputError: when what lies there is damaged or of another network, or as `fit`.
        WriteError: when it cannot be written down.
    """
    progress = resume_(path, model, masks, header=header, first=first)
    history, begun = list(progress.history), time.perf_counter()

    def note(epoch: int, loss: float, optimizer: dict[str, Any]) -> None:
        history.append(loss)
        after_epoch(epoch)
        save_unfinished(path, model, masks, Progress(epoch, optimizer, history), header=header)
        left = (time.perf_counter() - begun) / (epoch - progress.epoch) * (recipe.epochs - epoch)
        log(f"epoch {epoch}/{recipe.epochs}, loss {loss:.3f}, {left:.0f} s left in this round")

    fit(
        model,
        images,
        labels,
        recipe,
        first_epoch=progress.epoch,
        optimizer_state=progress.optimizer,
        statistics=statistics,
        take_step=take_step(model, masks),
        after_epoch=note,
        progress=False,
    )
    return history


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
    optimizer: dict[str, Any] | None
    history: list[float]


def save_unfinished(
    path: Path, model: nn.Module, masks: dict[str, Tensor], progress: Progress, *, header: dict[str, object]
) -> None:
    """Write down how far the training of the ticket `path` is.

    Raises:
        WriteError: when the file cannot be written.
    """
    if not parallel.is_first():
        return
    state = {"model": model.state_dict(), "masks": masks, "origin": _origin(header), **vars(progress)}
    torch.save(state, content := io.BytesIO())
    write_atomically(unfinished_path(path), hashlib.sha256(content.getvalue()).digest() + content.getvalue())


def _origin(header: dict[str, object]) -> str:
    """What a header says of the network and the machine, but not when, and by which commit."""
    return json.dumps({name: header[name] for name in sorted(header) if name not in ("started", "commit")})


def resume_(path: Path, model: nn.Module, masks: dict[str, Tensor], *, header: dict[str, object], first: int) -> Progress:
    """Put a network and its masks back to where the training of the ticket `path` was cut short, if it was.

    Args:
        path: of the ticket.
        model: gets the weights.
        masks: get replaced by those of that time.
        header: of the ticket.
        first: epoch where a training begins that was not cut short.

    Raises:
        InputError: when what lies there is damaged, of another network, or was begun elsewhere.
    """
    unfinished = unfinished_path(path)
    if not unfinished.exists():
        return Progress(first, None, [])
    try:
        whole = unfinished.read_bytes()
        if hashlib.sha256(content := whole[DIGEST:]).digest() != whole[:DIGEST]:
            raise ValueError("its content has another SHA-256 than it says")
        saved = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        if saved["origin"] != _origin(header):
            raise ValueError(f"it was begun as {saved['origin']}, and should go on as {_origin(header)}")
        load_weights_(model, saved["model"], where=str(unfinished))
        masks.update({name: mask.to(masks[name].device) for name, mask in saved["masks"].items()})
        return Progress(saved["epoch"], saved["optimizer"], saved["history"])
    except Exception as error:  # noqa: BLE001 torch.load fails on rubbish in many ways
        raise InputError(
            f"the unfinished training {unfinished} is damaged or another one ({error}); delete it, the round starts anew"
        ) from error
