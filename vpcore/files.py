"""Files that are whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vpcore.errors import WriteError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; on an error nothing is left behind.

    Raises:
        WriteError: when the folder cannot be written or the disk is full.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a" / "note.txt"
    >>> write_atomically(path, lambda file: file.write(b"whole"))
    >>> path.read_text()
    'whole'
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            write(file)
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
