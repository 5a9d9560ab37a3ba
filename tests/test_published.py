"""The tables that are committed: what the book shows without computing it."""

from pathlib import Path

import pandas as pd
import pytest

from vpcore.profiles import load_profile
from vpcore.runs import run_id

TABLES = sorted((Path(__file__).parent.parent / "results").glob("*.parquet"))


@pytest.fixture(params=TABLES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_tables() -> None:
    assert "methods" in [path.stem for path in TABLES]


def test_a_published_table_is_the_whole_of_its_profile(path: Path) -> None:
    table = pd.read_parquet(path)
    wanted = [run_id(run) for run in load_profile(path.stem).runs]
    assert sorted(table["id"]) == sorted(wanted)


def test_published_numbers_are_numbers_and_come_from_commits(path: Path) -> None:
    table = pd.read_parquet(path)
    for name in ("accuracy", "ece", "nll", "brier", "confidence", "density", "seconds"):
        assert table[name].notna().all(), name
    assert table["accuracy"].between(0, 1).all()
    assert table["density"].between(0, 1).all()
    assert not table["commit"].str.contains(r"\+|unknown").any()
    assert table["versions"].str.contains("torch ").all()
