"""The order of anything, measured: by slopes that have settled, above rounding, on a line.

An order is a limit, and two things stand between it and a table of errors: steps that are still too
long (pre-asymptotic) and errors that are rounding, or the reference's own. The points in between
are found here, a line is fitted to them, and where they do not lie on one there is no order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

import quadflow as qf

from ...plans.adams.method import VariableOrderMethod
from ..exact.held import formula_of, is_held
from ..exact.mp_backend import ImplicitCollocation, coefficients_limit
from ..problems.problem import Problem, get_problem
from ..solvers.quadflow import quadflow_solver
from ..solvers.run import Solver
from ..solvers.solver import as_solver
from .error_kinds import make_kind
from .held_steps import held_solver
from .kind import Kind, Sample, UnavailableError
from .measurement import OrderMeasurement
from .mp_kinds import make_mp_kind
from .points import LEAST_POINTS, MARGIN

SETTLED = 0.15
"""Slopes between neighbours that differ by less have settled."""


def window() -> Iterator[int]:
    """Step numbers by a ratio of sqrt 2, rounded, without end: 4, 6, 8, 11, 16, 23, 32, ..."""
    last, k = 0, 0
    while True:
        n = round(4 * math.sqrt(2) ** k)
        if n > last:
            yield n
            last = n
        k += 1


def window_length(budget: int) -> int:
    """How many step numbers of `window` a budget of steps pays for."""
    return sum(spent <= budget for spent in accumulate(takewhile(budget.__ge__, window())))


def default_budget(of: str, digits: int | None) -> int:
    """Most steps of all solves of a measurement, where none is given: what takes some seconds."""
    return 700 if digits is not None else 3_000 if of == "gradient" else 12_000


@dataclass
class _Points:
    """What has been measured so far. automatic: steps are chosen, so coarse ones may be dropped."""

    kind: Kind
    automatic: bool
    steps: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def add(self, n: int) -> None:
        """Measure with n steps."""
        self.samples.append(self.kind.sample(n))
        self.steps.append(n)

    def measurement(self, **more: Any) -> OrderMeasurement:
        """What the points show so far. more: the fields that say what was measured."""
        notes, samples = self.notes(), self.samples
        return OrderMeasurement(
            promised=self.kind.promised,
            steps=tuple(self.steps),
            errors=tuple(s.error for s in samples),
            calls=tuple(s.calls for s in samples),
            nfe=tuple(s.nfe for s in samples),
            used=tuple(n == "used" for n in notes),
            notes=tuple(notes),
            what=self.kind.what,
            ratios=tuple(s.ratio for s in samples) if more["of"] == "estimate" else (),
            floor=self.kind.floor,
            reference_error=self.kind.reference,
            **more,
        )

    def notes(self) -> list[str]:
        """Why each point is or is not used."""
        kind, notes = self.kind, ["used"] * len(self.steps)
        for i, s in enumerate(self.samples):
            if s.failure is not None:
                notes[i] = f"failed: {s.failure}"
            elif not math.isfinite(s.error):
                notes[i] = f"failed: the error is {s.error}"
            elif s.error <= 10 * kind.reference and kind.reference > kind.floor / 10:
                notes[i] = "reference"
            elif s.error <= kind.floor:
                notes[i] = "rounding"
        if not self.automatic:
            return notes
        errors = np.array([s.error for s in self.samples])
        # rounding that is larger than the usual floor shows as errors that no longer fall
        good = [i for i, note in enumerate(notes) if note == "used"]
        plateau = _plateau(errors[good])
        for i in good:
            if plateau is not None and errors[i] <= plateau:
                notes[i] = "rounding"
        good = [i for i in good if notes[i] == "used"]
        keep = _settled(np.array(self.steps, float)[good], errors[good])
        for i in good[: len(good) - keep]:
            notes[i] = "pre-asymptotic"
        return notes

    def enough(self) -> bool:
        """Whether a finer step would tell no more."""
        steps, notes = self.steps, self.notes()
        if sum(n in ("rounding", "reference") for n in notes) >= 2:
            return True
        good = [i for i, n in enumerate(notes) if n == "used"]
        if len(good) < 6 or good[-1] != len(steps) - 1:
            return False
        slopes = [
            -math.log(self.samples[b].error / self.samples[a].error) / math.log(steps[b] / steps[a])
            for a, b in pairwise(good[-5:])
        ]
        # half-way between whole numbers two terms of the error compete, and the slope moves on
        mean = sum(slopes) / len(slopes)
        return max(slopes) - min(slopes) < 0.04 and abs(mean - round(mean)) < 0.08


def _plateau(errors: np.ndarray) -> float | None:
    """The size below which errors are rounding, seen from where they cease to fall."""
    for j in range(1, len(errors) - 1):
        rest = errors[j:]
        if rest.max() < 1e-8 and rest[-1] > 0.5 * rest[0] and rest.max() < 100 * rest.min():
            return 10 * float(rest.max())
    return None


def _settled(steps: np.ndarray, errors: np.ndarray) -> int:
    """How many of the finest points lie where the slope has settled; 0 where it has nowhere."""
    if len(steps) < LEAST_POINTS:
        return len(steps)
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(steps))
    for start in range(len(slopes) - LEAST_POINTS + 2):
        kept = slopes[start:]
        if kept.max() - kept.min() <= SETTLED and kept.mean() > 0.3:
            return len(kept) + 1
    # nothing has settled: the finest points as they are, for the gates to judge
    return min(len(steps), LEAST_POINTS + 1)


def measured_order(
    method: Any,
    problem: str | Problem,
    steps: Sequence[int] | None = None,
    *,
    of: str = "endpoint",
    digits: int | None = None,
    start: str = "exact",
    budget: int | None = None,
    margin: float = MARGIN,
    node_evaluation: str = "broadcast",
    progress: Callable[[], None] | None = None,
    path: str | Path | None = None,
) -> OrderMeasurement:
    """Solve a problem with several numbers of equal steps and measure the slope of the error.

    Args:
        method: a name, a Method (one of variable order as `held_methods` holds it, whose steps
            start from exact values), a Solver, a peer ("torchdiffeq:dopri5", "scipy:DOP853",
            "diffrax:Dopri5") or a callable solve(rhs, y0, grid); see
            `solvers.solver.as_solver`. With digits: a name, a Method or an `ImplicitCollocation`.
        problem: a registered name or a Problem.
        steps: numbers of steps, at least three, ascending. None chooses them: from four steps on,
            by factors of sqrt 2, until the slopes have settled, rounding is reached, or the budget
            is spent; then coarse points whose slopes have not settled are dropped. With given
            steps only failures and rounding are dropped.
        of: "endpoint"; "dense", the largest error between the steps over the whole span; "event",
            the time of the problem's event, found on the dense output; "gradient", of w·y(T) with
            respect to y0, by backpropagation through the solve against the variational equation;
            "local", one step from exact states, which has one order more; "estimate", the
            estimated local error of one step from exact states, with its ratio to the true one.
        digits: None is float64; otherwise the steps are carried out in mpmath with this many
            decimal digits (endpoint, dense and local; problems with an exact solution), which
            orders above 8 need.
        start: with digits, how multistep methods start: "exact" or "own".
        budget: most steps of all solves together, by choice of `steps`: 12000, or 3000 for the
            gradient, or 700 with digits.
        margin: see `MARGIN`.
        node_evaluation: of quadflow's methods, see `quadflow.solve`.
        progress: called after every solve.
        path: JSON file that is rewritten after every solve, so that nothing done is lost.

    Returns:
        `OrderMeasurement`. Ctrl-C ends it with what has been measured, remarked "interrupted". A
        kind of error that cannot be had (no dense output, no event, no gradient) gives one without
        points whose `reason` says so.

    Raises:
        ValueError, TypeError: unknown names, steps that are too few or not ascending; digits for
            what is no Method or has no exact solution.
    """
    problem = get_problem(problem)
    numbers: tuple[int, ...] | None = None
    if steps is not None:
        numbers = tuple(int(n) for n in steps)
        if len(numbers) < 3 or numbers[0] < 1 or any(b <= a for a, b in pairwise(numbers)):
            raise ValueError(f"steps must be at least three ascending numbers, got {list(steps)}")
    if budget is None:
        budget = default_budget(of, digits)
    if budget < 4 * LEAST_POINTS:
        raise ValueError(f"budget={budget} steps are too few for any order: at least 100 or so")
    remark = ""
    try:
        if digits is None:
            if isinstance(method, ImplicitCollocation):
                raise ValueError(f"{method.name} runs in extended precision: give digits=")
            name = as_solver(method).name
            solver = _solver(method, node_evaluation)
            kind = make_kind(of, solver, problem)
        else:
            plan = method if isinstance(method, ImplicitCollocation) else qf.get_method(method)
            plan = formula_of(plan)
            name, remark = plan.name, coefficients_limit(plan) or ""
            kind = make_mp_kind(of, plan, problem, digits, start)
    except UnavailableError as error:
        return OrderMeasurement(
            name, problem.name, None, (), (), (), (), (), of=of, digits=digits, remark=str(error)
        )

    points = _Points(kind, numbers is None)

    def result(remark: str) -> OrderMeasurement:
        return points.measurement(
            method=name, problem=problem.name, of=of, digits=digits, margin=margin, remark=remark
        )

    try:
        for n in numbers if numbers is not None else window():
            if numbers is None and sum(points.steps) + n > budget:
                remark = _joined(remark, f"the budget of {budget} steps is spent")
                break
            points.add(n)
            if progress is not None:
                progress()
            if path is not None:
                result(_joined(remark, "not finished")).save(path)
            if numbers is None and points.enough():
                break
    except KeyboardInterrupt:
        remark = _joined(remark, "interrupted")
    except UnavailableError as error:
        remark = str(error)
    finished = result(remark)
    if path is not None:
        finished.save(path)
    return finished


def _joined(*remarks: str) -> str:
    return "; ".join(filter(None, remarks))


def _solver(method: Any, node_evaluation: str) -> Solver:
    solver = as_solver(method)
    if isinstance(solver.method, VariableOrderMethod):
        if not is_held(solver.method):
            raise UnavailableError(
                f"{solver.name} chooses its order with its steps: hold it at one, as in "
                f"`quadflow order {solver.name}:5` or by held_methods(method)[5]"
            )
        return held_solver(solver.method, node_evaluation)
    if solver.method is not None and not isinstance(method, Solver):
        return quadflow_solver(solver.method, node_evaluation=node_evaluation)
    return solver
