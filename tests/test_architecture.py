"""The direction of imports, and what the core may need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vpcore"

# module -> modules of the package that it may import; data flows down this list
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "synthetic": {"errors"},
    "splits": {"errors"},
    "parquet": {"errors", "splits"},
    "data": {"errors", "files", "parquet", "splits", "synthetic"},
    "models": {"errors"},
    "pruning": {"errors"},
    "prompting": {"errors"},
    "mapping": {"errors"},
    "calibration": {"errors"},
    "training": {"errors", "models"},
    "tickets": {"errors", "files", "models", "pruning", "training"},
    "transfer": {"models", "prompting", "mapping", "training"},
    "runs": {"errors", "pruning"},
    "store": {"errors", "files", "runs"},
    "measurements": {
        "calibration", "data", "models", "pruning", "runs", "splits", "store", "tickets", "training", "transfer",
    },
    "study": {"data", "errors", "files", "measurements", "models", "runs", "store", "tickets", "training"},
    "claims": {"errors"},
    "plots": set(),
    "tracking": {"errors", "store"},
    "cli": {"batch", "errors", "runs", "store", "study", "tracking"},
    "notebooks": {"errors", "plots", "files", "runs", "store", "study"},
    "batch": {"errors", "files", "notebooks", "runs", "store"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vpcore":
            names |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
    return {name for name in names if (PACKAGE / f"{name}.py").exists()}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_imports_point_down(path: Path) -> None:
    assert path.stem in ALLOWED, f"add {path.stem} to the table"
    assert imported(path) <= ALLOWED[path.stem]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_modules_begin_with_their_lesson(path: Path) -> None:
    assert path.stem == "__main__" or ast.get_docstring(ast.parse(path.read_text()))


def test_core_needs_no_extra() -> None:
    """`vpcore run` works on a machine that has neither the book's packages nor a tracker."""
    extras = ("matplotlib", "seaborn", "sklearn", "papermill", "nbformat", "wandb", "sphinx")
    code = f"import sys, vpcore.cli, vpcore.study; print([m for m in {extras} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
