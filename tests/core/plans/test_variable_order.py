"""The variable-order Adams method: its weights, its choices, and what it costs."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from in_tensors import InTensors
from textbook_formulas import adams_bashforth, adams_moulton
from torch import Tensor

import quadflow as qf
from quadflow.analysis.exact.methods import exact_step
from quadflow.analysis.exact.trees import all_trees
from quadflow.analysis.problems.problem import get_problem
from quadflow.analysis.proofs.certificates import certify
from quadflow.control.control import StepController, Tolerance, rms_norm
from quadflow.equations.velocity import StateLayout, Velocity
from quadflow.loop import steps as stepping
from quadflow.loop.steps import AdaptiveSteps, Landing, Limits
from quadflow.plans.adams.method import VariableOrderMethod, adams_variable
from quadflow.plans.adams.variable_order import (
    MAX_ORDER,
    OrderControl,
    divided_differences,
    interval_weights,
    newton_integral,
)
from quadflow.plans.interpolants import Anchor
from quadflow.plans.state import State
from quadflow.rules.lagrange import lagrange_integrals

# -- weights ---------------------------------------------------------------------------------------


def grid(ratios: list[float], start: float = 0.3, size: float = 0.7) -> list[float]:
    """Times, newest first, whose steps going back are divided by the ratios."""
    times = [start]
    for ratio in ratios:
        size /= ratio
        times.append(times[-1] - size)
    return times


steps = st.lists(st.floats(0.8, 1.25), min_size=13, max_size=13)


@given(ratios=steps, order=st.integers(1, MAX_ORDER), direction=st.sampled_from([1.0, -1.0]))
def test_weights_are_those_of_the_polynomials(
    ratios: list[float], order: int, direction: float
) -> None:
    """Predictor, corrector and estimates against Lagrange's basis, on uneven grids."""
    times = [direction * t for t in grid(ratios)]
    t0, t1 = times[0], times[0] + direction * 0.7
    w = interval_weights(times, t0, t1, order)
    m = len(w.positions)
    assert m == min(len(times), order + 2)
    assert w.positions[0] == 0 and w.positions[1] < 0

    def corrector(k: int) -> np.ndarray:
        """Mean velocity by the polynomial of degree k - 1 through the end and k - 1 anchors."""
        row = np.zeros(m + 1)
        row[:k] = lagrange_integrals([1.0, *w.positions[: k - 1]], [1.0])[0]
        return row

    def same(got: np.ndarray, want: np.ndarray) -> None:
        assert np.abs(got - want).max() <= 1e-11 * max(1.0, np.abs(want).max())

    same(w.table[0, 1 : order + 1], lagrange_integrals(w.positions[:order], [1.0])[0])
    assert not w.table[0, 0] and not w.table[0, order + 1 :].any()
    same(w.table[1], corrector(order + 1))
    for row, q in zip(w.table[2:], w.orders, strict=True):
        if q <= order:
            same(row, corrector(q + 1) - corrector(q))
            assert not row[q + 1 :].any()
    higher = order + 1
    assert (higher in w.orders) == (higher <= MAX_ORDER)
    if higher in w.orders:  # from known velocities alone; exact where that is all there is
        row = w.table[2]
        assert w.orders[0] == higher
        assert row[0] == 0
        power = np.concatenate(([1.0], w.positions)) ** higher
        assert row @ power == pytest.approx((corrector(higher + 1) - corrector(higher)) @ power)


def test_estimates_annihilate_lower_degrees() -> None:
    """The estimate of order q is zero for velocities of degree below q, and not for degree q."""
    w = interval_weights(grid([1.1] * 13), 0.3, 1.0, 6)
    assert w.orders == (7, 4, 5, 6)
    nodes = np.concatenate(([1.0], w.positions))
    for row, q in zip(w.table[2:], w.orders, strict=True):
        for degree in range(q):
            terms = row * nodes**degree
            assert abs(terms.sum()) < 1e-14 * np.abs(terms).sum()
        assert abs(row @ nodes**q) > 1e-3


def test_few_anchors_and_the_highest_order() -> None:
    assert interval_weights([0.0], 0.0, 1.0, 1).orders == (1,)
    assert interval_weights([0.0, -1.0], 0.0, 1.0, 1).orders == (1,)
    assert interval_weights([0.0, -1.0, -2.0], 0.0, 1.0, 1).orders == (2, 1)
    assert interval_weights(grid([1.0] * 13), 0.3, 1.0, 5, max_order=5).orders == (3, 4, 5)
    with pytest.raises(ValueError, match="order 3 needs 3 anchors, got 2"):
        interval_weights([0.0, -1.0], 0.0, 1.0, 3)


def test_newton_form() -> None:
    nodes = np.array([1.0, 0.0, -0.5, -2.0])
    values = 3 * nodes**3 - nodes
    coefficients = divided_differences(nodes) @ values
    assert coefficients[3] == pytest.approx(3)
    basis = [newton_integral(nodes[:degree]) for degree in range(4)]
    assert coefficients @ basis == pytest.approx(3 / 4 - 1 / 2)


@pytest.mark.parametrize("order", [1, 3, 8, 12])
def test_model_of_the_next_error(order: int) -> None:
    """On a uniform grid an equal step has an equal error; longer ones follow the true spacing."""
    w = interval_weights([-0.5 * i for i in range(14)], 0.0, 0.5, order)
    assert w.model(order, 1.0) == pytest.approx(1)
    again = interval_weights([0.5 - 0.5 * i for i in range(14)], 0.5, 1.25, order)
    # the next interval is 1.5 times as long: t^order has the same divided difference everywhere
    values = np.array([1.25, *(0.5 - 0.5 * i for i in range(14))]) ** order
    before = np.array([0.5, *(-0.5 * i for i in range(14))]) ** order
    row, old = again.table[2 + again.orders.index(order)], w.table[2 + w.orders.index(order)]
    ratio = 1.5 * (row @ values[: len(row)]) / (old @ before[: len(old)])
    assert w.model(order, 1.5) == pytest.approx(abs(ratio), rel=1e-6)


# -- choices ---------------------------------------------------------------------------------------


def uniform(order: int, anchors: int = 13):  # type: ignore[no-untyped-def]
    return interval_weights([-float(i) for i in range(anchors)], 0.0, 1.0, order)


@pytest.mark.parametrize(
    ("order", "errors", "expected"),
    [
        (5, {3: 1e-2, 4: 1e-2, 5: 1e-2, 6: 1e-3}, 4),  # lower orders are no worse: fall
        (5, {3: 1.0, 4: 0.1, 5: 1e-2, 6: 1e-3}, 6),  # the errors go on falling: rise
        (5, {3: 1.0, 4: 0.1, 5: 1e-2, 6: 6e-3}, 5),  # a rise must pay
        (5, {3: 1.0, 4: 1e-3, 5: 1e-2, 6: 2e-3}, 4),  # k-1 beats both
        (1, {1: 1e-2, 2: 0.9e-2}, 1),
        (1, {1: 1e-2, 2: 1e-3}, 2),
        (2, {1: 1e-3, 2: 1e-2, 3: 1.0}, 1),
        (12, {10: 1.0, 11: 0.1, 12: 0.01}, 12),
    ],
)
def test_order_choice(order: int, errors: dict[int, float], expected: int) -> None:
    chosen, factor = OrderControl().accept(uniform(order), errors)
    assert chosen == expected
    assert 0.5 <= factor <= (8 if chosen <= 3 else 2)


def test_an_error_at_its_aim_keeps_the_step() -> None:
    control = OrderControl()
    errors = {4: 10.0, 5: 1.0, 6: control.aim, 7: 0.5}
    order, factor = control.accept(uniform(6), errors)
    assert order == 6 and factor == pytest.approx(1)
    for error in (0.0, 1e-30):
        assert control.accept(uniform(6), {**errors, 6: error})[1] == 2.0
    larger = [control.accept(uniform(6), {**errors, 6: e})[1] for e in (1.0, 0.3, 0.1, 0.01, 1e-3)]
    assert larger == sorted(larger) and 0.5 <= larger[0] < 0.8 and 1.2 < larger[-1] <= 2


def test_the_first_interval_leads_to_order_two() -> None:
    control = OrderControl()
    assert control.accept(uniform(1, 1), {1: 0.03}) == (2, 2.0)
    assert control.accept(uniform(1, 2), {1: 0.03}) == (2, 2.0)
    assert control.accept(uniform(2, 2), {1: 0.1, 2: 1e-6}) == (2, 8.0)
    assert OrderControl(max_order=1).accept(uniform(1, 1), {1: 0.03})[0] == 1


@pytest.mark.parametrize("error", [2.0, 1e3, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("order", [1, 2, 7])
def test_rejections_shrink_and_lose_trust(order: int, error: float) -> None:
    control = OrderControl()
    errors = {order - 1: error, order: error} if order > 1 else {1: error}
    k, factor = control.reject(uniform(order), errors, failures=1)
    least = 0.1 if order == 1 else 0.25  # at order 1 there is no spacing to keep
    assert k in (order, order - 1) and k >= 1 and least <= factor <= 0.9
    k, factor = control.reject(uniform(order), errors, failures=3)
    assert k == 1 and factor <= 0.25


@pytest.mark.parametrize(
    ("field", "value"),
    [("aim", 0.0), ("aim", 2.0), ("damping", 0.0), ("min_factor", 1.0), ("max_factor", 1.0),
     ("low_factor", 1.5),
     ("max_order", 0), ("max_order", 13), ("max_order", 2.0), ("max_order", True)],
)  # fmt: skip
def test_bad_controls_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        OrderControl(**{field: value})  # type: ignore[arg-type]


# -- the interval ----------------------------------------------------------------------------------


def f(t: Tensor, y: Tensor) -> Tensor:
    """Nonlinear, non-autonomous, stable; e^(sin t) solves it."""
    return torch.cos(t) * y - (y * y - torch.exp(2 * torch.sin(t)))


def exact(t: float) -> Tensor:
    return torch.tensor([math.exp(math.sin(t))], dtype=torch.float64)


def frozen(method: qf.Method, k: int, times: list[float]) -> list[State]:
    """States at times[k-1:], at order k all along, from exact anchors at the first k times."""
    known = [Anchor(t, exact(t), f(torch.tensor(t, dtype=torch.float64), exact(t)))
             for t in times[:k]]  # fmt: skip
    stepper = method.stepper(Velocity(f, StateLayout(exact(0.0)), (times[0], times[-1])))
    states = [State(times[k - 1], exact(times[k - 1]), known[-1], tuple(known[:-1]), order=k)]
    for t1 in times[k:]:
        states.append(dataclasses.replace(stepper.step(states[-1], t1).state, order=k))
    return states


@pytest.mark.parametrize("k", range(1, MAX_ORDER + 1))
def test_an_order_kept_is_pece(k: int) -> None:
    """On an uneven grid, step by step, the numbers of adams(k, "PECE") to rounding."""
    sizes = np.random.default_rng(k).uniform(0.8, 1.25, 20 + k) * 0.05
    times = np.cumsum(sizes).tolist()
    states = frozen(qf.get_method("adams"), k, times)
    pece = qf.adams(k, "PECE").stepper(Velocity(f, StateLayout(exact(0.0)), (0.0, times[-1])))
    for before, after in itertools.pairwise(states):
        result = pece.step(before, after.t)
        anchors = [a.t for a in after.history[::-1]]
        weights = interval_weights(anchors, before.t, after.t, k).table[0]
        rounding = 2.0**-53 * (after.t - before.t) * float(np.abs(weights).sum())
        bound = 4e-16 * float(after.y.abs().max()) + 20 * rounding
        assert float((result.state.y - after.y).abs().max()) <= bound
        assert bound < 2e-11


@pytest.mark.parametrize("k", range(1, MAX_ORDER + 1))
def test_measured_orders(k: int) -> None:
    """k + 1 at a kept order, both bounds: from 1e-2 down to rounding."""
    counts = [18, 24, 32, 42, 56, 75] if k < 10 else [28, 32, 36, 42, 48]
    errors = []
    for n in counts:
        states = frozen(qf.get_method("adams"), k, [2 / n * i for i in range(1 - k, n + 1)])
        errors.append(max(float((s.y - exact(s.t)).abs().max()) for s in states))
    logs = [(math.log(n), math.log(e)) for n, e in zip(counts, errors, strict=True) if e > 2e-13]
    assert len(logs) >= 3
    slope = -np.polyfit(*zip(*logs, strict=True), 1)[0]
    assert abs(slope - (k + 1)) < 0.5


def test_every_order_is_proved() -> None:
    """By trees (test_held_methods.py); by the exact formulas on a uniform grid up to k = 12."""
    wrong = certify(dataclasses.replace(qf.get_method("adams"), error_order=3), highest=4)
    assert wrong.disagreements == ("error_order declared 3, proved 2",)
    for k in range(1, MAX_ORDER + 1):
        w = interval_weights([-float(i) for i in range(14)], 0.0, 1.0, k)
        for row, formula, p in ((0, adams_bashforth(k), k), (1, adams_moulton(k), k + 1)):
            assert formula.order == p
            beta = np.array([float(b) for b in formula.beta[::-1]])
            got = w.table[row, : k + 1]
            assert np.abs(got - beta).max() <= 1e-13 * np.abs(beta).max()


def test_a_wrong_weight_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the corrector nor the estimate of the running code may differ from what is proved."""
    import quadflow.plans.adams.method as step

    true = step.interval_weights
    for row, words in ((1, "the step differs"), (-1, "the error estimate differs")):

        def wrong(*given, row=row):  # type: ignore[no-untyped-def]
            weights = true(*given)
            weights.table[row, 0] += 1e-6
            return weights

        monkeypatch.setattr(step, "interval_weights", wrong)
        found = certify("adams", highest=5).disagreements
        assert any(words in text for text in found), found


def test_the_exact_step_is_that_of_the_highest_order() -> None:
    method = adams_variable(OrderControl(max_order=3))
    table = all_trees(5)
    ours, theirs = exact_step(method, table), exact_step(qf.adams(3, "PECE"), table)
    assert ours.end == theirs.end and ours.estimates != theirs.estimates


# -- whole solves ----------------------------------------------------------------------------------


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


SWAG = {
    "lotka-volterra": (478, 876, 1420),
    "kepler": (897, 1535),
    "euler-body": (333, 621, 841),
    "van-der-pol": (879, 1314, 1968),
}
"""Evaluations of extensisq's SWAG for errors 1e-6, 1e-9, 1e-12 (the fewest of a half-decade sweep
with atol = rtol; largest entry of the error at the end)."""
TOLERANCES = {
    "lotka-volterra": (-7.75, -10, -13),
    "kepler": (-9, -11.5),
    "euler-body": (-7, -10, -12.7),
    "van-der-pol": (-7.5, -10, -12.6),
}
"""log10 of tolerances that reach those errors with some room, here too with atol = rtol."""


@pytest.mark.parametrize(
    ("name", "target"), [(n, i) for n, costs in SWAG.items() for i in range(len(costs))]
)
def test_cost_against_the_best_multistep_peer(name: str, target: int) -> None:
    problem, tolerance = get_problem(name), 10.0 ** TOLERANCES[name][target]
    solution = qf.solve(problem.f, problem.y0, problem.span, method="adams", rtol=tolerance,
                        atol=tolerance)  # fmt: skip
    error = float((solution.y[-1] - problem.end).abs().max())
    assert error <= (1e-6, 1e-9, 1e-12)[target]
    assert solution.stats.nfe <= 1.1 * SWAG[name][target]


def adaptive(func, y0: Tensor, span: tuple[float, float], tolerance: float):  # type: ignore[no-untyped-def]
    """The iterator over accepted steps, and its velocity."""
    method = qf.get_method("adams")
    velocity = Velocity(func, StateLayout(y0), span)
    steps = AdaptiveSteps(
        method.stepper(velocity), State(span[0], y0), [Landing(span[1])],
        Tolerance(tolerance, tolerance, rms_norm), StepController(max_factor=2.0), Limits(),
    )  # fmt: skip
    return steps, velocity


def oscillator(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[1], -y[0]))


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-9, 1e-12])
def test_order_and_steps_settle(tolerance: float) -> None:
    """No limit cycle on a solution that looks the same everywhere; the history stays bounded."""
    steps, _ = adaptive(oscillator, vector(1.0, 0.0), (0.0, 60.0), tolerance)
    results = list(steps)
    sizes = np.array([r.state.t - r.previous.t for r in results])[:-2]
    orders = [r.error_order - 1 for r in results][:-2]
    half = len(sizes) // 2
    ratios = np.log(sizes[half + 1 :] / sizes[half:-1])
    assert np.std(ratios) < 0.1 and np.abs(ratios).max() < 0.35
    assert max(orders[half:]) - min(orders[half:]) <= 3
    assert orders[0] == 1 and max(abs(a - b) for a, b in itertools.pairwise(orders)) == 1
    assert steps.rejected <= 0.05 * steps.accepted
    assert max(len(r.state.history) for r in results) <= MAX_ORDER + 1
    assert max(orders) >= 10 or tolerance > 1e-11


def test_the_start_is_its_own() -> None:
    """From order 1 and a tiny step: few evaluations until the order is there."""
    steps, velocity = adaptive(f, exact(0.0), (0.0, 3.0), 1e-9)
    orders, sizes = [], []
    for result in steps:
        orders.append(result.error_order - 1)
        sizes.append(result.state.t - result.previous.t)
        if orders[-1] == 6:
            break
    assert orders[:2] == [1, 2] and max(abs(b - a) for a, b in itertools.pairwise(orders)) == 1
    assert sizes[0] < 1e-3 and max(b / a for a, b in itertools.pairwise(sizes)) <= 8.001
    assert velocity.nfe <= 40


@pytest.mark.parametrize("name", ["lotka-volterra", "kepler"])
def test_evaluations_are_counted_out(name: str) -> None:
    """Two a step, one in a rejected and in the last, one each for the start and its step size."""
    problem = get_problem(name)
    calls = 0

    def counted(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return problem.f(t, y)

    stats = qf.solve(counted, problem.y0, problem.span, method="adams", rtol=1e-5, atol=1e-5).stats
    assert stats.rejected > 0
    assert calls == stats.nfe == stats.calls == 2 * stats.accepted + stats.rejected + 1


def test_one_wait_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    true = stepping.read_on_host

    def counted(x: Tensor):  # type: ignore[no-untyped-def]
        nonlocal reads
        reads += 1
        return true(x)

    monkeypatch.setattr(stepping, "read_on_host", counted)
    with InTensors():
        stats = qf.solve(oscillator, vector(1.0, 0.0), (0.0, 20.0), method="adams").stats
    assert reads == stats.accepted + stats.rejected + 1  # and one look at f at the start


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10, 1e-12])
def test_dense_output(tolerance: float) -> None:
    """Between the steps as accurate as at them, and continuous at the joins."""
    solution = qf.solve(f, exact(0.0), (0.0, 6.0), method="adams", rtol=tolerance, atol=tolerance,
                        dense_output=True)  # fmt: skip
    ends = solution.steps
    at_steps = max(float((solution(t) - exact(t)).abs().max()) for t in ends)
    inside = [a + c * (b - a) for a, b in itertools.pairwise(ends) for c in (0.21, 0.5, 0.83)]
    between = max(float((solution(t) - exact(t)).abs().max()) for t in inside)
    assert between < 3 * at_steps and at_steps < 20 * tolerance * (1 + math.e)
    assert solution._segments is not None
    for one, two in itertools.pairwise(solution._segments):
        # at the start steps grow, and with them the rounding of the polynomial's weights
        for reached in (one(one.t1), one.at([one.t1])[0]):
            assert float((reached - two.y0).abs().max()) < 1e-15
        assert torch.equal(two(two.t0), two.y0)


def test_requested_times_do_not_change_the_solve() -> None:
    few = qf.solve(f, exact(0.0), (0.0, 6.0), method="adams")
    many = qf.solve(f, exact(0.0), np.linspace(0.0, 6.0, 50), method="adams")
    assert few.steps == many.steps and few.stats.nfe == many.stats.nfe
    assert torch.equal(few.y[-1], many.y[-1])
    assert max(float((y - exact(float(t))).abs().max()) for t, y in zip(many.t, many.y)) < 5e-6  # noqa: B905


# -- kinds of states -------------------------------------------------------------------------------


def test_a_norm_may_decide_on_what_it_sees() -> None:
    """It is called once for every order's error, not within a transform."""
    problem = get_problem("lotka-volterra")
    seen: list[float] = []

    def norm(x: Tensor) -> Tensor:
        seen.append(float(x.abs().max()))
        return rms_norm(x) if seen[-1] >= 0 else x.abs().max()

    own, plain = (
        qf.solve(problem.f, problem.y0, problem.span, method="adams", norm=n)
        for n in (norm, rms_norm)
    )
    torch.testing.assert_close(own.y, plain.y, rtol=1e-10, atol=0)  # norms round differently
    assert len(seen) > own.stats.accepted


def test_tuples_and_dicts() -> None:
    joined = qf.solve(oscillator, vector(1.0, 0.0), (0.0, 5.0), method="adams")
    pair = qf.solve(lambda t, y: (y[1], -y[0]), (vector(1.0), vector(0.0)), (0.0, 5.0),
                    method="adams")  # fmt: skip
    named = qf.solve(lambda t, y: {"x": y["v"], "v": -y["x"]}, {"x": vector(1.0), "v": vector(0.0)},
                     (0.0, 5.0), method="adams")  # fmt: skip
    assert torch.equal(torch.cat(pair.y, -1), joined.y)
    assert torch.equal(torch.cat((named.y["x"], named.y["v"]), -1), joined.y)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.complex128, 1e-9),
     (torch.complex64, 1e-5)],
)  # fmt: skip
@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_dtypes_and_both_directions(dtype: torch.dtype, tolerance: float, direction: float) -> None:
    """y' = λ y; every intermediate keeps the dtype."""
    rate = 0.3 + (2j if dtype.is_complex else 0.5)
    y0 = torch.tensor([[1.0, -2.0], [0.5, 3.0]]).to(dtype)
    solution = qf.solve(lambda t, y: rate * y, y0, (0.0, 3.0 * direction), method="adams",
                        rtol=tolerance, atol=tolerance)  # fmt: skip
    assert solution.y.dtype is dtype and solution.y.shape == (2, 2, 2)
    wanted = y0 * torch.exp(torch.tensor(rate * 3.0 * direction, dtype=torch.complex128))
    error = (solution.y[-1] - (wanted if dtype.is_complex else wanted.real)).abs()
    assert float((error / (1 + wanted.abs())).max()) < 20 * tolerance
    assert solution.steps[-1] == 3.0 * direction


def test_backprop_keeps_the_graph() -> None:
    """dy(T)/dy0 and dy(T)/dλ of y' = -λ y², y = 1 / (1/y0 + λ t)."""
    y0 = vector(1.0, 2.0).requires_grad_()
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    end = qf.solve(lambda t, y: -rate * y * y, y0, (0.0, 2.0), method="adams", rtol=1e-10,
                   atol=1e-10).y[-1]  # fmt: skip
    for i in range(2):
        gradients = torch.autograd.grad(end[i], (y0, rate), retain_graph=True)
        start = float(y0[i].detach())
        true = 1 / (1 + 0.7 * start * 2.0) ** 2
        assert float(gradients[0][i]) == pytest.approx(true, rel=1e-7)
        assert float(gradients[0][1 - i]) == 0
        assert float(gradients[1]) == pytest.approx(-2.0 * start**2 * true, rel=1e-7)


def test_vmap_shares_the_steps_of_the_worst() -> None:
    def end(y0: Tensor) -> Tensor:
        return qf.solve(lambda t, y: -y * y, y0, (0.0, 2.0), method="adams").y[-1]

    starts = torch.linspace(0.1, 3.0, 5, dtype=torch.float64)[:, None]
    together = torch.func.vmap(end)(starts)
    assert torch.allclose(together, 1 / (1 / starts + 2.0), rtol=1e-6)


# -- limits, jumps, refusals -----------------------------------------------------------------------


def test_step_limits() -> None:
    solution = qf.solve(oscillator, vector(1.0, 0.0), (0.0, 3.0), method="adams", max_step=0.125,
                        initial_step=1e-5)  # fmt: skip
    sizes = np.diff(solution.steps)
    assert sizes[0] == pytest.approx(1e-5) and sizes.max() <= 0.125 + 1e-12
    with pytest.raises(qf.SolveError, match=r"below 0\.05"):
        qf.solve(oscillator, vector(1.0, 0.0), (0.0, 3.0), method="adams", min_step=0.05,
                 rtol=1e-12, atol=1e-12)  # fmt: skip


def test_breakpoints_drop_the_history() -> None:
    """f is never evaluated across a jump, and the order starts again at 1 behind it."""
    seen: list[tuple[float, float]] = []

    def kinked(t: Tensor, y: Tensor) -> Tensor:
        seen.append((float(t), float(y[0])))
        return torch.where(t < 1.0, torch.cos(3 * t) * y, -5 * y * y)

    free = qf.solve(kinked, vector(1.0), (0.0, 2.0), method="adams", rtol=1e-9, atol=1e-9)
    solution = qf.solve(kinked, vector(1.0), (0.0, 2.0), method="adams", rtol=1e-9, atol=1e-9,
                        breakpoints=[1.0])  # fmt: skip
    middle = math.exp(math.sin(3.0) / 3)
    assert float(solution.y[-1, 0]) == pytest.approx(1 / (1 / middle + 5.0), abs=2e-8)
    assert 1.0 in solution.steps
    assert solution.stats.nfe < free.stats.nfe and solution.stats.rejected <= 5


def test_a_pole_and_no_velocity() -> None:
    solution = qf.solve(lambda t, y: y * y, vector(1.0), (0.0, 2.0), method="adams", throw=False)
    assert solution.status in (qf.Status.STEP_COLLAPSE, qf.Status.NON_FINITE)
    assert abs(solution.steps[-1] - 1) < 1e-3
    still = qf.solve(lambda t, y: 0 * y, vector(1.0), (0.0, 100.0), method="adams")
    # a rest is looked at a hundred times, and no more
    assert float(still.y[-1]) == 1.0 and 100 <= still.stats.accepted < 115


def test_what_it_does_not_take() -> None:
    for fixed in ({"step_size": 0.1}, {"grid": [0.0, 0.5, 1.0]}):
        with pytest.raises(ValueError, match="'adams' chooses its steps together with its order"):
            qf.solve(f, exact(0.0), (0.0, 1.0), method="adams", **fixed)
    with pytest.raises(TypeError, match="adams_variable"):
        qf.solve(f, exact(0.0), (0.0, 1.0), method="adams", controller=StepController(safety=0.5))


def test_a_lower_highest_order() -> None:
    method = adams_variable(OrderControl(max_order=4))
    assert isinstance(method, VariableOrderMethod) and method.max_order == 4
    steps = qf.solve(f, exact(0.0), (0.0, 6.0), method=method, rtol=1e-9, atol=1e-9)
    full = qf.solve(f, exact(0.0), (0.0, 6.0), method="adams", rtol=1e-9, atol=1e-9)
    assert float((steps.y[-1] - exact(6.0)).abs()) < 1e-7
    assert full.stats.nfe < steps.stats.nfe / 1.5
