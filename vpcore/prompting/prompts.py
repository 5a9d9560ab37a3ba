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
    lor            x + B A                                 a program of rank 4, on the whole image (Jin et al. 2025, LoR-VP)

`pad` stays in [0, 1], `scale` as well but for the pixels that the edge of the image shares with the border. The others add
without a limit and are not clipped, as in their sources, which add p to normalised images: p counts in standard deviations
of ImageNet's pixels, so `normalise(prompt(x)) = normalise(x) + ...`; only LoR-VP adds to the pixels themselves. At the start
they leave the image as it is.

A prompt object holds a cohort: K prompts that are learned side by side, each from its own images, through one pass of the
network. Parameters of different members never meet, so that each learns as if it were alone; all have K as their first
dimension, so that member k is row k of every tensor in the state.

`fixed_prompts` has the contract of a prompt and those that stay in their place, `moving_prompts` and `smm` the others. A new
prompt is a subclass of `Prompt` and an entry in `PROMPTS`.

Bahng et al., arXiv 2203.17274. Chen et al. (ILM-VP), arXiv 2211.11635. Tsao et al. (AutoVP), arXiv 2310.08381. Cai et al.,
arXiv 2410.24018 (BLM) and 2406.03150 (SMM). Jin et al., arXiv 2502.00896.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vpcore.checks import SIDE, whole_number
from vpcore.errors import entry
from vpcore.networks.inputs import as_seeds
from vpcore.prompting.fixed_prompts import AddedPrompt, LowRankPrompt, PadPrompt, Prompt, border_of, border_px, corner_of
from vpcore.prompting.moving_prompts import RandomPatchPrompt, ScalePrompt
from vpcore.prompting.smm import MaskedPrompt


@dataclass(frozen=True)
class PromptKind:
    """A kind of prompt.

    Attributes:
        label: what tables and figures call it.
        make: K seeds, the side of the canvas, and the side that the image has in `pad` -> K untrained prompts.
        shown_small: images come at the side that they have on the canvas; else they fill the canvas.
    """

    label: str
    make: Callable[[list[int], int, int], Prompt]
    shown_small: bool = False


PROMPTS: dict[str, PromptKind] = {
    "pad": PromptKind("padded border", lambda seeds, canvas, px: PadPrompt(len(seeds), canvas=canvas, image_px=px), True),
    "frame": PromptKind(
        "added frame", lambda seeds, canvas, px: AddedPrompt(len(seeds), where=border_of(canvas, image_px=px))
    ),
    "watermark": PromptKind(
        "watermark", lambda seeds, canvas, px: AddedPrompt(len(seeds), where=torch.ones(canvas, canvas))
    ),
    "fixed_patch": PromptKind(
        "fixed patch", lambda seeds, canvas, px: AddedPrompt(len(seeds), where=corner_of(canvas, image_px=px))
    ),
    "random_patch": PromptKind(
        "random patch",
        lambda seeds, canvas, px: RandomPatchPrompt(seeds, canvas=canvas, patch=border_px(canvas, image_px=px)),
    ),
    "scale": PromptKind(
        "border, learned scale", lambda seeds, canvas, px: ScalePrompt(len(seeds), canvas=canvas, image_px=px), True
    ),
    "smm": PromptKind("sample-specific mask (SMM)", lambda seeds, canvas, px: MaskedPrompt(seeds, canvas=canvas)),
    "lor": PromptKind("low rank (LoR-VP)", lambda seeds, canvas, px: LowRankPrompt(seeds, canvas=canvas)),
}


def build(name: str, *, canvas: int, image_px: int, seeds: list[int]) -> Prompt:
    """A cohort of K untrained prompts by name.

    Args:
        name: a key of `PROMPTS`.
        canvas: side of the canvas H, px: what the network sees.
        image_px: side of the image in `pad`, px. It sets how wide the border of `frame` is, and the side of the patches,
            `canvas - image_px`; `watermark`, `smm` and `lor` do without it.
        seeds: K seeds, of what a prompt draws (the places of `random_patch`, the mask networks of `smm`, the rows of `lor`).

    Raises:
        InputError: for an unknown name, an `image_px` that leaves nothing of the canvas, or a canvas that `smm` can't cut.

    >>> {name: build(name, canvas=32, image_px=16, seeds=[0]).size for name in PROMPTS if name != "smm"}
    {'pad': 2304, 'frame': 2304, 'watermark': 3072, 'fixed_patch': 768, 'random_patch': 768, 'scale': 3073, 'lor': 768}
    >>> build("smm", canvas=32, image_px=16, seeds=[0]).size - 3 * 32 * 32
    26499
    """
    canvas, image_px = whole_number(canvas, name="canvas", least=2, most=SIDE), whole_number(image_px, name="image_px")
    return prompt_kind(name).make(as_seeds(seeds), canvas, image_px)


def input_px(prompt: str, *, canvas: int, image_px: int) -> int:
    """The side at which images are loaded for a prompt, px.

    >>> input_px("pad", canvas=32, image_px=16), input_px("frame", canvas=32, image_px=16)
    (16, 32)
    """
    return image_px if prompt_kind(prompt).shown_small else canvas


def prompt_kind(prompt: str | PromptKind) -> PromptKind:
    """A kind as it is, or the entry of `PROMPTS`; an unknown name is refused."""
    return prompt if isinstance(prompt, PromptKind) else entry("prompt", prompt, PROMPTS)
