"""Tasks that need no download: drawn by our own code (`drawn`), or shipped with scikit-learn.

digits             1,797 handwritten digits of 8 x 8 px (Alpaydin & Kaynak 1998), with scikit-learn
glyphs, shapes,
and six others     see `drawn`; at 32 px, resized from there
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from vpcore.data import drawn
from vpcore.data.digests import digest_of
from vpcore.data.images import Images
from vpcore.data.splits import SPLITS, first, hold_out
from vpcore.errors import InputError

DRAWN_PER_CLASS = {"glyphs": (200, 20, 40)}  # train, val, test
DRAWN_PX = 32
DRAWN_SEED = {"train": 0, "val": 1, "test": 2}


def read_builtin(task: str, split: str, px: int, per_class: int | None) -> Images:
    """Draw or read a split of a task, at most `per_class` images a class, resized (bilinear, with antialiasing)."""
    whole = BUILTIN[task][1](split)
    rows = first(whole.labels, per_class, task).sort().values
    images = whole.images[rows]
    if images.shape[-1] != px:
        resized = F.interpolate(images.float(), size=px, mode="bilinear", antialias=True, align_corners=False)
        images = resized.round().clamp(0, 255).to(torch.uint8)
    return Images(images, whole.labels[rows], whole.classes)


@functools.cache
def builtin_digest(task: str) -> str:
    """12 hexadecimal digits for the images of a task: all digits; of a drawn task a sample, and how the rest are drawn."""
    if task == "digits":
        return digest_of(*((part.images.numpy().tobytes(), part.labels.tolist()) for part in map(_digits, SPLITS)))
    images, _ = drawn.draw(task, per_class=2, px=DRAWN_PX, seed=0)
    return digest_of(BUILTIN[task][0], DRAWN_PX, _drawn_per_class(task), DRAWN_SEED, images.numpy().tobytes())


def _drawn(task: str) -> Callable[[str], Images]:
    def read(split: str) -> Images:
        per_class = _drawn_per_class(task)[SPLITS.index(split)]
        images, labels = drawn.draw(task, per_class=per_class, px=DRAWN_PX, seed=DRAWN_SEED[split])
        return Images(images, labels, drawn.TASKS[task][0])

    return read


def _drawn_per_class(task: str) -> tuple[int, int, int]:
    return DRAWN_PER_CLASS.get(task, (40, 15, 60))


def _digits(split: str) -> Images:
    """The digits of scikit-learn; 100 of each class are the test split."""
    bunch = _load_digits()
    grey = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)
    labels = torch.from_numpy(bunch.target).long()
    test = first(labels, 100, "test digits").sort().values
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[test] = False
    rest = rest.nonzero()[:, 0]
    train, val = hold_out(labels[rest], "digits")
    rows = {"train": rest[train], "val": rest[val], "test": test}[split]
    return Images(grey[rows, None].repeat(1, 3, 1, 1), labels[rows], BUILTIN["digits"][0])


def _load_digits() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the task 'digits' needs scikit-learn; use: pip install 'vpcore[book]'") from error
    return load_digits()


# name -> (classes, the images of a split at their native size)
BUILTIN: dict[str, tuple[tuple[str, ...], Callable[[str], Images]]] = {
    "digits": (tuple("0123456789"), _digits),
    **{name: (names, _drawn(name)) for name, (names, _) in drawn.TASKS.items()},
}
