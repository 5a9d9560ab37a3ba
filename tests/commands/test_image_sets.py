"""`vpcore pack`: a folder of class folders becomes an image set that every command takes by its name."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from vpcore.cli import main
from vpcore.data.tasks import load


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight PNG files of another colour for each of three classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VPCORE_DATA", raising=False)
    for name in ("blue", "green", "red"):
        for number in range(8):
            path = Path("photos", name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30 + number), name).save(path)
    return Path("photos")


def test_a_folder_becomes_a_set_that_commands_take_by_name(photos: Path, results: Path) -> None:
    told = call("pack", photos, "--data", "sets", "--name", "tints", "--test-share", 0.25)
    assert told.output == "wrote sets/tints\n"
    assert json.loads(Path("sets/tints/dataset.json").read_text())["classes"] == ["blue", "green", "red"]
    test = load("tints", "test", px=24, folder=Path("sets"))
    assert (len(test), test.classes) == (6, ("blue", "green", "red"))
    measured = call(
        *("measure", "--data", "sets", "--results", results, "task=tints", "method=lp", "budget=1", "epochs=1"),
        *("source_per_class=2", "source_epochs=2", "source_batch=64"),
    )
    assert measured.exit_code == 0, measured.output
    assert "lp tints 1-shot" in measured.output


def test_a_set_is_found_beside_the_folder_that_it_was_made_of(photos: Path) -> None:
    assert call("pack", photos, "--data", "sets").exit_code == 0
    assert len(load("photos", "test", px=24, folder=Path("sets"))) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos",), "`--data` must name the folder"),
        (("photo", "--data", "sets"), "there is no folder photo"),
        (("photos/red", "--data", "sets"), "photos/red holds no folder"),
        (("photos", "--data", "sets", "--test-share", "0.05"), "test would have no images"),
        (("photos", "--data", "sets", "--name", "digits"), "digits"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(photos: Path, arguments: tuple[str, ...], message: str) -> None:
    refused = call("pack", *arguments)
    assert refused.exit_code == 2
    assert refused.output.startswith("vpcore: ")
    assert message in refused.output
    assert not Path("sets").exists() or not list(Path("sets").iterdir())
