"""What a study of work and precision is asked for: solvers, problems, and the levels of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from ...plans.method import Method
from ..problems.problem import Problem, get_problem
from ..solvers.run import Run, Solver
from ..solvers.solver import as_solver


@dataclass(frozen=True)
class Wanted:
    """One row to be measured: a solver at a tolerance or on a number of equal steps."""

    solver: Solver
    tolerance: float | None
    steps: int | None

    def key(self, problem: str) -> tuple[Any, ...]:
        """`Row.key` of the row that it becomes."""
        return self.solver.name, problem, self.tolerance, self.steps

    def solve(self, problem: Problem, atol_ratio: float) -> Run:
        """The counted solve of a problem; its absolute tolerance is atol_ratio times the other."""
        if self.tolerance is not None and self.solver.adaptive is not None:
            return self.solver.adaptive(problem, self.tolerance, atol_ratio * self.tolerance)
        assert self.steps is not None and self.solver.fixed is not None
        return self.solver.fixed(problem, np.linspace(*problem.span, self.steps + 1))


def levels(
    solvers: Sequence[Solver], tolerances: Sequence[float], steps: Sequence[int]
) -> list[list[Wanted]]:
    """What is measured together: the k-th tolerance, and the k-th number of steps.

    Solvers with and without error control share rounds, so that all are timed under one load.
    """
    tight = [[Wanted(s, t, None) for s in solvers if s.adaptive is not None] for t in tolerances]
    fine = [[Wanted(s, None, n) for s in solvers if s.adaptive is None] for n in steps]
    nothing: list[Wanted] = []
    merged = [[*a, *b] for a, b in zip_longest(tight, fine, fillvalue=nothing)]
    return [level for level in merged if level]


def solvers_of(methods: Any) -> list[Solver]:
    """The Solvers of one or several of what `as_solver` takes.

    Raises:
        ValueError, TypeError: none at all, unknown or equal names, one that can do nothing.
    """
    if isinstance(methods, str | Method | Solver) or not isinstance(methods, Iterable):
        methods = [methods]
    solvers = [as_solver(m) for m in methods]
    if not solvers:
        raise ValueError("methods is empty: at least one is needed")
    for s in solvers:
        if s.adaptive is None and s.fixed is None:
            raise ValueError(f"{s.name} can solve neither at a tolerance nor on given steps")
    for i, s in enumerate(solvers):
        if s.name in [other.name for other in solvers[:i]]:
            raise ValueError(f"methods has two of the name {s.name!r}: their rows would be mixed")
    return solvers


def problems_of(problems: Any) -> dict[str, Problem]:
    """label -> Problem of one or several names or Problems, or of a mapping's values.

    Raises:
        ValueError: none at all, unknown or equal names.
    """
    if isinstance(problems, str | Problem):
        problems = [problems]
    elif isinstance(problems, Mapping):
        problems = list(problems.values())
    subjects: dict[str, Problem] = {}
    for p in problems:
        problem = get_problem(p)
        label = problem_label(problem)
        if label in subjects:
            raise ValueError(f"problems has {label!r} twice: their rows would be mixed")
        subjects[label] = problem
    if not subjects:
        raise ValueError("problems is empty: at least one is needed")
    return subjects


def problem_label(problem: Problem) -> str:
    """The name, with those parameters that are not the registered defaults."""
    try:
        default = get_problem(problem.name).parameters
    except ValueError:  # one of the user's own
        return problem.name
    own = [f"{k}={v}" for k, v in problem.parameters.items() if default.get(k) != v]
    return f"{problem.name}({', '.join(own)})" if own else problem.name


def checked_levels(
    tolerances: Sequence[float], steps: Sequence[int]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """From loose to tight.

    Raises:
        ValueError: one that is not positive, or none at all.
    """
    for tolerance in tolerances:
        if not (tolerance > 0 and math.isfinite(tolerance)):
            raise ValueError(f"tolerances has {tolerance!r}, must be positive numbers")
    for number in steps:
        if number != int(number) or number < 1:
            raise ValueError(f"steps has {number!r}, must be whole numbers from 1")
    if not len(tolerances) or not len(steps):
        raise ValueError("tolerances and steps must hold at least one number each")
    return tuple(sorted({float(t) for t in tolerances}, reverse=True)), tuple(
        sorted({int(n) for n in steps})
    )
