"""Checks of arguments: each is refused by its own name, with its value.

What is checked on tensors stands with what it belongs to: times in `equations.times`, tolerances in
`control.tolerances`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import Any

import numpy as np

from .errors import nearest


def real_number(value: Any, name: str) -> float:
    """An argument as a float.

    Raises:
        TypeError: it is no real number (text, bool, complex, several numbers).
    """
    try:
        if isinstance(value, (str, bool, np.bool_)):
            raise ValueError("no number")
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"{name} must be a real number, got {value!r}") from error


def as_integer(value: Any, name: str) -> int:
    """An argument as an int; NumPy's integers are taken, bool and float are not.

    Raises:
        TypeError: it is no integer.
    """
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError("a bool")
        return operator.index(value)
    except TypeError as error:
        raise TypeError(
            f"{name} must be an integer, got {value!r} ({type(value).__name__})"
        ) from error


def is_integer(value: Any, least: int) -> bool:
    """Whether a value is an integer (Python's or NumPy's, and no bool) and no less than `least`."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return integer and bool(value >= least)


def integer_from(least: int, value: Any, name: str, otherwise: str = "") -> int:
    """An argument as an int >= least. otherwise: what else it may be, for the message.

    Raises:
        ValueError: it is no integer, or a smaller one.
    """
    if not is_integer(value, least):
        raise ValueError(f"{name} must be an integer >= {least}{otherwise}, got {value!r}")
    return int(value)


def check_choice(value: Any, choices: Collection[str], name: str) -> None:
    """Refuse what is none of the choices, naming the nearest of them.

    Raises:
        ValueError: it is none.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown: {nearest(value, choices)}")


def check_positive(**given: float) -> None:
    """Refuse numbers that are not positive, or not finite.

    Raises:
        ValueError: one of the arguments is neither.
    """
    for name, value in given.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be positive, got {value}")


def check_booleans(**given: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        TypeError: one of the arguments is neither.
    """
    for name, value in given.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be True or False, got {value!r}")


def check_callable(value: Any, name: str, signature: str = "") -> None:
    """Refuse what cannot be called. signature: how it will be called, for the message.

    Raises:
        TypeError: it cannot be.
    """
    if not callable(value):
        how = f" as {signature}" if signature else ""
        raise TypeError(f"{name} must be callable{how}, got {value!r}")
