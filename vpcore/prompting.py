"""Visual prompts: what is learned at the input while the network stays frozen.

`PadPrompt` is the prompt of the paper (Bahng et al. 2022, arXiv 2203.17274; Chen et al. 2023): the image sits in the centre
of a larger canvas, and the border around it is learned,

    canvas(x) = pad(x) + border * sigmoid(program),      program = 0 at the start, so the border starts mid-grey.

A prompt object holds a cohort: K prompts that are learned side by side, each from its own images, through one pass of the
network. Parameters of different members never meet, so that each learns as if it were alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.errors import InputError


class PadPrompt(nn.Module):
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

    def __init__(self, cohort: int, *, canvas: int, image_px: int) -> None:
        super().__init__()
        if not 0 < image_px < canvas:
            raise InputError(f"`image_px` must be in 1..{canvas - 1}, below the canvas of {canvas} px, got {image_px}")
        before = (canvas - image_px) // 2
        after = canvas - image_px - before
        self.padding = (before, after, before, after)
        self.program = nn.Parameter(torch.zeros(cohort, 3, canvas, canvas))
        border = torch.ones(canvas, canvas)
        border[before : before + image_px, before : before + image_px] = 0
        self.register_buffer("border", border)

    def forward(self, images: Tensor) -> Tensor:
        """(K, N, 3, h, h) images in [0, 1] -> (K, N, 3, H, H) prompted images in [0, 1]."""
        frame = self.border * torch.sigmoid(self.program)
        return F.pad(images, self.padding) + frame[:, None]
