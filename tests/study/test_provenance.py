import shutil
import subprocess
import sys
from pathlib import Path

import torch

from vpcore.study.provenance import PACKAGE, PLACE, archived, provenance


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
