"""Image sets in Parquet files, in the Hugging Face image layout, checked against their `dataset.json`.

NAME/dataset.json                        {"name", "classes": [...], "splits": {"train": n, "test": n}, ...}
NAME/train-00000-of-00003.parquet ...    columns image = {bytes, path} and label = int64
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from vpcore.data.decoding import BLOCK, decode, opened
from vpcore.data.digests import digest_of, file_digest
from vpcore.data.splits import hold_out
from vpcore.errors import InputError


@dataclass(frozen=True)
class ParquetFolder:
    """An image set in the Hugging Face Parquet layout, checked when it is opened."""

    path: Path
    classes: tuple[str, ...]
    shards: dict[str, list[Path]]

    @classmethod
    def open(cls, path: Path) -> ParquetFolder:
        """Check a folder against its `dataset.json`, without reading an image or a label.

        Raises:
            InputError: for a folder without a well-formed `dataset.json`, for shards that are missing or damaged, and for
                other columns or other counts; every complaint names what is wrong and what to do.
        """
        try:
            card = json.loads((path / "dataset.json").read_text())
            names, counts = card["classes"], {split: int(card["splits"][split]) for split in ("train", "test")}
        except FileNotFoundError as error:
            raise InputError(
                f"{path} has no dataset.json; it must list the classes and the splits with their counts"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}/dataset.json must hold `classes` and `splits` with counts of train and test; got {error!r}"
            ) from error
        strings = isinstance(names, list) and all(isinstance(name, str) for name in names)
        twice = sorted({name for name in names if names.count(name) > 1}) if strings else []
        if not strings or not names or twice:
            raise InputError(
                f"`classes` in {path}/dataset.json must be a list of names, all different, in the order of the labels; "
                f"got {f'{twice} more than once' if twice else repr(names)}; put it right"
            )
        if empty := [split for split, count in counts.items() if count < 1]:
            raise InputError(
                f"{path} must have at least one image of train and of test; it has none of {' and of '.join(empty)}; see "
                f"`splits` in {path}/dataset.json"
            )
        classes = tuple(names)
        shards = {split: _shards(path, split, count) for split, count in counts.items()}
        return cls(path, classes, shards)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits for the content: the names of the classes, and every byte of the shards."""
        return digest_of(
            self.classes, {split: [file_digest(path) for path in files] for split, files in self.shards.items()}
        )

    def labels(self, split: str) -> Tensor:
        """(n,) int64 labels of a split.

        Raises:
            InputError: for a row without a label, a label that has no class, or a damaged file.
        """
        labels = self._file_labels(split)
        return labels[self._rows(split, labels)]

    def decode(self, split: str, rows: Tensor, px: int) -> Tensor:
        """The (n, 3, px, px) uint8 images of some rows of a split, which must ascend.

        Raises:
            InputError: for an image that is missing or damaged, and as `labels`.
        """
        rows = self._rows(split, self._file_labels(split))[rows]
        return decode(self._encoded(split, rows), count=len(rows), px=px, remedy="copy the file again")

    def _encoded(self, split: str, rows: Tensor) -> Iterator[tuple[str, Callable[[], Image.Image]]]:
        """What `decode` takes, for some rows of the files that hold a split; a block of rows is held at a time."""
        passed = 0
        for path in self._files(split):
            start = 0
            try:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(BLOCK, columns=["image"]):
                        block = batch.column("image").field("bytes")
                        for row in (rows[(rows >= passed) & (rows < passed + len(block))] - passed).tolist():
                            yield f"the image in {path}, row {start + row}", partial(_open, block[row].as_py())
                        start, passed = start + len(block), passed + len(block)
            except (OSError, ValueError) as error:
                raise InputError(f"the column `image` of {path} is damaged ({error}); copy the file again") from error

    def _file_labels(self, split: str) -> Tensor:
        """(N,) labels of the files that hold a split; those of "val" are the files of train."""
        columns = {path: _label_column(path) for path in self._files(split)}
        for path, column in columns.items():
            if column.null_count:
                raise InputError(
                    f"every row of {path} must have a label; {column.null_count} of {len(column)} have none; label them, or "
                    "drop them and correct the counts in dataset.json"
                )
        values = np.concatenate([column.to_numpy() for column in columns.values()])
        labels = torch.from_numpy(values.astype(np.int64))
        wrong = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(wrong):
            raise InputError(
                f"labels in {self.path} must lie in 0..{len(self.classes) - 1}, since its dataset.json lists "
                f"{len(self.classes)} classes; {len(wrong)} do not, the first is {int(wrong[0])}; "
                "is dataset.json the right one?"
            )
        return labels

    def _rows(self, split: str, labels: Tensor) -> Tensor:
        """(n,) rows of the files that belong to a split, in ascending order."""
        return torch.arange(len(labels)) if split == "test" else hold_out(labels, self.path.name)[split == "val"]

    def _files(self, split: str) -> list[Path]:
        return self.shards["test" if split == "test" else "train"]


def _shards(path: Path, split: str, count: int) -> list[Path]:
    files = sorted(path.glob(f"{split}-*.parquet"))
    totals = {int(m[1]) for p in files if (m := re.search(r"-of-(\d+)\.parquet$", p.name))}
    if not files or totals != {len(files)}:
        raise InputError(
            f"{path} must hold all shards {split}-0000K-of-0000N.parquet; got {[p.name for p in files] or 'none'}; "
            "copy the missing ones"
        )
    found = sum(map(_count, files))
    if found != count:
        raise InputError(
            f"{path} must hold {count:,} {split} images, as its dataset.json says; the shards hold {found:,}; copy it again"
        )
    return files


def _count(path: Path) -> int:
    """The number of rows of a file, once its columns are found to be the right ones."""
    try:
        with pq.ParquetFile(path) as file:
            count, types = file.metadata.num_rows, {field.name: field.type for field in file.schema_arrow}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); copy it again") from error
    image, label = (types.get(name, pa.null()) for name in ("image", "label"))
    encoded = {field.name: field.type for field in image}.get("bytes") if pa.types.is_struct(image) else None
    if encoded not in (pa.binary(), pa.large_binary()) or not pa.types.is_integer(label):
        raise InputError(
            f"{path} must have a column `image` of {{bytes, path}} and a column `label` of integers; it has "
            f"{', '.join(f'{name}: {kind}' for name, kind in types.items())}; write it anew with these"
        )
    return count


def _label_column(path: Path) -> pa.ChunkedArray:
    try:
        return pq.read_table(path, columns=["label"])["label"]
    except (OSError, ValueError) as error:
        raise InputError(f"the column `label` of {path} is damaged ({error}); copy the file again") from error


def _open(encoded: bytes) -> Image.Image:
    return opened(io.BytesIO(encoded))
