"""Zeros that rounding moves across the start or the end of a solve.

A solve that is meant to end on a zero of g ends a few roundings before it or behind; one that
starts from such an end starts so. These are taken for what is meant: a zero at the end, and at the
start.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray

_AT_START, _AT_END = 4.0, 64.0  # a step's own sums, and constants of a method, are off by some
_OF_TIME = 4.0

NEAR_START = 8.0
"""Roundings of time: a zero that is no further from the start is one at the start."""

NEAR = 4.0
"""The same for two zeros that are told apart."""

_SMALL = 1 / 32  # of the largest value of the step


def roundings(steps: int) -> float:
    """Roundings of the largest state that the sums of so many steps are off by, at most."""
    return _AT_START if steps == 0 else _AT_END + steps / 2


def moved_by_rounding(
    times: Array, y: Tensor, size: Tensor, count: float, farthest: Array
) -> Iterator[tuple[Array, Tensor]]:
    """(times, state) moved by `count` roundings to either side.

    Every entry is moved by its own 1 to 2 times that, so that differences of entries move as well.

    Args:
        times: (B,). y: the state there. size: |y| of each entry, the largest of the solve.
        farthest: the time of largest absolute value, (B,).
    """
    eps = float(torch.finfo(y.dtype).eps)
    index = torch.arange(1, y.numel() + 1, dtype=torch.float64, device=y.device).reshape(y.shape)
    # the multiples of the golden ratio: no two are alike, or nearly so
    weights = 1 + torch.frac(index * 0.6180339887498949)
    moved: Tensor = size * (count * eps * weights).to(size.dtype)
    if y.is_complex():
        moved = torch.complex(moved, moved)
    for sign in (1.0, -1.0):
        yield times + sign * _OF_TIME * eps * np.abs(farthest), y + sign * moved


def crosses(value: Array, moved: Array) -> Array:
    """Whether values of one sign are zero, or of the other sign, where they are `moved` to: (E, B)
    of (E, B) and (2, E, B)."""
    return np.asarray(((np.sign(value) * moved <= 0) & (value != 0)).any(0))


def ends_at_zero(value: Array, before: Array, moved: Array, largest: Array) -> Array:
    """Whether values at the end are zeros but for rounding, on the way to zero: (E, B).

    value, before: at the end and at the last look before it. moved: see `crosses`. largest: |g| of
    the step, of which a value far from what is coming is no small part.
    """
    coming = (np.sign(value) == np.sign(before)) & (np.abs(before) > np.abs(value))
    return np.asarray(crosses(value, moved) & coming & (np.abs(value) <= _SMALL * largest))


def slope_at_start(part: float, value: Array, behind: Array, after: Array) -> Array:
    """dg/dθ at the start of [0, 1] by the parabola through values at 0, `part` and 1."""
    return np.asarray(((behind - value) / part - (after - value) * part) / (1 - part))


def is_lost(direction: int, leaving: Array, crossed: Array, slope: Array, after: Array) -> Array:
    """Whether a zero at the start is one that should have ended the solve, (B,).

    It should where g leaves zero in the event's direction, and not because it passes there: a
    section restarted from its last point passes with a slope that its first values have as well. A
    ball's bounce that is shorter than the rounding of time leaves upwards and comes back, or rests.
    Without a direction only those that come back are told apart.

    Args:
        direction: that of the event. leaving: the sign of g behind the start.
        crossed: whether g crosses zero within rounding of the start.
        slope: dg/dθ at the start; after: the value at θ = 1.
    """
    passes = (slope * leaving > 0) & (np.abs(slope) >= np.abs(after) / 4)
    return np.asarray((crossed if direction == 0 else leaving == direction) & ~passes)
