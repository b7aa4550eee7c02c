"""The arithmetic that exact solutions are written in."""

from __future__ import annotations

from typing import Any

from quadflow.adapters.extras import require


def mp() -> Any:
    """mpmath's context of adjustable precision."""
    return require("mpmath", "analysis").mp
