"""What every module begins with, and what the core may need; who may import whom stands in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vpcore"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_begin_with_their_lesson(path: Path) -> None:
    assert path.stem == "__main__" or ast.get_docstring(ast.parse(path.read_text()))


def test_core_needs_no_extra() -> None:
    """`vpcore run` works on a machine that has neither the book's packages nor a tracker.

    Nor does the command line wait for torchvision, whose import takes a second or two, before a network needs it.
    """
    absent = ("matplotlib", "seaborn", "sklearn", "papermill", "nbformat", "wandb", "sphinx", "timm", "huggingface_hub")
    modules = "vpcore.cli, vpcore.study.execution"
    code = f"import sys, {modules}; print([m for m in {(*absent, 'torchvision')} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
