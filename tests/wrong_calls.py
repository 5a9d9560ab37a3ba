"""Calls of public functions that are wrong in one argument, drawn up from tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

Calls = Mapping[str, tuple[Any, Mapping[str, object]]]  # name -> (function, arguments that are right)
Wrong = Mapping[Any, Sequence[object]]


def bad_calls(calls: Calls, wrong: Wrong, wrong_here: Wrong) -> list[Any]:
    """(call, argument, what it must not be) for every argument of every call.

    Args:
        calls: name of a call -> (function, arguments that are right).
        wrong: name of an argument -> values that no function takes.
        wrong_here: (call, argument) -> values in their place, for one call.
    """
    return [
        pytest.param(call, name, value, id=f"{call}-{name}-{number}")
        for call, (_, arguments) in calls.items()
        for name in arguments
        for number, value in enumerate(wrong_here.get((call, name), wrong.get(name, ())))
    ]
