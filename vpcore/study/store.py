"""Results are files: one self-describing record per run, written once, and the table of a study.

    results/PROFILE/records/NAME.json               a record: identity, metrics, bins, provenance; one row of the table
    results/PROFILE/predictions/NAME.safetensors    logits and labels of test and val, the prompt, the mapping, the subset
    results/PROFILE/failed/NAME.txt                 why a run failed; gone when it succeeds
    results/tickets/CHAIN/round-NN.safetensors      networks, named by what they depend on: profiles share them
    results/cache/                                  decoded images
    results/PROFILE.parquet                         a published table, committed: read like records

A run whose record exists is done, wherever it lies; nothing else is needed to resume.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from vpcore.errors import InputError
from vpcore.files import write_atomically
from vpcore.study.run import Run, chain_id, identity, run_id, run_name
from vpcore.weights.tickets import ticket_path

Record = dict[str, object]
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
        self.cache = self.results / "cache"

    def ticket_path(self, run: Run) -> Path:
        """Where the ticket of the network of a run lies."""
        return ticket_path(self.results / "tickets" / chain_id(run), run.round)

    def record_path(self, run: Run) -> Path:
        return self.root / "records" / f"{run_name(run)}.json"

    def failure_path(self, run: Run) -> Path:
        return self.root / "failed" / f"{run_name(run)}.txt"

    def arrays_path(self, run: Run) -> Path:
        return self.root / "predictions" / f"{run_name(run)}.safetensors"

    def done(self) -> set[str]:
        """Ids of the runs that have a record."""
        ids = {path.stem.rsplit("-", 1)[1] for path in (self.root / "records").glob("*.json")}
        return ids | set(self._published()["id"])

    def write(self, run: Run, measured: Record, arrays: dict[str, Tensor]) -> Record:
        """Write the arrays and then the record of a run; the record last, since it says that the run is done."""
        record = {"id": run_id(run), **identity(run), "task": run.task, "seed": run.seed, **measured}
        if arrays:
            content = save({name: value.contiguous() for name, value in arrays.items()})
            write_atomically(self.arrays_path(run), lambda file: file.write(content))
        text = json.dumps(record, indent=1, allow_nan=False)
        write_atomically(self.record_path(run), lambda file: file.write(text.encode()))
        self.failure_path(run).unlink(missing_ok=True)
        return record

    def write_failure(self, run: Run, text: str) -> None:
        write_atomically(self.failure_path(run), lambda file: file.write(text.encode()))

    def arrays(self, run: Run) -> dict[str, Tensor]:
        """The predictions and what was learned, as `write` was given them."""
        path = self.arrays_path(run)
        if not path.exists():
            raise InputError(
                f"there are no predictions {path}; a published table has none: "
                f"`vpcore run --profile {self.profile}` makes them"
            )
        try:
            return load_file(path)
        except safetensors.SafetensorError as error:
            raise InputError(
                f"the predictions {path} are damaged ({error}); delete them and the record {self.record_path(run)}"
            ) from error

    def table(self, runs: tuple[Run, ...] | None = None) -> pd.DataFrame:
        """All records as a tidy table, one row a run; with `runs`, only theirs and in their order.

        Raises:
            InputError: when a record is damaged.
        """
        rows = []
        for path in sorted((self.root / "records").glob("*.json")):
            try:
                rows.append(json.loads(path.read_text()))
            except ValueError as error:
                raise InputError(f"the record {path} is damaged ({error}); delete it, the run is computed again") from error
        fresh = {row["id"] for row in rows}
        rows += [row for row in self._published().to_dict("records") if row["id"] not in fresh]
        if runs is not None:
            by_id = {row["id"]: row for row in rows}
            # fields that came after a record was written are known from the run
            rows = [{**identity(run), **by_id[i]} for run in runs if (i := run_id(run)) in by_id]
        table = pd.DataFrame(rows)
        for name in table.columns[table.dtypes == "object"]:  # what a run has not is NaN, wherever it was read from
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
        how = {"index": False, "compression": "zstd", "compression_level": 9}
        write_atomically(self.published, lambda file: table.to_parquet(file, **how))
        return self.published

    def _published(self) -> pd.DataFrame:
        if not self.published.exists():
            return pd.DataFrame({"id": []})
        return _read_parquet(self.published, self.published.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read_parquet(path: Path, changed: int) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"the published table {path} is damaged ({error}); restore it with: git checkout {path}") from error
    return table.map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)


def provenance(device: torch.device) -> Record:
    """What a record says of where it comes from."""
    return {
        "commit": commit(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = {name: _version(name) for name in ("vpcore", "torch", "torchvision", "numpy", "scipy", "pandas")}
    return {"python": platform.python_version(), **packages}


@functools.lru_cache
def commit() -> str:
    """The commit of the code, with a + when the working tree differs from it; "unknown" outside a checkout."""
    try:
        folder = Path(__file__).parents[1]
        head = subprocess.run(
            ["git", "rev-parse", "--short=10", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if changed.strip() else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
