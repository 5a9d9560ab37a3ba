"""Image sets by name, as uint8 tensors with labels.

Built-in tasks (`builtin`) are drawn or come with scikit-learn and need no download. All others lie below the
data folder DIR:

    tv-NAME      DIR/tv/      a torchvision root, with the official splits       (`torchvision_sets`)
    coop-NAME    DIR/coop/    CoOp's folders and split files                     (`coop`)
    NAME         DIR/NAME/    Parquet files in the Hugging Face layout           (`parquet`, `hub`)

Images are decoded once, resized to the size a run needs, and kept in a `cache`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import PIL
import torch

from vpcore.checks import SIDE, as_path, whole_number
from vpcore.data import builtin, coop, decoding, drawn, hub, parquet, splits, torchvision_sets
from vpcore.data.builtin import BUILTIN, builtin_digest, read_builtin
from vpcore.data.cache import cached
from vpcore.data.class_folders import holds_class_folders
from vpcore.data.digests import digest_of, made_by
from vpcore.data.image_set import ImageSet
from vpcore.data.images import Images
from vpcore.data.splits import SPLITS, first
from vpcore.errors import InputError, unknown


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
    px = whole_number(px, name="px", of="pixels", most=SIDE)
    if per_class is not None:
        per_class = whole_number(per_class, name="per_class", of="images a class", otherwise=", or None for all")

    def read() -> Images:
        if _is_built_in(task):
            return read_builtin(task, split, px, per_class)
        source = _source(task, folder)
        labels = source.labels(split)
        rows = first(labels, per_class, task).sort().values
        return Images(source.decode(split, rows, px), labels[rows], source.classes)

    if cache is None:
        return read()
    cache = as_path(cache, name="cache")
    code = (builtin, drawn) if _is_built_in(task) else (decoding,)
    key = digest_of(digest(task, folder=folder), made_by(*code, splits, PIL, torch))
    return cached(cache / f"{task}-{split}-{px}px-{per_class or 'all'}-{key}", read)


def classes(task: str, *, folder: Path | None = None) -> tuple[str, ...]:
    """The names of the classes of a task, in the order of the labels.

    Raises:
        InputError: for an unknown task, or a folder that is missing or incomplete.
    """
    return BUILTIN[task][0] if _is_built_in(task) else _source(task, folder).classes


def digest(task: str, *, folder: Path | None = None) -> str:
    """What identifies the images of a task in a record.

    Args:
        task: as `load` takes it.
        folder: the data folder.

    Returns:
        12 hexadecimal digits for the content of a Parquet set (classes and shards), for the images of a built-in task, and
        for the names and sizes of the files of a set of torchvision or CoOp.

    Raises:
        InputError: as `load` does.
    """
    return builtin_digest(task) if _is_built_in(task) else _source(task, folder).digest


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
    folder = as_path(folder, name="folder")
    if source is None:
        if _is_built_in(task):
            raise InputError(f"the task {task!r} is built in and needs no download; leave it out")
        if task in coop.SETS:
            raise InputError(coop.instructions(task, folder / "coop"))
        if task in torchvision_sets.SETS:
            if revision is not None:
                raise InputError(
                    f"`revision` is of sets on the Hugging Face hub, and torchvision fetches {task} with its own checksums; "
                    f"got {revision!r}; leave --revision out"
                )
            return torchvision_sets.fetch(task, folder / "tv")
        if task not in hub.HUB_SETS:
            raise unknown("image set to fetch", task, [*torchvision_sets.SETS, *hub.HUB_SETS])
        source = hub.HUB_SETS[task]
    return hub.fetch(source, name=task, revision=revision, folder=folder)


def _is_built_in(task: object) -> bool:
    if not isinstance(task, str) or not task:
        raise InputError(f"`task` must be the name of an image set, got {task!r}; use one such as 'digits'")
    as_path(task, name="task")
    return task in BUILTIN


def _source(task: str, folder: Path | None) -> ImageSet:
    if folder is None:
        raise InputError(
            f"the task {task!r} is not built in ({', '.join(sorted(BUILTIN))}), so `data` must name a folder that holds "
            "it; use --data DIR or set VPCORE_DATA"
        )
    folder = as_path(folder, name="data")
    if not folder.is_dir():
        raise InputError(
            f"`data` must be a folder of image sets; there is no folder {folder}; use --data DIR or set VPCORE_DATA"
        )
    if task in torchvision_sets.SETS or task in coop.SETS:
        return _opened(task, folder)
    made = folder / task
    for images in () if (made / "dataset.json").exists() else (made, Path(task)):
        if not (images / "dataset.json").exists() and holds_class_folders(images):
            raise InputError(
                f"`task` must be the name of an image set, and {images} is a folder of images; make a set of it first: "
                f"vpcore pack {images} --data {folder}"
            )
    if Path(task).name != task or not made.is_dir():
        sets = [path.parent.name for path in folder.glob("*/dataset.json")]
        raise unknown(f"task in {folder}:", task, [*BUILTIN, *sets, *torchvision_sets.SETS, *coop.SETS])
    return parquet.open_set(made)


@functools.lru_cache
def _opened(task: str, folder: Path) -> ImageSet:
    """A set of single files, looked through once a process: there can be a million of them."""
    if task in coop.SETS:
        return coop.open_set(task, folder / "coop")
    return torchvision_sets.open_set(task, folder / "tv")
