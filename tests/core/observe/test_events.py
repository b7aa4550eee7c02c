"""Events against closed forms, SciPy, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from host_waits import CountWaits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

import quadflow as qf
from quadflow.observe.events.bracketing import bracketed_zeros

F64 = torch.float64
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
# stages, sweeps, anchors, variable order; at these fixed sizes as accurate as the adaptive ones
ADAPTIVE = ["dopri5", "tsit5", "dopri8", "gauss4", "lobatto6", "radau5", "pece4", "adams", "gauss"]
FIXED = {"rk4": 0.01, "dopri8": 0.2, "gauss4": 0.1, "ab4": 6e-3, "pec4": 0.01}


def circle(t: Tensor, y: Tensor) -> Tensor:
    """y = (sin t, cos t) from (0, 1)."""
    return torch.stack((y[..., 1], -y[..., 0]), -1)


def height(t: Tensor, y: Tensor) -> Tensor:
    return y[0]


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=F64)


NORTH = tensor(0.0, 1.0)


def circling(events, t=(0.0, 10.0), y0: Tensor = NORTH, **arguments) -> qf.Solution:
    return qf.solve(circle, y0, t, events=events, **{"method": "dopri8", **TIGHT, **arguments})


def close(found: Tensor, expected, tolerance: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=F64)
    assert found.shape == expected.shape, (found, expected)
    assert ((found - expected).abs() < tolerance).all(), found - expected


# -- where they are -------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "backward"])
@pytest.mark.parametrize("how", [*ADAPTIVE, *FIXED.items()], ids=str)
def test_times_and_states_of_every_plan(how, sign: float) -> None:
    """Zeros of two functions, one of them at no zero of the state; with and without dense output
    wanted besides, which must not change them."""
    name, size = how if isinstance(how, tuple) else (how, None)
    start = tensor(math.sin(0.3 * sign), math.cos(0.3 * sign))
    found = [
        circling(
            [height, lambda t, y: y[1] - torch.sin(t)], (0.3 * sign, 10.0 * sign), start,
            method=name, step_size=size, dense_output=dense,
        )
        for dense in (False, True)
    ]  # fmt: skip
    for solution in found:
        assert solution.status is qf.Status.SUCCESS
        near = 1e-8 if name in ("pece4", "adams", "gauss", "ab4", "pec4") else 2e-9
        close(solution.t_events[0], [sign * k * math.pi for k in (1, 2, 3)], near)
        first = 1 if sign > 0 else 3
        quarters = [sign * math.pi * (first / 4 + k) for k in range(10)]
        close(solution.t_events[1], [q for q in quarters if abs(q) < 10], near)
        close(solution.y_events[0], [[0.0, -1.0], [0.0, 1.0], [0.0, -1.0]], 5 * near)
        assert solution.y_events[0][:, 0].abs().max() < 1e-14  # a zero of the dense output
    assert torch.equal(found[0].t_events[0], found[1].t_events[0])
    close(found[1](found[1].t_events[1].tolist()), found[1].y_events[1], 1e-15)


@pytest.mark.parametrize("direction", [-1, 0, 1])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_direction_is_that_of_the_solve(direction: int, sign: float) -> None:
    event = qf.Event(lambda t, y: y[0], direction=direction)
    falling = [1, 3] if sign > 0 else [2]
    expected = {-1: falling, 1: sorted({1, 2, 3} - set(falling)), 0: [1, 2, 3]}[direction]
    solution = circling(
        event, (0.5 * sign, 10.0 * sign), tensor(math.sin(0.5 * sign), math.cos(0.5))
    )
    close(solution.t_events[0], [sign * math.pi * k for k in expected])


@pytest.mark.parametrize(
    ("rtol", "method", "pick"),
    [(1e-6, "dopri5", 0), (1e-9, "tsit5", 1), (1e-8, "gauss4", 1), (1e-7, "adams", 0)],
)
def test_agrees_with_scipy(rtol: float, method: str, pick: int) -> None:
    """On a van der Pol oscillator: the same events, as near as the solves are."""

    def f(t, y, stack):
        return stack((y[1], (1 - y[0] ** 2) * y[1] - y[0]))

    def events(m):
        return [lambda t, y: y[0] - 0.3 * m.sin(t), lambda t, y: y[1] ** 2 - 0.9]

    end = (math.inf, 20.0)[pick]
    ours = events(torch)
    ours[0].terminal, ours[1].direction = (9, 1) if pick == 0 else (False, 1)
    found = qf.solve(lambda t, y: f(t, y, torch.stack), tensor(2.0, 0.0), (0.0, end), method=method,
                     events=ours, rtol=rtol, atol=rtol)  # fmt: skip
    theirs = events(np)
    theirs[0].terminal, theirs[1].direction = ours[0].terminal, 1
    expected = solve_ivp(lambda t, y: f(t, y, np.array), (0.0, min(end, 100.0)), [2.0, 0.0],
                         method="DOP853", events=theirs, rtol=1e-12, atol=1e-12)  # fmt: skip
    assert (found.status is qf.Status.EVENT) == (expected.status == 1) == (pick == 0)
    for i in range(2):
        close(found.t_events[i], expected.t_events[i], 300 * rtol)
        close(found.y_events[i], expected.y_events[i], 1000 * rtol)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-20.0, 20.0), st.floats(0.01, 30.0), st.booleans(), st.sampled_from([-1, 0, 1]),
    st.sampled_from(["dopri5", "gauss6"]),
)  # fmt: skip
def test_zeros_of_sine_are_all_found(
    t0: float, length: float, backward: bool, direction: int, method: str
) -> None:
    t1 = t0 - length if backward else t0 + length
    low, high = sorted((t0 / math.pi, t1 / math.pi))
    zeros = [k for k in range(math.ceil(low), math.floor(high) + 1)]
    if any(abs(k - end) < 1e-9 for k in zeros for end in (low, high)):
        return  # the rounding of an end decides
    rises = {k: (k % 2 == 0) != backward for k in zeros}
    wanted = [k for k in zeros if direction == 0 or rises[k] == (direction > 0)]
    event = qf.Event(height, direction=direction, subintervals=3)
    solution = circling(event, (t0, t1), tensor(math.sin(t0), math.cos(t0)), method=method,
                        rtol=1e-9, atol=1e-9)  # fmt: skip
    close(solution.t_events[0], [math.pi * k for k in sorted(wanted, reverse=backward)], 1e-6)


@pytest.mark.parametrize(("parts", "count"), [(1, 0), (2, 2), (7, 2)])
def test_two_zeros_in_one_step(parts: int, count: int) -> None:
    event = qf.Event(lambda t, y: (t - 1.3) * (t - 1.6), subintervals=parts)
    solution = circling(event, (1.0, 2.0), method="gauss6", step_size=1.0)
    close(solution.t_events[0], [1.3, 1.6][:count] if count else torch.empty(0), 1e-14)


def test_zeros_that_steps_end_on() -> None:
    """Each is one event, however it is left; at zero to stay is one event; a touch is one."""

    def stays(t: Tensor, y: Tensor) -> Tensor:
        return torch.relu(2.0 - t)

    events = [
        lambda t, y: t - 1.0, lambda t, y: (t - 1.0) ** 2, stays, lambda t, y: -stays(t, y),
        qf.Event(lambda t, y: (t - 1.0) ** 2, direction=1),
        qf.Event(lambda t, y: (t - 1.0) ** 2, direction=-1, subintervals=2),
        lambda t, y: (t - 1.0) * (t - 1.25) * (t - 1.5),
    ]  # fmt: skip
    solution = circling(events, (0.0, 3.0), step_size=0.25)
    found = [times.tolist() for times in solution.t_events]
    assert found == [[1.0], [1.0], [2.0], [2.0], [], [1.0], [1.0, 1.25, 1.5]]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_zero_at_the_start(sign: float) -> None:
    """It is recorded where the direction agrees, and ends nothing."""
    events = [qf.Event(height, terminal, direction) for terminal, direction in
              [(False, 0), (False, 1), (False, -1), (3, 0)]]  # fmt: skip
    solution = circling(events, (0.0, sign * math.inf))
    assert solution.status is qf.Status.EVENT
    pi = sign * math.pi
    rises = [0.0, 2 * pi] if sign > 0 else [pi, 3 * pi]
    falls = [pi, 3 * pi] if sign > 0 else [0.0, 2 * pi]
    for found, expected in zip(
        solution.t_events, [[0, pi, 2 * pi, 3 * pi], rises, falls, [0, pi, 2 * pi, 3 * pi]],
        strict=True,
    ):  # fmt: skip
        close(found, expected)
    assert torch.equal(solution.y_events[0][0], NORTH)


# -- how a solve ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, 1, 3])
@pytest.mark.parametrize("size", [None, 0.1])
def test_a_terminal_event_ends_the_solve(terminal, size: float | None) -> None:
    times = [0.1, 1.0, 3.0, 4.0, 9.0, 11.0, 20.0]
    told: list[float] = []
    start = tensor(math.sin(0.1), math.cos(0.1))
    solution = circling(
        [lambda t, y: y[1], qf.Event(height, terminal)], times, start, step_size=size,
        dense_output=True, callback=lambda t, y: told.append(t),
    )  # fmt: skip
    end = math.pi * int(terminal)
    assert solution.success and solution.status is qf.Status.EVENT
    assert f"t={end:.6g}"[:6] in solution.message
    reached = [when for when in times if when < end]
    close(solution.t, [*reached, end])
    close(solution.y[:, 0], [math.sin(when) for when in reached] + [0.0])
    assert (
        float(solution.t_events[1][-1]) == float(solution.t[-1]) == solution.steps[-1] == told[-1]
    )
    assert torch.equal(solution.y[-1], solution.y_events[1][-1])
    assert len(solution.t_events[1]) == terminal
    # nothing of what lies behind the end
    close(solution.t_events[0], [math.pi * (k + 0.5) for k in range(int(terminal))])
    assert (solution(float(solution.t[-1])) - solution.y[-1]).abs().max() < 1e-14
    with pytest.raises(ValueError, match="outside the solved span"):
        solution(end + 1e-3)


def test_a_terminal_event_on_a_requested_time() -> None:
    solution = circling(qf.Event(lambda t, y: t - 1.0, True), (0.0, 0.5, 1.0, 2.0), step_size=0.25)
    assert solution.t.tolist() == [0.0, 0.5, 1.0] and solution.y.shape == (3, 2)
    assert solution.status is qf.Status.EVENT


def test_simultaneous_events() -> None:
    """All events at the time of the end are recorded, and the earlier of two ends counts."""
    events = [
        qf.Event(lambda t, y: 3.0 - t, True), qf.Event(height, True), lambda t, y: 3 * y[0],
        lambda t, y: -y[0] * y[0] * y[0], lambda t, y: t - 3.5,
    ]  # fmt: skip
    solution = circling(events, (0.5, 10.0), tensor(math.sin(0.5), math.cos(0.5)))
    assert [len(times) for times in solution.t_events] == [1, 0, 0, 0, 0]
    solution = circling(events[1:], (0.5, 10.0), tensor(math.sin(0.5), math.cos(0.5)))
    assert [len(times) for times in solution.t_events] == [1, 1, 1, 0]
    assert len({float(times[0]) for times in solution.t_events[:3]}) == 1


@pytest.mark.parametrize("method", ["dopri5", "gauss4", "adams"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_without_an_end_and_without_an_event(method: str, sign: float) -> None:
    for how in ({}, {"step_size": 0.5}):
        if method == "adams" and how:
            continue
        with pytest.raises(qf.SolveError, match="max_steps=50") as caught:
            circling(qf.Event(lambda t, y: y[0] - 9, True), (0.0, sign * math.inf), method=method,
                     max_steps=50, **how)  # fmt: skip
        assert caught.value.status is qf.Status.MAX_STEPS
        assert caught.value.solution.t.tolist() == [0.0]


def test_nothing_moves_and_there_is_no_end() -> None:
    """Steps grow without bound; infinity is not reached by one."""
    with pytest.raises(qf.SolveError) as caught:
        qf.solve(lambda t, y: 0 * y, NORTH, (0.0, math.inf), events=height)
    assert caught.value.status in (qf.Status.MAX_STEPS, qf.Status.NON_FINITE)


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "gauss4"])
def test_dense_output_just_before_a_jump(method: str) -> None:
    """The extra stages of a step that ends on a breakpoint are evaluated on its own side."""
    before = [0.66, 0.695, 0.6999]
    solution = qf.solve(
        lambda t, y: torch.where(t < 0.7, torch.cos(3 * t), 4.0 + t) + 0 * y, tensor(0.0),
        [0.0, *before, 1.0], breakpoints=[0.7], method=method, rtol=1e-6, atol=1e-6,
        events=qf.Event(lambda t, y: y[0] - math.sin(2.05) / 3, subintervals=4),
    )  # fmt: skip
    close(solution.y[1:4, 0], [math.sin(3 * when) / 3 for when in before], 1e-6)
    close(solution.t_events[0][:2], [(math.pi - 2.05) / 3, 2.05 / 3], 2e-6)


# -- states ---------------------------------------------------------------------------------------


def test_tuple_dict_and_complex_states() -> None:
    def pair(t, y):
        return y[1].sum(0, keepdim=True), -y[0].expand(2) / 2

    solution = qf.solve(pair, (tensor(0.0), tensor(0.5, 0.5)), (0.1, 7.0), method="dopri8", **TIGHT,
                        events=lambda t, y: y[0][0] - y[1].sum())  # fmt: skip
    close(solution.t_events[0], [0.1 + math.pi * (k + 0.25) for k in (0, 1)])
    first, second = solution.y_events[0]
    assert first.shape == (2, 1) and second.shape == (2, 2)
    close(first[:, 0], [0.5**0.5, -(0.5**0.5)])

    solution = qf.solve(
        lambda t, y: {"b": -y["a"], "a": y["b"]},
        {"b": NORTH[1], "a": NORTH[0]},
        (0.1, 7.0),
        method="dopri8",
        events=[lambda t, y: y["b"]],
        **TIGHT,
    )
    close(solution.t_events[0], [0.1 + math.pi * (k + 0.5) for k in (0, 1)])
    close(solution.y_events[0]["a"], [1.0, -1.0])

    solution = qf.solve(lambda t, y: 1j * y, torch.ones(2, 1, dtype=torch.complex128), (0.0, 5.0),
                        method="gauss6", **TIGHT, events=lambda t, y: y.sum().real)  # fmt: skip
    close(solution.t_events[0], [math.pi / 2, 1.5 * math.pi])
    assert solution.y_events[0].shape == (2, 2, 1) and solution.y_events[0].is_complex()


def test_float32() -> None:
    solution = qf.solve(circle, -NORTH.float(), (0.1, 7.0), method="dopri8", rtol=1e-6, atol=1e-6,
                        events=[height, lambda t, y: t - 2.5])  # fmt: skip
    assert solution.t_events[0].dtype == F64 and solution.y_events[0].dtype == torch.float32
    close(solution.t_events[0], [0.1, 0.1 + math.pi, 0.1 + 2 * math.pi], 1e-5)
    assert solution.y_events[0][:, 0].abs().max() < 1e-6
    close(solution.t_events[1], [2.5], 5e-7)


def test_no_events_yet() -> None:
    solution = circling([], (0.0, 1.0))
    assert (solution.t_events, solution.y_events) == ([], [])
    solution = circling([lambda t, y: y[0] - 2, lambda t, y: y[1] + 2], (0.1, 1.0))
    assert [len(t) for t in solution.t_events] == [0, 0]
    assert solution.y_events[0].shape == (0, 2)


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "error", "match"),
    [
        (lambda t, y: y, ValueError, r"events\[0\] returned shape \(2,\); it must be \(\)"),
        ([height, lambda t, y: 1.0], TypeError, r"events\[1\] must return a torch.Tensor, got fl"),
        (lambda t, y: (y[0] > 0).long(), TypeError, "real floating tensor, got dtype torch.int64"),
        (lambda t, y: y[0] * 1j, TypeError, "real floating tensor, got dtype torch.complex128"),
        (
            lambda t, y: torch.where(t > 0.5, torch.nan, y[0]),
            ValueError,
            r"events\[0\] is NaN at t",
        ),
        (3.0, TypeError, r"events\[0\] must be an Event or a function g\(t, y\), got float"),
        ([height, None], TypeError, r"events\[1\] must be an Event"),
        ({"a": height}, TypeError, r"events\[0\] must be an Event .* got dict"),
    ],
)
def test_bad_functions(events, error, match: str) -> None:
    with pytest.raises(error, match=match):
        circling(events, (0.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"function": 1}, TypeError, r"must be callable as g\(t, y\), got 1"),
        ({"terminal": 0}, ValueError, "terminal must be True, False or an integer >= 1, got 0"),
        ({"terminal": 1.5}, ValueError, "terminal must be .* got 1.5"),
        ({"direction": 2}, ValueError, "direction must be -1, 0 or 1, got 2"),
        ({"subintervals": 0}, ValueError, "subintervals must be an integer >= 1, got 0"),
        ({"subintervals": True}, ValueError, "subintervals must be an integer >= 1, got True"),
    ],
)
def test_bad_events(arguments: dict, error, match: str) -> None:
    with pytest.raises(error, match=match):
        qf.Event(**{"function": height, **arguments})


def test_bad_attributes_and_times() -> None:
    def event(t, y):
        return y[0]

    event.terminal = "yes"
    with pytest.raises(ValueError, match=r"events\[0\]: terminal must be .* got 'yes'"):
        circling(event)
    with pytest.raises(ValueError, match=r"t\[1\]=inf is not finite"):
        qf.solve(circle, NORTH, (0.0, math.inf))
    with pytest.raises(ValueError, match=r"t\[0\]=-inf is not finite"):
        circling(height, (-math.inf, 0.0))
    with pytest.raises(RuntimeError, match=r"under torch\.func\.vmap there are no events"):
        torch.func.vmap(lambda y: circling(height, (0.1, 1.0), y, step_size=0.1).y)(NORTH[None])


def test_nan_of_a_failing_solve_is_not_the_events_fault() -> None:
    solution = qf.solve(lambda t, y: 1 / (1 - t).clamp(min=0) * y, NORTH, (0.0, 2.0), events=height,
                        step_size=0.25, throw=False)  # fmt: skip
    assert solution.status is qf.Status.NON_FINITE


# -- gradients ------------------------------------------------------------------------------------


def swinging(
    y0: Tensor, t0: Tensor, pull: Tensor, level: Tensor, how: dict, last: float = math.inf
) -> list[Tensor]:
    """Times and states of a driven pendulum at an angle, and its end."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        angle, speed = y.unbind(-1)
        return torch.stack((speed, -pull * torch.sin(angle) + 0.3 * torch.cos(t) * speed), -1)

    def crossing(t: Tensor, y: Tensor) -> Tensor:
        return y[0] - level * torch.cos(0.3 * t)

    if t0.requires_grad or torch.is_grad_enabled():
        times = torch.cat((t0.reshape(1), tensor(t0.item() + 0.5, last)))
    else:
        times = [t0.item(), t0.item() + 0.5, last]
    events = [qf.Event(lambda t, y: y[1] + 0.1), qf.Event(crossing, 2)]
    solution = qf.solve(f, y0, times, events=events, **how)
    return [solution.t_events[1], solution.y_events[1], solution.y_events[0], solution.y[-1]]


PLANS = [
    {"method": "dopri5", "rtol": 1e-10, "atol": 1e-10},
    {"method": "dopri8", "rtol": 1e-12, "atol": 1e-12},
    {"method": "gauss6", "rtol": 1e-12, "atol": 1e-12},
    {"method": "rk4", "step_size": 0.02},
    {"method": "adams", "rtol": 1e-10, "atol": 1e-10},
]


@pytest.mark.parametrize(
    ("how", "last"), [*((how, math.inf) for how in PLANS), (PLANS[1], 9.0), (PLANS[3], 9.0)],
    ids=lambda x: x["method"] if isinstance(x, dict) else str(x),
)  # fmt: skip
def test_gradients_against_finite_differences(how: dict, last: float) -> None:
    """In y0, t0, a parameter of func and one of the event: every component of times and states."""
    at = [tensor(0.4, 1.1), tensor(0.2)[0], tensor(1.3)[0], tensor(0.25)[0]]
    inputs = [x.clone().requires_grad_() for x in at]
    outputs = torch.cat([part.reshape(-1) for part in swinging(*inputs, how, last)])
    assert len(outputs) == 2 + 4 + 4 + 2
    weights = torch.linspace(1.0, 2.0, len(outputs), dtype=F64)
    found = torch.autograd.grad((weights * outputs).sum(), inputs)
    h = 1e-4
    for i, x in enumerate(at):
        for j in range(x.numel()):
            ends = []
            for s in (h, -h):
                moved = [y.clone() for y in at]
                moved[i].view(-1)[j] += s
                with torch.no_grad():
                    ends.append(torch.cat([p.reshape(-1) for p in swinging(*moved, how, last)]))
            expected = (weights * (ends[0] - ends[1])).sum() / (2 * h)
            assert abs(found[i].view(-1)[j] - expected) < 3e-6, (i, j)


@pytest.mark.parametrize("method", ["rk4", "gauss3", "dopri8"])
def test_gradcheck(method: str) -> None:
    """Fixed steps, so that the derivative is that of what was computed, however coarse."""

    def run(y0: Tensor, pull: Tensor, level: Tensor):
        return tuple(swinging(y0, tensor(0.2)[0], pull, level, {"method": method, "step_size": 0.4},
                              4.5))  # fmt: skip

    inputs = [tensor(0.4, 1.1), tensor(1.3)[0], tensor(0.25)[0]]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)


def test_torch_func_transforms() -> None:
    def when(y0: Tensor) -> Tensor:
        return circling(qf.Event(lambda t, y: y[0] - 0.5 * y0[1], True), (0.0, math.inf), y0).y[-1]

    y0 = tensor(0.1, 0.9).requires_grad_()
    expected = torch.stack([torch.autograd.grad(when(y0)[i], y0)[0] for i in range(2)])
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        close(jacobian(when)(y0.detach()), expected, 1e-12)


def test_a_second_derivative_is_an_error() -> None:
    y0 = tensor(0.1, 0.9).requires_grad_()
    solution = circling(qf.Event(lambda t, y: y[0] - 0.5, True), (0.0, math.inf), y0)
    for what in (solution.t_events[0], solution.y[-1]):
        (gradient,) = torch.autograd.grad(what.sum(), y0, create_graph=True)
        with pytest.raises(RuntimeError, match="first derivatives alone"):
            torch.autograd.grad(gradient.sum(), y0)


def test_a_grazing_event_has_a_time_but_no_derivative() -> None:
    y0 = NORTH.clone().requires_grad_()
    solution = circling(lambda t, y: (t - 1.0) ** 2 + 0 * y[0], (0.0, 2.0), y0, step_size=0.25)
    assert solution.t_events[0].tolist() == [1.0]
    (gradient,) = torch.autograd.grad(solution.t_events[0].sum(), y0)
    assert gradient.isnan().any()


# -- what they cost -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"step_size": 0.1}, {"batch_dims": 1, "y0": NORTH[None]}])
@pytest.mark.parametrize("parts", [1, 3])
def test_one_wait_a_step(how: dict, parts: int) -> None:
    """However many events there are, and no evaluation of func more where a step has no zero."""
    how = {**how, "method": "dopri5", "rtol": 1e-6, "atol": 1e-6}
    waits, calls, steps = [], [], []
    far = [qf.Event(lambda t, y: y[..., 0] - 9, subintervals=parts)] * 3
    for events in (None, far[:1], far):
        for end in (4.0, 8.0):
            with CountWaits() as counter:
                solution = circling(events, (0.0, end), **how)
            waits.append(counter.waits)
            calls.append(solution.stats.calls)
            steps.append(solution.stats.accepted)
    more = steps[1] - steps[0]
    assert more > 5 and steps[:2] == steps[2:4] == steps[4:]
    without, one, three = (waits[i + 1] - waits[i] for i in (0, 2, 4))
    assert one == three == without + more
    assert calls[:2] == calls[2:4] == calls[4:]


def test_a_zero_costs_few_looks() -> None:
    """Ten looks a step; a smooth zero is bracketed in some ten more, far fewer than bisection's
    fifty; and it is looked two ways beside the start and the end."""
    looks = 0

    def g(t: Tensor, y: Tensor) -> Tensor:
        nonlocal looks
        looks += 1
        return y[0] - 0.3

    solution = circling(g, (0.0, 1.0))
    assert len(solution.t_events[0]) == 1
    assert looks <= 10 * solution.stats.accepted + 1 + 12 + 4


def test_bracketed_zeros_of_hard_functions() -> None:
    """Each to within its tolerance, also where interpolation misleads; one that is not searched
    stays NaN."""
    functions = [
        lambda x: x**3 - 1e-9, lambda x: np.sign(x - 0.3), lambda x: np.tanh(1e3 * (x - 0.7)),
        lambda x: x - 0.5, lambda x: np.expm1(40 * (x - 0.99)), lambda x: (x - 0.2) ** 9,
    ]  # fmt: skip
    count = 0

    def values(x: np.ndarray, searched: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return np.array([[f(one) for one in row] for f, row in zip(functions, x, strict=True)])

    low, high = np.zeros((6, 1)), np.ones((6, 1))
    searched = np.array([[True]] * 6)
    zeros = bracketed_zeros(values, low, high, values(low, searched), values(high, searched),
                            np.full((1, 1), 1e-13), searched)  # fmt: skip
    expected = [1e-3, 0.3, 0.7, 0.5, 0.99, 0.2]
    assert np.abs(zeros[:, 0] - expected).max() <= 4e-13
    assert count < 75
    none = bracketed_zeros(values, low, high, values(low, searched), values(high, searched),
                           np.full((1, 1), 1e-13), ~searched)  # fmt: skip
    assert np.isnan(none).all()


# -- batches --------------------------------------------------------------------------------------

RATES = tensor(1.0, 1.7, 0.2, 1.0)


def turning(rates: Tensor):
    def f(t: Tensor, y: Tensor) -> Tensor:
        return rates[:, None] * circle(t, y)

    return f


def batch(events, t=(0.5, 6.0), y0: Tensor | None = None, rates: Tensor = RATES, **arguments):
    start = torch.stack((torch.sin(0.5 * rates), torch.cos(0.5 * rates)), -1) if y0 is None else y0
    return qf.solve(turning(rates), start, t, events=events, batch_dims=1,
                    **{"method": "dopri8", **TIGHT, **arguments})  # fmt: skip


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "tsit5"])
@pytest.mark.parametrize("parts", [1, 3])
def test_every_sample_has_its_own_events(method: str, parts: int) -> None:
    """Two of four end at a terminal event; all that is recorded is what each has alone."""

    def events(i: slice):
        return [
            qf.Event(lambda t, y: y[:, 0], 2, subintervals=parts),
            qf.Event(lambda t, y: y[:, 1] - 0.1 * t.reshape(-1), direction=-1, subintervals=parts),
            lambda t, y: y[:, 0] - torch.sin(RATES[i] * 0.7),
        ]

    times = [0.5, 3.0, 3.8, 6.5]
    solution = batch(events(slice(0, 4)), times, method=method, dense_output=True)
    assert solution.success and solution.status is qf.Status.SUCCESS
    assert [status is qf.Status.EVENT for status in solution.statuses] == [True, True, False, True]
    assert "terminal event ended the solve at t=3.69599" in solution.messages[1]
    assert solution.message == "every sample reached its end or was ended by a terminal event"
    for i in range(4):
        one = slice(i, i + 1)
        alone = batch(events(one), times, rates=RATES[one], method=method)
        for k in range(3):
            close(solution.t_events[k][i], alone.t_events[k][0], 1e-9)
            close(solution.y_events[k][i], alone.y_events[k][0], 1e-9)
        reached = torch.isfinite(solution.y[:, i, 0])
        end = 2 * math.pi / float(RATES[i])
        assert reached.tolist() == [when < end for when in times]
        exact = torch.sin(RATES[i] * torch.tensor(times, dtype=F64))
        close(solution.y[:, i, 0][reached], exact[reached], 1e-8)
    close(solution.t_events[0][1], [math.pi / 1.7, 2 * math.pi / 1.7])
    assert solution.t_events[0][2].shape == (0,) and solution.y_events[0][2].shape == (0, 2)
    with pytest.raises(ValueError, match="outside the solved span of sample 1"):
        solution(3.8)
    assert solution(3.6).shape == (4, 2)


def test_events_of_joined_samples_see_times_as_func_does() -> None:
    """With the axes of the largest tensor of the state."""
    shapes: set[tuple[str, tuple[int, ...]]] = set()

    def f(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        shapes.add(("func", tuple(t.shape)))
        return -y[0], torch.ones_like(y[1])

    def event(t: Tensor, y: tuple[Tensor, Tensor]) -> Tensor:
        shapes.add(("event", tuple(t.shape)))
        return (t - 0.7).reshape(-1)

    y0 = torch.ones(3, 2, 2, dtype=F64), torch.zeros(3, dtype=F64)
    solution = qf.solve(f, y0, (0.0, 1.0), events=event, batch_dims=1)
    assert shapes == {("func", (3, 1, 1)), ("event", (3, 1, 1))}
    for times in solution.t_events[0]:
        close(times, [0.7])


def test_a_batch_without_an_end() -> None:
    """Every sample goes on to its own event; one that meets none fails alone."""
    level = tensor(0.5, 0.9, 0.1, 2.0)
    event = qf.Event(lambda t, y: y[:, 0] - level, True)
    y0 = NORTH.expand(4, 2)
    solution = batch(event, (0.0, math.inf), y0, rates=tensor(1.0, -1.0, 0.2, 1.0), throw=False,
                     max_steps=300)  # fmt: skip
    assert [s.name for s in solution.statuses] == ["EVENT", "EVENT", "EVENT", "MAX_STEPS"]
    found = [float(times[0]) for times in solution.t_events[0][:3]]
    close(tensor(*found), [math.asin(0.5), math.pi + math.asin(0.9), math.asin(0.1) / 0.2], 1e-8)
    every = batch(qf.Event(lambda t, y: y[:, 0] - level / 4, True), (0.0, math.inf), y0)
    assert every.status is qf.Status.EVENT and every.y.shape == (2, 4, 2)
    still = batch(qf.Event(lambda t, y: y[:, 0] - 2, True), (0.0, math.inf), y0, throw=False,
                  rates=tensor(0.0, 0.0, 0.0, 0.0))  # fmt: skip
    assert still.status is qf.Status.NON_FINITE and "grow without bound" in still.message


def test_gradients_of_a_batch_stay_in_their_sample() -> None:
    y0 = torch.stack((tensor(0.1, 0.4, -0.2), tensor(1.0, 0.8, 0.9)), -1).requires_grad_()
    rates = tensor(1.0, 1.3, 0.4).requires_grad_()
    event = qf.Event(lambda t, y: y[:, 0] - 0.6 * torch.cos(0.1 * t.reshape(-1)), True)

    def run(y0: Tensor, rates: Tensor, i: slice):
        return batch(event, (0.0, math.inf), y0[i], rates=rates[i])

    together = run(y0, rates, slice(0, 3))
    for i in range(3):
        alone = run(y0, rates, slice(i, i + 1))
        for ours, theirs in (
            (together.t_events[0][i], alone.t_events[0][0]),
            (together.y_events[0][i][0, 1], alone.y_events[0][0][0, 1]),
        ):
            mine = torch.autograd.grad(ours.sum(), (y0, rates), retain_graph=True)
            other = torch.autograd.grad(theirs.sum(), (y0, rates), retain_graph=True)
            for a, b in zip(mine, other, strict=True):
                close(a, b, 1e-9)
            assert other[1][i] != 0
    # the closed form of the time at which a turning point is at a height that stays
    level = qf.Event(lambda t, y: y[:, 0] - 0.6, True)
    times = torch.cat(batch(level, (0.0, math.inf), y0, rates=rates).t_events[0])
    size, angle = y0.norm(dim=-1), torch.atan2(y0[:, 0], y0[:, 1])
    exact = (torch.asin(0.6 / size) - angle) / rates
    close(times.detach(), exact.detach())
    for a, b in zip(*(torch.autograd.grad(x.sum(), (y0, rates)) for x in (times, exact)),
                    strict=True):  # fmt: skip
        close(a, b, 1e-8)


def test_bad_events_of_a_batch() -> None:
    with pytest.raises(ValueError, match=r"shape \(\); it must be \(4,\), one number a sample"):
        batch(lambda t, y: y[0, 0])
    with pytest.raises(ValueError, match=r"events\[0\] is NaN at t=.* in sample 2"):
        batch(lambda t, y: torch.where(torch.arange(4) == 2, torch.nan, y[:, 0]))
    with pytest.raises(ValueError, match=r"t\[\[1, 0\]\] is not finite"):
        batch(None, (0.0, math.inf))
