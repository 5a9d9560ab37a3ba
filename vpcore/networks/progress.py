"""Progress of long work: a bar on the terminal with what is done, and how long the rest takes.

It is drawn on the standard error stream, and only where that is a terminal: nothing appears in a file, a pipe, a notebook or
a test. A study has a display of its own and passes `progress=False`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

Item = TypeVar("Item")


def bar(items: Iterable[Item], what: str, *, unit: str, progress: bool) -> Iterable[Item]:
    """The items as they are, with a bar while they are gone through.

    Args:
        items: what is gone through; how many there are is its `len`.
        what: is done, the words before the bar.
        unit: one of the items.
        progress: whether there is a bar, if there is a terminal.

    >>> list(bar(range(3), "training", unit="epoch", progress=True))
    [0, 1, 2]
    """
    if not progress:  # a bar that is not drawn makes a semaphore, too, which a worker of a study would leave behind
        return items
    try:
        from tqdm import tqdm
    except ImportError:  # as where `bench.gpu_check` finds torch and this package alone
        return items
    return cast(Iterable[Item], tqdm(items, desc=what, unit=unit, leave=False, disable=None))
