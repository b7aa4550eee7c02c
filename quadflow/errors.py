"""Errors that more than one module raises, and the wording they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(word: str, choices: Iterable[str]) -> str:
    """Text for an error about an unknown name: the nearest of the known ones, then all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(str(word), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


def real_number(value: Any, name: str) -> float:
    """An argument as a float.

    Raises:
        TypeError: it is no real number (text, complex, several numbers), named with its value.
    """
    try:
        if isinstance(value, str):
            raise ValueError("text")
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"{name} must be a real number, got {value!r}") from error


class VelocityError(ValueError):
    """The user's function returned something that is no velocity of the given state."""


class StiffnessWarning(UserWarning):
    """Stability, not accuracy, holds the steps of an explicit method small (`solve`: on_stiff)."""


class EventWarning(UserWarning):
    """A terminal event is zero where the solve starts, and its zero there went unheeded."""


class CompileError(RuntimeError):
    """The step could not be compiled with the user's function."""
