"""Errors of whole solves: at the end, between the steps, of an event's time, of a gradient."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch import Tensor

from ..problems.jacobians import by_complex_steps
from ..problems.problem import Problem
from ..references.radau import ReferenceFailed
from ..references.reference import reference_end, relative_error
from ..solvers.run import Run, Solver
from .kind import (
    FRACTIONS,
    ROUNDING_FLOOR,
    Fixed,
    Kind,
    Sample,
    Truth,
    UnavailableError,
    sample_of,
)


def _grid(problem: Problem, n: int) -> np.ndarray:
    return np.linspace(*problem.span, n + 1)


def endpoint(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    """The error at the end of the span."""
    try:
        end, error, _ = reference_end(problem)
    except ReferenceFailed as failure:
        raise UnavailableError(f"no reference solution: {failure}") from failure

    def sample(n: int) -> Sample:
        run = fixed(problem, _grid(problem, n))
        return sample_of(run, lambda reached: relative_error(reached, end))

    return Kind(sample, solver.order, ROUNDING_FLOOR, error, "error at the end of the span")


def _many(run: Run, times: np.ndarray) -> Tensor:
    if run.dense is None:
        raise UnavailableError("the solver gives no states between its steps")
    return run.states(times).detach()


def dense(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    """The largest error between the steps."""
    truth = Truth(problem)
    truth.at([problem.span[1]])  # so that its error is known

    def sample(n: int) -> Sample:
        grid = _grid(problem, n)
        run = fixed(problem, grid)

        def error(_: Tensor) -> float:
            times = (grid[:-1, None] + np.diff(grid)[:, None] * FRACTIONS).ravel()
            exact = truth.at(times.tolist())
            # all times together: relative to the largest entry of the whole solution
            return relative_error(_many(run, times).flatten(), exact.flatten())

        return sample_of(run, error)

    promised = None if solver.method is None else solver.method.dense_order
    return Kind(
        sample, promised, ROUNDING_FLOOR, truth.error,
        "largest error between the steps, over the whole span",
    )  # fmt: skip


def event_time(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    """The root of the problem's event on the dense output, against its known time.

    The step is h = (time - start) / (n + θ) with θ golden, so that the event lies at the same place
    of its interval whatever n is: an interpolant's error depends on the place, and a place that
    moves would scatter the points.
    """
    event = problem.event
    if event is None:
        raise UnavailableError(f"problem {problem.name} has no event of known time")
    start = problem.span[0]

    def sample(n: int) -> Sample:
        h = (event.time - start) / (n + FRACTIONS[0])
        grid = start + h * np.arange(n + 2)
        shorter = dataclasses.replace(
            problem, span=(float(grid[0]), float(grid[-1])), end=problem.y0
        )
        run = fixed(shorter, grid)

        def value(t: float) -> float:
            state = _many(run, np.array([t]))[0].tolist()
            return float(event.g(t, state, np))

        def error(_: Tensor) -> float:
            last = float(grid[-1])
            low, high = float(grid[-2]), last
            # a coarse solve may put the event into a neighbouring interval
            while value(low) * value(last) > 0 and low - h > event.after:
                low -= h
            if not value(low) * value(high) <= 0:
                return math.nan
            root = brentq(value, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps)
            return abs(root - event.time) / abs(event.time)

        got = sample_of(run, error)
        if got.failure == "the error is nan":
            return dataclasses.replace(got, failure="the event was not found")
        return got

    promised = None if solver.method is None else solver.method.dense_order
    return Kind(sample, promised, ROUNDING_FLOOR, 2e-16, "error of the event's time")


def gradient(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    """The error of a gradient by backpropagation through the solve."""
    weights = torch.cos(torch.arange(1, problem.dimension + 1, dtype=torch.float64))
    exact, error = variational_gradient(problem, weights)

    def sample(n: int) -> Sample:
        y0 = problem.y0.clone().requires_grad_()
        run = fixed(dataclasses.replace(problem, y0=y0), _grid(problem, n))

        def difference(end: Tensor) -> float:
            if not end.requires_grad:
                raise UnavailableError("the solver's end state carries no gradient")
            (gradient,) = torch.autograd.grad(weights @ end, y0)
            return relative_error(gradient, exact)

        return sample_of(run, difference)

    return Kind(
        sample, solver.order, 10 * ROUNDING_FLOOR, error, "error of the gradient d(w.y(T))/dy0"
    )


def variational_gradient(problem: Problem, weights: Tensor) -> tuple[Tensor, float]:
    """d(w · y(T)) / dy0 by the variational equation Φ' = J Φ, and its relative error.

    Solved by scipy (DOP853, Radau where the problem is stiff) at two tolerances; the error is their
    difference. Returns (d,) float64 and a float.
    """
    d = problem.dimension
    jacobian = by_complex_steps(problem)

    def rhs(t: float, state: np.ndarray) -> np.ndarray:
        y, flow = state[:d], state[d:].reshape(d, d)
        slope = jacobian(t, y)
        return np.concatenate((problem.f_numpy(t, y), (slope @ flow).ravel()))

    start = np.concatenate((problem.y0.detach().numpy(), np.eye(d).ravel()))
    results = []
    for rtol in (1e-11, 2.5e-14):
        got = solve_ivp(
            rhs, problem.span, start, method="Radau" if problem.stiff else "DOP853", rtol=rtol,
            atol=rtol * 1e-2,
        )  # fmt: skip
        if not got.success:
            raise UnavailableError(f"the variational equation was not solved: {got.message}")
        flow = torch.from_numpy(got.y[d:, -1].reshape(d, d).copy())
        results.append(flow.T @ weights)
    coarse, fine = results
    return fine, relative_error(coarse, fine) * 0.1  # the finer of the two is far better
