"""Image sets in Parquet files, in the Hugging Face image layout, checked against their `dataset.json`.

NAME/dataset.json                        {"name", "classes": [...], "splits": {"train": n, "test": n}, ...}
NAME/train-00000-of-00003.parquet ...    columns image = {bytes, path} and label = int64
"""

from __future__ import annotations

import io
import json
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from vpcore.errors import InputError
from vpcore.image_sets import pixels
from vpcore.splits import hold_out


@dataclass(frozen=True)
class ParquetFolder:
    """An image set in the Hugging Face Parquet layout, checked when it is opened."""

    path: Path
    classes: tuple[str, ...]
    shards: dict[str, list[Path]]
    fingerprint: str

    @classmethod
    def open(cls, path: Path) -> ParquetFolder:
        """Check a folder against its `dataset.json`; every complaint names what is wrong and what to do."""
        try:
            card = json.loads((path / "dataset.json").read_text())
            names, counts = tuple(card["classes"]), {split: int(card["splits"][split]) for split in ("train", "test")}
        except FileNotFoundError as error:
            raise InputError(
                f"{path} has no dataset.json; it must list the classes and the splits with their counts"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}/dataset.json must hold `classes` and `splits` with counts of train and test; got {error!r}"
            ) from error
        shards = {split: _shards(path, split, count) for split, count in counts.items()}
        sizes = [(p.name, p.stat().st_size) for files in shards.values() for p in files]
        return cls(path, names, shards, f"{zlib.crc32(repr((names, sizes)).encode()):08x}")

    def labels(self, split: str) -> Tensor:
        """(n,) labels of a split, checked against the classes."""
        labels = self._file_labels(split)
        return labels[self._rows(split, labels)]

    def decode(self, split: str, rows: Tensor, px: int) -> Tensor:
        """The (n, 3, px, px) uint8 images of some rows of a split, which must ascend; two threads decode."""
        rows = self._rows(split, self._file_labels(split))[rows]
        images = torch.empty((len(rows), 3, px, px), dtype=torch.uint8)
        start = done = 0
        for path in self._files(split):  # shard by shard: the encoded bytes of one shard are held at a time
            column = _column(path, "image").combine_chunks().field("bytes")
            mine = rows[(rows >= start) & (rows < start + len(column))] - start
            with ThreadPoolExecutor(2) as pool:
                encoded = ((column[row].as_py(), f"{path}, row {row}") for row in mine.tolist())
                for image in pool.map(lambda item: _decode(*item, px=px), encoded):
                    images[done] = image
                    done += 1
            start += len(column)
        return images

    def _file_labels(self, split: str) -> Tensor:
        """(N,) labels of the files that hold a split; those of "val" are the files of train."""
        values = np.concatenate([_column(path, "label").to_numpy() for path in self._files(split)])
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
    try:
        found = sum(pq.read_metadata(p).num_rows for p in files)
    except (OSError, ValueError) as error:
        raise InputError(f"a shard of {path} is damaged ({error}); copy it again") from error
    if found != count:
        raise InputError(
            f"{path} must hold {count:,} {split} images, as its dataset.json says; the shards hold {found:,}; copy it again"
        )
    return files


def _column(path: Path, name: str) -> pa.ChunkedArray:
    try:
        return pq.read_table(path, columns=[name])[name]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} must have a column `{name}`; it is damaged or something else ({error}); copy it again"
        ) from error


def _decode(encoded: bytes, where: str, *, px: int) -> Tensor:
    try:
        return pixels(Image.open(io.BytesIO(encoded)), px)
    except (OSError, TypeError) as error:
        raise InputError(f"the image in {where} cannot be decoded ({error}); copy the file again") from error
