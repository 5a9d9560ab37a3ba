"""Image sets on disk: what `tasks.load` needs of them, whatever their format.

A set is its classes, the labels of the parts that it comes in, and a function that reads images of a part. From the parts
our three splits follow: `test` and `val` are official ones, or cut from train as `splits` says. Images are decoded and
resized one by one, so that a set is never held in memory at its native size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vpcore.data.decoding import Readable, decode
from vpcore.data.digests import digest_of
from vpcore.data.splits import hold_out
from vpcore.errors import InputError


@dataclass(frozen=True)
class ImageSet:
    """An image set, checked when it is opened.

    Attributes:
        name: of the task; it fixes what is cut from train.
        home: the folder of its files, for errors.
        classes: their names, in the order of the labels.
        parts: official part ("train" and perhaps "val" and "test") -> (N,) int64 labels.
        read: part, rows in ascending order -> for each of these images its name in errors and a function that reads it.
        content: what the set is known by, such as digests, or names and sizes, of its files.
        test_share: of each class of train that becomes test, in (0, 1), where there is no official one.

    Raises:
        InputError: for labels that have no class.
    """

    name: str
    home: Path
    classes: tuple[str, ...]
    parts: dict[str, Tensor]
    read: Callable[[str, Tensor], Iterable[Readable]]
    content: Callable[[], tuple[object, ...]]
    test_share: float = 0

    def __post_init__(self) -> None:
        for part, labels in self.parts.items():
            wrong = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(wrong):
                raise InputError(
                    f"labels of {self.name} must lie in 0..{len(self.classes) - 1}, for the {len(self.classes)} classes "
                    f"that {self.home} has; {len(wrong)} of the split {part} do not, the first is {int(wrong[0])}; is a "
                    "class missing there?"
                )

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits for the content."""
        return digest_of(*self.content())

    @cached_property
    def rows(self) -> dict[str, tuple[str, Tensor]]:
        """Split -> the part that it is, or is cut from, and its (n,) rows there, in ascending order."""
        rows = {part: (part, torch.arange(len(labels))) for part, labels in self.parts.items()}
        train = rows["train"][1]
        if "test" not in rows:
            train, test = hold_out(self.parts["train"], f"test {self.name}", share=self.test_share, most=None)
            rows["test"] = "train", test
        if "val" not in rows:
            kept, val = hold_out(self.parts["train"][train], self.name)
            train, rows["val"] = train[kept], ("train", train[val])
        return {**rows, "train": ("train", train)}

    def labels(self, split: str) -> Tensor:
        """(n,) int64 labels of a split."""
        part, rows = self.rows[split]
        return self.parts[part][rows]

    def decode(self, split: str, rows: Tensor, px: int) -> Tensor:
        """The (n, 3, px, px) uint8 images of some rows of a split, which must ascend; threads decode.

        Raises:
            InputError: for an image that is gone or damaged.
        """
        part, own = self.rows[split]
        files = self.read(part, own[rows])
        return decode(files, count=len(rows), px=px, remedy="copy or fetch the set again")
