"""The notebooks as they are committed, and how they are run."""

import ast
import itertools
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from vpcore import InputError
from vpcore.files import as_json
from vpcore.report import batch
from vpcore.report.batch import NOTEBOOKS
from vpcore.report.notebook import open_study, wanted
from vpcore.report.parameters import PARAMETERS, assigned, check_parameters
from vpcore.study.profile import load_profile
from vpcore.study.run import identity, run_id
from vpcore.study.tables import write_table

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
BOOK = NOTEBOOKS.parent / "book"


def code(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_every_notebook_stands_in_the_book() -> None:
    chapters = [c for part in yaml.safe_load((BOOK / "_toc.yml").read_text())["parts"] for c in part["chapters"]]
    executed = {c["file"]: [section["file"] for section in c["sections"]] for c in chapters if "sections" in c}
    config = yaml.safe_load((BOOK.parent / "_config.yml").read_text())["sphinx"]["config"]
    again = config["vpcore_again"]
    repeated = [f"generated/{p}/{name}/{name}" for p, names in again.items() for name in names]
    shown = {name for profile in config["vpcore_profiles"] for name in batch.fitting(load_profile(profile))}
    shown |= set(batch.of_no_profile())
    assert list(executed) == ["notebooks"]
    assert sorted(executed["notebooks"]) == sorted([*repeated, *(f"generated/{name}/{name}" for name in shown)])
    waiting = set(batch.names()) - shown  # for the records of a profile that the book does not show yet
    assert waiting == {"answer"}
    assert (BOOK / "answer.md").exists()


def test_what_a_page_shows_is_made_by_a_notebook_that_runs_for_it() -> None:
    """Every file of `generated` that a page in the table of contents names, by its folder."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text())
    pages = [toc["root"], *(c["file"] for part in toc["parts"] for c in part["chapters"])]
    config = yaml.safe_load((BOOK.parent / "_config.yml").read_text())["sphinx"]["config"]
    again = {f"{profile}/{name}" for profile, names in config["vpcore_again"].items() for name in names}
    made = {*batch.names(), *again, "verdicts", "lineage", "explorer"}  # the last three from the output of all notebooks
    used = {
        place for page in pages for place in re.findall(r"generated/([\w/]+)/[\w-]+\.\w+", (BOOK / f"{page}.md").read_text())
    }
    assert used <= made
    assert made - used <= {"answer"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_defines_nothing_and_reads_its_figures(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# Notebook: ")
    assert "?" in notebook.cells[0].source  # the question
    assert notebook.cells[1].metadata.tags == ["parameters"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
            assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))
    for before, cell in itertools.pairwise(notebook.cells):
        assert "markdown" in (before.cell_type, cell.cell_type), "a sentence must say what a cell does, and what to see"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebooks_check_their_parameters_first(path: Path) -> None:
    first, second = code(path)[:2]
    assert set(PARAMETERS) <= set(assigned(first))
    assert assigned(first)["notebook"] == path.stem
    assert "study = open_study(globals())" in second


def test_the_notebooks_are_short() -> None:
    assert sum(len(source.splitlines()) for path in PATHS for source in code(path)) <= 2600


DEFAULTS = 'profile = "mini"\ntoy = False\nlevel = 0.5\n'


@pytest.mark.parametrize("given", ['profile = "small"', "toy = True", "level = 1", ""])
def test_good_parameters(given: str) -> None:
    check_parameters({"In": ["", DEFAULTS, f"# Parameters\n{given}\n", "check_parameters(globals())"]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('profil = "small"', "unknown parameter 'profil'; did you mean 'profile'"),
        ("profile = 3", "parameter `profile` must be str, such as 'mini', got 3"),
        ('toy = "yes"', "parameter `toy` must be bool, such as False, got 'yes'"),
        ("toy = 1", "parameter `toy` must be bool"),
        ("level = True", "parameter `level` must be float"),
    ],
)
def test_bad_parameters(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_parameters({"In": ["", DEFAULTS, f"# Parameters\n{given}\n", "check_parameters(globals())"]})


def test_unknown_notebook(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown notebook 'acuracy'; did you mean 'accuracy'"):
        batch.regenerate(tmp_path, profile="mini", only=("acuracy",))


def test_notebooks_are_out_of_date_when_the_package_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    (package / "report").mkdir(parents=True)
    monkeypatch.setattr(batch, "__file__", str(package / "report" / "batch.py"))
    keys = [batch._code()]
    for name in ("a.py", "report/b.py", "c.toml", "report/b.py"):
        with (package / name).open("a") as file:
            file.write("x = 1\n")
        keys.append(batch._code())
    (package / "notes.txt").write_text("of no account")
    assert batch._code() == keys[-1]
    assert len(set(keys)) == 5


def test_a_failing_notebook_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = nbformat.read(PATHS[0], as_version=4)
    source.cells = source.cells[:2] + [nbformat.v4.new_code_cell("raise ValueError('this went wrong')")]
    (tmp_path / "src").mkdir()
    nbformat.write(source, tmp_path / "src" / "broken.ipynb")
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path / "src")
    with pytest.raises(InputError, match="broken.ipynb failed in cell .*: ValueError: this went wrong"):
        batch._run("broken", tmp_path / "out", {"profile": "mini"})
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(InputError, match="unknown parameter of broken: 'profil'"):
        batch._run("broken", tmp_path / "out", {"profil": "mini"})


def test_numbers_are_json(tmp_path: Path) -> None:
    import numpy as np

    assert json.loads(json.dumps({"x": as_json(np.float64(0.5)), "n": as_json(np.int64(3))})) == {
        "x": 0.5,
        "n": 3,
    }


def test_what_a_batch_leaves_out_is_named_with_its_reason() -> None:
    lines = batch.skipped(load_profile("paper"))
    assert "ways: skipped, the profile paper has no grid ways, scope, recipe" in lines
    assert "tutorial: skipped, it shows no runs of a profile; --only tutorial runs it" in lines
    assert "quantization: skipped, the profile paper has no grid ranges" in lines
    assert "the grid backbones: skipped, no notebook shows it" in lines
    assert not any(line.startswith(("accuracy", "the grid main")) for line in lines)


def test_of_a_grid_with_a_star_nothing_is_computed_and_what_is_missing_is_known(tmp_path: Path) -> None:
    """Half of its records are there; to compute the others would need images that are not."""
    card = load_profile("imagenet")
    runs = card.grid("renewed")
    rows = [{"id": run_id(run), **identity(run), "accuracy": 0.5} for run in runs[::2]]
    write_table(tmp_path / "imagenet.parquet", pd.DataFrame(rows))
    given = {"In": ["grids = []"], "notebook": "n", "profile": "imagenet", "toy": False, "device": "cpu", "data": "nowhere"}
    study = open_study(
        {**given, "results": str(tmp_path), "output": str(tmp_path / "out"), "grids": ["renewed*", "absent*"]}
    )
    assert list(study.tables) == ["renewed"]
    assert study.tables["renewed"]["id"].tolist() == [row["id"] for row in rows]
    assert study.missing("renewed") == len(runs) - len(rows) > 0
    assert wanted(["renewed*", "canvas", "absent?"], card) == ["canvas"]
    assert wanted(["renewed*", "canvas", "absent?"], card, looked_at=True) == ["renewed", "canvas"]
