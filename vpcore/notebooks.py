"""Notebooks: what they have in common, and their execution as a batch.

A notebook begins with a cell of parameters, checks them (`check_parameters`), opens the study (`open_study`, which computes
what is missing) and writes what the book shows: figures (SVG and PDF), tables (CSV), and `numbers.json`, all in one folder.
`regenerate` runs all notebooks through papermill and skips those whose code, parameters and results are unchanged.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from vpcore.cli import device_named
from vpcore.errors import InputError, unknown
from vpcore.files import write_atomically
from vpcore.runs import Profile, Run, load_profile, run_id
from vpcore.store import Store, versions
from vpcore.study import execute, jobs

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "notebooks"


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
    """What a notebook works with: the records, the store of arrays, and where its output goes."""

    profile: Profile
    store: Store
    table: pd.DataFrame
    output: Path
    numbers: dict[str, object] = field(default_factory=dict)

    @property
    def source(self) -> pd.DataFrame:
        """Records of the tickets on the source task, by round."""
        return self.table[self.table["method"] == "source"].sort_values("round")

    @property
    def transfers(self) -> pd.DataFrame:
        """Records of the transfers, with their budget also as a number, `shots`, infinite for all images."""
        table = self.table[self.table["method"] != "source"]
        return table.assign(shots=table["budget"].astype("Float64").fillna(float("inf")).astype(float))

    def at_budget(self, budget: str) -> pd.DataFrame:
        """The transfers at one budget: "largest" of each task, "all" images, or a number of images per class, as text.

        Raises:
            InputError: when no transfer has this budget.
        """
        transfers = self.transfers
        wanted = transfers.groupby("task")["shots"].transform("max")
        known = sorted(transfers["shots"].unique())
        if budget != "largest":
            wanted = {"all": float("inf"), **{f"{size:g}": size for size in known}}.get(budget)
        chosen = transfers[transfers["shots"] == wanted]
        if chosen.empty:
            names = ["largest", *("all" if size == float("inf") else f"{size:g}" for size in known)]
            raise InputError(f"parameter `budget` must be one of {', '.join(names)}, got {budget!r}")
        return chosen

    def run_of(self, record: pd.Series) -> Run:
        """The run that a row of the table is the record of."""
        return next(run for run in self.profile.runs if run_id(run) == record["id"])

    def save_figure(self, figure: Figure, name: str) -> None:
        """Write a figure as NAME.svg and NAME.pdf, the same bytes for the same data."""
        for suffix, metadata in ((".svg", {"Date": None}), (".pdf", {"CreationDate": None})):
            write_atomically(
                self.output / f"{name}{suffix}",
                lambda file, suffix=suffix, metadata=metadata: figure.savefig(file, format=suffix[1:], metadata=metadata),
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
        """What a page says of the records it shows."""
        seconds = float(self.table["seconds"].sum())
        return {
            "profile": self.profile.name,
            "title": self.profile.title,
            "runs": len(self.table),
            "commits": sorted(self.table["commit"].unique()),
            "versions": sorted(self.table["versions"].unique()),
            "devices": sorted(self.table["device"].unique()),
            "seeds": sorted(int(s) for s in self.transfers["seed"].unique()),
            "source_seeds": sorted(int(s) for s in self.table["source_seed"].unique()),
            "computing": f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours",
            "finished": max(self.table["finished"]),
        }


def open_study(notebook: str, *, profile: str, toy: bool, device: str, data: str, results: str, output: str) -> Study:
    """The study of a profile, complete: what is missing is computed first, with a progress bar.

    Args:
        notebook: name of the notebook, of the folder of its output.
        profile, toy: see `runs.load_profile`.
        device: "auto", "cpu" or "cuda".
        data: folder of Parquet image sets; "" for the environment variable VPCORE_DATA.
        results: folder of all results; a relative one is taken from the root of the project.
        output: folder for figures, tables and numbers; "" for RESULTS/PROFILE/book/NOTEBOOK.

    Raises:
        InputError: for bad input, and when a run fails.
    """
    card = load_profile(profile, toy=toy)
    store = Store(ROOT / results, card.name)
    complete(card, store, device=device, data=data)
    folder = ROOT / output if output else store.root / "book" / notebook
    return Study(card, store, store.table(card.runs), folder)


def data_folder(data: str) -> Path | None:
    """The folder that the parameter `data` names, or the environment variable VPCORE_DATA, or None."""
    folder = data or os.environ.get("VPCORE_DATA", "")
    return Path(folder) if folder else None


def complete(card: Profile, store: Store, *, device: str, data: str) -> None:
    """Compute what is missing of a profile, with a progress bar; the first failure is an error."""
    total = len(jobs(card.runs, store))
    if not total:
        return
    with tqdm(total=total, desc=f"{card.name} study", unit="job") as bar:
        steps = execute(
            card.runs,
            store,
            device=device_named(device),
            folder=data_folder(data),
            log=lambda text: bar.set_postfix_str(text),
        )
        for done in steps:
            if done.error is not None:
                raise InputError(f"{done.job} failed: {done.error}; see {store.root / 'failed'}") from done.error
            bar.update()


def names() -> list[str]:
    """The notebooks there are."""
    if not SOURCES.is_dir():
        raise InputError(
            f"the notebooks are part of the repository, not of an installed package; there is no folder {SOURCES}: clone it"
        )
    return sorted(path.stem for path in SOURCES.glob("*.ipynb"))


def regenerate(
    output: Path,
    *,
    profile: str,
    toy: bool = False,
    device: str = "auto",
    data: str = "",
    results: str = "results",
    only: tuple[str, ...] = (),
    log: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Run the notebooks as a batch, after completing the study; those whose inputs have not changed are skipped.

    Args:
        output: folder; each notebook gets one of its own in it, and lies there, executed, as NAME/NAME.ipynb.
        profile, toy, device, data, results: parameters of every notebook, see `open_study`.
        only: names of notebooks; () for all.
        log: is told what is run and what is skipped.

    Returns:
        The names of the notebooks that ran.

    Raises:
        InputError: for bad input, or when a notebook fails, with its own error.
    """
    for name in only:
        if name not in names():
            raise unknown("notebook", name, names())
    card = load_profile(profile, toy=toy)
    store = Store(ROOT / results, card.name)
    complete(card, store, device=device, data=data)
    ran = []
    shared = {"profile": profile, "toy": toy, "device": device, "data": data, "results": results}
    for name in only or names():
        folder = output / name
        inside = folder.is_relative_to(
            ROOT
        )  # executed notebooks are published: no path of this machine where there is a choice
        parameters = {**shared, "output": str(folder.relative_to(ROOT) if inside else folder)}
        key, stamp = _key(name, parameters, card, store), folder / ".key"
        if stamp.exists() and stamp.read_text() == key and (folder / f"{name}.ipynb").exists():
            log(f"{name}: unchanged")
            continue
        log(f"{name}: running")
        _run(name, folder, parameters)
        write_atomically(stamp, lambda file, key=key: file.write(key.encode()))
        ran.append(name)
    return ran


def _key(name: str, parameters: dict[str, object], card: Profile, store: Store) -> str:
    """What the output of a notebook depends on: its source, its parameters, our code, the versions, and the records."""
    content = hashlib.sha256((SOURCES / f"{name}.ipynb").read_bytes())
    content.update(json.dumps(parameters, sort_keys=True).encode())
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.suffix in (".py", ".toml"):
            content.update(path.read_bytes())
    content.update(repr([versions(), plt.matplotlib.__version__]).encode())
    content.update(repr([run_id(run) for run in card.runs]).encode())
    table = store.table(card.runs)
    content.update(table[["id", "accuracy", "finished"]].to_csv().encode())
    return content.hexdigest()


def _run(name: str, folder: Path, parameters: dict[str, object]) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source = SOURCES / f"{name}.ipynb"
    known = papermill.inspect_notebook(str(source))
    for parameter in parameters:
        if parameter not in known:
            raise unknown(f"parameter of {name}:", parameter, known)
    executed = folder / f"{name}.ipynb"
    unfinished = folder / f".{name}.running.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(source),
            str(unfinished),
            parameters=parameters,
            cwd=str(SOURCES),
            progress_bar=False,
            log_output=False,
            kernel_name="python3",
        )
        notebook = json.loads(unfinished.read_text())
        notebook["metadata"].pop("papermill", None)  # times, which would change the file at every run
        for cell in notebook["cells"]:
            for noise in ("papermill", "execution"):
                cell["metadata"].pop(noise, None)
        write_atomically(executed, lambda file: file.write(json.dumps(notebook, indent=1, ensure_ascii=False).encode()))
    except PapermillExecutionError as error:
        raise InputError(
            f"the notebook {source} failed in cell {error.exec_count}: {error.ename}: {error.evalue}"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
