"""What is learned from: images with labels, rows and seeds of a cohort, and features; each is checked by one function.

As in `vpcore.checks`, a check returns the argument in the form that is computed with, or raises an `InputError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from vpcore.checks import MOST, Array, as_labels, as_tensor, is_dense, kind_of, scalar
from vpcore.errors import InputError


def as_images(
    given: Any, *, name: str, classes: Sequence[str] | None = None, side: int | None = None, why: str = ""
) -> tuple[Tensor, Tensor]:
    """What is learned from or chosen by: (N, 3, px, px) uint8 images and (N,) int64 labels, N at least 1, of `Images`.

    Args:
        given: the argument.
        name: of it, for the message.
        classes: the names that its classes must have; None for any.
        side, why: as for `check_pixels`.

    Raises:
        InputError: for what is not `Images`, and for a part that is not as told.
    """
    if not all(hasattr(given, part) for part in ("images", "labels", "classes")):
        raise InputError(
            f"`{name}` must be Images, got {kind_of(given)}; use Images(images, labels, classes), with the names of the "
            "classes"
        )
    if not isinstance(given.classes, tuple | list) or not given.classes:
        raise InputError(f"`{name}.classes` must be the names of the classes, got {given.classes!r}; use a tuple of strings")
    if classes is not None and tuple(classes) != tuple(given.classes):
        raise InputError(f"`{name}.classes` must be those of `train`, {tuple(classes)}; got {tuple(given.classes)}")
    labels = as_labels(given.labels, name=f"{name}.labels", classes=len(given.classes))
    if not len(labels):
        raise InputError(f"`{name}` must hold at least one image, got none; look at where they were read from")
    check_pixels(given.images, name=f"{name}.images", count=len(labels), side=side, why=why)
    return given.images, labels


def check_pixels(images: Any, *, name: str, count: int | None = None, side: int | None = None, why: str = "") -> None:
    """Refuse images that are not (N, 3, H, W) uint8: those that were scaled to [0, 1] would be almost black.

    Args:
        images: the argument.
        name: of it, for the message.
        count: N, where there must be one for each label.
        side: H and W, px, where there is one side that will do; `why` it is that, for the message.

    Raises:
        InputError: that says what was given.
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InputError(
            f"`{name}` must be a tensor of (N, 3, H, W) images, got {kind_of(images)}; torch.from_numpy makes one of an "
            "array, images.expand(-1, 3, -1, -1) a coloured one of grey images"
        )
    as_tensor(images, name=name)
    if images.dtype != torch.uint8:
        highest = images.max().item() if images.numel() else 0
        scaled = "(images * 255).round().to(torch.uint8)" if highest <= 1 else "images.round().to(torch.uint8)"
        raise InputError(
            f"`{name}` must be uint8 in 0..255, got {images.dtype} up to {highest:g}; use {scaled}, or images that "
            "were neither scaled (ToTensor) nor normalised"
        )
    if count is not None and len(images) != count:
        raise InputError(f"`{name}` must be as many as there are labels, {count}; got {len(images)}")
    if side is not None and images.shape[2:] != (side, side):
        height, width = images.shape[2:]
        raise InputError(f"`{name}` must have a side of {side} px{why}, got {height} x {width}; load them at that size")


def check_takes(network: nn.Module, images: Tensor, *, name: str) -> None:
    """Refuse images on which a network fails.

    Args:
        network: in evaluation mode.
        images: (n, 3, H, W), as the network is shown them; one is enough.
        name: of the argument that their size comes from, for the message.

    Raises:
        InputError: with what the network says.
    """
    try:
        with torch.no_grad():
            network(images)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"`{name}` must be of a size that the network takes, but {type(network).__name__} fails on images of "
            f"{images.shape[2]} x {images.shape[3]} px ({error}); use the size that it was made for, and a network "
            "for images in three colours"
        ) from error


def as_seeds(seeds: Iterable[int] | Array) -> list[int]:
    """K seeds, at least one, as a list; raises an `InputError` for anything else, a single number included.

    >>> as_seeds(range(2)), as_seeds(torch.arange(3))
    ([0, 1], [0, 1, 2])
    """
    several = isinstance(seeds, Iterable) and not isinstance(seeds, str) and getattr(seeds, "ndim", 1) == 1
    found = [scalar(seed) for seed in seeds] if several else []
    good = [isinstance(seed, Integral) and not isinstance(seed, bool) and 0 <= int(seed) <= MOST for seed in found]
    if not found or not all(good):
        raise InputError(
            f"`seeds` must hold a whole number for each run, got {seeds!r}; use (0,) for a single run, and none "
            f"below 0 or above {MOST}"
        )
    return [int(seed) for seed in found]


def as_index(index: Array, *, count: int, members: int | None = None) -> Tensor:
    """Rows of training images as int64.

    Args:
        index: (K, n) which of the images each member learns from.
        count: how many images there are.
        members: K, as many as there are seeds; None for any number.

    Raises:
        InputError: for another shape or type, or rows that are not there.
    """
    rows = as_tensor(index, name="index")
    fractions = rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool
    if fractions or rows.ndim != 2 or not rows.numel():
        raise InputError(
            "`index` must be (K, n) rows of the training images, whole numbers, a row of them for each seed; got "
            f"{kind_of(index)}; use index[None] for a single run, or None for all images"
        )
    if members is not None and len(rows) != members:
        raise InputError(f"`seeds` must be as many as `index` has rows, {len(rows)}; got {members}")
    rows = rows.long()
    low, high = map(int, rows.aminmax())
    if low < 0 or high >= count:
        raise InputError(f"`index` must be in 0..{count - 1}, rows of the {count} training images; got {low} to {high}")
    return rows


def check_features(features: Any, *, name: str, count: int | None = None, width: int | None = None) -> None:
    """Refuse features that are not (N, D) finite floats; N is `count`, D is `width`, None for any number."""
    flat = isinstance(features, Tensor) and features.ndim == 2 and features.is_floating_point() and is_dense(features)
    if not flat or count not in (None, len(features)) or width not in (None, features.shape[1]):
        expected = f"({'N' if count is None else count}, {'D' if width is None else width})"
        raise InputError(
            f"`{name}` must be a float tensor of {expected}, a row for each image, got {kind_of(features)}; use what "
            "`Frozen.features` gives for the images"
        )
    finite = features.isfinite()
    if not bool(finite.all()):
        rows = (~finite.all(1)).nonzero()[:, 0]
        raise InputError(
            f"`{name}` must be finite numbers, got NaN or infinity in {len(rows)} of {len(features)} rows, first in row "
            f"{int(rows[0])}; look at the weights of the network and at the images"
        )


def as_labelled_features(pair: Any, *, name: str, classes: int, width: int | None = None) -> tuple[Tensor, Tensor]:
    """A pair of (N, D) features and (N,) labels, these as int64 on the CPU; raises an `InputError` for anything else."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"`{name}` must be a pair of features and labels, got {kind_of(pair)}; use (features, labels)")
    labels = as_labels(pair[1], name=name, classes=classes)
    if not len(labels):
        raise InputError(f"`{name}` must hold at least one image, got none; look at where they were read from")
    check_features(pair[0], name=name, count=len(labels), width=width)
    return pair[0], labels
