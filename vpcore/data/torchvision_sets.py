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
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from scipy.io.matlab import MatReadError
from torch import Tensor

from vpcore.data.decoding import as_seen
from vpcore.data.digests import digest_of, names_and_sizes
from vpcore.data.image_set import ImageSet
from vpcore.data.splits import hold_out
from vpcore.errors import InputError, difference, unknown

# what torchvision raises for files that are missing or damaged
FAILURES = (OSError, RuntimeError, ValueError, KeyError, MatReadError)

TorchvisionSet = Any  # torchvision has no types


@dataclass(frozen=True)
class Card:
    """How a set is read.

    Attributes:
        make: (root, torchvision's name of the split, download?) -> the set.
        labels: the labels of all images, without decoding them.
        entries: the files and folders below the root that hold the set.
        splits: our split -> torchvision's name of it, and its official number of images.
        test_share: of each class that becomes our test split, where there is no official one.
        classes: the names of the classes.
        note: what to do where torchvision cannot download the set.
    """

    make: Callable[[Path, str, bool], TorchvisionSet]
    labels: Callable[[TorchvisionSet], Sequence[int]]
    entries: tuple[str, ...]
    splits: dict[str, tuple[str, int]]
    test_share: float | None = None
    classes: Callable[[TorchvisionSet], Sequence[str]] = attrgetter("classes")
    note: str = ""


def open_set(name: str, root: Path) -> ImageSet:
    """Open a set, without ever downloading it.

    Args:
        name: a key of `SETS`.
        root: the torchvision root.

    Raises:
        InputError: when the set is missing, incomplete or damaged; the message says how to get it.
    """
    card = _card(name)
    missing = [entry for entry in card.entries if not (root / entry).exists()]
    if missing:
        raise InputError(f"{name} needs {', '.join(missing)} in {root}; use: {_command(name, root)}{card.note}")
    way = f"delete {', '.join(card.entries)} there and use: {_command(name, root)}{card.note}"
    return _checked(name, root, root / f"{name}.counts.json", way)


def _checked(name: str, root: Path, own: Path, way: str) -> ImageSet:
    """The set below `root`; `own` is the file of its own counts, where there is one, and `way` ends every complaint."""
    card = SETS[name]
    parts = {split: _made(name, root, split, way) for split in card.splits}
    labels = {split: torch.tensor([int(label) for label in card.labels(part)]) for split, part in parts.items()}
    counts = {split: len(part) for split, part in labels.items()}
    expected = _own_counts(own) if own.exists() else {split: count for split, (_, count) in card.splits.items()}
    if counts != expected:
        raise InputError(
            f"{name} must have {expected} images; {root} has {counts}; {way}; a subset on purpose? write its counts to {own}"
        )
    names = {split: tuple(card.classes(part)) for split, part in parts.items()}
    for split in names:
        if names[split] != names["train"]:
            raise InputError(
                f"the classes of {name} in {root} differ between train and {split}:\n"
                f"{difference(names['train'], names[split])}\n{way}"
            )
    rows = _rows(labels, name, card.test_share)

    def images(split: str) -> Callable[[int], Image.Image]:
        part = split if split in card.splits else "train"
        data = _made(name, root, part, way)
        return lambda number: as_seen(data[int(rows[split][number])][0])

    split_labels = {split: labels[split if split in labels else "train"][index] for split, index in rows.items()}
    return ImageSet(name, names["train"], split_labels, images, digest_of(names_and_sizes(root, card.entries)))


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
    card = _card(name)
    if all((root / entry).exists() for entry in card.entries):
        open_set(name, root)
        return root
    root.mkdir(parents=True, exist_ok=True)
    for stale in root.glob(f".fetch-{name}.*"):  # of a fetch that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".fetch-{name}.", dir=root) as temporary:
        try:
            for theirs, _ in card.splits.values():
                card.make(Path(temporary), theirs, True)
        except Exception as error:  # noqa: BLE001 torchvision also passes on what urllib and the archives raise
            raise InputError(
                f"torchvision cannot download {name} ({error}); check the network and the disk and repeat the command"
                f"{card.note}"
            ) from error
        way = f"nothing is kept of it; repeat the command{card.note}"
        _checked(name, Path(temporary), root / f"{name}.counts.json", way)
        for entry in card.entries:
            (Path(temporary) / entry).replace(root / entry)
    return root


def _card(name: str) -> Card:
    if name not in SETS:
        raise unknown("torchvision set", name, SETS)
    return SETS[name]


def _command(name: str, root: Path) -> str:
    return f"vpcore fetch {name} --data {root.parent}"


def _made(name: str, root: Path, split: str, way: str) -> TorchvisionSet:
    card = SETS[name]
    try:
        return card.make(root, card.splits[split][0], False)
    except FAILURES as error:
        raise InputError(f"{name} in {root} is incomplete or damaged ({error}); {way}") from error


def _own_counts(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f'{path} must hold counts like {{"train": 10, "test": 5}} ({error}); put it right or delete it'
        ) from error


def _rows(labels: dict[str, Tensor], name: str, test_share: float | None) -> dict[str, Tensor]:
    """Our split -> rows of the official split that it is, or is cut from."""
    rows = {split: torch.arange(len(part)) for split, part in labels.items()}
    if test_share is not None:
        rows["train"], rows["test"] = hold_out(labels["train"], f"test {name}", share=test_share, most=None)
    if "val" not in rows:
        train, val = hold_out(labels["train"][rows["train"]], name)
        rows["train"], rows["val"] = rows["train"][train], rows["train"][val]
    return rows


# How torchvision is called --------------------------------------------------------------------------------------------


def _read(loader: str, root: Path, **arguments: object) -> TorchvisionSet:
    """A class of torchvision.datasets; its import takes a second or two, which only those wait for who read such a set."""
    return getattr(importlib.import_module("torchvision.datasets"), loader)(root, **arguments)


def _cifar(loader: str) -> Callable[[Path, str, bool], TorchvisionSet]:
    return lambda root, split, download: _read(loader, root, train=split == "train", download=download)


def _split(loader: str) -> Callable[[Path, str, bool], TorchvisionSet]:
    return lambda root, split, download: _read(loader, root, split=split, download=download)


def _whole(loader: str) -> Callable[[Path, str, bool], TorchvisionSet]:
    return lambda root, split, download: _read(loader, root, download=download)


def _sun397(root: Path, split: str, download: bool) -> TorchvisionSet:
    data = _read("SUN397", root, download=download)
    pairs = sorted(zip(data._image_files, data._labels, strict=True))  # torchvision lists the files as the disk does
    data._image_files, data._labels = [file for file, _ in pairs], [label for _, label in pairs]
    return data


def _imagenet(root: Path, split: str, download: bool) -> TorchvisionSet:
    if download:
        raise ValueError("ImageNet is for those who have agreed to its terms")
    return _read("ImageFolder", root / "imagenet" / split)


def _pairs(data: TorchvisionSet) -> list[int]:
    return [label for _, label in data._samples]


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
    "tv-cifar10": Card(
        _cifar("CIFAR10"), attrgetter("targets"), ("cifar-10-batches-py",),
        {"train": ("train", 50_000), "test": ("test", 10_000)},
    ),
    "tv-cifar100": Card(
        _cifar("CIFAR100"), attrgetter("targets"), ("cifar-100-python",),
        {"train": ("train", 50_000), "test": ("test", 10_000)},
    ),
    "tv-svhn": Card(
        _split("SVHN"), attrgetter("labels"), ("train_32x32.mat", "test_32x32.mat"),
        {"train": ("train", 73_257), "test": ("test", 26_032)}, classes=lambda data: "0123456789",
    ),
    "tv-gtsrb": Card(
        _split("GTSRB"), _pairs, ("gtsrb",), {"train": ("train", 26_640), "test": ("test", 12_630)},
        classes=lambda data: SIGNS[: 1 + max(_pairs(data))],
    ),
    "tv-dtd": Card(
        _split("DTD"), attrgetter("_labels"), ("dtd",),
        {"train": ("train", 1_880), "val": ("val", 1_880), "test": ("test", 1_880)},
    ),
    "tv-flowers102": Card(
        _split("Flowers102"), attrgetter("_labels"), ("flowers-102",),
        {"train": ("train", 1_020), "val": ("val", 1_020), "test": ("test", 6_149)},
    ),
    "tv-eurosat": Card(
        _whole("EuroSAT"), attrgetter("targets"), ("eurosat",), {"train": ("all", 27_000)}, test_share=0.1
    ),
    "tv-oxford_pets": Card(
        _split("OxfordIIITPet"), attrgetter("_labels"), ("oxford-iiit-pet",),
        {"train": ("trainval", 3_680), "test": ("test", 3_669)},
    ),
    "tv-food101": Card(
        _split("Food101"), attrgetter("_labels"), ("food-101",),
        {"train": ("train", 75_750), "test": ("test", 25_250)},
    ),
    "tv-stanford_cars": Card(
        _split("StanfordCars"), _pairs, ("stanford_cars",), {"train": ("train", 8_144), "test": ("test", 8_041)},
        note="; the makers' address is gone (torchvision issue 7545): put cars_train, cars_test, devkit and "
        "cars_test_annos_withlabels.mat of a copy into tv/stanford_cars, or fetch the Parquet set stanford_cars instead",
    ),
    "tv-sun397": Card(
        _sun397, attrgetter("_labels"), ("SUN397",), {"train": ("all", 108_754)}, test_share=0.2,
        note="; the makers' address was gone in 2026 (torchvision issue 9348): put the folder SUN397 of a copy into tv, or "
        "fetch the Parquet set sun397 instead",
    ),
    "tv-caltech101": Card(
        _whole("Caltech101"), attrgetter("y"), ("caltech101",), {"train": ("all", 8_677)}, test_share=0.3,
        classes=attrgetter("categories"),
    ),
    "tv-imagenet": Card(
        _imagenet, attrgetter("targets"), ("imagenet",), {"train": ("train", 1_281_167), "test": ("val", 50_000)},
        note="; get ImageNet from image-net.org and put its folders train/WNID and val/WNID into tv/imagenet",
    ),
}  # fmt: skip
