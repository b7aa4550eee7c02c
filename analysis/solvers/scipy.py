"""scipy.integrate's solvers."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from scipy import integrate

from ...errors import nearest
from ..cost.timing import timed
from ..problems.jacobians import by_differentiation
from ..problems.problem import Problem
from ..problems.subjects import Subject
from .counting import CountedVelocity, Counter
from .run import ATOL_RATIO, Dense, Run, Solve, Solver, guarded, on_grid, piecewise

ORDERS = {"RK23": 3, "RK45": 5, "DOP853": 8, "Radau": 5, "BDF": None, "LSODA": None}
"""Declared orders by name."""


def scipy_solver(name: str, *, joint: bool = False) -> Solver:
    """scipy.integrate's RK23, RK45, DOP853, Radau, BDF or LSODA.

    Fixed steps: before each of its steps the solver is told that its span ends at the next point
    of the grid, with a tolerance that accepts everything; for Radau the Newton iterations are
    carried on to 1e-14. BDF and LSODA choose their order by the error, so they have no fixed steps.
    Batches are solved trajectory after trajectory; joint: as one long system.

    Raises:
        ValueError: unknown name.
    """
    if name not in ORDERS:
        raise ValueError(f"scipy solver {name!r} is unknown: {nearest(name, ORDERS)}")
    told = name not in ("BDF", "LSODA")
    return Solver(
        f"scipy:{name}{' joint' * joint}", ORDERS[name],
        functools.partial(_fixed, name) if told else None, functools.partial(_adaptive, name),
        bind=functools.partial(_bind, name, joint), per_sample=not joint,
    )  # fmt: skip


def _bind(name: str, joint: bool, subject: Subject, counter: Counter | None) -> Solve:
    f = subject.numpy_f if counter is None else counter.counted(subject.numpy_f)
    y0 = subject.y0.numpy()
    rows = y0.reshape(-1, y0.shape[-1])

    def joined(t: float, y: Any) -> Any:
        return f(t, y.reshape(rows.shape)).ravel()

    def solve(tolerance: float) -> Any:
        tolerances = {"rtol": tolerance, "atol": ATOL_RATIO * tolerance}

        def end(f: Any, start: Any) -> Any:
            found = integrate.solve_ivp(f, subject.span, start, method=name, **tolerances)
            if not found.success:
                raise RuntimeError(f"scipy: {found.message}")
            return found.y[:, -1]

        ends = end(joined, rows.ravel()) if joint else np.stack([end(f, row) for row in rows])
        return ends.reshape(y0.shape)

    return solve


def _adaptive(name: str, problem: Problem, rtol: float, atol: float) -> Run:
    y0 = problem.y0.detach().numpy().copy()
    options: dict[str, Any] = {"method": name, "rtol": rtol, "atol": atol}
    if name in ("Radau", "BDF"):
        options["jac"] = by_differentiation(problem)
    solved = functools.partial(integrate.solve_ivp, t_span=problem.span, y0=y0, **options)

    def solve(f: CountedVelocity) -> Run:
        got, seconds = timed(lambda: solved(f))
        again = functools.cache(lambda: solved(problem.f_numpy, dense_output=True).sol)
        return Run(
            torch.from_numpy(got.y[:, -1].copy()) if got.success else None, f.nfe, f.calls, seconds,
            None if got.success else str(got.message),
            Dense(lambda times: torch.from_numpy(again()(times).T.copy())), tuple(got.t.tolist()),
        )  # fmt: skip

    return guarded(problem, solve)


def _fixed(name: str, problem: Problem, grid: np.ndarray) -> Run:
    def solve(f: CountedVelocity) -> Run:
        (taken, _, end), seconds = timed(lambda: _march(name, f, problem, grid, False))
        pieces = functools.cache(lambda: _march(name, problem.f_numpy, problem, grid, True)[1])
        between = piecewise(grid.tolist(), lambda i, t: torch.from_numpy(pieces()[i](t)))
        end = torch.from_numpy(np.array(end))
        return Run(end, f.nfe, f.calls, seconds, None, between, tuple(taken))

    return on_grid(guarded(problem, solve), grid)


def _march(
    name: str, f: Any, problem: Problem, grid: np.ndarray, dense: bool
) -> tuple[list[float], list[Any], Any]:
    """Times, interpolants (where dense) and end of steps from point to point of the grid."""
    times: list[float] = grid.tolist()
    atol, options = np.inf, dict[str, Any]()
    if name == "Radau":
        atol = 1e6 * max(1.0, float(problem.y0.abs().max()))
        options["jac"] = by_differentiation(problem)
    solver = getattr(integrate, name)(
        f, times[0], problem.y0.detach().numpy().copy(), times[1], rtol=1e-3, atol=atol,
        first_step=abs(times[1] - times[0]), **options,
    )  # fmt: skip
    if name == "Radau":
        solver.rtol, solver.newton_tol = 0.0, 1e-14 / 1e6
    taken, pieces = [times[0]], []
    for goal in times[1:]:
        solver.t_bound, solver.status = goal, "running"
        solver.h_abs = 2 * abs(goal - solver.t)  # cut to the goal by the solver itself
        if name == "Radau":
            # factorised for another step size; and an old Jacobian's rate of convergence makes the
            # iterations stop at 1e-10
            solver.J, solver.current_jac = solver.jac(solver.t, solver.y, solver.f), True
            solver.LU_real = solver.LU_complex = None
        message = solver.step()
        if solver.status == "failed":
            raise RuntimeError(f"at t={solver.t:.9g}: {message}")
        taken.append(solver.t)
        if solver.t != goal:
            break
        if dense:  # DOP853 evaluates f for it
            pieces.append(solver.dense_output())
    return taken, pieces, solver.y
