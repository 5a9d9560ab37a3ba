"""The study: what is missing of the runs of a profile gets computed, what failed is reported.

All checks come before anything is computed. Then blocks (`jobs`) are handed to something that does their jobs and yields an
outcome for each, in this process or in several (`workers`). One process at a time computes a study; others wait for it, by a
lock that the system takes from a process that ends, however it does, so that nothing is computed twice. On a network file
system this needs locks that hold across nodes (`flock`: NFS 4, Lustre mounted with flock).
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from vpcore.checks import whole_number
from vpcore.data.builtin import BUILTIN
from vpcore.data.tasks import classes, digest
from vpcore.errors import InputError, WriteError, unknown
from vpcore.files import write_atomically
from vpcore.networks import parallel
from vpcore.networks.backbones import build, check_canvas, prunable
from vpcore.pruning.methods import METHODS
from vpcore.study.chains import check_tickets, make_ticket
from vpcore.study.jobs import Block, Job, blocks
from vpcore.study.provenance import PLACE, commit, provenance
from vpcore.study.run import Run, run_id
from vpcore.study.session import Session
from vpcore.study.store import Store
from vpcore.study.workers import Log, Outcome, as_workers_do, in_turn, side_by_side

DEVICES = ("auto", "cpu", "cuda")
FEW_JOBS = 20  # fewer are done before other processes have started
MOST_WORKERS = 8  # unless more are asked for: each needs memory of its own


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


def workers_for(device: torch.device, count: int) -> int:
    """How many workers so many jobs get by default: one when there are few, else one a core, or one a GPU."""
    return 1 if count < FEW_JOBS else cores() if device.type == "cpu" else max(1, torch.cuda.device_count())


def cores() -> int:
    """How many processes are best side by side: the cores that we may use, `MOST_WORKERS` at most."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(mine, MOST_WORKERS)


@dataclass(frozen=True)
class Done(Outcome):
    """A job that ended: what `execute` yields.

    Attributes:
        number, total: of the job, and how many there are.
    """

    number: int
    total: int


def execute(
    runs: tuple[Run, ...],
    store: Store,
    *,
    device: torch.device,
    folder: Path | None = None,
    protocol: str = "",
    workers: int | None = 1,
    scheduler: str = "",
    dashboard: bool = False,
    minutes: float | None = None,
    log: Log = lambda text: None,
) -> Iterator[Done]:
    """Compute what is missing, block by block or side by side.

    A job that fails is reported, noted in the folder `failed`, and does not stop the others; what needs its ticket is
    reported as failed too. A disk that cannot be written stops everything.

    Args:
        runs: of a profile.
        store: where records lie.
        device: where it runs.
        folder: the data folder, for tasks that are not built in.
        protocol: tag of the study's protocol, see `Session`.
        workers: processes that do jobs side by side, with one thread each; 1: this one; None: as `workers_for` says. They
            need the package `distributed`; without it this process does the jobs in their order.
        scheduler: address of a Dask scheduler whose workers do the jobs instead: they share the folders of results and data,
            and have one thread each.
        dashboard: let Dask show on a web page of this machine what its workers do.
        minutes: after which no job begins; those that have begun are finished. None: until all are done.
        log: is told what happens within a long job.

    Returns:
        An iterator; each step is a job that ended.

    Raises:
        InputError: at once, when a data set or a ticket file is missing or damaged, or the results cannot be written, or
            `distributed` is missing that is asked for.
    """
    store.set_aside_damaged()
    ahead = blocks(runs, store, across_tasks=device.type != "cpu")
    todo = [job for block in ahead for job in block.jobs]
    if workers is None:
        workers = workers_for(device, len(todo))
    workers = whole_number(workers, name="workers", most=1000)
    if minutes is not None and not minutes > 0:
        raise InputError(f"`minutes` must be above 0, got {minutes}; leave it out to go on until all is done")
    check_installed(scheduler, dashboard)
    if workers > 1 and not find_spec("distributed"):
        log("jobs are done one after the other, since the package distributed is not installed")
        workers = 1
    check(runs, ahead, store, device=device, folder=folder, protocol=protocol)
    session = Session(store, device, folder, protocol, log)
    until = math.inf if minutes is None else time.time() + 60 * minutes
    if workers == 1 and not scheduler and not dashboard:
        do = functools.partial(in_turn, session=session, until=until)
    else:
        do = functools.partial(
            side_by_side, session=session, until=until, workers=workers, scheduler=scheduler, dashboard=dashboard
        )
    return _reported(runs, do, session) if todo else iter(())


def train(
    runs: tuple[Run, ...],
    store: Store,
    *,
    device: torch.device,
    folder: Path | None = None,
    protocol: str = "",
    log: Log = lambda text: None,
) -> Iterator[Run]:
    """Make the tickets that are missing, in their order, each by all processes that train together (`parallel`).

    Arguments and errors are those of `execute`; a training that fails ends it.

    Yields:
        The run on the source task of each ticket that was made.
    """
    ahead = blocks(runs, store)
    check(runs, ahead, store, device=device, folder=folder, protocol=protocol)
    session = Session(store, device, folder, protocol, log)
    for ticket in [block.ticket for block in ahead if block.jobs[0].is_ticket]:
        if not parallel.agreed(store.ticket_path(ticket).exists, device):
            with as_workers_do():
                make_ticket(ticket, session)
            yield ticket


def check(
    runs: tuple[Run, ...], ahead: list[Block], store: Store, *, device: torch.device, folder: Path | None, protocol: str
) -> None:
    """Refuse runs that cannot be computed, before anything is; `ahead`: what is missing of them, otherwise as `execute`."""
    todo = [job for block in ahead for job in block.jobs]
    for block in ahead:
        check_canvas(block.ticket.model, block.ticket.canvas)
    for task in sorted({name for job in todo for run in job.runs for name in (run.source, run.task)}):
        classes(task, folder=folder)  # a missing or damaged data set is an error before anything is computed
    for block in sorted(ahead, key=lambda block: -block.ticket.round):  # what was asked for, before what that needs
        _check_round(block.ticket, len(classes(block.ticket.source, folder=folder)))
    check_tickets(runs, store, folder)
    _check_data(runs, store, folder)
    here = {**provenance(device), "threads": 1}  # as workers have
    if protocol and here["tag"] != protocol:
        raise InputError(
            f"the study must be computed by the code of its protocol, the tag {protocol}; this is {commit()}; use: "
            f"git worktree add ../{protocol} {protocol}, and run it there with --results of this folder"
        )
    if protocol:
        _check_place(todo, store, here)
    write_atomically(store.root / "records" / ".writable", b"")


def check_installed(scheduler: str, dashboard: bool = False) -> None:
    """Refuse a scheduler or a dashboard whose packages are missing."""
    for name, asked, extra in (("distributed", scheduler or dashboard, "cluster"), ("bokeh", dashboard, "dashboard")):
        if asked and not find_spec(name):
            option = "dashboard" if dashboard else "scheduler"
            raise InputError(f"`{option}` needs the package {name}; use: pip install 'vpcore[{extra}]', or leave it out")


def _check_round(run: Run, sources: int) -> None:
    """Refuse a round so late that no weight would be left."""
    if not run.round or run.sparsifier not in METHODS:
        return
    weights = _prunable_weights(run.model, sources, run.part)
    if round(run.density * weights) < 1:
        most = int(math.log(0.5 / weights, 1 - run.rate))
        raise InputError(
            f"`round` must be at most {most} for {run.model}, so that one of its {weights:,} weights is kept at `rate` "
            f"{run.rate}; got {run.round}"
        )


@functools.cache
def _prunable_weights(model: str, sources: int, part: str) -> int:
    with torch.device("meta"):
        network = build(model, classes=sources, seed=0)
    return sum(network.get_parameter(name).numel() for name in prunable(network, part))


def _check_data(runs: tuple[Run, ...], store: Store, folder: Path | None) -> None:
    """Refuse records that were made here of other images than those that now bear the name of their task."""
    wanted = {run_id(run): run for run in runs}
    content = functools.cache(lambda task: digest(task, folder=folder))  # of a task, not of every record
    for record in store.records():
        if (run := wanted.get(record["id"])) is None:
            continue
        for task, made_of in ((run.task, record.get("data")), (run.source, record.get("source_data"))):
            if made_of is None or (folder is None and task not in BUILTIN):
                continue
            if made_of != (now := content(task)):
                raise InputError(
                    f"the task {task} must have the images that {store.record_path(run)} was made of (content {made_of}), "
                    f"but has others (content {now}); delete that file, or name another folder with --results"
                )


def _check_place(todo: list[Job], store: Store, here: dict[str, object]) -> None:
    """Refuse to go on with a chain on another kind of machine than the one its other records come from, method by method."""
    wanted = {(run.source_seed, run.method) for job in todo for run in job.runs}
    for before in store.rows():
        chain, method = before["source_seed"], before["method"]
        if (chain, method) in wanted and (wrong := [name for name in PLACE if before.get(name) != here[name]]):
            lines = ", ".join(f"{name} {before.get(name)!r}, here {here[name]!r}" for name in wrong)
            raise InputError(
                f"the {method} runs of the chain with source_seed {chain} must come from one kind of machine, but were "
                f"begun on another ({lines}); go on there, or leave this chain out with --chain"
            )


def _reported(runs: tuple[Run, ...], do: Callable[[list[Block]], Iterator[Outcome]], session: Session) -> Iterator[Done]:
    """Do what is missing, as soon as no other process does, and note failures."""
    store = session.store
    with _alone(store, session.log):
        ahead = blocks(runs, store, across_tasks=session.device.type != "cpu")
        total = sum(len(block.jobs) for block in ahead)
        for number, outcome in enumerate(do(ahead) if ahead else (), start=1):
            if isinstance(outcome.error, WriteError):
                raise outcome.error
            if outcome.error is not None:
                for run in outcome.job.runs:
                    store.write_failure(run, outcome.text)
            yield Done(**vars(outcome), number=number, total=total)


@contextlib.contextmanager
def _alone(store: Store, log: Log) -> Iterator[None]:
    """Wait until no other process computes this study."""
    lock = FileLock(store.root / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log(f"another process computes what is missing in {store.root}; this one waits for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
