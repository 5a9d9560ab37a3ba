"""Replay: records are computed again, to check that the present code still gives the same numbers.

A record says which runs were computed together with it; the same cohort is computed again, from the same tickets, into a
folder that is thrown away, and every number is compared. On the same type of processor, with the same versions, they are
equal to the bit; elsewhere sums are rounded differently, and the differences are reported.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpcore.checks import whole_number
from vpcore.errors import InputError
from vpcore.study.measurement import adapt, measure_source
from vpcore.study.provenance import PLACE, provenance
from vpcore.study.run import Run, run_id
from vpcore.study.session import Session
from vpcore.study.store import Record, Store
from vpcore.study.workers import as_workers_do

# columns that differ between times and machines although no number has changed
STAMP = {"seconds", "finished", "commit", "code", "versions", *PLACE}


@dataclass(frozen=True)
class Replayed:
    """A run that was computed again.

    Attributes:
        run: the run.
        differences: name of a column -> the value that was recorded, and the one that came out now; empty: all are equal.
        same_place: it was recorded by the same kind of machine, and with the same versions.
    """

    run: Run
    differences: dict[str, tuple[object, object]]
    same_place: bool


def replay(
    runs: tuple[Run, ...],
    store: Store,
    *,
    count: int,
    seed: int,
    device: torch.device,
    folder: Path | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Iterator[Replayed]:
    """Compute records again that are drawn from those that there are, and compare.

    Args:
        runs: of a profile.
        store: where its records and tickets lie; nothing is written there.
        count: how many records are drawn, without replacement; fewer when there are not so many.
        seed: of the draw.
        device: where they are computed.
        folder: the data folder.
        log: is told what happens within a long job.

    Raises:
        InputError: when there is no record whose ticket is there.
    """
    table = {record["id"]: record for record in store.rows()}
    there = [run for run in runs if run_id(run) in table and store.ticket_path(run).exists()]
    if not there:
        raise InputError(
            f"there is no record of {store.profile} in {store.results} whose ticket is there, too; use: "
            f"vpcore run --profile {store.profile}"
        )
    count, seed = whole_number(count, name="count"), whole_number(seed, name="seed", least=0)
    drawn = np.random.default_rng(seed).choice(len(there), min(count, len(there)), replace=False)
    with tempfile.TemporaryDirectory() as scratch, as_workers_do():
        again = _Aside(store, Path(scratch))
        session = Session(again, device, folder, log=log)
        here = provenance(device)
        for run in sorted((there[number] for number in drawn), key=lambda run: str(store.ticket_path(run))):
            recorded = table[run_id(run)]
            alone = [f"{run.task} {seed}" for seed in _list(recorded.get("cohort", [run.seed]))]
            company = [member.rsplit(" ", 1) for member in _list(recorded.get("company")) or alone]
            cohort = tuple(dataclasses.replace(run, task=task, seed=int(seed)) for task, seed in company)
            fresh = measure_source(run, session) if run.method == "source" else adapt(cohort, session)
            found = next(record for record in fresh if record["id"] == run_id(run))
            same = all(recorded.get(name) == here[name] for name in (*PLACE[1:], "versions"))
            yield Replayed(run, _differences(recorded, found), same)


class _Aside(Store):
    """A store whose tickets and decoded images are those of another, and whose records are its own."""

    def __init__(self, store: Store, root: Path) -> None:
        super().__init__(store.results, store.profile)
        self.root, self.cache = root, store.cache


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | np.ndarray) else []


def _differences(recorded: Record, found: Record) -> dict[str, tuple[object, object]]:
    """Columns whose values differ; what only one of the two has is no number that changed."""
    wrong = {}
    for name in (recorded.keys() & found.keys()) - STAMP:
        before, now = recorded[name], found[name]
        if isinstance(before, list) or isinstance(now, list):
            before, now = _list(before), _list(now)
        elif before is None or before != before:  # a column that other runs have
            continue
        if before != now:
            wrong[name] = (before, now)
    return wrong
