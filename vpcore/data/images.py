"""Images in memory: what every transfer takes, whatever they were read from."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from torch import Tensor

from vpcore.errors import InputError


@dataclass(frozen=True)
class Images:
    """A split of an image set: (N, 3, px, px) uint8 `images`, (N,) int64 `labels`, and the names of the classes."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def check_px(px: object) -> None:
    """Accept the side of an image in pixels: 1, 2, ...; raises an `InputError` for anything else."""
    if not (isinstance(px, Integral) and int(px) >= 1):
        raise InputError(f"`px` must be a whole number of pixels, at least 1, got {px!r}")
