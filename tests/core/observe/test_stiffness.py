"""Stiffness is found within a bounded number of steps, and never where there is none."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from host_waits import CountWaits

import quadflow as qf
from quadflow.analysis.problems.problem import get_problem, problem_names, problems
from quadflow.plans.adams.variable_order import interval_weights
from quadflow.plans.anchors.method import PECE_LIMITS

RUNGE_KUTTA = ["heun", "bosh3", "dopri5", "tsit5", "dopri8"]
SWEEPS = ["gauss", "lobatto", "gauss4", "lobatto4", "radau3"]
ADAMS = ["adams", "pece1", "pece2", "pece4"]
METHODS = RUNGE_KUTTA + SWEEPS + ADAMS
STEPS = {1e-3: 150, 1e-6: 400}
"""Accepted steps within which stiff problems are found: at tight tolerances the smooth
part of the difference hides the fast one for a while."""


def scalar(rate: float = 1e4, dtype: torch.dtype = torch.float64):
    """y' = -rate (y - cos t) and its start on the slow solution."""
    return lambda t, y: -rate * (y - torch.cos(t)), torch.ones(1, dtype=dtype)


def found(f, y0, t=(0.0, 10.0), tol=1e-4, **arguments) -> tuple[qf.Solution, list[str]]:
    """The solution, and what warned of stiffness."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        arguments = {"rtol": tol, "atol": tol, "node_evaluation": "broadcast"} | arguments
        solution = qf.solve(f, y0, t, throw=False, **arguments)
    return solution, [str(w.message) for w in caught if w.category is qf.StiffnessWarning]


# -- limits of stability ---------------------------------------------------------------------------


def test_limits_of_the_literature() -> None:
    """Hairer & Wanner, Solving ODEs II, section IV.2: 3.3 and 6.1 (DOP853's first crossing is at
    6.4; the code stays below it)."""
    assert qf.get_method("dopri5").stability_limit == pytest.approx(3.31, abs=0.02)
    assert qf.get_method("dopri8").stability_limit == pytest.approx(6.39, abs=0.03)
    assert qf.get_method("heun").stability_limit == pytest.approx(2.0, abs=0.02)
    assert qf.get_method("pec3").stability_limit is None
    assert qf.collocation(qf.gauss_legendre(3), "converged").stability_limit is None


@pytest.mark.parametrize("name", [*RUNGE_KUTTA, "gauss", "lobatto", "gauss4", "gauss8", "radau5"])
def test_steps_decay_below_the_limit_and_grow_above(name: str) -> None:
    limit = qf.get_method(name).stability_limit

    def growth(size: float) -> float:
        end = qf.solve(
            lambda t, y: -y, torch.ones(1, dtype=torch.float64), (0.0, 400 * size), method=name,
            step_size=size, node_evaluation="broadcast",
        ).y[-1]  # fmt: skip
        return float(end.abs().max())

    assert growth(limit * 0.97) < 1 < growth(limit * 1.05)


@pytest.mark.parametrize("k", range(1, 13))
def test_adams_limits_are_those_of_the_recurrence(k: int) -> None:
    weights = interval_weights([-float(i) for i in range(k + 1)], 0.0, 1.0, k)
    start = np.eye(len(weights.positions))[0]

    def radius(x: float) -> float:
        predicted, corrected = (start - x * row[1:] for row in weights.table[:2])
        matrix = np.eye(len(start), k=-1)
        matrix[0] = corrected - x * weights.table[1, 0] * predicted
        return float(abs(np.linalg.eigvals(matrix)).max())

    xs = np.arange(0.01, PECE_LIMITS[k - 1] - 0.005, 0.01)
    assert max(map(radius, xs)) <= 1 + 1e-9
    assert radius(PECE_LIMITS[k - 1] + 0.02) > 1


@pytest.mark.parametrize("name", ["dopri5", "tsit5", "dopri8", "bosh3"])
def test_probe_weights_see_the_state_alone(name: str) -> None:
    """Velocities that change linearly with time do not show in the difference."""
    tableau = qf.get_method(name).tableau
    v_weights, y_weights = tableau.probe
    assert abs(sum(v_weights)) < 1e-12
    assert abs(np.dot(v_weights, tableau.c)) < 1e-12
    assert max(map(abs, y_weights)) > 1e-3


# -- detection -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_the_rate_is_exact_on_a_linear_problem(name: str) -> None:
    f, y0 = scalar()
    solution, messages = found(f, y0, method=name, max_steps=400)
    assert len(messages) == 1  # once, though the steps go on
    assert "L = 1e+04" in messages[0] and "Radau" in messages[0] and repr(name) in messages[0]
    assert solution.status is qf.Status.MAX_STEPS
    assert messages[0] in solution.message
    assert 0 < solution.stats.stiff_at < solution.steps[-1]


STIFF = ["van-der-pol-stiff", "robertson", "hires", "oregonator", "pollution", "brusselator"]


def stiff_problem(name: str):
    return get_problem(name, points=100) if name == "brusselator" else get_problem(name)


def check_found(name: str, method: str, tol: float) -> None:
    problem = stiff_problem(name)
    solution, messages = found(
        problem.f, problem.y0, problem.span, method=method, rtol=tol, atol=1e-3 * tol,
        on_stiff="stop", max_steps=1000,
    )  # fmt: skip
    assert solution.status is qf.Status.STIFF, solution.message
    assert solution.stats.accepted <= STEPS[tol]
    assert solution.stats.stiff_at == solution.steps[-1]
    assert "implicit" in solution.message and not messages


@pytest.mark.parametrize("method", ["dopri5", "lobatto", "adams"])
@pytest.mark.parametrize("name", STIFF)
def test_stiff_problems_are_found(name: str, method: str) -> None:
    check_found(name, method, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
@pytest.mark.parametrize(
    "method", ["tsit5", "dopri5", "dopri8", "gauss", "lobatto", "gauss4", "adams"]
)
@pytest.mark.parametrize("name", STIFF)
def test_stiff_problems_are_found_by_every_kind(name: str, method: str, tol: float) -> None:
    if (name, method, tol) == ("oregonator", "dopri5", 1e-6):
        pytest.skip("h·L stays at 0.9 of its limit: the tolerance holds the steps, to t = 20")
    check_found(name, method, tol)


def test_stiff_backwards_and_without_an_end() -> None:
    f, y0 = scalar()
    back, _ = found(lambda t, y: -f(-t, y), y0, (0.0, -10.0), on_stiff="stop")
    assert back.status is qf.Status.STIFF and -0.1 < back.stats.stiff_at < 0
    endless, messages = found(
        f, y0, (0.0, math.inf), events=qf.Event(lambda t, y: t - 0.1, terminal=True)
    )
    assert endless.status is qf.Status.EVENT and "no end" in messages[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
def test_other_dtypes(dtype: torch.dtype) -> None:
    f, y0 = scalar(dtype=dtype)
    solution, _ = found(f, y0, (0.0, 10.0), tol=1e-3, on_stiff="stop")
    assert solution.status is qf.Status.STIFF


def test_solve_raises_when_it_stops() -> None:
    f, y0 = scalar()
    with pytest.raises(qf.SolveError, match=r"stiff at t=.*L = 1e\+04") as caught:
        qf.solve(f, y0, (0.0, 10.0), on_stiff="stop")
    assert caught.value.status is qf.Status.STIFF


def test_odeint_warns() -> None:
    f, y0 = scalar(300.0)
    with pytest.warns(qf.StiffnessWarning):
        qf.odeint(f, y0, torch.tensor([0.0, 10.0]), rtol=1e-3, atol=1e-3)


# -- no false alarms -------------------------------------------------------------------------------

NONSTIFF = [name for name in problem_names() if not get_problem(name).stiff]


def check_silent(name: str, method: str, tol: float) -> None:
    problem = get_problem(name)
    solution, messages = found(problem.f, problem.y0, problem.span, method=method, tol=tol)
    assert not messages and solution.stats.stiff_at is None


@pytest.mark.parametrize("name", [n for n in NONSTIFF if n not in ("brusselator", "pleiades")])
def test_no_alarm(name: str) -> None:
    for method in ("dopri5", "lobatto", "adams"):
        check_silent(name, method, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("name", NONSTIFF)
def test_no_alarm_from_any_method(name: str, tol: float) -> None:
    for method in METHODS:
        if tol > 1e-9 or method not in ("heun", "bosh3", "pece1", "pece2"):  # 1e5 steps
            check_silent(name, method, tol)


def _in_shape(*parts):
    return torch.stack(parts, -1)


LONG = {
    "pendulum": (lambda t, y: _in_shape(y[..., 1], -torch.sin(y[..., 0])), (0.1, 0.0)),
    "oscillator-on-an-offset": (
        lambda t, y: _in_shape(y[..., 1], 1e3 - y[..., 0], torch.ones_like(y[..., 0])),
        (1001.0, 0.0, 0.0),
    ),
    "forced": (lambda t, y: -y + torch.cos(t), (1.0,)),
    "growth": (lambda t, y: 1e-3 * y * (1 - 1e-6 * y), (1.0,)),
}  # fmt: skip


def check_silent_for_long(name: str, method: str, tol: float, dtype: torch.dtype) -> None:
    if name in LONG:
        f, start = LONG[name]
        y0 = torch.tensor(start, dtype=dtype)
    else:
        problem = get_problem(name)
        f, y0 = problem.f, problem.y0.to(dtype)
    solution, messages = found(f, y0, (0.0, 1e5), method=method, tol=tol, max_steps=500)
    assert not messages
    assert "no stiffness" in solution.message or solution.success


@pytest.mark.parametrize("name", [*LONG, "lorenz", "kepler"])
def test_no_alarm_in_a_long_solve(name: str) -> None:
    """Here the monitor looks, as hundreds of steps are to come."""
    for method in ("dopri5", "lobatto", "adams"):
        check_silent_for_long(name, method, 1e-3, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "name",
    [*LONG, "lorenz", "kepler", "lotka-volterra", "van-der-pol", "arenstorf", "henon-heiles"],
)
def test_no_alarm_in_a_long_solve_of_any_method(name: str, dtype: torch.dtype) -> None:
    for method in METHODS:
        for tol in (1e-3, 1e-5) if dtype is torch.float32 else (1e-3, 1e-5, 1e-8):
            check_silent_for_long(name, method, tol, dtype)


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "lobatto", "adams"])
def test_no_alarm_on_the_way_into_a_singularity(method: str) -> None:
    """The tolerance holds h·L there, with ever more steps to come."""
    for f, start in ((lambda t, y: y * y, 1.0), (lambda t, y: 1 + y * y, 0.0)):
        y0 = torch.tensor([start], dtype=torch.float64)
        for tol in (1e-3, 1e-6):
            solution, messages = found(f, y0, (0.0, 3.0), method=method, tol=tol, max_steps=2000)
            assert not solution.success and not messages


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "adams"])
def test_no_alarm_where_f_jumps(method: str) -> None:
    def f(t, y):
        return torch.sign(torch.sin(t)) - 0.1 * y

    y0 = torch.ones(1, dtype=torch.float64)
    _, messages = found(f, y0, (0.0, 1e4), method=method, tol=1e-3, max_steps=1500)
    assert not messages


# -- what it costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dopri5", "bosh3", "gauss", "lobatto", "gauss4", "adams"])
def test_one_wait_a_try_while_it_looks(name: str) -> None:
    f, y0 = scalar()

    def waits(steps: int) -> tuple[int, int]:
        with CountWaits() as counter:
            solution, _ = found(f, y0, method=name, max_steps=steps)
        stats = solution.stats
        return counter.waits, stats.accepted + stats.rejected + stats.refined

    (few, tries), (many, more) = waits(30), waits(90)
    assert more > tries
    assert many - few == more - tries


@pytest.mark.parametrize("name", ["dopri5", "heun", "bosh3", "lobatto", "gauss4", "adams", "pece2"])
def test_looking_changes_nothing(name: str) -> None:
    f, y0 = scalar()
    runs = [found(f, y0, method=name, max_steps=200, on_stiff=on)[0] for on in ("warn", "ignore")]
    assert runs[0].stats.stiff_at is not None and runs[1].stats.stiff_at is None
    assert runs[0].stats.nfe == runs[1].stats.nfe
    assert runs[0].steps == runs[1].steps


def test_one_sweep_is_swept_again_now_and_then() -> None:
    """A method of one sweep on Gauss's nodes has nothing to compare without."""
    f, y0 = scalar(1.0)
    looked, ignored = (
        found(f, y0, (0.0, 1e5), method="gauss", max_steps=500, on_stiff=on)[0].stats
        for on in ("warn", "ignore")
    )
    assert 0 < looked.refined - ignored.refined <= 55


def test_vmap_and_gradients() -> None:
    f, _ = scalar()

    def end(y0: torch.Tensor) -> torch.Tensor:
        return qf.solve(f, y0, (0.0, 0.25), method="dopri5", rtol=1e-3, atol=1e-3).y[-1]

    y0 = torch.tensor([[1.0], [1.5]], dtype=torch.float64, requires_grad=True)
    with pytest.warns(qf.StiffnessWarning):
        ends = torch.func.vmap(end)(y0)
    (gradient,) = torch.autograd.grad(ends.sum(), y0)
    assert torch.isfinite(gradient).all()
    with pytest.warns(qf.StiffnessWarning):
        torch.testing.assert_close(ends[:1], end(y0[:1]), atol=1e-2, rtol=0)


# -- arguments -------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    f, y0 = scalar()
    with pytest.raises(ValueError, match=r"on_stiff='stopp'.*did you mean 'stop'"):
        qf.solve(f, y0, (0.0, 1.0), on_stiff="stopp")
    with pytest.raises(ValueError, match="on_stiff='stop' belongs to adaptive"):
        qf.solve(f, y0, (0.0, 1.0), step_size=0.1, on_stiff="stop")
    with pytest.raises(ValueError, match="on_stiff='stop' is not available with batch_dims=1"):
        qf.solve(f, y0, (0.0, 1.0), batch_dims=1, on_stiff="stop")


def test_every_stiff_problem_of_the_library_is_tried() -> None:
    stiff = {name for name, problem in problems().items() if problem.stiff}
    assert stiff <= {*STIFF, "prothero-robinson", "e5"}  # like `scalar`, and one that blows up
