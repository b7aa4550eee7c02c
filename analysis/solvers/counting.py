"""Calls of f, counted in f itself and never taken from a solver's own books."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..problems.problem import Problem

BUDGET = 30_000
"""Most calls of f in a solve of a study: explicit methods on stiff problems would take millions."""

OVER = "over the budget"
"""How the failure of a solve begins that was stopped by its counter."""


class OverBudgetError(RuntimeError):
    """A solve has used up its calls of f."""


@dataclass
class Counter:
    """Counts calls of f and the states in them; refuses more than `limit` calls.

    size: numbers in one state (d). calls: sequential calls. nfe: evaluations of single states.
    over: whether a call was refused.
    """

    size: int
    limit: int | None = None
    calls: int = 0
    nfe: int = 0

    @property
    def over(self) -> bool:
        """Whether a call was refused."""
        return self.limit is not None and self.calls > self.limit

    def counted(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f(t, y, ...) with its calls counted here; y an array, or one state as d components."""

        def counting(t: Any, y: Any, *rest: Any) -> Any:
            self.tick(y.numel() if isinstance(y, Tensor) else getattr(y, "size", self.size))
            return f(t, y, *rest)

        return counting

    def tick(self, numbers: int) -> None:
        """Count one call on so many numbers.

        Raises:
            OverBudgetError: it is one too many.
        """
        self.calls += 1
        self.nfe += numbers // self.size
        if self.over:
            raise OverBudgetError(f"{OVER} of {self.limit} calls of f")

    def in_problem(self, problem: Problem) -> Problem:
        """The problem with the calls of its right-hand side counted here."""
        whole = None if problem.vector is None else self.counted(problem.vector)
        return dataclasses.replace(problem, rhs=self.counted(problem.rhs), vector=whole)


class CountedVelocity(Counter):
    """A problem's f, counted, for solvers that call it with tensors or with numpy's arrays.

    times: where it was called, as far as `recording` was.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.dimension)
        self.problem = problem
        self.times: list[float] = []

    def __call__(self, t: Any, y: Any) -> Any:
        if isinstance(y, Tensor):
            self.tick(y.numel())
            return self.problem.f(torch.as_tensor(t, dtype=torch.float64), y)
        state = np.asarray(y)
        self.tick(state.size)
        return self.problem.f_numpy(float(t), state)

    def recording(self, t: Any, y: Any) -> Any:
        """The velocity as by a call; the time is kept besides."""
        self.times += np.atleast_1d(np.asarray(t, dtype=np.float64)).ravel().tolist()
        return self(t, y)
