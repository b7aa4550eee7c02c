"""Rational functions with rational coefficients, and exact statements about real polynomials.

Roots are isolated by sympy and half-planes decided by Routh's scheme, so that
"stable" is a theorem about the coefficients and not a reading of a plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from quadflow.extras import require

from .rules import Poly, poly_add, poly_mul, poly_scale, poly_value

# -- polynomials -------------------------------------------------------------------------------


def trimmed(p: Sequence[Fraction]) -> Poly:
    """p without its zero leading coefficients; the zero polynomial is ()."""
    length = len(p)
    while length and not p[length - 1]:
        length -= 1
    return tuple(p[:length])


def _dense(p: Sequence[Fraction]) -> Any:
    """The polynomial as sympy's, over the rationals."""
    sympy = require("sympy", "analysis")
    numbers = [sympy.Rational(a.numerator, a.denominator) for a in reversed(p)]
    return sympy.Poly(numbers or [0], sympy.Symbol("z"), domain="QQ")


def _sparse(p: Any) -> Poly:
    return trimmed([Fraction(int(a.p), int(a.q)) for a in reversed(p.all_coeffs())])


def primitive(p: Sequence[Fraction]) -> Poly:
    """The positive multiple of p whose coefficients are integers without a common divisor."""
    p = trimmed(p)
    if not p:
        return p
    scale = math.lcm(*(a.denominator for a in p))
    whole = [int(a * scale) for a in p]
    common = math.gcd(*whole)
    return tuple(Fraction(a // common) for a in whole)


def derivative(p: Sequence[Fraction]) -> Poly:
    """p'."""
    return tuple(a * k for k, a in enumerate(p))[1:]


def greatest_common_divisor(p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
    """The primitive greatest common divisor; a constant where they have none but numbers."""
    return primitive(_sparse(_dense(p).gcd(_dense(q))))


def square_free_factors(p: Sequence[Fraction]) -> list[tuple[Poly, int]]:
    """Primitive polynomials without repeated roots, with the multiplicity of their roots in p."""
    return [(primitive(_sparse(factor)), k) for factor, k in _dense(p).sqf_list()[1]]


def odd_part(p: Sequence[Fraction]) -> Poly:
    """The square-free polynomial with the roots of odd multiplicity: where p changes sign."""
    product: Poly = (Fraction(1 if trimmed(p)[-1] > 0 else -1),)
    for factor, multiplicity in square_free_factors(p):
        if multiplicity % 2:
            product = poly_mul(product, factor)
    return product


def positive_roots(p: Sequence[Fraction]) -> int:
    """How many different roots a polynomial has in (0, infinity), exactly."""
    p = _without_zero_roots(p)
    return len(_dense(p).intervals(inf=0)) if len(p) > 1 else 0


def _without_zero_roots(p: Sequence[Fraction]) -> Poly:
    p = trimmed(p)
    first = next((i for i, a in enumerate(p) if a), 0)
    return p[first:]


def never_negative(p: Sequence[Fraction]) -> bool:
    """Whether p(x) >= 0 for all x >= 0, exactly."""
    return first_negative(p) is None


def first_negative(p: Sequence[Fraction], digits: int = 16) -> Fraction | None:
    """The largest x such that p >= 0 on [0, x]; None where p is never negative beyond 0.

    Args:
        digits: relative accuracy of the (generally irrational) answer, which is a lower bound; a
            rational root met on the way is returned exactly.
    """
    p = _without_zero_roots(p)
    if not p:
        return None
    if p[0] < 0:
        return Fraction(0)
    changes = odd_part(p)
    if positive_roots(changes) == 0:
        return None
    polynomial = _dense(changes)
    (low, high), _ = polynomial.intervals(inf=0)[0]
    while high - low > high / 10**digits:
        low, high = polynomial.refine_root(low, high, steps=8)
    low, high = (Fraction(int(x.p), int(x.q)) for x in (low, high))
    simple = ((low + high) / 2).limit_denominator(10**6)
    return simple if not poly_value(changes, simple) else low


def all_roots_left(p: Sequence[Fraction]) -> bool:
    """Whether every root of p has a negative real part (Routh's scheme, exact)."""
    p = primitive(p)
    if len(p) < 2:
        return bool(p)
    if p[-1] < 0:
        p = poly_scale(p, Fraction(-1))
    first, second = list(p[::-1][::2]), list(p[::-1][1::2])
    for _ in range(len(p) - 1):
        if not second or second[0] <= 0:
            return False
        ratio = first[0] / second[0]
        below = [
            a - ratio * (second[i] if i < len(second) else 0)
            for i, a in enumerate(first[1:], start=1)
        ]
        scaled = primitive(below)
        first, second = second, list(scaled) + [Fraction(0)] * (len(below) - len(scaled))
    return True


# -- rational functions ------------------------------------------------------------------------


def _written(p: Sequence[Fraction]) -> str:
    terms = []
    for k, a in enumerate(p):
        if a:
            power = "" if k == 0 else "z" if k == 1 else f"z^{k}"
            size = abs(a)
            number = f"{size}" if size != 1 or k == 0 else ""
            if size.denominator > 10**15:  # a float taken as the rational number it is
                number = f"{float(size):.16g}"
            terms.append(("- " if a < 0 else "+ ") + " ".join(x for x in (number, power) if x))
    text = " ".join(terms) or "0"
    return text.removeprefix("+ ")


def _at(p: Sequence[Fraction], z: np.ndarray) -> np.ndarray:
    return np.polyval([float(a) for a in reversed(p)], z)


@dataclass(frozen=True)
class RationalFunction:
    """numerator / denominator, coprime, lowest power first, the denominator's lowest term 1.

    Called with a Fraction (or int) it gives a Fraction; with a complex number or a NumPy array,
    complex128 of the same shape (infinite or nan at a pole).
    """

    numerator: Poly
    denominator: Poly

    @classmethod
    def of(
        cls, numerator: Sequence[Fraction], denominator: Sequence[Fraction] = (Fraction(1),)
    ) -> RationalFunction:
        """The function in lowest terms.

        Raises:
            ZeroDivisionError: the denominator is zero.
        """
        p, q = trimmed(numerator), trimmed(denominator)
        if not q:
            raise ZeroDivisionError("a rational function needs a denominator that is not zero")
        if len(p) > 0 and len(q) > 1:
            _, p, q = (_sparse(x) for x in _dense(p).cofactors(_dense(q)))
        lowest = next(a for a in q if a)
        return cls(poly_scale(p, 1 / lowest), poly_scale(q, 1 / lowest))

    @property
    def degrees(self) -> tuple[int, int]:
        """Degrees of numerator and denominator."""
        return len(self.numerator) - 1, len(self.denominator) - 1

    @property
    def at_infinity(self) -> Fraction | None:
        """The limit for z -> infinity; None where it is infinite."""
        top, bottom = self.degrees
        if top > bottom:
            return None
        return self.numerator[-1] / self.denominator[-1] if top == bottom else Fraction(0)

    def __call__(self, z: Any) -> Any:
        """The value at z."""
        if isinstance(z, (int, Fraction)):
            exact = Fraction(z)
            return poly_value(self.numerator, exact) / poly_value(self.denominator, exact)
        array = np.asarray(z, dtype=np.complex128)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = _at(self.numerator, array) / _at(self.denominator, array)
        return value if array.ndim else complex(value)

    def __str__(self) -> str:
        top = _written(self.numerator)
        if len(self.denominator) == 1:
            return top
        return f"({top}) / ({_written(self.denominator)})"

    def series(self, length: int) -> Poly:
        """The first `length` Taylor coefficients at 0.

        Raises:
            ZeroDivisionError: 0 is a pole.
        """
        q, coefficients = self.denominator, list[Fraction]()
        for k in range(length):
            value = self.numerator[k] if k < len(self.numerator) else Fraction(0)
            for j in range(1, min(k, len(q) - 1) + 1):
                value -= q[j] * coefficients[k - j]
            coefficients.append(value / q[0])
        return tuple(coefficients)

    def poles(self) -> np.ndarray:
        """The zeros of the denominator, complex128, in float64."""
        return np.roots([float(a) for a in reversed(self.denominator)])


def exponential_series(length: int) -> Poly:
    """The first `length` Taylor coefficients of exp."""
    return tuple(Fraction(1, math.factorial(k)) for k in range(length))


def logarithm_series(p: Sequence[Fraction]) -> Poly:
    """The Taylor coefficients of log p(z), as many as p has; p(0) must be 1."""
    result = [Fraction(0)] * len(p)
    for k in range(1, len(p)):  # k p_k = sum of j l_j p_(k-j)
        rest = sum((j * result[j] * p[k - j] for j in range(1, k)), Fraction(0))
        result[k] = p[k] - rest / k
    return tuple(result)


def squared_modulus_on_axis(p: Sequence[Fraction]) -> Poly:
    """|p(iy)|² as a polynomial in y²."""
    even = tuple(a * (-1) ** k for k, a in enumerate(p[::2]))
    odd = tuple(a * (-1) ** k for k, a in enumerate(p[1::2]))
    # p(iy) = even(y²) + iy odd(y²)
    return trimmed(
        poly_add(
            poly_mul(even, even) if even else (),
            (Fraction(0), *poly_mul(odd, odd)) if odd else (),
        )
    )


def mirrored(p: Sequence[Fraction]) -> Poly:
    """p(-z)."""
    return tuple(-a if k % 2 else a for k, a in enumerate(p))
