"""Far from t = 0 a solve takes the steps that it takes from 0, or says that t is rounded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from host_waits import CountWaits
from hypothesis import given, settings
from hypothesis import strategies as st
from in_tensors import InTensors
from scipy.integrate import solve_ivp
from torch import Tensor

import quadflow as qf
from quadflow.adapters.scipy_solver import GaussCollocation
from quadflow.control.time_rounding import TimeRounding
from quadflow.plans.sweeps.seen_times import seen_by_samples, seen_numbers
from quadflow.rules.lagrange import lagrange_derivatives

ADAPTIVE = sorted(name for name, method in qf.methods().items() if method.error_order is not None)
COLLOCATION = ("gauss", "lobatto", "gauss6", "lobatto6", "radau5")
FORCINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda s, y: torch.cos(s) - 0.1 * y,
    "parabola": lambda s, y: 0.1 * s * s - 0.3 * y,
    "exponential": lambda s, y: torch.exp(-s) - 0.3 * y + 0.2,
    "factor": lambda s, y: -y * (1.2 + torch.cos(s)),
    "two tones": lambda s, y: torch.sin(s) * torch.cos(0.7 * s) - 0.2 * y,
    "late": lambda s, y: torch.relu(s - 2.0) ** 3 - 0.5 * y,
    "rational": lambda s, y: 1 / (1 + s * s) - 0.4 * y,
    "logistic": lambda s, y: y * (1 - y) + 0.1 * torch.sin(2 * s),
    "square root": lambda s, y: torch.sqrt(2 + torch.cos(s)) - y,
}


def own_rtol(name: str) -> float:
    """What a method is made for."""
    order = qf.methods()[name].error_order
    return 1e-3 if order <= 3 else 1e-4 if order <= 4 else 1e-7


def solved(
    func: Any, y0: Tensor, times: tuple[float, float], **how: Any
) -> tuple[qf.Solution, list[str]]:
    """The solution, and the names of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        solution = qf.solve(
            func, y0, times, **{"throw": False, "node_evaluation": "broadcast", **how}
        )
    return solution, [one.category.__name__ for one in caught]


def shifted(
    name: str, forcing: str, t0: float, rtol: float, span: float, dtype: Any = torch.float64
) -> tuple[qf.Solution, list[str]]:
    func = FORCINGS[forcing]
    return solved(
        lambda t, y: func(t - t0, y), torch.full((1,), 0.8, dtype=dtype), (t0, t0 + span),
        method=name, rtol=rtol, atol=rtol / 100, max_steps=20_000,
    )  # fmt: skip


def same_cost(far: qf.Solution, near: qf.Solution) -> None:
    assert far.success, far.message
    # in a solve of few steps one more is more than a fifth
    assert far.stats.accepted <= 1.2 * near.stats.accepted + 1
    a_step = math.ceil(near.stats.calls / near.stats.accepted)
    assert far.stats.calls <= 1.2 * near.stats.calls + 2 * a_step


@pytest.mark.parametrize("name", ADAPTIVE)
def test_translation_changes_no_steps(name: str) -> None:
    """Down to 100 roundings of t, forwards and backwards."""
    starts = (1e2, -1e4, 1e6, -1e8, 1e10)
    for i, t0 in enumerate(starts[:: 2 if own_rtol(name) > 1e-7 else 1]):
        span = 6.0 * (-1) ** i
        # |f_t|/|f| is some 3 at most
        rtol = max(own_rtol(name), 300 * 2.0**-52 * abs(t0))
        near, _ = shifted(name, "cosine", 0.0, rtol, span)
        far, told = shifted(name, "cosine", t0, rtol, span)
        same_cost(far, near)
        assert not told
        assert abs(float(far.y[-1] - near.y[-1])) < 30 * rtol


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    name=st.sampled_from(COLLOCATION),
    forcing=st.sampled_from(sorted(FORCINGS)),
    digits=st.floats(1.5, 10),
    backward=st.booleans(),
    before=st.booleans(),
)
def test_translation_of_collocation(
    name: str, forcing: str, digits: float, backward: bool, before: bool
) -> None:
    t0 = round(10**digits) * (-1.0 if before else 1.0)
    span = -1.5 if backward else 5.0
    rtol = max(1e-7, 300 * 2.0**-52 * abs(t0))
    near, _ = shifted(name, forcing, 0.0, rtol, span)
    far, _ = shifted(name, forcing, t0, rtol, span)
    same_cost(far, near)


@pytest.mark.parametrize("name", ["gauss", "lobatto", "lobatto6", "dopri5", "tsit5", "pece4"])
@pytest.mark.parametrize("t0", [64.0, 512.0, 4096.0])
def test_translation_in_float32(name: str, t0: float) -> None:
    rtol = 300 * 2.0**-23 * t0
    for forcing in ("cosine", "parabola"):
        near, _ = shifted(name, forcing, 0.0, rtol, 6.0, torch.float32)
        far, told = shifted(name, forcing, t0, rtol, 6.0, torch.float32)
        same_cost(far, near)
        assert not told


@pytest.mark.parametrize("name", ["gauss", "lobatto"])
def test_tolerances_far_below_the_rounding_of_t(name: str) -> None:
    """What is undone in first order costs nothing even there: at Unix times too."""
    near, _ = shifted(name, "cosine", 0.0, 1e-7, 20.0)
    for t0 in (1e8, 1.7e9, -1.7e9):
        far, told = shifted(name, "cosine", t0, 1e-7, 20.0)
        same_cost(far, near)
        assert told in ([], ["RoundingWarning"])
        assert abs(float(far.y[-1] - near.y[-1])) < 1e-5
    near, _ = shifted(name, "two tones", 0.0, 1e-10, 10.0)
    far, _ = shifted(name, "two tones", 1e4, 1e-10, 10.0)
    same_cost(far, near)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["gauss", "lobatto", "gauss8", "lobatto5"])
def test_samples_with_steps_of_their_own(name: str, dtype: torch.dtype) -> None:
    """Each with a time of its own at its start, near and far: none disturbs the others."""
    starts = np.array([0.0, 1e2, 1e4, 1e7]) if dtype is torch.float64 else np.array(
        [0.0, 8.0, 64.0, 512.0])  # fmt: skip
    rtol = 1e-6 if dtype is torch.float64 else 2e-2
    column = torch.tensor(starts, dtype=dtype)[:, None]
    y0 = torch.full((4, 1), 0.8, dtype=dtype)
    how = {"method": name, "rtol": rtol, "atol": rtol / 100, "batch_dims": 1}

    def forced(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t - column) - 0.1 * y

    many, _ = solved(forced, y0, np.stack((starts, starts + 8.0)), **how)
    near, _ = solved(lambda t, y: torch.cos(t) - 0.1 * y, y0[:1], (0.0, 8.0), **how)
    assert many.success
    assert many.stats.accepted <= 4 * (1.2 * near.stats.accepted + 1)
    assert many.stats.calls - many.stats.probe_nfe <= 1.2 * near.stats.calls + 6
    assert (many.y[-1] - near.y[-1]).abs().max() < 10 * rtol
    # bit for bit what the samples are without those that are far away
    column = column[:2]
    two, _ = solved(forced, y0[:2], np.stack((starts, starts + 8.0))[:, :2], **how)
    assert torch.equal(many.y[:, :2], two.y)


@pytest.mark.parametrize(
    "name, dtype",
    [("gauss", torch.float64), ("lobatto", torch.float32)],
)
def test_compiled_steps(name: str, dtype: torch.dtype) -> None:
    t0, rtol = (1e6, 1e-7) if dtype is torch.float64 else (512.0, 2e-2)
    how = {"method": name, "rtol": rtol, "atol": rtol / 100}
    y0 = torch.full((1,), 0.8, dtype=dtype)

    def forced(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t - t0) - 0.1 * y

    plain, _ = solved(forced, y0, (t0, t0 + 10.0), **how)
    compiled, _ = solved(forced, y0, (t0, t0 + 10.0), compile={"backend": "eager"}, **how)
    assert compiled.success
    assert abs(compiled.stats.accepted - plain.stats.accepted) <= 2
    assert abs(compiled.stats.calls - plain.stats.calls) <= 6
    torch.testing.assert_close(compiled.y, plain.y, rtol=20 * rtol, atol=rtol)


def test_through_other_interfaces() -> None:
    """torchdiffeq's and SciPy's, tuples, dense output, events, vmap and backpropagation."""
    t0, tol = 1e6, {"rtol": 1e-7, "atol": 1e-9}
    y0 = torch.full((1,), 0.8, dtype=torch.float64)
    calls = 0

    def func(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.cos(t - t0) - 0.1 * y

    near, _ = shifted("gauss", "cosine", 0.0, 1e-7, 8.0)
    times = torch.tensor([t0, t0 + 8.0], dtype=torch.float64)
    options = {"node_evaluation": "broadcast"}
    found = qf.odeint(func, y0, times, method="gauss", options=options, **tol)
    assert calls <= 1.2 * near.stats.calls + 4
    assert abs(float(found[-1] - near.y[-1])) < 1e-6

    pair = qf.solve(
        lambda t, y: (torch.cos(t - t0) - 0.1 * y[0],), (y0,), (t0, t0 + 8.0), method="lobatto",
        events=lambda t, y: y[0][0] - 1.2, dense_output=True, node_evaluation="loop", **tol,
    )  # fmt: skip
    assert pair.stats.accepted <= 1.2 * near.stats.accepted + 1
    assert (pair(pair.t_events[0].tolist())[0] - 1.2).abs().max() < 1e-6

    mine = solve_ivp(
        lambda t, y: np.cos(t - t0) - 0.1 * y, (t0, t0 + 8.0), [0.8], method=GaussCollocation, **tol
    )
    assert mine.success and len(mine.t) <= 1.2 * near.stats.accepted + 2

    def end(start: Tensor) -> Tensor:
        return qf.solve(func, start, (t0, t0 + 8.0), method="gauss", **tol).y[-1]

    starts = torch.tensor([[0.8], [-0.3]], dtype=torch.float64)
    together = torch.func.vmap(end)(starts)
    assert (together[0] - near.y[-1]).abs().max() < 1e-6
    start = y0.clone().requires_grad_()
    (slope,) = torch.autograd.grad(end(start), start)
    assert abs(float(slope) - math.exp(-0.8)) < 1e-6


@pytest.mark.parametrize("name", ["dopri5", "dopri8", "tsit5", "adams", "pece4", "gauss", "radau5"])
@pytest.mark.parametrize("samples", [0, 1])
def test_one_warning_says_that_t_is_rounded(name: str, samples: int) -> None:
    """Where the tolerance is below it; and the solve ends, one way or the other."""
    if samples and name in ("adams", "pece4"):
        pytest.skip("no steps for every sample")
    t0 = 1e11
    y0 = torch.full((2, 1) if samples else (1,), 0.8, dtype=torch.float64)
    solution, told = solved(
        lambda t, y: torch.cos(t - t0) - 0.1 * y, y0, (t0, t0 + 3.0), method=name, rtol=1e-8,
        atol=1e-10, max_steps=400, batch_dims=samples,
    )  # fmt: skip
    assert told == ["RoundingWarning"], solution.message


def test_the_warning_names_what_it_is_about() -> None:
    with pytest.warns(qf.RoundingWarning) as caught:
        qf.solve(
            lambda t, y: torch.cos(t) - 0.1 * y, torch.ones(1), (1e5, 1e5 + 2.0), rtol=1e-4,
            method="dopri5", throw=False, max_steps=50,
        )  # fmt: skip
    (message,) = (str(one.message) for one in caught)
    for needle in ("t=100000", "0.012", "float32", "rtol=0.0001", "Shift t", "float64", "looser"):
        assert needle in message, needle
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ADAPTIVE)
def test_ordinary_solves_are_not_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the tolerances that a method is made for: forwards, backwards, tens of steps from 0, and
    in single precision, from 0."""
    monkeypatch.setattr(TimeRounding, "measure", lambda *_: pytest.fail("measured"))
    for dtype, rtol, times in (
        (torch.float64, own_rtol(name), (0.0, 6.0)),
        (torch.float64, own_rtol(name), (30.0, 26.0)),
        (torch.float32, 1e-3, (0.0, 1.0)),
    ):
        y0 = torch.ones(1, dtype=dtype)
        with InTensors():  # whose last steps here are none too short; a sliver would be measured
            solution, told = solved(
                FORCINGS["cosine"], y0, times, method=name, rtol=rtol, atol=rtol
            )
        assert solution.success and not told


def test_a_function_without_t_is_not_corrected() -> None:
    """Nor is more computed for it, wherever it starts: the same numbers, operation by operation."""

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        made = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Count.made += 1
            return func(*args, **(kwargs or {}))

    def operations(func: Any, t0: float) -> tuple[float, qf.Solution]:
        Count.made = 0
        with Count():
            solution, _ = solved(
                func, torch.ones(2, dtype=torch.float64), (t0, t0 + 64.0), method="gauss"
            )
        return Count.made / solution.stats.calls, solution

    steady, near = operations(lambda t, y: -y.flip(-1), 0.0)
    far_off, far = operations(lambda t, y: -y.flip(-1), 2.0**20)
    assert torch.equal(near.y, far.y) or far.stats.accepted <= 1.2 * near.stats.accepted
    assert far_off < 1.1 * steady


@pytest.mark.parametrize("name", ["gauss", "lobatto", "adams", "dopri8"])
def test_no_step_waits_more_often(name: str) -> None:
    """What is measured is read with the error of the next try."""
    t0 = 1e6

    def waits(span: float) -> tuple[int, qf.Statistics]:
        with CountWaits() as counter:
            solution, _ = solved(
                lambda t, y: torch.cos(t - t0) - 0.1 * y, torch.ones(1, dtype=torch.float64),
                (t0, t0 + span), method=name, rtol=1e-7, atol=1e-9,
            )  # fmt: skip
        return counter.waits, solution.stats

    (short, first), (long, second) = waits(4.0), waits(20.0)
    tries = [s.accepted + s.rejected + s.refined for s in (first, second)]
    assert tries[1] > tries[0] + 10
    assert long - short == tries[1] - tries[0]


# -- adams, whose first steps are shorter than those of any other --------------------------------


@pytest.mark.parametrize(
    "power, t0, rtol",
    [(-1, 1.0, 1e-3), (-1, -3e4, 1e-7), (-2, 1.0, 1e-7), (-2, 3e4, 1e-3), (-3, -1.0, 1e-5)],
)
def test_adams_solves_what_dopri5_solves(power: int, t0: float, rtol: float) -> None:
    """y' = k y^power on scales of time from what t does not hold to what it does."""
    outcomes = set()
    for scale in (1.0, 30.0, 1e3, 1e4):  # of time, in roundings of t
        k = 1 / (scale * math.ulp(t0))
        y0 = torch.ones(1, dtype=torch.float64)
        ended = {}
        for name in ("dopri5", "adams"):
            solution, _ = solved(
                lambda t, y, k=k: k * y**power, y0, (t0, t0 + 1e-3 * abs(t0)), method=name,
                rtol=rtol, atol=rtol / 100,
            )  # fmt: skip
            ended[name] = solution.success
            if solution.success:
                n = 1 - power
                exact = (1 + n * k * (solution.t[-1] - t0)) ** (1 / n)
                assert abs(float(solution.y[-1] / exact) - 1) < 3 * rtol * 10
            else:
                assert "shift t" in solution.message
        assert ended["adams"] >= ended["dopri5"]
        outcomes.add(ended["adams"])
    assert outcomes == {True, False}


@pytest.mark.parametrize("rate", [1e10, 1e11, 1e12])
def test_adams_follows_fast_oscillations_late(rate: float) -> None:
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    end = 1.0 + 20 / rate
    solution, _ = solved(
        lambda t, y: rate * torch.stack((y[..., 1], -y[..., 0]), -1), y0, (1.0, end),
        method="adams", rtol=1e-6, atol=1e-8, dense_output=True,
    )  # fmt: skip
    assert solution.success
    angle = rate * (end - 1.0)
    assert abs(float(solution.y[-1, 0]) - math.cos(angle)) < 1e-4
    middle = 1.0 + (end - 1.0) * 0.43
    assert abs(float(solution(middle)[0]) - math.cos(rate * (middle - 1.0))) < 1e-3


def test_ordinary_starts_are_no_runge_kutta_steps() -> None:
    solution, _ = solved(
        lambda t, y: -y, torch.ones(1, dtype=torch.float64), (1.0, 2.0), method="adams"
    )
    assert solution.stats.calls <= 2 * (solution.stats.accepted + solution.stats.rejected) + 2


# -- its parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12])
def test_derivatives_are_exact_for_polynomials(n: int) -> None:
    nodes = qf.gauss_legendre(n).nodes
    matrix = lagrange_derivatives(nodes)
    for power in range(n):
        exact = power * nodes ** max(power - 1, 0)
        np.testing.assert_allclose(matrix @ nodes**power, exact, atol=1e-12 * n**3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("t0", [3.0, -1234.567, 2.0**31 + 0.3])
def test_seen_times_and_their_shifts(t0: float, dtype: torch.dtype) -> None:
    """Against rational numbers, with one time and with one a sample."""
    from fractions import Fraction

    h = 40 * float(np.spacing(np.float32(t0))) if dtype is torch.float32 else 0.37
    nodes = qf.gauss_legendre(5).nodes
    times, shifts = seen_numbers(nodes, t0, h, dtype, None)
    for node, when, shift in zip(nodes.tolist(), times.tolist(), shifts.tolist(), strict=True):
        assert when == float(torch.tensor(when, dtype=dtype))
        exact = (Fraction(when) - Fraction(t0) - Fraction(node * h)) / Fraction(h)
        assert shift == pytest.approx(float(exact), abs=1e-12)
    start = torch.tensor([[t0], [t0], [t0]], dtype=torch.float64)
    size = torch.tensor([[h], [0.0], [h]], dtype=torch.float64)
    wanted = torch.tensor([[True], [True], [False]])
    many, moved = seen_by_samples(torch.tensor(nodes), start, size, dtype, wanted)
    assert many[:, 0, 0].tolist() == times.tolist()
    assert moved[:, 0, 0].tolist() == shifts.tolist()
    assert not moved[:, 1:].any()


def test_times_outside_the_window_and_shifts_that_are_too_far() -> None:
    nodes = qf.gauss_lobatto(4).nodes
    times, shifts = seen_numbers(nodes, 1.0, 0.5, torch.float64, (1.0 + 1e-3, 2.0))
    assert times[0] == 1.0 + 1e-3 and shifts[0] == pytest.approx(2e-3)
    h = 4 * float(np.spacing(np.float32(1e4)))  # hardly any times to choose from
    assert not seen_numbers(nodes, 1e4 + 1e-5, h, torch.float32, None)[1].any()
