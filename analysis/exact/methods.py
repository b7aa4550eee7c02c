"""One step of any method on the tree problem, exactly: what its order conditions are made of.

Runge-Kutta methods have elementary weights. A method that uses earlier intervals (Adams,
extrapolated start guesses) is run over a few intervals, every one from the exact state, until what
it carries along no longer changes: the last interval's result is its local error, tree by tree.

Written a second time on purpose: the plans' own code is compared with it, so it uses none of it.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

import quadflow as qf

from ...plans.adams.method import VariableOrderMethod
from ...plans.anchors.method import AnchorsMethod
from ...plans.stages.method import StagesMethod
from ...plans.sweeps.method import SweepsMethod
from ...plans.sweeps.sweep import CONTRACTION
from ...rules.tableau import Tableau
from .rational_numbers import rational_array
from .rules import (
    ExactRule,
    Poly,
    exact_rule,
    lagrange_basis,
    poly_add,
    poly_integral,
    poly_scale,
    poly_value,
)
from .trees import TreeTable, density, size

ONE = Fraction(1)

UNIT = 2.0**-53
"""Relative rounding error of a float64 entry."""


@dataclass(frozen=True)
class ExactStep:
    """The result of one step of size 1 from the exact state 0, for every tree of `table`.

    end: y_t(1); dense(θ): y_t(θ); estimates: the rows of the local error estimate. allowance: what
    rounding of the method's entries to float64 can make of `end`, for every tree; empty where the
    entries are the rational or algebraic numbers meant, and zero is zero. dense_allowance and
    estimate_allowances: the same for `dense` and for each row of `estimates`. combined: the two
    rows are not alternatives but joined as in DOP853.
    """

    table: TreeTable
    end: Sequence[Fraction]
    dense: Callable[[Fraction], Sequence[Fraction]]
    estimates: Sequence[Sequence[Fraction]] = ()
    allowance: Sequence[float] = ()
    dense_allowance: Sequence[float] = ()
    estimate_allowances: Sequence[Sequence[float]] = ()
    combined: bool = False

    def defects(self, theta: Fraction | None = None) -> list[Fraction]:
        """y_t(θ) - θ^ρ(t)/γ(t), at the end for None."""
        values = self.end if theta is None else self.dense(theta)
        at = Fraction(1) if theta is None else theta
        return [
            value - at ** size(tree) / density(tree)
            for value, tree in zip(values, self.table.trees, strict=True)
        ]


def _exact_state(table: TreeTable, t: Fraction) -> list[Fraction]:
    return [t ** size(tree) / density(tree) for tree in table.trees]


def exact_velocity(table: TreeTable, t: Fraction) -> list[Fraction]:
    """dy/dt of the exact solution."""
    return [t ** (size(tree) - 1) * size(tree) / density(tree) for tree in table.trees]


def look_back(method: object) -> int:
    """How many intervals before a step its method uses; 0 for whatever is no such method."""
    if isinstance(method, AnchorsMethod):
        return method.interpolant.anchors - 1
    if isinstance(method, VariableOrderMethod):
        return method.max_order - 1
    return 1 if isinstance(method, SweepsMethod) and method.guess == "extrapolated" else 0


@functools.singledispatch
def exact_step(method: object, table: TreeTable, ratio: Fraction = ONE) -> ExactStep:
    """One step of a method on the trees of `table`.

    Args:
        method: a QuadratureRule (collocation on it, converged), or a Method of any plan.
        ratio: every step over the one before it, for methods that look back.

    Raises:
        TypeError: anything else.
        ValueError: a method whose order is not a matter of algebra (a trained interpolant).
    """
    raise TypeError(
        f"method must be a QuadratureRule or a Method with an evaluation plan, got {method!r}"
    )


# -- Runge-Kutta ----------------------------------------------------------------------------------


@exact_step.register
def _(rule: qf.QuadratureRule, table: TreeTable, ratio: Fraction = ONE) -> ExactStep:
    """Collocation on a rule, solved to convergence."""
    exact = exact_rule(rule)
    one: Poly = exact.reduce((Fraction(1),))
    velocities = table.elementary(one, exact.integrate, exact.multiply)
    return _rule_step(exact, table, velocities, ())


def _rule_step(
    rule: ExactRule, table: TreeTable, velocities: Sequence[Poly],
    estimates: Sequence[Sequence[Fraction]],
) -> ExactStep:  # fmt: skip
    def dense(theta: Fraction) -> list[Fraction]:
        return [rule.weigh(v, theta) for v in velocities]

    rounding = _rounding(rule, table)
    return ExactStep(
        table, dense(Fraction(1)), dense, estimates, rounding, rounding,
        [rounding for _ in estimates],
    )  # fmt: skip


def _rounding(rule: ExactRule, table: TreeTable) -> list[float]:
    """Nodes given as float64 are off by a rounding, which weights of size up to 100 amplify."""
    return [] if rule.exact else [1e-13] * len(table.trees)


def full_matrix(tableau: Tableau, *, interpolant: bool = False) -> np.ndarray:
    """The matrix A of a tableau; with the rows of its interpolant's stages if asked."""
    rows: list[tuple[float, ...]] = list(tableau.a)
    if interpolant:
        if not tableau.first_same_as_last:
            rows.append(tuple(tableau.b.tolist()))
        rows += [row for _, row in tableau.extra]
    matrix = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = row
    return matrix


@exact_step.register
def _(method: StagesMethod, table: TreeTable, ratio: Fraction = ONE) -> ExactStep:
    """An explicit tableau with its embedded weights and its interpolant."""
    tableau = method.tableau
    a, exact_a = rational_array(full_matrix(tableau, interpolant=True))
    b, exact_b = rational_array(np.pad(tableau.b, (0, len(a) - len(tableau.b))))
    errors = [rational_array(np.pad(row, (0, len(a) - len(row)))) for row in tableau.errors]
    one = np.array([Fraction(1)] * len(a), dtype=object)
    stages = table.elementary(one, lambda v: a @ v, operator.mul)
    coefficients, exact_dense = rational_array(tableau.dense)
    powers = np.arange(1, coefficients.shape[1] + 1)

    def dense(theta: Fraction) -> list[Fraction]:
        weights = coefficients @ np.array([theta ** int(k) for k in powers], dtype=object)
        return [weights @ v[: len(weights)] for v in stages]

    sizes = np.abs(a.astype(float))
    magnitudes = table.elementary(np.ones(len(a)), lambda v: sizes @ v, operator.mul)

    def allowance(weights: np.ndarray, exact: bool) -> list[float]:
        if exact and exact_a:
            return []
        absolute = np.abs(weights.astype(float))
        return [
            UNIT * size(tree) * float(absolute @ v[: len(absolute)])
            for tree, v in zip(table.trees, magnitudes, strict=True)
        ]

    return ExactStep(
        table,
        [b @ v for v in stages],
        dense,
        [[row @ v for v in stages] for row, _ in errors],
        allowance(b, exact_b),
        allowance(np.abs(coefficients).sum(axis=1), exact_dense),
        [allowance(row, exact) for row, exact in errors],
        combined=len(errors) == 2,
    )


# -- sweeps ---------------------------------------------------------------------------------------


@exact_step.register
def _(method: SweepsMethod, table: TreeTable, ratio: Fraction = ONE) -> ExactStep:
    """K explicit sweeps; from an extrapolated guess every step is `ratio` times the one before."""
    rule = exact_rule(method.rule)
    one = rule.reduce((Fraction(1),))
    nothing: Poly = (Fraction(0),) * rule.n

    def interval(start: Sequence[Fraction], guess: Sequence[Poly], h: Fraction) -> list[list[Poly]]:
        """The node velocities after 0, 1, ... sweeps."""
        all_values = [list(guess)]
        for _ in range(method.sweeps):
            values = all_values[-1]
            states = [
                poly_add(poly_scale(one, y), poly_scale(rule.integrate(v), h))
                for y, v in zip(start, values, strict=True)
            ]
            all_values.append(table.products(one, states, rule.multiply))
        return all_values

    highest = size(table.trees[-1])
    if method.guess == "constant":
        zero = [Fraction(0)] * len(table.trees)
        swept = interval(zero, [one] + [nothing] * (len(zero) - 1), Fraction(1))
    else:
        # a fault of order q in the velocities is one of order q + K after an interval
        count = -(-highest // method.sweeps) + 1
        sizes = [ratio**-j for j in range(count, -1, -1)]  # ends with 1
        t = -sum(sizes[:-1], Fraction(0))
        x = rule.reduce((Fraction(0), Fraction(1)))
        before = t - sizes[0] / ratio  # the velocities of the interval before the first are exact
        node = poly_add(poly_scale(one, before), poly_scale(x, sizes[0] / ratio))
        powers = [one]
        for _ in range(highest):
            powers.append(rule.multiply(powers[-1], node))
        values = [
            poly_scale(powers[size(tree) - 1], Fraction(size(tree), density(tree)))
            for tree in table.trees
        ]
        for h in sizes:
            guess = [rule.shift(v, ratio) for v in values]
            swept = interval(_exact_state(table, t), guess, h)
            values = swept[-1]
            t += h

    def change(since: int) -> list[Poly]:
        """How the node velocities differ from those after an earlier sweep."""
        return [
            poly_add(v, poly_scale(w, Fraction(-1)))
            for v, w in zip(swept[-1], swept[since], strict=True)
        ]

    estimates = []
    if method.error_order is not None:
        embedded = _embedded(rule, method.rule)
        extrapolated = method.guess == "extrapolated"
        share = Fraction(CONTRACTION) if extrapolated else Fraction(1)
        estimates = [
            [share * rule.weigh(v) for v in change(-2)],
            [rule.weigh(v) - embedded(v) for v in (change(0) if extrapolated else swept[-1])],
        ]
    return _rule_step(rule, table, swept[-1], estimates)


def _embedded(rule: ExactRule, floats: qf.QuadratureRule) -> Callable[[Poly], Fraction]:
    """The integral of the interpolant through all nodes but the middle one.

    The middle node c is rational where n is odd and the rule symmetric; elsewhere a float64 is
    near enough to find the first tree that does not vanish.
    """
    drop = rule.n // 2
    c = Fraction(floats.nodes[drop]).limit_denominator(1000)
    if float(c) != floats.nodes[drop] or poly_value(rule.nodal, c):
        c = Fraction(floats.nodes[drop])
    # M / (x - c): through the other nodes; p - p(top) M/(x-c)/lead keeps p's values there
    quotient: list[Fraction] = []
    carry = Fraction(0)
    for a in reversed(rule.nodal):
        carry = a + carry * c
        quotient.append(carry)
    quotient.pop()  # the remainder, 0 or rounding
    others = tuple(reversed(quotient))  # degree n - 1, monic

    def integral(p: Poly) -> Fraction:
        reduced = rule.reduce(p)
        lower = poly_add(reduced, poly_scale(others, -reduced[-1]))
        return poly_value(poly_integral(lower), Fraction(1))

    return integral


# -- anchors --------------------------------------------------------------------------------------


@exact_step.register
def anchors_step(
    method: AnchorsMethod, table: TreeTable, ratio: Fraction = ONE, *, against: str = "predictor"
) -> ExactStep:
    """Adams-type methods with a polynomial interpolant, every step `ratio` times the one before.

    Args:
        method, table, ratio: see `exact_step`.
        against: what the error estimate compares the corrector with: "predictor", or "lower", the
            corrector without the oldest anchor.

    Raises:
        ValueError: the interpolant is no polynomial (its order is not a matter of algebra).
    """
    if not isinstance(method.interpolant, qf.PolynomialInterpolant):
        raise ValueError(f"{method.name}: only a polynomial interpolant has order conditions")
    k, rule = method.interpolant.anchors, exact_rule(method.rule)
    highest = size(table.trees[-1])

    def combine(weights: Sequence[Fraction], rows: Sequence[Sequence[Fraction]]) -> list[Fraction]:
        return [sum(map(operator.mul, weights, column)) for column in zip(*rows, strict=True)]

    # anchors at exact states are exact; under PEC a fault of order q in one is one of order q + 1
    # in the next
    count = highest if method.correction == "PEC" else 1
    sizes = [ratio**-j for j in range(count - 1, -1, -1)]
    t = -sum(sizes[:-1], Fraction(0))
    known: list[tuple[Fraction, list[Fraction]]] = []
    back, h = t, sizes[0]
    for _ in range(k):
        known.insert(0, (back, exact_velocity(table, back)))
        h /= ratio
        back -= h
    predicted = corrected = start = [Fraction(0)]
    positions: list[Fraction] = []
    velocities: list[list[Fraction]] = []
    for h in sizes:
        start = _exact_state(table, t)
        if method.correction != "PEC":  # evaluated where the step begins
            known[-1] = (t, table.products(Fraction(1), start, operator.mul))
        positions = [(s - t) / h for s, _ in known]
        velocities = [v for _, v in known]
        mean = combine(rule.interpolant_weights(positions), velocities)
        predicted = corrected = [y + h * v for y, v in zip(start, mean, strict=True)]
        if method.correction is not None:
            v1 = table.products(Fraction(1), predicted, operator.mul)
            positions, velocities = [*positions, Fraction(1)], [*velocities, v1]
            mean = combine(rule.interpolant_weights(positions), velocities)
            corrected = [y + h * v for y, v in zip(start, mean, strict=True)]
        t += h
        end = velocities[-1] if method.correction == "PEC" else exact_velocity(table, t)
        known = [*known[1:], (t, end)]
    basis = lagrange_basis(positions)
    if rule.degree < len(positions) - 1:  # between the steps: through the rule's nodes
        basis = [rule.reduce(p) for p in basis]
    integrals = [poly_integral(p) for p in basis]

    def dense(theta: Fraction) -> list[Fraction]:
        return combine([poly_value(p, theta) for p in integrals], velocities)

    estimates = []
    if method.correction is not None:
        lower = predicted
        if against == "lower":
            mean = combine(rule.interpolant_weights(positions[1:]), velocities[1:])
            lower = [y + sizes[-1] * v for y, v in zip(start, mean, strict=True)]
        estimates = [list(map(operator.sub, corrected, lower))]
    rounding = _rounding(rule, table)
    return ExactStep(
        table, corrected, dense, estimates, rounding, rounding, [rounding for _ in estimates]
    )


@exact_step.register
def _(method: VariableOrderMethod, table: TreeTable, ratio: Fraction = ONE) -> ExactStep:
    """An interval at the highest order."""
    fixed = qf.adams(method.max_order, "PECE")
    return anchors_step(fixed, table, ratio, against="lower")
