"""Corruptions: what weather, cameras and compression do to test images, at three severities.

Confidence must fall with accuracy when images get worse, or it misleads where it matters most. The corruptions, each of them
one of a family of Hendrycks & Dietterich (2019, arXiv 1903.12261), with x in [0, 1] and px the side of the image:

    noise       gaussian_noise   x + s e,  e ~ N(0, 1) for each value            s = (0.04, 0.12, 0.18) sqrt(px / 64)
    blur        gaussian_blur    x * N(0, s^2), edges replicated                 s = (0.5, 1, 1.5) sqrt(px / 64), in pixels
    weather     contrast         c x + (1 - c) mean of each channel of x         c = 0.4, 0.2, 0.05
    digital     jpeg             x after JPEG compression of the quality q       q = 65, 50, 25

The strengths are the severities 1, 3 and 5 of their Tiny-ImageNet-C, whose images have 64 px. Noise and blur grow with the
square root of the side, which is close to their own choices for other sizes: at 32 px (CIFAR-10-C) noise of 0.04, 0.08, 0.10
and blur of 0.4, 0.7, 1.0, where this gives 0.03, 0.08, 0.13 and 0.35, 0.7, 1.06; at 224 px (ImageNet-C) noise of 0.08, 0.18,
0.38, where this gives 0.07, 0.22, 0.34; only the blur of large images is milder here (0.9, 1.9, 2.8 for their 1, 3, 6).
Contrast has no scale, and JPEG works on blocks of 8 pixels at every size.

An image is corrupted alone, by draws that depend on the seed and its own pixels: whatever the batch and its order.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from vpcore.checks import Array, as_tensor, whole_number
from vpcore.errors import InputError, entry

SEVERITIES = (1, 2, 3)


@dataclass(frozen=True)
class Corruption:
    """A corruption of single images.

    Attributes:
        apply: (3, px, px) uint8 image, strength, generator -> (3, px, px) real numbers in the units of uint8, not clipped.
        strengths: for the severities 1, 2 and 3.
        label: its name in a figure.
    """

    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    strengths: tuple[float, float, float]
    label: str


def corrupt(images: Array, name: str, *, severity: int, seed: int) -> Tensor:
    """Corrupt images, each alone: equal images become equal ones, in whatever order and company they come.

    Args:
        images: (N, 3, px, px) uint8, a tensor or an array; they stay as they are.
        name: a key of `CORRUPTIONS`.
        severity: 1, 2 or 3.
        seed: of the draws, at least 0; only noise has any.

    Returns:
        (N, 3, px, px) uint8.

    Raises:
        InputError: for an unknown name or severity, a negative seed, or images of another type or shape.

    >>> grey = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    >>> round(float(corrupt(grey, "gaussian_noise", severity=2, seed=0).float().std() / 255), 2)
    0.12
    """
    corruption = entry("corruption", name, CORRUPTIONS)
    severity = whole_number(severity, name="severity", most=len(SEVERITIES))
    seed, images = whole_number(seed, name="seed", least=0), as_tensor(images, name="images")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len({0, *images.shape[2:]}) != 2:
        raise InputError(
            f"`images` must be uint8 of the shape (N, 3, px, px), got {images.dtype} of {tuple(images.shape)}; floats in "
            "[0, 1]? use (images * 255).round().to(torch.uint8)"
        )
    corrupted = np.empty(images.shape, dtype=np.uint8)
    for number, image in enumerate(images.cpu().numpy()):
        generator = np.random.default_rng([seed, zlib.crc32(image.tobytes())])
        changed = corruption.apply(image, corruption.strengths[severity - 1], generator)
        corrupted[number] = np.rint(changed).clip(0, 255)
    return torch.from_numpy(corrupted).to(images.device)


def _gaussian_noise(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    scale = 255 * strength * math.sqrt(image.shape[-1] / 64)
    return image + scale * generator.standard_normal(image.shape, dtype=np.float32)


def _gaussian_blur(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    width = strength * math.sqrt(image.shape[-1] / 64)
    return gaussian_filter(image.astype(np.float32), (0, width, width), mode="nearest")


def _contrast(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    return strength * image + (1 - strength) * image.mean((1, 2), keepdims=True)


def _jpeg(image: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=int(strength))
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.04, 0.12, 0.18), "noise"),
    "gaussian_blur": Corruption(_gaussian_blur, (0.5, 1.0, 1.5), "blur"),
    "contrast": Corruption(_contrast, (0.4, 0.2, 0.05), "low contrast"),
    "jpeg": Corruption(_jpeg, (65, 50, 25), "JPEG"),
}
