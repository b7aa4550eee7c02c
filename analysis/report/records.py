"""Reading back what a study wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def picked(figures: Mapping[str, Any], names: Iterable[str], what: str) -> dict[str, Any]:
    """The named entries of a record, lists as tuples. what: the record is one, for the message.

    Raises:
        ValueError: an entry is missing.
    """
    found = {}
    for name in names:
        if name not in figures:
            raise ValueError(f"this is no {what}: {name!r} is missing")
        value = figures[name]
        found[name] = tuple(value) if isinstance(value, list) else value
    return found
