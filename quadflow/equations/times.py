"""Times as a user gives them: checked, and as floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def monotone_times(t: Any, name: str, open_ended: bool = False) -> list[float]:
    """At least two times in order, as floats.

    Args:
        t: a sequence of numbers, an array or a tensor.
        name: of the argument, for messages.
        open_ended: whether the last time may be infinite.

    Raises:
        TypeError: no real numbers. ValueError: not finite, not strictly monotone, fewer than two,
            or (all but "t") a tensor that requires grad.
    """
    if isinstance(t, Tensor):
        if t.requires_grad and name != "t":
            raise ValueError(f"{name} requires grad: gradients are in t alone, detach {name}")
        if t.is_complex():
            raise TypeError(f"{name} must be real, got dtype {t.dtype}")
        t = t.detach().to(torch.float64).tolist()
    try:
        array = np.asarray(t, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a sequence of real times, got {t!r}") from error
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name} must hold at least two times, got shape {array.shape}")
    finite = np.isfinite(array)
    if open_ended and abs(array[-1]) == np.inf:
        finite[-1] = True  # an event ends the solve
    if not finite.all():
        bad = int(np.argmin(finite))
        raise ValueError(f"{name}[{bad}]={array[bad]} is not finite")
    steps = np.diff(array) * (1.0 if array[-1] > array[0] else -1.0)
    if not (steps > 0).all():
        bad = int(np.argmin(steps > 0))
        raise ValueError(
            f"{name} must be strictly increasing or strictly decreasing; "
            f"{name}[{bad}]={array[bad]} is followed by {array[bad + 1]}"
        )
    return array.tolist()


def points_in_time(given: Any, name: str) -> list[float]:
    """Times in any order, none or more, as floats: of breakpoints or landings.

    Raises:
        TypeError: no real numbers. ValueError: NaN, or more than one axis.
    """
    try:
        array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
        if array.dtype.kind not in "biuf" and array.size:
            raise TypeError(f"dtype {array.dtype}")
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be a one-dimensional sequence of times, got {given!r}"
        ) from error
    if array.ndim != 1 or (array.size and np.isnan(array).any()):
        raise ValueError(f"{name} must be a one-dimensional sequence of times, got {given!r}")
    return array.astype(np.float64).tolist()
