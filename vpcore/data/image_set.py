"""Image sets that are read image by image: what `tasks.load` needs of them, whatever their format on disk.

A set is its classes, the labels of its splits, and a function that opens one image at its native size. Images are decoded
and resized one by one, so that a set is never held in memory at its native size.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vpcore.data.splits import SPLITS
from vpcore.errors import InputError

BLOCK = 1024  # images that are handed to the threads at a time
# what Pillow raises for images that are damaged
DAMAGE = (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageSet:
    """An image set, checked when it is opened.

    Attributes:
        name: of the task.
        classes: their names, in the order of the labels.
        split_labels: split -> (N,) int64 labels.
        images: split -> a function from the number of an image within its split to the image.
        fingerprint: eight digits that change when the files change.

    Raises:
        InputError: for labels that have no class.
    """

    name: str
    classes: tuple[str, ...]
    split_labels: dict[str, Tensor]
    images: Callable[[str], Callable[[int], Image.Image]]
    fingerprint: str

    def __post_init__(self) -> None:
        for split in SPLITS:
            labels = self.split_labels[split]
            wrong = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(wrong):
                raise InputError(
                    f"labels of {self.name} must lie in 0..{len(self.classes) - 1}, for its {len(self.classes)} classes; "
                    f"{len(wrong)} of the split {split} do not, the first is {int(wrong[0])}; is a class folder missing?"
                )

    def labels(self, split: str) -> Tensor:
        """(N,) labels of a split."""
        return self.split_labels[split]

    def decode(self, split: str, rows: Tensor, px: int) -> Tensor:
        """The (n, 3, px, px) uint8 images of some rows of a split; threads decode.

        Raises:
            InputError: for an image that is gone or damaged.
        """
        read = self.images(split)

        def one(row: int) -> Tensor:
            try:
                return pixels(read(row), px)
            except DAMAGE as error:
                raise InputError(
                    f"image {row} of the split {split} of {self.name} cannot be read ({error}); copy or fetch the set again"
                ) from error

        images = torch.empty((len(rows), 3, px, px), dtype=torch.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK].tolist()
                images[start : start + len(block)] = torch.stack([*pool.map(one, block)])
        return images


def pixels(image: Image.Image, px: int) -> Tensor:
    """An image as (3, px, px) uint8: RGB, the whole image resized (bilinear), the aspect ratio not kept."""
    image = image.convert("RGB")
    if image.size != (px, px):
        image = image.resize((px, px), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def fingerprint(root: Path, entries: Iterable[str]) -> str:
    """Eight digits for the names and sizes of all files in some files and folders below `root`."""
    found = []
    for entry in entries:
        if (root / entry).is_file():
            found.append((entry, (root / entry).stat().st_size))
        for folder, _, names in os.walk(root / entry, followlinks=True):
            paths = [os.path.join(folder, name) for name in names]
            found += [(os.path.relpath(path, root), os.stat(path).st_size) for path in paths]
    return f"{zlib.crc32(repr(sorted(found)).encode()):08x}"
