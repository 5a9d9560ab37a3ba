"""Image sets as uint8 tensors with labels, their splits, and few-shot budgets.

A task is a name. Built-in tasks (`BUILTIN`) are drawn or come with scikit-learn and need no download. Any other name is a
folder below the data folder that holds Parquet files in the Hugging Face image layout,

    NAME/dataset.json                        {"name", "classes": [...], "splits": {"train": n, "test": n}, ...}
    NAME/train-00000-of-00003.parquet ...    columns image = {bytes, path} and label = int64

and is checked against its `dataset.json` before use. Images are decoded once, resized to the size a run needs, and kept as
one uint8 file that is memory-mapped from then on: one byte a value, whatever the number of runs.

Splits. `test` is the set's own test split and serves for one evaluation at the end of a run. `val` is cut from the training
images (a fifth of each class, at most 50 images) for every choice that has to be made; `train` is the rest. A budget of N
shots is the first N images of each class in an order that depends on the task and the seed alone, so that budgets are
nested (the 10 shots contain the 1 shot) and dense and compressed networks see the same images.
"""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vpcore import synthetic
from vpcore.errors import InputError, unknown
from vpcore.files import write_atomically

SPLITS = ("train", "val", "test")
VAL_FRACTION, VAL_MOST = 0.2, 50  # of each class


@dataclass(frozen=True)
class Images:
    """A split of an image set: (N, 3, px, px) uint8 `images`, (N,) int64 `labels`, and the names of the classes."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def load(
    task: str, split: str, *, px: int, per_class: int | None = None, folder: Path | None = None, cache: Path | None = None
) -> Images:
    """The images of one split of a task, resized to px x px.

    Args:
        task: a key of `BUILTIN` or the name of a folder of Parquet files below `folder`.
        split: "train", "val" or "test".
        px: side of the images, in pixels. The whole image is resized; the aspect ratio is not kept, as in the paper.
        per_class: at most so many images a class, the same ones at every size; None for all.
        folder: the data folder; built-in tasks do not need it.
        cache: where decoded images are kept; None decodes anew at every call.

    Raises:
        InputError: for an unknown task or split, or a folder that is missing, incomplete or mislabelled.

    >>> digits = load("digits", "test", px=8, per_class=2)
    >>> digits.images.shape, digits.classes[:3]
    (torch.Size([20, 3, 8, 8]), ('0', '1', '2'))
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    name = f"{task}-{split}-{px}px-{per_class or 'all'}"
    if task in BUILTIN:
        def read() -> Images:
            return _resize(_limit(BUILTIN[task](split), per_class, task), px)
    else:
        source = ParquetFolder.open(task, folder)
        name += f"-{source.fingerprint}"

        def read() -> Images:
            rows = source.rows(split)
            return source.decode(split, rows[_first(source.labels(split)[rows], per_class, task)], px)
    return read() if cache is None else _cached(Path(cache) / name, read)


def classes(task: str, *, folder: Path | None = None) -> tuple[str, ...]:
    """The names of the classes of a task, in the order of the labels."""
    return load(task, "test", px=8, per_class=1).classes if task in BUILTIN else ParquetFolder.open(task, folder).classes


def shots(labels: Tensor, budget: int | None, *, task: str, seed: int) -> Tensor:
    """Indices of the images of a few-shot budget: nested in the budget, the same for every network.

    Args:
        labels: (N,) labels of the training split.
        budget: images a class; None for all. A class that has fewer gives all it has (see `saturated`).
        task: with `seed`, fixes the order in which the images of a class are taken.
        seed: see `task`.

    Returns:
        (n,) indices in ascending order.

    >>> labels = torch.tensor([0, 1, 0, 1, 0, 1])
    >>> one, two = (set(shots(labels, n, task="t", seed=0).tolist()) for n in (1, 2))
    >>> len(one), len(two), one < two
    (2, 4, True)
    """
    if budget is not None and budget < 1:
        raise InputError(f"`budget` must be at least 1 image a class, or None for all; got {budget}")
    return _first(labels, budget, f"shots {task} {seed}").sort().values


def saturated(labels: Tensor, budget: int | None) -> bool:
    """Whether some class that occurs has fewer than `budget` images, so that the budget says more than it gives."""
    return budget is not None and bool((torch.bincount(labels).clamp(min=0)[labels.unique()] < budget).any())


def _first(labels: Tensor, count: int | None, key: str) -> Tensor:
    """The first `count` indices of each class in the random order that `key` fixes."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if count is None:
        return order
    return torch.cat([order[labels[order] == c][:count] for c in labels.unique()])


def _hold_out(labels: Tensor, key: str) -> tuple[Tensor, Tensor]:
    """Indices of train and val: a fifth of each class, at most `VAL_MOST` images, is held out."""
    order = _first(labels, None, f"val {key}")
    val = torch.cat([(rows := order[labels[order] == c])[: min(VAL_MOST, int(len(rows) * VAL_FRACTION + 0.5))] for c in labels.unique()])
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[val] = False
    return kept.nonzero()[:, 0], val.sort().values


def _limit(images: Images, per_class: int | None, task: str) -> Images:
    rows = _first(images.labels, per_class, task).sort().values
    return Images(images.images[rows], images.labels[rows], images.classes)


def _resize(images: Images, px: int) -> Images:
    if images.images.shape[-1] == px:
        return images
    resized = F.interpolate(images.images.float(), size=px, mode="bilinear", antialias=True, align_corners=False)
    return Images(resized.round().clamp(0, 255).to(torch.uint8), images.labels, images.classes)


def _cached(stem: Path, read: Callable[[], Images]) -> Images:
    """What `read` returns, from `stem`.npy (memory-mapped) and `stem`.json when they exist."""
    pixels, meta = stem.with_name(stem.name + ".npy"), stem.with_name(stem.name + ".json")
    if not (pixels.exists() and meta.exists()):
        fresh = read()
        write_atomically(pixels, lambda file: np.save(file, fresh.images.numpy()))
        text = json.dumps({"classes": fresh.classes, "labels": fresh.labels.tolist()})
        write_atomically(meta, lambda file: file.write(text.encode()))
    try:
        saved = json.loads(meta.read_text())
        images = torch.from_numpy(np.load(pixels, mmap_mode="c"))  # copy on write: torch wants writable memory
    except (ValueError, EOFError) as error:
        raise InputError(f"the decoded images {pixels} are damaged ({error}); delete the file, it is made again") from error
    return Images(images, torch.tensor(saved["labels"]), tuple(saved["classes"]))


# Built-in tasks ------------------------------------------------------------------------------------------------------

DRAWN_PER_CLASS = {"glyphs": (200, 20, 40)}  # train, val, test
DRAWN_SEED = {"train": 0, "val": 1, "test": 2}


def _drawn(task: str) -> Callable[[str], Images]:
    def read(split: str) -> Images:
        per_class = DRAWN_PER_CLASS.get(task, (60, 15, 60))[SPLITS.index(split)]
        images, labels = synthetic.draw(task, per_class=per_class, px=32, seed=DRAWN_SEED[split])
        return Images(images, labels, synthetic.TASKS[task][0])

    return read


def _digits(split: str) -> Images:
    """The 1,797 handwritten digits (8 x 8 px) that come with scikit-learn; a third of each class is the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the task 'digits' needs scikit-learn; use: pip install 'vpcore[book]'") from error
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    test = _first(labels, 60, "test digits").sort().values
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[test] = False
    rest = rest.nonzero()[:, 0]
    train, val = _hold_out(labels[rest], "digits")
    rows = {"train": rest[train], "val": rest[val], "test": test}[split]
    return Images(grey[rows, None].repeat(1, 3, 1, 1), labels[rows], tuple("0123456789"))


# name -> the images of a split at their native size
BUILTIN: dict[str, Callable[[str], Images]] = {"digits": _digits, **{name: _drawn(name) for name in synthetic.TASKS}}


# Parquet folders -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParquetFolder:
    """An image set in the Hugging Face Parquet layout, checked when it is opened."""

    path: Path
    classes: tuple[str, ...]
    shards: dict[str, list[Path]]
    fingerprint: str

    @classmethod
    def open(cls, task: str, folder: Path | None) -> ParquetFolder:
        """Find and check a folder; every complaint names what is wrong and what to do."""
        if folder is None:
            raise InputError(
                f"the task {task!r} is not built in ({', '.join(sorted(BUILTIN))}), so `data` must name a folder that holds {task}/; "
                "use --data DIR or set VPCORE_DATA"
            )
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"`data` must be a folder of image sets; there is no folder {folder}")
        path = folder / task
        if not path.is_dir():
            raise unknown(f"task in {folder}:", task, [*BUILTIN, *(p.parent.name for p in folder.glob("*/dataset.json"))])
        try:
            card = json.loads((path / "dataset.json").read_text())
            names, counts = tuple(card["classes"]), {split: int(card["splits"][split]) for split in ("train", "test")}
        except FileNotFoundError as error:
            raise InputError(f"{path} has no dataset.json; it must list the classes and the splits with their counts") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}/dataset.json must hold `classes` and `splits` with counts of train and test; got {error!r}") from error
        shards = {split: _shards(path, split, count) for split, count in counts.items()}
        sizes = [(p.name, p.stat().st_size) for files in shards.values() for p in files]
        return cls(path, names, shards, f"{zlib.crc32(repr((names, sizes)).encode()):08x}")

    def labels(self, split: str) -> Tensor:
        """(N,) labels of the file split ("val" is part of train), checked against the classes."""
        values = np.concatenate([pq.read_table(p, columns=["label"])["label"].to_numpy() for p in self._files(split)])
        labels = torch.from_numpy(values.astype(np.int64))
        wrong = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(wrong):
            raise InputError(
                f"labels in {self.path} must lie in 0..{len(self.classes) - 1} (dataset.json lists {len(self.classes)} classes); "
                f"{len(wrong)} do not, the first is {int(wrong[0])}; is dataset.json the right one?"
            )
        return labels

    def rows(self, split: str) -> Tensor:
        """(n,) rows of the file split that belong to `split`."""
        labels = self.labels(split)
        return torch.arange(len(labels)) if split == "test" else _hold_out(labels, self.path.name)[split == "val"]

    def decode(self, split: str, rows: Tensor, px: int) -> Images:
        """The images of some rows, in the order of the file, decoded and resized by two threads."""
        rows = rows.sort().values
        images = torch.empty((len(rows), 3, px, px), dtype=torch.uint8)
        start = done = 0
        for path in self._files(split):  # shard by shard: the encoded bytes of one shard are held at a time
            column = pq.read_table(path, columns=["image"])["image"].combine_chunks().field("bytes")
            mine = rows[(rows >= start) & (rows < start + len(column))] - start
            with ThreadPoolExecutor(2) as pool:
                decoded = pool.map(lambda row: _decode(column[row].as_py(), px, f"{path}, row {row}"), mine.tolist())
                for image in decoded:
                    images[done] = image
                    done += 1
            start += len(column)
        return Images(images, self.labels(split)[rows], self.classes)

    def _files(self, split: str) -> list[Path]:
        return self.shards["test" if split == "test" else "train"]


def _shards(path: Path, split: str, count: int) -> list[Path]:
    files = sorted(path.glob(f"{split}-*.parquet"))
    totals = {int(m[1]) for p in files if (m := re.search(r"-of-(\d+)\.parquet$", p.name))}
    if not files or totals != {len(files)}:
        raise InputError(
            f"{path} must hold all shards {split}-0000K-of-0000N.parquet; got {[p.name for p in files] or 'none'}; copy the missing ones"
        )
    try:
        found = sum(pq.read_metadata(p).num_rows for p in files)
    except (OSError, ValueError) as error:
        raise InputError(f"a shard of {path} is damaged ({error}); copy it again") from error
    if found != count:
        raise InputError(f"{path} must hold {count:,} {split} images, as its dataset.json says; the shards hold {found:,}; copy it again")
    return files


def _decode(encoded: bytes, px: int, where: str) -> Tensor:
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except (OSError, TypeError) as error:
        raise InputError(f"the image in {where} cannot be decoded ({error}); copy the file again") from error
    if image.size != (px, px):
        image = image.resize((px, px), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
