"""Rational functions with rational coefficients, and exact statements about real polynomials.

Roots are counted by Sturm sequences and half-planes decided by Routh's scheme, in integers, so
that "stable" is a theorem about the coefficients and not a reading of a plot.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from .rules import Poly, poly_add, poly_mul, poly_scale, poly_value

# -- polynomials -------------------------------------------------------------------------------


def trimmed(p: Sequence[Fraction]) -> Poly:
    """p without its zero leading coefficients; the zero polynomial is ()."""
    length = len(p)
    while length and not p[length - 1]:
        length -= 1
    return tuple(p[:length])


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


def divide(p: Sequence[Fraction], q: Sequence[Fraction]) -> tuple[Poly, Poly]:
    """Quotient and remainder of p by q.

    Raises:
        ZeroDivisionError: q is zero.
    """
    q = trimmed(q)
    if not q:
        raise ZeroDivisionError("division by the zero polynomial")
    rest = list(trimmed(p))
    quotient = [Fraction(0)] * max(0, len(rest) - len(q) + 1)
    for top in range(len(quotient) - 1, -1, -1):
        factor = rest[top + len(q) - 1] / q[-1]
        quotient[top] = factor
        if factor:
            for i, a in enumerate(q):
                rest[top + i] -= factor * a
    return trimmed(quotient), trimmed(rest[: len(q) - 1])


def remainder(p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
    """A primitive positive multiple of p modulo q, in integers: much faster than `divide`."""
    a, b = [int(x) for x in primitive(p)], [int(x) for x in primitive(q)]
    lead = abs(b[-1])
    while len(a) >= len(b):
        factor, offset = a[-1] if b[-1] > 0 else -a[-1], len(a) - len(b)
        a = [lead * x for x in a]
        for i, x in enumerate(b):
            a[offset + i] -= factor * x
        while a and not a[-1]:
            a.pop()
        common = math.gcd(*a)
        a = [x // common for x in a]
    return tuple(Fraction(x) for x in a)


def greatest_common_divisor(p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
    """The primitive greatest common divisor; a constant where they have none but numbers."""
    a, b = primitive(p), primitive(q)
    while b:
        a, b = b, remainder(a, b)
    return a


def square_free_factors(p: Sequence[Fraction]) -> list[tuple[Poly, int]]:
    """Primitive polynomials without repeated roots, each with the multiplicity of its roots in p.

    By Yun's square-free factorisation.
    """
    p = primitive(p)
    factors: list[tuple[Poly, int]] = []
    if len(p) < 2:
        return factors
    common = greatest_common_divisor(p, derivative(p))
    left, multiplicity = divide(p, common)[0], 1
    while len(left) > 1:
        shared = greatest_common_divisor(left, common)
        factor = divide(left, shared)[0]
        if len(factor) > 1:
            factors.append((primitive(factor), multiplicity))
        left, common = shared, divide(common, shared)[0]
        multiplicity += 1
    return factors


def odd_part(p: Sequence[Fraction]) -> Poly:
    """The square-free polynomial with the roots of odd multiplicity: where p changes sign."""
    product: Poly = (Fraction(1),)
    for factor, multiplicity in square_free_factors(p):
        if multiplicity % 2:
            product = primitive(poly_mul(product, factor))
    return product


def _sturm(p: Poly) -> list[Poly]:
    chain = [primitive(p), primitive(derivative(p))]
    while chain[-1]:
        chain.append(poly_scale(remainder(chain[-2], chain[-1]), Fraction(-1)))
    return chain[:-1]


def _sign(p: Poly, x: Fraction) -> int:
    """A number of the sign of p(x), for integer coefficients, in integers."""
    value, power = 0, 1
    for a in reversed(p):
        value = value * x.numerator + a.numerator * power
        power *= x.denominator
    return value


def _changes(chain: Sequence[Poly], x: Fraction | None) -> int:
    """Sign changes of a Sturm chain at x; None is +infinity."""
    values = [p[-1] if x is None else _sign(p, x) for p in chain]
    signs = [v > 0 for v in values if v]
    return sum(a != b for a, b in itertools.pairwise(signs))


def positive_roots(p: Sequence[Fraction]) -> int:
    """How many different roots a polynomial has in (0, infinity), exactly (Sturm)."""
    p = _without_zero_roots(p)
    if len(p) < 2:
        return 0
    chain = _sturm(p)
    return _changes(chain, Fraction(0)) - _changes(chain, None)


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
    p = odd_part(p)
    if positive_roots(p) == 0:
        return None
    chain = _sturm(p)
    # Cauchy's bound on the roots as a power of 2, then halving until the first one is alone
    bound = 1 + max(abs(a / p[-1]) for a in p[:-1])
    low, high = Fraction(0), Fraction(2 ** math.ceil(bound).bit_length())
    at_zero = _changes(chain, low)
    while at_zero - _changes(chain, high) != 1:
        middle = (low + high) / 2
        if at_zero - _changes(chain, middle) == 0:
            low = middle
        else:
            high = middle
    sign = _sign(p, low) > 0
    while high - low > high * Fraction(1, 10**digits):
        middle = (low + high) / 2
        value = _sign(p, middle)
        if not value:
            return middle
        if (value > 0) == sign:
            low = middle
        else:
            high = middle
    simple = ((low + high) / 2).limit_denominator(10**6)
    return simple if not _sign(p, simple) else low


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


def _horner(p: Sequence[Fraction], z: np.ndarray) -> np.ndarray:
    value = np.zeros_like(z)
    for a in reversed(p):
        value = value * z + float(a)
    return value


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
            common = greatest_common_divisor(p, q)
            p, q = divide(p, common)[0], divide(q, common)[0]
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
            value = _horner(self.numerator, array) / _horner(self.denominator, array)
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
