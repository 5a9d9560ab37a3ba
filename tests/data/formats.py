"""Fakes of the sets of torchvision that no toy reads, so that every loader is tried on a tree in the format of its set."""

import io
import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from vpcore.data import fakes
from vpcore.data.fakes import Files, Format, Place

PER_CLASS = 5  # images a class and split, by default; the numbers of Caltech-101 go through all splits of a class
EACH = {"train": 1, "test": 1}  # of the official splits, in units of classes x per_class


def matlab(**variables: np.ndarray) -> bytes:
    file = io.BytesIO()
    savemat(file, variables)
    return file.getvalue()


def caltech101(place: Place) -> str:
    number = place.number + PER_CLASS * (place.split == "test")
    return f"101_ObjectCategories/thing{place.label:03d}/image_{number:04d}.jpg"


def caltech101_lists(files: Files) -> dict[str, str]:
    return {"101_ObjectCategories/BACKGROUND_Google/none.txt": ""}


def food101_lists(files: Files) -> dict[str, str]:
    dishes: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for place, file in files.items():
        path = file.removeprefix("images/").removesuffix(".jpg")
        dishes[place.split].setdefault(path.partition("/")[0], []).append(path)
    return {f"meta/{split}.json": json.dumps(found) for split, found in dishes.items()}


def gtsrb(place: Place) -> str:
    if place.split == "train":
        return f"GTSRB/Training/{place.label:05d}/{place.number:05d}_00000.ppm"
    return f"GTSRB/Final_Test/Images/{place.row:05d}.ppm"


def gtsrb_lists(files: Files) -> dict[str, str]:
    lines = [f"{Path(file).name};{place.label}" for place, file in files.items() if place.split == "test"]
    return {"GT-final_test.csv": "\n".join(["Filename;ClassId", *lines]) + "\n"}  # two of its columns


def oxford_pets_lists(files: Files) -> dict[str, str]:
    lists = {}
    for split in ("trainval", "test"):
        lines = [f"{Path(f).stem} {p.label + 1} {1 + p.label % 2} 1" for p, f in files.items() if p.split == split]
        lists[f"annotations/{split}.txt"] = "\n".join(lines) + "\n"
    return lists


def stanford_cars_lists(files: Files) -> dict[str, bytes]:
    labels = sorted({place.label for place in files})
    names = np.array([f"Maker Model{label:03d} 2012" for label in labels], dtype=object)
    lists = {"devkit/cars_meta.mat": matlab(class_names=names)}
    for split, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = [(Path(image).name, place.label + 1) for place, image in files.items() if place.split == split]
        lists[file] = matlab(annotations=np.array(rows, dtype=[("fname", object), ("class", object)]))
    return lists


def sun397(place: Place) -> str:
    """Some scenes have two levels."""
    return f"s/scene{place.label:03d}{'/indoor' * (place.label % 2)}/sun_{place.split}{place.number:04d}.jpg"


def sun397_lists(files: Files) -> dict[str, str]:
    scenes = dict.fromkeys(f"/{Path(file).parent.as_posix()}" for file in files.values())
    return {"ClassName.txt": "\n".join(scenes) + "\n"}


SPLITS = ("train", "test")
FORMATS: dict[str, Format] = {
    **fakes.FORMATS,
    "tv-caltech101": Format("tv/caltech101", SPLITS, caltech101, caltech101_lists, {"train": 2}),
    "tv-food101": Format(
        "tv/food-101", SPLITS, lambda p: f"images/dish_{p.label:03d}/{p.distinct}.jpg", food101_lists, EACH
    ),
    "tv-gtsrb": Format("tv/gtsrb", SPLITS, gtsrb, gtsrb_lists, EACH),
    "tv-oxford_pets": Format(
        "tv/oxford-iiit-pet",
        ("trainval", "test"),
        lambda p: f"images/old_breed{p.label:03d}_{p.distinct}.jpg",
        oxford_pets_lists,
        EACH,
    ),
    "tv-stanford_cars": Format(
        "tv/stanford_cars", SPLITS, lambda p: f"cars_{p.split}/{p.row + 1:05d}.jpg", stanford_cars_lists, EACH
    ),
    "tv-sun397": Format("tv/SUN397", SPLITS, sun397, sun397_lists, {"train": 2}),
}


def write_fake(name: str, folder: Path, *, per_class: int = PER_CLASS, **settings: int) -> None:
    """Write a fake of any set of `FORMATS`; see `vpcore.data.fakes.write_fake`."""
    fakes.write_fake(name, folder, per_class=per_class, formats=FORMATS, **settings)
