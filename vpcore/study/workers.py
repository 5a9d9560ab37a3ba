"""Workers: the jobs of a study, one after the other in this process, or side by side in the processes of a Dask cluster.

Small networks leave most of a processor idle in every step, so that several processes with one thread each get more done
than one process with as many threads. A worker is such a process, on this machine or on any node that shares the folder of
results. Who does what is left to `distributed` (Rocklin, SciPy 2015): the study is a graph of tasks, a ticket before what
needs it, those of a chain before the next chain, tickets first, since others wait for them. A worker keeps the network that
it used last; a job goes where its ticket was made, and idle workers take from busy ones. Records are the only results: a job
that has them is not done again, whoever asks.

How a sum is rounded depends on the number of threads. Workers have one, so that a study gives the same numbers with one of
them as with twenty; a single worker is the calling process itself, with one thread for that time.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import math
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vpcore.errors import InputError
from vpcore.study.jobs import Block, Job
from vpcore.study.measurement import adapt, measure_source
from vpcore.study.provenance import commit
from vpcore.study.run import Run
from vpcore.study.session import Session
from vpcore.study.store import Record

if TYPE_CHECKING:
    from distributed import Client, Future

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names of glibc's mallopt
Log = Callable[[str], None]
# of a cluster on this machine: nobody is killed or kept waiting for want of memory, nobody else can connect
LOCAL = {
    "threads_per_worker": 1, "memory_limit": 0, "host": "127.0.0.1", "silence_logs": "CRITICAL",
    # Ctrl-C goes to all processes of a terminal; the one that has started the others ends them
    "preload": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "scheduler_kwargs": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
}  # fmt: skip


# what watches itself for a dashboard takes 4 % of a core in every process; and workers inherit the variables of this one
CONFIG = {
    "distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s", "distributed.nanny.pre-spawn-environ": {},
}  # fmt: skip


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
    """Do a job, with one thread, unless another process was first; an error is part of the outcome."""
    start, error, text = time.perf_counter(), None, ""
    records: tuple[Record, ...] = ()
    try:
        first = job.runs[0]
        if session.store.ticket_path(first).exists():
            records = session.store.recorded(job.runs)
        if not records:
            with as_workers_do():
                records = tuple(measure_source(first, session) if first.method == "source" else adapt(job.runs, session))
    except Exception as caught:  # noqa: BLE001 a run that fails must not stop the others
        error = caught
        text = str(caught) if isinstance(caught, InputError) else "".join(traceback.format_exception(caught))
    return Outcome(job, records, error, text, time.perf_counter() - start)


def attempt(job: Job, session: Session, needed: Iterable[Outcome | None], until: float) -> Outcome | None:
    """Do a job unless a ticket that it needs could not be made; None when the time is up.

    Args:
        job: the job.
        session: of this process.
        needed: how the jobs ended that make the tickets which it needs.
        until: by `time.time`, from when on no job begins.
    """
    if time.time() >= until:
        return None
    if lost := next((outcome for outcome in needed if outcome and outcome.error), None):
        error = InputError(f"it needs the {lost.job}, which could not be made; see above")
        return Outcome(job, (), error, str(error), 0.0)
    return compute(job, session)


def in_turn(todo: list[Block], session: Session, *, until: float = math.inf) -> Iterator[Outcome]:
    """Do blocks one after the other, in their order, in this process; no job begins after `until`, see `attempt`."""
    made: dict[Run, Outcome] = {}
    for job in (job for block in todo for job in block.jobs):
        outcome = attempt(job, session, [made[ticket] for ticket in job.needs if ticket in made], until)
        if outcome is None:
            return
        if job.is_ticket:
            made[job.runs[0]] = outcome
        yield outcome


def side_by_side(
    todo: list[Block],
    session: Session,
    *,
    until: float = math.inf,
    workers: int = 1,
    scheduler: str = "",
    dashboard: bool = False,
) -> Iterator[Outcome]:
    """Do the jobs of blocks on the workers of a cluster, as soon as the tickets they need exist.

    A worker that is killed costs nothing but time: others do its job, until it has ended the processes of four of them.
    `workers`, `scheduler` and `dashboard` say which cluster, see `execution.execute`.

    Raises:
        InputError: when there is no scheduler at the address, or no longer.
    """
    from distributed import as_completed

    jobs = [job for block in todo for job in block.jobs]
    place = {chain: number for number, chain in enumerate(dict.fromkeys(job.chain for job in jobs))}
    store, folder = session.store.absolute(), session.folder and session.folder.absolute()
    made: dict[Run, Future] = {}
    ahead: dict[Future, Job] = {}
    with crew(workers, scheduler, dashboard) as client:
        if dashboard:
            session.log(f"Dask shows what its workers do on {client.dashboard_link}")
        client.subscribe_topic(topic := f"vpcore-{client.id}", lambda event: session.log(event[1]))
        shared = pickle.dumps((store, session.device, folder, session.protocol, topic, commit()))
        for number, job in enumerate(sorted(jobs, key=lambda job: (place[job.chain], not job.is_ticket))):
            needed = [made[ticket] for ticket in job.needs if ticket in made]
            key = job.kind, f"{store.root}: {job}, {number}"
            ahead[future := client.submit(_at_worker, job, shared, needed, until, key=key, priority=-number)] = job
            if job.is_ticket:
                made[job.runs[0]] = future
        for future in as_completed([*ahead]):
            job = ahead.pop(future)  # and with it what the cluster keeps of the result
            if future.cancelled():
                raise InputError(f"the scheduler {scheduler} is gone; start it again, and the same command goes on")
            if ended := future.exception():
                error = RuntimeError(f"its process ended, several times; out of memory? use fewer --workers ({ended})")
                yield Outcome(job, (), error, str(error), 0.0)
            elif (outcome := future.result()) is not None:
                yield outcome


def each(work: Callable[[str], None], names: Iterable[str], *, scheduler: str) -> Iterator[str]:
    """Do the same work under each of some names, on the workers of a scheduler; gives each name when it is done.

    Raises:
        InputError: when there is no scheduler at the address, or as the work; what has not begun is then left.
    """
    from distributed import as_completed

    with crew(1, scheduler, False) as client:
        futures = {client.submit(_alike, work, name, commit(), key=f"{name}-{client.id}"): name for name in names}
        for future in as_completed([*futures]):
            future.result()
            yield futures[future]


def _alike(work: Callable[[str], None], name: str, code: str) -> None:
    """The work in the process of a worker."""
    check_code(code)
    work(name)


_kept = threading.local()  # of a worker, which has one thread: the study that it works for, and its session


def _at_worker(job: Job, shared: bytes, needed: list[Outcome | None], until: float) -> Outcome | None:
    """`attempt` in the process of a worker."""
    from distributed import get_worker

    if getattr(_kept, "shared", None) != shared:
        store, device, folder, protocol, topic, code = pickle.loads(shared)
        check_code(code)
        if device.type == "cuda" and isinstance(name := get_worker().name, int):
            torch.cuda.set_device(name % torch.cuda.device_count())
        keep_freed_memory()
        log = functools.partial(get_worker().log_event, topic)
        _kept.shared, _kept.session = shared, Session(store, device, folder, protocol, log=log)
    outcome = attempt(job, _kept.session, needed, until)
    return outcome and dataclasses.replace(outcome, error=_portable(outcome.error))


def check_code(code: str) -> None:
    """Refuse to work for one who has other code than this worker, by the commits."""
    from distributed import get_worker

    if commit() != code:
        raise InputError(
            f"workers must have the code of the study, {code}; the one at {get_worker().address} has {commit()}"
        )


@contextlib.contextmanager
def crew(workers: int, scheduler: str, dashboard: bool) -> Iterator[Client]:
    """A client of so many workers on this machine, which end with the with-block, or of those of a scheduler.

    Raises:
        InputError: when there is no scheduler at the address.
    """
    import dask
    from distributed import Client, LocalCluster

    shown = {"scheduler_kwargs": {"dashboard": True, "dashboard_address": "127.0.0.1:8787"}} if dashboard else {}
    with contextlib.ExitStack() as opened:
        opened.enter_context(dask.config.set(CONFIG))
        at = scheduler or opened.enter_context(LocalCluster(n_workers=workers, **LOCAL | shown))
        try:
            client = Client(at, timeout=10)
        except (OSError, ValueError, TypeError) as error:
            told = "TLS needs a certificate, see book/cluster/tls.sh" if isinstance(error, TypeError) else error
            raise InputError(
                f"`scheduler` must be the address of a Dask scheduler, such as tcp://HOST:8786; got {scheduler!r}: {told}"
            ) from error
        yield opened.enter_context(client)


@contextlib.contextmanager
def as_workers_do() -> Iterator[None]:
    """Let torch compute as a worker does, for the time of a with-block: with one thread, and on a GPU without TF32.

    TF32 would round what float32 convolutions multiply to ten bits, on some GPUs and not on others.
    """
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


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


def _portable(error: Exception | None) -> Exception | None:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 whatever an exception does when it is made again
        return RuntimeError(f"{type(error).__name__}: {error}")
