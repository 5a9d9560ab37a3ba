"""Jobs side by side: the same numbers, no job before its ticket, and no hanging when a process is lost."""

import dataclasses
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from vpcore import InputError
from vpcore.study import workers
from vpcore.study.execution import execute, workers_for
from vpcore.study.jobs import Job, jobs
from vpcore.study.profile import Profile
from vpcore.study.run import Run, canonical, source_run
from vpcore.study.session import Session
from vpcore.study.store import Store
from vpcore.study.workers import Agenda, Outcome, compute


def done(job: Job, error: Exception | None = None) -> Outcome:
    return Outcome(job, (), error, "", 0.0)


@pytest.fixture
def one_thread() -> object:
    """What a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_two_workers_give_the_numbers_of_one(
    tiny: Profile, store: Store, cpu: torch.device, one_thread: None, tmp_path: object
) -> None:
    alone = list(execute(tiny.runs, store, device=cpu))
    other = Store(tmp_path / "other", "tiny")
    other.cache, lines = store.cache, []
    both = list(execute(tiny.runs, other, device=cpu, workers=2, log=lines.append))
    assert {str(d.job) for d in both} == {str(d.job) for d in alone}
    assert [d.error for d in both] == [None] * len(both)
    assert both[-1].left == 0
    assert any("epoch 1/2" in line for line in lines)
    changing = ["seconds", "finished", "commit"]
    pd.testing.assert_frame_equal(
        other.table(tiny.runs).drop(columns=changing), store.table(tiny.runs).drop(columns=changing), check_exact=True
    )


def test_failures_in_a_worker_come_back(tiny: Profile, store: Store, cpu: torch.device) -> None:
    runs = tuple(dataclasses.replace(run, source_lr=1e20) for run in tiny.runs)
    ended = list(execute(runs, store, device=cpu, workers=2))
    assert len(ended) == len(jobs(runs, store))
    assert all(isinstance(d.error, InputError) for d in ended)
    assert "loss must be a finite number" in str(ended[0].error)
    assert all(re.search("needs the ticket of .* could not be made", str(d.error)) for d in ended[1:])
    assert len(list((store.root / "failed").glob("*.txt"))) == len(runs)


def test_a_killed_worker_costs_its_job_alone(tiny: Profile, store: Store, cpu: torch.device) -> None:
    killed = []

    def kill(text: str) -> None:
        if not killed:  # the one that trains the dense network
            crew = [p for p in workers.multiprocessing.active_children() if p.pid]
            killed.append(crew[0].pid)
            os.kill(crew[0].pid, signal.SIGKILL)

    ended = list(execute(tiny.runs, store, device=cpu, workers=2, log=kill))
    assert killed
    first = next(d for d in ended if d.job.is_ticket and d.job.runs[0].round == 0)
    assert "its process ended with exit code -9; out of memory? use fewer --workers" in str(first.error)
    again = list(execute(tiny.runs, store, device=cpu))
    assert [d.error for d in again] == [None] * len(again)
    assert jobs(tiny.runs, store) == []


PARENT = """
import multiprocessing, time
from vpcore.study.workers import _end_with_parent

def work():
    _end_with_parent()
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=work, daemon=True)
    process.start()
    process.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")
def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Even if that was killed, and had no time to end its workers."""
    (tmp_path / "parent.py").write_text(PARENT)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as parent:
        worker = parent.stdout.readline().strip()
        assert running(worker)
        parent.kill()
    deadline = time.monotonic() + 30
    while running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid: str) -> bool:
    """Whether there is such a process that has not ended; nobody may have asked yet how a dead one did."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_agenda_gives_tickets_first_and_nothing_before_its_ticket(tiny: Profile, store: Store) -> None:
    todo = jobs(tiny.runs, store)
    agenda = Agenda(todo)
    dense = agenda.take()
    assert (dense.is_ticket, dense.runs[0].round) == (True, 0)
    assert agenda.take() is None
    agenda.note(done(dense))
    sparse = agenda.take()
    assert (sparse.is_ticket, sparse.runs[0].round) == (True, 1)
    first = agenda.take()
    second = agenda.take(first)
    assert {job.runs[0].round for job in (first, second)} == {0}
    assert agenda.take() is None
    agenda.note(done(sparse, error=InputError("no")))
    assert agenda.take() is None
    lost = [agenda.take_lost(), agenda.take_lost()]
    assert all("could not be made" in str(outcome.error) for outcome in lost)
    assert agenda.take_lost() is None
    assert agenda.left == []


def test_a_worker_stays_on_its_network_and_task(tiny: Profile, store: Store) -> None:
    runs = [run for run in tiny.runs if run.round == 0]
    more = [dataclasses.replace(run, task="textures") for run in runs if run.method != "source"]
    agenda = Agenda([job for job in jobs((*runs, *more), store) if not job.is_ticket])
    taken = [agenda.take()]
    while agenda.left:
        taken.append(agenda.take(taken[-1]))
    seen = [(job.runs[0].method, job.runs[0].task) for job in taken]
    assert seen == sorted(seen)


def test_whole_chains_come_before_others(tiny: Profile, store: Store) -> None:
    """Whatever the order of the grids: networks, then what is measured on them; another chain only while the first waits."""
    other = [dataclasses.replace(run, source_seed=1) for run in tiny.runs]
    later = [dataclasses.replace(run, sparsifier="oneshot") for run in tiny.runs if run.round]
    runs = (*tiny.runs, *other, *map(canonical, (run for run in (*map(source_run, later), *later))))
    todo = jobs(runs, store)
    chains = [job.chain for job in todo]
    assert chains == sorted(chains)
    assert len({run.sparsifier for job in todo if job.chain == 0 for run in job.runs}) == 2
    agenda, begun = Agenda(todo), []
    while agenda.left:
        job = agenda.take()
        begun.append(job.chain)
        agenda.note(done(job))
    assert begun == chains
    waiting = Agenda(todo)
    assert [(job.is_ticket, job.chain) for job in (waiting.take(), waiting.take())] == [(True, 0), (True, 1)]
    assert waiting.take() is None


@pytest.mark.parametrize("count", [1, 2])
def test_no_job_begins_when_the_time_is_up(
    count: int, tiny: Profile, store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has begun is finished and recorded, and the rest is done another time."""
    now = time.monotonic()
    clock = iter([now, *[now + 59] * (2 * count), *[now + 61] * 1000])  # `execute` asks once, an agenda for every job
    monkeypatch.setattr(workers.time, "monotonic", lambda: next(clock))
    ended = list(execute(tiny.runs, store, device=cpu, workers=count, minutes=1))
    monkeypatch.undo()
    assert 0 < len(ended) < len(jobs(tiny.runs, store)) + len(ended) == 6
    assert [d.error for d in ended] == [None] * len(ended)
    assert len(store.records()) == sum(len(d.records) for d in ended)
    assert len(list(execute(tiny.runs, store, device=cpu))) == 6 - len(ended)
    with pytest.raises(InputError, match="`minutes` must be above 0, got 0; leave it out"):
        execute(tiny.runs, store, device=cpu, minutes=0)


def test_needs_are_the_very_jobs_that_make_them(store: Store) -> None:
    """Also of another chain, on another source task, where the defaults of a run are not its values."""
    run = Run(method="vp", task="shapes", round=2, source_seed=1, source="numerals")
    todo = jobs((run,), store)
    assert [(job.is_ticket, job.runs[0].round) for job in todo] == [(True, 0), (True, 1), (True, 2), (False, 2)]
    for before, job in itertools.pairwise(todo):
        assert job.needs == before.runs


def test_errors_that_cannot_travel_are_told(store: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    class Strange(Exception):  # noqa: N818 pickle cannot find it, since it is local
        pass

    told = workers._portable(Strange("it broke"))
    assert (type(told), str(told)) == (RuntimeError, "Strange: it broke")
    assert str(workers._portable(InputError("mine"))) == "mine"

    def fail(*arguments: object) -> None:
        raise Strange("it broke")

    monkeypatch.setattr(workers, "measure_source", fail)
    outcome = compute(Job((Run(),)), Session(store, cpu))
    assert "Traceback" in outcome.text
    assert "Strange: it broke" in outcome.text


def test_how_many_workers(cpu: torch.device, monkeypatch: pytest.MonkeyPatch, tiny: Profile, store: Store) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    assert (workers_for(cpu, 19), workers_for(cpu, 20), workers_for(torch.device("cuda"), 500)) == (1, 4, 1)
    with pytest.raises(InputError, match="`workers` must be at least 1, got 0"):
        execute(tiny.runs, store, device=cpu, workers=0)
