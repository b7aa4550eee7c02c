"""Errors that more than one module raises, and the wording they share."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


def nearest(word: object, choices: Iterable[str]) -> str:
    """Text for an error about an unknown name: the nearest of the known ones, then all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(str(word), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


def caller_level() -> int:
    """The stacklevel at which a warning names the first caller from outside the library; for a
    warning raised by the function that calls this."""
    level, frame = 1, sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


class VelocityError(ValueError):
    """The user's function returned something that is no velocity of the given state."""


class StiffnessWarning(UserWarning):
    """Stability, not accuracy, holds the steps of an explicit method small (`solve`: on_stiff)."""


class RoundingWarning(UserWarning):
    """func changes by more than the tolerance where t moves by its own rounding, far from t = 0."""


class ToleranceWarning(UserWarning):
    """A tolerance was below what the state's dtype holds, and was raised to that."""


class EventWarning(UserWarning):
    """A terminal event is zero where the solve starts, and its zero there went unheeded."""


class CompileError(RuntimeError):
    """The step could not be compiled with the user's function."""
