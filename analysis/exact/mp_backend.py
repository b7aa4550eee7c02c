"""Fixed steps at any number of digits: every plan of quadflow, written again in mpmath.

Above order 8 or so, float64 leaves no room between the steps that are too coarse for the order to
show and those where rounding is all there is. Here a method is carried out with as many digits as
asked for. Nothing is shared, on purpose, with the torch implementation but the definition of the
method: nodes come from the exact nodal polynomial, integrals from polynomial coefficients, tableaus
as fractions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import numpy as np

from ...checks import integer_from
from ...plans.anchors.method import AnchorsMethod
from ...plans.interpolants import OracleInterpolant, PolynomialInterpolant
from ...plans.method import Method
from ...plans.stages.method import StagesMethod
from ...plans.sweeps.method import SweepsMethod
from ...rules.pairs import DOPRI5
from ...rules.rule import QuadratureRule
from ...rules.tableau import Tableau
from ..problems.problem import Problem
from .methods import full_matrix
from .multiprecision import multiprecision
from .rational_numbers import rational_array
from .rules import exact_rule


@dataclass(frozen=True)
class ImplicitCollocation:
    """Collocation on a rule, its equations solved to the last digit (simplified Newton).

    The order is d + 1, d being the rule's degree: Gauss 2n, Radau 2n - 1, Lobatto 2n - 2.
    Source: Hairer, Nørsett & Wanner, Solving ODEs I, section II.7, theorem 7.9.
    """

    rule: QuadratureRule

    @property
    def name(self) -> str:
        """ "implicit FAMILY-N"."""
        return f"implicit {self.rule.family}-{self.rule.n}"

    @property
    def order(self) -> int:
        """d + 1."""
        return self.rule.degree + 1

    @property
    def dense_order(self) -> int:
        """Order between the steps: that of the polynomial of degree n."""
        return min(self.order, self.rule.n + 1)


@dataclass(frozen=True)
class MpSegment:
    """The solution on one interval: y0 + h ∫ of the velocity polynomial through (node, value)."""

    t0: Any
    h: Any
    y0: list[Any]
    positions: tuple[Any, ...]
    values: list[list[Any]]

    def __call__(self, t: Any) -> list[Any]:
        """The state at time t, an mpf."""
        mp = multiprecision()
        row = _integrals(self.positions, ((t - self.t0) / self.h,))[0]
        columns = list(zip(*self.values, strict=True))
        return [y + self.h * mp.fdot(row, v) for y, v in zip(self.y0, columns, strict=True)]


@dataclass(frozen=True)
class MpRun:
    """A solve: end, d mpf numbers. nfe: evaluations of single states. calls: sequential ones, nodes
    that are evaluated together counted once. segments: of every interval; None where the method's
    interpolant is only known in float64 (tableaus)."""

    end: list[Any]
    nfe: int
    calls: int
    segments: list[MpSegment] | None


def coefficients_limit(method: Method | ImplicitCollocation) -> str | None:
    """Why more than 16 digits do not help this method; None where they do."""
    if isinstance(method, StagesMethod):
        tableau = method.tableau
        if not rational_array(np.vstack((full_matrix(tableau), tableau.b)))[1]:
            return "the tableau has no rational form: its coefficients are float64"
    rule = getattr(method, "rule", None)
    if rule is not None and not exact_rule(rule).exact and rule.degree > rule.n - 1:
        return "the nodes are float64 numbers: the degree above n - 1 holds to rounding only"
    return None


def _tableau_numbers(tableau: Tableau) -> tuple[list[list[Any]], list[Any], list[Any]]:
    """A, b, c as mpf, from the fractions that are meant where the entries are such."""
    mp = multiprecision()
    numbers, _ = rational_array(np.vstack((full_matrix(tableau), tableau.b)))
    *rows, b = [[mp.mpf(x.numerator) / x.denominator for x in row] for row in numbers.tolist()]
    a = [row[:i] for i, row in enumerate(rows)]
    return a, b, [mp.fsum(row) for row in a]


def _basis(positions: Sequence[Any]) -> list[list[Any]]:
    """Coefficients, lowest power first, of Lagrange's basis through the positions."""
    mp = multiprecision()
    basis = []
    for j, p in enumerate(positions):
        row, scale = [mp.mpf(1)], mp.mpf(1)
        for k, q in enumerate(positions):
            if k != j:
                row = [
                    (row[i - 1] if i else 0) - (q * row[i] if i < len(row) else 0)
                    for i in range(len(row) + 1)
                ]
                scale *= p - q
        basis.append([x / scale for x in row])
    return basis


def _integrals(positions: Sequence[Any], ends: Sequence[Any]) -> list[list[Any]]:
    """∫ from 0 to each end of Lagrange's basis through the positions: a row an end."""
    mp = multiprecision()
    with mp.extradps(2 * len(positions)):
        basis = _basis(positions)
        return [
            [mp.fsum(a * end ** (i + 1) / (i + 1) for i, a in enumerate(row)) for row in basis]
            for end in ends
        ]


def _values(positions: Sequence[Any], points: Sequence[Any]) -> list[list[Any]]:
    """Lagrange's basis through the positions at each point: a row a point."""
    mp = multiprecision()
    with mp.extradps(2 * len(positions)):
        basis = _basis(positions)
        return [[mp.fsum(a * x**i for i, a in enumerate(row)) for row in basis] for x in points]


@functools.lru_cache(maxsize=64)
def _rule_at(rule: QuadratureRule, digits: int) -> tuple[tuple[Any, ...], list[Any], list[Any]]:
    exact = exact_rule(rule)
    mp = multiprecision()
    nodes = tuple(exact.nodes(digits) if exact.exact else map(mp.mpf, rule.nodes.tolist()))
    *matrix, weights = _integrals(nodes, (*nodes, mp.mpf(1)))
    return nodes, weights, matrix


def rule_numbers(rule: QuadratureRule) -> tuple[tuple[Any, ...], list[Any], list[list[Any]]]:
    """Nodes, weights and integration matrix on [0, 1] at mpmath's working precision."""
    return _rule_at(rule, multiprecision().dps)


class _Solve:
    """One fixed-step solve at mpmath's working precision."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.mp = problem, multiprecision()
        self.nfe = self.calls = 0
        self.segments: list[MpSegment] = []

    def f(self, t: Any, y: Sequence[Any]) -> list[Any]:
        self.nfe += 1
        return [self.mp.mpf(p) for p in self.problem.rhs(t, y, self.mp)]

    def at(self, t: Any, y: Sequence[Any]) -> list[Any]:
        """A single evaluation, which is a sequential call of its own."""
        self.calls += 1
        return self.f(t, y)

    def along(self, y: Sequence[Any], h: Any, row: Sequence[Any], values: Any) -> list[Any]:
        """y + h Σ_j row_j values_j."""
        columns = zip(*values, strict=True)
        return [a + h * self.mp.fdot(row, v) for a, v in zip(y, columns, strict=True)]

    def sweep(self, t: Any, y: list[Any], h: Any, rule: Any, values: Any) -> list[list[Any]]:
        nodes, _, matrix = rule
        self.calls += 1
        return [
            self.f(t + c * h, self.along(y, h, row, values))
            for c, row in zip(nodes, matrix, strict=True)
        ]

    def runge_kutta(self, t: Any, y: list[Any], h: Any, tableau: Any) -> list[Any]:
        a, b, c = tableau
        values: list[list[Any]] = []
        for row, node in zip(a, c, strict=True):
            state = self.along(y, h, row, values) if values else y
            values.append(self.at(t + node * h, state))
        return self.along(y, h, b, values)

    # -- the plans -------------------------------------------------------------------------------

    def sweeps(self, method: SweepsMethod, times: list[Any], y: list[Any]) -> list[Any]:
        rule = rule_numbers(method.rule)
        nodes, weights, _ = rule
        values: list[list[Any]] = []
        before = None
        for t, t1 in pairwise(times):
            h, count = t1 - t, method.sweeps
            if method.guess == "extrapolated" and before is not None:
                rows = _values(nodes, [1 + h / before * c for c in nodes])
                values = [self.along([0] * len(y), 1, row, values) for row in rows]
            else:
                values = [self.at(t, y)] * len(nodes)
                if method.guess == "extrapolated":
                    count = max(count, (method.order or 1) - 1)
            for _ in range(count):
                values = self.sweep(t, y, h, rule, values)
            self.segments.append(MpSegment(t, h, y, nodes, values))
            y, before = self.along(y, h, weights, values), h
        return y

    def implicit(self, rule: QuadratureRule, times: list[Any], y: list[Any]) -> list[Any]:
        mp, numbers = self.mp, rule_numbers(rule)
        nodes, weights, matrix = numbers
        n, d = len(nodes), len(y)
        values: list[list[Any]] = []
        before = None
        for t, t1 in pairwise(times):
            h = t1 - t
            if before is None:
                values = [self.at(t, y)] * n
            else:
                rows = _values(nodes, [1 + h / before * c for c in nodes])
                values = [self.along([0] * d, 1, row, values) for row in rows]
            slope = self.jacobian(t, y)
            system = mp.eye(n * d)
            for i, j, p, q in product(range(n), range(n), range(d), range(d)):
                system[i * d + p, j * d + q] -= h * matrix[i][j] * slope[p][q]
            inverse = system**-1  # one a step, used by every iteration
            last = mp.inf
            for _ in range(200):
                new = self.sweep(t, y, h, numbers, values)
                gap = mp.matrix([b - a for u, v in zip(values, new, strict=True)
                                 for a, b in zip(u, v, strict=True)])  # fmt: skip
                change = inverse * gap
                values = [[values[i][p] + change[i * d + p] for p in range(d)] for i in range(n)]
                size = mp.norm(change, mp.inf)
                scale = 1 + max(abs(v) for row in values for v in row)
                # converged, or as near as rounding lets it come
                if size <= scale * mp.mpf(10) ** (3 - mp.dps):
                    break
                if size > 2 * last and size > scale:
                    raise ArithmeticError(
                        f"the collocation equations did not converge at t={mp.nstr(t, 9)}, "
                        f"h={mp.nstr(h, 5)}: the step is too long"
                    )
                last = size
            else:
                raise ArithmeticError(
                    f"the collocation equations did not converge in 200 iterations at "
                    f"t={mp.nstr(t, 9)}, h={mp.nstr(h, 5)}"
                )
            self.segments.append(MpSegment(t, h, y, nodes, values))
            y, before = self.along(y, h, weights, values), h
        return y

    def jacobian(self, t: Any, y: Sequence[Any]) -> list[list[Any]]:
        """df/dy by central differences at twice the digits."""
        mp, rhs = self.mp, self.problem.rhs
        with mp.workdps(2 * mp.dps):
            size = mp.mpf(10) ** (-mp.dps // 3)
            columns = []
            for q in range(len(y)):
                step = size * (1 + abs(y[q]))
                up, down = list(y), list(y)
                up[q], down[q] = y[q] + step, y[q] - step
                pairs = zip(rhs(t, up, mp), rhs(t, down, mp), strict=True)
                columns.append([(a - b) / (2 * step) for a, b in pairs])
        return [list(row) for row in zip(*columns, strict=True)]

    def anchors(
        self, method: AnchorsMethod, times: list[Any], y: list[Any], start: str
    ) -> list[Any]:
        mp, interpolant = self.mp, method.interpolant
        nodes, weights, _ = rule_numbers(method.rule)
        exact = self.problem.exact
        oracle = isinstance(interpolant, OracleInterpolant)
        known: list[tuple[Any, list[Any]]] = []  # anchors (time, velocity), the newest last
        ready: list[Any] | None = None  # velocity at the start of the coming interval
        dopri5 = _tableau_numbers(DOPRI5)
        for i, (t, t1) in enumerate(pairwise(times)):
            h, is_last = t1 - t, i == len(times) - 2
            known.append((t, ready if ready is not None else self.at(t, y)))
            known, ready = known[-interpolant.anchors :], None
            if len(known) < interpolant.anchors and start == "exact":
                y = list(exact(t1))  # type: ignore[misc]
                continue
            if len(known) < interpolant.anchors and method.startup == "dopri5":
                y = self.runge_kutta(t, y, h, dopri5)
                continue

            def integral(points: list[tuple[Any, list[Any]]], t: Any = t, h: Any = h) -> Any:
                if oracle:
                    values = [self.f(t + c * h, exact(t + c * h)) for c in nodes]  # type: ignore[misc]
                    return nodes, values, weights
                positions = tuple((when - t) / h for when, _ in points)
                values = [v for _, v in points]
                basis = _values(positions, nodes)
                row = [mp.fdot(weights, column) for column in zip(*basis, strict=True)]
                return positions, values, row

            positions, values, row = integral(known)
            y1 = self.along(y, h, row, values)
            if method.correction is not None and not (is_last and method.forward_last):
                v1 = self.at(t1, y1)
                positions, values, row = integral([*known, (t1, v1)])
                y1 = self.along(y, h, row, values)
                if method.correction == "PEC":
                    ready = v1
            if method.rule.degree < len(positions) - 1:  # then the rule's own polynomial it is
                basis = _values(positions, nodes)
                values = [self.along([0] * len(y), 1, r, values) for r in basis]
                positions = nodes
            self.segments.append(MpSegment(t, h, y, positions, values))
            y = y1
        return y


def mp_solve(
    problem: Problem,
    method: Method | ImplicitCollocation,
    grid: Sequence[Any] | np.ndarray,
    digits: int = 40,
    *,
    start: str = "exact",
    y0: Sequence[Any] | None = None,
) -> MpRun:
    """Solve on a grid of times at a number of decimal digits.

    Args:
        problem: its rhs runs on mpmath.mp. Starts from `exact` where there is one, else from y0.
        method: of any plan; an anchors method with a polynomial or the exact interpolant.
        grid: times (N+1,): mpf, Fraction or float (which are taken as they are).
        digits: 16 or more; the solve works with ten more.
        start: of multistep methods: "exact" takes the first k - 1 states from the exact solution,
            "own" starts as the method does.
        y0: the state at grid[0], when it is not the problem's.

    Raises:
        ValueError: unknown start, too few digits, an interpolant that is neither, or "exact" for a
            problem without exact solution.
        ArithmeticError: the collocation equations did not converge.
    """
    mp = multiprecision()
    integer_from(16, digits, "digits")
    if start not in ("exact", "own"):
        raise ValueError(f"start must be 'exact' or 'own', got {start!r}")
    with mp.workdps(digits + 10):
        times = [
            mp.mpf(t.numerator) / t.denominator if isinstance(t, Fraction) else mp.mpf(t)
            for t in (grid.tolist() if isinstance(grid, np.ndarray) else grid)
        ]
        if y0 is not None:
            y = [mp.mpf(x) for x in y0]
        elif problem.exact is not None:
            y = [mp.mpf(x) for x in problem.exact(times[0])]
        else:
            y = [mp.mpf(x) for x in problem.y0.tolist()]
        solve = _Solve(problem)
        segments: list[MpSegment] | None = solve.segments
        if isinstance(method, SweepsMethod):
            end = solve.sweeps(method, times, y)
        elif isinstance(method, ImplicitCollocation):
            end = solve.implicit(method.rule, times, y)
        elif isinstance(method, StagesMethod):
            tableau, segments = _tableau_numbers(method.tableau), None
            for t, t1 in pairwise(times):
                y = solve.runge_kutta(t, y, t1 - t, tableau)
            end = y
        elif isinstance(method, AnchorsMethod):
            kind = method.interpolant
            if not isinstance(kind, (PolynomialInterpolant, OracleInterpolant)):
                raise ValueError(
                    f"{method.name}: its interpolant, {type(kind).__name__}, runs in torch only; "
                    "extended precision needs a PolynomialInterpolant"
                )
            needs = isinstance(kind, OracleInterpolant) or (start == "exact" and kind.anchors > 1)
            if needs and problem.exact is None:
                raise ValueError(f"{problem.name} has no exact solution to start from: start='own'")
            end = solve.anchors(method, times, y, start)
            if len(solve.segments) < len(times) - 1:
                segments = None
        else:
            raise TypeError(f"method must be a Method or ImplicitCollocation, got {method!r}")
        return MpRun(end, solve.nfe, solve.calls, segments)


Exact = Callable[[Any], Sequence[Any]]


def exact_states(problem: Problem) -> Exact:
    """The problem's exact solution at mpmath's working precision.

    Raises:
        ValueError: it has none, so extended precision has nothing to be compared with.
    """
    if problem.exact is None:
        raise ValueError(
            f"problem {problem.name!r} has no exact solution: extended precision (digits=) has no "
            "reference for it; take one such as 'driven' or 'kepler'"
        )
    return problem.exact
