"""Image sets by name, as uint8 tensors with labels.

Built-in tasks (`BUILTIN`) are drawn (`drawn`) or come with scikit-learn and need no download. All others lie below the
data folder DIR:

    tv-NAME      DIR/tv/      a torchvision root, with the official splits       (`torchvision_sets`)
    coop-NAME    DIR/coop/    CoOp's folders and split files                     (`coop`)
    NAME         DIR/NAME/    Parquet files in the Hugging Face layout           (`parquet`, `hub`)

Images are decoded once, resized to the size a run needs, and kept as one uint8 file that is memory-mapped from then on: one
byte a value, whatever the number of runs.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vpcore.data import coop, drawn, hub, torchvision_sets
from vpcore.data.image_set import ImageSet
from vpcore.data.images import Images
from vpcore.data.parquet import ParquetFolder
from vpcore.data.splits import SPLITS, check_count, first, hold_out
from vpcore.errors import InputError, WriteError, unknown
from vpcore.files import write_atomically


def load(
    task: str,
    split: str,
    *,
    px: int,
    per_class: int | None = None,
    folder: Path | None = None,
    cache: Path | None = None,
) -> Images:
    """The images of one split of a task, resized to px x px.

    Args:
        task: a key of `BUILTIN`, `torchvision_sets.SETS` or `coop.SETS`, or the name of a folder of Parquet files.
        split: "train", "val" or "test".
        px: side of the images, in pixels. The whole image is resized; the aspect ratio is not kept, as in the paper.
        per_class: at most so many images a class, the same ones at every size; None for all.
        folder: the data folder; built-in tasks do not need it.
        cache: where decoded images are kept; None decodes anew at every call.

    Raises:
        InputError: for an unknown task or split, a size or number that is not positive, or a folder that is missing,
            incomplete or mislabelled.

    >>> digits = load("digits", "test", px=8, per_class=2)
    >>> digits.images.shape, digits.classes[:3]
    (torch.Size([20, 3, 8, 8]), ('0', '1', '2'))
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    check_count("per_class", per_class)
    if not (isinstance(px, Integral) and px >= 1):
        raise InputError(f"`px` must be a whole number of pixels, at least 1, got {px!r}")
    name = f"{task}-{split}-{px}px-{per_class or 'all'}"
    if task in BUILTIN:
        name += f"-{_code()}"

        def read() -> Images:
            return _resize(_limit(BUILTIN[task][1](split), per_class, task), px)
    else:
        source = _source(task, folder)
        name += f"-{source.fingerprint}"

        def read() -> Images:
            labels = source.labels(split)
            rows = first(labels, per_class, task).sort().values
            return Images(source.decode(split, rows, px), labels[rows], source.classes)

    return read() if cache is None else _cached(Path(cache) / name, read)


def classes(task: str, *, folder: Path | None = None) -> tuple[str, ...]:
    """The names of the classes of a task, in the order of the labels.

    Raises:
        InputError: for an unknown task, or a folder that is missing or incomplete.
    """
    return BUILTIN[task][0] if task in BUILTIN else _source(task, folder).classes


def fetch(task: str, folder: Path, *, source: hub.Source | None = None, revision: str | None = None) -> Path:
    """Download an image set to where `load` looks for it: what `vpcore fetch` does.

    Args:
        task: a key of `torchvision_sets.SETS` or of `hub.HUB_SETS`, or the name to give the set of `source`.
        folder: the data folder; it is made.
        source: which Hugging Face data set; None for the one that `hub.HUB_SETS` lists.
        revision: the commit of that data set. torchvision has its own checksums and takes none.

    Returns:
        The folder that holds the set.

    Raises:
        InputError: when the set cannot be had that way; the message says which way there is.
    """
    folder = Path(folder)
    if task in BUILTIN or (source is not None and task.split("-")[0] in ("tv", "coop")):
        raise InputError(
            f"what is fetched as {task!r} would never be read: the name is that of a built-in task, or kept for torchvision "
            "and CoOp (tv-..., coop-...); give the set another name, or leave --repo out"
        )
    if task in torchvision_sets.SETS and revision is not None:
        raise InputError(
            f"`revision` is of sets on the Hugging Face hub, and torchvision fetches {task} with its own checksums; got "
            f"{revision!r}; leave --revision out"
        )
    if task in coop.SETS:
        raise InputError(coop.instructions(task, folder / "coop"))
    if source is None and task not in torchvision_sets.SETS and task not in hub.HUB_SETS:
        raise unknown("image set to fetch", task, [*torchvision_sets.SETS, *hub.HUB_SETS])
    try:
        if task in torchvision_sets.SETS:
            return torchvision_sets.fetch(task, folder / "tv")
        return hub.fetch(source or hub.HUB_SETS[task], name=task, revision=revision, folder=folder)
    except OSError as error:
        raise WriteError(f"cannot write below {folder} ({error}); it must be a folder with room for the set") from error


def _source(task: str, folder: Path | None) -> ParquetFolder | ImageSet:
    if folder is None:
        raise InputError(
            f"the task {task!r} is not built in ({', '.join(sorted(BUILTIN))}), so `data` must name a folder that holds "
            "it; use --data DIR or set VPCORE_DATA"
        )
    if not Path(folder).is_dir():
        raise InputError(
            f"`data` must be a folder of image sets; there is no folder {folder}; use --data DIR or set VPCORE_DATA"
        )
    if task in torchvision_sets.SETS or task in coop.SETS:
        return _opened(task, Path(folder))
    if Path(task).name != task or not (Path(folder) / task).is_dir():
        parquet = [path.parent.name for path in Path(folder).glob("*/dataset.json")]
        raise unknown(f"task in {folder}:", task, [*BUILTIN, *parquet, *torchvision_sets.SETS, *coop.SETS])
    return ParquetFolder.open(Path(folder) / task)


@functools.lru_cache
def _opened(task: str, folder: Path) -> ImageSet:
    """A set of single files, looked through once per process: there can be a million of them."""
    if task in coop.SETS:
        return coop.open_set(task, folder / "coop")
    return torchvision_sets.open_set(task, folder / "tv")


def _limit(images: Images, per_class: int | None, task: str) -> Images:
    rows = first(images.labels, per_class, task).sort().values
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


@functools.lru_cache
def _code() -> str:
    """Eight digits for the code that makes the built-in images: when it changes, they are made again."""
    return f"{zlib.crc32(Path(__file__).read_bytes() + Path(drawn.__file__).read_bytes()):08x}"


# Built-in tasks ------------------------------------------------------------------------------------------------------

DRAWN_PER_CLASS = {"glyphs": (200, 20, 40)}  # train, val, test
DRAWN_SEED = {"train": 0, "val": 1, "test": 2}


def _drawn(task: str) -> Callable[[str], Images]:
    def read(split: str) -> Images:
        per_class = DRAWN_PER_CLASS.get(task, (40, 15, 60))[SPLITS.index(split)]
        images, labels = drawn.draw(task, per_class=per_class, px=32, seed=DRAWN_SEED[split])
        return Images(images, labels, drawn.TASKS[task][0])

    return read


def _digits(split: str) -> Images:
    """The 1,797 handwritten digits (8 x 8 px) that come with scikit-learn; 100 of each class are the test split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the task 'digits' needs scikit-learn; use: pip install 'vpcore[book]'") from error
    bunch = load_digits()
    grey = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    test = first(labels, 100, "test digits").sort().values
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[test] = False
    rest = rest.nonzero()[:, 0]
    train, val = hold_out(labels[rest], "digits")
    rows = {"train": rest[train], "val": rest[val], "test": test}[split]
    return Images(grey[rows, None].repeat(1, 3, 1, 1), labels[rows], BUILTIN["digits"][0])


# name -> (classes, the images of a split at their native size)
BUILTIN: dict[str, tuple[tuple[str, ...], Callable[[str], Images]]] = {
    "digits": (tuple("0123456789"), _digits),
    **{name: (names, _drawn(name)) for name, (names, _) in drawn.TASKS.items()},
}
