"""The section "Extending vpcore": its pieces, put into a copy of the project, do what it says, and pass its tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "book" / "catalogue.md").read_text().partition("## Extending vpcore")[2]

pytestmark = pytest.mark.slow


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with everything that the page adds, and a folder of images."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("vpcore", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    pieces = re.findall(r"`(vpcore/[\w/]+\.py)`[^`]*:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(pieces) == PAGE.count("```python") == 5
    for path, code in pieces:
        whole = (folder / path).read_text()
        (folder / path).write_text(f"{whole}\n\n{code}")
    (profile,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (folder / "own.toml").write_text(profile)
    for name in ("blue", "green", "red"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (40 + number, 30), name).save(folder / "photos" / name / f"{number}.png")
    return folder


def test_each_is_ten_lines() -> None:
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_the_commands_of_the_page_run(extended: Path) -> None:
    """The set is packed, the study is computed, and its records have the new metric and say what is new by its name."""
    commands = re.findall(r"^\$ vpcore (.*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["pack", "run", "measure"]
    for command in commands:
        done = run(extended, "-m", "vpcore", *command.split())
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert run(extended, "-m", "vpcore", "publish", "--profile", "own.toml").returncode == 0
    table = pd.read_parquet(extended / "results" / "own.parquet")
    transfers = table[table["method"] == "vp"]
    assert set(transfers["prompt"]) == {"checks", "pad"}
    assert set(transfers["mapping"]) == {"soft"}
    assert set(transfers.loc[transfers["round"] == 1, "sparsifier"]) == {"smallest"}
    assert table["margin"].between(0, 1).all()
    assert set(table["model"]) == {"plain"}


def test_a_wrong_name_lists_them(extended: Path) -> None:
    for setting, known in (("prompt=check", "checks"), ("mapping=sofd", "soft"), ("model=plane", "plain")):
        refused = run(extended, "-m", "vpcore", "measure", "--profile", "own.toml", "task=shapes", "method=vp", setting)
        assert refused.returncode == 2
        assert f"did you mean '{known}'" in refused.stderr


def test_the_tests_of_the_project_take_them_in(extended: Path) -> None:
    """Those that go through a registry test what is new as well, and it passes."""
    done = run(
        *(extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/prompting", "tests/calibration", "tests/pruning"),
        *("tests/networks/test_frozen.py", "-k", "checks or soft or margin or smallest or plain", "-m", "not slow"),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 5, done.stdout
