"""Checks of arguments: one function for each kind, which returns the argument in the form that is computed with.

What is wrong is an `InputError` that names the argument, the expectation, the value and the way out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpcore.errors import InputError

Array = Tensor | np.ndarray | Sequence[Any]  # what numbers may be given as: lists of them, too


def whole_number(value: Any, *, name: str, of: str = "", least: int = 1, otherwise: str = "") -> int:
    """A whole number of at least `least`.

    Args:
        value: what was given.
        name: of the argument, for the message.
        of: what is counted, for the message.
        least: the least number that will do.
        otherwise: what else the caller takes, for the message.

    Raises:
        InputError: for a number below it, and for what is no whole number; True and False are none.

    >>> whole_number(0, name="px", of="pixels")
    Traceback (most recent call last):
    vpcore.errors.InputError: `px` must be a whole number of pixels, at least 1, got 0
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        kind = f"a whole number of {of}, at least {least}" if of else f"a whole number of at least {least}"
        raise InputError(f"`{name}` must be {kind}{otherwise}, got {value!r}")
    return int(value)


def is_real(value: Any) -> bool:
    """Whether a value is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def share(value: Any, *, name: str, ends: bool = False) -> float:
    """A number in (0, 1), or in [0, 1] where the `ends` will do.

    Raises:
        InputError: for any other number, and for what is no number.

    >>> share(20, name="density")
    Traceback (most recent call last):
    vpcore.errors.InputError: `density` must be in (0, 1), got 20; percent? use 0.2
    """
    if not (is_real(value) and (0 < value < 1 or (ends and value in (0, 1)))):
        percent = f"; percent? use {value / 100:g}" if is_real(value) and 1 < value < 100 else ""
        raise InputError(f"`{name}` must be in {'[0, 1]' if ends else '(0, 1)'}, got {value!r}{percent}")
    return float(value)


def as_path(value: Any, *, name: str) -> Path:
    """A path that was given as one or as text; raises an `InputError` for anything else."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"`{name}` must be a path, got {value!r}")
    return Path(value)


def as_tensor(values: Array, *, name: str) -> Tensor:
    """A tensor as it is, an array or lists of numbers as a tensor, copied only where it must be.

    Raises:
        InputError: for anything else.
    """
    if isinstance(values, Tensor):
        return values
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must be a tensor, an array, or lists of numbers of equal length ({error})") from error


def as_labels(labels: Array, *, name: str = "labels", size: int | None = None, classes: int | None = None) -> Tensor:
    """Labels as an (N,) int64 tensor on the CPU.

    Args:
        labels: (N,) whole numbers: a tensor, an array, or a list.
        name: of the argument, for the message.
        size: N; None for any number.
        classes: T; None for any number.

    Raises:
        InputError: naming what is wrong: the shape, the type, a label outside 0..T-1.
    """
    labels = as_tensor(labels, name=name)
    if labels.ndim != 1 or size not in (None, len(labels)):
        hint = f"; one-hot? use {name}.argmax(1)" if labels.ndim == 2 and labels.shape[1] > 1 else ""
        hint = f"; use {name}.reshape(-1)" if not hint and labels.ndim and labels.numel() == len(labels) == size else hint
        raise InputError(f"`{name}` must have the shape ({'N' if size is None else size},), got {tuple(labels.shape)}{hint}")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"`{name}` must be whole numbers, got {labels.dtype}; use {name}.long()")
    labels = labels.cpu().long()
    if len(labels):
        lowest, highest = map(int, labels.aminmax())
        if lowest < 0 or (classes is not None and highest >= classes):
            most = "" if classes is None else classes - 1
            raise InputError(f"`{name}` must lie in 0..{most}, got {lowest}..{highest}")
    return labels
