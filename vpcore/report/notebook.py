"""What a notebook works with: checked parameters, a complete study, and a place for what it shows.

A notebook begins with a cell of parameters and opens its study,

    study = open_study(globals())

which checks the parameters and computes what is missing. It writes what the book shows: figures, tables (CSV)
and `numbers.json`, all in one folder. `batch` runs all notebooks.

A notebook asks for records by what it tells apart. Whatever else varies in a grid is an error: two sparsifiers are two axes,
or two grids, and never one mean.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler
from torch import Tensor
from tqdm import tqdm

from vpcore.errors import InputError
from vpcore.files import as_json, write_atomically
from vpcore.report import figure_files, lineage, plots
from vpcore.report.hours import duration
from vpcore.report.parameters import PARAMETERS, check_parameters
from vpcore.study.execution import device_named, execute
from vpcore.study.jobs import jobs
from vpcore.study.profile import Profile, load_profile
from vpcore.study.provenance import provenance
from vpcore.study.run import FACTS, TRANSFER, Run, run_id
from vpcore.study.store import Store
from vpcore.study.toy import data_or_fakes

ROOT = Path(__file__).resolve().parents[2]
# what every notebook tells apart, or takes means over knowingly
AXES = ("method", "task", "budget", "seed", "source_seed", "round")


@dataclass
class Study:
    """What a notebook works with: the records of its grids, the store of arrays, and where its output goes."""

    profile: Profile
    store: Store
    tables: dict[str, pd.DataFrame]
    output: Path
    data: Path | None = None
    numbers: dict[str, object] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """The records of all grids that the notebook shows, one row a run; without any, a row that says where it ran."""
        if not self.tables:
            here = provenance(device_named("auto"))
            return pd.DataFrame([{**here, "seconds": 0.0, "method": "source", "seed": 0, "source_seed": 0}])
        return pd.concat(self.tables.values()).drop_duplicates("id")

    @functools.cached_property
    def source(self) -> pd.DataFrame:
        """Records of the networks of the first grid on the source task, by round."""
        return self.sources(next(iter(self.tables)))

    @functools.cached_property
    def transfers(self) -> pd.DataFrame:
        """Records of the transfers of the first grid, see `adapted`."""
        return self.adapted(next(iter(self.tables)))

    @property
    def methods(self) -> list[str]:
        """The methods of transfer of the first grid, in the order in which figures show them."""
        return self.methods_of(self.transfers)

    @staticmethod
    def methods_of(transfers: pd.DataFrame) -> list[str]:
        """The methods of some transfers, in the order in which figures show them."""
        return [method for method in plots.LOOKS if method in set(transfers["method"])]

    def sources(self, grid: str, *, by: Sequence[str] = ()) -> pd.DataFrame:
        """Records of the networks of a grid on the source task, by round; `by` as in `adapted`."""
        table = self._checked(grid, by)
        return table[table["method"] == "source"].sort_values("round")

    def adapted(self, grid: str, *, by: Sequence[str] = ()) -> pd.DataFrame:
        """Records of the transfers of a grid; `budget` is a number or "all", `shots` the number, or infinity for all.

        Where linear probes see the image on the full frame and on the canvas of a visual prompt, the latter are a method of
        their own, "lp-canvas".

        Args:
            grid: its name.
            by: fields of `Run` that the notebook tells apart beside those of `AXES`.

        Raises:
            InputError: when something else varies, so that a mean over the records would mix it.
        """
        table = self._checked(grid, by)
        table = table[table["method"] != "source"]
        budget = table["budget"]
        return table.assign(
            shots=budget.astype("Float64").fillna(float("inf")).astype(float),
            budget=budget.astype(object).where(budget.notna(), "all"),
        )

    def _checked(self, grid: str, by: Sequence[str]) -> pd.DataFrame:
        """The records of a grid, refused when a field varies that is neither asked about nor follows from what is.

        A setting of the transfer may follow from all that is asked about (a learning rate from the method, say), the kind of
        network only from `by`: with IMP in one round and RigL in the next, a curve over the rounds would mix the two.
        """
        table = self.tables[grid]
        probes = table["method"] == "lp"
        if "view" not in by and "view" in table and table.loc[probes, "view"].nunique() > 1:
            table = table.assign(method=table["method"].mask(probes & (table["view"] == "canvas"), "lp-canvas"))
        for name in [name for name in FACTS if name in table and name not in (*AXES, *by)]:
            known = [axis for axis in (*(AXES if FACTS[name].part == TRANSFER else ()), *by) if axis in table]
            values = table[name]
            alike = [table[axis].astype(object).where(table[axis].notna(), "") for axis in known]
            kinds = values.groupby(alike).nunique() if known else pd.Series([values.nunique()])
            if (kinds > 1).any():
                seen = ", ".join(map(str, sorted(values.dropna().unique())))
                raise InputError(
                    f"the grid {grid} of the profile {self.profile.name} must have one `{name}` where all that this "
                    f"notebook tells apart is equal, got {seen}; give each a [[grid]] of its own in the "
                    "profile, with a `name`, and name it in the parameter `grids`"
                )
        return table

    def missing(self, grid: str) -> int:
        """How many records of a grid are not there: none, but of a grid of which the notebook computes nothing."""
        return len(self.profile.grid(grid)) - len(self.tables[grid])

    def at_budget(self, budget: str) -> pd.DataFrame:
        """The transfers at one budget: a number of images per class, as text, "all" images, or the "largest" of each task.

        The largest is one that all methods of the task have, so that they can be compared; a task without one is left out.

        Raises:
            InputError: when no transfer has this budget.
        """
        transfers = self.transfers
        methods = transfers.groupby("task")["method"].transform("nunique")
        shared = transfers.groupby(["task", "shots"])["method"].transform("nunique") == methods
        sought = transfers["shots"].where(shared).groupby(transfers["task"]).transform("max")
        known = sorted(transfers["shots"].unique())
        if budget != "largest":
            sought = {"all": float("inf"), **{f"{size:g}": size for size in known}}.get(budget)
        chosen = transfers[transfers["shots"] == sought]
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

    def arrays(self, record: pd.Series) -> dict[str, Tensor] | None:
        """The predictions and what was learned in the run of a row; None when there is only a published record of it."""
        run = self.run_of(record)
        return self.store.arrays(run) if self.store.arrays_path(run).exists() else None

    def save_figure(self, figure: Figure, name: str, *, lack: str = "") -> Figure:
        """Write a figure with its data (`figure_files.save`); empty axes say why they are (`lack`).

        The figure is closed, and returned for the notebook to show.
        """
        with plots.style():  # which also fixes the ids in an SVG
            for ax in figure.axes:
                if ax.get_visible() and ax.axison and not ax.has_data():
                    plots.nothing(ax, lack or f"The profile {self.profile.name}\nhas no runs for this.")
            figure_files.save(figure, self.output / name)
        plt.close(figure)
        return figure

    def save_table(self, rows: pd.DataFrame | list[dict[str, object]], name: str) -> Styler:
        """Write a table as NAME.csv, as the book shows it, and return it for the notebook to show; an empty one says so."""
        table = pd.DataFrame(rows)
        if table.empty:
            table = pd.DataFrame({"": [f"The profile {self.profile.name} has no runs for this."]})
        write_atomically(self.output / f"{name}.csv", table.to_csv(index=False))
        return table.style.hide()

    def save_numbers(self, **numbers: object) -> dict[str, object]:
        """Add numbers for the prose; they are written, with their provenance, to numbers.json. Returns all so far."""
        self.numbers |= {name: as_json(value) for name, value in numbers.items()}
        content = json.dumps({"numbers": self.numbers, "provenance": self.provenance()}, indent=1, allow_nan=False)
        write_atomically(self.output / "numbers.json", content)
        return self.numbers

    def provenance(self) -> dict[str, object]:
        """What a page says of the records it shows, or of the notebook itself when it shows none."""
        table, seconds = self.table, float(self.table["seconds"].sum())
        return {
            "profile": self.profile.name if self.tables else "none",
            "title": self.profile.title if self.tables else "computed in the notebook",
            "runs": len(table),
            "commits": sorted(table["commit"].unique()),
            "versions": sorted(table["versions"].unique()),
            "devices": sorted(table["device"].unique()),
            "seeds": sorted(int(s) for s in table.loc[table["method"] != "source", "seed"].unique()),
            "source_seeds": sorted(int(s) for s in table["source_seed"].unique()),
            "adapted": lineage.adapted(table) if self.tables else [],
            "computing": duration(seconds),
            "finished": max(table["finished"]),
        }


def open_study(namespace: dict[str, Any]) -> Study:
    """The study that a notebook shows, complete as far as it needs it: what is missing is computed, with a progress bar.

    The parameters of every notebook:

        notebook    its name, which the folder of its output gets
        profile, toy                see `load_profile`
        device      "auto", "cpu" or "cuda"
        data        folder of Parquet image sets; "" for the environment variable VPCORE_DATA
        results     folder of all results; a relative one is taken from the root of the project
        output      folder for figures, tables and numbers; "" for RESULTS/PROFILE/book/NOTEBOOK
        grids       names of the grids that the notebook shows, the one of `Study.transfers` first; marks: see `wanted`

    Args:
        namespace: `globals()` of the notebook, whose first cell assigns the parameters.

    Raises:
        InputError: for a parameter that it does not have, for bad input, and when a run fails.
    """
    check_parameters(namespace)
    notebook, profile, toy, device, data, results, output, grids = (namespace[name] for name in PARAMETERS)
    card = load_profile(profile, toy=toy)
    store = Store(ROOT / results, card.name)
    folder = ROOT / output if output else store.root / "book" / notebook
    needed = tuple(dict.fromkeys(itertools.chain(*(card.grid(name) for name in wanted(grids, card)))))
    images = data_or_fakes(card, (), store, data_folder(data))
    complete(card, needed, store, device=device, data=data)
    tables = {name: store.table(card.grid(name)) for name in wanted(grids, card, looked_at=True)}
    return Study(card, store, tables, folder, images)


def wanted(grids: Sequence[str], card: Profile, *, looked_at: bool = False) -> list[str]:
    """The grids of a profile that a notebook computes where records are missing, in order.

    Args:
        grids: names; one that ends in "?" is left out where the profile lacks it. Of one that ends in "*" nothing is
            computed: the notebook shows the records that are there, and says how many are missing (`Study.missing`).
        card, looked_at: the profile, and whether those of its grids that end in "*" are named, too.

    >>> wanted(["main", "quantized?", "more*"], load_profile("mini"))
    ['main']
    """
    marked = [(name.rstrip("?*"), name[-1]) for name in grids if looked_at or not name.endswith("*")]
    return [name for name, mark in marked if mark not in "?*" or name in card.grids]


def data_folder(data: str) -> Path | None:
    """The folder that the parameter `data` names, or the environment variable VPCORE_DATA, or None."""
    folder = data or os.environ.get("VPCORE_DATA", "")
    return Path(folder) if folder else None


def complete(card: Profile, runs: tuple[Run, ...], store: Store, *, device: str, data: str, scheduler: str = "") -> None:
    """Compute what is missing of some runs of a profile, with a progress bar; the first failure is an error."""
    where = device_named(device)
    if not (total := len(jobs(runs, store, across_tasks=where.type != "cpu"))):
        return
    with tqdm(total=total, desc=f"{card.name} study", unit="job") as bar:
        folder = data_or_fakes(card, card.runs, store, data_folder(data))
        steps = execute(
            runs, store, device=where, folder=folder, protocol=card.protocol, workers=None, scheduler=scheduler,
            log=lambda text: bar.set_postfix_str(text),
        )  # fmt: skip
        for done in steps:
            if done.error is not None:
                raise InputError(f"{done.job} failed: {done.error}; see {store.root / 'failed'}") from done.error
            bar.update()
