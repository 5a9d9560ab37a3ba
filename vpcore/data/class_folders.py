"""A folder of class folders: the form in which most people have their images.

    photos/cat/001.jpg ...    photos/dog/...                        one split: image_folder("photos", px=64)
    photos/train/cat/...      photos/test/cat/...                   two: image_folder("photos/train", px=64), ...

Every visible file in a class folder, or below it, must be an image that `decoding` reads (PNG, JPEG, WebP, TIFF, BMP, GIF,
...). Labels follow the order of `classes`, which is the order of the names unless another is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vpcore.checks import SIDE, as_path, whole_number
from vpcore.data.decoding import decode, opened
from vpcore.data.images import Images
from vpcore.errors import InputError, difference

SPLIT_NAMES = ("dev", "test", "testing", "train", "training", "val", "valid", "validation")  # no names of classes
REMEDY = "every visible file in a class folder must be an image; mend it, or move it out of the folder"
NO_IMAGES = ("Thumbs.db", "desktop.ini")  # what Windows leaves in folders of images


def image_folder(path: Path | str, *, px: int, classes: Sequence[str] | None = None) -> Images:
    """Read a folder of class folders, each image resized to px x px as a whole.

    Args:
        path: the folder; its folders are the classes, and what is in or below them are the images.
        px: side of the images, in pixels.
        classes: the names of the classes in the order of the labels, such as those of the training images; a class without
            a folder has no images here. None for the names of the folders, sorted.

    Returns:
        (N, 3, px, px) uint8 images and (N,) int64 labels, in the order of classes and file names.

    Raises:
        InputError: for a folder that is missing or has fewer than two class folders, a class without images, a class that is
            not in `classes`, other classes than those of the splits beside it, and a file that cannot be decoded.

    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (folder / name).mkdir()
    ...     Image.new("RGB", (40, 30), "teal").save(folder / name / "1.png")
    >>> photos = image_folder(folder, px=8)
    >>> photos.images.shape, photos.labels.tolist(), photos.classes
    (torch.Size([2, 3, 8, 8]), [0, 1], ('cat', 'dog'))
    """
    px = whole_number(px, name="px", of="pixels", most=SIDE)
    listing = list_images(as_path(path, name="path"), classes=classes)
    return Images(listing.decode(px), torch.tensor(listing.labels), listing.classes)


@dataclass(frozen=True)
class Listing:
    """The files of a folder of class folders.

    Attributes:
        classes: their names, in the order of the labels.
        files: N paths, in the order of classes and names.
        labels: N labels.
    """

    classes: tuple[str, ...]
    files: list[Path]
    labels: list[int]

    def take(self, rows: Sequence[int]) -> Listing:
        """The files of some rows."""
        return Listing(self.classes, [self.files[row] for row in rows], [self.labels[row] for row in rows])

    def decode(self, px: int) -> Tensor:
        """The (N, 3, px, px) uint8 images; raises an `InputError` for a file that cannot be decoded."""
        files = ((f"the image {file}", partial(opened, file)) for file in self.files)
        return decode(files, count=len(self.files), px=px, remedy=REMEDY)


def list_images(path: Path, *, classes: Sequence[str] | None = None) -> Listing:
    """List the images of a folder of class folders, without opening them; arguments and errors as in `image_folder`."""
    if not path.is_dir():
        beside = ", ".join(_folders(path.parent)) if path.parent.is_dir() else ""
        hint = f"; beside it are the folders {beside}" if beside else ""
        raise InputError(f"`path` must be a folder of class folders; there is no folder {path}{hint}")
    found = _folders(path)
    if splits := split_folders(path):
        raise InputError(
            f"`path` must be a folder of class folders, and {path} holds the splits {', '.join(splits)}; name one of them: "
            f"{path / splits[0]}"
        )
    if len(found) < (2 if classes is None else 1):
        raise InputError(
            f"`path` must be a folder of class folders, and {path} holds {f'only {found[0]}' if found else 'no folder'}; "
            "put the images of each class, of two at least, into a folder of its own, named after the class"
        )
    if classes is None:
        _compare_with_other_splits(path, found)
        classes = found
    elif strangers := [name for name in found if name not in classes]:
        raise InputError(f"the folders in {path} must be among `classes`; these are not:\n{difference([], strangers)}")
    files, labels = [], []
    for label, name in enumerate(classes):
        if name not in found:
            continue
        mine = sorted(file for file in (path / name).rglob("*") if _is_wanted(file, path) and not file.is_dir())
        if lost := [file for file in mine if not file.is_file()]:
            raise InputError(f"{lost[0]} must be an image, and is a link that leads nowhere, or a device; delete it")
        if not mine:
            raise InputError(f"every class must have images; the folder {path / name} has none; fill it or delete it")
        files += mine
        labels += [label] * len(mine)
    return Listing(tuple(classes), files, labels)


def split_folders(path: Path) -> list[str]:
    """The folders in a folder that bear the name of a split and hold class folders."""
    names = _folders(path) if path.is_dir() else []
    return [name for name in names if name.lower() in SPLIT_NAMES and holds_class_folders(path / name)]


def holds_class_folders(path: Path) -> bool:
    """Whether some folder in a folder has a file or folder in it: images of a class, or classes of a split."""
    return path.is_dir() and any(_is_wanted(entry, path) for name in _folders(path) for entry in (path / name).iterdir())


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _is_wanted(file: Path, root: Path) -> bool:
    return file.name not in NO_IMAGES and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _compare_with_other_splits(path: Path, found: list[str]) -> None:
    """Labels count the folders of a split, so that a class that only one split has would shift the labels of the other."""
    for other in (path.parent / split for split in SPLIT_NAMES if path.name in SPLIT_NAMES and split != path.name):
        if other.is_dir() and (theirs := _folders(other)) != found:
            raise InputError(
                f"{path} must have the classes of {other}, since labels count them; they differ:\n"
                f"{difference(theirs, found)}\nrename the folders, or give the names of all classes as `classes`"
            )
