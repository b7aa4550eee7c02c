"""Fractions for the float64 entries of tableaus."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

LARGEST_DENOMINATOR = 10**6
"""Up to here a fraction that rounds to an entry is taken to be the number meant. A float64 holds
more digits than two such fractions can share, so a number that is none passes for one with a chance
of about 1e-4."""


def rational(x: float) -> Fraction | None:
    """The fraction of small denominator whose rounding x is, if there is one."""
    near = Fraction(x).limit_denominator(LARGEST_DENOMINATOR)
    return near if float(near) == x else None


def rational_array(values: Any) -> tuple[np.ndarray, bool]:
    """Entries as Fractions (an object array), and whether they are the small ones that are meant.

    If one entry is no such fraction, all are taken as the rational numbers that float64 is.
    """
    floats = np.asarray(values, dtype=np.float64)
    near = [rational(x) for x in floats.ravel().tolist()]
    exact = all(x is not None for x in near)
    result = np.empty(floats.shape, dtype=object)
    result.ravel()[:] = near if exact else [Fraction(x) for x in floats.ravel().tolist()]
    return result, exact
