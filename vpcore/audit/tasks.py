"""The tasks of an audit: images by name or of a folder, read at any size, with validation images to choose and fit by.

A task gives training images, from which budgets are drawn; validation images, for the temperature, the conformal threshold
and the choice of tasks; and test images, which are looked at once. All networks see the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vpcore.data.builtin import BUILTIN
from vpcore.data.class_folders import Listing
from vpcore.data.corruptions import CORRUPTIONS, corrupt
from vpcore.data.images import Images
from vpcore.data.packing import TEST_SHARE, split_listings
from vpcore.data.splits import first, hold_out
from vpcore.data.tasks import classes, load
from vpcore.errors import InputError

DEFAULT_TASKS = tuple(name for name in BUILTIN if name != "glyphs")  # glyphs is what the networks of `mini` were trained on
POOL = 4  # times the largest budget: so many training images of a class are there to draw from
VALIDATION = 100  # images, about
CORRUPTED = 50  # test images that are corrupted, each in every way
SEVERITY = 2  # of three


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: of it.
        classes: the names of its classes.
        sizes: how many images of each split are read.
        read: split and side in px -> the images; the split "corrupted" has some test images, in every way of `CORRUPTIONS`.
    """

    name: str
    classes: tuple[str, ...]
    sizes: Mapping[str, int]
    read: Callable[[str, int], Images]


def read_task(name: str, *, data: Path | None, shots: int, test_images: int) -> Task:
    """An image set by its name, or a folder of images of your own.

    Args:
        name: a built-in task, an image set in the data folder, or the path of a folder that holds class folders, or
            train and test with them. Of a folder without these two, a drawn fifth is test.
        data: the data folder.
        shots: the largest budget.
        test_images: about so many test images are taken, as many of each class.

    Raises:
        InputError: as `load`, `pack` and `image_folder`, and for a split without images.

    >>> shapes = read_task("shapes", data=None, shots=1, test_images=24)
    >>> len(shapes.classes), len(shapes.read("test", 16)), len(shapes.read("train", 16))
    (10, 20, 40)
    """
    folder = Path(name).resolve() if Path(name).is_dir() else None
    names = _listings(folder)["train"].classes if folder else classes(name, folder=data)
    wanted = {"train": POOL * shots, "val": VALIDATION // len(names), "test": test_images // len(names)}
    most = {split: max(1, count) for split, count in wanted.items()}  # of each class

    def chosen(folder: Path, split: str) -> Listing:
        listing = _listings(folder)[split]
        rows = first(torch.tensor(listing.labels, dtype=torch.int64), most[split], folder.name).sort().values
        return listing.take(rows.tolist())

    sizes = {split: len(chosen(folder, split).labels) if folder else len(names) * most[split] for split in most}

    @functools.lru_cache(maxsize=16)
    def read(split: str, px: int) -> Images:
        if split == "corrupted":
            return _corrupted(read("test", px))
        if folder is None:
            images = load(name, split, px=px, per_class=most[split], folder=data)
        else:
            listing = chosen(folder, split)
            images = Images(listing.decode(px), torch.tensor(listing.labels, dtype=torch.int64), listing.classes)
        if split != "val" and not len(images):
            raise InputError(f"the task {name} must have images in its split {split}, got none; add some")
        return images

    sizes["corrupted"] = len(CORRUPTIONS) * min(CORRUPTED, sizes["test"])
    return Task(folder.name if folder else name, names, sizes, read)


def _corrupted(test: Images) -> Images:
    few = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:CORRUPTED]
    changed = [corrupt(test.images[few], name, severity=SEVERITY, seed=0) for name in CORRUPTIONS]
    return Images(torch.cat(changed), test.labels[few].repeat(len(changed)), test.classes)


@functools.lru_cache(maxsize=8)
def _listings(folder: Path) -> dict[str, Listing]:
    """The files of train, val and test; val is cut from train as from every set."""
    try:
        splits = split_listings(folder, folder.name, TEST_SHARE)
    except InputError as error:
        raise InputError(str(error).replace("`path`", "`images`")) from error
    train = splits["train"]
    kept, held_out = hold_out(torch.tensor(train.labels), folder.name)
    return {"train": train.take(kept.tolist()), "val": train.take(held_out.tolist()), "test": splits["test"]}
