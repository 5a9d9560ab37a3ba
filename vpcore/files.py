"""Files and folders that are whole or absent: written beside their place, then moved there; and what JSON can hold."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vpcore.errors import WriteError


def as_json(value: Any) -> Any:
    """A value as JSON can hold it: NumPy's numbers as Python's, and None for a number that is not defined.

    >>> as_json({"a": (1, float("nan"))})
    {'a': [1, None]}
    """
    if isinstance(value, dict):
        return {str(name): as_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_atomically(path: Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Fill a temporary file beside `path`, then rename it; on an error nothing is left behind.

    Args:
        path: of the file; its folder is created.
        content: bytes, text, or a function that writes to the open file.

    Raises:
        WriteError: when the folder cannot be written or the disk is full.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a" / "note.txt"
    >>> write_atomically(path, "whole")
    >>> write_atomically(path, lambda file: file.write(b"all"))
    >>> path.read_text()
    'all'
    """
    if not callable(content):
        whole = content.encode() if isinstance(content, str) else content
        return write_atomically(path, lambda file: file.write(whole))
    path = Path(path)
    if path.exists() and not path.is_file():  # a device would be replaced
        raise WriteError(f"cannot write {path}, which is a folder or a device; name a file, or one that is not there yet")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            content(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes private files
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save hides why a write failed
        if not isinstance(cause, OSError):
            raise
        raise WriteError(
            f"cannot write {path} ({cause.strerror or cause}); the folder must be writable and the disk must have room: "
            "free space, or name another folder with --results DIR"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def set_aside(path: Path, *, since: str = "damaged") -> str:
    """Rename a file that is, say, damaged, so that it is no longer taken for a whole one, and can be looked at.

    Returns:
        Its new name: NAME.damaged, or NAME.damaged-2 and so on where earlier ones lie.
    """
    names = itertools.chain([f"{path.name}.{since}"], (f"{path.name}.{since}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if not path.with_name(name).exists())
    with contextlib.suppress(FileNotFoundError):  # another process was first
        path.replace(path.with_name(name))
    return name


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to fill before what is in it is moved to its place; it vanishes with the rest.

    What an earlier process that was killed has left behind is removed first.

    Raises:
        WriteError: when the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".new-{path.name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".new-{path.name}.", dir=path.parent) as temporary:
            yield Path(temporary)
    except OSError as error:
        raise WriteError(f"cannot write below {path.parent} ({error}); it must be a folder with room for the set") from error
