"""The notebook that opens on Colab and Binder, and what these need to run it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.clones import ROOT, clone_to, run

START = ROOT / "binder" / "start.ipynb"


def source() -> str:
    return "\n".join("".join(cell["source"]) for cell in json.loads(START.read_text())["cells"])


def test_the_repository_is_named_alike_wherever_it_is_named() -> None:
    configured = re.search(r"vpcore_repository: (\S+)", (ROOT / "_config.yml").read_text())
    assert configured is not None
    assert re.findall(r"github\.com/([\w.-]+/[\w.-]+)\"", source()) == [configured[1]]


def test_it_holds_no_outputs_and_binder_installs_what_is_pinned() -> None:
    cells = json.loads(START.read_text())["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    built = (ROOT / "binder" / "postBuild").read_text()
    assert "--constraint constraints.txt" in built
    assert (ROOT / "binder" / "runtime.txt").read_text().strip() == "python-3.11"


@pytest.mark.slow
def test_it_runs_beside_the_package(tmp_path: Path) -> None:
    clone = clone_to(tmp_path / "vpcore")
    done = run(clone, "papermill", "binder/start.ipynb", "out.ipynb", "-y", "{toy: true}", "-k", "python3")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (clone / "results" / "mini-toy" / "book" / "start" / "curves.svg").exists()


@pytest.mark.slow
def test_where_it_comes_alone_it_fetches_and_installs_the_project(tmp_path: Path) -> None:
    """As on Colab: a Python that has the libraries, but not the package; the repository is a clone of this one."""
    clone = clone_to(tmp_path / "origin")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=clone, check=True)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "python")], check=True)
    python = tmp_path / "python" / "bin" / "python"
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "start.ipynb").write_bytes(START.read_bytes())
    done = run(
        alone, str(python), "-m", "papermill", "start.ipynb", "out.ipynb", "-y", "{toy: true}", "-k", "python3",
        VPCORE_REPOSITORY=f"file://{clone}", PYTHONPATH=libraries,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (alone / "vpcore" / "results" / "mini-toy" / "book" / "start" / "curves.svg").exists()
