"""The notebooks as a batch: run through papermill, skipped when nothing that they depend on has changed."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import papermill
from papermill.exceptions import PapermillExecutionError

from vpcore.errors import InputError, unknown
from vpcore.files import write_atomically
from vpcore.report.hours import duration, expected
from vpcore.report.notebook import ROOT, complete, wanted
from vpcore.study.execution import check_installed, cores
from vpcore.study.profile import Profile, load_profile
from vpcore.study.provenance import now, processor, versions
from vpcore.study.run import Run, run_id
from vpcore.study.store import Store
from vpcore.study.workers import each

NOTEBOOKS = ROOT / "notebooks"
BENCH = ROOT / "results" / "bench.json"  # what `vpcore bench --output` wrote
KERNEL = {
    # one thread for each, and glibc keeps the memory that is freed, as in `workers.keep_freed_memory`
    "OMP_NUM_THREADS": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    # tqdm warns of a bar that it cannot draw, with a path of this machine
    "PYTHONWARNINGS": "ignore:IProgress not found",
}  # fmt: skip
Stale = tuple[Path, dict[str, object], str]  # of a notebook that has to run: its folder, its parameters, its key
STAMP = ".made-from.json"  # what a folder of output was made from, the files that were left in it, when, how long, on what


def names() -> list[str]:
    """The notebooks there are."""
    if not NOTEBOOKS.is_dir():
        raise InputError(
            f"the notebooks are part of the repository, not of an installed package; there is no folder {NOTEBOOKS}; "
            "clone the repository"
        )
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def regenerate(
    output: Path,
    *,
    profile: str,
    toy: bool = False,
    device: str = "auto",
    data: str = "",
    results: str = "results",
    only: tuple[str, ...] = (),
    scheduler: str = "",
    log: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Run the notebooks that a profile has the grids for, as a batch; those whose inputs have not changed are skipped.

    What is missing of the profile is computed first.

    Args:
        output: folder; each notebook gets one of its own in it, and lies there, executed, as NAME/NAME.ipynb.
        profile, toy, device, data, results: parameters of every notebook, see `open_study`.
        only: names of notebooks; () for all that show grids of this profile.
        scheduler: address of a Dask scheduler whose workers compute what is missing and run the notebooks; "": this machine.
        log: is told how many runs are missing and how long they take, what is run or unchanged, and what is skipped and why.

    Returns:
        The names of the notebooks that ran.

    Raises:
        InputError: for bad input, or when a notebook fails, with its own error.
    """
    for name in only:
        if name not in names():
            raise unknown("notebook", name, names())
    check_installed(scheduler)
    if profile.endswith(".toml"):
        profile = str(Path(profile).resolve())  # notebooks run in a folder of their own
    card = load_profile(profile, toy=toy)
    chosen = only or fitting(card)
    if not chosen:
        raise InputError(f"the profile {card.name} must have a grid that a notebook shows; it has {', '.join(card.grids)}")
    for line in () if only else skipped(card):
        log(line)
    store = Store(ROOT / results, card.name)
    runs_of = {
        name: {run_id(run): run for grid in wanted(grids_of(name), card) for run in card.grid(grid)} for name in chosen
    }
    needed = {identity: run for runs in runs_of.values() for identity, run in runs.items()}
    done = store.done()
    if missing := [run for identity, run in needed.items() if identity not in done]:
        log(f"{len(missing)} of {len(needed)} runs are missing, and computed first: {_time_of(missing, card, store)}")
    complete(card, tuple(needed.values()), store, device=device, data=data, scheduler=scheduler)
    records = {record["id"]: record for record in store.table().to_dict("records")}
    stale: dict[str, Stale] = {}
    code = _code()
    shared = {"profile": profile, "toy": toy, "device": device, "data": data, "results": results}
    for name in chosen:
        folder = output / name
        inside = folder.is_relative_to(ROOT)  # a published notebook should not show a path of this machine
        parameters = {**shared, "output": str(folder.relative_to(ROOT) if inside else folder)}
        looked_at = {run_id(run): run for grid in wanted(grids_of(name), card, looked_at=True) for run in card.grid(grid)}
        measured = [(i, records[i]["accuracy"], records[i]["finished"]) for i in looked_at if i in records]
        key = _key(name, parameters, code, measured)
        if _is_current(folder, key):
            log(f"{name}: unchanged")
        else:
            stale[name] = folder, parameters, key

    if scheduler:
        for name in each(functools.partial(_make_there, stale), stale, scheduler=scheduler):
            log(f"{name}: ran")
        return list(stale)

    def make(name: str) -> None:
        log(f"{name}: running")
        _make(stale, name)

    with _surroundings(), ThreadPoolExecutor(cores()) as pool:
        try:
            list(pool.map(make, stale))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return list(stale)


def _time_of(missing: list[Run], card: Profile, store: Store) -> str:
    """How long runs take, in words: by the records of the study, if like runs have some, else by the card of the profile."""
    if (seconds := expected(missing, store.table())) is not None:
        return f"{duration(seconds)} of one worker, as long as like runs took"
    if card.name.endswith("-toy"):
        return "a minute or two"
    cost = re.search(r"^Cost\s+(.+(?:\n\s+.+)*)", card.about, re.MULTILINE)
    return " ".join(cost[1].split()) if cost else "how long that takes is not known"


def _make(stale: dict[str, Stale], name: str) -> None:
    """Run a notebook, and note what its output was made from."""
    folder, parameters, key = stale[name]
    start = time.perf_counter()
    _run(name, folder, parameters)
    ran = {"ran": now(), "seconds": time.perf_counter() - start, "processor": processor()}
    files = sorted(path.name for path in folder.iterdir() if path.name != STAMP)
    write_atomically(folder / STAMP, json.dumps({"key": key, "files": files, **ran}))


def _make_there(stale: dict[str, Stale], name: str) -> None:
    """The same in a worker, which runs one at a time; its kernel has the GPU of the worker."""
    with _surroundings():
        _make(stale, name)


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """What kernels inherit: the folder of the notebooks (papermill's `cwd` fits no threads), and `KERNEL`."""
    ours = {name: value for name, value in KERNEL.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        with contextlib.chdir(NOTEBOOKS):
            yield
    finally:
        for name in ours:
            del os.environ[name]


def grids_of(name: str) -> list[str]:
    """The grids of a profile whose runs a notebook shows, as its parameters say; see `notebook.wanted`."""
    return ast.literal_eval(papermill.inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))["grids"]["default"])


def fitting(card: Profile) -> tuple[str, ...]:
    """The notebooks that show grids which a profile has."""
    shown = {name: grids_of(name) for name in names()}
    return tuple(name for name, grids in shown.items() if grids and set(wanted(grids, card)) <= set(card.grids))


def of_no_profile() -> tuple[str, ...]:
    """The notebooks that show no runs, such as the tutorial: the same whatever the profile."""
    return tuple(name for name in names() if not grids_of(name))


def skipped(card: Profile) -> list[str]:
    """Sentences on what a batch leaves out: notebooks whose grids the profile lacks, and grids that no notebook shows."""
    needs = {name: wanted(grids_of(name), card, looked_at=True) for name in names()}
    lacks = {name: [grid for grid in grids if grid not in card.grids] for name, grids in needs.items()}
    shown = {grid for name, grids in needs.items() if not lacks[name] for grid in grids}
    lines = [f"{name}: skipped, it shows no runs of a profile; --only {name} runs it" for name in of_no_profile()]
    lines += [
        f"{name}: skipped, the profile {card.name} has no grid {', '.join(lack)}" for name, lack in lacks.items() if lack
    ]
    return lines + [f"the grid {grid}: skipped, no notebook shows it" for grid in card.grids if grid not in shown]


def _is_current(folder: Path, key: str) -> bool:
    """Whether the folder holds what a run with this key left there."""
    stamp = folder / STAMP
    if not stamp.exists():
        return False
    left = json.loads(stamp.read_text())
    return left["key"] == key and all((folder / name).exists() for name in left["files"])


def _code() -> str:
    """What the output of every notebook depends on: our code, the versions, and the measurements of speed."""
    content = hashlib.sha256()
    for path in (BENCH, ROOT / "constraints.txt"):
        content.update(path.read_bytes() if path.exists() else b"")
    for path in sorted(Path(__file__).parents[1].rglob("*")):
        if path.suffix in (".py", ".toml"):
            content.update(path.read_bytes())
    content.update(repr([versions(), matplotlib.__version__]).encode())
    return content.hexdigest()


def _key(name: str, parameters: dict[str, object], code: str, measured: list[tuple[Any, ...]]) -> str:
    """What the output of one notebook depends on: its source, its parameters, the code, and the records that it shows."""
    content = hashlib.sha256((NOTEBOOKS / f"{name}.ipynb").read_bytes())
    content.update(json.dumps(parameters, sort_keys=True).encode() + code.encode() + repr(measured).encode())
    return content.hexdigest()


def _run(name: str, folder: Path, parameters: dict[str, object]) -> None:
    source = NOTEBOOKS / f"{name}.ipynb"
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
            progress_bar=False,
            log_output=False,
            kernel_name="python3",
        )
        notebook = json.loads(unfinished.read_text())
        notebook["metadata"].pop("papermill", None)  # times, which would change the file at every run
        for cell in notebook["cells"]:
            for noise in ("papermill", "execution"):
                cell["metadata"].pop(noise, None)
        write_atomically(executed, json.dumps(notebook, indent=1, ensure_ascii=False))
    except PapermillExecutionError as error:
        raise InputError(
            f"the notebook {source} failed in cell {error.exec_count}: {error.ename}: {error.evalue}"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
