"""Workers: the jobs of a study, one after the other or side by side.

Small networks leave most of a processor idle in every step, so that several processes with one thread each get more done
than one process with as many threads. A worker is such a process. It keeps the network that it used last, and takes the next
job when it has finished one: of the first chain that has any, tickets first, since others wait for them, then what is
measured on the same network and task.

How a sum is rounded depends on the number of threads. Workers have one, so that a study gives the same numbers with one of
them as with twenty; a single worker is the calling process itself, with one thread for that time.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from vpcore.errors import InputError
from vpcore.study.jobs import Block, Job
from vpcore.study.measurement import adapt, measure_source
from vpcore.study.run import Run
from vpcore.study.session import Session
from vpcore.study.store import Record, Store

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names of glibc's mallopt
Log = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: the job.
        records: its records; empty when it failed.
        error: what went wrong, or None.
        text: the same with its traceback, if the error is ours.
        seconds: it took.
    """

    job: Job
    records: tuple[Record, ...]
    error: Exception | None
    text: str
    seconds: float


def compute(job: Job, session: Session) -> Outcome:
    """Do a job; an error is part of the outcome."""
    start, error, text = time.perf_counter(), None, ""
    records: tuple[Record, ...] = ()
    try:
        first = job.runs[0]
        records = tuple(measure_source(first, session) if first.method == "source" else adapt(job.runs, session))
    except Exception as caught:  # noqa: BLE001 a run that fails must not stop the others
        error = caught
        text = str(caught) if isinstance(caught, InputError) else "".join(traceback.format_exception(caught))
    return Outcome(job, records, error, text, time.perf_counter() - start)


class Agenda:
    """The jobs that are left, and which of them can begin.

    Args:
        todo: all jobs, those that make a ticket before those that need it.
        until: by `time.monotonic`, from when on no job begins.
    """

    def __init__(self, todo: list[Job], *, until: float = math.inf) -> None:
        self.left, self.until = list(todo), until
        self.making = {job.runs[0] for job in todo if job.is_ticket}  # tickets that do not exist yet
        self.broken: set[Run] = set()  # tickets that could not be made

    @property
    def closed(self) -> bool:
        """Whether no other job begins: all have, or the time is up."""
        return not self.left or time.monotonic() >= self.until

    def take_lost(self) -> Outcome | None:
        """A job that can no longer be done, since it needs a ticket that could not be made."""
        for job in self.left if self.broken else ():
            for ticket in job.needs:
                if ticket in self.broken:
                    self.left.remove(job)
                    error = InputError(f"it needs the {Job((ticket,))}, which could not be made; see above")
                    self.note(lost := Outcome(job, (), error, str(error), 0.0))
                    return lost
        return None

    def take(self, last: Job | None = None) -> Job | None:
        """The job that a worker does next after `last`, or None while all that are left wait for tickets, or time is up."""
        ready = [] if self.closed else [job for job in self.left if not self.making.intersection(job.needs)]
        ready = [job for job in ready if job.chain == ready[0].chain]
        tickets = (job for job in ready if job.is_ticket)
        related = (job for job in ready if last is not None and job.affinity == last.affinity)
        job = next(tickets, None) or next(related, None) or next(iter(ready), None)
        if job is not None:
            self.left.remove(job)
        return job

    def note(self, outcome: Outcome) -> None:
        """Take in how a job ended."""
        if outcome.job.is_ticket and outcome.error is None:
            self.making.discard(outcome.job.runs[0])
        elif outcome.job.is_ticket:
            self.broken.add(outcome.job.runs[0])


def in_turn(todo: list[Block], session: Session, *, until: float = math.inf) -> Iterator[Outcome]:
    """Do blocks one after the other, in their order, in this process; no job begins after `until`, see `Agenda`."""
    agenda = Agenda([job for block in todo for job in block.jobs], until=until)
    while not agenda.closed:
        outcome = agenda.take_lost()
        if outcome is None:
            with as_workers_do():
                outcome = compute(agenda.left.pop(0), session)
            agenda.note(outcome)
        yield outcome


@contextlib.contextmanager
def as_workers_do() -> Iterator[None]:
    """Let torch compute as a worker does, for the time of a with-block: with one thread, and on a GPU without TF32.

    TF32 would round what float32 convolutions multiply to ten bits, on some GPUs and not on others.
    """
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    _compute_alike()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _compute_alike() -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False


def side_by_side(todo: list[Block], session: Session, *, workers: int, until: float = math.inf) -> Iterator[Outcome]:
    """Do the jobs of blocks in as many processes as `workers` says, as soon as the tickets they need exist.

    A process that is killed, for want of memory perhaps, costs its job alone: another one takes its place.
    """
    agenda = Agenda([job for block in todo for job in block.jobs], until=until)
    crew: list[_Worker] = []
    try:
        while True:
            while (lost := agenda.take_lost()) is not None:
                yield lost
            for worker in crew:
                if worker.job is None and (job := agenda.take(worker.last)) is not None:
                    worker.give(job)
            while len(crew) < workers and (job := agenda.take()) is not None:
                crew.append(_Worker(session))
                crew[-1].give(job)
            busy = [worker.connection for worker in crew if worker.job]
            if not busy:
                return
            for connection in wait(busy):
                worker = next(worker for worker in crew if worker.connection is connection)
                answer = worker.answer()
                if isinstance(answer, str):
                    session.log(answer)
                    continue
                if not worker.process.is_alive():
                    crew.remove(worker)
                agenda.note(answer)
                yield answer
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.join()


class _Worker:
    """A process that waits for jobs, as seen from the one that has them."""

    def __init__(self, session: Session) -> None:
        shared = session.store, session.device, session.folder, session.protocol
        context = multiprocessing.get_context("spawn")  # a fork would share the threads of torch, which breaks them
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_work, args=(theirs, *shared), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is noticed
        self.job: Job | None = None
        self.last: Job | None = None

    def give(self, job: Job) -> None:
        self.job = self.last = job
        with contextlib.suppress(BrokenPipeError):  # then `answer` tells that the process is gone
            self.connection.send(job)

    def answer(self) -> str | Outcome:
        """A line of progress, or how the job ended."""
        if self.job is None:
            raise RuntimeError("a worker without a job has nothing to tell")
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            error = RuntimeError(
                f"its process ended with exit code {self.process.exitcode}; out of memory? use fewer --workers"
            )
            answer = Outcome(self.job, (), error, str(error), 0.0)
        if isinstance(answer, Outcome):
            self.job = None
        return answer


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for the next step; for the beginning of a program of one's own.

    glibc gives large blocks back to the system when they are freed, and each step of a training gets them anew, page by page
    and zeroed: that took a fifth of the time of a prompt on a small network (book, page What it costs). The peak stays the
    same. Where there is no glibc, nothing is done.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)  # no block of its own for a large tensor
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # the heap does not shrink


def _end_with_parent() -> None:
    """Let this process end with the one that started it, however that ends and whatever is being computed here."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(connection: Connection, store: Store, device: torch.device, folder: Path | None, protocol: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the parent ends this one
    _end_with_parent()
    _compute_alike()
    keep_freed_memory()
    session = Session(store, device, folder, protocol, log=connection.send)
    try:
        while True:
            outcome = compute(connection.recv(), session)
            connection.send(dataclasses.replace(outcome, error=_portable(outcome.error)))
    except (EOFError, BrokenPipeError):  # nobody waits for it any more
        return


def _portable(error: Exception | None) -> Exception | None:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 whatever an exception does when it is made again
        return RuntimeError(f"{type(error).__name__}: {error}")
