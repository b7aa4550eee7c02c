"""The variable-order method held at one order, on equal steps, from exact starting values."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from ...equations.velocity import StateLayout, Velocity
from ...plans.adams.method import VariableOrderMethod
from ...plans.interpolants import Anchor
from ...plans.state import State
from ..problems.problem import Problem
from ..solvers.run import Run, Solver, piecewise
from .kind import Truth, UnavailableError


def held_solver(method: VariableOrderMethod, node_evaluation: str) -> Solver:
    """The Solver that takes every step at order `method.max_order`, by the code that `solve` runs.

    method: held, see `held_methods`. The first k - 1 intervals of a grid are not solved: k anchors
    at exact states are what the method has after it has started itself without an error.
    """

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        return _run(method, problem, grid, node_evaluation)

    return Solver(method.name, method.order, fixed, None, method)


def _run(
    method: VariableOrderMethod, problem: Problem, grid: np.ndarray, node_evaluation: str
) -> Run:
    k, times = method.max_order, grid.tolist()
    if problem.y0.requires_grad:
        raise UnavailableError(f"{method.name} starts from exact states, which carry no gradient")
    if len(times) <= k:
        failure = f"{len(times) - 1} steps are all taken up by exact starting values"
        return Run(None, 0, 0, 0.0, failure)
    truth = Truth(problem)
    began = time.perf_counter()
    velocity = Velocity(problem.f, StateLayout(problem.y0), problem.span, node_evaluation)
    stepper = method.stepper(velocity)
    starts = truth.at(times[:k])
    known = [Anchor(t, y, velocity(t, y)[0]) for t, y in zip(times, starts[:-1], strict=False)]
    state = State(times[k - 1], starts[-1], history=tuple(known), order=k)
    segments = []
    for t1 in times[k:]:
        result = stepper.step(state, t1)
        state = result.state
        segments.append(result.segment())
    seconds = time.perf_counter() - began
    reached = bool(torch.isfinite(state.y).all())

    def between(i: int, t: float) -> Tensor:
        """By the dense output; the true state in the intervals that were not solved."""
        return truth.at([t])[0] if i < k - 1 else segments[i - k + 1](t)

    return Run(
        state.y if reached else None, velocity.nfe, velocity.calls, seconds,
        None if reached else "the state is not finite",
        piecewise(times, between), tuple(times),
    )  # fmt: skip
