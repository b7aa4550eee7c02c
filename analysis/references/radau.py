"""Radau IIA collocation with as many stages and digits as wanted: reference solutions.

Stage equations are solved by Newton's method with residuals in mpmath and linear algebra in
float64: each iteration gives some ten digits more, for stiff problems too. Nothing is shared with
quadflow's own solvers, on purpose; the rule is worked out here from Legendre polynomials. Step
sizes follow the decay of the Legendre coefficients of the velocity over a step.

Method: Hairer & Wanner, Solving Ordinary Differential Equations II, IV.5 and IV.8.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from typing import Any

import numpy as np
import torch

from ..exact.multiprecision import multiprecision
from ..problems.problem import Problem


@dataclass(frozen=True)
class _Rule:
    """Right Radau rule on [0, 1] at some working precision, s nodes, the last of them 1.

    nodes, matrix: mpf, (s,) and (s, s). fixed: the matrix in units of 2^-bits. to_legendre: (s, s)
    float64, values at the nodes -> coefficients of the Legendre polynomials P_k(2c - 1). last: its
    last two rows in mpf, for coefficients far below float64's rounding.
    """

    nodes: list[Any]
    matrix: np.ndarray
    fixed: list[list[int]]
    bits: int
    to_legendre: np.ndarray
    last: list[list[Any]]


def _legendre(mp: Any, n: int, x: Any) -> list[Any]:
    """P_0 ... P_n at x in [-1, 1]."""
    values = [mp.mpf(1), x]
    for k in range(1, n):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
    return values[: n + 1]


@functools.lru_cache(maxsize=16)
def _radau(stages: int, bits: int) -> _Rule:
    mp = multiprecision()
    s = stages
    # float64 roots of P_s - P_{s-1}, the eigenvalues of a comrade matrix, then Newton's iteration
    series = np.zeros(s + 1)
    series[s], series[s - 1] = 1.0, -1.0
    nodes = []
    with mp.workprec(bits + 30):
        for start in np.sort(np.polynomial.legendre.legroots(series).real)[:-1]:
            x = mp.mpf(float(start))
            for _ in range(100):
                p = _legendre(mp, s, x)
                slope = [(k * (x * p[k] - p[k - 1])) / (x * x - 1) for k in (s - 1, s)]
                change = (p[s] - p[s - 1]) / (slope[1] - slope[0])
                x -= change
                if abs(change) < mp.ldexp(1, -(bits + 20)):
                    break
            nodes.append(x)
        nodes.append(mp.mpf(1))
        table = [_legendre(mp, s, x) for x in nodes]
        weights = [_weight(p, s, x) for x, p in zip(nodes, table, strict=True)]
        # the rule itself integrates P_j P_k exactly for j + k <= 2s - 2: projection by its weights
        project = [
            [(2 * k + 1) * p[k] * w / 2 for p, w in zip(table, weights, strict=True)]
            for k in range(s)
        ]
        integrals = [
            [(x + 1) / 2, *((p[k + 1] - p[k - 1]) / (2 * (2 * k + 1)) for k in range(1, s))]
            for x, p in zip(nodes, table, strict=True)
        ]
        matrix = np.array(
            [
                [mp.fdot(row, [project[k][j] for k in range(s)]) for j in range(s)]
                for row in integrals
            ]
        )
        fixed = [[int(mp.nint(mp.ldexp(a, bits))) for a in row] for row in matrix]
        return _Rule(
            [(x + 1) / 2 for x in nodes],
            matrix,
            fixed,
            bits,
            np.array(project, dtype=float),
            project[-2:],
        )


def _weight(legendre: Sequence[Any], s: int, x: Any) -> Any:
    """Weight on [-1, 1] of the right Radau rule at its node x."""
    if x == 1:
        return 2 * x / s**2
    return (1 + x) / (s * legendre[s - 1]) ** 2


class ReferenceFailed(RuntimeError):
    """The reference solver did not reach the end; the message says where and why."""


def radau_solution(
    problem: Problem,
    times: Sequence[float],
    *,
    digits: int = 24,
    stages: int = 20,
    tail: float | None = None,
    max_steps: int = 20_000,
) -> list[list[Any]]:
    """States of `problem` at `times`, each a list of d mpf.

    y0, span[0] and the constants are taken as the float64 numbers they are.

    Args:
        problem: needs an rhs that runs in mpmath.
        times: monotone from span[0] on, in the direction of integration.
        digits: stage equations are solved to these; the working precision is 15 digits more.
        stages: s; order 2s - 1.
        tail: steps keep the last Legendre coefficients of the velocity below this, relative to each
            component. None: 10^-digits for stiff problems, else 10^-(digits/2 + 2): the end of a
            step is twice as accurate as its middle.
        max_steps: steps and rejected steps together.

    Raises:
        ReferenceFailed: the step collapsed or the steps ran out.
        ValueError: times are not monotone from the start of the span.
    """
    mp = multiprecision()
    ordered = [problem.span[0], *times]
    sign = 1 if ordered[-1] >= ordered[0] else -1
    if any(sign * (b - a) < 0 for a, b in pairwise(ordered)):
        raise ValueError(
            f"times must be monotone and start at or after {problem.span[0]}, got {list(times)}"
        )
    if tail is None:
        tail = 10.0 ** -(digits if problem.stiff else digits / 2 + 2)
    with mp.workdps(digits + 15):
        solver = _Solver(problem, mp, _radau(stages, mp.prec + 10), digits, tail)
        state = [mp.mpf(v) for v in problem.y0.tolist()]
        now, h, left = mp.mpf(problem.span[0]), None, max_steps
        reached = []
        for end in times:
            while now != end:
                gap = mp.mpf(end) - now
                h = gap / 100 if h is None else sign * min(abs(h), abs(gap))
                # a step that would leave a sliver is shortened to leave two equal ones
                last = abs(h) == abs(gap)
                if not last and abs(h) * 2 > abs(gap):
                    h = gap / 2
                left -= 1
                if left < 0 or abs(h) < abs(gap) * mp.mpf(10) ** -25:
                    what = (
                        f"{max_steps} steps were not enough" if left < 0 else "the step collapsed"
                    )
                    raise ReferenceFailed(f"{problem.name}: {what} at t = {float(now):.6g}")
                found, factor = solver.step(now, state, h)
                if found is not None:
                    now, state = (mp.mpf(end) if last else now + h), found
                h *= factor
            reached.append(state)
        return reached


class _Solver:
    """Newton's method for one step of collocation; remembers the last step's velocities."""

    def __init__(self, problem: Problem, mp: Any, rule: _Rule, digits: int, tail: float) -> None:
        self.problem, self.mp, self.rule, self.tail = problem, mp, rule, tail
        self.target = 10.0 ** -(digits + 5)
        self.dimension = problem.dimension
        self.matrix = rule.matrix.astype(float)
        self.times = np.array(rule.nodes, dtype=float)
        self.coefficients: np.ndarray | None = None
        self.length = 0.0

    def step(self, t: Any, y: list[Any], h: Any) -> tuple[list[Any] | None, float]:
        """The state at t + h, or None where the step is refused; and the factor for the next h."""
        from scipy.linalg import lu_factor, lu_solve

        mp, s, d = self.mp, len(self.times), self.dimension
        times = [t + h * c for c in self.rule.nodes]
        z = self._guess(h)
        before, factors, scale, fresh = np.inf, None, np.ones(d), True
        for _ in range(25):
            states = [[a + b for a, b in zip(y, row, strict=True)] for row in z]
            velocities = self._velocities(times, states)
            if velocities is None:
                return None, 0.3
            new_scale = self._scale(y, states)
            # components that start at 0 find their size in the first iterations
            fresh = bool((np.abs(np.log(new_scale / scale)) > 0.5).any()) or factors is None
            if fresh:
                scale, before = new_scale, np.inf
            residual = self._residual(z, velocities, h, scale)
            size = float(np.abs(residual).max())
            if not size < 1e30:
                return None, 0.3
            if fresh or (size > 0.03 * before and size > 1e-11):
                try:
                    factors = lu_factor(self._newton_matrix(times, states, float(h), scale))
                except (ValueError, np.linalg.LinAlgError):
                    return None, 0.3
            elif size > before:
                return None, 0.3
            before = size
            change = lu_solve(factors, residual.reshape(-1)).reshape(s, d)
            for i in range(s):
                for k in range(d):
                    z[i][k] -= mp.mpf(change[i, k]) * scale[k]
            if float(np.abs(change).max()) < self.target:
                break
        else:
            return None, 0.3
        floats = np.array(
            [[float(v * h / scale[k]) for k, v in enumerate(row)] for row in velocities]
        )
        coefficients = self.rule.to_legendre @ floats
        tail = max(
            abs(float(mp.fdot(row, [v[k] for v in velocities]) * h / scale[k]))
            for row in self.rule.last
            for k in range(d)
        ) / (2 * s)
        factor = min(3.0, max(0.15, 0.8 * (self.tail / max(tail, 1e-300)) ** (1 / s)))
        if tail > self.tail:
            return None, min(factor, 0.7)
        self.coefficients, self.length = coefficients * scale, float(h)
        return [a + b for a, b in zip(y, z[-1], strict=True)], factor

    def _velocities(self, times: list[Any], states: list[list[Any]]) -> list[list[Any]] | None:
        """f at every stage; None where a stage left the domain of f."""
        try:
            found = [
                list(self.problem.rhs(t, y, self.mp)) for t, y in zip(times, states, strict=True)
            ]
        except (ArithmeticError, ValueError):
            return None
        if any(isinstance(v, self.mp.mpc) for row in found for v in row):
            return None  # mpmath goes on into the complex plane where float64 has no number
        return found

    def _guess(self, h: Any) -> list[list[Any]]:
        mp, s, d = self.mp, len(self.times), self.dimension
        if self.coefficients is None or abs(float(h)) > 1.5 * abs(self.length):
            return [[mp.mpf(0)] * d for _ in range(s)]
        ratio = float(h) / self.length
        kept = self.coefficients[:10]
        legendre = np.polynomial.legendre
        series = legendre.legint(kept, axis=0)
        # d(time) / d(variable of the Legendre polynomials) is half the last step
        at = legendre.legval(1 + 2 * ratio * self.times, series)
        values = (at - np.asarray(legendre.legval(1.0, series))[:, None]).T / 2
        return [[mp.mpf(v) for v in row] for row in values.tolist()]

    def _scale(self, y: list[Any], states: list[list[Any]]) -> np.ndarray:
        sizes = [max(abs(v) for v in (y[k], *(row[k] for row in states))) for k in range(len(y))]
        return np.array([float(v) or 1.0 for v in sizes])

    def _residual(
        self, z: list[list[Any]], velocities: list[list[Any]], h: Any, scale: np.ndarray
    ) -> np.ndarray:
        """(z - h A F)/scale, the product in integers: (s, d) float64."""
        mp, s, bits = self.mp, len(z), self.rule.bits
        result = np.empty((s, self.dimension))
        for k in range(self.dimension):
            column = [h * row[k] for row in velocities]
            largest = max(abs(v) for v in column)
            if not mp.isfinite(largest):
                result[:] = np.nan
                return result
            shift = bits - mp.frexp(largest)[1] if largest else 0
            whole = [int(mp.ldexp(v, shift)) for v in column]
            for i, row in enumerate(self.rule.fixed):
                moved = mp.ldexp(mp.mpf(sum(map(mul, row, whole))), -bits - shift)
                result[i, k] = float((z[i][k] - moved) / scale[k])
        return result

    def _newton_matrix(
        self, times: list[Any], states: list[list[Any]], h: float, scale: np.ndarray
    ) -> np.ndarray:
        s, d = len(states), self.dimension
        at = torch.tensor([[float(v) for v in row] for row in states], dtype=torch.float64)
        when = torch.tensor([float(t) for t in times], dtype=torch.float64)
        jacobian = torch.func.vmap(torch.func.jacfwd(self.problem.f, argnums=1))(when, at).numpy()
        scaled = jacobian * scale / scale[:, None]
        blocks = -h * self.matrix[:, None, :, None] * scaled.transpose(1, 0, 2)[None]
        return np.eye(s * d) + blocks.reshape(s * d, s * d)
