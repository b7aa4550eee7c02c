"""Optional packages, asked for where they are needed: the core's helpers under their older name."""

from __future__ import annotations

from quadflow.extras import MissingExtraError, progress, require

__all__ = ["MissingExtraError", "progress", "require"]
