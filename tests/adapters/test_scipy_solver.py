"""quadflow's methods inside scipy.integrate.solve_ivp: results, counts, conventions, refusals."""

from __future__ import annotations

import functools
import math
import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from in_tensors import InTensors
from scipy.integrate import DenseOutput, solve_ivp

import quadflow as qf
from quadflow.adapters.scipy_solver import (
    Dopri5,
    Dopri8,
    GaussCollocation,
    LobattoCollocation,
    QuadflowSolver,
    Tsit5,
    VariableOrderAdams,
    solver_class,
)
from quadflow.analysis.problems.problem import get_problem

SOLVERS = [GaussCollocation, LobattoCollocation, VariableOrderAdams, Dopri5, Tsit5, Dopri8]
SWEEPING = [GaussCollocation, LobattoCollocation]
# backwards the heat equation (c3) and van der Pol's (e2) amplify every error
CASES = [(name, way) for name in ("lotka-volterra", "driven", "kepler", "euler-body")
         for way in (1, -1)] + [("detest-c3", 1), ("detest-e2", 1)]  # fmt: skip
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
KEPLER = get_problem("kepler")


class Counted:
    """fun, counting its calls and the states that it was called with."""

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun, self.calls, self.states = fun, 0, 0
        self.shapes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()

    def __call__(self, t: Any, y: np.ndarray, *args: Any) -> Any:
        self.calls += 1
        self.states += y.shape[1] if y.ndim == 2 else 1
        self.shapes.add((np.shape(t), y.shape))
        return self.fun(t, y, *args)


def oscillator(t: Any, y: np.ndarray) -> np.ndarray:
    """Driven, not autonomous; for one state or for columns."""
    return np.array([y[1], -y[0] + np.cos(2 * t)])


def decay(t: Any, y: np.ndarray) -> np.ndarray:
    return -y


@functools.cache
def case(name: str, way: int) -> tuple[np.ndarray, np.ndarray, Any, float]:
    """Span and start of a problem, its dense reference, DOP853's error in tolerances."""
    problem = get_problem(name)
    span, start = np.array(problem.span), problem.y0.numpy()
    if way < 0:
        span, start = span[::-1], case(name, 1)[2](span[1])
    truth = solve_ivp(
        problem.f_numpy, span, start, method="DOP853", rtol=1e-13, atol=1e-15, dense_output=True
    )
    assert truth.success
    theirs = solve_ivp(problem.f_numpy, span, start, method="DOP853", dense_output=True, **TIGHT)
    return span, start, truth.sol, in_tolerances(theirs.sol, truth.sol, np.linspace(*span, 101))


def in_tolerances(states: Any, truth: Any, times: np.ndarray) -> float:
    exact = truth(times)
    scale = TIGHT["atol"] + TIGHT["rtol"] * np.abs(exact).max(axis=1, keepdims=True)
    return float((np.abs(states(times) - exact) / scale).max())


@pytest.mark.parametrize(("name", "way"), CASES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_solves_as_dop853_does(solver: type[QuadflowSolver], name: str, way: int) -> None:
    """At the steps, between them and at the joins; nfev is what was called."""
    span, start, truth, theirs = case(name, way)
    fun = Counted(get_problem(name).f_numpy)
    found = solve_ivp(fun, span, start, method=solver, dense_output=True, **TIGHT)
    assert (found.status, found.success, found.njev, found.nlu) == (0, True, 0, 0)
    assert (found.t[0], found.t[-1]) == tuple(span)
    assert (np.diff(found.t) * way > 0).all()
    assert found.nfev == fun.calls == fun.states
    assert fun.shapes == {((), start.shape)}
    between = in_tolerances(found.sol, truth, np.linspace(*span, 101))
    at_steps = in_tolerances(lambda t: found.y, truth, found.t)
    # 20 tolerances are what the methods are held to; Kepler's orbit amplifies more than that
    assert max(between, at_steps) <= max(20.0, 3 * theirs)
    rounding = 1e-12 * np.abs(found.y).max()
    pieces = found.sol.interpolants
    assert len(pieces) == len(found.t) - 1
    for piece, (y0, y1) in zip(pieces, pairwise(found.y.T), strict=True):
        assert np.abs(piece(piece.t_old) - y0).max() <= rounding
        assert np.abs(piece(piece.t) - y1).max() <= rounding


@pytest.mark.parametrize("name", ["gauss", "adams", "dopri8"])
def test_the_steps_are_those_of_solve(name: str) -> None:
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def on_tensors(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(oscillator(float(t), y.numpy()))

    with InTensors():  # as the solver of NumPy functions does, to the last bit
        ours = qf.solve(on_tensors, y0, (0.0, 10.0), method=name, node_evaluation="loop", **TIGHT)
    found = solve_ivp(oscillator, (0, 10), y0.numpy(), method=solver_class(name), **TIGHT)
    assert found.t.tolist() == ours.steps
    assert (found.y[:, -1] == ours.y[-1].numpy()).all()
    assert found.nfev == ours.stats.nfe


@pytest.mark.parametrize("span", [(0.0, 10.0), (10.0, 0.0)])
@pytest.mark.parametrize("dense", [False, True])
def test_t_eval(span: tuple[float, float], dense: bool) -> None:
    times = np.linspace(*span, 23)
    options = {"method": Tsit5, "dense_output": True, **TIGHT}
    whole = solve_ivp(oscillator, span, [1.0, 0.0], **options)
    found = solve_ivp(
        oscillator, span, [1.0, 0.0], t_eval=times, **options | {"dense_output": dense}
    )
    assert (found.t == times).all() and found.y.shape == (2, 23)
    np.testing.assert_allclose(found.y, whole.sol(times), rtol=0, atol=1e-14)
    assert found.nfev == whole.nfev


@pytest.mark.parametrize("solver", SOLVERS)
def test_events(solver: type[QuadflowSolver]) -> None:
    """Roots as exact as the solution; a direction is kept to; a terminal one ends the solve."""
    event = KEPLER.event
    assert event is not None

    def crossing(t: float, y: np.ndarray) -> Any:
        return event.g(t, tuple(y), np)

    def falling(t: float, y: np.ndarray) -> Any:
        return crossing(t, y)

    def terminal(t: float, y: np.ndarray) -> Any:
        return crossing(t, y)

    falling.direction, terminal.terminal = -1, True
    y0, options = KEPLER.y0.numpy(), {"rtol": 1e-11, "atol": 1e-13, "method": solver}
    found, exact = (
        solve_ivp(KEPLER.f_numpy, (0, 7), y0, events=(crossing, falling), **options | other)
        for other in ({}, {"method": "DOP853", "rtol": 1e-13, "atol": 1e-15})
    )
    for ours, theirs in zip(found.t_events, exact.t_events, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
    assert 0 < len(found.t_events[1]) < len(found.t_events[0])
    values = [crossing(t, y) for t, y in zip(found.t_events[0], found.y_events[0], strict=True)]
    np.testing.assert_allclose(values, 0, rtol=0, atol=1e-13)
    start = KEPLER.solution(event.after).numpy()
    ended = solve_ivp(KEPLER.f_numpy, (event.after, math.inf), start, events=terminal, **options)
    assert ended.status == 1 and ended.success
    assert ended.t[-1] == ended.t_events[0][0] == pytest.approx(event.time, abs=1e-11)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("solver", SWEEPING)
def test_nodes_in_one_call(solver: type[QuadflowSolver], vectorized: bool) -> None:
    """Only what is promised: columns at times of their own; counted as states."""
    options = {"method": solver, "nodes": 6, "vectorized": vectorized, **TIGHT}
    one, many = Counted(oscillator), Counted(oscillator)
    looped = solve_ivp(one, (0, 10), [1.0, 0.0], **options)
    batched = solve_ivp(many, (0, 10), [1.0, 0.0], node_evaluation="broadcast", **options)
    np.testing.assert_allclose(batched.t, looped.t, rtol=1e-11)
    np.testing.assert_allclose(batched.y, looped.y, rtol=0, atol=1e-13)
    assert looped.nfev == one.calls == one.states
    assert batched.nfev == many.states == looped.nfev
    assert many.calls < looped.nfev / 4
    single = ((), (2, 1) if vectorized else (2,))
    assert one.shapes == {single}
    n = 5 if solver is LobattoCollocation else 6  # the start is evaluated once for all sweeps
    assert {single, ((n,), (2, n))} <= many.shapes


@pytest.mark.parametrize("solver", SOLVERS)
def test_complex_states(solver: type[QuadflowSolver]) -> None:
    start = np.array([1.0, 2.0 - 1.0j])
    rates = np.array([1.0j, -0.5 + 2.0j])
    seen = set()

    def rotation(t: Any, y: np.ndarray) -> np.ndarray:
        seen.add(y.dtype)
        return (rates * y.T).T

    options = {"node_evaluation": "broadcast"} if solver in SWEEPING else {}
    found = solve_ivp(rotation, (0, 5), start, method=solver, dense_output=True, **TIGHT, **options)
    times = np.linspace(0, 5, 33)
    exact = start[:, None] * np.exp(rates[:, None] * times)
    assert found.y.dtype == np.complex128 and seen == {np.dtype(np.complex128)}
    assert np.abs(found.sol(times) - exact).max() <= 3e-8


def test_array_tolerances() -> None:
    options = {"fun": oscillator, "t_span": (0, 10), "y0": [1.0, 0.0], "method": GaussCollocation}
    scalar = solve_ivp(rtol=1e-8, atol=1e-10, **options)
    array = solve_ivp(rtol=np.full(2, 1e-8), atol=[1e-10, 1e-10], **options)
    assert (scalar.t == array.t).all() and (scalar.y == array.y).all()
    for loosened in ({"rtol": [1e-8, 1e-2]}, {"atol": [1e-8, 1e-2]}):
        tolerances: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
        strict = solve_ivp(**tolerances, **options)
        assert solve_ivp(**tolerances | loosened, **options).nfev < strict.nfev


def test_tolerances_that_are_clipped_or_zero() -> None:
    options = {"fun": decay, "t_span": (0, 3), "y0": [1.0, 0.0], "method": Dopri8, "atol": 0}
    with pytest.warns(UserWarning, match=r"rtol=1e-16 is more than float64 holds: raised to 2.22"):
        clipped = solve_ivp(rtol=1e-16, **options)
    least = solve_ivp(rtol=100 * np.finfo(float).eps, **options)
    assert clipped.success and (clipped.t == least.t).all()
    np.testing.assert_allclose(clipped.y[:, -1], [math.exp(-3), 0], rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rtol": [1e-3, 1e-3]}, ValueError, r"rtol must be a number or of shape \(1,\)"),
        ({"atol": np.ones((1, 1))}, ValueError, r"atol must be .* got shape \(1, 1\)"),
        ({"atol": -1.0}, ValueError, "atol must not be negative or NaN, got -1.0"),
        ({"rtol": math.nan}, ValueError, "rtol must not be negative or NaN"),
        ({"max_step": 0.0}, ValueError, "max_step must be positive"),
        ({"min_step": -1.0}, ValueError, "min_step must be in"),
        ({"max_steps": 0}, ValueError, "max_steps must be an integer"),
        ({"first_step": 0.0}, ValueError, "first_step must be positive and at most"),
        ({"first_step": 4.0}, ValueError, r"at most \|t_bound - t0\| = 3.0, got 4.0"),
        ({"node_evaluation": "auto"}, ValueError, "node_evaluation='auto' is unknown"),
        ({"nodes": 1}, ValueError, "nodes must be an integer from 2"),
        ({"nodes": 9}, ValueError, "to 8"),
        ({"nodes": 4.0}, ValueError, "got 4.0"),
        ({"t_span": (0, math.nan)}, ValueError, "t_bound must be a number"),
        ({"t_span": (-math.inf, 0)}, ValueError, "t0 must be finite"),
        ({"y0": [[1.0]]}, ValueError, "1-dimensional"),
        ({"y0": [math.nan]}, ValueError, "finite"),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        solve_ivp(**{"fun": decay, "t_span": (0, 3), "y0": [1.0], "method": GaussCollocation}
                  | options)  # fmt: skip


def test_arguments_for_other_solvers_are_named() -> None:
    with pytest.warns(UserWarning, match="Tsit5 ignores jac, nodes: it has no such argument"):
        found = solve_ivp(decay, (0, 3), [1.0], method=Tsit5, jac=None, nodes=4)
    assert found.success


@pytest.mark.parametrize(
    ("fun", "options", "message"),
    [
        (lambda t, y: y**2, {}, "the step size fell to .* at t=1"),
        (lambda t, y: 0 * y + (math.nan if t > 0.5 else 1.0), {}, "not finite just past t=0.5"),
        (lambda t, y: y * math.inf, {}, "func is not finite at the start, t=0"),
        (lambda t, y: 100 * np.cos(1000 * t) + 0 * y, {"min_step": 0.1}, "below 0.1, at t="),
        (oscillator, {"max_steps": 5, "y0": [1.0, 0.0]}, "max_steps=5 steps were used up"),
    ],
)
@pytest.mark.parametrize("solver", [GaussCollocation, VariableOrderAdams, Dopri5])
def test_failures_keep_what_was_reached(
    solver: type[QuadflowSolver], fun: Any, options: dict[str, Any], message: str
) -> None:
    counted = Counted(fun)
    found = solve_ivp(
        counted, **{"t_span": (0, 2), "y0": [1.0], "method": solver, **TIGHT} | options
    )
    assert (found.status, found.success) == (-1, False)
    assert found.t[-1] < 2 and np.isfinite(found.y).all()
    assert found.nfev == counted.calls
    assert re.search(message, found.message), found.message


@pytest.mark.parametrize("solver", SOLVERS)
def test_step_sizes(solver: type[QuadflowSolver]) -> None:
    options = {"t_span": (5, 0), "y0": [1.0, 0.0], "method": solver}
    found = solve_ivp(oscillator, max_step=0.05, first_step=1e-3, **options)
    sizes = -np.diff(found.t)
    assert sizes[0] == pytest.approx(1e-3, rel=1e-9)
    assert sizes.max() <= 0.05 * (1 + 1e-9) and len(sizes) >= 100


@pytest.mark.parametrize("span", [(-0.3, 0.7), (1.9, 0.1)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_fun_is_called_within_the_span_alone(
    solver: type[QuadflowSolver], span: tuple[float, float]
) -> None:
    times = []

    def fun(t: float, y: np.ndarray) -> np.ndarray:
        times.append(t)
        return np.cos(3 * t) * y

    assert solve_ivp(fun, span, [1.0], method=solver, dense_output=True, **TIGHT).success
    assert min(span) <= min(times) and max(times) <= max(span)


def test_stepping_by_hand() -> None:
    fun = Counted(decay)
    solver = GaussCollocation(fun, 0, [1.0, 2.0], 3, rtol=1e-8, atol=1e-10)
    assert (solver.t, solver.status, solver.direction, solver.n) == (0, "running", 1, 2)
    assert solver.step_size is None and fun.calls == 0
    with pytest.raises(RuntimeError, match="after a successful step"):
        solver.dense_output()
    taken = 0
    while solver.status == "running":
        before = solver.t
        assert solver.step() is None
        taken += 1
        assert solver.t_old == before and solver.step_size == solver.t - before
        piece = solver.dense_output()
        assert isinstance(piece, DenseOutput) and (piece.t_min, piece.t_max) == (before, solver.t)
        middle = (before + solver.t) / 2
        np.testing.assert_allclose(piece(middle), np.exp(-middle) * np.array([1, 2]), rtol=1e-7)
        assert piece([before, middle]).shape == (2, 2) and piece([]).shape == (2, 0)
    assert (solver.t, solver.status, solver.steps.accepted) == (3.0, "finished", taken)
    np.testing.assert_allclose(solver.y, np.exp(-3) * np.array([1, 2]), rtol=1e-7)
    assert solver.nfev == solver.velocity.nfe == solver.velocity.calls == fun.calls
    with pytest.raises(RuntimeError):
        solver.step()


def test_nothing_to_solve() -> None:
    for span, y0 in (((1, 1), [1.0]), ((0, 1), [])):
        found = solve_ivp(decay, span, y0, method=GaussCollocation, dense_output=True)
        assert found.success and found.nfev == 0 and found.t[-1] == span[1]
        assert (found.y == np.array(y0)[:, None]).all()
        solver = GaussCollocation(decay, span[0], y0, span[1])
        assert solver.steps is None and solver.velocity is None


def test_functions_of_every_making() -> None:
    """Further arguments; one array filled anew by every call; views; a number for n = 1."""
    options = {"method": LobattoCollocation, **TIGHT}
    exact = solve_ivp(oscillator, (0, 4), [1.0, 0.0], **options)
    filled = np.empty(2)

    def filling(t: float, y: np.ndarray) -> np.ndarray:
        filled[0], filled[1] = y[1], -y[0] + np.cos(2 * t)
        return filled

    def reversed_view(t: float, y: np.ndarray) -> np.ndarray:
        return np.array([-y[0] + np.cos(2 * t), y[1]])[::-1]

    def with_frequency(t: float, y: np.ndarray, frequency: float) -> list[float]:
        return [y[1], -y[0] + np.cos(frequency * t)]

    for fun, args in ((filling, None), (reversed_view, None), (with_frequency, (2.0,))):
        found = solve_ivp(fun, (0, 4), [1.0, 0.0], args=args, **options)
        np.testing.assert_allclose(found.y, exact.y, rtol=0, atol=1e-13)
    for evaluation in ("loop", "broadcast"):
        found = solve_ivp(
            lambda t, y: np.cos(t), (0, 4), [0.0], node_evaluation=evaluation, **options
        )
        assert abs(found.y[0, -1] - math.sin(4)) < 1e-8


@pytest.mark.parametrize("evaluation", ["loop", "broadcast"])
def test_a_function_of_another_shape_is_named(evaluation: str) -> None:
    def transposed(t: Any, y: np.ndarray) -> np.ndarray:
        return y.T if y.ndim == 2 else y[:1]

    with pytest.raises(qf.VelocityError, match=r"fun returned an array of shape \(1,\) for y of"):
        solve_ivp(transposed, (0, 1), np.ones(3), method=GaussCollocation)
    with pytest.raises(qf.VelocityError, match=r"shape \(5, 3\) for y of shape \(3, 5\) and t of"):
        solve_ivp(
            lambda t, y: -y.T if y.ndim == 2 else -y, (0, 1), np.ones(3), method=GaussCollocation,
            node_evaluation="broadcast", nodes=5,
        )  # fmt: skip


def test_a_class_of_any_method() -> None:
    for name, method in qf.methods().items():
        if method.error_order is None:
            with pytest.raises(ValueError, match=f"{name!r} has no error estimate"):
                solver_class(name)
            continue
        solver = solver_class(method)
        assert solver.__name__ == name and issubclass(solver, QuadflowSolver)
        found = solve_ivp(decay, (0, 1), [1.0], method=solver, rtol=1e-5, atol=1e-7)
        assert found.success and abs(found.y[0, -1] - math.exp(-1)) < 1e-4, name
    with pytest.raises(ValueError, match="did you mean 'dopri5'"):
        solver_class("dopri55")
    with pytest.raises(ValueError, match="no error estimate"):
        solver_class(qf.collocation(qf.gauss_legendre(3), "converged"))
    assert pickle.loads(pickle.dumps(VariableOrderAdams)) is VariableOrderAdams
