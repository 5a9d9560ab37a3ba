"""What a notebook works with: checked parameters, a complete study, and a place for what it shows.

A notebook begins with a cell of parameters, checks them (`check_parameters`), opens the study (`open_study`, which computes
what is missing) and writes what the book shows: figures (SVG and PDF), tables (CSV), and `numbers.json`, all in one folder.
`batch` runs them all.
"""

from __future__ import annotations

import ast
import functools
import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from vpcore.errors import InputError, unknown
from vpcore.files import write_atomically
from vpcore.report import plots
from vpcore.study.execution import device_named, execute
from vpcore.study.jobs import jobs
from vpcore.study.profile import Profile, load_profile
from vpcore.study.provenance import provenance
from vpcore.study.run import Run, run_id
from vpcore.study.store import Store
from vpcore.study.toy import data_or_fakes

ROOT = Path(__file__).resolve().parents[2]


def check_parameters(namespace: dict[str, object]) -> None:
    """Refuse parameters that the notebook does not have, or whose type is another than that of the default.

    papermill puts its parameters in a cell of their own and does not mind unknown ones; a typing error would silently give
    the default. This compares what that cell assigns with what the cell of defaults assigns.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        InputError: naming the parameter.
    """
    cells = [source for source in namespace["In"] if source.strip()]
    defaults = _assigned(cells[0])
    for cell in cells[1:]:
        if not cell.lstrip().startswith("# Parameters"):
            continue
        for name, value in _assigned(cell).items():
            _check_parameter(name, value, defaults)


def _assigned(source: str) -> dict[str, object]:
    """Names and literal values that a cell of parameters assigns."""
    statements = [s for s in ast.parse(source).body if isinstance(s, ast.Assign)]
    return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}


def _check_parameter(name: str, value: object, defaults: dict[str, object]) -> None:
    if name not in defaults:
        raise unknown("parameter", name, defaults)
    wanted = type(defaults[name])
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise InputError(f"parameter `{name}` must be {wanted.__name__}, such as {defaults[name]!r}, got {value!r}")


def _plain(value: object) -> object:
    """A number as JSON can hold it."""
    if isinstance(value, np.generic):
        return value.item()
    return value


@dataclass
class Study:
    """What a notebook works with: the records of its grids, the store of arrays, and where its output goes."""

    profile: Profile
    store: Store
    tables: dict[str, pd.DataFrame]
    output: Path
    numbers: dict[str, object] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """The records of all grids that the notebook shows, one row a run; without any, a row that says where it ran."""
        if not self.tables:
            here = provenance(device_named("auto"))
            return pd.DataFrame([{**here, "seconds": 0.0, "method": "source", "seed": 0, "source_seed": 0}])
        return pd.concat(self.tables.values()).drop_duplicates("id")

    @property
    def source(self) -> pd.DataFrame:
        """Records of the networks of the first grid on the source task, by round."""
        return self.sources(next(iter(self.tables)))

    @property
    def transfers(self) -> pd.DataFrame:
        """Records of the transfers of the first grid, see `adapted`."""
        return self.adapted(next(iter(self.tables)))

    def sources(self, grid: str) -> pd.DataFrame:
        """Records of the networks of a grid on the source task, by round."""
        table = self.tables[grid]
        return table[table["method"] == "source"].sort_values("round")

    def adapted(self, grid: str) -> pd.DataFrame:
        """Records of the transfers of a grid, with their budget also as a number, `shots`, infinite for all images."""
        table = self.tables[grid]
        table = table[table["method"] != "source"]
        return table.assign(shots=table["budget"].astype("Float64").fillna(float("inf")).astype(float))

    def at_budget(self, budget: str) -> pd.DataFrame:
        """The transfers at one budget: a number of images per class, as text, "all" images, or the "largest" of each task.

        The largest is one that all methods of the task have, so that they can be compared; a task without one is left out.

        Raises:
            InputError: when no transfer has this budget.
        """
        transfers = self.transfers
        methods = transfers.groupby("task")["method"].transform("nunique")
        shared = transfers.groupby(["task", "shots"])["method"].transform("nunique") == methods
        wanted = transfers["shots"].where(shared).groupby(transfers["task"]).transform("max")
        known = sorted(transfers["shots"].unique())
        if budget != "largest":
            wanted = {"all": float("inf"), **{f"{size:g}": size for size in known}}.get(budget)
        chosen = transfers[transfers["shots"] == wanted]
        if chosen.empty:
            names = ["largest"] * bool(shared.any()) + ["all" if size == float("inf") else f"{size:g}" for size in known]
            raise InputError(f"parameter `budget` must be one of {', '.join(names)}, got {budget!r}")
        return chosen

    def run_of(self, record: pd.Series) -> Run:
        """The run that a row of the table is the record of."""
        return self._runs[record["id"]]

    @functools.cached_property
    def _runs(self) -> dict[str, Run]:
        return {run_id(run): run for run in self.profile.runs}

    def save_figure(self, figure: Figure, name: str) -> None:
        """Write a figure as NAME.svg and NAME.pdf, the same bytes for the same data."""
        with plots.style():  # which also fixes the ids in an SVG
            for kind, metadata in (("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
                write_atomically(
                    self.output / f"{name}.{kind}",
                    lambda file, kind=kind, metadata=metadata: figure.savefig(file, format=kind, metadata=metadata),
                )

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write a table as NAME.csv, as the book shows it."""
        write_atomically(self.output / f"{name}.csv", lambda file: file.write(table.to_csv(index=False).encode()))

    def save_numbers(self, **numbers: object) -> None:
        """Add numbers for the prose; they are written, with their provenance, to numbers.json."""
        self.numbers |= {name: _plain(value) for name, value in numbers.items()}
        content = json.dumps({"numbers": self.numbers, "provenance": self.provenance()}, indent=1, allow_nan=False)
        write_atomically(self.output / "numbers.json", lambda file: file.write(content.encode()))

    def provenance(self) -> dict[str, object]:
        """What a page says of the records it shows, or of the notebook itself when it shows none."""
        table = self.table
        seconds = float(table["seconds"].sum())
        return {
            "profile": self.profile.name if self.tables else "none",
            "title": self.profile.title if self.tables else "computed in the notebook",
            "runs": len(table),
            "commits": sorted(table["commit"].unique()),
            "versions": sorted(table["versions"].unique()),
            "devices": sorted(table["device"].unique()),
            "seeds": sorted(int(s) for s in table.loc[table["method"] != "source", "seed"].unique()),
            "source_seeds": sorted(int(s) for s in table["source_seed"].unique()),
            "computing": f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours",
            "finished": max(table["finished"]),
        }


def open_study(
    notebook: str,
    *,
    profile: str,
    toy: bool,
    device: str,
    data: str,
    results: str,
    output: str,
    grids: list[str],
) -> Study:
    """The study of a profile, complete as far as the notebook needs it: what is missing is computed, with a progress bar.

    Args:
        notebook: name of the notebook, of the folder of its output.
        profile, toy: see `run.load_profile`.
        device: "auto", "cpu" or "cuda".
        data: folder of Parquet image sets; "" for the environment variable VPCORE_DATA.
        results: folder of all results; a relative one is taken from the root of the project.
        output: folder for figures, tables and numbers; "" for RESULTS/PROFILE/book/NOTEBOOK.
        grids: names of the grids of the profile that the notebook shows, the one of `Study.transfers` first.

    Raises:
        InputError: for bad input, and when a run fails.
    """
    card = load_profile(profile, toy=toy)
    store = Store(ROOT / results, card.name)
    folder = ROOT / output if output else store.root / "book" / notebook
    runs = {name: card.grid(name) for name in grids}
    complete(card, tuple(dict.fromkeys(itertools.chain(*runs.values()))), store, device=device, data=data)
    return Study(card, store, {name: store.table(mine) for name, mine in runs.items()}, folder)


def data_folder(data: str) -> Path | None:
    """The folder that the parameter `data` names, or the environment variable VPCORE_DATA, or None."""
    folder = data or os.environ.get("VPCORE_DATA", "")
    return Path(folder) if folder else None


def complete(card: Profile, runs: tuple[Run, ...], store: Store, *, device: str, data: str) -> None:
    """Compute what is missing of some runs of a profile, with a progress bar; the first failure is an error."""
    total = len(jobs(runs, store))
    if not total:
        return
    with tqdm(total=total, desc=f"{card.name} study", unit="job") as bar:
        steps = execute(
            runs,
            store,
            device=device_named(device),
            folder=data_or_fakes(card, card.runs, store, data_folder(data)),
            protocol=card.protocol,
            workers=None,
            log=lambda text: bar.set_postfix_str(text),
        )
        for done in steps:
            if done.error is not None:
                raise InputError(f"{done.job} failed: {done.error}; see {store.root / 'failed'}") from done.error
            bar.update()
