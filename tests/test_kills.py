"""Kills: what is killed again and again, at random moments and in whatever part, ends in the same tables and files."""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.study.processes import alive, spawn
from vpcore.report.batch import STAMP
from vpcore.study.profile import load_profile
from vpcore.study.store import Store
from vpcore.weights.tickets import ticket_digest

KILLS = int(os.environ.get("VPCORE_KILLS", "5"))
CHANGING = ["seconds", "finished", "commit"]
PROFILE = """
[run]
source_per_class = 16
source_epochs = 3
epochs = 4
test_per_class = 4
[[grid]]
method = ["vp", "lp"]
round = [0, 1, 2]
task = ["shapes", "numerals"]
budget = [1, 2]
seed = [0, 1]
"""


def table(results: Path, profile: str) -> tuple[pd.DataFrame, list[str]]:
    """The numbers of a study, and the networks that it rests on."""
    found = Store(results, "killed").table(load_profile(profile).runs).drop(columns=CHANGING)
    return found, [ticket_digest(path) for path in sorted(results.glob("tickets/*/round-*.safetensors"))]


def interrupted(command: tuple[object, ...], *, cwd: Path, moment: float, rng: random.Random) -> tuple[int, bool]:
    """Run a command whose parent, one of its processes or all are killed at a moment, in seconds, unless it has ended.

    Returns:
        Its exit code, and whether it was killed; when nobody of its session is left.
    """
    running = spawn(*command, cwd=cwd)
    until, killed = time.monotonic() + moment, False
    while running.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    if running.poll() is None:
        victims, number = alive(running.pid), rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        for victim in rng.choice([[running.pid], [rng.choice(victims)], victims]):
            os.kill(victim, number)
        killed = True
    try:
        running.communicate(timeout=600)  # one whose worker was killed goes on
        ended = time.monotonic() + 60
        while alive(running.pid):
            assert time.monotonic() < ended
            time.sleep(0.05)
    finally:
        for left in alive(running.pid):
            os.kill(left, signal.SIGKILL)
    return running.returncode, killed


def again_and_again(
    command: tuple[object, ...], *, cwd: Path, whole: float, kills: int, made: Callable[[], None]
) -> tuple[int, int]:
    """Kill a command at random moments of the seconds that it takes as a whole, and begin it anew, so many times.

    Whenever it has ended well `made` is called, which must take away what it has made.

    Returns:
        How often it was killed, and how often it ended well, once at least.
    """
    rng, found, ends = random.Random(0), 0, 0
    while found < kills or ends == 0:
        moment = rng.uniform(0.1, 0.8) * whole if found < kills else 600
        code, killed = interrupted(command, cwd=cwd, moment=moment, rng=rng)
        found += killed
        if code == 0:
            made()
            ends += 1
    return found, ends


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")
def test_a_study_that_is_killed_again_and_again_ends_in_the_same_table(tmp_path: Path) -> None:
    """The parent, a worker or all at once; a study that is whole is begun anew until there were enough kills."""
    pytest.importorskip("distributed")
    (tmp_path / "killed.toml").write_text(PROFILE)
    profile = str(tmp_path / "killed.toml")
    command = ("vpcore", "run", "--profile", profile, "--workers", 2, "--results")
    start = time.monotonic()
    assert interrupted((*command, "whole"), cwd=tmp_path, moment=600, rng=random.Random(0)) == (0, False)
    whole = time.monotonic() - start
    numbers, networks = table(tmp_path / "whole", profile)
    assert (len(numbers), len(networks)) == (51, 3)

    def made() -> None:
        again, tickets = table(tmp_path / "again", profile)
        pd.testing.assert_frame_equal(again, numbers, check_exact=True)
        assert tickets == networks
        shutil.rmtree(tmp_path / "again")

    kills, studies = again_and_again((*command, "again"), cwd=tmp_path, whole=whole, kills=KILLS, made=made)
    print(f"{kills} kills, {studies} studies whole and equal to the bit")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")
def test_notebooks_that_are_killed_again_and_again_leave_the_same_files(tmp_path: Path) -> None:
    """Papermill or its kernels, while the records stay; figures, tables and numbers are the same bytes."""
    chosen = ("--toy", "--only", "tickets", "--only", "budget")
    command = ("vpcore", "book", *chosen, "--results", tmp_path / "results", "--output")

    def content(path: Path) -> object:
        if path.suffix == ".ipynb":  # pandas and papermill number their tables and cells at random
            return [(cell["cell_type"], len(cell.get("outputs", ()))) for cell in json.loads(path.read_text())["cells"]]
        return path.read_bytes()

    def files(folder: Path) -> dict[str, object]:
        found = (path for path in folder.rglob("*") if path.is_file() and path.name != STAMP)
        return {path.relative_to(folder).as_posix(): content(path) for path in found}

    def made() -> None:
        assert files(tmp_path / "again") == expected
        shutil.rmtree(tmp_path / "again")

    calm = random.Random(0)
    assert interrupted((*command, tmp_path / "first"), cwd=tmp_path, moment=600, rng=calm)[0] == 0  # it computes the records
    start = time.monotonic()
    assert interrupted((*command, tmp_path / "whole"), cwd=tmp_path, moment=600, rng=calm) == (0, False)
    whole, expected = time.monotonic() - start, files(tmp_path / "whole")
    assert {"tickets/tickets.ipynb", "budget/numbers.json"} <= expected.keys()
    kills, batches = again_and_again(
        (*command, tmp_path / "again"), cwd=tmp_path, whole=whole, kills=max(2, KILLS // 5), made=made
    )
    print(f"{kills} kills, {batches} batches whole and equal to the byte")
