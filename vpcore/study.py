"""The study: from the runs of a profile to the jobs that are missing, and their execution.

A job is what is computed in one go: a round of a chain of tickets with its measurement on the source task, or a cohort of
transfers that differ in their seed alone. Jobs follow each other so that a network is loaded once: a ticket, then all that
is measured on it, then the next round. A job whose records exist is no job: that is all the resume there is.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from vpcore import data
from vpcore.errors import InputError, WriteError, unknown
from vpcore.files import write_atomically
from vpcore.measurements import Bench, adapt, make_ticket
from vpcore.models import MODELS, PRECISIONS
from vpcore.runs import Run, chain_id, run_id, source_run
from vpcore.store import Record, Store
from vpcore.tickets import ticket_path
from vpcore.training import AUGMENTATIONS

DEVICES = ("auto", "cpu", "cuda")


def device_named(name: str) -> torch.device:
    """The device for "auto" (a GPU when there is one), "cpu" or "cuda".

    Raises:
        InputError: for another name, or "cuda" where there is none.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("`device` cuda needs a GPU that torch can use; there is none here; use --device cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name)


Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """Runs that are computed together: one source run with the training of its ticket, or a cohort of transfers."""

    runs: tuple[Run, ...]

    @property
    def kind(self) -> str:
        return self.runs[0].method

    def __str__(self) -> str:
        run = self.runs[0]
        if self.kind == "source":
            return f"ticket of round {run.round} ({run.density:.1%} of the weights) on {run.source}"
        shots = "all images" if run.budget is None else f"{run.budget}-shot"
        return f"{self.kind} {run.task} {shots}, round {run.round}, {len(self.runs)} seed{'s' * (len(self.runs) > 1)}"


@dataclass(frozen=True)
class Done:
    """A job that ended: what `execute` yields.

    Attributes:
        job: the job.
        records: its records; empty when it failed.
        error: what went wrong, or None.
        seconds: it took.
        number, total: of the job, and how many there are.
        left: estimated seconds until the end, or None while a kind of job has not been timed yet.
    """

    job: Job
    records: tuple[Record, ...]
    error: Exception | None
    seconds: float
    number: int
    total: int
    left: float | None


def jobs(runs: tuple[Run, ...], store: Store) -> list[Job]:
    """What is missing for these runs, in the order in which it is best computed."""
    done = store.done()
    missing = [run for run in runs if run_id(run) not in done]
    ordered = []
    for chain in dict.fromkeys(map(chain_id, missing)):
        mine = [run for run in missing if chain_id(run) == chain]
        top = max(mine, key=lambda run: run.round)
        # a ticket is needed for its own record, for what is measured on it, and for the round that follows
        lost = {r for r in range(top.round + 1) if not ticket_path(store.ticket_folder(top), r).exists()}
        needed = {run.round for run in mine}
        for number in sorted(lost, reverse=True):
            needed |= {number - 1} if number in needed and number else set()
        for number in sorted(needed):
            ticket = dataclasses.replace(source_run(top), round=number)
            if run_id(ticket) not in done or number in lost:
                ordered.append(Job((ticket,)))
            cohorts: dict[Run, list[Run]] = {}
            for run in mine:
                if run.method != "source" and run.round == number:
                    cohorts.setdefault(dataclasses.replace(run, seed=0), []).append(run)
            ordered += [
                Job(tuple(cohort))
                for cohort in sorted(cohorts.values(), key=lambda c: (c[0].method, c[0].task, c[0].budget or 10**9))
            ]
    return ordered


def execute(
    runs: tuple[Run, ...],
    store: Store,
    *,
    device: torch.device,
    folder: Path | None = None,
    log: Log = lambda text: None,
) -> Iterator[Done]:
    """Compute what is missing, job by job.

    A job that fails is reported, noted in the folder `failed`, and does not stop the others; what needs its ticket is
    reported as failed too. A disk that cannot be written stops everything.

    Args:
        runs: of a profile.
        store: where records lie.
        device: where it runs.
        folder: the data folder, for tasks that are not built in.
        log: is told what happens within a long job.

    Returns:
        An iterator; each step computes a job.

    Raises:
        InputError: at once, when a data set is missing or damaged, or the results cannot be written.
    """
    todo = jobs(runs, store)
    for job in todo:
        for name, known in (("model", MODELS), ("precision", PRECISIONS), ("augment", AUGMENTATIONS)):
            if getattr(job.runs[0], name) not in known:
                raise unknown(name, getattr(job.runs[0], name), known)
    for task in sorted({name for job in todo for run in job.runs for name in (run.source, run.task)}):
        data.classes(task, folder=folder)  # a missing or damaged data set is an error before anything is computed
    write_atomically(store.root / "records" / ".writable", lambda file: None)
    return _execute(todo, Bench(store, device, folder, log))


def _execute(todo: list[Job], bench: Bench) -> Iterator[Done]:
    spent: dict[str, list[tuple[float, float]]] = {}
    broken: dict[str, int] = {}  # chain -> first round without a ticket
    for number, job in enumerate(todo, start=1):
        run, records, error, start = job.runs[0], (), None, time.perf_counter()
        if run.round >= broken.get(chain_id(run), 10**9):
            error = InputError(f"{job} needs the ticket of round {broken[chain_id(run)]}, whose training failed; see above")
        else:
            try:
                records = (make_ticket(run, bench),) if job.kind == "source" else adapt(job.runs, bench)
            except WriteError:
                raise
            except Exception as caught:  # noqa: BLE001 a run that fails must not stop the others
                error = caught
                if job.kind == "source":
                    broken[chain_id(run)] = run.round
        seconds = time.perf_counter() - start
        if error is None:
            spent.setdefault(job.kind, []).append((_size(job), seconds))
        else:
            for each in job.runs:
                text = str(error) if isinstance(error, InputError) else "".join(traceback.format_exception(error))
                bench.store.write_failure(each, text)
        yield Done(job, records, error, seconds, number, len(todo), _left(todo[number:], spent))


def _size(job: Job) -> float:
    """How the seconds of jobs of one kind compare: passes over images, up to a factor."""
    run = job.runs[0]
    return len(job.runs) * run.epochs * (run.budget or 50) + 1000 if job.kind != "source" else run.source_epochs


def _left(todo: list[Job], spent: dict[str, list[tuple[float, float]]]) -> float | None:
    total = 0.0
    for job in todo:
        if job.kind not in spent:
            return None
        sizes, seconds = map(sum, zip(*spent[job.kind], strict=True))
        total += _size(job) * seconds / sizes
    return total
