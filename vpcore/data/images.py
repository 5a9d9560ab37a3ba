"""Images in memory: what every transfer takes, whatever they were read from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Images:
    """A split of an image set; what takes it checks it.

    Attributes:
        images: (N, 3, px, px) uint8.
        labels: (N,) int64, in 0..T-1.
        classes: the names of the T classes, in the order of the labels.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)
