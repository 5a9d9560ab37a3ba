"""Prompts that move: a patch at random places, and a border around an image whose scale is learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.networks.cohort import generators_of
from vpcore.prompting.fixed_prompts import UNIT, Prompt, border_px

SCALES = (0.1, 5.0)  # between these the scale stays, as in AutoVP's code
PACE = 0.1  # of the scale, for one learning rate: a step that moves a pixel of the program by 0.1 makes the image 1 % larger


class RandomPatchPrompt(Prompt):
    """K square patches, each added at a random place.

    In training every image has a place of its own, drawn anew in every step from the seed of its member. In evaluation a
    member has one place, drawn from its seed at the start, so that a prediction does not depend on the other images of
    its batch (Bahng et al. draw one for each batch, in the test too).

    Args:
        seeds: K seeds of the places.
        canvas: side of the images, px.
        patch: side of the patch, px.
    """

    varies = True
    unit: Tensor
    place: Tensor

    def __init__(self, seeds: list[int], *, canvas: int, patch: int) -> None:
        super().__init__()
        self.canvas, self.patch, self.size = canvas, patch, 3 * patch**2
        self.generators = generators_of(seeds)
        self.program = nn.Parameter(torch.zeros(len(seeds), 3, patch, patch))
        self.register_buffer("unit", UNIT, persistent=False)
        self.register_buffer("place", self.draw(1))

    def draw(self, count: int) -> Tensor:
        """(K, count, 2) rows and columns of the upper left corner: all places where the patch fits are as likely."""
        places = self.canvas - self.patch + 1
        return torch.stack([torch.randint(places, (count, 2), generator=generator) for generator in self.generators])

    def forward(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        place = self.place
        if self.training:
            place = self.draw(images.shape[1]).to(images.device) if drawn is None else drawn
        # where in the patch a pixel of the canvas lies; what lies outside falls on a ring of zeros around it
        steps = torch.arange(self.canvas, device=images.device) - place[..., None]
        row, column = (steps + 1).clamp(0, self.patch + 1).unbind(2)
        ringed = F.pad(self.unit * self.program, [1] * 4)
        member = torch.arange(len(ringed), device=images.device)[:, None, None, None]
        return images + ringed[member, :, row[..., :, None], column[..., None, :]].movedim(-1, 2)


class ScalePrompt(Prompt):
    """K learnable borders around an image whose scale is learned, too (AutoVP).

    The image is resized about the centre of the canvas by bilinear interpolation, which passes a gradient to the scale;
    the hole in the border follows it. At scale 1, where it starts, this is `PadPrompt` (when canvas and image differ by an
    even number of px; else the image lies half a pixel off).

    Args:
        cohort: K.
        canvas: side of the canvas, px.
        image_px: side of the image at scale 1, at which it is loaded, px.
    """

    def __init__(self, cohort: int, *, canvas: int, image_px: int) -> None:
        super().__init__()
        border_px(canvas, image_px=image_px)
        self.canvas, self.image_px, self.size = canvas, image_px, 3 * canvas**2 + 1
        self.program = nn.Parameter(torch.zeros(cohort, 3, canvas, canvas))
        self.zoom = nn.Parameter(torch.zeros(cohort))

    @property
    def scale(self) -> Tensor:
        """(K,) scales of the image."""
        return 1 + PACE * self.zoom

    def forward(self, images: Tensor, drawn: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            self.zoom.clamp_(*((limit - 1) / PACE for limit in SCALES))
        scale = self.scale
        stretch = self.canvas / (self.image_px * scale)  # from places on the canvas to places in the image
        theta = stretch[:, None, None] * torch.eye(2, 3, dtype=images.dtype, device=images.device)
        grid = F.affine_grid(theta, [len(theta), 3, self.canvas, self.canvas], align_corners=False)
        resized = F.grid_sample(images.flatten(1, 2), grid, align_corners=False).unflatten(1, images.shape[1:3])
        side = (self.image_px * scale.detach()).int().clamp(max=self.canvas)[:, None]
        before, line = (self.canvas - side) // 2, torch.arange(self.canvas, device=images.device)
        inside = (line >= before) & (line < before + side)
        outside = ~(inside[:, None, :, None] & inside[:, None, None, :])
        return resized + (outside * torch.sigmoid(self.program))[:, None]
