"""Results as records for JSON, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from ...storage import json_number


def written(result: Any) -> dict[str, Any]:
    """The entries of a dataclass for JSON, each as `plain` has it."""
    return {f.name: plain(getattr(result, f.name)) for f in fields(result)}


def plain(value: Any) -> Any:
    """A value for JSON: tuples as lists, None for what is no number, results by their `to_dict`."""
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {name: plain(v) for name, v in value.items()}
    return value.to_dict() if hasattr(value, "to_dict") else value


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
