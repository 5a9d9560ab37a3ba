"""Prompts of fixed places: a border around the image, or numbers that are added to it.

`Prompt` is the contract of all prompts. A new one is a subclass of it and an entry in `prompts.PROMPTS`:

    parameters    all have K, the size of the cohort, as their first dimension, and so have buffers in the state, so that
                  member k is row k of every tensor; members never meet
    forward       puts them on images; what is random in training comes in as an argument, from `draw`
    size          how many numbers a member learns
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.checks import whole_number
from vpcore.errors import InputError
from vpcore.networks.backbones import IMAGENET
from vpcore.networks.cohort import generators_of
from vpcore.networks.shared_border import Framed

UNIT = torch.tensor(IMAGENET[1]).view(3, 1, 1)  # of programs that are added: a standard deviation of ImageNet's pixels
RANK = 4  # of the programs of LoR-VP, as in the paper

# device type -> share of the canvas up to which an image is computed apart from the border (`shared_border`). On a CPU that
# saves most of the work; a GPU computes whole canvases faster than many small parts (measured on an H200).
MAX_IMAGE_SHARE = {"cpu": 0.2}


class Prompt(nn.Module):
    """K prompts: (K, N, 3, h, h) images in [0, 1] -> (K, N, 3, H, H) prompted images.

    Attributes:
        size: how many numbers each member learns; those of a program that reach no pixel don't count.
        varies: whether training mode shows an image otherwise than evaluation mode does.
    """

    size: int
    varies = False

    def draw(self, count: int) -> Tensor | None:
        """(K, count, ...) what is drawn, on the CPU, for so many images of a training step; None where nothing is."""
        return None

    def forward(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Prompted images.

        Args:
            images: (K, N, 3, h, h) in [0, 1].
            drawn: in training, what `draw` gave for these images.
        """
        raise NotImplementedError

    def views(self, images: Tensor, drawn: Tensor | None = None) -> Tensor | Framed:
        """(K, N, 3, h, h) images -> (K N, 3, H, H) prompted images for a network; in two parts where that is faster."""
        return self(images, drawn).flatten(0, 1)


class PadPrompt(Prompt):
    """K learnable borders of a canvas.

    Args:
        cohort: K.
        canvas: side of the canvas, px: what the network sees.
        image_px: side of the image in its centre, px.

    >>> prompt = PadPrompt(2, canvas=8, image_px=4)
    >>> out = prompt(torch.ones(2, 5, 3, 4, 4))
    >>> out.shape, out[0, 0, 0, 0, 0].item(), out[0, 0, 0, 4, 4].item()
    (torch.Size([2, 5, 3, 8, 8]), 0.5, 1.0)
    """

    border: Tensor

    def __init__(self, cohort: int, *, canvas: int, image_px: int) -> None:
        super().__init__()
        free = border_px(canvas, image_px=image_px)
        before, after = free // 2, free - free // 2
        self.padding = (before, after, before, after)
        self.program = nn.Parameter(torch.zeros(cohort, 3, canvas, canvas))
        self.register_buffer("border", border_of(canvas, image_px=image_px), persistent=False)
        self.size = 3 * (canvas**2 - image_px**2)

    @property
    def frame(self) -> Tensor:
        """(K, 3, H, W) the learned borders, 0 where the image is."""
        return self.border * torch.sigmoid(self.program)

    def forward(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        return F.pad(images, self.padding) + self.frame[:, None]

    def views(self, images: Tensor, drawn: Tensor | None = None) -> Tensor | Framed:
        share = (images.shape[-1] / self.border.shape[-1]) ** 2
        if share > MAX_IMAGE_SHARE.get(images.device.type, 0):
            return super().views(images)
        return Framed(self.frame, images.flatten(0, 1), top=self.padding[0], left=self.padding[0])


class AddedPrompt(Prompt):
    """K programs that are added to images of the size of the canvas.

    Args:
        cohort: K.
        where: (H, H) 1 where something is added, 0 elsewhere.
    """

    unit: Tensor

    def __init__(self, cohort: int, *, where: Tensor) -> None:
        super().__init__()
        self.program = nn.Parameter(torch.zeros(cohort, 3, *where.shape))
        self.register_buffer("unit", where * UNIT, persistent=False)
        self.size = 3 * int(where.sum())

    def forward(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        return images + (self.unit * self.program)[:, None]


class LowRankPrompt(Prompt):
    """K programs of low rank that are added to images of the size of the canvas (LoR-VP).

    For each channel, B A with B of (H, r), which starts at 0, and A of (r, H), which starts from the normal distribution:
    rows and columns share what is learned, in 6 r H numbers.

    Args:
        seeds: K seeds of the start of A.
        canvas: side of the images, px.
        rank: r.
    """

    def __init__(self, seeds: list[int], *, canvas: int, rank: int = RANK) -> None:
        super().__init__()
        self.columns = nn.Parameter(torch.zeros(len(seeds), 3, canvas, rank))
        self.rows = nn.Parameter(torch.stack([torch.randn(3, rank, canvas, generator=g) for g in generators_of(seeds)]))
        self.size = 6 * rank * canvas

    def forward(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        return images + (self.columns @ self.rows)[:, None]


def border_px(canvas: int, *, image_px: int) -> int:
    """What the image leaves of the side of the canvas, px: the border on both sides, or the side of a patch."""
    if whole_number(image_px, name="image_px") >= canvas:
        raise InputError(
            f"`image_px` must be in 1..{canvas - 1}, below the canvas of {canvas} px, got {image_px}; use a larger `canvas`"
        )
    return canvas - image_px


def border_of(canvas: int, *, image_px: int) -> Tensor:
    """(H, H) 1 around an image of `image_px` in the centre of the canvas, 0 where the image is.

    >>> border_of(4, image_px=2).int().tolist()
    [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    """
    before = border_px(canvas, image_px=image_px) // 2
    border = torch.ones(canvas, canvas)
    border[before : before + image_px, before : before + image_px] = 0
    return border


def corner_of(canvas: int, *, image_px: int) -> Tensor:
    """(H, H) 1 in the square of side `canvas - image_px` at the top left, 0 elsewhere."""
    patch = border_px(canvas, image_px=image_px)
    corner = torch.zeros(canvas, canvas)
    corner[:patch, :patch] = 1
    return corner
