"""Image sets that are read image by image: what `tasks.load` needs of them, whatever their format on disk.

A set is its classes, the labels of its splits, and a function that opens one image at its native size. Images are decoded
and resized one by one, so that a set is never held in memory at its native size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from vpcore.data.decoding import decode
from vpcore.data.splits import SPLITS
from vpcore.errors import InputError


@dataclass(frozen=True)
class ImageSet:
    """An image set, checked when it is opened.

    Attributes:
        name: of the task.
        classes: their names, in the order of the labels.
        split_labels: split -> (N,) int64 labels.
        images: split -> a function from the number of an image within its split to the image.
        digest: 12 hexadecimal digits for the names and sizes of its files: there can be a million of them.
        files: split -> the files of its images, where they are known, for errors.

    Raises:
        InputError: for labels that have no class.
    """

    name: str
    classes: tuple[str, ...]
    split_labels: dict[str, Tensor]
    images: Callable[[str], Callable[[int], Image.Image]]
    digest: str
    files: dict[str, list[Path]] | None = None

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

        def called(row: int) -> str:
            file = f", {self.files[split][row]}," if self.files else ""
            return f"image {row} of the split {split} of {self.name}{file}"

        files = ((called(row), partial(read, row)) for row in rows.tolist())
        return decode(files, count=len(rows), px=px, remedy="copy or fetch the set again")
