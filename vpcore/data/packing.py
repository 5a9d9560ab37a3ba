"""Packing: a folder of class folders becomes a Parquet image set, which `load` and every study take by its name.

    photos/train/cat/1.jpg ...  photos/test/cat/9.jpg ...   ->   DIR/photos/dataset.json, train-00000-of-00001.parquet, ...
    photos/cat/1.jpg ...                                    ->   the same; the test split is a drawn fifth of each class

The files go into the set byte for byte, so that nothing is lost and what `load` decodes is what they show. Validation images
are cut from train when the set is read, as for every set (`splits`). For example the hand signs (`sign_digits`; Mavi 2020,
Apache-2.0), from their public repository:

    git clone https://github.com/ardamavi/Sign-Language-Digits-Dataset
    git -C Sign-Language-Digits-Dataset checkout 4b09433ef9d5c60602e8805bb54b8aa2428527f8
    vpcore pack Sign-Language-Digits-Dataset/Dataset --name sign_digits --data DIR

    from vpcore.data import load
    load("sign_digits", "test", px=64, folder=DIR)

Whoever wants another size, smaller files or a split of their own makes the folders accordingly.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vpcore.checks import as_path, share
from vpcore.data import parquet
from vpcore.data.builtin import BUILTIN
from vpcore.data.class_folders import Listing, list_images, split_folders
from vpcore.data.decoding import BLOCK
from vpcore.data.splits import hold_out
from vpcore.errors import InputError
from vpcore.files import folder_beside

SCHEMA = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
TEST_SHARE = 0.2  # of each class that becomes test where there is no test folder


def pack(folder: Path | str, out: Path | str, *, name: str | None = None, test_share: float = TEST_SHARE) -> Path:
    """Write a folder of class folders as the Parquet image set `out`/`name`, whole or not at all.

    Args:
        folder: holds the class folders, or the folders train and test that hold them.
        out: the data folder; it is made.
        name: of the set, the task; letters, digits, - and _. None for the name of the folder.
        test_share: of each class that becomes test, in (0, 1), where there is no folder test; drawn by `name`.

    Returns:
        The folder of the set.

    Raises:
        InputError: for a folder that `image_folder` refuses, a file that cannot be decoded, a split without images, other
            classes in test than in train, a folder val (it is cut from train), and a name that is none or is taken.

    >>> import tempfile
    >>> from PIL import Image
    >>> from vpcore.data import load
    >>> folder = Path(tempfile.mkdtemp())
    >>> for number in range(10):
    ...     (folder / f"photos/{'ab'[number % 2]}").mkdir(parents=True, exist_ok=True)
    ...     Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / f"photos/{'ab'[number % 2]}/{number}.png")
    >>> pack(folder / "photos", folder / "data").name
    'photos'
    >>> [len(load("photos", split, px=9, folder=folder / "data")) for split in ("train", "val", "test")]
    [6, 2, 2]
    """
    folder, out = as_path(folder, name="folder"), as_path(out, name="out")
    name = folder.resolve().name if name is None else name
    test_share = share(test_share, name="test_share")
    splits = split_listings(folder, name, test_share)
    with new_set(name, out) as made:
        counts = {}
        for split, listing in splits.items():
            counts[split] = write_shard(made / f"{split}-00000-of-00001.parquet", _batches(listing, folder))
        write_card(made, splits["train"].classes, counts, origin={})
    return out / name


def split_listings(folder: Path, name: str, test_share: float) -> dict[str, Listing]:
    """The images of train and test, in folders of their own or drawn."""
    if given := split_folders(folder):
        if given != ["test", "train"]:
            raise InputError(
                f"{folder} must hold class folders, or train and test that hold them; it holds {' and '.join(given)}; "
                "rename them; validation images are cut from train whenever the set is read, so put others into train; "
                f"where there is no test, pack {folder / given[-1]} under the name of the set, and test is drawn"
            )
        train = list_images(folder / "train")
        return {"train": train, "test": list_images(folder / "test", classes=train.classes)}
    whole = list_images(folder)
    parts = hold_out(torch.tensor(whole.labels), f"test {name}", share=test_share, most=None)
    splits = {split: whole.take(rows.tolist()) for split, rows in zip(("train", "test"), parts, strict=True)}
    for split, listing in splits.items():
        if not listing.files:
            raise InputError(
                f"{split} would have no images: {folder} has at most {max(Counter(whole.labels).values())} a class, and "
                f"{test_share:g} of each class becomes test; add images, give another share, or make folders train and test"
            )
    return splits


def _batches(listing: Listing, folder: Path) -> Iterator[pa.RecordBatch]:
    """The encoded images, their paths below the folder and their labels, each image decoded as a test."""
    for start in range(0, len(listing.files), BLOCK):
        block = listing.take(range(len(listing.files))[start : start + BLOCK])
        block.decode(px=1)
        images = [{"bytes": file.read_bytes(), "path": file.relative_to(folder).as_posix()} for file in block.files]
        yield pa.record_batch({"image": images, "label": block.labels}, schema=SCHEMA)


# What writes sets, and `hub` uses too ---------------------------------------------------------------------------------


@contextmanager
def new_set(name: str, folder: Path) -> Iterator[Path]:
    """A temporary folder to write a set into, which becomes `folder`/`name` once it is whole, or vanishes.

    Raises:
        InputError: for a name that is none, a set that exists, and when what was written is no set.
        WriteError: when the folder cannot be written.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"`name` must consist of letters, digits, - and _, since it names a folder; got {name!r}")
    if name in BUILTIN or name.split("-")[0] in ("tv", "coop"):
        raise InputError(
            f"`name` must be free, but {name!r} is built in, or kept for torchvision and CoOp (tv-..., coop-...); give "
            "another"
        )
    path = folder / name
    if path.exists():
        raise InputError(f"{path} exists already; delete it to make it anew, or give another name")
    with folder_beside(path) as temporary:
        made = temporary / name
        made.mkdir()
        yield made
        parquet.open_set(made)
        made.replace(path)


def write_shard(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write batches of the columns of `SCHEMA` as one Parquet file; returns the number of images."""
    count = 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)
            count += batch.num_rows
    return count


def write_card(made: Path, classes: Sequence[str], counts: dict[str, int], origin: Mapping[str, object]) -> None:
    """Write the `dataset.json` of a set; `origin` is what more it says, such as where the set is from."""
    card = {"name": made.name, "classes": list(classes), "splits": counts, **origin}
    (made / "dataset.json").write_text(json.dumps(card, indent=1))
