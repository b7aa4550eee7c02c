"""Arithmetic of as many digits as wanted."""

from __future__ import annotations

from typing import Any

from ...extras import require


def multiprecision() -> Any:
    """mpmath's context of adjustable precision.

    Raises:
        MissingExtraError: mpmath is not installed.
    """
    return require("mpmath", "analysis").mp
