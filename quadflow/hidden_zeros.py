"""Zeros that samples of a function do not show by their signs, but by their own polynomial.

A function on [0, 1] is sampled at the Chebyshev points x_k = sin²(πk/2n), k = 0 … n. The polynomial
of degree n through the samples is the function itself where that is a polynomial of no higher
degree; else it differs from it by about the size of its last Chebyshev coefficients. Between two
samples of one sign it is looked at where it turns: where it comes to zero there, or nearer than
that error, the function has to be looked at again.

All arrays here are (samples, columns), the columns being functions sampled alike.

Source: Trefethen, Approximation Theory and Approximation Practice, chapters 3, 8 and 15.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

Array = np.ndarray

MOST_PARTS = 320
"""More samples are not taken of a function, however badly its polynomial fits."""

_FINE = 4
"""Parts between two samples, in which the polynomial is searched for where it turns: eight for the
shortest wave that it may hold."""

_ROUNDING = 64 * 2.0**-52
_RESOLVED, _COARSE = 1e-6, 0.05  # last coefficients over the largest sample
_ENOUGH = 40  # parts in which a wave shows that it is one


def chebyshev_points(n: int) -> Array:
    """The n + 1 points in [0, 1], both ends included, ascending; those of 2n hold those of n."""
    points = np.sin(np.pi * np.arange(n + 1) / (2 * n)) ** 2
    points[n] = 1.0
    return np.asarray(points)


@functools.lru_cache(maxsize=64)
def _tables(n: int) -> tuple[Array, Array]:
    """Matrices from samples to Chebyshev coefficients (n+1, n+1), and to values (_FINE n + 1, n+1)
    at equal parts of the angle."""
    to_coefficients = np.linalg.inv(chebyshev.chebvander(-_cosines(n, n), n))
    return to_coefficients, chebyshev.chebvander(-_cosines(n, _FINE * n), n) @ to_coefficients


def _cosines(n: int, parts: int) -> Array:
    """cos(πk/parts), odd about the middle to the last bit."""
    return np.asarray(np.sin(np.pi * (parts - 2 * np.arange(parts + 1)) / (2 * parts)))


@dataclass(frozen=True)
class Doubts:
    """Where samples may have missed zeros.

    columns: of every turning point that comes to zero or near it, the index of its column; places:
    where in [0, 1]. unresolved: columns of which more samples are wanted. tail: of every column the
    size of the last coefficients, by which polynomial and function may differ. changes: how often
    the samples' sign changes in it.
    """

    columns: Array
    places: Array
    unresolved: Array
    tail: Array
    changes: Array


def doubts(values: Array, before: Doubts | None = None) -> Doubts | None:
    """What may be hidden between samples (n+1, columns) at `chebyshev_points(n)`; None: nothing.

    before: what half as many samples left in doubt, None for the first ones. More samples are
    wanted where zeros may be hidden, and the tail either is so large that the polynomial says
    nothing, or not small. But not where doubling them neither has found zeros nor made the tail
    fall: rounding, kinks and jumps stay as they are.
    """
    low, high = values.min(0), values.max(0)
    n = len(values) - 1
    # from the middle of its samples' range no polynomial goes further than this many times half
    # the width of the range
    lebesgue = 2 / np.pi * np.log(n + 1) + 1
    with np.errstate(all="ignore"):
        far = np.maximum(low, -high) * (lebesgue + 1) > np.maximum(high, -low) * (lebesgue - 1)
        if far.all():
            return None
        to_coefficients, to_fine = _tables(n)
        coefficients, fine = to_coefficients @ values, to_fine @ values
        size = np.maximum(high, -low)
        tail = np.abs(coefficients[-2:]).sum(0)
        margin = tail + _ROUNDING * size
        sign = np.sign(values)
        between = np.sign(sign[:-1] + sign[1:])  # 0 where they differ
        signs = np.repeat(between, _FINE, axis=0)
        signs[::_FINE] = sign[:-1]
        signs = signs[1:]
        here, left, right = signs * fine[1:-1], signs * fine[:-2], signs * fine[2:]
        slope, bend = (right - left) / 2, right - 2 * here + left
        vertex = here - slope**2 / (2 * bend)
        turns = (signs != 0) & (left >= here) & (right >= here) & (bend > 0)
        turns &= vertex - 0.1 * bend <= margin
        coarse = ~far & (tail > _COARSE * size) & (np.abs(values).min(0) <= 4 * tail)
    if not turns.any() and not coarse.any():
        return None
    rows, columns = np.nonzero(turns)
    angles = np.pi * (rows + 1 - slope[turns] / bend[turns]) / (_FINE * n)
    angles, lowest = _polished(angles, np.pi / (_FINE * n), coefficients[:, columns])
    near = signs[turns] * lowest <= margin[columns]
    columns, places = columns[near], np.sin(angles[near] / 2) ** 2
    loose = np.isin(np.arange(len(tail)), columns) & (tail > _RESOLVED * size)
    unresolved, changes = coarse | loose, (sign[:-1] * sign[1:] < 0).sum(0)
    if before is not None:
        better = (tail <= before.tail / 4) | (changes > before.changes)
        unresolved &= better | (coarse & (n < _ENOUGH))
    if 2 * n > MOST_PARTS:
        unresolved = np.zeros_like(unresolved)
    if not len(columns) and not unresolved.any():
        return None
    return Doubts(columns, places, unresolved, tail, changes)


def _polished(angles: Array, width: float, coefficients: Array) -> tuple[Array, Array]:
    """Turning points by Newton's method, not further than `width` from where they start, and the
    polynomial there: both (k,), each of its own coefficients (n+1, k)."""
    orders = np.arange(len(coefficients))[:, None]
    # x = -cos φ, so that T_k(x) = (-1)^k cos kφ
    signed = np.where(orders % 2 == 0, 1.0, -1.0) * coefficients
    started = angles
    with np.errstate(all="ignore"):
        for _ in range(4):
            first = -(orders * signed * np.sin(orders * angles)).sum(0)
            second = -(orders**2 * signed * np.cos(orders * angles)).sum(0)
            moved = np.where(second != 0, first / second, 0.0)
            angles = np.clip(angles - moved, started - width, started + width)
    angles = np.clip(angles, 0.0, np.pi)
    return angles, (signed * np.cos(orders * angles)).sum(0)
