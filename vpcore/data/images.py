"""Images in memory: what every transfer takes, whatever they were read from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Images:
    """A split of an image set: (N, 3, px, px) uint8 `images`, (N,) int64 `labels`, and the names of the classes."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)
