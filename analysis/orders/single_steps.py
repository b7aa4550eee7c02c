"""Errors of single steps from exact states: the local error, and the method's estimate of it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...equations.velocity import StateLayout, Velocity
from ...plans.adams import VariableOrderMethod
from ...plans.anchors import AnchorsMethod
from ...plans.interpolants import Anchor, OracleInterpolant
from ...plans.method import Method
from ...plans.step import State, Stepper
from ..exact.methods import look_back
from ..exact.mp_backend import ImplicitCollocation
from ..problems.problem import Problem
from ..solvers.run import Solver
from .kind import STARTS, Fixed, Kind, Sample, Truth, UnavailableError


def _step_starts(problem: Problem, n: int, history: int) -> tuple[list[float], float]:
    """Times of single steps of size h = span / n, with room for their history; and h.

    Raises:
        UnavailableError: n is not above the history.
    """
    t0, t1 = problem.span
    h = (t1 - t0) / n
    room = n - 1 - history
    if room < 0:
        raise UnavailableError(f"{n} steps leave no room for {history} steps of history")
    return [t0 + h * (history + room * x) for x in STARTS], h


def _prepare(truth: Truth, starts: Sequence[float], h: float, history: int) -> None:
    """Find all states that single steps ask for together: one reference solve, not hundreds."""
    truth.at([t - j * h for t in starts for j in range(history, 0, -1)] + [*starts])
    truth.at([t + h for t in starts])


def local_step(
    method: Method, problem: Problem, truth: Truth, t: float, h: float
) -> tuple[Tensor, Tensor | None, int, int]:
    """One step of size h from the exact state at t: new state (d,), error estimate, nfe, calls.

    What the method remembers is true as well: anchors are exact ones at t - h, t - 2h, ...; the
    velocities that an extrapolated guess starts from are those of one step of the method from the
    exact state at t - h.
    """
    y = truth.at([t])[0]
    velocity = Velocity(problem.f, StateLayout(y), (t, t + h), "broadcast")
    stepper = Stepper(method, velocity)
    state = State(t, y)
    if isinstance(method, (AnchorsMethod, VariableOrderMethod)):
        times = [t - j * h for j in range(look_back(method), 0, -1)]
        if times:
            anchors = [
                Anchor(when, past, velocity(when, past)[0])
                for when, past in zip(times, truth.at(times), strict=True)
            ]
            # a method of variable order is held at its highest
            state = State(t, y, history=tuple(anchors), order=len(anchors) + 1)
    elif look_back(method):
        before = stepper.step(State(t - h, truth.at([t - h])[0]), t)
        state = State(t, y, last=before.state.last)
    nfe, calls = velocity.nfe, velocity.calls
    result = stepper.step(state, t + h)
    return result.state.y, result.error, velocity.nfe - nfe, velocity.calls - calls


def local(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    """The largest error of single steps."""
    truth, method = Truth(problem), solver.method
    truth.at([problem.span[1]])

    def one(t: float, h: float) -> tuple[Tensor | None, int, int, str | None]:
        if method is not None:
            y, _, nfe, calls = local_step(method, problem, truth, t, h)
            return y, nfe, calls, None
        start = dataclasses.replace(problem, y0=truth.at([t])[0], span=(t, t + h), end=problem.y0)
        run = fixed(start, np.array([t, t + h]))
        return run.end, run.nfe, run.calls, run.failure

    def sample(n: int) -> Sample:
        history = look_back(method)
        try:
            starts, h = _step_starts(problem, n, history)
        except UnavailableError as error:
            return Sample(math.inf, failure=str(error))
        worst, cost, scale = 0.0, (0, 0), 0.0
        _prepare(truth, starts, h, history)
        for t in starts:
            end, nfe, calls, failure = one(t, h)
            cost = cost[0] + nfe, cost[1] + calls
            if failure is not None or end is None:
                return Sample(math.inf, *cost, failure)
            exact = truth.at([t + h])[0]
            gap = float((end.detach() - exact).abs().max())
            if not math.isfinite(gap):
                return Sample(math.inf, *cost, "the state is not finite")
            worst, scale = max(worst, gap), max(scale, float(exact.abs().max()))
        return Sample(worst / scale, *cost)

    promised = local_order(method) if method is not None else None
    if method is None and solver.order is not None:
        promised = solver.order + 1
    return Kind(
        sample, promised, 1e-14, truth.error, "error of one step from the exact state (largest)"
    )


def local_order(method: Method | ImplicitCollocation) -> int | None:
    """p + 1 of a method whose history is exact; the rule's own, d + 2, with the exact velocity."""
    if isinstance(method, AnchorsMethod):
        rule, interpolant = method.rule, method.interpolant
        if isinstance(interpolant, OracleInterpolant):
            return rule.degree + 2
        if interpolant.order is None:
            return None
        gain = method.correction is not None
        return min(interpolant.order + gain, rule.degree + 1) + 1
    return None if method.order is None else method.order + 1


def estimate(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    """The error estimate of single steps, beside which the true local error is known."""
    method = solver.method
    if method is None:
        raise UnavailableError(f"{solver.name} does not give its error estimates on fixed steps")
    if method.error_order is None:
        raise UnavailableError(f"method {method.name} has no error estimate")
    truth = Truth(problem)
    truth.at([problem.span[1]])

    def sample(n: int) -> Sample:
        try:
            starts, h = _step_starts(problem, n, look_back(method))
        except UnavailableError as error:
            return Sample(math.inf, failure=str(error))
        estimates, ratios, cost, scale = [], [], (0, 0), 0.0
        _prepare(truth, starts, h, look_back(method))
        for t in starts:
            end, estimate, nfe, calls = local_step(method, problem, truth, t, h)
            cost = cost[0] + nfe, cost[1] + calls
            if estimate is None or not bool(torch.isfinite(estimate).all()):
                return Sample(math.inf, *cost, "the estimate is not finite")
            exact = truth.at([t + h])[0]
            true = float((end - exact).abs().max())
            scale = max(scale, float(exact.abs().max()))
            estimates.append(float(estimate.abs().max()))
            # below this the true error is lost in rounding, and so would the ratio be
            if true > 1e-14 * float(exact.abs().max()):
                ratios.append(estimates[-1] / true)
        ratio = statistics.median(ratios) if len(ratios) > len(starts) // 2 else math.nan
        return Sample(max(estimates) / scale, *cost, None, ratio)

    return Kind(sample, method.error_order, 1e-13, 2e-16, "error estimate of one step (largest)")
