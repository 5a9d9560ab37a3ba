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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from vpcore.data import coop, imagenet
from vpcore.data.splits import SPLITS
from vpcore.errors import InputError, entry


class Place(NamedTuple):
    """Where an image stands."""

    split: str
    label: int
    number: int  # within its class and split, from 1
    row: int  # within its split, from 0

    @property
    def distinct(self) -> int:
        """A number within the class that no image of another split has."""
        return self.number + 1000 * (self.split == "test")


Files = dict[Place, str]  # where each image stands, and its file below the root


@dataclass(frozen=True)
class Format:
    """How a set lies on the disk.

    Attributes:
        root: its folder, below DIR.
        splits: those that its files tell apart.
        file: where an image stands -> its file, below the root.
        lists: files of the images -> other files of the set, below the root, and what is in them.
        official: split of torchvision's readers -> its images, in units of classes x per_class; None where nothing counts.
    """

    root: str
    splits: tuple[str, ...]
    file: Callable[[Place], str]
    lists: Callable[[Files], Mapping[str, str | bytes]]
    official: dict[str, int] | None


def _dtd(files: Files) -> dict[str, str]:
    lines: dict[str, str] = {}
    for place, file in files.items():
        name = f"dtd/labels/{place.split}1.txt"
        lines[name] = lines.get(name, "") + file.removeprefix("dtd/images/") + "\n"
    return lines


def _imagenet(place: Place) -> str:
    wnid = imagenet.wnids()[place.label]
    return f"{place.split}/{wnid}/{wnid}_{place.split}{place.number}.JPEG"


def _coop(root: str, images: str, split_file: str) -> Format:
    def lists(files: Files) -> dict[str, str]:
        rows: dict[str, list[tuple[str, int, str]]] = {split: [] for split in SPLITS}
        for place, file in files.items():
            rows[place.split].append((Path(file).relative_to(images).as_posix(), place.label, f"class {place.label}"))
        return {split_file: json.dumps(rows)}

    def file(place: Place) -> str:
        return Path(images, f"Class_{place.label:03d}/{place.split}{place.number:04d}.jpg").as_posix()

    return Format(f"coop/{root}", SPLITS, file, lists, None)


FORMATS: dict[str, Format] = {
    "tv-dtd": Format(
        "tv/dtd", SPLITS, lambda p: f"dtd/images/texture{p.label:03d}/texture{p.label:03d}_{p.split}{p.number:04d}.jpg",
        _dtd, dict.fromkeys(SPLITS, 1),
    ),
    "tv-eurosat": Format(
        "tv/eurosat", ("train", "test"), lambda p: f"2750/Cover{p.label:03d}/Cover{p.label:03d}_{p.distinct}.jpg",
        lambda files: {}, {"train": 2},
    ),
    "tv-imagenet": Format("tv/imagenet", ("train", "val"), _imagenet, lambda files: {}, {"train": 1, "test": 1}),
    **{task: _coop(*where) for task, where in coop.SETS.items()},
}  # fmt: skip


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
    form = entry("fake set", name, formats)
    root, note = Path(folder) / form.root, Path(folder) / f"{name}.fake.json"
    drawing = {"classes": classes, "per_class": per_class, "px": px, "seed": seed}
    if note.exists() and json.loads(note.read_text()) == drawing:
        return
    if root.exists():
        raise InputError(f"{root} exists already and may be real, so no fake replaces it; delete it or name another folder")
    files: Files = {}
    for split in form.splits:
        rng = np.random.default_rng([seed, zlib.crc32(f"{name} {split}".encode())])
        for row in range(classes * per_class):
            place = Place(split, row // per_class, 1 + row % per_class, row)
            files[place] = form.file(place)
            path = root / files[place]
            path.parent.mkdir(parents=True, exist_ok=True)
            _draw(place.label / classes, px, rng).save(path)
    for file, content in form.lists(files).items():
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    if form.official is not None:
        counts = {split: classes * per_class * times for split, times in form.official.items()}
        (root.parent / f"{name}.counts.json").write_text(json.dumps(counts))
    note.write_text(json.dumps(drawing))  # last: the fake is whole


def _draw(hue: float, px: int, rng: np.random.Generator) -> Image.Image:
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.8, 0.8))
    noisy = colour + rng.normal(0, 15, (px, px + 8, 3))
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
