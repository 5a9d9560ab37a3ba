"""A cache of decoded images: one uint8 file that is memory-mapped, one byte a value, whatever the number of runs.

    STEM.npy     (N, 3, px, px) uint8
    STEM.json    {"classes", "labels", "sha256" of these and of STEM.npy}

STEM names everything that the pixels depend on, so that a file stays valid for ever, provided that it is intact. That is
checked when a process first maps it; a damaged file is set aside, with a warning that names it, and made again.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpcore.data.digests import file_digest
from vpcore.data.images import Images
from vpcore.files import set_aside, write_atomically


def cached(stem: Path, make: Callable[[], Images]) -> Images:
    """The images at `stem`, which `make` makes where there are none, or none that are whole.

    Args:
        stem: path without an ending.
        make: reads and decodes the images.

    Returns:
        The images, mapped from the file; writing to them changes a copy in memory.

    Raises:
        WriteError: when the cache cannot be written.
    """
    pixels, meta = stem.with_name(stem.name + ".npy"), stem.with_name(stem.name + ".json")
    if (found := _read(pixels, meta)) is not None:
        return found
    images = make()
    write_atomically(pixels, lambda file: np.save(file, images.images.numpy()))
    facts = {"classes": list(images.classes), "labels": images.labels.tolist()}
    write_atomically(meta, json.dumps({**facts, "sha256": _digest(facts, pixels)}))
    found = _read(pixels, meta)
    return images if found is None else found


def _read(pixels: Path, meta: Path) -> Images | None:
    if not (pixels.exists() and meta.exists()):
        return None
    try:
        facts = json.loads(meta.read_text())
        if facts.pop("sha256") != _digest(facts, pixels):
            raise ValueError("its content is another than when it was written")
        images = torch.from_numpy(np.load(pixels, mmap_mode="c"))  # copy on write: torch wants writable memory
        return Images(images, torch.tensor(facts["labels"]), tuple(facts["classes"]))
    except (ValueError, KeyError, TypeError, EOFError, IsADirectoryError) as error:
        name = [set_aside(path) for path in (pixels, meta)][0]
        warnings.warn(
            f"the decoded images {pixels} are damaged ({error}); they are set aside as {name} and made again; if this "
            "happens twice, look at the disk",
            stacklevel=4,
        )
        return None


def _digest(facts: dict[str, list[Any]], pixels: Path) -> str:
    return hashlib.sha256(json.dumps([facts, file_digest(pixels)]).encode()).hexdigest()
