"""Results are files: self-describing records, written once, and the table of a study.

    results/PROFILE/records/NAME.json               the records of a job: identity, metrics, bins, provenance of each run
    results/PROFILE/predictions/NAME.safetensors    of a run: logits and labels of test and val, the prompt, the mapping, ...
    results/PROFILE/failed/NAME.txt                 why a run failed; deleted when it succeeds
    results/tickets/CHAIN/round-NN.safetensors      networks, named by what they depend on: profiles share them
    results/cache/                                  decoded images
    results/PROFILE.parquet                         a published table, committed: read like records
    results/parts/PROFILE/NNN.parquet               parts of a table that is not whole yet, committed as they are finished
    results/parts/PROFILE/NNN-outcomes.parquet      and the result for each test image, see `outcomes`

A run that has a record is done, wherever the record lies; nothing else is needed to resume. Runs that are computed together,
as a cohort, have one file of records, so that all of them are done or none is. Every file is sealed by a SHA-256 of its own,
and a file of records is named after the ids of its runs: what was cut off, changed or renamed is not taken for a result.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
from torch import Tensor

from vpcore.errors import InputError
from vpcore.files import set_aside, write_atomically
from vpcore.study.outcomes import compact
from vpcore.study.provenance import code
from vpcore.study.run import Run, chain_id, cohort_id, identity, run_id, run_name
from vpcore.study.tables import read_table, write_table
from vpcore.weights.sealed import read_sealed, write_sealed
from vpcore.weights.tickets import ticket_path

Record = dict[str, Any]
# columns of whole numbers that a run may lack
INTEGERS = tuple(field.name for field in dataclasses.fields(Run) if "int" in str(field.type))


class Store:
    """The results of one profile.

    Args:
        results: the folder of all results.
        profile: name of the profile.
    """

    def __init__(self, results: Path, profile: str) -> None:
        self.results = Path(results)
        self.profile = profile
        self.root = self.results / profile
        self.published = self.results / f"{profile}.parquet"
        self.parts = self.results / "parts" / profile
        self.cache = self.results / "cache"

    def ticket_path(self, run: Run) -> Path:
        """Where the ticket of the network of a run lies."""
        return ticket_path(self.results / "tickets" / chain_id(run), run.round)

    def record_path(self, run: Run) -> Path:
        """The file that holds the record of a run, or would hold it if the run were computed alone."""
        alone = self.root / "records" / f"{run_name(run)}.json"
        return next((path for path, record in self._recorded() if record["id"] == run_id(run)), alone)

    def failure_path(self, run: Run) -> Path:
        """The file that says why a run failed."""
        return self.root / "failed" / f"{run_name(run)}.txt"

    def arrays_path(self, run: Run) -> Path:
        """Where the predictions of a run lie."""
        return self.root / "predictions" / f"{run_name(run)}.safetensors"

    def done(self) -> set[str]:
        """Ids of the runs that have a record; those in a damaged file have none, and a warning names it."""
        rows = self.committed()
        for path in self._files():
            try:
                rows += _read_records(path, _changed(path))
            except InputError as error:
                warnings.warn(str(error), stacklevel=2)
        return {str(row["id"]) for row in rows}

    def absolute(self) -> Store:
        """The same store, for processes that work in another folder."""
        other = copy.copy(self)
        vars(other).update({name: path.absolute() for name, path in vars(self).items() if isinstance(path, Path)})
        return other

    def recorded(self, runs: tuple[Run, ...]) -> tuple[Record, ...]:
        """The records of runs that were computed together, or none."""
        path = self.root / "records" / f"{run_name(*runs)}.json"
        return tuple(_read_records(path, _changed(path))) if path.exists() else ()

    def set_aside_damaged(self) -> None:
        """Rename damaged files of records, with a warning, so that their runs are computed again."""
        for path in self._files():
            changed = _changed(path)
            try:
                _read_records(path, changed)
            except InputError as error:
                if _changed(path) == changed:  # not written anew meanwhile, by another process
                    warnings.warn(f"{error}; it lies in {set_aside(path)} now", stacklevel=2)

    def of_other_code(self, runs: tuple[Run, ...]) -> list[Path]:
        """The files of records of these runs that were computed here by other code than there is now."""
        wanted, now = set(map(run_id, runs)), code()
        files = {path for path, record in self._recorded() if record["id"] in wanted and record.get("code", now) != now}
        return sorted(files)

    def write(self, runs: tuple[Run, ...], measured: list[Record], arrays: list[dict[str, Tensor]]) -> list[Record]:
        """Write the arrays of a cohort, and then its records in one file: they say that the runs are done."""
        records = [
            {"id": run_id(run), **identity(run), "task": run.task, "seed": run.seed, **values}
            for run, values in zip(runs, measured, strict=True)
        ]
        for run, values in zip(runs, arrays, strict=True):
            if values:
                write_sealed(self.arrays_path(run), values)
        text = json.dumps({"sha256": _digest(records), "records": records}, indent=1, allow_nan=False)
        path = self.root / "records" / f"{run_name(*runs)}.json"
        write_atomically(path, text)
        for run in runs:
            self.failure_path(run).unlink(missing_ok=True)
        return records

    def write_failure(self, run: Run, text: str) -> None:
        """Write down why a run failed."""
        write_atomically(self.failure_path(run), text)

    def failures(self) -> list[tuple[Path, str]]:
        """The files that say why runs failed, each with its last line."""

        def last(path: Path) -> str:
            try:
                return (path.read_text(errors="replace").strip().splitlines() or ["(empty)"])[-1]
            except OSError as error:
                return f"(cannot be read: {error.strerror})"

        return [(path, last(path)) for path in sorted((self.root / "failed").glob("*.txt"))]

    def arrays(self, run: Run) -> dict[str, Tensor]:
        """The predictions and what was learned, as `write` was given them."""
        path = self.arrays_path(run)
        if not path.exists():
            raise InputError(
                f"there are no predictions {path}; a published table has none: "
                f"`vpcore run --profile {self.profile}` makes them"
            )
        try:
            return read_sealed(path)[0]
        except (safetensors.SafetensorError, ValueError, OSError) as error:
            raise InputError(
                f"the predictions {path} are damaged ({error}); delete them and the record {self.record_path(run)}"
            ) from error

    def records(self) -> list[Record]:
        """All records that were computed here.

        Raises:
            InputError: when a file of records is damaged.
        """
        return [record for _, record in self._recorded()]

    def rows(self) -> list[Record]:
        """All records: those that were computed here, then those of the committed tables that were not.

        Raises:
            InputError: when a record or a committed table is damaged.
        """
        here = self.records()
        fresh = {row["id"] for row in here}
        return here + [row for row in self.committed() if row["id"] not in fresh]

    def table(self, runs: tuple[Run, ...] | None = None) -> pd.DataFrame:
        """All records as a tidy table, one row a run; with `runs`, only theirs and in their order.

        Raises:
            InputError: when a record or a committed table is damaged.
        """
        rows = self.rows()
        if runs is not None:
            by_id = {row["id"]: row for row in rows}
            # fields that came after a record was written are known from the run
            rows = [{**identity(run), **by_id[i]} for run in runs if (i := run_id(run)) in by_id]
        table = pd.DataFrame(rows)
        for name in table.columns[table.dtypes == "object"]:  # what a run does not have is NaN, wherever it was read from
            table[name] = table[name].where(table[name].notna(), np.nan)
        for name in INTEGERS:
            if name in table:
                table[name] = table[name].astype("Int64")
        return table

    def publish(self, runs: tuple[Run, ...]) -> Path:
        """Write the table of these runs to the one file that is committed."""
        table = self.table(runs)
        if table.empty:
            raise InputError(
                f"there are no records of {self.profile} in {self.results} to publish; "
                f"use: vpcore run --profile {self.profile}"
            )
        write_table(self.published, table)
        return self.published

    def publish_part(self, runs: tuple[Run, ...]) -> Path | None:
        """Write those records of the runs that no committed table has yet to a part, with their outcomes; None if none."""
        committed = {row["id"] for row in self.committed()}
        here = {record["id"] for record in self.records()}
        fresh = tuple(run for run in runs if run_id(run) in here - committed)
        if not fresh:
            return None
        number = len(self._parts()) + 1
        path = self.parts / f"{number:03d}.parquet"
        kept = [run for run in fresh if self.arrays_path(run).exists()]  # records may come from another machine without
        outcomes = pd.DataFrame([{"id": run_id(run), **compact(self.arrays(run))} for run in kept])
        write_table(self.outcomes_path(path), outcomes)
        write_table(path, self.table(fresh))
        return path

    def outcomes(self) -> pd.DataFrame:
        """The results for the test images of all committed runs, one row a run: see `outcomes`."""
        tables = [read_table(self.outcomes_path(path)) for path in self._parts()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"id": []})

    @staticmethod
    def outcomes_path(part: Path) -> Path:
        """Where the outcomes of a part lie."""
        return part.with_name(f"{part.stem}-outcomes.parquet")

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.parts.glob("*.parquet") if path.stem.isdigit())

    def _files(self) -> list[Path]:
        return sorted((self.root / "records").glob("*.json"))

    def _recorded(self) -> Iterator[tuple[Path, Record]]:
        """Every record that was computed here, with its file."""
        for path in self._files():
            yield from ((path, record) for record in _read_records(path, _changed(path)))

    def committed(self) -> list[Record]:
        """The rows of the published table and of its parts; where several have the same run, the last one counts."""
        paths = [path for path in (self.published, *self._parts()) if path.exists()]
        rows = [row for path in paths for row in _read_parquet(path, _changed(path))]
        return list({row["id"]: row for row in rows}.values())


def _digest(records: list[Record]) -> str:
    """SHA-256 of records, however they are laid out in their file."""
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


def _changed(path: Path) -> int:
    """When a file was last written; of a link that leads nowhere, 0."""
    return path.stat().st_mtime_ns if path.exists() else 0


@functools.lru_cache(maxsize=100_000)
def _read_records(path: Path, changed: int) -> list[Record]:
    try:
        sealed = json.loads(path.read_text())
        records: list[Record] = sealed["records"]
        if sealed["sha256"] != _digest(records):
            raise ValueError("its content has another SHA-256 than it says")
        if not path.stem.endswith(cohort_id([record["id"] for record in records])):
            raise ValueError("its name is that of other runs than those it holds")
        return records
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise InputError(
            f"the record {path} is damaged ({error}); use `vpcore run`, which sets it aside and computes its runs again"
        ) from error


@functools.lru_cache(maxsize=100)
def _read_parquet(path: Path, changed: int) -> list[Record]:
    table = read_table(path)
    if "id" not in table:
        raise InputError(f"the published table {path} must have the column id of records; restore it: git checkout {path}")
    table = table.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
    return table.to_dict("records")
