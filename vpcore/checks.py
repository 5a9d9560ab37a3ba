"""Checks of arguments: one function for each kind, which returns the argument in the form that is computed with.

What is wrong is an `InputError` that names the argument, the expectation, the value and the way out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vpcore.errors import InputError

Array = Tensor | np.ndarray | Sequence[Any]  # what numbers may be given as: lists of them, too
# the largest whole number and the largest number that any argument takes: what seeds, counts and float32 can hold
MOST, LARGEST = 2**32 - 1, 1e38
SIDE, CLASSES = 4096, 10**6  # the longest side of an image, px, and the largest number of classes
LONGEST = 255  # bytes of the name of a file


def whole_number(value: Any, *, name: str, of: str = "", least: int = 1, most: int = MOST, otherwise: str = "") -> int:
    """A whole number of at least `least` and at most `most`.

    Args:
        value: what was given.
        name: of the argument, for the message.
        of: what is counted, for the message.
        least, most: the least and the greatest number that will do.
        otherwise: what else the caller takes, for the message.

    Raises:
        InputError: for a number outside of these, and for what is no whole number; True and False are none.

    >>> whole_number(0, name="px", of="pixels")
    Traceback (most recent call last):
    vpcore.errors.InputError: `px` must be a whole number of pixels, at least 1, got 0
    """
    value = scalar(value)
    whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if whole is None or not least <= whole <= most:
        kind = f"a whole number of {of}, at least {least}" if of else f"a whole number of at least {least}"
        kind += f" and at most {most}" if whole is not None and whole > most else ""
        raise InputError(f"`{name}` must be {kind}{otherwise}, got {value!r}")
    return whole


def is_real(value: Any) -> bool:
    """Whether a value is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def scalar(value: Any) -> Any:
    """The number in a tensor or an array without dimensions; anything else as it is.

    >>> scalar(torch.tensor(3)), scalar(np.float64(0.5)), scalar("3"), scalar(torch.ones(1))
    (3, 0.5, '3', tensor([1.]))
    """
    return value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value


def number(value: Any, *, name: str, use: str, zero: bool = False, below: float = LARGEST) -> float:
    """A number above 0, or from 0 on if `zero`, and below `below`.

    Args:
        value: what was given.
        name: of the argument, for the message.
        use: what to give instead, for the message.
        zero: whether 0 will do.
        below: what it must stay under.

    Raises:
        InputError: for any other number, for NaN, and for what is no number.

    >>> number(-1, name="lr", use="0.01")
    Traceback (most recent call last):
    vpcore.errors.InputError: `lr` must be a number in (0, 1e+38), got -1; use 0.01
    """
    value = scalar(value)
    if not (is_real(value) and (0 < value < below or (zero and value == 0))):
        raise InputError(f"`{name}` must be a number in {'[' if zero else '('}0, {below}), got {value!r}; use {use}")
    return float(value)


def share(value: Any, *, name: str, ends: bool = False, one: bool = False) -> float:
    """A number in (0, 1), in (0, 1] where `one` will do, or in [0, 1] where both `ends` will.

    Raises:
        InputError: for any other number, and for what is no number.

    >>> share(20, name="density", one=True)
    Traceback (most recent call last):
    vpcore.errors.InputError: `density` must be in (0, 1], got 20; percent? use 0.2
    """
    value = scalar(value)
    if not (is_real(value) and (0 < value < 1 or (ends and value == 0) or ((ends or one) and value == 1))):
        hint = f"percent? use {value / 100:g}" if is_real(value) and 1 <= value < 100 else "use 0.2 for a fifth"
        interval = "[0, 1]" if ends else "(0, 1]" if one else "(0, 1)"
        raise InputError(f"`{name}` must be in {interval}, got {value!r}; {hint}")
    return float(value)


def as_path(value: Any, *, name: str) -> Path:
    """A path that was given as one or as text; anything else, and what no file can be called, is an `InputError`."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise InputError(f"`{name}` must be a path, got {kind_of(value)}; use text or a pathlib.Path")
    path = Path(value)
    if "\0" in str(path) or any(len(os.fsencode(part)) > LONGEST for part in path.parts) or len(os.fsencode(path)) > 4000:
        raise InputError(
            f"`{name}` must be a path that a file can have, of names of at most {LONGEST} bytes and without the character "
            f"NUL, got {str(path)[:40]!r}...; use a shorter name"
        )
    return path


def as_tensor(values: Array, *, name: str) -> Tensor:
    """A tensor as it is, an array or lists of numbers as a tensor, copied only where it must be.

    Raises:
        InputError: for anything else, and for tensors and arrays whose numbers are not all there.
    """
    if isinstance(values, Tensor) and is_dense(values):
        return values
    if isinstance(values, Tensor | np.ma.MaskedArray):
        raise InputError(
            f"`{name}` must be a plain tensor or array, not sparse, quantized, masked or on the device meta; got "
            f"{kind_of(values)}; use to_dense(), dequantize() or filled()"
        )
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError, RuntimeError) as error:  # the last of tensors that want gradients
        raise InputError(f"`{name}` must be a tensor, an array, or lists of numbers of equal length ({error})") from error


def is_dense(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor lie in memory as they are: not sparse, not quantized, not on the device meta."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


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
    if (labels.is_floating_point() or labels.is_complex()) and len(labels):  # of an empty list numpy makes floats
        raise InputError(f"`{name}` must be whole numbers, got {labels.dtype}; use {name}.long()")
    labels = labels.cpu().long()
    if len(labels):
        lowest, highest = map(int, labels.aminmax())
        if lowest < 0 or (classes is not None and highest >= classes):
            most = "" if classes is None else classes - 1
            raise InputError(f"`{name}` must lie in 0..{most}, got {lowest}..{highest}; number the classes from 0")
    return labels


def as_batches(batches: Iterable[Tensor]) -> list[Tensor]:
    """Batches of inputs of a network, (n, 3, H, W) floats as a rule, as a list, which may be empty.

    Raises:
        InputError: for a single tensor, and for batches that are no float tensors or hold nothing.
    """
    several = isinstance(batches, Iterable) and not isinstance(batches, Tensor)
    found: list[Any] = list(batches) if several else [batches]
    good = [several and isinstance(x, Tensor) and x.is_floating_point() and x.numel() > 0 for x in found]
    if not all(good):
        raise InputError(
            "`batches` must be a list of float tensors, (n, 3, H, W) normalised images each, "
            f"got {kind_of(found[good.index(False)])}; use [normalise(images / 255)]"
        )
    return found


def as_device(device: torch.device | str) -> torch.device:
    """A device on which torch can compute here; raises an `InputError` for any other."""
    try:
        found = torch.device(device)
        if not is_dense(torch.empty(0, device=found)):
            raise RuntimeError("tensors on it hold no numbers")
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"`device` must be one that torch can use here, got {device!r} ({error}); use 'cpu'") from error
    return found


def check_state(state: Any, *, where: str = "`state`") -> None:
    """Refuse what is not a state dict, name -> tensor; `where` is what errors call it."""
    if not isinstance(state, Mapping):
        raise InputError(f"{where} must be a state dict, name -> tensor, got {kind_of(state)}; use model.state_dict()")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{where} must be a state dict, name -> tensor, but {name!r} is {kind_of(value)}; leave out all others"
            )


def check_network(model: Any) -> None:
    """Refuse what is no `torch.nn.Module`."""
    if not isinstance(model, nn.Module):
        raise InputError(
            f"`model` must be a torch.nn.Module, got {kind_of(model)}; for a state dict, build the network and load it into "
            "that"
        )
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in model.parameters()):
        raise InputError(f"`model` must have weights, but {type(model).__name__} has none yet; show it an image first")


def check_function(function: Any, *, name: str, use: str) -> None:
    """Refuse what cannot be called; `use`: what to give instead, for the message."""
    if not callable(function):
        raise InputError(f"`{name}` must be a function, got {kind_of(function)}; use {use}")


def kind_of(value: Any) -> str:
    """What was given, for a message: a number or a string as it is, of anything else the type and the shape.

    >>> kind_of(torch.zeros(2, 3)), kind_of(None), kind_of([1, 2])
    ('a tensor of (2, 3) torch.float32', 'None', 'a list')
    """
    if isinstance(value, Tensor):
        return f"a tensor of {tuple(value.shape)} {value.dtype}"
    if value is None or isinstance(value, int | float | str):
        return repr(value)
    return f"a {type(value).__name__}" + (f" of {tuple(value.shape)}" if hasattr(value, "shape") else "")
