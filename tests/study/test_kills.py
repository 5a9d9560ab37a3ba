"""Kills: a study that is killed again and again, at random moments and in whatever part, ends in the same table."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.study.processes import alive, spawn
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive")
def test_a_study_that_is_killed_again_and_again_ends_in_the_same_table(tmp_path: Path) -> None:
    """The parent, a worker or all at once; a study that is whole is begun anew until there were enough kills."""
    pytest.importorskip("distributed")
    (tmp_path / "killed.toml").write_text(PROFILE)
    profile = str(tmp_path / "killed.toml")
    command = ("vpcore", "run", "--profile", profile, "--workers", 2, "--results")
    start = time.monotonic()
    with spawn(*command, "whole", cwd=tmp_path) as study:
        study.communicate(timeout=600)
    assert study.returncode == 0
    whole, rng, kills, studies = time.monotonic() - start, random.Random(0), 0, 0
    numbers, networks = table(tmp_path / "whole", profile)
    assert (len(numbers), len(networks)) == (51, 3)
    while kills < KILLS or studies == 0:
        study = spawn(*command, "again", cwd=tmp_path)
        until = time.monotonic() + (rng.uniform(0.1, 0.8) * whole if kills < KILLS else 600)
        while study.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if study.poll() is None:
            victims, number = alive(study.pid), rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            for victim in rng.choice([[study.pid], [rng.choice(victims)], victims]):
                os.kill(victim, number)
            kills += 1
        try:
            study.communicate(timeout=600)  # one whose worker was killed goes on
            ended = time.monotonic() + 60
            while alive(study.pid):
                assert time.monotonic() < ended
                time.sleep(0.05)
        finally:
            for left in alive(study.pid):
                os.kill(left, signal.SIGKILL)
        if study.returncode == 0:
            again, made = table(tmp_path / "again", profile)
            pd.testing.assert_frame_equal(again, numbers, check_exact=True)
            assert made == networks
            studies += 1
            shutil.rmtree(tmp_path / "again")
    print(f"{kills} kills, {studies} studies whole and equal to the bit")
