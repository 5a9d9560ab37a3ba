"""`vpcore train`: the networks of a study, each by two processes, are those of one within rounding; one may be killed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.study.processes import ROOT
from tests.study.test_slurm import STUDY
from vpcore import InputError, density
from vpcore.networks import parallel
from vpcore.study.execution import execute, train
from vpcore.study.profile import Profile, load_profile
from vpcore.study.store import Store
from vpcore.weights.tickets import read_ticket

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
def test_one_process_makes_the_tickets_of_a_study(tiny: Profile, store: Store, cpu: torch.device) -> None:
    """Those that `vpcore run` would make, to the bit, and it goes on with them."""
    made = list(train(tiny.runs, store, device=cpu))
    assert [(run.method, run.round) for run in made] == [("source", 0), ("source", 1)]
    assert list(train(tiny.runs, store, device=cpu)) == []
    other = Store(store.results.with_name("other"), "tiny")
    assert [done.error for done in execute(tiny.runs, other, device=cpu)] == [None] * 6
    for run in made:
        ours, theirs = (read_ticket(each.ticket_path(run)) for each in (store, other))
        assert all(torch.equal(value, theirs[0][name]) for name, value in ours[0].items())
        assert "processes" not in ours[2]
    assert [done.error for done in execute(tiny.runs, store, device=cpu)] == [None] * 6


@pytest.mark.slow
def test_two_processes_make_the_networks_of_one_and_go_on_when_one_is_killed(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    (tmp_path / "tiny.toml").write_text(STUDY.replace("source_epochs = 20", "source_epochs = 6"))
    card = load_profile(str(tmp_path / "tiny.toml"))

    def launch(results: str, *, kill: bool) -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        command = [*TORCHRUN, "-m", "vpcore", "train", "--profile", "tiny.toml", "--results", results]
        with subprocess.Popen(
            command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as study:
            told = []
            for line in study.stdout:
                told.append(line)
                if kill and "epoch 3/6" in line:
                    kill = False
                    psutil.Process(study.pid).children()[1].send_signal(signal.SIGKILL)
        assert (study.returncode == 0) == ("2 networks made, by 2 processes" in told[-1]), "".join(told)
        return "".join(told)

    first = launch("killed", kill=True)
    assert "networks made" not in first
    done = max(map(int, re.findall(r"imp round 0, epoch (\d)/6", first)))
    second = launch("killed", kill=False)
    assert re.findall(r"imp round 0, epoch (\d)/6", second) in ([*"456"][done - 3 :], [*"456"][done - 2 :])
    launch("whole", kill=False)
    alone = Store(tmp_path / "alone", "tiny")
    made = list(train(card.runs, alone, device=torch.device("cpu")))
    assert len(made) == 2
    for run in made:
        killed, whole, one = (
            read_ticket(Store(tmp_path / name, "tiny").ticket_path(run)) for name in ("killed", "whole", "alone")
        )
        assert (whole[2]["processes"], one[2].get("processes")) == (2, None)
        assert all(torch.equal(value, whole[0][name]) for name, value in killed[0].items())
        assert (density(whole[1]) if run.round else 1.0) == pytest.approx(run.density, abs=1e-3)
        losses = [torch.tensor(header["history"]) for _, _, header in (whole, one)]
        torch.testing.assert_close(*losses, rtol=0.03, atol=0)  # rounding grows from step to step, unlike in test_parallel
        if not run.round:
            torch.testing.assert_close(losses[0][0], losses[1][0], rtol=1e-3, atol=0)
    list(execute(card.runs, Store(tmp_path / "whole", "tiny"), device=torch.device("cpu")))  # takes them for its own


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "processes", lambda: 3)
    with pytest.raises(InputError, match="`source_batch` must be a multiple of the number of processes, 3, got 64"):
        parallel.share(torch.zeros(64, 2))
