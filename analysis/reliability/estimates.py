"""Are error estimates true? The estimated against the true local error of every accepted step.

The true local error of a step is found from the solver's own state at its start: an independent
solver at tight tolerance goes the same way from there. What is measured is so the estimate alone,
not what earlier steps have left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import integrate

from ...checks import check_positive, integer_from
from ..cost.levels import problem_label
from ..problems.problem import Problem, get_problem
from ..solvers.counting import BUDGET, Counter
from ..solvers.run import ATOL_RATIO, Run
from ..solvers.solver import as_solver
from .diagram import Reliability, save_reliabilities

MOST_STEPS = 400
"""Steps judged of one solve; of more, so many are taken evenly."""

_TIGHT = 1e-13
_LOCAL_BUDGET = 50_000  # calls of f for the reference of one step


def reliability(
    method: Any,
    problem: str | Problem,
    tolerance: float = 1e-6,
    *,
    atol_ratio: float = ATOL_RATIO,
    most_steps: int = MOST_STEPS,
    budget: int | None = BUDGET,
) -> Reliability:
    """Compare the error estimate of every accepted step with the true local error.

    The true one: scipy's DOP853 from the solver's state at the start of the step, rtol 1e-13 and
    at least three steps; its difference from a solve with rtol 1e-12, times ten, is the floor below
    which nothing is judged, or eight units of rounding.

    Args:
        method: what `as_solver` takes. problem: a name or a Problem. tolerance: relative; the
            absolute one is atol_ratio times it. atol_ratio: positive. most_steps: of longer solves
            so many steps, evenly, are judged. budget: most calls of f in the solve.

    Returns:
        `Reliability`; a solver without error control or that tells no estimates, or a solve that
        failed, gives one whose `failure` says so.

    Raises:
        ValueError, TypeError: unknown names, numbers that are not positive.
    """
    solver, problem = as_solver(method), get_problem(problem)
    check_positive(tolerance=tolerance, atol_ratio=atol_ratio)
    integer_from(1, most_steps, "most_steps")

    def nothing(why: str) -> Reliability:
        return Reliability(solver.name, problem_label(problem), tolerance, failure=why)

    if solver.adaptive is None:
        return nothing("it has no error control")
    # the same problem goes on unlimited below, so that dense output is free
    if budget is not None:
        counter = Counter(problem.dimension, budget)
        limited = counter.in_problem(problem)
        tried = solver.adaptive(limited, tolerance, atol_ratio * tolerance)
        if counter.over:
            return nothing(f"over the budget of {budget} calls of f")
        if tried.failure is not None:
            return nothing(tried.failure)
    run = solver.adaptive(problem, tolerance, atol_ratio * tolerance)
    if run.failure is not None:
        return nothing(run.failure)
    count = len(run.steps) - 1
    if len(run.estimates) != count or count < 1:
        return nothing("the solver does not tell its estimates")
    evenly = np.linspace(0, count - 1, min(count, most_steps)).round().astype(int)
    chosen = np.unique(evenly).tolist()
    states = _states(run, [*chosen, *(i + 1 for i in chosen)])
    rows: list[tuple[float, float, float, float, float]] = []
    lost = 0
    for i in chosen:
        t0, t1 = run.steps[i], run.steps[i + 1]
        try:
            exact, doubt = local_solution(problem, t0, t1, states[i])
        except RuntimeError:
            lost += 1
            continue
        floor = max(10 * doubt, 8 * 2.0**-53 * float(np.abs(exact).max()))
        error = float(np.abs(states[i + 1] - exact).max())
        rows.append((t0, t1 - t0, run.estimates[i], error, floor))
    remarks = []
    if len(chosen) < count:
        remarks.append(f"{len(chosen)} of {count} steps")
    if lost:
        remarks.append(f"{lost} steps had no local reference")
    starts, sizes, estimates, errors, floors = zip(*rows, strict=True) if rows else [()] * 5
    return Reliability(
        solver.name, problem_label(problem), tolerance, count, starts, sizes, estimates, errors,
        floors, None if rows else "no step had a local reference", "; ".join(remarks),
    )  # fmt: skip


def local_solution(
    problem: Problem, t0: float, t1: float, y0: np.ndarray
) -> tuple[np.ndarray, float]:
    """The state (d,) at t1 of the solution through (t0, y0), and how uncertain it is.

    Raises:
        RuntimeError: it takes too many evaluations, or the solver fails.
    """
    size = float(np.abs(y0).max())
    ends = []
    f = Counter(problem.dimension, _LOCAL_BUDGET).in_problem(problem).f_numpy
    # other tolerances and other steps, so that the two cannot agree by being the same
    for rtol, max_step in ((10 * _TIGHT, np.inf), (_TIGHT, abs(t1 - t0) / 3)):
        atol = max(1e-2 * rtol * size, 1e-300)
        with np.errstate(all="ignore"):
            got = integrate.solve_ivp(
                f, (t0, t1), y0, method="DOP853", rtol=rtol, atol=atol, max_step=max_step
            )
        if not got.success:
            raise RuntimeError(f"no local reference over [{t0:.9g}, {t1:.9g}]: {got.message}")
        ends.append(got.y[:, -1])
    return ends[1], float(np.abs(ends[0] - ends[1]).max())


def _states(run: Run, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """The solver's states at its own accepted times."""
    numbers = sorted(set(wanted))
    times = np.array([run.steps[i] for i in numbers])
    values = run.states(times).detach().numpy()
    states = dict(zip(numbers, values, strict=True))
    last = len(run.steps) - 1
    if last in states and run.end is not None:
        states[last] = run.end.detach().numpy()
    return states


# -- several ---------------------------------------------------------------------------------------


def reliabilities(
    methods: Sequence[Any],
    problems: Sequence[str | Problem],
    tolerance: float = 1e-6,
    *,
    atol_ratio: float = ATOL_RATIO,
    budget: int | None = BUDGET,
    progress: Callable[[], None] | None = None,
    save: str | Path | None = None,
    command: str = "",
) -> list[Reliability]:
    """`reliability` of each method on each problem; after Ctrl-C those that are done.

    Args:
        methods, problems: several of what `reliability` takes; the rest as there. progress: called
            after every one. save: JSON file, rewritten after every one. command: kept in it.

    Raises:
        ValueError, TypeError: as `reliability`.
    """
    solvers = [as_solver(m) for m in methods]
    subjects = [get_problem(p) for p in problems]
    done: list[Reliability] = []
    try:
        for subject in subjects:
            for solver in solvers:
                done.append(
                    reliability(solver, subject, tolerance, atol_ratio=atol_ratio, budget=budget)
                )
                if save is not None:
                    save_reliabilities(save, done, command=command)
                if progress is not None:
                    progress()
    except KeyboardInterrupt:
        pass
    return done
