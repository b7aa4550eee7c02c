"""Files that appear whole or not at all, and JSON read with errors that say what is wrong."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write to; it is renamed to `path` if nothing was raised.

    What was written is on disk before it gets its name, so not even a power cut leaves half a file.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, indented and with a newline at the end."""
    text = json.dumps(value, indent=1) + "\n"
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_number(x: float) -> float | None:
    """x, or None where it is no number (nan, inf), which JSON has no word for."""
    return x if math.isfinite(x) else None


def read_json_object(path: str | Path, what: str) -> dict[str, Any]:
    """The JSON object in a file that is to hold `what` (for messages).

    Raises:
        ValueError: no JSON, or no object. OSError: it cannot be read.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is no {what} but a {type(value).__name__}")
    return value
