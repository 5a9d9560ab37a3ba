"""Digests: they identify the data that a record was measured on.

Data are identified by their content, not by their name, so that two studies can be seen to have used the same images. A file
is read once in a process, and again when its size or its time of change differs; SHA-256 takes about a second per gigabyte.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

DIGITS = 12  # hexadecimal ones: two of a million data sets are equal with a probability of 0.002


def digest_of(*parts: object) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of some values, as `repr` writes them.

    >>> digest_of("glyphs", 200), digest_of("glyphs", 200) == digest_of("glyphs", "200")
    ('d3fcb5f8c8ba', False)
    """
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:DIGITS]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    found = path.stat()
    return _file_digest(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=10_000)
def _file_digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def made_by(*modules: ModuleType) -> list[str]:
    """What decides the bytes of a cached file: the content of our modules, and the versions of libraries."""
    return [getattr(module, "__version__", "") or file_digest(Path(str(module.__file__))) for module in modules]


def names_and_sizes(root: Path, entries: Iterable[str]) -> list[tuple[str, int]]:
    """The names and sizes of all files in some files and folders below `root`, sorted: for sets too large to be read."""
    found = []
    for entry in entries:
        if (root / entry).is_file():
            found.append((entry, (root / entry).stat().st_size))
        for folder, _, names in os.walk(root / entry, followlinks=True):
            paths = [os.path.join(folder, name) for name in names]
            found += [(os.path.relpath(path, root), os.stat(path).st_size) for path in paths]
    return sorted(found)
