"""Parameters of a notebook: a first cell of defaults, which papermill's own cell may replace, each by its type."""

from __future__ import annotations

import ast
from typing import Any

from vpcore.errors import InputError, unknown

PARAMETERS = ("notebook", "profile", "toy", "device", "data", "results", "output", "grids")


def check_parameters(namespace: dict[str, Any]) -> None:
    """Refuse parameters that the notebook does not have, or whose type is another than that of the default.

    papermill puts its parameters in a cell of their own and does not mind unknown ones; a typing error would silently give
    the default. This compares what that cell assigns with what the cell of defaults assigns.

    Args:
        namespace: `globals()` of the notebook.

    Raises:
        InputError: naming the parameter.
    """
    cells = [source for source in namespace["In"] if source.strip()]
    defaults = assigned(cells[0])
    for cell in cells[1:]:
        if not cell.lstrip().startswith("# Parameters"):
            continue
        for name, value in assigned(cell).items():
            _check_parameter(name, value, defaults)


def assigned(source: str) -> dict[str, object]:
    """Names and literal values that a cell of parameters assigns."""
    statements = [s for s in ast.parse(source).body if isinstance(s, ast.Assign)]
    try:
        return {s.targets[0].id: ast.literal_eval(s.value) for s in statements if isinstance(s.targets[0], ast.Name)}
    except ValueError as error:
        raise InputError(
            f"parameters must be numbers, text, lists or truth values, got\n{source}\nuse such values"
        ) from error


def _check_parameter(name: str, value: object, defaults: dict[str, object]) -> None:
    if name not in defaults:
        raise unknown("parameter", name, defaults)
    wanted = type(defaults[name])
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise InputError(f"parameter `{name}` must be {wanted.__name__}, such as {defaults[name]!r}, got {value!r}")
