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
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vpcore.data.builtin import BUILTIN
from vpcore.data.class_folders import REMEDY, Listing, holds_class_folders, list_images
from vpcore.data.decoding import BLOCK, decode, opened
from vpcore.data.parquet import ParquetFolder
from vpcore.data.splits import hold_out
from vpcore.errors import InputError, WriteError

SCHEMA = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()})
SPLIT_LIKE = ("dev", "test", "testing", "train", "training", "val", "valid", "validation")  # no names of classes
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
    folder = Path(folder)
    name = folder.resolve().name if name is None else name
    splits = _splits(folder, name, test_share)
    try:
        with new_set(name, Path(out)) as made:
            counts = {split: write_shard(_shard(made, split), _rows(listing, folder)) for split, listing in splits.items()}
            write_card(made, splits["train"].classes, counts, origin={})
    except OSError as error:
        raise WriteError(f"cannot write below {out} ({error}); it must be a folder with room for the set") from error
    return Path(out) / name


def _splits(folder: Path, name: str, test_share: float) -> dict[str, Listing]:
    """The images of train and test, in folders of their own or drawn."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    given = [name for name in names if name.lower() in SPLIT_LIKE and holds_class_folders(folder / name)]
    if given:
        if given != ["test", "train"]:
            raise InputError(
                f"{folder} must hold class folders, or train and test that hold them; it holds {' and '.join(given)}; "
                "rename them; validation images are cut from train whenever the set is read, so put others into train; "
                f"where there is no test, pack {folder / given[-1]} under the name of the set, and test is drawn"
            )
        train = list_images(folder / "train")
        return {"train": train, "test": list_images(folder / "test", classes=train.classes)}
    if not 0 < test_share < 1:
        raise InputError(f"`test_share` must lie in (0, 1), got {test_share}: the part of each class that becomes test")
    whole = list_images(folder)
    parts = hold_out(torch.tensor(whole.labels), f"test {name}", share=test_share, most=None)
    splits = {}
    for split, rows in zip(("train", "test"), map(torch.Tensor.tolist, parts), strict=True):
        splits[split] = Listing(whole.classes, [whole.files[row] for row in rows], [whole.labels[row] for row in rows])
        if not rows:
            raise InputError(
                f"{split} would have no images: {folder} has at most {max(Counter(whole.labels).values())} a class, and "
                f"{test_share:g} of each class becomes test; add images, give another share, or make folders train and test"
            )
    return splits


def _rows(listing: Listing, folder: Path) -> Iterator[tuple[pa.Array, pa.Array, pa.Array]]:
    """The encoded images, their paths below the folder and their labels, batch by batch, each image decoded as a test."""
    for start in range(0, len(listing.files), BLOCK):
        files, labels = listing.files[start : start + BLOCK], listing.labels[start : start + BLOCK]
        named = ((f"the image {file}", partial(opened, file)) for file in files)
        decode(named, count=len(files), px=1, remedy=REMEDY)
        paths = [file.relative_to(folder).as_posix() for file in files]
        yield pa.array([file.read_bytes() for file in files], pa.binary()), pa.array(paths), pa.array(labels)


# What writes sets, and `hub` uses too ---------------------------------------------------------------------------------


@contextmanager
def new_set(name: str, folder: Path) -> Iterator[Path]:
    """A temporary folder to write a set into, which becomes `folder`/`name` once it is whole, or vanishes.

    Raises:
        InputError: for a name that is none, a set that exists, and when what was written is no set.
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"`name` must consist of letters, digits, - and _, since it names a folder; got {name!r}")
    if name in BUILTIN or name.startswith(("tv-", "coop-")):
        raise InputError(
            f"`name` must be free, but {name!r} is built in, or kept for torchvision and CoOp (tv-..., coop-...); give "
            "another"
        )
    path = Path(folder) / name
    if path.exists():
        raise InputError(f"{path} exists already; delete it to make it anew, or give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".new-{name}.*"):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".new-{name}.", dir=path.parent) as temporary:
        made = Path(temporary) / name
        made.mkdir()
        yield made
        ParquetFolder.open(made)
        made.replace(path)


def write_shard(path: Path, rows: Iterable[tuple[pa.Array, pa.Array, pa.Array]]) -> int:
    """Write batches of encoded images, their paths and their labels as one Parquet file; returns the number of images."""
    count = 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for encoded, paths, labels in rows:
            images = pa.StructArray.from_arrays([encoded.cast(pa.binary()), paths.cast(pa.string())], ["bytes", "path"])
            writer.write_table(pa.table([images, labels.cast(pa.int64())], schema=SCHEMA))
            count += len(labels)
    return count


def write_card(made: Path, classes: Sequence[str], counts: dict[str, int], origin: Mapping[str, object]) -> None:
    """Write the `dataset.json` of a set; `origin` is what more it says, such as where the set is from."""
    card = {"name": made.name, "classes": list(classes), "splits": counts, **origin}
    (made / "dataset.json").write_text(json.dumps(card, indent=1))


def _shard(made: Path, split: str) -> Path:
    return made / f"{split}-00000-of-00001.parquet"
