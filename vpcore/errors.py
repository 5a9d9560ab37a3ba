"""The one exception for what a user can put right.

`InputError` means: something that was given (an argument, a file, a folder, a disk) is not as expected. Its message names
the argument, the expectation, the value and the way out. The command line prints it without a traceback and exits with 2;
any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class InputError(ValueError):
    """Something that was given is wrong, and the message says how to put it right."""


class WriteError(InputError):
    """A file cannot be written: the folder is read-only or the disk is full, so that going on is pointless."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry; lists the names there are.

    >>> str(unknown("method", "lpp", ["vp", "lp"]))
    "unknown method 'lpp'; did you mean 'lp'? There are: lp, vp"
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}; {hint}There are: {', '.join(names) or '(none)'}")


def entry(kind: str, name: object, registry: Mapping[str, Entry]) -> Entry:
    """The entry of a registry; raises the error of `unknown` for a name that is not in it, or that is no name.

    >>> entry("method", "lp", {"vp": 1, "lp": 2})
    2
    """
    if not isinstance(name, str) or name not in registry:
        raise unknown(kind, name, registry)
    return registry[name]


def difference(expected: Iterable[str], found: Iterable[str], *, most: int = 12) -> str:
    """Names that are missing (-) and names too many (+), one a line, at most `most` of each.

    >>> print(difference(["a", "b"], ["b", "c"]))
      - a
      + c
    """
    expected, found = list(expected), list(found)
    lines = []
    for sign, names in (
        ("-", [n for n in expected if n not in set(found)]),
        ("+", [n for n in found if n not in set(expected)]),
    ):
        lines += [f"  {sign} {name}" for name in names[:most]]
        if len(names) > most:
            lines.append(f"  {sign} ... and {len(names) - most} more")
    return "\n".join(lines)
