"""Who measures: this process, or the workers of a Dask cluster, as those of a study do (`study.workers`).

A job is a function of the networks, the tasks and whatever is its own. A worker reads networks and tasks itself, once for an
audit, from the names in the options: it must see the same files. It has one thread, and what it adds up is rounded so.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vpcore.audit.networks import Audited
from vpcore.audit.options import Options, networks_of, tasks_of
from vpcore.audit.tasks import Task
from vpcore.study.execution import check_installed
from vpcore.study.provenance import commit
from vpcore.study.workers import as_workers_do, check_code, crew

Do = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]  # a function, its jobs -> what comes of each


@contextlib.contextmanager
def hands(options: Options, networks: tuple[Audited, ...], tasks: tuple[Task, ...]) -> Iterator[tuple[Do, int]]:
    """What does jobs and gives their results in order, and how many it does at a time.

    Raises:
        InputError: when there is no scheduler at the address, its workers have other code, or `distributed` is missing.
    """
    if not options.scheduler:
        yield lambda function, jobs: (function(networks, tasks, *job) for job in jobs), 1
        return
    check_installed(options.scheduler)
    with crew(1, options.scheduler, False) as client:
        audit = client.id, commit()

        def do(function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
            ahead = [client.submit(_at_worker, audit, options, function, job, pure=False) for job in jobs]
            return (future.result() for future in ahead)

        yield do, max(1, len(client.scheduler_info()["workers"]))


_kept = threading.local()  # of a worker, which has one thread: the audit that it works for, and what that is about


def _at_worker(audit: tuple[str, str], options: Options, function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    if getattr(_kept, "audit", None) != audit:
        check_code(audit[1])
        _kept.given, _kept.audit = (networks_of(options), tasks_of(options)), audit
    with as_workers_do():
        return function(*_kept.given, *job)
