"""Reference solutions of any problem: a closed form, or a tight solve by solvers not our own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..exact.multiprecision import multiprecision
from ..problems.problem import Problem
from .radau import ReferenceFailed, radau_solution

_ROUNDING = 2.0**-53


@dataclass(frozen=True)
class Reference:
    """States at requested times.

    y: (len(times), d) float64. error: relative, largest over the times of the largest error of a
    component over the largest component. how: where they come from, one line.
    """

    y: Tensor
    error: float
    how: str


def reference_solution(
    problem: Problem, times: Sequence[float], *, digits: int | None = None
) -> Reference:
    """The solution of `problem` at `times`, with an error of its own.

    The closed form where there is one. Otherwise scipy's DOP853 at two tolerances for nonstiff
    problems, and for stiff ones, or where `digits` are asked for, Radau collocation in extended
    precision (`radau_solution`) with two numbers of stages and two tolerances. The error is the
    difference of the two, and at least float64's rounding.

    Args:
        times: finite, monotone, none before span[0] in the direction of the span.
        digits: relative accuracy wanted, 1 to 60 decimal digits (y itself is float64: an `error`
            below 1e-16 is that of the digits behind it, reported as rounding).

    Raises:
        ValueError: bad times or digits.
        ReferenceFailed: the solver did not get through, or `digits` were not reached.
    """
    wanted = _checked(problem, times)
    if digits is not None and not 1 <= digits <= 60:
        raise ValueError(f"digits must be from 1 to 60 or None, got {digits!r}")
    if problem.exact is not None:
        return Reference(
            torch.stack([problem.solution(t) for t in wanted]), _ROUNDING, "closed form"
        )
    if digits is None and not problem.stiff:
        return _dop853(problem, wanted)
    return _extended(problem, wanted, 16 if digits is None else digits, digits is not None)


def reference_end(problem: Problem) -> tuple[Tensor, float, str]:
    """State at the end of the span (d,), its relative error, and where it comes from.

    `problem.end` where that is given, else by `reference_solution`.

    Raises:
        ReferenceFailed: see there.
    """
    if problem.end is not None:
        how = "closed form" if problem.exact is not None else "given with the problem"
        return problem.end, problem.end_error, how
    found = reference_solution(problem, [problem.span[1]])
    return found.y[0], found.error, found.how


def _checked(problem: Problem, times: Sequence[float]) -> list[float]:
    wanted = [float(t) for t in times]
    if not wanted:
        raise ValueError("times is empty: give at least one time")
    start, end = problem.span
    sign = 1 if end > start else -1
    path = [start, *wanted]
    if not all(math.isfinite(t) for t in wanted) or any(
        sign * (b - a) < 0 for a, b in pairwise(path)
    ):
        raise ValueError(
            f"times must be finite and monotone from the start of the span {problem.span} on, "
            f"got {wanted}"
        )
    return wanted


def relative_error(reached: Tensor, exact: Tensor) -> float:
    """max |reached - exact| over max |exact|, of states (d,); the largest of those of (..., d)."""
    size = exact.abs().amax(-1)
    worst = (reached.detach() - exact).abs().amax(-1) / torch.where(size > 0, size, 1)
    return float(worst.max())


def _dop853(problem: Problem, times: list[float]) -> Reference:
    from scipy.integrate import solve_ivp

    scale = max(float(problem.y0.abs().max()), 1e-3)

    def run(rtol: float) -> Tensor:
        now, state, rows = problem.span[0], problem.y0.numpy(), []
        for t in times:
            if t != now:
                with np.errstate(all="ignore"):
                    found = solve_ivp(
                        problem.f_numpy,
                        (now, t),
                        state,
                        method="DOP853",
                        rtol=rtol,
                        atol=1e-3 * rtol * scale,
                    )
                if not found.success or not np.isfinite(found.y[:, -1]).all():
                    raise ReferenceFailed(
                        f"{problem.name}: DOP853 at rtol {rtol:g} stopped at t = "
                        f"{found.t[-1]:.6g}: {found.message}"
                    )
                now, state = t, found.y[:, -1]
            rows.append(torch.from_numpy(state.copy()))
        return torch.stack(rows)

    tight, loose = run(2.5e-14), run(1e-12)
    error = max(relative_error(loose, tight), 10 * _ROUNDING)
    return Reference(tight, error, "scipy DOP853, rtol 2.5e-14 against 1e-12")


def _extended(problem: Problem, times: list[float], digits: int, strict: bool) -> Reference:
    mp = multiprecision()
    tail = 10.0 ** -(digits if problem.stiff else digits / 2 + 2)
    fine = radau_solution(problem, times, digits=digits + 4, stages=20, tail=tail / 10)
    check = radau_solution(problem, times, digits=digits + 4, stages=16, tail=tail * 10)
    with mp.workdps(digits + 15):
        error = max(
            float(
                max(abs(a - b) for a, b in zip(u, v, strict=True)) / (max(abs(a) for a in u) or 1)
            )
            for u, v in zip(fine, check, strict=True)
        )
    if strict and error > 10.0**-digits:
        raise ReferenceFailed(
            f"{problem.name}: two solves differ by {error:.1e}, {digits} digits were not reached"
        )
    y = torch.tensor([[float(v) for v in row] for row in fine], dtype=torch.float64)
    return Reference(
        y,
        max(error, _ROUNDING),
        f"Radau IIA collocation in {digits + 19} digits, 20 stages against 16",
    )
