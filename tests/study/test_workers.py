"""Jobs side by side: the same numbers, no job before its ticket, nothing done twice, and no process left behind."""

import dataclasses
import itertools
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock

from tests.study.processes import alive, spawn
from vpcore import InputError
from vpcore.study import execution, workers
from vpcore.study.chains import _make_ticket
from vpcore.study.execution import execute, workers_for
from vpcore.study.jobs import Job, blocks, jobs
from vpcore.study.profile import Profile
from vpcore.study.run import Run, canonical, source_run
from vpcore.study.session import Session
from vpcore.study.store import Store
from vpcore.study.workers import Outcome, attempt, compute, in_turn, side_by_side
from vpcore.weights.tickets import ticket_digest

distributed = pytest.importorskip("distributed")
CHANGING = ["seconds", "finished", "commit"]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A worker that is a thread of this process, where torch traces one network at a time."""
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, scheduler_kwargs=quiet) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What a worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def other(store: Store, tmp_path: Path) -> Store:
    """A second store, with the same decoded images."""
    other = Store(tmp_path / "other", "tiny")
    other.cache = store.cache
    return other


def assert_same(ours: Store, theirs: Store, runs: tuple[Run, ...]) -> None:
    """To the bit."""
    tables = [store.table(runs).drop(columns=CHANGING) for store in (ours, theirs)]
    assert len(tables[0]) == len(runs)
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_worker_gives_the_numbers_of_the_calling_process(
    tiny: Profile, store: Store, other: Store, cpu: torch.device, scheduler: str
) -> None:
    alone = list(in_turn(blocks(tiny.runs, store), Session(store, cpu)))
    lines: list[str] = []
    there = list(side_by_side(blocks(tiny.runs, other), Session(other, cpu, log=lines.append), scheduler=scheduler))
    assert {str(d.job) for d in there} == {str(d.job) for d in alone}
    assert [d.error for d in there] == [None] * len(there)
    assert any("epoch 1/2" in line for line in lines)
    assert_same(other, store, tiny.runs)


def test_failures_in_a_worker_come_back(tiny: Profile, store: Store, cpu: torch.device, scheduler: str) -> None:
    runs = tuple(dataclasses.replace(run, source_lr=1e20) for run in tiny.runs)
    todo = blocks(runs, store)
    for ended in (
        list(side_by_side(todo, Session(store, cpu), scheduler=scheduler)),
        list(in_turn(todo, Session(store, cpu))),
    ):
        assert len(ended) == len(jobs(runs, store))
        assert all(isinstance(d.error, InputError) for d in ended)
        assert "loss must be a finite number" in str(ended[0].error)
        assert all("it needs the ticket of" in str(d.error) for d in ended[1:])


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Jobs in the order in which they begin; none takes any time."""
    begun: list[Job] = []
    monkeypatch.setattr(workers, "compute", lambda job, session: begun.append(job) or Outcome(job, (), None, "", 0.0))
    return begun


def test_tickets_and_whole_chains_come_first_and_nothing_before_its_ticket(
    tiny: Profile, store: Store, cpu: torch.device, scheduler: str, begun: list[Job]
) -> None:
    """Whatever the order of the grids; another chain only while the first waits for its tickets."""
    chain1 = [dataclasses.replace(run, source_seed=1) for run in tiny.runs]
    later = [dataclasses.replace(run, sparsifier="oneshot") for run in tiny.runs if run.round]
    runs = (*tiny.runs, *chain1, *map(canonical, (run for run in (*map(source_run, later), *later))))
    todo = blocks(runs, store)
    ended = list(side_by_side(todo, Session(store, cpu), scheduler=scheduler))
    assert sorted(map(str, begun)) == sorted(str(d.job) for d in ended) == sorted(map(str, jobs(runs, store)))
    made: set[Run] = set()
    for job in begun:
        assert made.issuperset(job.needs)
        made |= {job.runs[0]} if job.is_ticket else set()
    chains = [job.chain for job in begun if not job.is_ticket]
    assert chains == sorted(chains)


def test_no_job_begins_when_the_time_is_up(
    tiny: Profile, store: Store, cpu: torch.device, scheduler: str, begun: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    todo, session = blocks(tiny.runs, store), Session(store, cpu)
    clock = itertools.count()
    monkeypatch.setattr(workers.time, "time", lambda: next(clock))
    assert len(list(in_turn(todo, session, until=2))) == len(begun) == 2
    monkeypatch.undo()
    assert list(side_by_side(todo, session, scheduler=scheduler, until=time.time())) == []
    with pytest.raises(InputError, match="`minutes` must be above 0, got 0; leave it out"):
        execute(tiny.runs, store, device=cpu, minutes=0)


def test_a_job_that_was_done_meanwhile_is_not_done_again(tiny: Profile, store: Store, cpu: torch.device) -> None:
    """By a worker whose answer was lost, say; its records are the answer."""
    session = Session(store, cpu)
    first = jobs(tiny.runs, store)[0]
    done = compute(first, session)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    again = compute(first, session)
    assert again.records == done.records
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before
    store.ticket_path(first.runs[0]).unlink()
    assert compute(first, session).error is None
    assert store.ticket_path(first.runs[0]).exists()  # which is what was missing
    failed = dataclasses.replace(done, error=RuntimeError("no luck"))
    assert "could not be made" in str(attempt(first, session, [None, failed], float("inf")).error)


def test_one_process_at_a_time_computes_a_study(tiny: Profile, store: Store, cpu: torch.device) -> None:
    """The second one waits, says so, and finds nothing to do."""
    lines: list[str] = []
    ended: list[object] = []
    runs = tiny.runs[:1]
    with FileLock(store.root / ".lock", thread_local=False):
        thread = threading.Thread(target=lambda: ended.extend(execute(runs, store, device=cpu, log=lines.append)))
        thread.start()
        while not lines:
            time.sleep(0.01)
        assert "another process computes what is missing in" in lines[0]
        assert list(in_turn(blocks(runs, store), Session(store, cpu)))[0].error is None
    thread.join()
    assert (ended, lines[1:]) == ([], [])


def test_a_ticket_is_made_once_by_studies_that_share_it(tiny: Profile, store: Store, cpu: torch.device) -> None:
    """Two profiles with the same network, at the same time."""
    second = Store(store.results, "second")
    second.cache = store.cache
    dense, path = tiny.runs[0], store.ticket_path(tiny.runs[0])
    lines: list[str] = []
    sessions = [Session(each, cpu, log=lines.append) for each in (store, second)]
    path.parent.mkdir(parents=True)
    with FileLock(path.with_name(".round-00.lock"), thread_local=False):
        (thread := threading.Thread(target=compute, args=(Job((dense,)), sessions[1]))).start()
        _make_ticket(dense, sessions[0], path)
    thread.join()
    assert [record["ticket"] for record in second.records()] == [ticket_digest(path)]
    assert [line for line in lines if "epoch 1/2" in line] == lines[:1]


def test_needs_are_the_very_jobs_that_make_them(store: Store) -> None:
    """Also of another chain, on another source task, where the defaults of a run are not its values."""
    run = Run(method="vp", task="shapes", round=2, source_seed=1, source="numerals")
    todo = jobs((run,), store)
    assert [(job.is_ticket, job.runs[0].round) for job in todo] == [(True, 0), (True, 1), (True, 2), (False, 2)]
    for before, job in itertools.pairwise(todo):
        assert job.needs == before.runs


def test_each_worker_has_a_gpu_of_its_own(tiny: Profile, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By fakes: three GPUs, and four workers that are threads of this process."""
    taken: dict[int, int] = {}

    def compute(job: Job, session: Session) -> Outcome:
        time.sleep(0.1)  # so that no worker does them all
        return Outcome(job, (), None, "", 0.0)

    monkeypatch.setattr(workers, "compute", compute)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: taken.setdefault(distributed.get_worker().name, gpu))
    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    runs = tuple(dataclasses.replace(run, source_seed=seed) for seed in range(8) for run in tiny.runs)
    with distributed.LocalCluster(n_workers=4, threads_per_worker=1, processes=False, scheduler_kwargs=quiet) as cluster:
        todo, session = blocks(runs, store), Session(store, torch.device("cuda"))
        ended = list(side_by_side(todo, session, scheduler=cluster.scheduler_address))
    assert [outcome.error for outcome in ended] == [None] * len(jobs(runs, store))
    assert len(set(taken.values())) > 1
    assert all(gpu == worker % 3 for worker, gpu in taken.items())


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


def test_workers_with_other_code_are_refused(
    tiny: Profile, store: Store, cpu: torch.device, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = itertools.chain(["one"], itertools.repeat("another"))
    monkeypatch.setattr(workers, "commit", lambda: next(commits))
    ended = list(side_by_side(blocks(tiny.runs, store), Session(store, cpu), scheduler=scheduler))
    assert all("workers must have the code of the study, one; the one at" in str(outcome.error) for outcome in ended)


def test_how_many_workers(cpu: torch.device, monkeypatch: pytest.MonkeyPatch, tiny: Profile, store: Store) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    assert (workers_for(cpu, 19), workers_for(cpu, 20), workers_for(torch.device("cuda"), 500)) == (1, 4, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert workers_for(torch.device("cuda"), 500) == 3
    with pytest.raises(InputError, match="`workers` must be a whole number of at least 1, got 0"):
        execute(tiny.runs, store, device=cpu, workers=0)
    with pytest.raises(InputError, match="`scheduler` must be the address of a Dask scheduler, .*; got 'host'"):
        list(execute(tiny.runs, store, device=cpu, scheduler="host"))


def test_without_distributed_the_jobs_are_done_in_their_order(
    tiny: Profile, store: Store, cpu: torch.device, begun: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "find_spec", lambda name: None)
    todo = jobs(tiny.runs, store)
    assert [done.job for done in execute(tiny.runs, store, device=cpu, workers=2)] == begun == todo
    with pytest.raises(InputError, match="`scheduler` needs the package distributed; use: pip install"):
        execute(tiny.runs, store, device=cpu, scheduler="tcp://127.0.0.1:8786")


def test_what_travels_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = pickle.loads(pickle.dumps(Store(Path("results"), "tiny").absolute()))
    assert store.root == tmp_path / "results" / "tiny"
    assert store.cache == tmp_path / "results" / "cache"


@pytest.mark.slow
def test_a_killed_process_costs_nothing_but_time(
    tiny: Profile, store: Store, other: Store, cpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another takes its place; and all listen on this machine alone."""
    psutil = pytest.importorskip("psutil")
    list(execute(tiny.runs, store, device=cpu))
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    killed: list[object] = []

    def kill(text: str) -> None:
        if not killed:  # in the training of the dense network
            ours = [p for p in psutil.Process().children(recursive=True) if p.pid not in before and p.net_connections()]
            busiest = max(ours, key=lambda process: process.cpu_times().user)
            listening = {c.laddr.ip for p in ours for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
            killed.extend([busiest, len(ours), listening])
            busiest.kill()

    ended = list(execute(tiny.runs, other, device=cpu, workers=2, log=kill))
    assert killed[1:] == [2, {"127.0.0.1"}]
    assert [d.error for d in ended] == [None] * 6
    assert_same(other, store, tiny.runs)


@pytest.mark.slow
def test_the_workers_of_a_scheduler_give_the_numbers_of_one_machine(
    tiny: Profile, store: Store, other: Store, cpu: torch.device, tmp_path: Path
) -> None:
    """Two that share the folder of results; one is killed half-way, and nobody takes its place."""
    list(execute(tiny.runs, store, device=cpu))
    file, nodes = tmp_path / "scheduler.json", []
    local = ("--host", "127.0.0.1", "--no-dashboard")
    try:
        nodes.append(spawn("dask", "scheduler", *local, "--port", 0, "--scheduler-file", file, cwd=tmp_path))
        for number in (0, 1):
            (folder := tmp_path / f"node{number}").mkdir()
            nodes.append(
                spawn("dask", "worker", "--scheduler-file", file, "--nthreads", 1, "--no-nanny", *local, cwd=folder)
            )
        while not file.exists():
            time.sleep(0.1)
        with distributed.Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2)
            address, pids = client.scheduler.address, client.run(os.getpid)
        killed: list[int] = []

        def kill(text: str) -> None:
            if not killed:  # while it trains the dense network
                with distributed.Client(address, set_as_default=False) as watcher:
                    (busy,) = (worker for worker, keys in watcher.processing().items() if keys)
                killed.append(pids[busy])
                os.kill(killed[0], signal.SIGKILL)

        ended = list(execute(tiny.runs, other, device=cpu, scheduler=address, log=kill))
    finally:
        for node in nodes:
            node.kill()
            node.communicate()
    assert killed
    assert [d.error for d in ended] == [None] * 6
    assert_same(other, store, tiny.runs)


LONG = """
[run]
source_epochs = 2000
source_per_class = 4
[[grid]]
source_seed = [0, 1]
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_whatever_ends_a_study_ends_its_workers(number: int, code: int, tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of a terminal, the others to one; even one that is killed leaves nobody behind."""
    (tmp_path / "long.toml").write_text(LONG)
    study = spawn("vpcore", "run", "--profile", "long.toml", "--workers", 2, cwd=tmp_path)
    while "epoch 1/" not in study.stdout.readline():
        assert study.poll() is None
    assert len(alive(study.pid)) >= 3
    (os.killpg if number == signal.SIGINT else os.kill)(study.pid, number)
    study.communicate(timeout=60)
    assert study.returncode == code
    deadline = time.monotonic() + 30
    while alive(study.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
