"""Errors that more than one module raises, and the wording they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str:
    """Text for an error about an unknown name: the nearest of the known ones, then all of them."""
    known = sorted(choices)
    close = difflib.get_close_matches(str(word), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


class VelocityError(ValueError):
    """The user's function returned something that is no velocity of the given state."""


class CompileError(RuntimeError):
    """The step could not be compiled with the user's function."""
