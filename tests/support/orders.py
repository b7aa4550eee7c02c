"""Measuring orders: errors over refined grids, the slope, a residual gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from manufactured import Manufactured

import quadflow as qf

FLOOR = 3e-14
"""Errors below this are rounding in float64."""


def uniform(span: float, n: int) -> np.ndarray:
    return np.linspace(0.0, span, n + 1)


def endpoint_error(
    method: qf.Method, problem: Manufactured, grid: np.ndarray, *, between: bool = False
) -> float:
    """Error at the end, or the largest one between the steps."""
    solution = qf.solve(
        problem.f, problem.solution(0.0), (0.0, problem.span), method=method, grid=grid,
        dense_output=between, node_evaluation="broadcast",
    )  # fmt: skip
    if not between:
        return float((solution.y[-1] - problem.solution(problem.span)).abs().max())
    # five points in every interval: the error there has the interpolant's own shape
    inner = (grid[:-1, None] + np.diff(grid)[:, None] * [0.13, 0.31, 0.5, 0.74, 0.9]).ravel()
    got = solution(inner)
    return max(
        float((y - problem.solution(t)).abs().max())
        for t, y in zip(inner.tolist(), got, strict=True)
    )


def slope(
    sizes: Sequence[float], errors: Sequence[float], *, gate: float = 0.25, floor: float = FLOOR
) -> float:
    """Slope of log error against log step size.

    Fails where rounding has been reached or where the points do not lie on a line within `gate`
    decades: such data show no order at all.
    """
    assert min(errors) > floor, f"errors {errors} reach rounding: use longer steps"
    x, y = np.log(sizes), np.log(errors)
    line = np.polyfit(x, y, 1)
    residual = np.abs(y - np.polyval(line, x)).max() / math.log(10)
    assert residual < gate, f"errors {errors} are no power of the step: residual {residual:.2f}"
    return float(line[0])


def measured(
    method: qf.Method,
    problem: Manufactured,
    steps: Sequence[int],
    *,
    grid: Callable[[float, int], np.ndarray] = uniform,
    between: bool = False,
    gate: float = 0.25,
) -> float:
    errors = [
        endpoint_error(method, problem, grid(problem.span, n), between=between) for n in steps
    ]
    return slope([1 / n for n in steps], errors, gate=gate)
