"""What every module begins with, what the core may need, and that the contracts of pyproject.toml on imports hold."""

import ast
import dataclasses
import importlib
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vpcore

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vpcore"
BIN = Path(sys.executable).parent


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


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "torch", "numpy", "scipy", "pandas", "matplotlib"
    code = f"import sys, vpcore; dir(vpcore); vpcore.InputError; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("name", vpcore.__all__)
def test_public_names_are_there_and_explained(name: str) -> None:
    thing = getattr(vpcore, name)
    assert name in dir(vpcore)
    if callable(thing):  # the registries are explained where they are defined
        assert len(thing.__doc__) > 30


@pytest.mark.parametrize("room", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_faces_hand_on_what_they_name(room: str) -> None:
    """And no module of a room bears the name of something public, which it would hide once it is imported."""
    face = importlib.import_module(f"vpcore.{room}")
    public = getattr(face, "__all__", [])
    assert [name for name in public if not hasattr(face, name)] == []
    assert set(public).isdisjoint(path.stem for path in (PACKAGE / room).glob("*.py"))
    assert set(vpcore.__all__).isdisjoint(path.stem for path in PACKAGE.rglob("*.py"))


def test_values_do_not_change() -> None:
    """A dataclass is frozen, but for those of a notebook, a worker and the plain protocol, which keep a state."""
    names = [module.name for module in pkgutil.walk_packages(vpcore.__path__, "vpcore.") if module.name != "vpcore.__main__"]
    modules = [importlib.import_module(name) for name in names]
    classes = {thing for module in modules for thing in vars(module).values() if dataclasses.is_dataclass(thing)}
    open_ones = {thing.__name__ for thing in classes if not thing.__dataclass_params__.frozen}
    assert len(classes) > 40
    assert open_ones == {"Study", "Session", "Prompting"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with its contracts, to put forbidden imports into."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "vpcore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_keep_the_contracts(copy: Path) -> None:
    done = contracts(copy)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "arrow"),
    [
        ("data/splits.py", "from vpcore.study import store", "vpcore.data.splits -> vpcore.study.store"),
        ("data/splits.py", "from .. import study", "vpcore.data.splits -> vpcore.study"),
        ("data/splits.py", "from vpcore import study", "vpcore.data.splits -> vpcore.study"),
        ("data/splits.py", "def later():\n    from ..study.store import Store", "vpcore.data.splits -> vpcore.study.store"),
        ("data/splits.py", "def later():\n    import vpcore.study.store as up", "vpcore.data.splits -> vpcore.study.store"),
        ("data/splits.py", "from vpcore.networks.frozen import Frozen", "vpcore.data.splits -> vpcore.networks.frozen"),
        ("pruning/masks.py", "from vpcore import visual_prompt", "vpcore.pruning.masks -> vpcore"),
        ("pruning/masks.py", "def later():\n    from .. import visual_prompt", "vpcore.pruning.masks -> vpcore"),
        ("errors.py", "from vpcore import files", "vpcore.errors -> vpcore.files"),
    ],
)  # fmt: skip
def test_an_import_upwards_or_sidewards_is_caught(copy: Path, module: str, line: str, arrow: str) -> None:
    """However it is written: from a module, a face or the package, with dots, or only within a function."""
    path = copy / "vpcore" / module
    whole = path.read_text()
    path.write_text(f"{whole}\n\n{line}\n")
    done = contracts(copy)
    path.write_text(whole)
    assert done.returncode == 1
    assert f"{arrow} (l." in done.stdout


def test_a_new_room_must_be_given_a_floor(copy: Path) -> None:
    (copy / "vpcore" / "attic.py").write_text('"""A room that no contract knows."""\n')
    done = contracts(copy)
    (copy / "vpcore" / "attic.py").unlink()
    assert done.returncode == 1
    assert "vpcore.attic" in done.stdout


def test_the_tests_that_are_listed_as_costly_exist() -> None:
    for name in (ROOT / "tests" / "costly.txt").read_text().splitlines():
        path, _, test = name.partition("::")
        assert f"def {test.partition('[')[0]}(" in (ROOT / path).read_text(), name
