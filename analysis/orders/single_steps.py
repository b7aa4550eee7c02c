"""Errors of single steps from exact states: the local error, and the method's estimate of it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...equations.velocity import StateLayout, Velocity
from ...plans.adams.method import VariableOrderMethod
from ...plans.anchors.method import AnchorsMethod
from ...plans.interpolants import Anchor, OracleInterpolant
from ...plans.method import Method
from ...plans.state import State
from ..exact.methods import look_back
from ..exact.mp_backend import ImplicitCollocation
from ..problems.problem import Problem
from ..solvers.run import Solver
from .kind import STARTS, Fixed, Kind, Sample, Truth, UnavailableError

Step = Callable[[float, float, Tensor], Sample]
"""(t, h, exact state at t + h) -> the error of the step from the exact state at t, absolute."""


def _sampled(problem: Problem, truth: Truth, history: int, step: Step) -> Callable[[int], Sample]:
    """The largest error of single steps of size span / n, which leave room for their history."""

    def sample(n: int) -> Sample:
        t0, t1 = problem.span
        h, room = (t1 - t0) / n, n - 1 - history
        if room < 0:
            text = f"{n} steps leave no room for {history} steps of history"
            return Sample(math.inf, failure=text)
        starts = [t0 + h * (history + room * x) for x in STARTS]
        # all states that the steps ask for, together: one reference solve, not hundreds
        truth.at([t - j * h for t in starts for j in range(history, 0, -1)] + [*starts])
        ends = truth.at([t + h for t in starts])
        worst, nfe, calls, ratios = 0.0, 0, 0, list[float]()
        for t, exact in zip(starts, ends, strict=True):
            taken = step(t, h, exact)
            nfe, calls = nfe + taken.nfe, calls + taken.calls
            if taken.failure is not None:
                return Sample(math.inf, nfe, calls, taken.failure)
            worst = max(worst, taken.error)
            if math.isfinite(taken.ratio):
                ratios.append(taken.ratio)
        ratio = statistics.median(ratios) if len(ratios) > len(starts) // 2 else math.nan
        return Sample(worst / float(ends.abs().max()), nfe, calls, None, ratio)

    return sample


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
    stepper = method.stepper(velocity)
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

    def step(t: float, h: float, exact: Tensor) -> Sample:
        if method is not None:
            end, _, nfe, calls = local_step(method, problem, truth, t, h)
        else:
            start = dataclasses.replace(
                problem, y0=truth.at([t])[0], span=(t, t + h), end=problem.y0
            )
            run = fixed(start, np.array([t, t + h]))
            if run.failure is not None or run.end is None:
                return Sample(math.inf, run.nfe, run.calls, run.failure)
            end, nfe, calls = run.end, run.nfe, run.calls
        gap = float((end.detach() - exact).abs().max())
        return Sample(gap, nfe, calls, None if math.isfinite(gap) else "the state is not finite")

    sample = _sampled(problem, truth, look_back(method), step)
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

    def step(t: float, h: float, exact: Tensor) -> Sample:
        end, estimate, nfe, calls = local_step(method, problem, truth, t, h)
        if estimate is None or not bool(torch.isfinite(estimate).all()):
            return Sample(math.inf, nfe, calls, "the estimate is not finite")
        size, true = float(estimate.abs().max()), float((end - exact).abs().max())
        # below this the true error is lost in rounding, and so would the ratio be
        known = true > 1e-14 * float(exact.abs().max())
        return Sample(size, nfe, calls, None, size / true if known else math.nan)

    sample = _sampled(problem, truth, look_back(method), step)
    return Kind(sample, method.error_order, 1e-13, 2e-16, "error estimate of one step (largest)")
