"""The order of a method, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

import quadflow as qf

from .problems import Problem, get_problem

ROUNDING_FLOOR = 2e-13
"""Relative endpoint error below which float64 rounding, not the method, decides."""


@dataclass(frozen=True)
class OrderMeasurement:
    """Errors at several step numbers and the slopes between them.

    steps: numbers of fixed steps, ascending. errors: relative endpoint errors (max norm over the
    largest entry of the reference). calls, nfe: cost of each solve. used: which points lie above
    the rounding floor. slopes: log2-type slopes between neighbouring used points. order: slope of
    the regression over the used points; NaN with fewer than three. residual: largest distance of a
    used point from that line, in decades. promised: the method's declared order.
    """

    method: str
    problem: str
    promised: int | None
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    calls: tuple[int, ...]
    nfe: tuple[int, ...]
    used: tuple[bool, ...]

    @property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        keep = np.array(self.used)
        return np.log(np.array(self.steps, float)[keep]), np.log(np.array(self.errors)[keep])

    @property
    def slopes(self) -> tuple[float, ...]:
        x, y = self._points
        return tuple((-np.diff(y) / np.diff(x)).tolist())

    @property
    def order(self) -> float:
        x, y = self._points
        return float(-np.polyfit(x, y, 1)[0]) if len(x) >= 3 else math.nan

    @property
    def residual(self) -> float:
        x, y = self._points
        if len(x) < 3:
            return math.nan
        return float(np.abs(y - np.polyval(np.polyfit(x, y, 1), x)).max() / math.log(10))

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return {
            "method": self.method,
            "problem": self.problem,
            "promised_order": self.promised,
            "measured_order": self.order,
            "residual_decades": self.residual,
            "steps": list(self.steps),
            "errors": list(self.errors),
            "calls": list(self.calls),
            "nfe": list(self.nfe),
            "used": list(self.used),
            "slopes": list(self.slopes),
        }


def endpoint_error(reached: Tensor, exact: Tensor) -> float:
    """max |reached - exact| over max |exact|."""
    return float((reached - exact).abs().max() / exact.abs().max())


def measured_order(
    method: str | qf.Method,
    problem: str | Problem,
    steps: Sequence[int],
    *,
    node_evaluation: str = "auto",
    progress: Callable[[], None] | None = None,
) -> OrderMeasurement:
    """Solve a problem with several numbers of equal steps and measure the slope of the error.

    Args:
        method, problem: registered names or objects.
        steps: numbers of steps, at least three, ascending.
        node_evaluation: see `quadflow.solve`.
        progress: called after every solve.

    A solve that fails counts as not used (its error is inf). Points below the rounding floor are
    kept but not used for slopes.
    """
    method = qf.get_method(method)
    problem = get_problem(problem) if isinstance(problem, str) else problem
    numbers = tuple(int(n) for n in steps)
    if len(numbers) < 3 or any(b <= a for a, b in pairwise(numbers)):
        raise ValueError(f"steps must be at least three ascending numbers, got {list(steps)}")
    errors, calls, nfe = [], [], []
    for n in numbers:
        grid = np.linspace(*problem.span, n + 1)
        solution = qf.solve(
            problem.f, problem.y0, problem.span, method=method, grid=grid,
            node_evaluation=node_evaluation, throw=False,
        )  # fmt: skip
        reached = solution.success
        errors.append(endpoint_error(solution.y[-1], problem.end) if reached else math.inf)
        calls.append(solution.stats.calls - solution.stats.probe_nfe)
        nfe.append(solution.stats.nfe - solution.stats.probe_nfe)
        if progress is not None:
            progress()
    used = tuple(ROUNDING_FLOOR < e < math.inf for e in errors)
    return OrderMeasurement(
        method.name, problem.name, method.order, numbers, tuple(errors), tuple(calls), tuple(nfe),
        used,
    )  # fmt: skip
