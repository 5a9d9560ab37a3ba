"""The tables that are committed: what the book shows without computing it."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from vpcore.study.profile import load_profile
from vpcore.study.run import run_id

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "results").glob("*.parquet"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
SHOWN = [*CONFIG["vpcore_profiles"], *CONFIG["vpcore_again"]]


@pytest.fixture(params=TABLES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


NOTEBOOKS = "".join(path.read_text() for path in sorted((ROOT / "notebooks").glob("*.ipynb")))


@pytest.mark.parametrize("profile", [name for name in SHOWN if name != "mini"])  # mini is computed, not published
def test_a_table_in_the_book_is_the_whole_of_its_profile(profile: str) -> None:
    """But for grids whose missing records a notebook tells: those that it names with a star."""
    table = pd.read_parquet(ROOT / "results" / f"{profile}.parquet")
    grids = load_profile(profile).grids
    told = {name for name in grids if rf"\"{name}*\"" in NOTEBOOKS}
    wanted = {run_id(run) for name in grids.keys() - told for run in grids[name]}
    assert table["id"].is_unique
    assert wanted <= set(table["id"]) <= wanted | {run_id(run) for name in told for run in grids[name]}
    assert told == ({"renewed"} if profile == "imagenet" else set())


def test_a_published_table_has_runs_of_its_profile_alone(path: Path) -> None:
    ids = pd.read_parquet(path)["id"]
    assert ids.is_unique
    assert set(ids) <= {run_id(run) for run in load_profile(path.stem).runs}


def test_published_numbers_are_numbers_and_come_from_commits(path: Path) -> None:
    table = pd.read_parquet(path)
    for name in ("accuracy", "ece", "nll", "brier", "confidence", "density", "seconds"):
        assert table[name].notna().all(), name
    assert table["accuracy"].between(0, 1).all()
    assert table["density"].between(0, 1).all()
    assert not table["commit"].str.contains(r"\+|unknown").any()
    assert table["versions"].str.contains("torch ").all()
