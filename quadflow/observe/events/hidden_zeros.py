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

from .bracketing import Array, bracketed_zeros

MOST_PARTS = 320
"""The most parts that a function is sampled in, however badly its polynomial fits."""

_FINE = 4
"""Parts between two samples in which turning points of the polynomial are searched: eight for the
shortest wave that it may hold."""

_ROUNDING = 64 * 2.0**-52
_RESOLVED, _COARSE = 1e-6, 0.05  # last four coefficients over the largest sample
_ENOUGH = 40  # parts in which a wave shows that it is one


def chebyshev_points(n: int) -> Array:
    """The n + 1 points in [0, 1], both ends included, ascending; those of 2n hold those of n."""
    low = np.sin(np.pi * np.arange(n // 2 + 1) / (2 * n)) ** 2
    if n % 2 == 0:
        low[-1] = 0.5
    return np.concatenate((low, 1 - low[::-1][1 - n % 2 :]))


@functools.lru_cache(maxsize=64)
def _tables(n: int) -> tuple[Array, Array, Array]:
    """Matrices (…, n+1) from samples to Chebyshev coefficients, and to the polynomial and its
    derivative at the _FINE n + 1 finer Chebyshev points.
    """
    to_coefficients = np.linalg.inv(chebyshev.chebvander(2 * chebyshev_points(n) - 1, n))
    fine = chebyshev.chebvander(2 * chebyshev_points(_FINE * n) - 1, n)
    slopes = fine[:, :n] @ chebyshev.chebder(to_coefficients)
    return to_coefficients, fine @ to_coefficients, slopes


@dataclass(frozen=True)
class Doubts:
    """Zeros that samples may have missed.

    columns, places: the turning points that come to zero or near it, each the index of its column
    and its place in [0, 1]. The others have an entry for every column: unresolved, whether more
    samples are wanted; tail, the size of the last coefficients, by which polynomial and function
    may differ; changes, how often the samples' sign changes.
    """

    columns: Array
    places: Array
    unresolved: Array
    tail: Array
    changes: Array


def doubts(values: Array, before: Doubts | None = None) -> Doubts | None:
    """Zeros that may be hidden between samples (n+1, columns) at `chebyshev_points(n)`; None where
    there are none.

    before: what half as many samples left in doubt, None for the first ones.

    More samples are wanted where zeros may be hidden, and the tail either is so large that the
    polynomial says nothing, or not small. They are not wanted where doubling them has neither found
    zeros nor made the tail fall: rounding, kinks and jumps stay as they are.
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
        to_coefficients, to_fine, to_slopes = _tables(n)
        coefficients, fine, slopes = (
            matrix @ values for matrix in (to_coefficients, to_fine, to_slopes)
        )
        size = np.maximum(high, -low)
        tail = np.abs(coefficients[-4:]).sum(0)
        # of a kink they fall so slowly that what is left out is this many times larger
        margin = n / 2 * tail + _ROUNDING * size
        sign = np.sign(values)
        between = np.sign(sign[:-1] + sign[1:])  # 0 where they differ
        signs = np.repeat(between, _FINE, axis=0)
        x = 2 * chebyshev_points(_FINE * n)[:, None] - 1
        falling, rising = signs * slopes[:-1], signs * slopes[1:]
        turns = (falling < 0) & (rising >= 0)
        # where the tangents at the ends of the part meet, below which no curve between them goes
        width, left = np.diff(x, axis=0), signs * fine[:-1]
        meeting = (signs * fine[1:] - left - rising * width) / (falling - rising)
        turns &= left + falling * meeting <= margin
        coarse = ~far & (tail > _COARSE * size) & (np.abs(values).min(0) <= 4 * tail)
    if not turns.any() and not coarse.any():
        return None
    rows, columns = np.nonzero(turns)
    x, lowest = _turning_points(
        coefficients[:, columns], x[rows, 0], x[rows + 1, 0], slopes[rows, columns],
        slopes[rows + 1, columns],
    )  # fmt: skip
    near = (signs[turns] * lowest <= margin[columns]) & (np.abs(x) < 1 - _ROUNDING)
    columns, places = columns[near], (1 + x[near]) / 2
    loose = np.isin(np.arange(len(tail)), columns) & (tail > _RESOLVED * size)
    unresolved, changes = coarse | loose, (sign[:-1] * sign[1:] < 0).sum(0)
    if before is not None:
        better = (tail <= before.tail / 2) | (changes > before.changes)
        unresolved &= better | (coarse & (n < _ENOUGH))
    if 2 * n > MOST_PARTS:
        unresolved = np.zeros_like(unresolved)
    if not len(columns) and not unresolved.any():
        return None
    return Doubts(columns, places, unresolved, tail, changes)


def _turning_points(
    coefficients: Array, low: Array, high: Array, at_low: Array, at_high: Array
) -> tuple[Array, Array]:
    """Turning points x of k polynomials and their values there, (k,).

    Each lies in its own bracket, at whose ends the derivative is at_low (not zero) and at_high, of
    opposite signs. coefficients: (n + 1, k), of Chebyshev polynomials on [-1, 1].
    """
    derivative = chebyshev.chebder(coefficients)
    x = bracketed_zeros(
        lambda x, _: chebyshev.chebval(x, derivative, tensor=False), low, high, at_low, at_high,
        np.full_like(low, 1e-15), at_high != 0,
    )  # fmt: skip
    x = np.where(at_high != 0, x, high)
    return x, chebyshev.chebval(x, coefficients, tensor=False)
