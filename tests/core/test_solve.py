"""`solve`: every method on every kind of state, its landing, its cost, its statuses."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quadflow as qf
from quadflow import Status
from quadflow.analysis.problems.problem import get_problem
from quadflow.plans.segment import polynomial_weights

# of variable order: tests/core/plans/test_variable_order.py
ALL = sorted(n for n in qf.methods() if n != "adams")
ADAPTIVE = [name for name in ALL if qf.methods()[name].error_order is not None]
DRIVEN, KEPLER = get_problem("driven"), get_problem("kepler")
LOBATTO4 = qf.collocation(qf.gauss_lobatto(4))
PLANS = {
    "anchors": qf.get_method("pec3"),
    "sweeps": LOBATTO4,
    "extrapolated": qf.get_method("gauss3"),
    "stages": qf.get_method("dopri5"),
    "rk4": qf.get_method("rk4"),
}
COLLOCATIONS = {
    "gauss1": qf.gauss_legendre(1),
    "gauss3": qf.gauss_legendre(3),
    "lobatto2": qf.gauss_lobatto(2),
    "lobatto4": qf.gauss_lobatto(4),
    "radau3": qf.radau_right(3),
    "radau_left3": qf.radau_left(3),
    "clenshaw5": qf.clenshaw_curtis(5),
    "fejer4": qf.fejer(4),
}


class Counted:
    """A function that counts how often it is called."""

    def __init__(self, f) -> None:
        self.f, self.calls = f, 0

    def __call__(self, t, y):
        self.calls += 1
        return self.f(t, y)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def coarse_tolerance(name: str) -> float:
    return 1e-7 if (qf.get_method(name).error_order or 9) >= 5 else 1e-4


def bound_of(method: qf.Method) -> float:
    """Error allowed on `driven` in 96 fixed steps of 1/32: errors grow there by e^3 = 20."""
    return 20 * (1 / 32) ** (method.order or 1)


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_fixed_steps_forward_and_back(name: str) -> None:
    method = qf.get_method(name)
    there = qf.solve(DRIVEN.f, DRIVEN.y0, DRIVEN.span, method=name, step_size=1 / 32)
    assert there.steps[-1] == 3.0 and there.t[-1] == 3.0
    assert len(there.steps) == 97 and there.stats.accepted == 96 and there.stats.rejected == 0
    assert (there.y[-1] - DRIVEN.end).abs().max() < max(bound_of(method), 1e-12)
    # driven is unstable: solved backwards it is easy, errors shrink
    back = qf.solve(DRIVEN.f, DRIVEN.end, (3.0, 0.0), method=name, step_size=-1 / 32)
    assert back.steps[0] == 3.0 and back.steps[-1] == 0.0 and back.t.tolist() == [3.0, 0.0]
    assert (back.y[-1] - DRIVEN.y0).abs().max() < max(bound_of(method), 1e-12)


@pytest.mark.parametrize("name", ALL)
def test_a_grid_is_what_step_size_makes(name: str) -> None:
    by_size = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 1.0), method=name, step_size=0.125)
    grid = np.linspace(0.0, 1.0, 9)
    by_grid = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 1.0), method=name, grid=grid)
    assert by_grid.steps == by_size.steps == grid.tolist()
    assert torch.equal(by_grid.y, by_size.y)


@pytest.mark.parametrize("name", ALL)
def test_the_last_fixed_step_is_shortened_to_land(name: str) -> None:
    solution = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 0.7), method=name, step_size=0.2)
    assert solution.steps == [0.0, 0.2, 0.4, pytest.approx(0.6, abs=1e-15), 0.7]
    assert solution.t.dtype == torch.float64


def test_a_requested_time_that_the_grid_means_to_hit_is_hit() -> None:
    times = [0.0, 0.3, 0.7, 1.1]  # 3 * 0.1 and 7 * 0.1 miss the first two by a rounding
    solution = qf.solve(DRIVEN.f, DRIVEN.y0, times, method="rk4", step_size=0.1)
    assert len(solution.steps) == 12
    assert set(times) <= set(solution.steps)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_error_is_close_to_the_tolerance(name: str, sign: float) -> None:
    tolerance = coarse_tolerance(name)
    span, y0, end = DRIVEN.span, DRIVEN.y0, DRIVEN.end
    if sign < 0:
        span, y0, end = span[::-1], end, y0
    errors = []
    # bosh3's many small steps add up: scipy's RK23, the same tableau, is 135 and 317 tolerances off
    limit = 150 if name == "bosh3" else 25
    for tol in (tolerance, tolerance / 30):
        solution = qf.solve(DRIVEN.f, y0, span, method=name, rtol=tol, atol=tol)
        assert solution.steps[-1] == span[1] and float(solution.t[-1]) == span[1]
        assert all(sign * (b - a) > 0 for a, b in zip(solution.steps, solution.steps[1:]))  # noqa: B905
        errors.append(float((solution.y[-1] - end).abs().max()))
        assert errors[-1] < limit * tol
    assert errors[1] < max(errors[0] / 2, 1e-12)


@pytest.fixture(scope="module")
def kepler_end() -> Tensor:
    return qf.solve(KEPLER.f, KEPLER.y0, (0.0, 2.0), method="dopri8", rtol=1e-13, atol=1e-13).y[-1]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_kepler(name: str, kepler_end: Tensor) -> None:
    tol = coarse_tolerance(name)
    solution = qf.solve(KEPLER.f, KEPLER.y0, (0.0, 2.0), method=name, rtol=tol, atol=tol)
    assert (solution.y[-1] - kepler_end).abs().max() < 25 * tol
    assert solution.success and "t=2" in solution.message


def test_the_kepler_reference_itself() -> None:
    solution = qf.solve(KEPLER.f, KEPLER.y0, KEPLER.span, method="dopri8", rtol=1e-12, atol=1e-12)
    assert (solution.y[-1] - KEPLER.end).abs().max() < 1e-8


@pytest.mark.parametrize("name", ALL)
def test_requested_times_between_the_steps(name: str) -> None:
    times = [0.0, 0.05, 0.31, 0.5, 0.77, 1.0]
    options = {"method": name, "step_size": 0.125}
    solution = qf.solve(DRIVEN.f, DRIVEN.y0, times, **options)
    dense = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 1.0), dense_output=True, **options)
    assert solution.t.tolist() == times
    assert torch.equal(solution.y, dense(times)) or (
        # at the end of a step the polynomial of dopri8 rounds a few times
        (solution.y - dense(times)).abs().max() < 2e-14
    )
    allowed = 10 * 0.125 ** (qf.get_method(name).dense_order or 1)
    for t, y in zip(times, solution.y, strict=True):
        assert (y - DRIVEN.solution(t)).abs().max() < max(allowed, 1e-12)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_requested_times_do_not_move_the_adaptive_steps(name: str) -> None:
    times = np.linspace(0.0, 1.0, 14)
    tol = coarse_tolerance(name)
    many = qf.solve(DRIVEN.f, DRIVEN.y0, times, method=name, rtol=tol, atol=tol)
    two = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 1.0), method=name, rtol=tol, atol=tol)
    assert many.steps == two.steps and torch.equal(many.y[-1], two.y[-1])
    for t, y in zip(times.tolist(), many.y, strict=True):
        assert (y - DRIVEN.solution(t)).abs().max() < 25 * tol


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_kinds_of_time(kind) -> None:
    solution = qf.solve(DRIVEN.f, DRIVEN.y0, kind([0.0, 0.5, 3.0]))
    assert solution.t.dtype == torch.float64 and solution.t.tolist() == [0.0, 0.5, 3.0]


def test_half_precision_times_are_read_exactly() -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16)
    assert qf.solve(DRIVEN.f, DRIVEN.y0, t).t.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("name", ["dopri5", "pec3", "lobatto4"])
def test_max_step_and_initial_step(name: str) -> None:
    solution = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 3.0), method=name, initial_step=0.01,
                        max_step=0.0625)  # fmt: skip
    sizes = np.diff(solution.steps)
    assert sizes[0] == pytest.approx(0.01, rel=1e-12)
    assert sizes.max() <= 0.0625 * (1 + 0.011)  # the last step may stretch by 1 %


def test_a_controller_object_does_not_carry_memory_from_solve_to_solve() -> None:
    controller = qf.StepController(safety=0.8, max_factor=3.0)
    steps = [
        qf.solve(KEPLER.f, KEPLER.y0, (0.0, 2.0), controller=controller).steps for _ in range(2)
    ]
    assert steps[0] == steps[1]
    assert controller == qf.StepController(safety=0.8, max_factor=3.0)


# -- states ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3, 4)])
@pytest.mark.parametrize("name", ALL)
def test_states_of_any_shape(name: str, shape: tuple[int, ...]) -> None:
    start = 1.0 + torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape) / 50

    def f(t, y):  # y' = -y² cos t: y = 1 / (1/y0 + sin t)
        return -y * y * torch.cos(t)

    solution = qf.solve(f, start, (0.0, 1.0), method=name, step_size=1 / 32)
    exact = 1 / (1 / start + math.sin(1.0))
    assert solution.y.shape == (2, *shape)
    order = qf.get_method(name).order or 1
    assert (solution.y[-1] - exact).abs().max() < max(200 * (1 / 32) ** order, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", ALL)
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    """y' = (i cos t - |y|²/2 ) y has |y|² = 1/(1/|y0|² + t) and the phase of y0 plus sin t."""
    turn = 1j if dtype.is_complex else 0.0

    def f(t, y):
        assert t.dtype == torch.empty((), dtype=dtype).real.dtype
        return y * turn * torch.cos(t) - 0.5 * y * (y * y.conj())

    start = torch.tensor([1.0, 0.5 + 0.5 * (1j if dtype.is_complex else 1)], dtype=dtype)
    solution = qf.solve(f, start, (0.0, 1.0), method=name, step_size=1 / 32)
    assert solution.y.dtype == dtype and solution.y.device == start.device
    assert solution.t.dtype == torch.float64
    exact = start / start.abs()
    exact = exact * (1 / (1 / start.abs() ** 2 + 1)) ** 0.5
    if dtype.is_complex:
        exact = exact * torch.tensor(math.sin(1.0) * 1j, dtype=dtype).exp()
    eps = torch.finfo(dtype).eps
    order = qf.get_method(name).order or 1
    assert (solution.y[-1] - exact).abs().max() < max(50 * (1 / 32) ** order, 100 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", ["dopri8", "pec3", "lobatto4", "radau3"])
def test_adaptive_dtypes(name: str, dtype: torch.dtype) -> None:
    turn = 1j if dtype.is_complex else 1.0
    start = torch.tensor([1.0, 0.3], dtype=dtype)
    solution = qf.solve(lambda t, y: turn * y * torch.cos(t), start, (0.0, 2.0), method=name,
                        rtol=1e-4, atol=1e-5)  # fmt: skip
    assert solution.y.dtype == dtype
    exact = start * torch.exp(torch.tensor(turn * math.sin(2.0), dtype=dtype))
    assert (solution.y[-1] - exact).abs().max() < 1e-3


def test_time_stays_in_float64_for_a_float32_state() -> None:
    """Steps of 1e-7 at t = 10 vanish in float32; the solve must still move."""
    y0 = torch.zeros(1, dtype=torch.float32)
    solution = qf.solve(lambda t, y: torch.ones_like(y), y0, (10.0, 10.0 + 1e-6), method="rk4",
                        step_size=1e-7)  # fmt: skip
    assert len(solution.steps) == 11
    assert float(solution.y[-1]) == pytest.approx(1e-6, rel=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_tuple_is_solved_as_its_parts_joined(name: str, adaptive: bool) -> None:
    parts = (vector(1.0, 2.0).reshape(2, 1), torch.tensor(0.5, dtype=torch.float64),
             torch.linspace(0.1, 0.6, 6, dtype=torch.float64).reshape(1, 2, 3))  # fmt: skip
    joined = torch.cat([p.reshape(-1) for p in parts])

    def f_parts(t, y):
        a, b, c = y
        return -a * b * torch.cos(t), -b * b, c * torch.sin(t) - c * c * b

    def f_joined(t, y):
        a, b, c = y[:2], y[2:3], y[3:]
        return torch.cat((-a * b * torch.cos(t), -b * b, c * torch.sin(t) - c * c * b))

    how = {"rtol": 1e-5, "atol": 1e-6} if adaptive else {"step_size": 0.1}
    times = (0.0, 0.33, 1.0)
    options = {"method": name, "node_evaluation": "loop", "dense_output": True, **how}
    split = qf.solve(f_parts, parts, times, **options)
    whole = qf.solve(f_joined, joined, times, **options)
    assert isinstance(split.y, tuple)
    assert [y.shape for y in split.y] == [(3, 2, 1), (3,), (3, 1, 2, 3)]
    back = torch.cat([y.reshape(3, -1) for y in split.y], dim=1)
    assert (back - whole.y).abs().max() < 1e-14
    assert [y.shape for y in split(0.5)] == [p.shape for p in parts]
    assert [y.shape for y in split([0.5, 0.6])] == [(2, *p.shape) for p in parts]


def test_the_first_state_is_the_callers() -> None:
    y0 = vector(1.0, 2.0)
    solution = qf.solve(lambda t, y: -y, y0, (0.0, 1.0))
    assert torch.equal(solution.y[0], y0) and torch.equal(y0, vector(1.0, 2.0))


# -- dense output ----------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(0.0, 2.0), (2.0, 0.0)])
@pytest.mark.parametrize("name", ALL)
def test_dense_output_passes_through_the_steps(name: str, span: tuple[float, float]) -> None:
    method = qf.get_method(name)
    states: list[Tensor] = []
    how = {"step_size": 0.25} if method.error_order is None else {"rtol": 1e-4, "atol": 1e-4}
    solution = qf.solve(
        DRIVEN.f, DRIVEN.solution(span[0]), span, method=name, dense_output=True,
        callback=lambda t, y: states.append(y), **how,
    )  # fmt: skip
    steps = solution.steps
    assert len(states) == len(steps) - 1
    got = solution(steps)
    assert (got - torch.stack([DRIVEN.solution(span[0]), *states])).abs().max() < 1e-13
    assert torch.equal(solution(steps[1]), solution([steps[1]])[0])
    assert solution(np.array(0.5)).shape == (2,) and solution(torch.tensor([0.5])).shape == (1, 2)
    # one-sided values at the joins
    gap = 1e-9
    for t in steps[1:-1]:
        assert (solution(t - gap) - solution(t + gap)).abs().max() < 20 * gap
    low, high = sorted(span)
    for outside in (low - 1e-9, high + 1e-9, [0.5, high + 1], float("nan")):
        with pytest.raises(ValueError, match="outside the solved span"):
            solution(outside)


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "tsit5", "dopri8"])
def test_weights_of_dense_output_are_those_of_their_polynomials(name: str) -> None:
    """To rounding of the weights: powers of θ would leave 1e-13 of the coefficients of dopri8."""
    coefficients = qf.get_method(name).tableau.dense
    weights = polynomial_weights(coefficients)
    for theta in np.linspace(0, 1, 41).tolist():
        powers = [Fraction(theta) ** m for m in range(1, coefficients.shape[1] + 1)]
        exact = [
            float(sum(Fraction(a) * p for a, p in zip(row, powers, strict=True)))
            for row in coefficients.tolist()
        ]
        assert np.abs(np.array(weights(theta)) - exact).max() < 2e-15
        several = weights(torch.tensor([theta, 1.0], dtype=torch.float64))
        assert np.abs(np.array([w[0] for w in several]) - exact).max() < 2e-15


def test_dense_output_of_what_was_reached() -> None:
    solution = qf.solve(DRIVEN.f, DRIVEN.y0, DRIVEN.span, max_steps=4, dense_output=True,
                        throw=False)  # fmt: skip
    reached = solution.steps[-1]
    assert 0 < reached < 3
    assert (solution(reached / 3) - DRIVEN.solution(reached / 3)).abs().max() < 1e-5
    with pytest.raises(ValueError, match="outside the solved span"):
        solution(2.9)


# -- cost ------------------------------------------------------------------------------------------

N = 7


def cost(name: str) -> int:
    exact = {"euler": N, "midpoint": 2 * N, "heun": 2 * N, "rk4": 4 * N, "dopri5": 6 * N + 1,
             "heun3": 3 * N, "rk4_38": 4 * N, "bosh3": 3 * N + 1,
             "tsit5": 6 * N + 1, "dopri8": 12 * N + 1, "pec1": N + 1, "pece1": 2 * N}  # fmt: skip
    if name in exact:
        return exact[name]
    k = int(name[-1])
    start = 6 * (k - 1)  # dopri5 steps, first same as last: the first start is one more
    if name.startswith("ab"):
        return 1 + start + N - (k - 1) - 1
    if name.startswith("pece"):
        return 1 + start + 2 * (N - (k - 1)) - 1
    return 1 + start + N - (k - 1)


@pytest.mark.parametrize(
    "name", [n for n in ALL if not isinstance(qf.methods()[n], qf.SweepsMethod)]
)
def test_cost_of_fixed_steps(name: str) -> None:
    f = Counted(DRIVEN.f)
    solution = qf.solve(f, DRIVEN.y0, (0.0, 1.0), method=name, step_size=1 / N)
    assert solution.stats.accepted == N
    assert f.calls == solution.stats.calls == solution.stats.nfe == cost(name)
    assert solution.stats.probe_nfe == 0 and solution.stats.node_evaluation == "auto"


@pytest.mark.parametrize("sweeps", [0, 1, 3])
@pytest.mark.parametrize("mode", ["broadcast", "vmap", "loop"])
@pytest.mark.parametrize("rule", COLLOCATIONS)
def test_cost_of_sweeps(rule: str, mode: str, sweeps: int) -> None:
    method = qf.collocation(COLLOCATIONS[rule], sweeps)
    f = Counted(DRIVEN.f)
    solution = qf.solve(f, DRIVEN.y0, (0.0, 1.0), method=method, step_size=1 / N,
                        node_evaluation=mode)  # fmt: skip
    nodes = method.rule.n - method.rule.has_left
    assert solution.stats.nfe == N * (1 + sweeps * nodes)
    together = nodes if mode == "loop" else 1
    assert solution.stats.calls == f.calls == N * (1 + sweeps * together)
    assert solution.stats.node_evaluation == mode


@pytest.mark.parametrize("n", [2, 3, 4])
def test_cost_of_an_extrapolated_guess(n: int) -> None:
    """First interval: order - 1 sweeps from a constant; then K, with no start where it is free."""
    for rule in (qf.gauss_legendre(n), qf.gauss_lobatto(n)):
        method = qf.collocation(rule, 1, guess="extrapolated")
        solution = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 1.0), method=method, step_size=1 / N,
                            node_evaluation="broadcast")  # fmt: skip
        nodes, start = n - rule.has_left, int(rule.has_left)
        first = 1 + max(1, method.order - 1) * nodes
        assert solution.stats.nfe == first + (N - 1) * (start + nodes)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pec_with_forward_last_costs_one_evaluation_an_interval(k: int) -> None:
    rule = qf.gauss_lobatto(4)
    method = qf.adams(k, "PEC", rule=rule, startup="rising", forward_last=True)
    f = Counted(DRIVEN.f)
    solution = qf.solve(f, DRIVEN.y0, (0.0, 1.0), method=method, step_size=1 / N)
    assert f.calls == solution.stats.nfe == N
    # all but the last interval are those of the plain method
    plain = qf.adams(k, "PEC", rule=rule, startup="rising")
    times = np.linspace(0.0, 1.0, N + 1)
    a, b = (qf.solve(DRIVEN.f, DRIVEN.y0, times, method=m, grid=times).y for m in (method, plain))
    assert torch.equal(a[:-1], b[:-1]) and not torch.equal(a[-1], b[-1])


@pytest.mark.parametrize("mode", ["auto", "broadcast", "loop"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_statistics(name: str, mode: str) -> None:
    f = Counted(KEPLER.f)
    seen: list[float] = []
    tol = coarse_tolerance(name)
    solution = qf.solve(f, KEPLER.y0, (0.0, 1.0), method=name, node_evaluation=mode, rtol=tol,
                        atol=tol, callback=lambda t, y: seen.append(t))  # fmt: skip
    stats = solution.stats
    assert stats.calls == f.calls <= stats.nfe
    assert stats.accepted == len(solution.steps) - 1 and seen == solution.steps[1:]
    assert stats.method == name and stats.wall_time > 0
    if mode == "auto" and isinstance(qf.get_method(name), qf.SweepsMethod):
        named = qf.solve(KEPLER.f, KEPLER.y0, (0.0, 1.0), method=name, rtol=tol, atol=tol,
                         node_evaluation=stats.node_evaluation)  # fmt: skip
        assert stats.probe_nfe > 0
        assert stats.nfe - stats.probe_nfe == named.stats.nfe
        assert named.stats.probe_nfe == 0
        assert torch.equal(named.y, solution.y)
    else:
        assert stats.probe_nfe == 0


@pytest.mark.parametrize(
    ("name", "step"),
    [("dopri5", 6), ("tsit5", 6), ("dopri8", 12), ("heun", 1), ("pec1", 1), ("pece1", 1)],
)
def test_a_rejected_step_does_not_evaluate_the_start_again(name: str, step: int) -> None:
    f = Counted(DRIVEN.f)
    solution = qf.solve(f, DRIVEN.y0, (0.0, 3.0), method=name, initial_step=3.0, rtol=1e-3,
                        atol=1e-3)  # fmt: skip
    accepted, rejected = solution.stats.accepted, solution.stats.rejected
    assert rejected >= 1
    if name in ("heun", "pece1"):  # the start of every accepted step is one more
        expected = accepted * 2 + rejected
    else:
        expected = 1 + step * (accepted + rejected)
    assert f.calls == solution.stats.nfe == expected


# -- structure -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dopri5", "pec2", "lobatto4-constant", "gauss2", "rk4", "ab3"])
def test_gradients_flow_through_fixed_steps(name: str) -> None:
    method = LOBATTO4 if name.startswith("lobatto4") else qf.get_method(name)
    torch.manual_seed(0)
    y0 = torch.randn(2, dtype=torch.float64, requires_grad=True)
    w = (0.5 * torch.randn(2, 2, dtype=torch.float64)).requires_grad_()

    def end(y0: Tensor, w: Tensor) -> Tensor:
        return qf.solve(
            lambda t, y: torch.tanh(y @ w) * torch.cos(t), y0, (0.0, 0.4, 1.0), method=method,
            step_size=0.25,
        ).y  # fmt: skip

    assert torch.autograd.gradcheck(end, (y0, w))


@pytest.mark.parametrize("name", ["dopri5", "pec3", "lobatto4", "dopri8"])
def test_gradients_flow_through_adaptive_steps(name: str) -> None:
    """y' = -y² cos t from a: dy(1)/da = 1 / (1 + a sin 1)²."""
    a = torch.tensor([0.7, 1.3], dtype=torch.float64, requires_grad=True)
    y = qf.solve(lambda t, y: -y * y * torch.cos(t), a, (0.0, 1.0), method=name, rtol=1e-8).y[-1]
    (gradient,) = torch.autograd.grad(y.sum(), a)
    exact = 1 / (1 + a.detach() * math.sin(1.0)) ** 2
    assert (gradient - exact).abs().max() < 1e-6


@pytest.mark.parametrize("rule", ["gauss3", "lobatto4", "lobatto2", "fejer4", "clenshaw5"])
def test_reversing_time_undoes_a_symmetric_method(rule: str) -> None:
    method = qf.collocation(COLLOCATIONS[rule], 40)
    ends = []
    for m in (method, qf.get_method("rk4")):
        there = qf.solve(KEPLER.f, KEPLER.y0, (0.0, 0.5), method=m, step_size=0.05)
        back = qf.solve(KEPLER.f, there.y[-1], (0.5, 0.0), method=m, step_size=0.05)
        ends.append(float((back.y[-1] - KEPLER.y0).abs().max()))
    assert ends[0] < 1e-13 and ends[1] > 1e-9


@pytest.mark.parametrize("plan", PLANS)
def test_affine_equivariance(plan: str) -> None:
    torch.manual_seed(1)
    m = torch.randn(2, 2, dtype=torch.float64) + 2 * torch.eye(2, dtype=torch.float64)
    c, inverse = torch.randn(2, dtype=torch.float64), torch.linalg.inv(m)

    def g(t, z):
        return DRIVEN.f(t, (z - c) @ inverse.T) @ m.T

    options = {"method": PLANS[plan], "step_size": 0.1, "node_evaluation": "broadcast"}
    times = (0.0, 0.55, 2.0)
    y = qf.solve(DRIVEN.f, DRIVEN.y0, times, **options).y
    z = qf.solve(g, DRIVEN.y0 @ m.T + c, times, **options).y
    assert (z - (y @ m.T + c)).abs().max() < 1e-12


@pytest.mark.parametrize("plan", PLANS)
def test_time_translation(plan: str) -> None:
    shift = 8.0  # exact in binary: the grids differ by roundings only
    options = {"method": PLANS[plan], "step_size": 0.125, "node_evaluation": "broadcast"}
    a = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 0.3, 2.0), **options).y
    b = qf.solve(lambda t, y: DRIVEN.f(t - shift, y), DRIVEN.y0, (8.0, 8.3, 10.0), **options).y
    assert (a - b).abs().max() < 1e-13


@pytest.mark.parametrize("plan", PLANS)
def test_time_reflection(plan: str) -> None:
    """Solving backwards is solving the mirrored field forwards, to the last bit but rounding."""
    options = {"method": PLANS[plan], "step_size": 0.125, "node_evaluation": "broadcast"}
    a = qf.solve(DRIVEN.f, DRIVEN.end, (3.0, 2.2, 1.0), **options).y
    b = qf.solve(lambda s, y: -DRIVEN.f(-s, y), DRIVEN.end, (-3.0, -2.2, -1.0), **options).y
    assert (a - b).abs().max() < 1e-14


def power_error(method: qf.Method, degree: int, steps: int = 1, first: int = 0) -> float:
    """Error of y' = (degree+1) t^degree over [0, 1], relative to what the last steps add."""
    grid = np.linspace(0.0, 1.0, steps + 1)
    y = qf.solve(lambda t, y: (degree + 1) * t**degree + 0 * y, vector(0.0), grid, method=method,
                 grid=grid, node_evaluation="broadcast").y[:, 0]  # fmt: skip
    start = float(grid[first])
    return abs(float(y[-1] - y[first]) - (1 - start ** (degree + 1)))


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("rule", COLLOCATIONS)
def test_collocation_integrates_its_degree_exactly(rule: str, sweeps: int) -> None:
    method = qf.collocation(COLLOCATIONS[rule], sweeps)
    degree = method.rule.degree
    assert max(power_error(method, d) for d in range(degree + 1)) < 2e-15
    assert power_error(method, degree + 1) > 1e-6


@pytest.mark.parametrize("correction", [None, "PEC", "PECE"])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_adams_integrates_its_degree_exactly(k: int, correction: str | None) -> None:
    """Polynomials of degree < k (<= k corrected) in t, once the start-up is over."""
    method = qf.adams(k, correction)
    highest = k - 1 if correction is None else k
    first = k - 1
    errors = [power_error(method, d, 10, first) for d in range(highest + 1)]
    assert max(errors) < 1e-14
    assert power_error(method, highest + 1, 10, first) > 1e-7


# -- statuses --------------------------------------------------------------------------------------


def finite(solution: qf.Solution) -> bool:
    return bool(torch.isfinite(solution.y).all()) and len(solution.t) == len(solution.y)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_blow_up(name: str) -> None:
    """y' = y² from 1 has its pole at t = 1."""
    solution = qf.solve(lambda t, y: y * y, vector(1.0), (0.0, 0.5, 2.0), method=name, throw=False,
                        rtol=1e-4, atol=1e-4, max_steps=20_000)  # fmt: skip
    assert solution.status in (Status.STEP_COLLAPSE, Status.NON_FINITE)
    assert not solution.success and finite(solution)
    assert solution.t.tolist() == [0.0, 0.5]
    assert abs(solution.steps[-1] - 1) < 0.02
    assert f"t={solution.steps[-1]:.9g}" in solution.message
    assert float(solution.y[1]) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_nan_from_half_way_on(name: str) -> None:
    def f(t, y):
        return torch.where(t > 0.5, math.nan, 1.0) * torch.cos(y)

    with pytest.raises(qf.SolveError, match=r"not finite.* t=0\.[45]") as caught:
        qf.solve(f, vector(0.0, 1.0), (0.0, 0.25, 0.75, 1.0), method=name, rtol=1e-4, atol=1e-4)
    solution = caught.value.solution
    assert caught.value.status is solution.status is Status.NON_FINITE
    assert solution.t.tolist() == [0.0, 0.25] and finite(solution)
    # a rule without a node at the end looks no further than its last node
    before, end = solution.steps[-2:]
    method = qf.get_method(name)
    looked = method.rule.nodes[-1] if isinstance(method, qf.SweepsMethod) else 1.0
    assert before + looked * (end - before) <= 0.5 and 0.499 < end < 0.52
    assert solution.stats.accepted == len(solution.steps) - 1 and solution.stats.rejected > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_not_finite_at_the_start(name: str, bad: float) -> None:
    solution = qf.solve(lambda t, y: y * bad, vector(1.0), (0.5, 1.0), method=name, throw=False)
    assert solution.status is Status.NON_FINITE and "start, t=0.5" in solution.message
    assert solution.t.tolist() == [0.5] and finite(solution) and solution.steps == [0.5]


@pytest.mark.parametrize("name", ALL)
def test_not_finite_in_fixed_steps(name: str) -> None:
    def f(t, y):
        return torch.where(t > 0.5, math.nan, 1.0) * torch.cos(y)

    times = (0.0, 0.25, 0.75, 1.0)
    options = {"method": name, "step_size": 0.125}
    solution = qf.solve(f, vector(0.0, 1.0), times, throw=False, **options)
    assert solution.status is Status.NON_FINITE and finite(solution)
    assert solution.t.tolist() == [0.0, 0.25]
    assert "not finite at t=0.75" in solution.message and "was at t=0.25" in solution.message
    with pytest.raises(qf.SolveError, match="smaller steps") as caught:
        qf.solve(f, vector(0.0, 1.0), times, **options)
    assert caught.value.status is Status.NON_FINITE


def test_nan_that_only_dense_output_meets_is_no_success() -> None:
    """The midpoint rule never evaluates at the end, its dense output does."""

    def f(t, y):
        return torch.where(t >= 1.0, math.nan, 1.0) * torch.cos(y)

    solution = qf.solve(f, vector(0.0), (0.0, 0.95, 1.0), method="midpoint", step_size=0.1,
                        throw=False)  # fmt: skip
    assert solution.status is Status.NON_FINITE and finite(solution)
    assert solution.t.tolist() == [0.0]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_step_cap(name: str) -> None:
    with pytest.raises(qf.SolveError, match="max_steps=3 steps were used up at t=") as caught:
        qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 3.0), method=name, max_steps=3, initial_step=1e-3)
    solution = caught.value.solution
    assert caught.value.status is Status.MAX_STEPS and finite(solution)
    assert solution.stats.accepted + solution.stats.rejected == 3
    assert f"t={solution.steps[-1]:.9g}" in solution.message


@pytest.mark.parametrize("name", [n for n in ADAPTIVE if not n.startswith(("gauss", "radau"))])
def test_a_jump_with_a_least_step_collapses(name: str) -> None:
    """Not Gauss and right Radau: no estimate sees a jump between a step's start and first node."""

    def f(t, y):
        return torch.where(t > 0.3, 1e6, 1.0) * torch.ones_like(y)

    with pytest.raises(qf.SolveError, match=r"step size fell to .* below 0\.001, at t=0\.") as it:
        qf.solve(f, vector(0.0), (0.0, 1.0), method=name, min_step=1e-3, rtol=1e-8, atol=1e-8)
    assert it.value.status is Status.STEP_COLLAPSE and finite(it.value.solution)
    assert it.value.solution.steps[-1] == pytest.approx(0.3, abs=5e-3)


def test_tolerances_below_rounding_are_raised() -> None:
    y0 = torch.ones(3, dtype=torch.float32)
    with pytest.warns(qf.ToleranceWarning, match=r"rtol=1e-12 .* rtol=1\.19e-05 is used"):
        solution = qf.solve(
            lambda t, y: torch.sin(50 * y) + torch.cos(t), y0, (0.0, 1.0), rtol=1e-12, atol=1e-12,
            throw=False, max_steps=2000,
        )  # fmt: skip
    assert solution.status is Status.SUCCESS
    assert finite(solution)


# -- properties ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> qf.Solution:
    return qf.solve(KEPLER.f, KEPLER.y0, (0.0, 4.0), method="dopri8", rtol=1e-12, atol=1e-13,
                    dense_output=True)  # fmt: skip


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    points=st.lists(st.integers(0, 400), min_size=2, max_size=9, unique=True),
    backwards=st.booleans(),
    name=st.sampled_from(["dopri5", "dopri8", "tsit5", "pec4", "pece3", "lobatto5", "gauss4"]),
)
def test_requested_times_agree_with_a_tight_reference(
    reference: qf.Solution, points: list[int], backwards: bool, name: str
) -> None:
    times = sorted((p / 100 for p in points), reverse=backwards)
    solution = qf.solve(KEPLER.f, reference(times[0]), times, method=name, rtol=1e-6, atol=1e-6)
    assert solution.t.tolist() == times
    assert torch.equal(solution.y[0], reference(times[0]))
    assert (solution.y - reference(times)).abs().max() < 1e-4  # 100 tolerances: near-collisions


@pytest.mark.parametrize(
    ("low", "high"),
    [(torch.float32, torch.float64), (torch.float16, torch.float32),
     (torch.bfloat16, torch.float32), (torch.complex64, torch.complex128)],
)  # fmt: skip
def test_sweeps_converge_to_the_rounding_of_func(low: torch.dtype, high: torch.dtype) -> None:
    """States kept with more digits than func has: sweeps end where func tells no difference."""
    method = qf.collocation(qf.gauss_legendre(4), "converged")
    y0 = torch.tensor([1.0, -0.7], dtype=low)
    solution = qf.solve(
        lambda t, y: torch.sin(y) * y - 0.3 * y, y0, (0.0, 2.0), method=method, step_size=0.1,
        accumulation_dtype=high,
    )  # fmt: skip
    exact = qf.solve(lambda t, y: torch.sin(y) * y - 0.3 * y, y0.to(high).real.double(), (0.0, 2.0))
    error = (solution.y[-1].real.double() - exact.y[-1]).abs().max()
    assert error < 16 * torch.finfo(low).eps
    assert solution.stats.calls < 12 * solution.stats.accepted


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", [*ADAPTIVE, "adams"])
def test_nothing_is_accepted_of_what_is_not_finite(name: str, bad: float) -> None:
    """However loose or tight the tolerances, whose scale an infinite state would make infinite."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 0.7, bad, -y)

    for rtol, atol in ((1e-18, 1e-3), (1e-3, 1e-6)):
        solution = qf.solve(f, vector(1.0, 2.0), np.linspace(0, 1, 21), method=name, rtol=rtol,
                            atol=atol, throw=False)  # fmt: skip
        assert solution.status is Status.NON_FINITE, solution.message
        assert solution.y.isfinite().all()
        assert solution.t[-1] < 0.76  # the last nodes of a step may lie before its end


# -- control of steps ------------------------------------------------------------------------------


def test_steps_leap_only_where_nothing_was_rejected_of_late() -> None:
    """Far from the limit a small error gives the step it allows, whatever the one before was; for
    ten tries after a rejection the memory of that one holds it back."""
    control = qf.StepController()
    leap = 0.9 * 1e-3 ** (-1 / 5)
    assert [control.accept(1e-3, 5) for _ in range(3)] == pytest.approx([leap] * 3)
    assert control.reject(10.0, 5) == pytest.approx(0.9 * 10.0 ** (-1 / 5))
    assert control.accept(1e-3, 5) == 1.0  # right after a rejection
    held = [control.accept(1e-3, 5) for _ in range(9)]
    assert held == pytest.approx([0.9 * 1e-3 ** (-0.3 / 5)] * 9)
    assert control.accept(1e-3, 5) == pytest.approx(leap)


@pytest.mark.parametrize("name", ["dopri5", "tsit5"])
@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-7])
def test_steps_settle_where_stability_holds_them(name: str, tol: float) -> None:
    """No limit cycle of growing, being rejected and growing again."""
    sol = qf.solve(
        lambda t, y: -100 * (y - torch.cos(t)), vector(1.0), (0.0, 20.0), method=name, rtol=tol,
        atol=tol, on_stiff="ignore",
    )  # fmt: skip
    assert sol.stats.accepted > 500 and sol.stats.rejected <= 0.01 * sol.stats.accepted
    sizes = np.diff(sol.steps)
    late = np.log(sizes[len(sizes) // 2 : -1])
    assert late.std() < 0.15 and np.abs(np.diff(late)).max() < 0.4
