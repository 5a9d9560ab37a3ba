"""Images drawn by our own code: a source task and targets for a study that needs no download.

Every class is a set of 64 px masks (a character in 16 fonts; a shape, filled or hollow; a pattern at several frequencies). A
sample takes one mask, warps it by a random affine map (rotation, scale, shear, shift) and blends a foreground colour over a
background of a colour, a gradient and smooth noise:

    image = (1 - a) * background + a * foreground + noise,      a = warp(mask) in [0, 1].

The tasks differ only in their masks, so their distance from the source task, `glyphs`, is a matter of content: `numerals`
and `signs` are further characters in the same fonts (near), `shapes` are other objects (farther), `textures` fill the whole
frame (farthest). Three ask not what is there but how many, which way and where, as the structured tasks of VTAB do (Zhai et
al. 2019, arXiv 1910.04867): `counts` of discs, `directions` of arrows, and `places` of shapes. The fonts, DejaVu and STIX,
ship with matplotlib.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vpcore.errors import InputError, entry

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghmnqrtΓΔΘΛΞΠΣΦΨΩ"
DIGITS = "0123456789"
SHAPES = ("circle", "ellipse", "triangle", "square", "diamond", "pentagon", "star", "cross", "arrow", "crescent")
TEXTURES = ("stripes", "checks", "dots", "rings", "rays", "waves", "bricks", "grid", "zigzag", "spots")
SIGNS = "%&@#§¶€?±÷"
COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
DIRECTIONS = ("east", "south-east", "south", "south-west", "west", "north-west", "north", "north-east")
PLACES = {"top left": (-1, -1), "top right": (1, -1), "centre": (0, 0), "bottom left": (-1, 1), "bottom right": (1, 1)}
TILE = 64  # px, side of a mask

# task -> (classes, range of the scale of a mask in the frame; a texture is larger than the frame)
TASKS: dict[str, tuple[tuple[str, ...], tuple[float, float]]] = {
    "glyphs": (tuple(LETTERS), (0.65, 1.15)),
    "numerals": (tuple(DIGITS), (0.65, 1.15)),
    "shapes": (SHAPES, (0.65, 1.15)),
    "textures": (TEXTURES, (1.5, 2.2)),
    "signs": (tuple(SIGNS), (0.65, 1.15)),
    "counts": (COUNTS, (0.8, 1.15)),
    "directions": (DIRECTIONS, (0.65, 1.15)),
    "places": (tuple(PLACES), (0.9, 1.1)),
}


def draw(task: str, *, per_class: int, px: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw `per_class` images of each class of a task.

    Args:
        task: a key of `TASKS`.
        per_class: images a class.
        px: side of the images.
        seed: of the draws; the same seed gives the same images.

    Returns:
        (N, 3, px, px) uint8 images and (N,) int64 labels, in the order of the labels.

    >>> images, labels = draw("shapes", per_class=2, px=32, seed=0)
    >>> images.shape, images.dtype, labels[:4].tolist()
    (torch.Size([20, 3, 32, 32]), torch.uint8, [0, 0, 1, 1])
    """
    classes, scales = entry("drawn task", task, TASKS)
    # the name is part of the seed, else all tasks would share their colours and poses
    generator = torch.Generator().manual_seed(zlib.crc32(f"{task} {seed}".encode()))
    masks = _masks(task)
    labels = torch.arange(len(classes)).repeat_interleave(per_class)
    variants = torch.randint(masks.shape[1], (len(labels),), generator=generator)
    images = torch.empty((len(labels), 3, px, px), dtype=torch.uint8)
    for part in torch.arange(len(labels)).split(1024):  # in parts: the floats of all images at once would be large
        chosen = masks[labels[part], variants[part]].float()[:, None] / 255
        images[part] = _compose(_warp(chosen, px, scales, generator), generator)
    return images, labels


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _warp(masks: Tensor, px: int, scales: tuple[float, float], generator: torch.Generator) -> Tensor:
    """(N, 1, 64, 64) masks -> (N, 1, px, px), each under its own rotation (+-20 degrees), scale, shear and shift."""
    n = len(masks)
    angle = _uniform((n,), -math.pi / 9, math.pi / 9, generator)
    shear = _uniform((n,), -0.2, 0.2, generator)
    scale = _uniform((n, 2), *scales, generator)
    shift = _uniform((n, 2), -0.2, 0.2, generator)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos + shear * sin], 1)], 1)
    theta = torch.cat([rotation / scale[:, None, :], shift[..., None]], dim=2)
    grid = F.affine_grid(theta, [n, 1, px, px], align_corners=False)
    padding = "reflection" if scales[0] > 1.2 else "zeros"  # a texture has no outside
    return F.grid_sample(masks, grid, padding_mode=padding, align_corners=False).clamp(0, 1)


def _compose(alpha: Tensor, generator: torch.Generator) -> Tensor:
    """Blend a foreground over a background; before clipping, their colours differ by at least 0.25 in every channel."""
    n, px = len(alpha), alpha.shape[-1]
    ground = _uniform((n, 3, 1, 1), 0.15, 0.85, generator)
    contrast = _uniform((n, 3, 1, 1), 0.25, 0.65, generator)
    front = torch.where(
        ground.mean(1, keepdim=True) > _uniform((n, 1, 1, 1), 0.3, 0.7, generator), ground - contrast, ground + contrast
    )
    blobs = F.interpolate(torch.randn((n, 3, 5, 5), generator=generator), size=px, mode="bicubic", align_corners=False)
    ramp = F.interpolate(torch.randn((n, 1, 2, 2), generator=generator), size=px, mode="bilinear", align_corners=False)
    back = ground + blobs * _uniform((n, 1, 1, 1), 0, 0.16, generator) + ramp * _uniform((n, 1, 1, 1), 0, 0.16, generator)
    noise = torch.randn((n, 3, px, px), generator=generator) * _uniform((n, 1, 1, 1), 0.0, 0.08, generator)
    return ((1 - alpha) * back + alpha * front + noise).clamp(0, 1).mul(255).round().to(torch.uint8)


@functools.lru_cache
def _masks(task: str) -> Tensor:
    """(classes, variants, 64, 64) uint8 masks of a task."""
    if task in ("glyphs", "numerals", "signs"):
        fonts = [ImageFont.truetype(str(path), 46) for path in font_paths()]
        rows = [[_character(c, font) for font in fonts] for c in TASKS[task][0]]
    elif task == "shapes":
        rows = [[_shape(name, hollow) for hollow in (0, 6, 10)] for name in SHAPES]
    elif task == "textures":
        rows = [[_texture(name, waves) for waves in (3, 4, 5, 6)] for name in TEXTURES]
    elif task == "counts":
        rows = [[_discs(count, seed) for seed in range(16)] for count in range(1, 1 + len(COUNTS))]
    elif task == "directions":
        rows = [[_polygon(_turned(POLYGONS["arrow"], eighths), hollow) for hollow in (0, 6, 10)] for eighths in range(8)]
    else:
        rows = [[_polygon(_moved(POLYGONS[name], place), 0) for name in POLYGONS] for place in PLACES.values()]
    return torch.stack([torch.stack(row) for row in rows])


@functools.lru_cache
def font_paths() -> tuple[Path, ...]:
    """The 16 font files that the characters are drawn in: those of matplotlib that hold Latin and Greek letters."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise InputError(
            "the drawn tasks need the fonts of matplotlib, which is not installed; use: pip install 'vpcore[book]'"
        )
    folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
    slanted = {"Sans": "Oblique", "SansMono": "Oblique", "Serif": "Italic"}
    names = [f"DejaVu{family}{s}" for family, slant in slanted.items() for s in ("", "-Bold", f"-{slant}", f"-Bold{slant}")]
    names += ["STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"]
    paths = tuple(folder / f"{name}.ttf" for name in names)
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise InputError(f"the drawn tasks need the fonts {', '.join(missing)} in {folder}; reinstall matplotlib")
    return paths


def _tensor(image: Image.Image) -> Tensor:
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(image.height, image.width)


def _character(character: str, font: ImageFont.FreeTypeFont) -> Tensor:
    image = Image.new("L", (TILE, TILE))
    ImageDraw.Draw(image).text((TILE / 2, TILE / 2), character, fill=255, font=font, anchor="mm")
    return _tensor(image)


Points = list[tuple[float, float]]


def _ring(count: int, inner: float = 1.0) -> Points:
    """Corners at equal angles, clockwise from the top, every other one at the distance `inner` from the centre."""
    radii, angles = [1.0, inner] * count, [2 * math.pi * i / count for i in range(count)]
    return [(r * math.sin(t), -r * math.cos(t)) for r, t in zip(radii, angles, strict=False)]


def _arc(x: float, radius: float, start: float, end: float) -> Points:
    return [(x + radius * math.cos(t), radius * math.sin(t)) for t in torch.linspace(start, end, 40).tolist()]


THIRD = 1 / 3
ELLIPSES: dict[str, tuple[float, float]] = {"circle": (1, 1), "ellipse": (1.1, 0.55)}  # their radii
POLYGONS: dict[str, Points] = {
    "triangle": _ring(3),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "diamond": [(0, -1.1), (0.65, 0), (0, 1.1), (-0.65, 0)],
    "pentagon": _ring(5),
    "star": _ring(10, 0.42),
    "cross": [
        (-THIRD, -1),
        (THIRD, -1),
        (THIRD, -THIRD),
        (1, -THIRD),
        (1, THIRD),
        (THIRD, THIRD),
        (THIRD, 1),
        (-THIRD, 1),
        (-THIRD, THIRD),
        (-1, THIRD),
        (-1, -THIRD),
        (-THIRD, -THIRD),
    ],  # fmt: skip
    "arrow": [(-1, -0.25), (0.1, -0.25), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.25), (-1, 0.25)],
    # the part of a disc that a shifted disc leaves
    "crescent": _arc(0, 1, 0.9, 2 * math.pi - 0.9) + _arc(0.45, 0.8, 2 * math.pi - 1.35, 1.35),
}


def _shape(name: str, hollow: int) -> Tensor:
    """A shape about the centre, filled (hollow = 0) or an outline of `hollow` px at four times the resolution."""
    if name not in ELLIPSES:
        return _polygon(POLYGONS[name], hollow)
    image, x, y = _large(), *(0.36 * 4 * TILE * r for r in ELLIPSES[name])
    centre = 2 * TILE
    width = max(2 * hollow, 1)
    box = [centre - x, centre - y, centre + x, centre + y]
    ImageDraw.Draw(image).ellipse(box, fill=None if hollow else 255, outline=255, width=width)
    return _reduced(image)


def _polygon(corners: Points, hollow: int) -> Tensor:
    """A polygon, filled or an outline as in `_shape`; its corners lie within about one of the centre."""
    image, radius, centre = _large(), 0.36 * 4 * TILE, 2 * TILE
    pen = ImageDraw.Draw(image)
    places = [(centre + radius * x, centre + radius * y) for x, y in corners]
    pen.polygon(places, fill=None if hollow else 255)
    if hollow:
        pen.line([*places, *places[:2]], fill=255, width=2 * hollow, joint="curve")
    return _reduced(image)


def _discs(count: int, seed: int) -> Tensor:
    """So many discs of one size that do not touch, at drawn places."""
    generator = torch.Generator().manual_seed(seed)
    places: list[tuple[float, float]] = []
    while len(places) < count:
        x, y = (1.6 * torch.rand(2, generator=generator) - 0.8).tolist()
        if all(math.hypot(x - a, y - b) > 0.5 for a, b in places):
            places.append((x, y))
    image, radius = _large(), 0.36 * 4 * TILE
    for x, y in places:
        centre = [2 * TILE + radius * x, 2 * TILE + radius * y]
        ImageDraw.Draw(image).ellipse([*(c - 0.2 * radius for c in centre), *(c + 0.2 * radius for c in centre)], fill=255)
    return _reduced(image)


def _turned(corners: Points, eighths: int) -> Points:
    """Turned clockwise by so many eighths of a circle."""
    cos, sin = math.cos(math.pi * eighths / 4), math.sin(math.pi * eighths / 4)
    return [(cos * x - sin * y, sin * x + cos * y) for x, y in corners]


def _moved(corners: Points, place: tuple[int, int]) -> Points:
    """A third of the size, at a place."""
    return [(x / 3 + 0.75 * place[0], y / 3 + 0.75 * place[1]) for x, y in corners]


def _large() -> Image.Image:
    return Image.new("L", (4 * TILE, 4 * TILE))


def _reduced(image: Image.Image) -> Tensor:
    return _tensor(image.resize((TILE, TILE), Image.Resampling.BOX))


def _texture(name: str, waves: int) -> Tensor:
    """A pattern with `waves` periods across the tile."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, TILE), torch.linspace(-1, 1, TILE), indexing="ij")
    k = math.pi * waves
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    level = {
        "stripes": lambda: torch.sin(k * x),
        "checks": lambda: torch.sin(k * x) * torch.sin(k * y) * 3,
        "dots": lambda: torch.sin(k * x) + torch.sin(k * y) - 1,
        "rings": lambda: torch.sin(1.3 * k * radius),
        "rays": lambda: torch.sin(2 * waves * angle),
        "waves": lambda: torch.sin(k * y + 1.5 * torch.sin(k * x)),
        "bricks": lambda: (
            -torch.maximum(torch.cos(k * y), torch.cos(k * x / 2 + math.pi * (torch.floor(waves * y / 2) % 2))) + 0.8
        ),
        "grid": lambda: torch.maximum(torch.cos(k * x), torch.cos(k * y)) - 0.7,
        "zigzag": lambda: torch.sin(k * y + 2 * torch.asin(torch.sin(k * x))),
        "spots": lambda: (
            torch.sin(k * x + 2 * torch.sin(k * y * 0.7)) + torch.sin(0.8 * k * y + 1.7 * torch.cos(k * x * 0.6)) - 0.6
        ),
    }[name]()
    return (level * 2 + 0.5).clamp(0, 1).mul(255).to(torch.uint8)
