"""A clone of the project in a temporary folder, and commands that run there, on toys."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def clone_to(folder: Path) -> Path:
    """What git would check out of the working tree: tracked and new files that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    for name in filter(None, listed):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def run(clone: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(clone), "VPCORE_TOY": "1", **variables}
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
