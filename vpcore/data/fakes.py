"""Tiny drawn image sets in the on-disk formats of the real ones, so that their code paths run without the data.

A class is a hue; each image adds noise to it. What is written is what torchvision or CoOp expects to find below DIR/tv and
DIR/coop, in place of the real set. CIFAR, SVHN and Flowers-102 are not here: torchvision knows their checksums.

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
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from vpcore.data import coop, imagenet
from vpcore.errors import InputError, unknown

# a split -> (label, number within the class, image) of each of its images
Drawn = Callable[[str], Iterator[tuple[int, int, Image.Image]]]


def write_fake(name: str, folder: Path, *, classes: int = 4, per_class: int = 5, px: int = 40, seed: int = 0) -> None:
    """Write a fake of an image set into a data folder, unless the same fake is there.

    Args:
        name: a key of `FORMATS` or of `coop.SETS`.
        folder: the data folder, DIR.
        classes: how many; at least 2, and 43 at most for GTSRB.
        per_class: images a class in train, and as many in test; with 3 or more, val has some.
        px: height of the images; they are 8 px wider.
        seed: of the noise.

    Raises:
        InputError: for an unknown name, or when anything else is there, which may be the real set.
    """
    if name not in FORMATS and name not in coop.SETS:
        raise unknown("fake set", name, [*FORMATS, *coop.SETS])
    kind = "tv" if name in FORMATS else "coop"
    root = Path(folder) / kind / (FORMATS[name][0] if kind == "tv" else coop.SETS[name][0])
    note = Path(folder) / f"{name}.fake.json"  # written last: the fake is whole
    drawing = {"classes": classes, "per_class": per_class, "px": px, "seed": seed}
    if note.exists() and json.loads(note.read_text()) == drawing:
        return
    if root.exists():
        raise InputError(f"{root} exists already and may be real, so no fake replaces it; delete it or name another folder")

    def drawn(split: str) -> Iterator[tuple[int, int, Image.Image]]:
        rng = np.random.default_rng([seed, zlib.crc32(f"{name} {split}".encode())])
        for label in range(classes):
            for number in range(1, per_class + 1):
                yield label, number, _draw(label / classes, px, rng)

    if kind == "coop":
        _coop(name, root, drawn)
    else:
        _, write, splits = FORMATS[name]
        write(root, drawn)
        counts = {split: classes * per_class * times for split, times in splits.items()}
        (root.parent / f"{name}.counts.json").write_text(json.dumps(counts))
    note.write_text(json.dumps(drawing))


def _draw(hue: float, px: int, rng: np.random.Generator) -> Image.Image:
    colour = 255 * np.array(colorsys.hsv_to_rgb(hue, 0.8, 0.8))
    noisy = colour + rng.normal(0, 15, (px, px + 8, 3))
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _gtsrb(root: Path, drawn: Drawn) -> None:
    for label, number, image in drawn("train"):
        _save(image, root / f"GTSRB/Training/{label:05d}/{number:05d}_00000.ppm")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label, _, image in drawn("test"):
        file = f"{len(lines) - 1:05d}.ppm"
        _save(image, root / "GTSRB/Final_Test/Images" / file)
        lines.append(f"{file};{image.width};{image.height};5;5;{image.width - 5};{image.height - 5};{label}")
    (root / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


def _dtd(root: Path, drawn: Drawn) -> None:
    for split in ("train", "val", "test"):
        lines = []
        for label, number, image in drawn(split):
            lines.append(f"texture{label:03d}/texture{label:03d}_{split}{number:04d}.jpg")
            _save(image, root / "dtd/images" / lines[-1])
        (root / "dtd/labels").mkdir(exist_ok=True)
        (root / f"dtd/labels/{split}1.txt").write_text("\n".join(lines) + "\n")


def _eurosat(root: Path, drawn: Drawn) -> None:
    for offset, split in ((0, "train"), (1000, "test")):
        for label, number, image in drawn(split):
            _save(image, root / f"2750/Cover{label:03d}/Cover{label:03d}_{offset + number}.jpg")


def _oxford_pets(root: Path, drawn: Drawn) -> None:
    for offset, split in ((0, "trainval"), (1000, "test")):
        lines = []
        for label, number, image in drawn(split):
            lines.append(f"old_breed{label:03d}_{offset + number} {label + 1} {1 + label % 2} 1")
            _save(image, root / "images" / f"{lines[-1].split()[0]}.jpg")
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")


def _food101(root: Path, drawn: Drawn) -> None:
    for offset, split in ((0, "train"), (1000, "test")):
        files: dict[str, list[str]] = {}
        for label, number, image in drawn(split):
            dish = f"dish_{label:03d}"
            files.setdefault(dish, []).append(f"{dish}/{offset + number}")
            _save(image, root / "images" / f"{files[dish][-1]}.jpg")
        (root / "meta").mkdir(exist_ok=True)
        (root / "meta" / f"{split}.json").write_text(json.dumps(files))


def _stanford_cars(root: Path, drawn: Drawn) -> None:
    (root / "devkit").mkdir(parents=True)
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows: list[tuple[str, int]] = []
        labels = set()
        for label, _, image in drawn(split):
            rows.append((f"{len(rows) + 1:05d}.jpg", label + 1))
            labels.add(label)
            _save(image, root / f"cars_{split}" / rows[-1][0])
        savemat(root / file, {"annotations": np.array(rows, dtype=[("fname", object), ("class", object)])})
    names = np.array([f"Maker Model{label:03d} 2012" for label in sorted(labels)], dtype=object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})


def _sun397(root: Path, drawn: Drawn) -> None:
    lines = {}
    for split in ("train", "test"):
        for label, number, image in drawn(split):
            scene = f"s/scene{label:03d}" + ("/indoor" if label % 2 else "")  # some scenes have two levels
            lines[label] = f"/{scene}"
            _save(image, root / scene / f"sun_{split}{number:04d}.jpg")
    (root / "ClassName.txt").write_text("\n".join(lines.values()) + "\n")


def _caltech101(root: Path, drawn: Drawn) -> None:
    count = max(number for _, number, _ in drawn("train"))
    for offset, split in ((0, "train"), (count, "test")):
        for label, number, image in drawn(split):
            _save(image, root / f"101_ObjectCategories/thing{label:03d}/image_{offset + number:04d}.jpg")
    (root / "101_ObjectCategories/BACKGROUND_Google").mkdir()


def _imagenet(root: Path, drawn: Drawn) -> None:
    for split in ("train", "val"):
        for label, number, image in drawn(split):
            wnid = imagenet.wnids()[label]
            _save(image, root / split / wnid / f"{wnid}_{split}{number}.JPEG")


def _coop(name: str, root: Path, drawn: Drawn) -> None:
    _, images, file = coop.SETS[name]
    rows: dict[str, list[tuple[str, int, str]]] = {}
    for split in ("train", "val", "test"):
        rows[split] = []
        for label, number, image in drawn(split):
            path = f"Class_{label:03d}/{split}{number:04d}.jpg"
            rows[split].append((path, label, f"class {label}"))
            _save(image, root / images / path)
    (root / file).write_text(json.dumps(rows))


# name -> (its folder, the writer, the official splits with their number of images in units of classes x per_class)
FORMATS: dict[str, tuple[str, Callable[[Path, Drawn], None], dict[str, int]]] = {
    "tv-caltech101": ("caltech101", _caltech101, {"train": 2}),
    "tv-dtd": ("dtd", _dtd, {"train": 1, "val": 1, "test": 1}),
    "tv-eurosat": ("eurosat", _eurosat, {"train": 2}),
    "tv-food101": ("food-101", _food101, {"train": 1, "test": 1}),
    "tv-gtsrb": ("gtsrb", _gtsrb, {"train": 1, "test": 1}),
    "tv-imagenet": ("imagenet", _imagenet, {"train": 1, "test": 1}),
    "tv-oxford_pets": ("oxford-iiit-pet", _oxford_pets, {"train": 1, "test": 1}),
    "tv-stanford_cars": ("stanford_cars", _stanford_cars, {"train": 1, "test": 1}),
    "tv-sun397": ("SUN397", _sun397, {"train": 2}),
}
