"""The notebooks as a batch: what is said before, and that workers of a cluster make what this machine makes."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from vpcore import InputError
from vpcore.report import batch
from vpcore.report.hours import expected
from vpcore.study.profile import Profile, load_profile
from vpcore.study.store import Store


def test_how_long_what_is_missing_takes_is_said(store: Store, tiny: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """By like records, else by the card."""
    missing = list(tiny.runs)
    for profile, said in (
        (load_profile("mini"), "about 4 minutes on two CPU cores"),
        (load_profile("paper", toy=True), "a minute or two"),
        (tiny, "how long that takes is not known"),
    ):
        assert batch._time_of(missing, profile, store) == said
    rows = [{"method": method, "budget": 1.0, "seconds": 60.0} for method in ("source", "vp", "lp")]
    monkeypatch.setattr(Store, "table", lambda store: pd.DataFrame(rows))
    assert batch._time_of(missing, tiny, store) == f"{len(missing):.1f} minutes of one worker, as long as like runs took"
    monkeypatch.setattr(Store, "table", lambda store: pd.DataFrame(rows[1:]))
    assert batch._time_of(missing, tiny, store) == "how long that takes is not known"


def test_a_run_takes_as_long_as_like_ones() -> None:
    """Those of its method and budget, all images among them, before those of its method alone."""
    run = batch.Run(method="vp", task="shapes", budget=None)
    records = pd.DataFrame({"method": ["vp"] * 3, "budget": [None, None, 1], "seconds": [2.0, 4.0, 9.0]})
    assert expected([run, dataclasses.replace(run, budget=1), dataclasses.replace(run, budget=4)], records) == 3 + 9 + 5
    assert expected([run], pd.DataFrame()) is None


def test_a_scheduler_that_is_not_there_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="`scheduler` must be the address of a Dask scheduler, .*; got 'host'"):
        batch.regenerate(tmp_path, profile="mini", toy=True, only=("tutorial",), results=str(tmp_path), scheduler="host")
    assert not (tmp_path / "tutorial").exists()


@pytest.mark.slow
def test_the_workers_of_a_scheduler_run_the_notebooks(tmp_path: Path) -> None:
    """And compute what is missing before; figures, tables and numbers are those of this machine."""
    distributed = pytest.importorskip("distributed")

    def book(output: str, *options: str) -> list[str]:
        command = ["book", "--toy", "--only", "tickets", "--only", "budget", "--results", tmp_path / "results"]
        given = [sys.executable, "-m", "vpcore", *command, "--output", tmp_path / output, *options]
        done = subprocess.run(given, cwd=batch.ROOT, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    quiet = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, scheduler_kwargs=quiet, host="127.0.0.1") as cluster:
        first, *ran, _ = book("there", "--scheduler", cluster.scheduler_address)
        assert re.fullmatch(r"\d+ of \d+ runs are missing, and computed first: a minute or two", first)
        assert sorted(ran) == ["budget: ran", "tickets: ran"]
        assert book("there", "--scheduler", cluster.scheduler_address)[:2] == ["tickets: unchanged", "budget: unchanged"]
    assert sorted(book("here")[:2]) == ["budget: running", "tickets: running"]
    for name in ("tickets", "budget"):
        here, there = ({path.name: path for path in (tmp_path / place / name).iterdir()} for place in ("here", "there"))
        assert here.keys() == there.keys()
        made = [file for file in here if file.endswith((".csv", ".svg")) or file == "numbers.json"]
        assert len(made) > 3
        assert all(here[file].read_bytes() == there[file].read_bytes() for file in made)
