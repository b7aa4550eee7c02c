"""Formulas of the textbooks that methods are compared with, exactly: Adams, BDF, Padé."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from quadflow.analysis.exact.multistep import LinearMultistep
from quadflow.analysis.exact.rational_functions import RationalFunction
from quadflow.analysis.exact.rules import (
    Poly,
    lagrange_basis,
    poly_integral,
    poly_mul,
    poly_value,
)


def adams_bashforth(k: int) -> LinearMultistep:
    """The explicit Adams method of k steps, order k."""
    return _adams(list(range(k)), k)


def adams_moulton(k: int) -> LinearMultistep:
    """The implicit Adams method of k steps, order k + 1."""
    return _adams(list(range(k + 1)), k)


def _adams(points: Sequence[int], k: int) -> LinearMultistep:
    if k < 1:
        raise ValueError(f"k, the number of steps, must be >= 1, got {k!r}")
    beta = [Fraction(0)] * (k + 1)
    for j, basis in zip(points, lagrange_basis([Fraction(p) for p in points]), strict=True):
        integral = poly_integral(basis)
        beta[j] = poly_value(integral, Fraction(k)) - poly_value(integral, Fraction(k - 1))
    alpha = [Fraction(0)] * (k - 1) + [Fraction(-1), Fraction(1)]
    return LinearMultistep(tuple(alpha), tuple(beta))


def bdf(k: int) -> LinearMultistep:
    """Backward differentiation of k steps, order k; zero-stable for k <= 6 alone."""
    if k < 1:
        raise ValueError(f"k, the number of steps, must be >= 1, got {k!r}")
    # Σ_{j=1..k} (1/j) ∇^j y_{n+k} = h f_{n+k}
    alpha = [Fraction(0)] * (k + 1)
    power: Poly = (Fraction(1),)
    for j in range(1, k + 1):
        power = poly_mul(power, (Fraction(-1), Fraction(1)))  # (ξ - 1)^j
        for i, a in enumerate(power):
            alpha[k - j + i] += a / j
    top = alpha[-1]
    beta = [Fraction(0)] * k + [1 / top]
    return LinearMultistep(tuple(a / top for a in alpha), tuple(beta))


def pade(numerator: int, denominator: int) -> RationalFunction:
    """The Padé approximant of exp(z) of these degrees, exact.

    Its order is numerator + denominator. Source: Hairer & Wanner, Solving ODEs II, section IV.3,
    theorem 3.11.

    Raises:
        ValueError: a degree below 0.
    """
    for name, value in (("numerator", numerator), ("denominator", denominator)):
        if value < 0:
            raise ValueError(f"{name} is a degree and must be >= 0, got {value}")

    def half(k: int, j: int, sign: int) -> Poly:
        return tuple(
            Fraction(sign**i * math.comb(k, i) * math.factorial(k + j - i), math.factorial(k + j))
            for i in range(k + 1)
        )

    return RationalFunction.of(half(numerator, denominator, 1), half(denominator, numerator, -1))
