"""The notebooks of every profile that ships, and of profiles made to be awkward, as a batch from nothing."""

from pathlib import Path

import pytest

from tests.report.clones import clone_to, run
from vpcore.data.builtin import BUILTIN
from vpcore.report import batch
from vpcore.study.profile import load_profile, profile_names


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_to(tmp_path_factory.mktemp("clone") / "vpcore")


@pytest.mark.slow
@pytest.mark.parametrize("profile", profile_names())
def test_every_profile_makes_its_notebooks(clone: Path, profile: str, request: pytest.FixtureRequest) -> None:
    """From nothing: each notebook that fits the profile leaves its output."""
    card = load_profile(profile, toy=True)
    if not card.fakes and not {run.task for grid in card.grids for run in card.grid(grid)} <= set(BUILTIN):
        request.getfixturevalue("real_data")
    done = run(clone, "vpcore", "book", "--profile", profile, "--toy")
    if not batch.fitting(card):
        assert done.returncode == 2
        assert f"the profile {card.name} must have a grid that a notebook shows" in done.stderr
        return
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    fitting = {line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith((": running", ": unchanged"))}
    made = {path.parent.name for path in (clone / "results" / f"{profile}-toy" / "book").glob("*/numbers.json")}
    assert fitting
    assert made == fitting


AWKWARD = {  # what a profile lacks -> what its grids have instead
    "one-budget": {"budget": "[2]"},
    "one-task": {"task": '["shapes"]', "seed": "[0]"},
    "three-chains": {"source_seed": "[0, 1, 2]"},
    "no-pruning": {"round": "[0]"},
    "no-probes": {"methods": '[["vp", 0.1, 2]]'},
    "no-prompts": {"methods": '[["lp", 0.01, 2]]'},
}
GRID = """title = "Awkward"
[run]
source_epochs = 2
source_per_class = 8
test_per_class = 6
[[grid]]
"method, lr, epochs" = {methods}
round = {round}
task = {task}
budget = {budget}
seed = {seed}
source_seed = {source_seed}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", AWKWARD)
def test_a_notebook_shows_what_a_profile_has(clone: Path, name: str) -> None:
    axes = {"methods": '[["vp", 0.1, 2], ["lp", 0.01, 2]]', "round": "[0, 2]", "task": '["digits", "shapes"]'}
    axes |= {"budget": "[1, 4]", "seed": "[0, 1]", "source_seed": "[0]"}
    (clone / f"{name}.toml").write_text(GRID.format(**{**axes, **AWKWARD[name]}))
    shown = ("accuracy", "budget", "calibration", "claims", "costs", "prompts", "tickets")
    only = [part for notebook in shown for part in ("--only", notebook)]
    done = run(clone, "vpcore", "book", "--profile", f"{name}.toml", *only)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    output = clone / "results" / name / "book"
    assert {path.parent.name for path in output.glob("*/numbers.json")} == set(shown)
    if name != "three-chains":  # it lacks nothing
        lacks = f"The profile {name} has no runs for this." in "".join(path.read_text() for path in output.glob("*/*.csv"))
        assert lacks == (name in ("one-budget", "no-pruning", "no-prompts"))
