"""Editions of the book, side by side."""

import json
from pathlib import Path

import pandas as pd
import pytest

from vpcore import InputError
from vpcore.report import editions, overview

EDITIONS = Path(__file__).parents[2] / "results" / "editions"
ROW = {"claim": "C1", "says": "it falls", "study": "letters", "points": 2.04, "low": 1.0, "high": 3.0, "margin": 1.0}


def verdicts(**of_study: str) -> pd.DataFrame:
    columns = overview.found(Path("nowhere")).columns
    return pd.DataFrame([ROW | {"study": study, "verdict": word} for study, word in of_study.items()], columns=columns)


def test_what_is_kept_is_found_again_and_the_newest_counts(tmp_path: Path) -> None:
    assert editions.last(tmp_path, before="") is None
    for name, word in {"1": "supported", "2": "inconclusive"}.items():
        path = editions.keep(verdicts(letters=word), name, tmp_path)
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"kept": f"2026-01-0{name}"}))
    newest = editions.last(tmp_path, before="")
    assert newest is not None
    assert (newest.name, newest.verdicts["verdict"].tolist()) == ("2", ["inconclusive"])
    older = editions.last(tmp_path, before="2")
    assert older is not None
    assert older[:2] == ("1", "2026-01-01")
    with pytest.raises(InputError, match="`verdicts` must hold at least one, got none; build the book first"):
        editions.keep(verdicts(), "3", tmp_path)


def test_every_change_is_told_and_nothing_else(tmp_path: Path) -> None:
    then = verdicts(letters="supported", digits="inconclusive", old="supported")
    now = verdicts(letters="contradicted", digits="inconclusive", young="supported")
    found = editions.changes(then, now).set_index("study")
    assert found["changed"].to_dict() == {"letters": "verdict", "digits": "no", "old": "gone", "young": "new"}
    told = [f"{word}, 2.0 (1.0 to 3.0)" for word in ("supported", "contradicted")]
    assert found.loc["letters", ["then", "now"]].tolist() == told
    editions.keep(then, "1", tmp_path / "editions")
    editions.write(now, tmp_path / "editions", tmp_path)
    numbers = json.loads((tmp_path / "numbers.json").read_text())["numbers"]
    assert [numbers[name] for name in ("edition", "compared", "verdict", "new", "gone")] == ["1", 4, 1, 1, 1]
    before = (tmp_path / "changes.csv").stat().st_mtime_ns
    editions.write(now, tmp_path / "editions", tmp_path)
    assert (tmp_path / "changes.csv").stat().st_mtime_ns == before  # a second build changes nothing


def test_without_an_edition_every_verdict_is_new(tmp_path: Path) -> None:
    editions.write(verdicts(letters="supported"), tmp_path / "none", tmp_path)
    assert json.loads((tmp_path / "numbers.json").read_text())["numbers"] == {
        "edition": "none", "kept": "never", "compared": 1, "verdict": 0, "new": 1, "gone": 0,
    }  # fmt: skip


def test_the_editions_that_are_committed_name_claims_and_verdicts() -> None:
    known = [json.loads(path.read_text()) for path in EDITIONS.glob("*.json")]
    assert known
    for edition in known:
        assert {row["claim"] for row in edition["verdicts"]} <= set(overview.CLAIMS)
        assert all(row["low"] <= row["points"] <= row["high"] and row["verdict"] for row in edition["verdicts"])
