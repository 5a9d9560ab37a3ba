"""Headers: what a ticket records about itself, and how it is recognised.

A header names the fields of the chain, the round, the tickets, the file and the data that the network was made from, the
code and the machine. When a ticket is read, its header is compared with the run that asks for it, so that a ticket that was
swapped, left over or made from something else is refused.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from vpcore.data import tasks
from vpcore.errors import InputError
from vpcore.pruning import methods
from vpcore.study.provenance import PLACE
from vpcore.study.run import DEFAULTS, Run, Scalar, chain, source_run, ticket_run
from vpcore.study.store import Record, Store
from vpcore.weights.foreign import file_digest
from vpcore.weights.published import FILES, ticket_file
from vpcore.weights.tickets import ticket_digest, ticket_header

REWOUND = "rewound.safetensors"  # beside a dense ticket: the weights of the epoch that later rounds go back to


def from_elsewhere(ticket: Run) -> str:
    """Where the weights of a ticket come from that the study does not make, as `published.pretrained` wants it, or ""."""
    if ticket.round == 0:
        return ticket.weights if ticket.weights != "trained" and ticket.quant_training == "none" else ""
    return ticket.sparsifier if ticket.sparsifier.startswith(FILES) else ""


def parents(ticket: Run) -> tuple[Run, ...]:
    """The tickets that must exist before this one can be made."""
    if ticket.quant_training != "none":
        return (dense_twin(ticket),)
    if from_elsewhere(ticket):
        return ()
    origin = methods.parent(ticket.sparsifier, ticket.round)
    if origin is None:
        return ()
    method, number = origin
    return (ticket_run(dataclasses.replace(ticket, sparsifier=method, round=number)),)


def dense_twin(run: Run) -> Run:
    """The run that measures the dense float network which the network of `run` is compared with, on its source task."""
    return source_run(dataclasses.replace(run, round=0, weight_bits=32, activation_bits=32, quant_training="none"))


def rewound_path(run: Run, store: Store) -> Path:
    """Where the weights lie that the rounds of a chain go back to."""
    return store.ticket_path(dense_twin(run)).with_name(REWOUND)


def description(run: Run) -> dict[str, Scalar]:
    """What a network is: the fields of its chain, its round, and how it was quantized in training."""
    return {**chain(run), "round": run.round}


def origins(run: Run, store: Store, folder: Path | None) -> dict[str, str]:
    """What a network is made from: digests of its file, or of its data and the tickets it starts from, if they are there."""
    if weights := from_elsewhere(run):
        if not weights.startswith(FILES) or folder is None:
            return {}
        file = ticket_file(weights, folder=folder, round=run.round)
        return {"file": file_digest(file)} if file.exists() else {}
    files = [store.ticket_path(parent) for parent in parents(run)]
    if run.round and run.sparsifier in methods.METHODS and methods.rewinds(run.sparsifier):
        files.append(rewound_path(run, store))
    return {
        "data": tasks.digest(run.source, folder=folder),
        **{f"from {path.stem}": ticket_digest(path) for path in files if path.exists()},
    }


def check_header(path: Path, run: Run, store: Store, *, folder: Path | None) -> None:
    """Refuse a ticket that is not the one that a run asks for.

    Args:
        path: of the ticket.
        run: whose network it should be.
        store: where the tickets lie that it was made from; those that are no longer there are not asked for.
        folder: the data folder.

    Raises:
        InputError: naming the file and what differs.
    """
    _refuse(path, {**description(run), **origins(run, store, folder)})


def check_records(run: Run, store: Store) -> None:
    """Refuse a ticket that is not the one that records of the same network were measured on, as when it was made anew.

    Args:
        run: whose network it is.
        store: where the ticket and the records lie.

    Raises:
        InputError: naming the file, one such record, and the digests.
    """
    digest = ticket_digest(path := store.ticket_path(run))
    network = {"round": run.round, "source_seed": run.source_seed, **description(run), "quant_training": run.quant_training}
    for record in store.rows():
        made_on = record.get("ticket", digest)
        if made_on == digest or pd.isna(made_on) or any(_field(record, name) != network[name] for name in network):
            continue
        raise InputError(
            f"the ticket {path} must be the one that the records of this network were measured on, with the digest "
            f"{made_on} as in the record {record['id']} ({record['method']}); it has {digest}: put that ticket back, or "
            f"delete the records on it in {store.root / 'records'}, whose runs are then computed anew; or use another folder"
        )


def _field(record: Record, name: str) -> object:
    """The value of a field of a run, from a record that may have been written before there was such a field."""
    value = record.get(name)
    return DEFAULTS[name] if pd.isna(value) else value


def check_place(path: Path, here: dict[str, object]) -> None:
    """Refuse a ticket that comes from another tag, device or processor, or from another number of threads, than `here`.

    Raises:
        InputError: naming the file and what differs.
    """
    _refuse(path, {name: here[name] for name in PLACE if name in here})


def _refuse(path: Path, expected: dict[str, object]) -> None:
    found = ticket_header(path)
    if wrong := [name for name, value in expected.items() if found.get(name) != value]:
        lines = "\n".join(f"  {name}: it has {found.get(name)!r}, asked for is {expected[name]!r}" for name in wrong)
        raise InputError(
            f"the ticket {path} is not the one that is asked for; delete it and what was made from it, which is then made "
            f"anew, or put the right one there:\n{lines}"
        )
