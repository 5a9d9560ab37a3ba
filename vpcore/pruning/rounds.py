"""Rounds: a sparse method carried out for one density, from the ticket of its parent to its own.

Each round ends in a file, its ticket, and can be resumed: after every epoch the training so far is saved beside that file,
and deleted at the end (`resumable`). The method decides what is done (`methods`): for the lottery ticket it is one pass
through the loop in `iterative`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from vpcore.errors import InputError, difference
from vpcore.networks.backbones import IMAGENET, Statistics, normalise, prunable
from vpcore.networks.state import load_weights_
from vpcore.networks.training import Recipe
from vpcore.pruning import masks as pruning
from vpcore.pruning.methods import Start, epochs_seen, method_named
from vpcore.pruning.schedules import SparsityTarget, check_rewind
from vpcore.weights.resumable import fit_resumably, unfinished_path
from vpcore.weights.tickets import read_ticket, write_ticket

LOOKED_AT = 512  # training images that a method may look at before it trains, or in place of training
LOOKED_AT_ONCE = 64  # how many of them there are in a batch


def make_round(
    sparsifier: str,
    number: int,
    build: Callable[[int], nn.Module],
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    path: Path,
    parent: Path | None,
    rewound: Path,
    rate: float,
    rewind: int,
    scope: str,
    part: str,
    device: torch.device,
    header: dict[str, object],
    log: Callable[[str], None] = lambda text: None,
    statistics: Statistics = IMAGENET,
) -> None:
    """Make the network of a round and write its ticket.

    A round that was interrupted is resumed after its last finished epoch.

    Args:
        sparsifier: a key of `methods.METHODS`.
        number: of the round; 0 is dense, whatever the sparsifier.
        build: offset -> a network with fresh weights, drawn from the seed of the chain plus this offset.
        images: (N, 3, H, W) uint8 images of the source task; `labels`: (N,).
        recipe: how the network is trained in every round.
        path: of the ticket.
        parent: path of the ticket that it starts from, see `methods.parent`; None for fresh weights.
        rewound: path of the weights at epoch `rewind`, which round 0 writes and other rounds go back to.
        rate: share of the weights that each round removes.
        rewind: epoch of round 0 whose weights these are.
        scope: among which weights each weight is ranked, one of `masks.SCOPES`.
        part: of the network that is pruned, a key of `backbones.PARTS`.
        device: where it trains.
        header: provenance, kept in the ticket beside `epochs_seen` and the `history` of the losses.
        log: called with a line of text on the progress after every epoch.
        statistics: mean and standard deviation that the images are normalised with.

    Raises:
        InputError: when an argument is wrong, or a file is missing, damaged or of another network.
        WriteError: when a file cannot be written.
    """
    chosen, density = method_named(sparsifier, number), pruning.density_of_round(number, rate=rate)
    pruning.check_scope(scope)
    if chosen.train is not None:
        check_rewind(rewind, epochs=recipe.epochs)
    origin = chosen.parent(number)
    if origin is None and parent is not None:
        raise InputError(f"`parent` must be None for {sparsifier} {number}, which starts from fresh weights, got {parent}")
    if origin is not None and parent is None:
        raise InputError(f"`parent` must be the path of {origin[0]} {origin[1]} for {sparsifier} {number}, got None")
    model = build(0)
    masks = pruning.full(model, prunable(model, part))
    if parent is not None:
        state, kept, _ = read_ticket(parent)
        load_weights_(model, state, where=str(parent))
        if extra := set(kept) - set(masks):
            lines = difference([], extra)
            raise InputError(f"{parent} must be pruned in `part` {part} alone, but is elsewhere; use a larger one:\n{lines}")
        masks |= kept

    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(recipe.seed))[:LOOKED_AT]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in order.split(LOOKED_AT_ONCE):
            yield normalise(images[rows].to(device).float() / 255, statistics), labels[rows].to(device)

    start = Start(model, masks, rewound, rewind, recipe.seed, build, batches)
    target = SparsityTarget(density, recipe.steps(len(images)), scope)
    masks = {name: mask.to(device) for name, mask in chosen.masks(start, target).items()}
    state, first = chosen.weights(start)
    where = f"what {sparsifier} {number} starts from (if it is {rewound}, delete its folder: the chain is trained anew)"
    load_weights_(model, state, where=where)
    model.to(device)
    chosen.adjust_(model, masks, batches())

    def at_epoch(epoch: int) -> None:
        if number == 0 and epoch == rewind:
            write_ticket(rewound, model.state_dict(), {}, header=header)

    at_epoch(first)
    history: list[float] = []
    if (train := chosen.train) is not None:
        history = fit_resumably(
            path,
            model,
            masks,
            images,
            labels,
            recipe,
            header=header,
            first=first,
            statistics=statistics,
            take_step=lambda model, masks: train(model, masks, target),
            after_epoch=at_epoch,
            log=lambda text: log(f"{sparsifier} round {number}, {text}"),
        )
    seen = epochs_seen(sparsifier, number, epochs=recipe.epochs)
    pruned = masks if pruning.density(masks) < 1 else {}
    write_ticket(path, model.state_dict(), pruned, header={**header, "epochs_seen": seen, "history": history})
    unfinished_path(path).unlink(missing_ok=True)
