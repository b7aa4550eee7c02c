"""Order conditions of Runge-Kutta methods: rooted trees and simplifying assumptions."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

import quadflow as qf

from .rules import Poly, exact_rule, unit
from .trees import Tree, all_trees, density, size, symmetry, tree_text


@dataclass(frozen=True)
class OrderConditions:
    """How far the order conditions hold.

    order: the largest p up to which all hold. failing: the first tree that does not,
    with its defect b·Φ(t) - θ^ρ/γ(t); None where all hold up to the highest order looked at.
    principal_error: the 2-norm of the defects of order p+1, each divided by σ(t), as Prince and
    Dormand weigh them; nan where nothing fails."""

    order: int
    failing: Tree | None
    defect: Any
    principal_error: float

    def __str__(self) -> str:
        if self.failing is None:
            return f"order at least {self.order}"
        return (
            f"order {self.order}: tree {tree_text(self.failing)} fails by {float(self.defect):.3e}"
            f"; principal error norm {self.principal_error:.3e}"
        )


def judge(
    trees: Sequence[Tree], defects: Sequence[Any], allowance: Sequence[float] = ()
) -> OrderConditions:
    """The order that the defects of trees, ascending in size, leave.

    allowance: how far from zero each defect may be; exactly zero is asked for when empty.
    """
    for i, (tree, defect) in enumerate(zip(trees, defects, strict=True)):
        if abs(defect) > (allowance[i] if allowance else 0):
            squares = [
                (float(d) / symmetry(t)) ** 2
                for t, d in zip(trees, defects, strict=True)
                if size(t) == size(tree)
            ]
            return OrderConditions(size(tree) - 1, tree, defect, math.sqrt(sum(squares)))
    return OrderConditions(size(trees[-1]), None, 0, math.nan)


def order_conditions(
    a: Any,
    b: Any,
    *,
    theta: Any = 1,
    highest: int = 8,
    tolerance: float | None = None,
) -> OrderConditions:
    """Check Σ_i b_i Φ_i(t) = θ^ρ(t) / γ(t) over all trees of order 1, 2, ... up to `highest`.

    Args:
        a: (s, s) matrix, its row sums being the nodes; explicit or implicit. Float64, or an array
            of Fractions, sympy or mpmath numbers, which are kept as they are.
        b: (s,) weights, or the weights of an interpolant at theta.
        theta: the place in the step, 1 at its end.
        highest: the order to go to; 10 takes a second or so.
        tolerance: what a defect may be; 1e-12 for float64, by default, and 0 for exact numbers
            (give one for mpmath's, such as 1e-45).

    Raises:
        ValueError: shapes that do not fit, or highest below 1.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, section II.2, theorem 2.13.
    """
    matrix, weights, one, numeric, tolerance = _prepared(a, b, tolerance)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a must be a square matrix (s, s), got shape {matrix.shape}")
    if weights.shape != matrix.shape[:1]:
        raise ValueError(
            f"b must have shape {matrix.shape[:1]}, one weight a row of a, got {weights.shape}"
        )
    if highest < 1:
        raise ValueError(f"highest must be an order >= 1, got {highest!r}")
    table = all_trees(highest)
    stages = table.elementary(one, lambda v: matrix @ v, operator.mul)
    defects = [
        weights @ v - theta ** size(t) / _number(density(t), numeric)
        for t, v in zip(table.trees, stages, strict=True)
    ]
    return judge(table.trees, defects, [tolerance] * len(defects))


def _prepared(a: Any, b: Any, tolerance: float | None) -> tuple[Any, Any, Any, bool, float]:
    """Matrix, weights and ones as arrays, whether they are float64, and the tolerance meant."""
    matrix, weights = np.asarray(a), np.asarray(b)
    numeric = matrix.dtype != object and weights.dtype != object
    one = np.ones(weights.shape) if numeric else np.full(weights.shape, Fraction(1), object)
    if tolerance is None:
        tolerance = 1e-12 if numeric else 0.0
    return matrix, weights, one, numeric, tolerance


def _number(value: int, numeric: bool) -> float | Fraction:
    return float(value) if numeric else Fraction(value)


@dataclass(frozen=True)
class SimplifyingAssumptions:
    """How far the simplifying assumptions B(p), C(q) and D(r) hold.

    b: the largest p with Σ b_i c_i^(k-1) = 1/k for k <= p. c: the largest q with
    Σ_j a_ij c_j^(k-1) = c_i^k/k for k <= q. d: the largest r with
    Σ_i b_i c_i^(k-1) a_ij = b_j (1 - c_j^k)/k for k <= r.

    Source: Butcher 1964; Hairer, Nørsett & Wanner, Solving ODEs I, section II.7, theorem 7.4.
    """

    b: int
    c: int
    d: int

    @property
    def order(self) -> int:
        """The order that they guarantee, min(p, 2q+2, q+r+1)."""
        return min(self.b, 2 * self.c + 2, self.c + self.d + 1)

    def __str__(self) -> str:
        return f"B({self.b}), C({self.c}), D({self.d})"


def simplifying_assumptions(
    a: Any, b: Any, *, highest: int = 40, tolerance: float | None = None
) -> SimplifyingAssumptions:
    """The simplifying assumptions that a Runge-Kutta method fulfils, found by testing.

    a, b, tolerance: as in `order_conditions`. highest: the largest p, q and r that are looked for.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, section II.7.
    """
    matrix, weights, one, numeric, tolerance = _prepared(a, b, tolerance)
    c = matrix @ one
    powers: list[Any] = [one]
    for _ in range(highest):
        powers.append(powers[-1] * c)

    def first_failure(defect: Any) -> int:
        for k in range(1, highest + 1):
            if np.abs(np.asarray(defect(k)).astype(float)).max() > tolerance:
                return k - 1
        return highest

    def inverse(k: int) -> float | Fraction:
        return 1 / _number(k, numeric)

    return SimplifyingAssumptions(
        first_failure(lambda k: weights @ powers[k - 1] - inverse(k)),
        first_failure(lambda k: matrix @ powers[k - 1] - powers[k] * inverse(k)),
        first_failure(
            lambda k: (weights * powers[k - 1]) @ matrix - weights * (one - powers[k]) * inverse(k)
        ),
    )


@functools.lru_cache(maxsize=256)
def rule_assumptions(rule: qf.QuadratureRule) -> SimplifyingAssumptions:
    """The assumptions that collocation on a rule fulfils: exactly B(d+1), C(n), D(d+1-n) at least.

    All three are found by testing, not taken from the theory.
    """
    exact = exact_rule(rule)
    n, one = exact.n, exact.reduce((Fraction(1),))
    x = exact.reduce((Fraction(0), Fraction(1)))
    powers: list[Poly] = [one]
    for _ in range(2 * n + 2):
        powers.append(exact.multiply(powers[-1], x))
    basis = [unit(k, n) for k in range(n)]

    def c_holds(k: int) -> bool:
        scaled = tuple(k * value for value in exact.integrate(powers[k - 1]))
        return scaled == powers[k]

    def d_holds(k: int) -> bool:
        factor = tuple((p - q) / k for p, q in zip(one, powers[k], strict=True))
        return all(
            exact.weigh(exact.multiply(powers[k - 1], exact.integrate(q)))
            == exact.weigh(exact.multiply(factor, q))
            for q in basis
        )

    def largest(holds: Any) -> int:
        k = 0
        while k < 2 * n + 1 and holds(k + 1):
            k += 1
        return k

    return SimplifyingAssumptions(
        largest(lambda k: exact.weigh(powers[k - 1]) == Fraction(1, k)),
        largest(c_holds),
        largest(d_holds),
    )
