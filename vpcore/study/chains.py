"""Chains: how the tickets of a study are made, each from those before it.

    weights (trained by the study, or from a file) -> ticket of a round -> the next round

A ticket is a file, made once and kept; `headers` describes what it records about itself.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from filelock import FileLock

from vpcore.errors import InputError
from vpcore.networks import parallel
from vpcore.networks.backbones import backbone
from vpcore.networks.state import load_weights_
from vpcore.networks.training import Recipe
from vpcore.pruning.methods import METHODS, rewinds
from vpcore.pruning.rounds import make_round
from vpcore.quantization.training import prepare_lsq
from vpcore.study.headers import check_header, dense_twin, description, from_elsewhere, origins, parents, rewound_path
from vpcore.study.provenance import provenance
from vpcore.study.run import Run, ticket_run, trains
from vpcore.study.session import Session
from vpcore.study.store import Store
from vpcore.weights.published import FILES, check_there, pretrained, ticket_file
from vpcore.weights.resumable import fit_resumably, unfinished_path
from vpcore.weights.tickets import read_ticket, write_ticket


def check_tickets(runs: tuple[Run, ...], store: Store, folder: Path | None) -> None:
    """Refuse runs whose network comes from a file that is missing, or that has changed since it was first used.

    Raises:
        InputError: naming the file, or the ticket that was made of what it was before.
    """
    for run in dict.fromkeys(map(ticket_run, runs)):
        weights, path = from_elsewhere(run), store.ticket_path(run)
        if weights.startswith(FILES) and not path.exists():
            check_there(weights, folder=folder, round=run.round)
        elif weights.startswith(FILES) and folder and ticket_file(weights, folder=folder, round=run.round).exists():
            check_header(path, run, store, folder=folder)


def make_ticket(run: Run, session: Session) -> None:
    """Make the ticket of a run unless it exists: train it, or take weights that come from elsewhere."""
    path = session.store.ticket_path(run)
    if parallel.agreed(path.exists, session.device):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.stem}.lock"))  # a study that shares the network waits for it
    with lock if parallel.is_first() else contextlib.nullcontext():
        if not parallel.agreed(path.exists, session.device):
            _make_ticket(run, session, path)


def _make_ticket(run: Run, session: Session, path: Path) -> None:
    store = session.store
    stamp = provenance(session.device)
    stamp["started"] = stamp.pop("finished")  # the training has yet to begin
    if parallel.processes() > 1:
        stamp["processes"] = parallel.processes()
    before = parents(run)
    needed = [store.ticket_path(parent) for parent in before]
    for parent, file in zip(before, needed, strict=True):
        session.check_parent(file, parent)
    if run.round and run.sparsifier in METHODS and rewinds(run.sparsifier) and rewound_path(run, store).exists():
        session.check_parent(rewound_path(run, store), dense_twin(run))
    header = {**description(run), **origins(run, store, session.folder), **stamp}
    if weights := from_elsewhere(run):
        classes = len(session.source_classes(run))
        state, masks = pretrained(run.model, weights, folder=session.folder, round=run.round, classes=classes)
        write_ticket(path, state, masks, header={**header, "history": [], "epochs_seen": 0})
        return
    if run.quant_training == "lsq":
        _train_quantized(run, session, path, needed[0], header)
        return
    train, trained = session.source_images(run, "train"), recipe(run)
    if trained.epochs and len(train) < trained.batch:
        raise InputError(
            f"`source_batch` must be at most the number of training images of {run.source}, {len(train)} with "
            f"`source_per_class` {run.source_per_class or 'all'}; got {run.source_batch}"
        )
    make_round(
        run.sparsifier,
        run.round,
        lambda offset: session.fresh(run, offset=offset),
        train.images.to(session.device),
        train.labels,
        trained,
        path=path,
        parent=needed[0] if needed else None,
        rewound=rewound_path(run, store),
        rate=run.rate,
        rewind=run.rewind,
        scope=run.scope,
        part=run.part,
        device=session.device,
        header=header,
        log=session.log,
        statistics=backbone(run.model).statistics,
    )


def _train_quantized(run: Run, session: Session, path: Path, dense: Path, header: dict[str, object]) -> None:
    """Train the dense network on with learned steps, as long as a round; at 32 bits it stays a float network."""
    model, train = session.fresh(run), session.source_images(run, "train")
    load_weights_(model, read_ticket(dense)[0], where=str(dense))
    batches = session.unlabelled(run)
    network = prepare_lsq(model, batches, weight_bits=run.weight_bits, activation_bits=run.activation_bits)
    history = fit_resumably(
        path,
        network.to(session.device),
        {},
        train.images.to(session.device),
        train.labels,
        recipe(run),
        header=header,
        statistics=backbone(run.model).statistics,
        log=lambda text: session.log(f"{run.weight_bits}/{run.activation_bits} bits, {text}"),
    )
    seen = 2 * run.source_epochs
    write_ticket(path, network.state_dict(), {}, header={**header, "epochs_seen": seen, "history": history})
    unfinished_path(path).unlink(missing_ok=True)


def recipe(run: Run) -> Recipe:
    """How every round of a chain is trained."""
    return Recipe(
        epochs=run.source_epochs if run.weights == "trained" or trains(run) else 0,
        batch=run.source_batch,
        lr=run.source_lr,
        weight_decay=run.source_decay,
        augment=run.augment,
        precision=run.precision,
        seed=run.source_seed,
        label_smoothing=run.label_smoothing,
        mixup=run.mixup,
    )
