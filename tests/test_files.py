"""Files that are whole or absent."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vpcore import InputError
from vpcore.errors import WriteError
from vpcore.files import set_aside, write_atomically

LARGE = np.zeros(1_000_000)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write(LARGE.tobytes()),
        lambda file: file.write(b"little"),
        lambda file: np.save(file, LARGE),
        lambda file: torch.save({"large": torch.from_numpy(LARGE)}, file),
        lambda file: torch.save({"little": torch.zeros(2)}, file),
    ],
    ids=["bytes", "few bytes", "numpy", "torch", "torch, little"],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_named_however_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., object]
) -> None:
    def full(handle: int, mode: str) -> object:
        os.close(handle)
        return open("/dev/full", mode)

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(WriteError, match=r"cannot write .*file \(.*(No space left|written).*\); .* free space"):
        write_atomically(tmp_path / "file", write)
    assert not list(tmp_path.iterdir())


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def fail(error: Exception) -> object:
        raise error

    for error in (RuntimeError("ours"), InputError("yours"), KeyError("ours")):
        with pytest.raises(type(error), match=error.args[0]):
            write_atomically(tmp_path / "file", lambda file, error=error: fail(error))
    assert not list(tmp_path.iterdir())


def test_what_is_set_aside_takes_the_place_of_nothing(tmp_path: Path) -> None:
    for content in ("first", "second", "third"):
        (tmp_path / "note").write_text(content)
        assert (tmp_path / set_aside(tmp_path / "note")).read_text() == content
    names = ["note.damaged", "note.damaged-2", "note.damaged-3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    set_aside(tmp_path / "note")  # another process was first
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """A device, say: whoever may would lose it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(WriteError, match=f"{name}, which is a folder or a device; name a file"):
            write_atomically(tmp_path / name, b"")
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 2
