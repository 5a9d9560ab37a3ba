"""The study: from the runs of a profile to the jobs that are missing, and their execution.

A job is what is computed in one go: a ticket with its measurement on the source task, the same measurement of a quantized
network, or a cohort of transfers that differ in their seed alone. Jobs follow each other so that a network is loaded once: a
ticket, then all that is measured on it, then the next. A job whose records exist is no job: that is all the resume there is.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from vpcore import data
from vpcore.errors import InputError, WriteError, unknown
from vpcore.files import write_atomically
from vpcore.measurements import adapt, measure_source
from vpcore.models import check_canvas
from vpcore.networks import Bench, parents
from vpcore.runs import Run, chain_id, run_id, ticket_run
from vpcore.store import Record, Store

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
VARIANTS = ("prompt", "mapping", "ties", "last_mapping", "selection", "probe", "view")  # told when they are not as usual


@dataclass(frozen=True)
class Job:
    """Runs that are computed together: one on the source task, with the making of its ticket, or a cohort of transfers."""

    runs: tuple[Run, ...]

    @property
    def kind(self) -> str:
        """What its seconds compare with."""
        return "ticket" if self.is_ticket else self.runs[0].method

    @property
    def is_ticket(self) -> bool:
        """Whether it makes a ticket, if there is none yet."""
        return self.runs[0] == ticket_run(self.runs[0])

    def __str__(self) -> str:
        run = self.runs[0]
        network = f"round {run.round}"
        if run.round and run.sparsifier != "imp":
            network += f" of {run.sparsifier}"
        if run.quantized:
            network += f" at {run.weight_bits}/{run.activation_bits} bits"
        if self.is_ticket:
            return f"ticket of {network} ({run.density:.1%} of the weights) on {run.source}"
        if run.method == "source":
            return f"{network} on {run.source}"
        variants = [getattr(run, name) for name in VARIANTS if getattr(run, name) != getattr(Run(), name)]
        shots = "all images" if run.budget is None else f"{run.budget}-shot"
        seeds = f"{len(self.runs)} seed{'s' * (len(self.runs) > 1)}"
        return f"{' '.join([run.method, *variants])} {run.task} {shots}, {network}, {seeds}"


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
    place = {chain: number for number, chain in enumerate(dict.fromkeys(map(chain_id, missing)))}
    by_ticket: dict[Run, list[Run]] = {}
    for run in sorted(missing, key=lambda run: (place[chain_id(run)], run.round)):
        by_ticket.setdefault(ticket_run(run), []).append(run)
    ordered = []
    for ticket in _with_ancestors(by_ticket, store):
        mine = by_ticket.get(ticket, [])
        if ticket in mine or not store.ticket_path(ticket).exists():
            ordered.append(Job((ticket,)))
        cohorts: dict[Run, list[Run]] = {}
        for run in mine:
            if run != ticket:
                cohorts.setdefault(dataclasses.replace(run, seed=0), []).append(run)
        ordered += [Job(tuple(cohort)) for cohort in sorted(cohorts.values(), key=lambda cohort: _order(cohort[0]))]
    return ordered


def _order(run: Run) -> tuple:
    """What is measured on one ticket is sorted so that a quantized network, too, is made once."""
    network = (-run.weight_bits, -run.activation_bits, run.calibrate, run.batch_norm)
    return (*network, run.method != "source", run.method, run.view, run.task, run.budget or 10**9, run.prompt, run.mapping)


def _with_ancestors(tickets: Iterable[Run], store: Store) -> list[Run]:
    """The tickets, and those lost ones that they start from, parents first."""
    ordered: dict[Run, None] = {}

    def visit(ticket: Run) -> None:
        if not store.ticket_path(ticket).exists():
            for parent in parents(ticket):
                if not store.ticket_path(parent).exists():
                    visit(parent)
        ordered.setdefault(ticket)

    for ticket in tickets:
        visit(ticket)
    return list(ordered)


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
        check_canvas(job.runs[0].model, job.runs[0].canvas)
    for task in sorted({name for job in todo for run in job.runs for name in (run.source, run.task)}):
        data.classes(task, folder=folder)  # a missing or damaged data set is an error before anything is computed
    write_atomically(store.root / "records" / ".writable", lambda file: None)
    return _execute(todo, Bench(store, device, folder, log))


def _execute(todo: list[Job], bench: Bench) -> Iterator[Done]:
    spent: dict[str, list[tuple[float, float]]] = {}
    broken: set[Run] = set()  # tickets that could not be made
    for number, job in enumerate(todo, start=1):
        run, records, error, start = job.runs[0], (), None, time.perf_counter()
        needed = parents(run) if job.is_ticket else (ticket_run(run),)
        lost = [ticket for ticket in needed if ticket in broken]
        try:
            if lost:
                raise InputError(f"it needs the {Job((lost[0],))}, which could not be made; see above")
            records = (measure_source(run, bench),) if run.method == "source" else adapt(job.runs, bench)
        except WriteError:
            raise
        except Exception as caught:  # noqa: BLE001 a run that fails must not stop the others
            error = caught
            if job.is_ticket:
                broken.add(run)
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
    return run.source_epochs if run.method == "source" else len(job.runs) * run.epochs * (run.budget or 50) + 1000


def _left(todo: list[Job], spent: dict[str, list[tuple[float, float]]]) -> float | None:
    total = 0.0
    for job in todo:
        if job.kind not in spent:
            return None
        sizes, seconds = map(sum, zip(*spent[job.kind], strict=True))
        total += _size(job) * seconds / sizes
    return total
