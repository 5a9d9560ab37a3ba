"""Fakes of the sets of torchvision that no toy reads, so that every loader is tried on a tree in the format of its set."""

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from vpcore.data import fakes
from vpcore.data.fakes import Drawn, Format, save


def caltech101(root: Path, drawn: Drawn) -> None:
    count = max(number for _, number, _ in drawn("train"))
    for offset, split in ((0, "train"), (count, "test")):
        for label, number, image in drawn(split):
            save(image, root / f"101_ObjectCategories/thing{label:03d}/image_{offset + number:04d}.jpg")
    (root / "101_ObjectCategories/BACKGROUND_Google").mkdir()


def food101(root: Path, drawn: Drawn) -> None:
    for offset, split in ((0, "train"), (1000, "test")):
        files: dict[str, list[str]] = {}
        for label, number, image in drawn(split):
            dish = f"dish_{label:03d}"
            files.setdefault(dish, []).append(f"{dish}/{offset + number}")
            save(image, root / "images" / f"{files[dish][-1]}.jpg")
        (root / "meta").mkdir(exist_ok=True)
        (root / "meta" / f"{split}.json").write_text(json.dumps(files))


def gtsrb(root: Path, drawn: Drawn) -> None:
    for label, number, image in drawn("train"):
        save(image, root / f"GTSRB/Training/{label:05d}/{number:05d}_00000.ppm")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for label, _, image in drawn("test"):
        file = f"{len(lines) - 1:05d}.ppm"
        save(image, root / "GTSRB/Final_Test/Images" / file)
        lines.append(f"{file};{image.width};{image.height};5;5;{image.width - 5};{image.height - 5};{label}")
    (root / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


def oxford_pets(root: Path, drawn: Drawn) -> None:
    for offset, split in ((0, "trainval"), (1000, "test")):
        lines = []
        for label, number, image in drawn(split):
            lines.append(f"old_breed{label:03d}_{offset + number} {label + 1} {1 + label % 2} 1")
            save(image, root / "images" / f"{lines[-1].split()[0]}.jpg")
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")


def stanford_cars(root: Path, drawn: Drawn) -> None:
    (root / "devkit").mkdir(parents=True)
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows: list[tuple[str, int]] = []
        labels = set()
        for label, _, image in drawn(split):
            rows.append((f"{len(rows) + 1:05d}.jpg", label + 1))
            labels.add(label)
            save(image, root / f"cars_{split}" / rows[-1][0])
        savemat(root / file, {"annotations": np.array(rows, dtype=[("fname", object), ("class", object)])})
    names = np.array([f"Maker Model{label:03d} 2012" for label in sorted(labels)], dtype=object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})


def sun397(root: Path, drawn: Drawn) -> None:
    lines = {}
    for split in ("train", "test"):
        for label, number, image in drawn(split):
            scene = f"s/scene{label:03d}" + ("/indoor" if label % 2 else "")  # some scenes have two levels
            lines[label] = f"/{scene}"
            save(image, root / scene / f"sun_{split}{number:04d}.jpg")
    (root / "ClassName.txt").write_text("\n".join(lines.values()) + "\n")


EACH = {"train": 1, "test": 1}
FORMATS: dict[str, Format] = {
    **fakes.FORMATS,
    "tv-caltech101": ("tv/caltech101", caltech101, {"train": 2}),
    "tv-food101": ("tv/food-101", food101, EACH),
    "tv-gtsrb": ("tv/gtsrb", gtsrb, EACH),
    "tv-oxford_pets": ("tv/oxford-iiit-pet", oxford_pets, EACH),
    "tv-stanford_cars": ("tv/stanford_cars", stanford_cars, EACH),
    "tv-sun397": ("tv/SUN397", sun397, {"train": 2}),
}


def write_fake(name: str, folder: Path, **settings: int) -> None:
    """Write a fake of any set of `FORMATS`; see `vpcore.data.fakes.write_fake`."""
    fakes.write_fake(name, folder, formats=FORMATS, **settings)
