"""Hairer's DOP853, after Dormand and Prince: order 8 with the interpolant of order 7.

Source: Hairer, Nørsett & Wanner, Solving ODEs I, 2nd ed., sections II.5 and II.6.
"""

import json
from pathlib import Path

import numpy as np

from .tableau import Tableau

_NUMBERS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
# rows 13 to 15 are the stages that serve the interpolant alone
_A = [tuple(row) for row in _NUMBERS["a"]]


def _dense() -> np.ndarray:
    # y = y0 + θ(F0 + (1-θ)(F1 + θ(F2 + (1-θ)(F3 + θ(F4 + (1-θ)(F5 + θ F6)))))) with F0..F2 the
    # cubic Hermite data and F3..F6 = h D v: Hairer's nested form, expanded in powers of θ.
    s = 13
    b = np.zeros(s + 3)
    b[: s - 1] = _A[s - 1]
    start, end = np.eye(s + 3)[0], np.eye(s + 3)[s - 1]
    data = [b, start - b, 2 * b - start - end, *_NUMBERS["dense"]]
    dense = np.zeros((s + 3, len(data)))
    basis = np.array([1.0])  # lowest power first
    for i, values in enumerate(data):
        basis = np.convolve(basis, [0.0, 1.0] if i % 2 == 0 else [1.0, -1.0])
        dense[:, : len(basis) - 1] += np.outer(values, basis[1:])
    return dense


DOPRI8 = Tableau(
    a=_A[:13],
    b=(*_A[12], 0.0),
    order=8,
    errors=(_NUMBERS["error_5"], _NUMBERS["error_3"]),
    error_order=8,
    dense=_dense(),
    dense_order=8,
    extra=tuple((sum(row), row) for row in _A[13:]),
    first_same_as_last=True,
)
"""DOP853, order 8(5, 3)."""
