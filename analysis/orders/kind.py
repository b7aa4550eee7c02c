"""What a kind of error is: how it is sampled, and what it is compared with.

All errors are relative to the largest entry of the true solution (of the true gradient, of the
event's time), in the max norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..problems.problem import Problem
from ..references.radau import ReferenceFailed
from ..references.reference import reference_solution
from ..solvers.run import Run

ROUNDING_FLOOR = 2e-13
"""Relative endpoint error below which float64 rounding, not the method, decides."""

GOLDEN = (math.sqrt(5) - 1) / 2
FRACTIONS = (1 - GOLDEN, GOLDEN, 2 * GOLDEN - 1)
"""Where in every interval the dense output is looked at: irrational, so that no node is hit."""

STARTS = tuple((k * GOLDEN) % 1 for k in range(1, 14))
"""Where in the span single steps are taken, as fractions of what room there is."""


class UnavailableError(ValueError):
    """This kind of error cannot be had of this solver on this problem; the message says why."""


@dataclass(frozen=True)
class Sample:
    """One measured error. error: inf where the solve failed. ratio: estimate / true local error."""

    error: float
    nfe: int = 0
    calls: int = 0
    failure: str | None = None
    ratio: float = math.nan


@dataclass(frozen=True)
class Kind:
    """One kind of error of one solver on one problem.

    sample: n -> Sample. promised: the order it should have, None where none is claimed. floor:
    errors below it are rounding. reference: relative error of what is compared with; errors near
    it say nothing. what: the error in words.
    """

    sample: Callable[[int], Sample]
    promised: int | None
    floor: float
    reference: float
    what: str


class Truth:
    """The true states of a problem, by its formula or an independent tight solve.

    error: the largest relative error of the states given out so far.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.error = 2e-16
        self._known: dict[float, Tensor] = {}

    def at(self, times: Sequence[float]) -> Tensor:
        """The states (T, d), float64, at times (T,) of the span, in any order."""
        missing = [t for t in dict.fromkeys(times) if t not in self._known]
        if missing and self.problem.exact is not None:
            self._known.update((t, self.problem.solution(t)) for t in missing)
        elif missing:
            missing.sort(reverse=self.problem.span[1] < self.problem.span[0])
            try:
                found = reference_solution(self.problem, missing)
            except ReferenceFailed as error:
                raise UnavailableError(f"no reference solution: {error}") from error
            self._known.update(zip(missing, found.y, strict=True))
            self.error = max(self.error, found.error)
        return torch.stack([self._known[t] for t in times])


Fixed = Callable[[Problem, np.ndarray], Run]
"""`Solver.fixed` of a solver that has it."""


def sample_of(run: Run, error: Callable[[Tensor], float]) -> Sample:
    """The sample of a run; error: end state -> the run's error, asked where it did not fail."""
    if run.failure is not None or run.end is None:
        return Sample(math.inf, run.nfe, run.calls, run.failure)
    value = error(run.end)
    if not math.isfinite(value):
        return Sample(math.inf, run.nfe, run.calls, f"the error is {value}")
    return Sample(value, run.nfe, run.calls)
