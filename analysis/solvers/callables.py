"""Solvers of one's own: any callable."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..cost.timing import timed
from ..problems.problem import Problem
from .counting import CountedVelocity
from .run import Dense, Run, Solver, guarded


def callable_solver(solve: Callable[..., Any], name: str | None = None) -> Solver:
    """A solver of one's own: solve(rhs, y0, grid) -> the state at grid[-1], on fixed steps.

    rhs(t, y) takes a state (d,) as tensor or numpy array and answers in kind. y0 is a float64
    tensor (d,), grid a float64 array (N+1,) of times. The answer is a tensor or array (d,), or a
    pair of it and a function t -> (d,) for the states between. A run in which some interval of the
    grid saw no evaluation of rhs has failed: its steps were others.
    """
    title: str = name or getattr(solve, "__name__", None) or type(solve).__name__

    double = functools.partial(torch.as_tensor, dtype=torch.float64)

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        def run(f: CountedVelocity) -> Run:
            answer, seconds = timed(lambda: solve(f.recording, problem.y0, grid.copy()))
            answer, between = answer if isinstance(answer, tuple) else (answer, None)
            end = double(answer)
            if end.shape != problem.y0.shape:
                raise ValueError(
                    f"{title} returned shape {tuple(end.shape)}, the state is "
                    f"{tuple(problem.y0.shape)}"
                )
            failure = _unseen(grid, f.times)
            dense = None if between is None else Dense(
                lambda times: torch.stack([double(between(t)) for t in times.tolist()])
            )  # fmt: skip
            return Run(None if failure else end, f.nfe, f.calls, seconds, failure, dense)

        return guarded(problem, run)

    return Solver(title, None, fixed, None)


def _unseen(grid: np.ndarray, seen: list[float]) -> str | None:
    """Which interval of the grid saw no evaluation at the times given; None where all did."""
    slack = 1e-9 * np.abs(np.diff(grid)).min()
    times = np.sort(seen)
    low, high = np.sort([grid[:-1], grid[1:]], axis=0)
    # a method looks at the left end of an interval or at the right one, if at neither's inside: in
    # one of the two senses no interval may be empty
    held, right = (
        np.searchsorted(times, high + shift) - np.searchsorted(times, low + shift)
        for shift in (-slack, slack)
    )
    if (right > 0).all() or (held > 0).all():
        return None
    i = int(np.argmin(held))
    return (
        f"left the grid: no evaluation in [{grid[i]:.9g}, {grid[i + 1]:.9g}], "
        f"interval {i} of {len(held)}"
    )
