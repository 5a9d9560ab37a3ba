"""Augmentation: how training images are varied, so that a network sees no image twice as it is.

What is random is drawn on the CPU, from the generator of an epoch, apart from what is done with it: so every device sees the
same images, and on a GPU an epoch's draws are copied at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied.

    Attributes:
        draw: (number of images, their side, generator) -> what is drawn for them, on the CPU.
        apply: (N, 3, H, W) uint8 images, and what was drawn, on their device -> the images varied.
    """

    draw: Callable[[int, int, torch.Generator], tuple[Tensor, ...]]
    apply: Callable[..., Tensor]


def _draw_shift(count: int, px: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randint(2 * (px // 8) + 1, (2, count), generator=generator),)


def _shift(images: Tensor, start: Tensor) -> Tensor:
    """Crops after padding by an eighth of the side with edge pixels; `start`: (2, N) their first rows and columns."""
    n, _, height, width = images.shape
    padded = F.pad(images.float(), [height // 8] * 4, mode="replicate").to(images.dtype)
    top, left = start
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    picked = padded.permute(0, 2, 3, 1)[
        torch.arange(n, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return picked.permute(0, 3, 1, 2)


def _draw_flip_and_shift(count: int, px: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return torch.rand(count, generator=generator) < 0.5, *_draw_shift(count, px, generator)


def _flip_and_shift(images: Tensor, flip: Tensor, start: Tensor) -> Tensor:
    return _shift(torch.where(flip[:, None, None, None], images.flip(3), images), start)


# name -> what is done to a batch of training images
AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(lambda count, px, generator: (), lambda images: images),
    "shift": Augmentation(_draw_shift, _shift),
    "shift+flip": Augmentation(_draw_flip_and_shift, _flip_and_shift),
}
