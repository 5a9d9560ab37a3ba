"""Visual prompts: what is learned at the input while the network stays frozen.

The paper pads: the image sits in the centre of a larger canvas and the border around it is learned. Others add to an image
that fills the canvas, or learn how large it is shown. With x the image and p the program, which starts at 0:

    pad            pad(x) + border * sigmoid(p)            the paper's; the border starts mid-grey (Chen et al. 2023)
    frame          x + border * p                          border as wide as that of `pad` (Bahng et al. 2022)
    watermark      x + p                                   on the whole image (Cai et al. 2024, BLM)
    fixed_patch    x + corner * p                          a square at the top left (Bahng et al. 2022)
    random_patch   x + shift(p)                            the square somewhere else in every image (Bahng et al. 2022)
    scale          resize(x, s) + outside * sigmoid(p)     `pad` with a learned scale s (Tsao et al. 2024)
    smm            x + mask(x) * p                         a small network draws a mask for each image (Cai et al. 2024, SMM)

`pad` stays in [0, 1], `scale` as well but for the pixels that the edge of the image shares with the border. The others add
without a limit and are not clipped, as in their sources, which add p to normalised images: p counts in standard deviations
of ImageNet's pixels, so `normalise(prompt(x)) = normalise(x) + ...`. At the start they leave the image as it is.

A prompt object holds a cohort: K prompts that are learned side by side, each from its own images, through one pass of the
network. Parameters of different members never meet, so that each learns as if it were alone; all have K as their first
dimension, so that member k is row k of every tensor in the state.

Bahng et al., arXiv 2203.17274. Chen et al. (ILM-VP), arXiv 2211.11635. Tsao et al. (AutoVP), arXiv 2310.08381. Cai et al.,
arXiv 2410.24018 (BLM) and 2406.03150 (SMM).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpcore.errors import InputError, unknown
from vpcore.networks.backbones import IMAGENET, normalise
from vpcore.networks.shared_border import Framed
from vpcore.prompting.smm import PATCH, MaskNetwork

UNIT = torch.tensor(IMAGENET[1]).view(3, 1, 1)  # of programs that are added: a standard deviation of ImageNet's pixels
SCALES = (0.1, 5.0)  # between these the scale stays, as in AutoVP's code
MAX_IMAGE_SHARE = (
    0.2  # share of the canvas up to which an image is worth computing apart from the border, see `shared_border`
)
PACE = 0.1  # of the scale, for one learning rate: a step that moves a pixel of the program by 0.1 makes the image 1 % larger


class Prompt(nn.Module):
    """K prompts: (K, N, 3, h, h) images in [0, 1] -> (K, N, 3, H, H) prompted images.

    Attributes:
        size: how many numbers each member learns; those of a program that reach no pixel don't count.
        varies: whether training mode shows an image otherwise than evaluation mode does.
    """

    size: int
    varies = False

    def views(self, images: Tensor) -> Tensor | Framed:
        """(K, N, 3, h, h) images -> (K N, 3, H, H) prompted images for a network; in two parts where that is faster."""
        return self(images).flatten(0, 1)


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

    def forward(self, images: Tensor) -> Tensor:
        return F.pad(images, self.padding) + self.frame[:, None]

    def views(self, images: Tensor) -> Tensor | Framed:
        if (images.shape[-1] / self.border.shape[-1]) ** 2 > MAX_IMAGE_SHARE:
            return super().views(images)
        return Framed(self.frame, images.flatten(0, 1), top=self.padding[0], left=self.padding[0])


class AddedPrompt(Prompt):
    """K programs that are added to images of the size of the canvas.

    Args:
        cohort: K.
        where: (H, H) 1 where something is added, 0 elsewhere.
    """

    def __init__(self, cohort: int, *, where: Tensor) -> None:
        super().__init__()
        self.program = nn.Parameter(torch.zeros(cohort, 3, *where.shape))
        self.register_buffer("unit", where * UNIT, persistent=False)
        self.size = 3 * int(where.sum())

    def forward(self, images: Tensor) -> Tensor:
        return images + (self.unit * self.program)[:, None]


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

    def __init__(self, seeds: list[int], *, canvas: int, patch: int) -> None:
        super().__init__()
        self.canvas, self.patch, self.size = canvas, patch, 3 * patch**2
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.program = nn.Parameter(torch.zeros(len(seeds), 3, patch, patch))
        self.register_buffer("unit", UNIT, persistent=False)
        self.register_buffer("place", self.draw(1))

    def draw(self, count: int) -> Tensor:
        """(K, count, 2) rows and columns of the upper left corner: all places where the patch fits are as likely."""
        places = self.canvas - self.patch + 1
        return torch.stack([torch.randint(places, (count, 2), generator=generator) for generator in self.generators])

    def forward(self, images: Tensor) -> Tensor:
        place = self.draw(images.shape[1]).to(images.device) if self.training else self.place
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

    def forward(self, images: Tensor) -> Tensor:
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


class MaskedPrompt(Prompt):
    """K programs, each behind a mask that a small network draws for each image (SMM).

    Args:
        seeds: K seeds of the weights of the mask networks.
        canvas: side of the images, px, a multiple of 8.
    """

    varies = True  # the batch norm of the mask network

    def __init__(self, seeds: list[int], *, canvas: int) -> None:
        super().__init__()
        if canvas % PATCH:
            raise InputError(f"`canvas` must be a multiple of {PATCH} px for the prompt 'smm', got {canvas}")
        self.program = nn.Parameter(torch.zeros(len(seeds), 3, canvas, canvas))
        self.mask = MaskNetwork(seeds)
        self.register_buffer("unit", UNIT, persistent=False)
        self.size = sum(parameter[0].numel() for parameter in self.parameters())

    def forward(self, images: Tensor) -> Tensor:
        return images + (self.unit * self.program)[:, None] * self.mask(normalise(images, IMAGENET))


def border_px(canvas: int, *, image_px: int) -> int:
    """What the image leaves of the side of the canvas, px: the border on both sides, or the side of a patch."""
    if not 0 < image_px < canvas:
        raise InputError(f"`image_px` must be in 1..{canvas - 1}, below the canvas of {canvas} px, got {image_px}")
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


# name -> K prompts, given K seeds, the side of the canvas and the side that the image has in `pad`
PROMPTS: dict[str, Callable[[list[int], int, int], Prompt]] = {
    "pad": lambda seeds, canvas, px: PadPrompt(len(seeds), canvas=canvas, image_px=px),
    "frame": lambda seeds, canvas, px: AddedPrompt(len(seeds), where=border_of(canvas, image_px=px)),
    "watermark": lambda seeds, canvas, px: AddedPrompt(len(seeds), where=torch.ones(canvas, canvas)),
    "fixed_patch": lambda seeds, canvas, px: AddedPrompt(len(seeds), where=corner_of(canvas, image_px=px)),
    "random_patch": lambda seeds, canvas, px: RandomPatchPrompt(seeds, canvas=canvas, patch=border_px(canvas, image_px=px)),
    "scale": lambda seeds, canvas, px: ScalePrompt(len(seeds), canvas=canvas, image_px=px),
    "smm": lambda seeds, canvas, px: MaskedPrompt(seeds, canvas=canvas),
}
SHOWN_SMALL = ("pad", "scale")  # their images come at `image_px`; those of all others fill the canvas


def build(name: str, *, canvas: int, image_px: int, seeds: list[int]) -> Prompt:
    """A cohort of K untrained prompts by name.

    Args:
        name: a key of `PROMPTS`.
        canvas: side of the canvas H, px: what the network sees.
        image_px: side of the image in `pad`, px. It sets how wide the border of `frame` is, and the side of the patches,
            `canvas - image_px`; `watermark` and `smm` do without it.
        seeds: K seeds, of what a prompt draws (the places of `random_patch`, the mask networks of `smm`).

    Raises:
        InputError: for an unknown name, an `image_px` that leaves nothing of the canvas, or a canvas that `smm` can't cut.

    >>> {name: build(name, canvas=32, image_px=16, seeds=[0]).size for name in PROMPTS if name != "smm"}
    {'pad': 2304, 'frame': 2304, 'watermark': 3072, 'fixed_patch': 768, 'random_patch': 768, 'scale': 3073}
    >>> build("smm", canvas=32, image_px=16, seeds=[0]).size - 3 * 32 * 32
    26499
    """
    if name not in PROMPTS:
        raise unknown("prompt", name, PROMPTS)
    return PROMPTS[name](seeds, canvas, image_px)


def input_px(prompt: str, *, canvas: int, image_px: int) -> int:
    """The side at which images are loaded for a prompt, px.

    >>> input_px("pad", canvas=32, image_px=16), input_px("frame", canvas=32, image_px=16)
    (16, 32)
    """
    if prompt not in PROMPTS:
        raise unknown("prompt", prompt, PROMPTS)
    return image_px if prompt in SHOWN_SMALL else canvas
