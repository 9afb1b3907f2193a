"""Single values as a person passes them: taken as they are meant, or refused by name."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from .errors import InputError


def read_integer(name: str, value: Any, *, at_least: int, at_most: int | None = None) -> int:
    """Returns an integer within its limits, NumPy's included.

    Raises:
        InputError: It is none, or outside.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = at_least - 1
    if number < at_least or (at_most is not None and number > at_most):
        limit = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise InputError(f"{name} is {value!r}, expected an integer {limit}")
    return number


def read_number(name: str, value: Any) -> float:
    """Returns a number as Python's own float.

    Raises:
        InputError: It is none; a string is none either.
    """
    if not isinstance(value, str | bytes | bytearray):
        with suppress(TypeError, ValueError, OverflowError):
            return float(value)
    raise InputError(f"{name} is {value!r}, expected a number")


def read_strings(name: str, value: str | Sequence[str]) -> tuple[str, ...]:
    """Returns one or several strings as a tuple.

    Raises:
        InputError: One of them is no string, or empty.
    """
    strings = (value,) if isinstance(value, str) else tuple(value)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise InputError(f"{name}: found {string!r}, expected strings that are not empty")
    return strings
