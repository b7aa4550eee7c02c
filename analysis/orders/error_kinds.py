"""What an order is the order of: errors at the end, between steps, in one step, of an estimate, ...

Each kind turns a number of steps n into one `Sample`; `convergence.measured_order` chooses the n
and fits the slope. All errors are relative to the largest entry of the true solution (of the true
gradient, of the event's time), in the max norm.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from torch import Tensor

from ...equations.velocity import StateLayout, Velocity
from ...errors import nearest
from ...plans.interpolants import Anchor, OracleInterpolant
from ...plans.registry import AnchorsMethod, Method, SweepsMethod
from ...plans.step import State, Stepper
from ..exact.methods import look_back
from ..exact.mp_backend import ImplicitCollocation, coefficients_limit, exact_states, mp_solve
from ..exact.multiprecision import multiprecision
from ..problems.problem import Problem
from ..solvers.solver import Run, Solver

KINDS = ("endpoint", "dense", "estimate", "event", "gradient", "local")
"""What `measured_order(of=)` takes."""

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
            from ..references.reference import ReferenceFailed, reference_solution

            missing.sort(reverse=self.problem.span[1] < self.problem.span[0])
            try:
                found = reference_solution(self.problem, missing)
            except ReferenceFailed as error:
                raise UnavailableError(f"no reference solution: {error}") from error
            self._known.update(zip(missing, found.y, strict=True))
            self.error = max(self.error, found.error)
        return torch.stack([self._known[t] for t in times])


def endpoint_error(reached: Tensor, exact: Tensor) -> float:
    """max |reached - exact| over max |exact|."""
    return float((reached.detach() - exact).abs().max() / exact.abs().max())


def make_kind(of: str, solver: Solver, problem: Problem) -> Kind:
    """The Kind of a name in `KINDS`, in float64.

    Raises:
        ValueError: unknown name. UnavailableError: not to be had here.
    """
    if of not in KINDS:
        raise ValueError(f"of={of!r} is unknown: {nearest(of, KINDS)}")
    if solver.fixed is None:
        raise UnavailableError(f"{solver.name} cannot be told its steps")
    makers = {
        "endpoint": _endpoint, "dense": _dense, "estimate": _estimate, "event": _event,
        "gradient": _gradient, "local": _local,
    }  # fmt: skip
    return makers[of](solver, problem, solver.fixed)


Fixed = Callable[[Problem, np.ndarray], Run]


def _sample(run: Run, error: Callable[[], float]) -> Sample:
    if run.failure is not None:
        return Sample(math.inf, run.nfe, run.calls, run.failure)
    value = error()
    if not math.isfinite(value):
        return Sample(math.inf, run.nfe, run.calls, f"the error is {value}")
    return Sample(value, run.nfe, run.calls)


def _grid(problem: Problem, n: int) -> np.ndarray:
    return np.linspace(*problem.span, n + 1)


# -- whole solves --------------------------------------------------------------------------------


def _endpoint(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    if problem.end is not None:
        end, error = problem.end, problem.end_error
    else:
        from ..references.reference import ReferenceFailed, reference_end

        try:
            end, error, _ = reference_end(problem)
        except ReferenceFailed as failure:
            raise UnavailableError(f"no reference solution: {failure}") from failure

    def sample(n: int) -> Sample:
        run = fixed(problem, _grid(problem, n))
        return _sample(run, lambda: endpoint_error(_reached(run), end))

    return Kind(sample, solver.order, ROUNDING_FLOOR, error, "error at the end of the span")


def _reached(run: Run) -> Tensor:
    assert run.end is not None
    return run.end


def _many(run: Run, times: np.ndarray) -> Tensor:
    if run.dense is None:
        raise UnavailableError("the solver gives no states between its steps")
    many = getattr(run.dense, "many", None)
    states = many(times) if many is not None else torch.stack([run.dense(t) for t in times])
    return states.detach()


def _dense(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    truth = Truth(problem)
    truth.at([problem.span[1]])  # so that its error is known

    def sample(n: int) -> Sample:
        grid = _grid(problem, n)
        run = fixed(problem, grid)

        def error() -> float:
            times = (grid[:-1, None] + np.diff(grid)[:, None] * FRACTIONS).ravel()
            exact = truth.at(times.tolist())
            return endpoint_error(_many(run, times), exact)

        return _sample(run, error)

    promised = None if solver.method is None else solver.method.dense_order
    return Kind(
        sample, promised, ROUNDING_FLOOR, truth.error,
        "largest error between the steps, over the whole span",
    )  # fmt: skip


def _event(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
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

        def error() -> float:
            last = float(grid[-1])
            low, high = float(grid[-2]), last
            # a coarse solve may put the event into a neighbouring interval
            while value(low) * value(last) > 0 and low - h > event.after:
                low -= h
            if not value(low) * value(high) <= 0:
                return math.nan
            root = brentq(value, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps)
            return abs(root - event.time) / abs(event.time)

        got = _sample(run, error)
        if got.failure == "the error is nan":
            return dataclasses.replace(got, failure="the event was not found")
        return got

    promised = None if solver.method is None else solver.method.dense_order
    return Kind(sample, promised, ROUNDING_FLOOR, 2e-16, "error of the event's time")


def _gradient(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    weights = torch.cos(torch.arange(1, problem.dimension + 1, dtype=torch.float64))
    exact, error = variational_gradient(problem, weights)

    def sample(n: int) -> Sample:
        y0 = problem.y0.clone().requires_grad_()
        run = fixed(dataclasses.replace(problem, y0=y0), _grid(problem, n))

        def difference() -> float:
            end = _reached(run)
            if not end.requires_grad:
                raise UnavailableError("the solver's end state carries no gradient")
            (gradient,) = torch.autograd.grad(weights @ end, y0)
            return endpoint_error(gradient, exact)

        return _sample(run, difference)

    return Kind(
        sample, solver.order, 10 * ROUNDING_FLOOR, error, "error of the gradient d(w.y(T))/dy0"
    )


def variational_gradient(problem: Problem, weights: Tensor) -> tuple[Tensor, float]:
    """d(w · y(T)) / dy0 by the variational equation Φ' = J Φ, and its relative error.

    Solved by scipy (DOP853, Radau where the problem is stiff) at two tolerances; the error is their
    difference. Returns (d,) float64 and a float.
    """
    d = problem.dimension
    jacobian = _fast_jacobian(problem)

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
    return fine, endpoint_error(coarse, fine) * 0.1  # the finer of the two is far better


def _fast_jacobian(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    """df/dy by complex steps (exact to rounding, and cheap) where the right-hand side is analytic
    in y, which is looked at in the start and in the end point; else by torch."""
    d = problem.dimension
    tiny = 1e-30

    def by_torch(t: float, y: np.ndarray) -> np.ndarray:
        matrix: np.ndarray = problem.jacobian(t, torch.from_numpy(y.copy())).numpy()
        return matrix

    def by_complex(t: float, y: np.ndarray) -> np.ndarray:
        columns = []
        for q in range(d):
            state = y.astype(complex)
            state[q] += 1j * tiny
            columns.append(np.imag(problem.f_numpy(t, state)) / tiny)
        return np.stack(columns, axis=1)

    points = [(problem.span[0], problem.y0.detach())]
    if problem.end is not None:
        points.append((problem.span[1], problem.end))
    try:
        same = all(
            np.allclose(by_complex(t, y.numpy()), by_torch(t, y.numpy()), rtol=1e-10, atol=1e-12)
            for t, y in points
        )
    except (TypeError, ValueError, FloatingPointError):  # numpy refuses complex numbers somewhere
        same = False
    return by_complex if same else by_torch


# -- single steps --------------------------------------------------------------------------------


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
    if isinstance(method, AnchorsMethod):
        times = [t - j * h for j in range(look_back(method), 0, -1)]
        if times:
            anchors = [
                Anchor(when, past, velocity(when, past)[0])
                for when, past in zip(times, truth.at(times), strict=True)
            ]
            state = State(t, y, history=tuple(anchors))
    elif look_back(method):
        before = stepper.step(State(t - h, truth.at([t - h])[0]), t)
        state = State(t, y, last=before.state.last)
    nfe, calls = velocity.nfe, velocity.calls
    result = stepper.step(state, t + h)
    return result.state.y, result.error, velocity.nfe - nfe, velocity.calls - calls


def _local(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
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
            worst = max(worst, float((end.detach() - exact).abs().max()))
            scale = max(scale, float(exact.abs().max()))
        if not math.isfinite(worst):
            return Sample(math.inf, *cost, "the state is not finite")
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


def _estimate(solver: Solver, problem: Problem, fixed: Fixed) -> Kind:
    """Single steps from exact states: there the true local error is known beside the estimate."""
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


# -- extended precision --------------------------------------------------------------------------

MP_KINDS = ("endpoint", "dense", "local")


def make_mp_kind(
    of: str, method: Method | ImplicitCollocation, problem: Problem, digits: int, start: str
) -> Kind:
    """The Kind of a name in `MP_KINDS` at a number of decimal digits, by `mp_backend`.

    Raises:
        ValueError: unknown name, a problem without exact solution.
        UnavailableError: not to be had in extended precision.
    """
    if of not in KINDS:
        raise ValueError(f"of={of!r} is unknown: {nearest(of, KINDS)}")
    if of not in MP_KINDS:
        raise UnavailableError(f"of={of!r} is measured in float64 only")
    mp = multiprecision()
    exact = exact_states(problem)
    begin, end = (Fraction(t) for t in problem.span)

    def failing(measure: Callable[[int], Sample]) -> Callable[[int], Sample]:
        def sample(n: int) -> Sample:
            with mp.workdps(digits + 10):
                try:
                    return measure(n)
                except (ArithmeticError, ZeroDivisionError) as error:
                    return Sample(math.inf, failure=str(error))

        return sample

    def grid(n: int) -> list[Fraction]:
        return [begin + (end - begin) * i / n for i in range(n + 1)]

    def gap(state: Sequence[Any], truth: Sequence[Any]) -> tuple[Any, Any]:
        return (
            max(abs(a - b) for a, b in zip(state, truth, strict=True)),
            max(abs(b) for b in truth),
        )

    def number(x: Fraction) -> Any:
        return mp.mpf(x.numerator) / x.denominator

    def too_few(n: int) -> Sample | None:
        exact_starts = start == "exact" and isinstance(method, AnchorsMethod)
        history = look_back(method) if exact_starts else 0
        if n <= history:
            return Sample(math.inf, failure=f"{n} steps are all taken up by exact starting values")
        return None

    def endpoint(n: int) -> Sample:
        if (few := too_few(n)) is not None:
            return few
        run = mp_solve(problem, method, grid(n), digits, start=start)
        worst, scale = gap(run.end, exact(number(end)))
        return Sample(float(worst / scale), run.nfe, run.calls)

    def dense(n: int) -> Sample:
        run = mp_solve(problem, method, grid(n), digits, start=start)
        if run.segments is None:
            raise UnavailableError(
                "the interpolant is known in float64 only, or not in the first intervals (start="
                "'own' of an Adams method)"
            )
        theta = (mp.sqrt(5) - 1) / 2
        pairs = [
            gap(piece(t), exact(t))
            for piece in run.segments
            for t in (piece.t0 + piece.h * x for x in (1 - theta, theta, 2 * theta - 1))
        ]
        return Sample(
            float(max(w for w, _ in pairs) / max(s for _, s in pairs)), run.nfe, run.calls
        )

    def local(n: int) -> Sample:
        history = look_back(method)
        if isinstance(method, SweepsMethod) and history:
            raise UnavailableError(
                "one step with an extrapolated guess is measured in float64 only"
            )
        if n - 1 - history < 0:
            return Sample(math.inf, failure=f"{n} steps leave no room for {history} of history")
        h = (end - begin) / n
        worst, scale, nfe, calls = mp.mpf(0), mp.mpf(0), 0, 0
        for x in STARTS:
            first = begin + h * (n - 1 - history) * Fraction(x)
            times = [first + h * i for i in range(history + 2)]
            run = mp_solve(problem, method, times, digits, y0=exact(number(first)), start="exact")
            error, size = gap(run.end, exact(number(times[-1])))
            worst, scale = max(worst, error), max(scale, size)
            nfe, calls = nfe + run.nfe, calls + run.calls
        return Sample(float(worst / scale), nfe, calls)

    limited = coefficients_limit(method) is not None
    floor = 1e-14 if limited else 10.0 ** (6 - digits)
    # the problem's exact solution meets its right-hand side to the working precision
    reference = 10.0**-digits
    dense_order = method.dense_order
    promised = {"endpoint": method.order, "dense": dense_order, "local": local_order(method)}[of]
    what = {
        "endpoint": "error at the end of the span",
        "dense": "largest error between the steps, over the whole span",
        "local": "error of one step from the exact state (largest)",
    }[of]
    measure = {"endpoint": endpoint, "dense": dense, "local": local}[of]
    return Kind(failing(measure), promised, floor, reference, f"{what}, {digits} digits")
