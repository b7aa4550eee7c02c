"""Runge-Kutta methods as exact linear algebra: collocation, its relatives, explicit tableaus.

Stage values on a rule are polynomials modulo the nodal polynomial (see `rules.ExactRule`), stage
values of a tableau are plain vectors; in both cases the coefficient matrix, the weights and the
quadratic form of the weights are rational, and all of stability theory is invariant under the
change of basis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ...checks import check_choice
from ...extras import require
from ...plans.method import Method
from ...plans.stages.method import StagesMethod
from ...plans.sweeps.method import SweepsMethod
from ...rules.gauss import gauss_lobatto, radau_left, radau_right
from ...rules.lagrange import barycentric_weights
from ...rules.rule import QuadratureRule
from ...rules.tableau import Tableau
from .methods import full_matrix
from .rational_functions import RationalFunction, greatest_common_divisor
from .rational_numbers import rational_array
from .rules import ExactRule, exact_rule, poly_composed, poly_scale, poly_value, unit

Vector = tuple[Fraction, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True, eq=False)
class ImplicitMethod:
    """An implicit Runge-Kutta method on the nodes and weights of a rule.

    family: "radau-ia", "radau-iia", "lobatto-iiia", "lobatto-iiib" or "lobatto-iiic". Made by
    `implicit_method`.
    """

    family: str
    rule: QuadratureRule

    @property
    def name(self) -> str:
        """Family and number of stages."""
        return f"{self.family}-{self.rule.n}"

    @property
    def coefficients(self) -> np.ndarray:
        """The matrix A, (s, s) float64, to rounding."""
        a, b, c = self.rule.integration_matrix, self.rule.weights, self.rule.nodes
        if self.family in ("radau-ia", "lobatto-iiib"):
            return b * (b[:, None] - a.T) / b[:, None]
        if self.family == "lobatto-iiic":
            # C(s-1) leaves of every row a multiple of the highest divided difference free
            highest = barycentric_weights(c)
            return a - np.outer(a[:, 0] - b[0], highest / highest[0])
        return a.copy()


@dataclass(frozen=True, eq=False)
class ExactRungeKutta:
    """A Runge-Kutta method in some basis of its stage values.

    matrix: A, s rows. weights: b as a functional on the basis. one: the vector of ones. gram: the
    form Σ b_i u_i v_i on the basis. exact: whether these are the method's own numbers (True) or
    those of its float64 coefficients. explicit: whether the stages follow one after another. rule:
    the exact rule whose nodes the stages are, where the basis is 1, x, ..., x^(s-1).
    """

    name: str
    matrix: Matrix
    weights: Vector
    one: Vector
    gram: Matrix
    exact: bool
    explicit: bool
    rule: ExactRule | None = None

    @property
    def stages(self) -> int:
        """Number of stages s."""
        return len(self.matrix)

    def moments(self, count: int) -> Vector:
        """b·1, b·A1, ..., b·A^(count-1) 1: R(z) = 1 + Σ moments[k] z^(k+1)."""
        vector, result = self.one, []
        for _ in range(count):
            result.append(_dot(self.weights, vector))
            vector = tuple(_dot(row, vector) for row in self.matrix)
        return tuple(result)

    def stability_function(self) -> RationalFunction:
        """R(z) = 1 + z b·(I - zA)⁻¹1, exact.

        Its denominator is det(I - zA), its numerator the part up to z^s of the product of that
        and R's series. Source: Hairer & Wanner, Solving ODEs II, section IV.3, (3.2) and (3.3).
        """
        s = self.stages
        series = (Fraction(1), *self.moments(s))
        if self.explicit:
            return RationalFunction.of(series)
        # det(I - zA), lowest power first: the characteristic polynomial read backwards
        denominator = _fractions(_rational(self.matrix).charpoly())
        numerator = tuple(
            sum((denominator[j] * series[k - j] for j in range(k + 1)), Fraction(0))
            for k in range(s + 1)
        )
        return RationalFunction.of(numerator, denominator)

    def stability_matrix(self) -> Matrix:
        """M = BA + AᵀB - bbᵀ as a quadratic form in the basis, exact."""
        s = self.stages
        ga = _product(self.gram, self.matrix)
        b = self.weights
        return tuple(tuple(ga[i][j] + ga[j][i] - b[i] * b[j] for j in range(s)) for i in range(s))

    def is_symmetric(self) -> bool:
        """Whether the adjoint method is the method itself: PA + AP = 1bᵀ, P reversing the nodes."""
        rule = self.rule
        if rule is None or self.explicit:
            return False
        flip = [rule.shift(unit(k, self.stages), Fraction(-1)) for k in range(self.stages)]
        # M(1 - x) must be ±M(x): the nodes mirror each other
        mirror = poly_composed(rule.nodal, (Fraction(1), Fraction(-1)))
        if tuple(poly_scale(mirror, Fraction((-1) ** rule.n))) != rule.nodal:
            return False
        reverse = _transposed(flip)
        left = _product(reverse, self.matrix)
        right = _product(self.matrix, reverse)
        return all(
            left[i][j] + right[i][j] == self.one[i] * self.weights[j]
            for i in range(self.stages)
            for j in range(self.stages)
        )

    def is_stiffly_accurate(self) -> bool:
        """Whether one stage is the step itself: a row of A equal to b."""
        if self.rule is None:
            return any(row == self.weights for row in self.matrix)
        # row i of A equals b where all of A x^k - b x^k vanish at node i: a common zero with M
        common = self.rule.nodal
        for column, weight in zip(_transposed(self.matrix), self.weights, strict=True):
            difference = tuple(a - weight * e for a, e in zip(column, self.one, strict=True))
            common = greatest_common_divisor(common, difference)
        return len(common) > 1


def implicit_method(family: str, n: int) -> ImplicitMethod:
    """The implicit Runge-Kutta method of this family with n stages.

    Raises:
        ValueError: an unknown family (the nearest are named), or n that it does not have.
    """
    check_choice(family, IMPLICIT, "family")
    return ImplicitMethod(family, IMPLICIT[family][0](n))


def exact_runge_kutta(
    method: QuadratureRule | ImplicitMethod | Method | Tableau,
) -> ExactRungeKutta:
    """The exact algebra of a one-step method.

    Args:
        method: a rule (implicit collocation solved to convergence), an `ImplicitMethod`, sweeps
            from a constant guess (the algebra is that of the rule: see `sweeps_function`), or
            explicit stages. Entries of a tableau become the fraction with denominator at most
            `rational_numbers.LARGEST_DENOMINATOR` that rounds to them; if one entry has none, all
            of the tableau is taken as the float64 numbers that it is, and `exact` is False.

    Raises:
        TypeError: a method that is no one-step method of these kinds.
    """
    if isinstance(method, QuadratureRule):
        return _on_rule(f"{method.family}-{method.n}", method, _collocation)
    if isinstance(method, ImplicitMethod):
        return _on_rule(method.name, method.rule, IMPLICIT[method.family][1])
    if isinstance(method, SweepsMethod) and method.guess == "constant":
        return _on_rule(method.name, method.rule, _collocation)
    if isinstance(method, StagesMethod):
        return _from_tableau(method.tableau, method.name)
    if isinstance(method, Tableau):
        return _from_tableau(method, "tableau")
    raise TypeError(
        f"method must be a QuadratureRule, an ImplicitMethod, a Tableau, a StagesMethod or sweeps "
        f"from a constant guess, got {method!r}"
    )


# -- coefficient matrices on a rule --------------------------------------------------------------


def _collocation(rule: ExactRule, gram: Matrix) -> Matrix:
    """C(s): A p is the integral of p from 0."""
    return tuple(map(tuple, rule.matrix))


def _adjoint(rule: ExactRule, gram: Matrix) -> Matrix:
    """D(s): Σ b_i p(c_i) a_ij = b_j ∫ p from c_j to 1, so A is the adjoint of that integral.

    Radau IA (Ehle 1969) and Lobatto IIIB; Hairer & Wanner, Solving ODEs II, section IV.5.
    """
    s = rule.n
    columns = []
    for k in range(s):
        whole = rule.weigh(unit(k, s))
        upto = rule.integrate(unit(k, s))
        columns.append(tuple((whole if i == 0 else Fraction(0)) - a for i, a in enumerate(upto)))
    # <J p, q> = <p, A q> in the form of the weights: G A = Jᵀ G
    solved = _rational(gram).lu_solve(_rational(_product(tuple(columns), gram)))
    return tuple(map(_fractions, solved.to_dense().rep.to_list()))


def _lobatto_iiic(rule: ExactRule, gram: Matrix) -> Matrix:
    """a_i1 = b_1 for all i, and C(s-1) (Chipman 1971; Hairer & Wanner, section IV.5)."""
    s = rule.n
    lagrange = rule.nodal[1:]  # M(x) / x: zero at all nodes but the first, which is 0
    lagrange = poly_scale(lagrange, 1 / poly_value(lagrange, Fraction(0)))
    first = poly_scale(unit(0, s), rule.weigh(lagrange))
    columns = [rule.integrate(unit(k, s)) for k in range(s - 1)]
    # the last basis function is what of the first Lagrange polynomial is not of lower degree
    rest = list(first)
    for a, column in zip(lagrange, columns, strict=False):
        rest = [r - a * c for r, c in zip(rest, column, strict=True)]
    columns.append(tuple(r / lagrange[s - 1] for r in rest))
    return _transposed(columns)


IMPLICIT: dict[
    str, tuple[Callable[[int], QuadratureRule], Callable[[ExactRule, Matrix], Matrix]]
] = {
    "radau-ia": (radau_left, _adjoint),
    "radau-iia": (radau_right, _collocation),
    "lobatto-iiia": (gauss_lobatto, _collocation),
    "lobatto-iiib": (gauss_lobatto, _adjoint),
    "lobatto-iiic": (gauss_lobatto, _lobatto_iiic),
}
"""family -> (its rule by number of stages, its coefficient matrix)."""


def _on_rule(
    name: str, rule: QuadratureRule, make: Callable[[ExactRule, Matrix], Matrix]
) -> ExactRungeKutta:
    exact = exact_rule(rule)
    s = exact.n
    power, moments = unit(0, s), []
    for _ in range(2 * s - 1):
        moments.append(exact.weigh(power))
        power = exact.reduce((Fraction(0), *power))
    gram = tuple(tuple(moments[i + j] for j in range(s)) for i in range(s))
    return ExactRungeKutta(
        name=name,
        matrix=make(exact, gram),
        weights=tuple(moments[:s]),
        one=unit(0, s),
        gram=gram,
        exact=exact.exact,
        explicit=False,
        rule=exact,
    )


def _from_tableau(tableau: Tableau, name: str) -> ExactRungeKutta:
    numbers, exact = rational_array(np.vstack((full_matrix(tableau), tableau.b)))
    *rows, b = map(tuple, numbers.tolist())
    s = len(rows)
    return ExactRungeKutta(
        name=name,
        matrix=tuple(rows),
        weights=b,
        one=tuple([Fraction(1)] * s),
        gram=tuple(tuple(b[i] if i == j else Fraction(0) for j in range(s)) for i in range(s)),
        exact=exact,
        explicit=True,
    )


# -- rational matrices -----------------------------------------------------------------------------


def inertia(form: Matrix) -> tuple[int, int, int]:
    """How many squares with positive, negative and no coefficient a symmetric form has, exactly.

    By symmetric elimination (Sylvester's law of inertia). The form is positive semidefinite if the
    second number is 0, and zero if only the third is not.
    """
    rest = [list(row) for row in form]
    positive = negative = 0
    while rest:
        pivot = next((i for i in range(len(rest)) if rest[i][i]), None)
        if pivot is None:
            cross = next(((i, j) for i in range(len(rest)) for j in range(i) if rest[i][j]), None)
            if cross is None:
                break
            pivot, other = cross  # no square but a product: x_i -> x_i + x_j makes a square
            for row in rest:
                row[pivot] += row[other]
            rest[pivot] = [a + b for a, b in zip(rest[pivot], rest[other], strict=True)]
        value = rest[pivot][pivot]
        positive, negative = positive + (value > 0), negative + (value < 0)
        line = rest[pivot]
        keep = [i for i in range(len(rest)) if i != pivot]
        rest = [[rest[i][j] - line[i] * line[j] / value for j in keep] for i in keep]
    return positive, negative, len(form) - positive - negative


def _dot(p: Sequence[Fraction], q: Sequence[Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(p, q, strict=True) if a and b), Fraction(0))


def _transposed(matrix: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _product(p: Sequence[Sequence[Fraction]], q: Sequence[Sequence[Fraction]]) -> Matrix:
    columns = _transposed(q)
    return tuple(tuple(_dot(row, column) for column in columns) for row in p)


def _rational(matrix: Matrix) -> Any:
    """The matrix as sympy's exact ones."""
    sympy = require("sympy", "analysis")
    rows = [[sympy.QQ(a.numerator, a.denominator) for a in row] for row in matrix]
    return require("sympy.polys.matrices", "analysis").DomainMatrix(
        rows, (len(rows), len(rows[0])), sympy.QQ
    )


def _fractions(row: Sequence[Any]) -> Vector:
    return tuple(Fraction(int(a.numerator), int(a.denominator)) for a in row)
