"""Arguments of `solve`, checked: each is refused by its own name, with its value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import real_number


def monotone_times(t: Any, name: str, open_ended: bool = False) -> list[float]:
    """At least two times in order, as floats; with open_ended the last may be infinite."""
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
    times: list[float] = array.tolist()
    return times


def points_in_time(given: Any, name: str) -> list[float]:
    """Times of breakpoints or landings."""
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
    points: list[float] = array.astype(np.float64).tolist()
    return points


def positive(value: Any, name: str) -> Any:
    """A tolerance as it is: a positive number, or a tensor of such."""
    try:
        if isinstance(value, Tensor) and (value.is_complex() or not value.numel()):
            raise TypeError("no order, or nothing")
        smallest = real_number(value.min() if isinstance(value, Tensor) else value, name)
    except TypeError as error:
        raise TypeError(f"{name} must be a float or a tensor, got {value!r}") from error
    if not (smallest > 0 and (isinstance(value, Tensor) or math.isfinite(smallest))):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


def check_fits(tolerance: Any, name: str, y: Tensor) -> None:
    """Refuse a tolerance that does not broadcast against the state."""
    if not isinstance(tolerance, Tensor):
        return
    pairs = zip(reversed(tolerance.shape), reversed(y.shape), strict=False)
    if tolerance.dim() > y.dim() or any(mine not in (1, its) for mine, its in pairs):
        raise ValueError(
            f"{name} has shape {tuple(tolerance.shape)}, which does not broadcast against the "
            f"state's, {tuple(y.shape)}"
        )


def check_booleans(**given: Any) -> None:
    """Refuse what is neither True nor False."""
    for name, value in given.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be True or False, got {value!r}")


def check_callables(**given: Any) -> None:
    """Refuse what cannot be called; None is no callback, but no norm either."""
    for name, value in given.items():
        if not callable(value) and (value is not None or name == "norm"):
            raise TypeError(f"{name} must be callable, got {value!r}")
