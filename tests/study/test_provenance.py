import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vpcore.commands.studies import _of_other_code
from vpcore.study.execution import execute
from vpcore.study.profile import Profile
from vpcore.study.provenance import PACKAGE, PLACE, archived, provenance
from vpcore.study.store import Store


def test_an_archive_says_what_it_was_made_from(tmp_path: Path) -> None:
    """As `git archive` fills it in; in a checkout it is a form, and git is asked instead."""
    note = tmp_path / "note.txt"
    note.write_text("node: 0123456789abcdef\nref-names: HEAD -> main, tag: protocol-1, tag: v2\n")
    assert archived(note) == ("0123456789", ["protocol-1", "v2"])
    note.write_text("node: $Format:%H$\nref-names: $Format:%D$\n")
    assert archived(note) == ("", [])
    assert archived(tmp_path / "none") == ("", [])
    assert "$Format:%H$" in (PACKAGE.parent / ".git_archival.txt").read_text()
    assert ".git_archival.txt export-subst" in (PACKAGE.parent / ".gitattributes").read_text()


def test_a_copy_without_git_is_known_by_its_archive(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "vpcore", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".git_archival.txt").write_text("node: 0123456789abcdef\nref-names: tag: protocol-7\n")
    code = "from vpcore.study.provenance import commit, tag; print(commit(), tag())"
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["0123456789", "protocol-7"]


def test_it_names_the_place() -> None:
    here = provenance(torch.device("cpu"))
    assert set(PLACE) <= here.keys()
    assert here["device"] == "cpu"
    assert here["processor"]


def test_records_of_other_code_are_told_and_computed_anew_when_asked(
    tiny: Profile, store: Store, monkeypatch: pytest.MonkeyPatch, cpu: torch.device
) -> None:
    """A study whose code is edited: old records stay what they are until they are asked for again."""
    assert {step.error for step in execute(tiny.runs, store, device=cpu)} == {None}
    assert store.of_other_code(tiny.runs) == []
    before = {record["id"]: record for record in store.records()}
    monkeypatch.setattr("vpcore.study.store.code", lambda: "edited")
    files = store.of_other_code(tiny.runs)
    assert files == sorted((store.root / "records").glob("*.json"))
    said: list[str] = []
    _of_other_code(tiny.runs, store, again=False, say=said.append)
    assert said == [f"{len(files)} files of records were computed by other code than this: {said[0].partition(': ')[2]}"]
    assert store.done() == before.keys()
    _of_other_code(tiny.runs, store, again=True, say=said.append)
    assert store.done() == set()
    monkeypatch.setattr("vpcore.study.measurement.code", lambda: "edited")
    assert {step.error for step in execute(tiny.runs, store, device=cpu)} == {None}
    assert store.of_other_code(tiny.runs) == []
    assert {i: r["accuracy"] for i, r in before.items()} == {r["id"]: r["accuracy"] for r in store.records()}
    assert {r["code"] for r in store.records()} == {"edited"}
