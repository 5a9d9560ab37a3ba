"""Faces: a package hands on the public names of its modules, and imports a module when one of its names is first used.

    __all__, __getattr__, __dir__ = face(__name__, {"predictions": "Predictions", "binned": "reliability classwise"})

So `from vpcore.report import Estimate` does not wait for matplotlib, which the plots beside it need (PEP 562).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def face(package: str, names: dict[str, str]) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """What a package's `__all__`, `__getattr__` and `__dir__` are, so that it hands on names lazily.

    Args:
        package: name of the package, its `__name__`.
        names: module below the package -> the names that it hands on, separated by spaces.

    >>> everything, get, listed = face("vpcore", {"errors": "InputError unknown"})
    >>> everything, get("InputError").__name__
    (['InputError', 'unknown'], 'InputError')
    """
    home = {name: module for module, listed in names.items() for name in listed.split()}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return sorted(home), get, lambda: sorted(home)
