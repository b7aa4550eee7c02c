"""Zeros of scalar functions in many brackets at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray

_MOST_ITERATIONS = 200  # bisection alone needs 64


def bracketed_zeros(
    function: Callable[[Array, Array], Array],
    low: Array,
    high: Array,
    at_low: Array,
    at_high: Array,
    tolerance: Array,
    searched: Array,
) -> Array:
    """A zero in each of many brackets, all searched together.

    Args:
        function: function(x, searched) -> values at x, of x's shape; only those where `searched`
            are used.
        low, high: ends of the brackets; at_low, at_high: values there, not zero and of opposite
            signs where `searched`.
        tolerance: the zero is bracketed to within twice this, positive; broadcasts against low.
        searched: which of the brackets are there at all.

    Returns:
        The zeros, of low's shape: the end of the last bracket where |value| is smaller.

    Source: Chandrupatla 1997, A new hybrid quadratic/bisection algorithm for finding the zero of a
    nonlinear function without using derivatives, Advances in Engineering Software 28.
    """
    # newest point; the other end of the bracket; the one left before
    x1, x2, f1, f2 = high.copy(), low.copy(), at_high.copy(), at_low.copy()
    x3, f3 = x2, f2
    part = np.full(low.shape, 0.5)
    searched, best = searched.copy(), np.where(searched, high, np.nan)
    for _ in range(_MOST_ITERATIONS):
        x = np.where(searched, x1 + part * (x2 - x1), x1)
        f = np.where(searched, function(x, searched), f1)
        same = np.sign(f) == np.sign(f1)
        x3, f3 = np.where(same, x1, x2), np.where(same, f1, f2)
        x2, f2 = np.where(same, x2, x1), np.where(same, f2, f1)
        x1, f1 = x, f
        best = np.where(searched, np.where(np.abs(f2) < np.abs(f1), x2, x1), best)
        with np.errstate(all="ignore"):
            least = tolerance / np.abs(x2 - x1)
            searched &= (least <= 0.5) & (f1 != 0) & (f2 != 0)
            if not searched.any():
                break
            xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
            quadratic = f1 / (f2 - f1) * (f3 / (f2 - f3)) + (x3 - x1) / (x2 - x1) * (
                f1 / (f3 - f1)
            ) * (f2 / (f3 - f2))
            trusted = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi) & np.isfinite(quadratic)
            part = np.clip(np.where(trusted, quadratic, 0.5), least, 1 - least)
            part = np.where(searched, part, 0.5)
    return best
