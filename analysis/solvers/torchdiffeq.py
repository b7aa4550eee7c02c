"""torchdiffeq's solvers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import nearest
from ...extras import require
from ..cost.timing import timed
from ..problems.problem import Problem
from ..problems.subjects import Subject
from .counting import CountedVelocity, Counter
from .run import ATOL_RATIO, EXTRA, Dense, Run, Solve, Solver, guarded, on_grid


def torchdiffeq_solver(name: str, **options: Any) -> Solver:
    """torchdiffeq's dopri5, dopri8, bosh3, rk4, euler, midpoint, explicit_adams, ...

    options: handed to it as they are (such as interp="cubic"; the linear interpolation of its
    fixed-step solvers is its default). Fixed steps of its adaptive solvers: the grid as `step_t`,
    with a tolerance that accepts everything. Batches have one step size for all trajectories.

    Raises:
        MissingExtraError: torchdiffeq is not installed. ValueError: unknown name.
    """
    odeint = functools.partial(require("torchdiffeq", EXTRA).odeint, method=name)
    solvers: dict[str, Any] = require("torchdiffeq._impl.odeint", EXTRA).SOLVERS
    if name not in solvers:
        raise ValueError(f"torchdiffeq solver {name!r} is unknown: {nearest(name, solvers)}")
    if name == "scipy_solver":
        raise ValueError("torchdiffeq's scipy_solver is scipy: take 'scipy:RK45' or another")
    controlled = "callback_accept_step" in solvers[name].valid_callbacks()

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        f = subject.torch_f if counter is None else counter.counted(subject.torch_f)
        times = torch.tensor(subject.span, dtype=torch.float64)

        def solve(tolerance: float) -> Tensor:
            return odeint(
                f, subject.y0, times, rtol=tolerance, atol=ATOL_RATIO * tolerance, options=options
            )[-1]

        return solve

    def run(problem: Problem, extra: dict[str, Any], **tolerances: Any) -> Run:
        span = torch.tensor(problem.span, dtype=torch.float64)
        how = {"options": {**options, **extra}, **tolerances}

        def solve(f: CountedVelocity) -> Run:
            taken: list[float] = []
            watched = _watched(f, taken, controlled)
            states, seconds = timed(lambda: odeint(watched, problem.y0, span, **how))
            taken.append(problem.span[1])

            def many(times: np.ndarray) -> Tensor:
                t0, t1 = problem.span
                unique = [t0, *sorted(set(times.tolist()) - {t0, t1}, reverse=t1 < t0), t1]
                with torch.no_grad():
                    there = torch.tensor(unique, dtype=torch.float64)
                    rows = odeint(problem.f, problem.y0, there, **how)
                at = dict(zip(unique, rows, strict=True))
                return torch.stack([at[t] for t in times.tolist()])

            return Run(states[-1], f.nfe, f.calls, seconds, None, Dense(many), tuple(taken))

        return guarded(problem, solve)

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        points = torch.from_numpy(grid.copy())
        if not controlled:
            return on_grid(run(problem, {"grid_constructor": lambda f, y0, t: points}), grid)
        extra = {
            "step_t": points[1:],
            "first_step": 2 * abs(grid[1] - grid[0]),
            "max_num_steps": 10 * len(grid) + 100,
        }
        return on_grid(run(problem, extra, rtol=1.0, atol=np.inf), grid)

    def adaptive(problem: Problem, rtol: float, atol: float) -> Run:
        return run(problem, {"max_num_steps": 1_000_000}, rtol=rtol, atol=atol)

    return Solver(
        f"torchdiffeq:{name}", getattr(solvers[name], "order", None), fixed,
        adaptive if controlled else None, bind=bind if controlled else None,
    )  # fmt: skip


def _watched(f: CountedVelocity, taken: list[float], controlled: bool) -> Any:
    """A counted right-hand side that torchdiffeq tells of its steps."""

    def watched(t: Tensor, y: Tensor) -> Any:
        return f(t, y)

    # fixed-grid solvers reject nothing, and know only the first of these
    told = "callback_accept_step" if controlled else "callback_step"
    setattr(watched, told, lambda t0, y0, dt: taken.append(float(t0)))
    return watched
