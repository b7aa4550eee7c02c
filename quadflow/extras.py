"""Optional packages, asked for where they are needed, with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class MissingExtraError(ImportError):
    """A package that belongs to an extra of quadflow is not installed."""


def require(package: str, extra: str) -> ModuleType:
    """Import `package`, or raise `MissingExtraError` naming the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise MissingExtraError(
            f"this needs the package {name!r}: pip install 'quadflow[{extra}]'"
        ) from error


def progress(
    total: float | None, description: str, extra: str = "generative", **layout: Any
) -> Any:
    """A tqdm bar of `total` steps (None: not known) on standard error.

    Args:
        extra: the extra that brings tqdm to the caller, for the error where it is missing.
        layout: further arguments of tqdm.
    """
    tqdm = require("tqdm", extra).tqdm
    return tqdm(total=total, desc=description, dynamic_ncols=True, **layout)
