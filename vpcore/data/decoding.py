"""Decoding: an image file of any kind becomes (3, px, px) uint8, as it would be seen, or is refused with a reason.

What Pillow's `convert("RGB")` silently gets wrong is corrected first:

    orientation      the rotation or reflection that EXIF or XMP asks for is applied
    transparency     blended over white, as on a page; also that of palettes and of a single transparent colour
    16-bit grey      v / (2^bits - 1), where `convert` clips at 255 (a ramp turns white)
    float grey       v in [0, 1], where `convert` rounds to whole numbers (an image turns black)

and where the largest number means black (TIFF's WhiteIsZero), the image is inverted. Grey, palettes, CMYK, YCbCr and 16-bit
colour are as Pillow has them; colour profiles are ignored, and of several frames the first is taken. Refused: floats outside
[0, 1] and 32-bit integers, since no number in them is known to be white. Most readers of torchvision, whose sets are 8-bit,
convert an image to RGB before it comes here; its orientation is still applied.

Then the whole image is resized (bilinear, with antialiasing), and the aspect ratio is not kept, as in the paper.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from vpcore.errors import InputError

BLOCK = 256  # images that are handed to the threads at a time, and held in memory as they were encoded
# what Pillow raises for images that are damaged
DAMAGE = (OSError, ValueError, TypeError, SyntaxError, KeyError, struct.error, Image.DecompressionBombError)
Readable = tuple[str, Callable[[], Image.Image]]  # what errors call an image, and a function that reads it, in RGB
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF


def opened(file: Path | BinaryIO) -> Image.Image:
    """An image file as 8-bit RGB, as it would be seen; raises one of `DAMAGE` where it cannot be."""
    try:
        with Image.open(file) as image:
            return as_seen(image)
    except UnidentifiedImageError as error:  # whose text is an address in memory
        raise ValueError("no image that Pillow knows") from error


def as_seen(image: Image.Image) -> Image.Image:
    """An image as 8-bit RGB, with orientation, transparency and scale as this module says; `image` may be changed.

    >>> as_seen(Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))).getpixel((1, 0))
    (128, 128, 128)
    """
    image.load()
    with contextlib.suppress(*DAMAGE):  # damaged EXIF data ask for nothing; the image itself is whole
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _scaled(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """An image of 16-bit, 32-bit or float grey as 8-bit grey."""
    values, tags = np.asarray(image).astype(np.float64), getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format != "PPM":  # whose 16-bit greys Pillow calls 32-bit ones
        raise ValueError("no number in its 32-bit or signed integers is known to be white; save it with 8 or 16 bits")
    white = 1 if image.mode == "F" else 2 ** tags.get(BITS, (16,))[0] - 1
    if not (values.min() >= 0 and values.max() <= white):
        raise ValueError(f"its greys must lie in 0..{white}, got {values.min():g}..{values.max():g}; scale it so")
    values *= 255 / white
    return Image.fromarray((255 - values if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else values).round().astype(np.uint8))


def pixels(image: Image.Image, px: int) -> Tensor:
    """An 8-bit RGB image as (3, px, px) uint8, resized as a whole."""
    if image.size != (px, px):
        image = image.resize((px, px), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def decode(files: Iterable[Readable], *, count: int, px: int, remedy: str = "copy it again") -> Tensor:
    """Read and resize images; in threads, since Pillow releases the interpreter's lock.

    Args:
        files: for each image, what an error calls it, and a function that reads it (see `opened`).
        count: how many there are, n.
        px: side of the images.
        remedy: what can be done about an image that cannot be decoded, for the error.

    Returns:
        (n, 3, px, px) uint8.

    Raises:
        InputError: for an image that cannot be decoded.
    """

    def one(file: Readable) -> Tensor:
        name, read = file
        try:
            return pixels(read(), px)
        except DAMAGE as error:
            raise InputError(f"{name} cannot be decoded ({error}); {remedy}") from error

    images, remaining = torch.empty((count, 3, px, px), dtype=torch.uint8), iter(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, count, BLOCK):
            for number, image in enumerate(pool.map(one, itertools.islice(remaining, BLOCK)), start):
                images[number] = image
    return images
