"""Explicit collocation sweeps in mpmath, written from the definition: an independent reference."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from manufactured import Manufactured
from mp_rules import reference_rule
from mpmath import mp, mpf

DIGITS = 40


def _extrapolated(nodes: list[mpf], values: list[list[mpf]], ratio: mpf) -> list[list[mpf]]:
    """The polynomial through (c_j, v_j), evaluated at 1 + ratio c_i, by Lagrange's formula."""
    result = []
    for c in nodes:
        x, row = 1 + ratio * c, [mpf(0)] * len(values[0])
        for j, cj in enumerate(nodes):
            basis = mpf(1)
            for k, ck in enumerate(nodes):
                if k != j:
                    basis *= (x - ck) / (cj - ck)
            row = [r + basis * v for r, v in zip(row, values[j], strict=True)]
        result.append(row)
    return result


def solve_mp(
    problem: Manufactured,
    family: str,
    n: int,
    sweeps: int,
    grid: np.ndarray,
    first_sweeps: int | None = None,
) -> list[mpf]:
    """K sweeps on a rule over the intervals of a grid (float64 times from 0), at 40 digits.

    The guess is constant in every interval; with `first_sweeps` it is constant in the first one,
    which then has that many sweeps, and extrapolated afterwards.
    """
    nodes, weights, matrix = reference_rule(family, n)
    with mp.workdps(DIGITS):
        y = problem.solution_mp(mpf(0))
        values: list[list[mpf]] = []
        times = [mpf(t) for t in grid.tolist()]
        before = mpf(0)
        for t, t1 in pairwise(times):
            h = t1 - t
            if values and first_sweeps is not None:
                values, count = _extrapolated(nodes, values, h / before), sweeps
            else:
                values = [problem.f_mp(t, y)] * n
                count = sweeps if first_sweeps is None else first_sweeps
            for _ in range(count):
                columns = list(zip(*values, strict=True))
                values = [
                    problem.f_mp(
                        t + c * h,
                        [a + h * mp.fdot(row, b) for a, b in zip(y, columns, strict=True)],
                    )
                    for c, row in zip(nodes, matrix, strict=True)
                ]
            columns = list(zip(*values, strict=True))
            y = [a + h * mp.fdot(weights, b) for a, b in zip(y, columns, strict=True)]
            before = h
        return y


def error_mp(
    problem: Manufactured,
    family: str,
    n: int,
    sweeps: int,
    grid: np.ndarray,
    first_sweeps: int | None = None,
) -> float:
    """Largest error at the end, at 40 digits."""
    with mp.workdps(DIGITS):
        got = solve_mp(problem, family, n, sweeps, grid, first_sweeps)
        exact = problem.solution_mp(mpf(float(grid[-1])))
        return float(max(abs(a - b) for a, b in zip(got, exact, strict=True)))
