"""Image sets through torchvision, with its own readers, downloads and checks.

DIR/tv/ is a torchvision root, laid out as torchvision does it; a link to one that you have will do. Loading never downloads,
`vpcore fetch tv-NAME --data DIR` does.

| task             | train             | val      | test              |
|------------------|-------------------|----------|-------------------|
| tv-cifar10       | train             | held out | test              |
| tv-cifar100      | train             | held out | test              |
| tv-svhn          | train             | held out | test              |
| tv-gtsrb         | train             | held out | test              |
| tv-dtd           | split 1, train    | official | split 1, test     |
| tv-flowers102    | train             | official | test              |
| tv-eurosat       | 90 % of all       | held out | 10 % of all, ours |
| tv-oxford_pets   | trainval          | held out | test              |
| tv-food101       | train             | held out | test              |
| tv-stanford_cars | train             | held out | test              |
| tv-sun397        | 80 % of all       | held out | 20 % of all, ours |
| tv-caltech101    | 70 % of all       | held out | 30 % of all, ours |
| tv-imagenet      | train             | held out | val, official     |

'Held out': a fifth of each class of train, at most 50 images, as for every set (`splits.hold_out`). 'Ours': torchvision has
no official split; a fixed share of each class, drawn by the name of the task from the files in the order of their names. The
share is what is intended for EuroSAT, that of TFDS for SUN397, and that of CoOp for Caltech-101. GTSRB consists of short
films, so that its val shows the same signs as train, unlike its test. Caltech-101 holds the pictures of Faces a second time,
as Faces_easy; `coop-caltech101` leaves them out.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from scipy.io.matlab import MatReadError
from torch import Tensor

from vpcore.data.decoding import Readable, as_seen
from vpcore.data.digests import names_and_sizes
from vpcore.data.image_set import ImageSet
from vpcore.errors import InputError, difference, entry
from vpcore.files import folder_beside

# what torchvision raises for files that are missing or damaged
FAILURES = (OSError, RuntimeError, ValueError, KeyError, MatReadError)

TorchvisionSet = Any  # torchvision has no types


@dataclass(frozen=True)
class Card:
    """How a set is read.

    Attributes:
        reader: a class of torchvision.datasets, by its name, or what is called like one.
        entries: the files and folders below the root that hold the set.
        splits: our split -> the official number of its images.
        theirs: our split -> torchvision's name of it, where that is another.
        test_share: of each class that becomes our test split, where there is no official one.
        classes: the names of the classes, where torchvision does not know them.
        note: what to do where torchvision cannot download the set.
    """

    reader: str | Callable[..., TorchvisionSet]
    entries: tuple[str, ...]
    splits: dict[str, int]
    theirs: dict[str, str] = field(default_factory=dict)
    test_share: float = 0
    classes: Callable[[TorchvisionSet], Sequence[str]] | None = None
    note: str = ""

    def make(self, root: Path, split: str, *, download: bool) -> TorchvisionSet:
        """torchvision's set below `root`; its readers take the split by its name, as "is it train?", or not at all."""
        reader = self.reader
        if isinstance(reader, str):  # whose import takes a second or two, which only those wait for who read such a set
            reader = getattr(importlib.import_module("torchvision.datasets"), reader)
        given = {"split": self.theirs.get(split, split), "train": split == "train", "download": download}
        return reader(root, **{name: given[name] for name in given.keys() & inspect.signature(reader).parameters.keys()})


def open_set(name: str, root: Path) -> ImageSet:
    """Open a set, without ever downloading it.

    Args:
        name: a key of `SETS`.
        root: the torchvision root.

    Returns:
        The set; it is known by the names and sizes of its files.

    Raises:
        InputError: when the set is missing, incomplete or damaged; the message says how to get it.
    """
    card = entry("torchvision set", name, SETS)
    command = f"use: vpcore fetch {name} --data {root.parent}{card.note}"
    if missing := [file for file in card.entries if not (root / file).exists()]:
        raise InputError(f"{name} needs {', '.join(missing)} in {root}; {command}")
    return _checked(name, root, root / f"{name}.counts.json", f"delete {', '.join(card.entries)} there and {command}")


def _checked(name: str, root: Path, own: Path, way: str) -> ImageSet:
    """The set below `root`; `own` is the file of its own counts, where there is one, and `way` ends every complaint."""
    card = SETS[name]

    def made(split: str) -> TorchvisionSet:
        try:
            return card.make(root, split, download=False)
        except FAILURES as error:
            raise InputError(f"{name} in {root} is incomplete or damaged ({error}); {way}") from error

    parts = {split: made(split) for split in card.splits}
    labels = {split: _labels(part) for split, part in parts.items()}
    counts = {split: len(part) for split, part in labels.items()}
    expected = _own_counts(own) if own.exists() else card.splits
    if counts != expected:
        raise InputError(
            f"{name} must have {expected} images; {root} has {counts}; {way}; a subset on purpose? write its counts to {own}"
        )
    names = {split: tuple((card.classes or _classes)(part)) for split, part in parts.items()}
    for split in names:
        if names[split] != names["train"]:
            raise InputError(
                f"the classes of {name} in {root} differ between train and {split}:\n"
                f"{difference(names['train'], names[split])}\n{way}"
            )

    def read(split: str, rows: Tensor) -> Iterator[Readable]:
        data = made(split)
        for row in rows.tolist():
            yield f"image {row} of the split {split} of {name} in {root}", partial(_image, data, row)

    return ImageSet(
        name, root, names["train"], labels, read, lambda: (names_and_sizes(root, card.entries),), card.test_share
    )


def fetch(name: str, root: Path) -> Path:
    """Download a set with torchvision, check it, then move it to its place; a set that is there is only checked.

    Args:
        name: a key of `SETS`.
        root: the torchvision root.

    Returns:
        The root.

    Raises:
        InputError: when the download fails or is not complete, which leaves nothing behind, or when the set that is there is
            not complete.
    """
    card = entry("torchvision set", name, SETS)
    if all((root / file).exists() for file in card.entries):
        open_set(name, root)
        return root
    with folder_beside(root / name) as temporary:
        try:
            for split in card.splits:
                card.make(temporary, split, download=True)
        except Exception as error:  # noqa: BLE001 torchvision also passes on what urllib and the archives raise
            raise InputError(
                f"torchvision cannot download {name} ({error}); check the network and the disk and repeat the command"
                f"{card.note}"
            ) from error
        way = f"nothing is kept of it; repeat the command{card.note}"
        _checked(name, temporary, root / f"{name}.counts.json", way)
        for file in card.entries:
            (temporary / file).replace(root / file)
    return root


def _own_counts(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f'{path} must hold counts like {{"train": 10, "test": 5}} ({error}); put it right or delete it'
        ) from error


# Where torchvision keeps what it knows of a set -----------------------------------------------------------------------


def _labels(data: TorchvisionSet) -> Tensor:
    """(N,) int64 labels of all images, without decoding them."""
    found = next((getattr(data, name) for name in ("targets", "labels", "_labels", "y") if hasattr(data, name)), None)
    return torch.tensor([int(label) for label in (found if found is not None else (pair[1] for pair in data._samples))])


def _classes(data: TorchvisionSet) -> Sequence[str]:
    """The names of the classes."""
    return data.classes if hasattr(data, "classes") else data.categories


def _image(data: TorchvisionSet, row: int) -> Image.Image:
    return as_seen(data[row][0])


def _sun397(root: Path, download: bool) -> TorchvisionSet:
    data = importlib.import_module("torchvision.datasets").SUN397(root, download=download)
    pairs = sorted(zip(data._image_files, data._labels, strict=True))  # torchvision lists the files as the disk does
    data._image_files, data._labels = [file for file, _ in pairs], [label for _, label in pairs]
    return data


def _imagenet(root: Path, split: str, download: bool) -> TorchvisionSet:
    if download:
        raise ValueError("ImageNet is for those who have agreed to its terms")
    return importlib.import_module("torchvision.datasets").ImageFolder(root / "imagenet" / split)


SIGNS = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80",
    "end of speed limit 80", "speed limit 100", "speed limit 120", "no overtaking", "no overtaking for lorries",
    "right of way at the next crossing", "priority road", "give way", "stop", "no vehicles", "no lorries", "no entry",
    "danger", "bend to the left", "bend to the right", "double bend", "uneven road", "slippery road", "road narrows",
    "road works", "traffic lights", "pedestrians", "children", "bicycles", "snow", "wild animals", "end of all limits",
    "turn right ahead", "turn left ahead", "straight ahead", "straight ahead or right", "straight ahead or left",
    "keep right", "keep left", "roundabout", "end of no overtaking", "end of no overtaking for lorries",
)  # fmt: skip

SETS: dict[str, Card] = {
    "tv-cifar10": Card("CIFAR10", ("cifar-10-batches-py",), {"train": 50_000, "test": 10_000}),
    "tv-cifar100": Card("CIFAR100", ("cifar-100-python",), {"train": 50_000, "test": 10_000}),
    "tv-svhn": Card(
        "SVHN", ("train_32x32.mat", "test_32x32.mat"), {"train": 73_257, "test": 26_032}, classes=lambda data: "0123456789"
    ),
    "tv-gtsrb": Card(
        "GTSRB", ("gtsrb",), {"train": 26_640, "test": 12_630}, classes=lambda data: SIGNS[: 1 + int(_labels(data).max())]
    ),
    "tv-dtd": Card("DTD", ("dtd",), {"train": 1_880, "val": 1_880, "test": 1_880}),
    "tv-flowers102": Card("Flowers102", ("flowers-102",), {"train": 1_020, "val": 1_020, "test": 6_149}),
    "tv-eurosat": Card("EuroSAT", ("eurosat",), {"train": 27_000}, {"train": "all"}, test_share=0.1),
    "tv-oxford_pets": Card(
        "OxfordIIITPet", ("oxford-iiit-pet",), {"train": 3_680, "test": 3_669}, {"train": "trainval"}
    ),
    "tv-food101": Card("Food101", ("food-101",), {"train": 75_750, "test": 25_250}),
    "tv-stanford_cars": Card(
        "StanfordCars", ("stanford_cars",), {"train": 8_144, "test": 8_041},
        note="; the makers' address is gone (torchvision issue 7545): put cars_train, cars_test, devkit and "
        "cars_test_annos_withlabels.mat of a copy into tv/stanford_cars, or fetch the Parquet set stanford_cars instead",
    ),
    "tv-sun397": Card(
        _sun397, ("SUN397",), {"train": 108_754}, {"train": "all"}, test_share=0.2,
        note="; the makers' address was gone in 2026 (torchvision issue 9348): put the folder SUN397 of a copy into tv, or "
        "fetch the Parquet set sun397 instead",
    ),
    "tv-caltech101": Card("Caltech101", ("caltech101",), {"train": 8_677}, {"train": "all"}, test_share=0.3),
    "tv-imagenet": Card(
        _imagenet, ("imagenet",), {"train": 1_281_167, "test": 50_000}, {"test": "val"},
        note="; get ImageNet from image-net.org and put its folders train/WNID and val/WNID into tv/imagenet",
    ),
}  # fmt: skip
