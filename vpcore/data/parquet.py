"""Image sets in Parquet files, in the Hugging Face image layout, checked against their `dataset.json`.

NAME/dataset.json                        {"name", "classes": [...], "splits": {"train": n, "test": n}, ...}
NAME/train-00000-of-00003.parquet ...    columns image = {bytes, path} and label = int64
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from vpcore.data.decoding import BLOCK, Readable, opened
from vpcore.data.digests import file_digest
from vpcore.data.image_set import ImageSet
from vpcore.errors import InputError


def open_set(path: Path) -> ImageSet:
    """Open the image set in a folder, checked against its `dataset.json`, without reading an image.

    Args:
        path: the folder; its name is that of the set.

    Returns:
        The set; it is known by the names of its classes and every byte of its shards.

    Raises:
        InputError: for a folder without a well-formed `dataset.json`, for shards that are missing or damaged, for other
            columns or other counts, and for a row without a label of a class; every complaint names what is wrong and what
            to do.
    """
    card = path / "dataset.json"
    if not card.is_file():
        raise InputError(f"{path} has no dataset.json; it must list the classes and the splits with their counts")
    try:
        facts = json.loads(card.read_text())
        names, counts = facts["classes"], {split: int(facts["splits"][split]) for split in ("train", "test")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{card} must hold `classes` and `splits` with counts of train and test; got {error!r}") from error
    strings = isinstance(names, list) and all(isinstance(name, str) for name in names)
    twice = sorted({name for name in names if names.count(name) > 1}) if strings else []
    if not strings or not names or twice:
        raise InputError(
            f"`classes` in {card} must be a list of names, all different, in the order of the labels; got "
            f"{f'{twice} more than once' if twice else repr(names)}; put it right"
        )
    if empty := [split for split, count in counts.items() if count < 1]:
        raise InputError(
            f"{path} must have at least one image of train and of test; it has none of {' and of '.join(empty)}; see "
            f"`splits` in {card}"
        )
    classes, shards = tuple(names), {split: _shards(path, split) for split in counts}
    labels = {split: torch.cat([_labels(file) for file in files]) for split, files in shards.items()}
    for split, count in counts.items():
        if len(labels[split]) != count:
            raise InputError(
                f"{path} must hold {count:,} {split} images, as its dataset.json says; the shards hold "
                f"{len(labels[split]):,}; copy it again"
            )
    return ImageSet(
        path.name,
        path,
        classes,
        labels,
        lambda split, rows: _images(shards[split], rows),
        lambda: (classes, {split: [file_digest(file) for file in files] for split, files in shards.items()}),
    )


def _shards(path: Path, split: str) -> list[Path]:
    files = sorted(path.glob(f"{split}-*.parquet"))
    totals = {int(m[1]) for p in files if (m := re.search(r"-of-(\d+)\.parquet$", p.name))}
    if not files or totals != {len(files)}:
        raise InputError(
            f"{path} must hold all shards {split}-0000K-of-0000N.parquet; got {[p.name for p in files] or 'none'}; "
            "copy the missing ones"
        )
    return files


@contextmanager
def read(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file; raises an `InputError` where it is damaged or none."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged or no Parquet file ({error}); copy or fetch it again") from error


def _labels(path: Path) -> Tensor:
    """(n,) int64 labels of a file, once its columns are found to be the right ones."""
    with read(path) as file:
        types = {field.name: field.type for field in file.schema_arrow}
        image, label = (types.get(name, pa.null()) for name in ("image", "label"))
        encoded = {field.name: field.type for field in image}.get("bytes") if pa.types.is_struct(image) else None
        if encoded not in (pa.binary(), pa.large_binary()) or not pa.types.is_integer(label):
            raise InputError(
                f"{path} must have a column `image` of {{bytes, path}} and a column `label` of integers; it has "
                f"{', '.join(f'{name}: {kind}' for name, kind in types.items())}; write it anew with these"
            )
        column = file.read(columns=["label"])["label"]
    if column.null_count:
        raise InputError(
            f"every row of {path} must have a label; {column.null_count} of {len(column)} have none; label them, or drop "
            "them and correct the counts in dataset.json"
        )
    return torch.from_numpy(column.to_numpy().astype(np.int64))


def _images(files: list[Path], rows: Tensor) -> Iterator[Readable]:
    """Some rows of some files, which must ascend; a block of rows is held at a time."""
    passed = 0
    for path in files:
        start = passed
        with read(path) as file:
            for batch in file.iter_batches(BLOCK, columns=["image"]):
                block = batch.column("image").field("bytes")
                for row in (rows[(rows >= passed) & (rows < passed + len(block))] - passed).tolist():
                    name = f"the image in {path}, row {passed - start + row}"
                    yield name, partial(_open, block[row].as_py())
                passed += len(block)


def _open(encoded: bytes) -> Image.Image:
    return opened(io.BytesIO(encoded))
