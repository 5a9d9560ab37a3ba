"""Tiny drawn image sets in the on-disk formats of the real ones, so that their code paths run without the data.

A class is a hue; each image adds noise to it. What is written is what torchvision or CoOp expects to find below DIR/tv and
DIR/coop, in place of the real set. `FORMATS` has the sets that the toys of our profiles read.

>>> import tempfile
>>> from vpcore import data
>>> folder = Path(tempfile.mkdtemp())
>>> write_fake("tv-eurosat", folder, classes=2, per_class=5)
>>> data.load("tv-eurosat", "train", px=16, folder=folder).images.shape
torch.Size([14, 3, 16, 16])
"""

from __future__ import annotations

import colorsys
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vpcore.data import coop, imagenet
from vpcore.data.splits import SPLITS
from vpcore.errors import InputError, entry

# a split -> (label, number within the class, from 1, image) of each of its images
Drawn = Callable[[str], Iterator[tuple[int, int, Image.Image]]]
# the folder of a set below DIR, what writes it there, and its official splits with their number of images in units of
# classes x per_class, where torchvision counts them
Format = tuple[str, Callable[[Path, Drawn], None], dict[str, int]]


def _dtd(root: Path, drawn: Drawn) -> None:
    for split in SPLITS:
        lines = []
        for label, number, image in drawn(split):
            lines.append(f"texture{label:03d}/texture{label:03d}_{split}{number:04d}.jpg\n")
            save(image, root / "dtd/images" / lines[-1].strip())
        (root / "dtd/labels").mkdir(exist_ok=True)
        (root / f"dtd/labels/{split}1.txt").write_text("".join(lines))


def _eurosat(root: Path, drawn: Drawn) -> None:
    for offset, split in ((0, "train"), (1000, "test")):
        for label, number, image in drawn(split):
            save(image, root / f"2750/Cover{label:03d}/Cover{label:03d}_{offset + number}.jpg")


def _imagenet(root: Path, drawn: Drawn) -> None:
    for split in ("train", "val"):
        for label, number, image in drawn(split):
            wnid = imagenet.wnids()[label]
            save(image, root / split / wnid / f"{wnid}_{split}{number}.JPEG")


def _coop(root: Path, drawn: Drawn, *, images: str, file: str) -> None:
    rows: dict[str, list[tuple[str, int, str]]] = {split: [] for split in SPLITS}
    for split, listed in rows.items():
        for label, number, image in drawn(split):
            listed.append((f"Class_{label:03d}/{split}{number:04d}.jpg", label, f"class {label}"))
            save(image, root / images / listed[-1][0])
    (root / file).write_text(json.dumps(rows))


FORMATS: dict[str, Format] = {
    "tv-dtd": ("tv/dtd", _dtd, dict.fromkeys(SPLITS, 1)),
    "tv-eurosat": ("tv/eurosat", _eurosat, {"train": 2}),
    "tv-imagenet": ("tv/imagenet", _imagenet, {"train": 1, "test": 1}),
    **{
        task: (f"coop/{root}", partial(_coop, images=images, file=file), {})
        for task, (root, images, file) in coop.SETS.items()
    },
}


def write_fake(
    name: str,
    folder: Path,
    *,
    classes: int = 4,
    per_class: int = 5,
    px: int = 40,
    seed: int = 0,
    formats: Mapping[str, Format] = FORMATS,
) -> None:
    """Write a fake of an image set into a data folder, unless the same fake is there.

    Args:
        name: a key of `formats`.
        folder: the data folder, DIR.
        classes: how many, at least 2.
        per_class: images a class in train, and as many in test; with 3 or more, val has some.
        px: height of the images; they are 8 px wider.
        seed: of the noise.
        formats: task -> its format.

    Raises:
        InputError: for an unknown name, or when anything else is there, which may be the real set.
    """
    place, write, official = entry("fake set", name, formats)
    root, note = Path(folder) / place, Path(folder) / f"{name}.fake.json"
    drawing = {"classes": classes, "per_class": per_class, "px": px, "seed": seed}
    if note.exists() and json.loads(note.read_text()) == drawing:
        return
    if root.exists():
        raise InputError(f"{root} exists already and may be real, so no fake replaces it; delete it or name another folder")

    def drawn(split: str) -> Iterator[tuple[int, int, Image.Image]]:
        rng = np.random.default_rng([seed, zlib.crc32(f"{name} {split}".encode())])
        for row in range(classes * per_class):
            yield row // per_class, 1 + row % per_class, _draw(row // per_class / classes, px, rng)

    write(root, drawn)
    if official:
        counts = {split: classes * per_class * times for split, times in official.items()}
        (root.parent / f"{name}.counts.json").write_text(json.dumps(counts))
    note.write_text(json.dumps(drawing))  # last: the fake is whole


def _draw(hue: float, px: int, rng: np.random.Generator) -> Image.Image:
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.8, 0.8))
    noisy = colour + rng.normal(0, 15, (px, px + 8, 3))
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path) -> None:
    """Save an image in a folder that is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
