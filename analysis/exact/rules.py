"""Collocation on a rule in exact rational arithmetic, without its irrational nodes.

A function on the nodes of a rule is a polynomial modulo the nodal polynomial M(x) = Π (x - c_i).
Products, the integration matrix, the weights and extrapolation act on these classes, and M has
rational coefficients for every family (the roots of M come in full conjugate sets), so everything
that is symmetric in the nodes (elementary weights of trees, R(z), definiteness of the stability
matrix) is a rational number or function, found with Fractions and no rounding. Independent, on
purpose, of the rules in float64, which it proves.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest

from ...rules.families import NegativeWeightsWarning
from ...rules.quadrature import FAMILIES
from ...rules.rule import QuadratureRule
from .multiprecision import multiprecision

Poly = tuple[Fraction, ...]
"""Coefficients, lowest power first."""


def poly_add(p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
    """p + q."""
    return tuple(a + b for a, b in zip_longest(p, q, fillvalue=Fraction(0)))


def poly_scale(p: Sequence[Fraction], factor: Fraction) -> Poly:
    """factor p."""
    return tuple(a * factor for a in p)


def poly_mul(p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
    """p q."""
    result = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        if a:
            for j, b in enumerate(q):
                result[i + j] += a * b
    return tuple(result)


def poly_value(p: Sequence[Fraction], x: Fraction) -> Fraction:
    """p(x)."""
    value = Fraction(0)
    for a in reversed(p):
        value = value * x + a
    return value


def poly_integral(p: Sequence[Fraction]) -> Poly:
    """The integral of p from 0."""
    return (Fraction(0), *(a / (k + 1) for k, a in enumerate(p)))


def poly_composed(p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
    """p(q(x))."""
    result: Poly = ()
    for a in reversed(p):
        result = poly_add(poly_mul(result, q), (a,))
    return result


def unit(k: int, size: int) -> Poly:
    """x^k as `size` coefficients."""
    return tuple(Fraction(int(i == k)) for i in range(size))


def lagrange_basis(positions: Sequence[Fraction]) -> list[Poly]:
    """The Lagrange basis polynomials through distinct rational positions."""
    basis = []
    for j, p in enumerate(positions):
        others = [*positions[:j], *positions[j + 1 :]]
        scale = math.prod((p - q for q in others), start=Fraction(1))
        basis.append(poly_scale(_from_roots(others), 1 / scale))
    return basis


def _orthogonal(n: int, factors: Callable[[int], tuple[Fraction | int, Fraction | int]]) -> Poly:
    """P_n of P_(k+1) = a (2x - 1) P_k + b P_(k-1) with (a, b) = factors(k), from P_0 = 1."""
    before: Poly = ()
    here: Poly = (Fraction(1),)
    for k in range(n):
        a, b = factors(k)
        rising = poly_mul((Fraction(-a), Fraction(2 * a)), here)
        before, here = here, poly_add(rising, poly_scale(before, Fraction(b)))
    return here


def _legendre(n: int) -> Poly:
    """The Legendre polynomial P_n(2x - 1) shifted to [0, 1]."""
    return _orthogonal(n, lambda k: (Fraction(2 * k + 1, k + 1), Fraction(-k, k + 1)))


def _chebyshev(n: int, second: bool) -> Poly:
    """T_n, or U_n, at 2x - 1."""
    return _orthogonal(n, lambda k: (2 if k or second else 1, -1))


def _difference(n: int, m: int, sign: int) -> Poly:
    return poly_add(_legendre(n), poly_scale(_legendre(m), Fraction(sign)))


def _from_roots(roots: Sequence[Fraction]) -> Poly:
    product: Poly = (Fraction(1),)
    for root in roots:
        product = poly_mul(product, (-root, Fraction(1)))
    return product


_ENDS = (Fraction(0), Fraction(-1), Fraction(1))  # x (x - 1)

NODAL: dict[str, Callable[[int], Poly]] = {
    "gauss-legendre": _legendre,
    # P_n - P_{n-2} has the n Lobatto nodes as its zeros
    "gauss-lobatto": lambda n: _difference(n, n - 2, -1),
    "radau-left": lambda n: _difference(n, n - 1, 1),
    "radau-right": lambda n: _difference(n, n - 1, -1),
    "clenshaw-curtis": lambda n: poly_mul(_ENDS, _chebyshev(n - 2, True)),
    "fejer-1": lambda n: _chebyshev(n, False),
    "fejer-2": lambda n: _chebyshev(n, True),
    "newton-cotes-closed": lambda n: _from_roots([Fraction(i, n - 1) for i in range(n)]),
    "newton-cotes-open": lambda n: _from_roots([Fraction(i + 1, n + 1) for i in range(n)]),
}
"""family -> (n -> a multiple of the nodal polynomial)."""


def _integers(p: Sequence[Fraction]) -> tuple[list[int], int]:
    """The coefficients over one common denominator."""
    bottom = math.lcm(*(a.denominator for a in p))
    return [a.numerator * (bottom // a.denominator) for a in p], bottom


@dataclass(frozen=True)
class ExactRule:
    """A rule as operations on polynomials modulo its nodal polynomial.

    nodal: M, monic, degree n. exact: whether M is the family's own (True), or that of float64 nodes
    taken as the rational numbers they are (False: then identities hold to rounding only).
    """

    nodal: Poly
    exact: bool

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.nodal) - 1

    @functools.cached_property
    def _powers(self) -> tuple[list[list[int]], int]:
        """x^n, ..., x^(2n) modulo M over one common denominator."""
        row = [-a for a in self.nodal[:-1]]
        rows = [row]
        for _ in range(self.n):
            top = row[-1]
            row = [b - top * a for a, b in zip(self.nodal[:-1], [Fraction(0), *row], strict=False)]
            rows.append(row)
        bottom = math.lcm(*(a.denominator for row in rows for a in row))
        return [[int(a * bottom) for a in row] for row in rows], bottom

    def _reduced(self, p: Sequence[int], bottom: int) -> Poly:
        """p / bottom modulo M; integers up to the last division, which is where the time goes."""
        n, (rows, scale) = self.n, self._powers
        result = [a * scale for a in p[:n]] + [0] * (n - len(p))
        for factor, row in zip(p[n:], rows, strict=False):
            if factor:
                for i, a in enumerate(row):
                    result[i] += factor * a
        bottom *= scale
        return tuple(Fraction(a, bottom) for a in result)

    def reduce(self, p: Sequence[Fraction]) -> Poly:
        """p modulo M: the polynomial of degree < n with p's values at the nodes."""
        if len(p) <= self.n:
            return (*p, *(Fraction(0),) * (self.n - len(p)))
        if len(p) > 2 * self.n + 1:  # from the top, a power at a time
            rest = list(p)
            for top in range(len(rest) - 1, 2 * self.n, -1):
                factor = rest.pop()
                for i in range(self.n):
                    rest[top - self.n + i] -= factor * self.nodal[i]
            p = rest
        return self._reduced(*_integers(p))

    def multiply(self, p: Sequence[Fraction], q: Sequence[Fraction]) -> Poly:
        """The product of two functions on the nodes, each of degree < n."""
        (left, bottom), (right, other) = _integers(p), _integers(q)
        product = [0] * (len(left) + len(right) - 1)
        for i, a in enumerate(left):
            if a:
                for j, b in enumerate(right, i):
                    product[j] += a * b
        return self._reduced(product, bottom * other)

    def integrate(self, p: Sequence[Fraction]) -> Poly:
        """A p: the integration matrix applied to a function on the nodes."""
        return self.reduce(poly_integral(p))

    def weigh(self, p: Sequence[Fraction], upto: Fraction = Fraction(1)) -> Fraction:
        """b · p: the integral from 0 to 1 (or to `upto`) of the interpolant."""
        return poly_value(poly_integral(self.reduce(p)), upto)

    def interpolant_weights(self, positions: Sequence[Fraction]) -> list[Fraction]:
        """The rule applied to the Lagrange basis through these positions (0 is the start)."""
        return [self.weigh(basis) for basis in lagrange_basis(positions)]

    def shift(self, p: Sequence[Fraction], ratio: Fraction = Fraction(1)) -> Poly:
        """The interpolant p, extrapolated to the nodes of the next interval: p(1 + ratio x)."""
        return self.reduce(poly_composed(self.reduce(p), (Fraction(1), ratio)))

    @property
    def matrix(self) -> list[list[Fraction]]:
        """The integration matrix in the basis 1, x, ..., x^(n-1): similar to A, and rational."""
        columns = [self.integrate(unit(k, self.n)) for k in range(self.n)]
        return [list(row) for row in zip(*columns, strict=True)]

    @functools.cached_property
    def degree(self) -> int:
        """Degree of exactness: M is orthogonal to all polynomials of degree < d + 1 - n."""
        power: Poly = self.nodal
        for k in range(self.n + 1):
            if poly_value(poly_integral(power), Fraction(1)):
                return self.n - 1 + k
            power = (Fraction(0), *power)
        raise AssertionError("no rule has degree 2n")  # pragma: no cover

    def nodes(self, digits: int = 50) -> list[object]:
        """The zeros of M as mpmath numbers of this many digits, ascending."""
        mp = multiprecision()
        with mp.workdps(2 * digits):
            top = math.lcm(*(a.denominator for a in self.nodal))
            coefficients = [int(a * top) for a in reversed(self.nodal)]
            roots = mp.polyroots(coefficients, maxsteps=400, extraprec=20 * digits)
            return sorted(mp.re(r) for r in roots)


@functools.lru_cache(maxsize=512)
def exact_rule(rule: QuadratureRule) -> ExactRule:
    """The exact counterpart of a rule.

    For a registered family its own nodal polynomial; otherwise (`rule_from_nodes`) that of the
    float64 nodes, which are rational numbers (then `exact` is False).
    """
    if rule.family in NODAL:
        with warnings.catch_warnings():  # of negative weights: said when the rule was made
            warnings.simplefilter("ignore", NegativeWeightsWarning)
            own = FAMILIES[rule.family].function(rule.n)
        if rule == own:
            poly = NODAL[rule.family](rule.n)
            return ExactRule(poly_scale(poly, 1 / poly[-1]), True)
    return ExactRule(_from_roots([Fraction(c) for c in rule.nodes.tolist()]), False)
