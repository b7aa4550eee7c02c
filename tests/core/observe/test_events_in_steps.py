"""Events within long steps, at the ends of a solve, and what looking for them costs."""

from __future__ import annotations

import itertools
import math
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from host_waits import CountWaits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quadflow as qf
from quadflow.observe.events.hidden_zeros import chebyshev_points, doubts

F64 = torch.float64
METHODS = qf.methods()
ADAPTIVE = sorted(name for name, method in METHODS.items() if method.error_order is not None)
FIXED = sorted(name for name, method in METHODS.items() if method.takes_fixed_steps)
PLANS = ["dopri5", "dopri8", "tsit5", "gauss", "adams", "pece3"]


def tensor(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=F64)


def rising(t: Tensor, y: Tensor) -> Tensor:
    """y = y0 + t: so smooth that steps are as long as they may be."""
    return torch.ones_like(y)


def thrown(t: Tensor, y: Tensor) -> Tensor:
    """Height and speed of a ball."""
    return torch.stack((y[..., 1], torch.full_like(y[..., 1], -9.81)), -1)


def cubic(y: Tensor) -> Tensor:
    return (y + 6) * (y + 2) * (y - 2)


def close(found: Tensor, expected, tolerance: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=F64)
    assert found.shape == expected.shape, (found, expected)
    assert ((found.detach() - expected).abs() <= tolerance).all(), found - expected


# -- within a step --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTIVE)
def test_zeros_of_a_cubic(name: str) -> None:
    for start, times in ((-10.0, (0.0, 20.0)), (10.0, (20.0, 0.0))):
        solution = qf.solve(rising, tensor(start), times, method=name,
                            events=lambda t, y: cubic(y[0]))  # fmt: skip
        zeros = [-6.0, -2.0, 2.0] if start < 0 else [2.0, -2.0, -6.0]
        close(solution.t_events[0], [10 + zero for zero in zeros])
        close(solution.y_events[0][:, 0], zeros)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("below", [100 / 19.62 - 5, 1e-3, 1e-8])
def test_a_ball_passes_a_height_below_its_highest_twice(name: str, below: float) -> None:
    top = 100 / (2 * 9.81)
    event = qf.Event(lambda t, y: y[0] - (top - below))
    solution = qf.solve(thrown, tensor(0.0, 10.0), (0.0, 2.0), method=name, events=event,
                        rtol=1e-10, atol=1e-12)  # fmt: skip
    away = math.sqrt(2 * below / 9.81)
    close(solution.t_events[0], [10 / 9.81 - away, 10 / 9.81 + away], 1e-12 / away + 1e-9)


@dataclass
class Case:
    """g along y = y0 + t over one step of length 1 from t = 0, and where it is zero."""

    name: str
    g: Callable[[Any, Any], Tensor]
    zeros: list[float]
    near: float = 1e-12


WAVES = sorted(
    (angle + 2 * math.pi * k) / 50
    for k in range(-3, 9)
    for angle in (math.asin(0.3), math.pi - math.asin(0.3))
)
WIDTH = 0.05 * math.sqrt(math.log(2))
CASES = [
    Case("pair", lambda t, y: (y - 0.41) * (y - 0.44), [0.41, 0.44]),
    Case("narrow pair", lambda t, y: (y - 0.37) ** 2 - 1e-12, [0.369999, 0.370001], 1e-9),
    Case("pair of the time alone", lambda t, y: (t - 0.9) * (t - 0.9002) + 0 * y, [0.9, 0.9002]),
    Case("two pairs", lambda t, y: (y - 0.1) * (y - 0.11) * (y - 0.8) * (y - 0.81),
         [0.1, 0.11, 0.8, 0.81]),
    Case("one and a pair", lambda t, y: (y - 0.2) * (y - 0.5) * (y - 0.501), [0.2, 0.5, 0.501]),
    Case("pair beside the end", lambda t, y: (y - 0.9991) * (y - 0.9995), [0.9991, 0.9995]),
    Case("pair beside the start", lambda t, y: (y - 3e-4) * (y - 1e-4), [1e-4, 3e-4]),
    Case("waves", lambda t, y: torch.sin(50 * y) - 0.3, WAVES),
    Case("bump", lambda t, y: torch.exp(-(((y - 0.37) / 0.05) ** 2)) - 0.5,
         [0.37 - WIDTH, 0.37 + WIDTH], 1e-10),
    Case("kink", lambda t, y: (y - 0.43).abs() - 0.01, [0.42, 0.44]),
    Case("least of two", lambda t, y: torch.minimum(y - 0.2, 0.25 - y), [0.2, 0.25]),
    Case("pole nearby", lambda t, y: 1 / (1.01 - y) - 50, [0.99], 1e-10),
    Case("jump", lambda t, y: torch.where(y > 0.613, 1.0, -1.0).to(F64), [0.613], 1e-15),
    Case("reaches zero and stays", lambda t, y: torch.relu(0.613 - y), [0.613], 1e-15),
    Case("stays below as well", lambda t, y: -torch.relu(0.613 - y) ** 2, [0.613], 1e-7),
    Case("touches a sample", lambda t, y: (t - 0.5) ** 2 + 0 * y, [0.5], 1e-15),
    Case("only comes near", lambda t, y: (y - 0.43) ** 2 + 1e-9, []),
    Case("far away", lambda t, y: 3 + torch.sin(300 * y), []),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_zeros_within_one_step(case: Case) -> None:
    """Whatever evaluates the step, alone and in a batch, forward and backward."""
    inside = [zero for zero in case.zeros if 0 < zero < 1]
    for name in ("dopri5", "gauss4", "rk4", "pec2"):
        solution = qf.solve(rising, tensor(0.0), (0.0, 1.0), method=name, step_size=1.0,
                            events=lambda t, y: case.g(t, y[0]))  # fmt: skip
        assert len(solution.steps) == 2
        close(solution.t_events[0], inside, case.near)
    solution = qf.solve(rising, tensor(1.0), (1.0, 0.0), method="dopri8", step_size=1.0,
                        events=lambda t, y: case.g(t, y[0]))  # fmt: skip
    # what is reached backward is where staying at zero begins, or the other end
    if "stays" not in case.name:
        close(solution.t_events[0], inside[::-1], max(case.near, 1e-10))
    starts = tensor(0.0, -0.25, 0.0) if "touches" not in case.name else tensor(0.0, 0.0)
    solution = qf.solve(
        rising,
        starts[:, None],
        torch.stack((starts, starts + 1)),
        batch_dims=1,
        initial_step=1.0,
        events=lambda t, y: case.g(t.reshape(-1), y[:, 0]),
    )
    for start, times in zip(starts.tolist(), solution.t_events[0], strict=True):
        close(times, [zero for zero in case.zeros if start < zero < 1 + start], case.near)


def test_states_of_other_kinds_within_one_step() -> None:
    steps = {"step_size": 1.0, "method": "dopri8"}
    pair = [0.41, 0.44]
    solution = qf.solve(rising, torch.zeros(1), (0.0, 1.0), **steps,
                        events=lambda t, y: (y[0] - 0.41) * (y[0] - 0.44))  # fmt: skip
    close(solution.t_events[0], pair, 1e-5)
    solution = qf.solve(lambda t, y: 1j * rising(t, y), tensor(0.0) * 1j, (0.0, 1.0), **steps,
                        events=lambda t, y: (y[0].imag - 0.41) * (y[0].imag - 0.44))  # fmt: skip
    close(solution.t_events[0], pair)
    solution = qf.solve(
        lambda t, y: {"a": torch.ones_like(y["a"]), "b": 0 * y["b"]},
        {"a": tensor(0.0)[0], "b": tensor(0.0, 0.0)}, (0.0, 1.0), **steps,
        events=lambda t, y: (y["a"] - 0.41) * (y["a"] - 0.44) + y["b"].sum(),
    )  # fmt: skip
    close(solution.t_events[0], pair)
    solution = qf.solve(
        lambda t, y: (torch.ones_like(y[0]), 0 * y[1]), (tensor(0.0), tensor(0.0, 0.0)), (0.0, 1.0),
        **steps, events=lambda t, y: (y[0][0] - 0.41) * (y[0][0] - 0.44),
    )  # fmt: skip
    close(solution.t_events[0], pair)
    large = torch.zeros(40_000, dtype=F64)  # looked at one by one
    solution = qf.solve(rising, large, (0.0, 1.0), **steps,
                        events=lambda t, y: (y.mean() - 0.41) * (y[-1] - 0.44))  # fmt: skip
    close(solution.t_events[0], pair)
    with torch.inference_mode():
        solution = qf.solve(rising, tensor(0.0), (0.0, 1.0), **steps,
                            events=lambda t, y: (y[0] - 0.41) * (y[0] - 0.44))  # fmt: skip
    close(solution.t_events[0], pair)


@pytest.mark.parametrize("interface", [qf.odeint, qf.odeint_adjoint, qf.odeint_event])
def test_torchdiffeqs_events_within_one_step(interface) -> None:
    """The first zero of a pair, of the second entry; fixed and adaptive steps."""
    for how in ({"method": "dopri5"}, {"method": "rk4", "options": {"step_size": 1.0}}):
        arguments: Any = {
            "event_fn": lambda t, y: torch.cat((y - 5, (y - 0.41) * (y - 0.44))),
            **how,
        }
        if interface is qf.odeint_adjoint:
            arguments["adjoint_params"] = ()
        times = tensor(0.0)[0] if interface is qf.odeint_event else tensor(0.0, 1.0)
        when, states = interface(rising, tensor(0.0), times, **arguments)
        assert abs(float(when) - 0.41) < 1e-12 and abs(float(states[-1]) - 0.41) < 1e-12


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5, unique=True),
    st.sampled_from(["dopri5", "dopri8", "tsit5", "gauss4", "adams"]),
    st.booleans(), st.sampled_from([-1, 0, 1]), st.integers(1, 6), st.booleans(), st.booleans(),
)  # fmt: skip
def test_zeros_of_polynomials(
    zeros: list[float], name: str, backward: bool, direction: int, terminal: int, alone: bool,
    negative: bool,
) -> None:  # fmt: skip
    """All simple zeros are found, and the solve ends at the m-th that has the direction."""
    zeros = sorted(zeros, reverse=backward)
    if any(abs(a - b) < 1e-4 for a, b in itertools.pairwise(zeros)):
        return

    def g(t: Tensor, y: Tensor) -> Tensor:
        value = torch.prod(torch.stack([y[..., 0] - zero for zero in zeros]), 0)
        return -value if negative else value

    start, times = (1.0, (1.0, 0.0)) if backward else (0.0, (0.0, 1.0))
    before = np.prod([start - zero for zero in zeros]) * (-1 if negative else 1)
    rises = [(before < 0) == (k % 2 == 0) for k in range(len(zeros))]
    wanted = [z for z, up in zip(zeros, rises, strict=True) if direction in (0, 1 if up else -1)]
    event = qf.Event(g, terminal=terminal, direction=direction)
    y0 = tensor(start) if alone or name == "adams" else tensor(start)[None]
    solution = qf.solve(rising, y0, times, method=name, events=event, batch_dims=y0.dim() - 1)
    found = solution.t_events[0] if y0.dim() == 1 else solution.t_events[0][0]
    close(found, wanted[:terminal], 1e-8)
    statuses = solution.statuses or [solution.status]
    assert (statuses[0] is qf.Status.EVENT) == (len(wanted) >= terminal)


def test_the_zero_that_is_first_in_time_ends_the_solve() -> None:
    """Several events have several zeros each in one step, in whatever order."""
    first = qf.Event(lambda t, y: (y[0] - 0.30) * (y[0] - 0.31), terminal=2)
    second = qf.Event(lambda t, y: (y[0] - 0.305) * (y[0] - 0.2), terminal=3)
    third = qf.Event(lambda t, y: y[0] - 0.309, terminal=True, direction=-1)
    every = lambda t, y: (y[0] - 0.1) * (y[0] - 0.15) * (y[0] - 0.35)  # noqa: E731
    for events in ([first, second, third, every], [every, third, second, first]):
        solution = qf.solve(rising, tensor(0.0), (0.0, 1.0), step_size=1.0, events=events)
        assert solution.status is qf.Status.EVENT
        close(solution.t, [0.0, 0.31])
        found = dict(zip(events, solution.t_events, strict=True))
        close(found[first], [0.30, 0.31])
        close(found[second], [0.2, 0.305])
        close(found[third], [])
        close(found[every], [0.1, 0.15])


def test_dense_output_that_is_infinite_hides_nothing_and_shows_nothing() -> None:
    """y' is infinite at the very end, which the steps do not look at: y = 1 - sqrt(1 - t). A zero
    in the last step is then somewhere in it."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return 0.5 / torch.sqrt(1 - t) + 0 * y

    for name in ("midpoint", "heun3"):
        solution = qf.solve(f, tensor(0.0), (0.0, 1.0), method=name, step_size=0.25,
                            events=[lambda t, y: y[0] - 0.2, lambda t, y: y[0] - 0.6,
                                    lambda t, y: y[0] - 2])  # fmt: skip
        assert [len(found) for found in solution.t_events] == [1, 1, 0]
        close(solution.t_events[0], [0.36], 2e-3)
        assert 0.75 < float(solution.t_events[1][0]) <= 1
    pole = qf.solve(rising, tensor(0.0), (0.0, 1.0), step_size=1.0,
                    events=lambda t, y: 1 / (t - 0.5) + 0 * y[0])  # fmt: skip
    close(pole.t_events[0], [0.5])  # an infinite value of a finite state counts


# -- at the ends of a solve -----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_crossing_at_the_end_is_found(name: str) -> None:
    """With fixed steps whose sums round either way, and adaptive ones; in float32 as well."""
    hows: list[dict] = [{"step_size": size} for size in (0.1, 0.07)] * (name in FIXED)
    for how in [*hows, *[{}] * (name in ADAPTIVE)]:
        for sign, dtype, start in ((1.0, F64, 0.1), (-1.0, F64, 1000.0), (1.0, torch.float32, 0.1)):
            level = start + sign
            for parts in (None, 1) if dtype is F64 else (None,):
                solution = qf.solve(
                    lambda t, y, sign=sign: sign * rising(t, y), torch.tensor([start], dtype=dtype),
                    (0.0, 1.0), method=name, **how,
                    events=qf.Event(lambda t, y, level=level: y[0] - level, subintervals=parts),
                )  # fmt: skip
                close(solution.t_events[0], [1.0], 5e-12 if dtype is F64 else 1e-5)


def test_other_crossings_at_the_end_are_found() -> None:
    """The state was large before, is a difference, the time, or ends at zero; per sample, backward;
    and a terminal crossing ends the solve there."""
    end = 20 / 9.81
    ground = qf.Event(lambda t, y: y[0], terminal=True, direction=-1)
    for how in ({"step_size": end}, {"step_size": end / 7}, {"step_size": end / 100}, {}):
        for name in ("dopri5", "dopri8", "gauss8", "tsit5"):
            solution = qf.solve(thrown, tensor(0.0, 10.0), (0.0, end), method=name, events=ground,
                                **how)  # fmt: skip
            assert solution.status is qf.Status.EVENT
            close(solution.t_events[0], [end], 1e-12)
    events = [
        lambda t, y: y[0] - y[1], lambda t, y: y[2] - 3 * t, lambda t, y: t - 0.3,
        lambda t, y: torch.sin(y[0] * math.pi / 0.3), lambda t, y: 0.3 - y[0],
    ]  # fmt: skip
    slopes = tensor(1.0, 0.5, 1.0, 0.0)
    for size in (0.1, 0.3, 0.003):
        solution = qf.solve(lambda t, y: slopes + 0 * y, tensor(0.0, 0.15, 0.6, 1e6), (0.0, 0.3),
                            step_size=size, events=events)  # fmt: skip
        for found in solution.t_events:
            assert abs(float(found[-1]) - 0.3) < 1e-14
    solution = qf.solve(rising, tensor(0.1), (-0.7, 0.0), step_size=0.1,
                        events=lambda t, y: y[0] - 0.8)  # fmt: skip
    close(solution.t_events[0], [0.0])
    for name in ("dopri5", "dopri8", "gauss"):
        solution = qf.solve(
            rising, tensor(0.1, 1000.0, -1.0)[:, None], (0.0, 1.0), batch_dims=1, method=name,
            events=qf.Event(lambda t, y: y[:, 0] - tensor(1.1, 1001.0, 0.0), terminal=True),
        )  # fmt: skip
        assert [status.name for status in solution.statuses] == ["EVENT"] * 3
        for times in solution.t_events[0]:
            close(times, [1.0], 1e-11)


def test_nothing_is_found_that_lies_behind_the_end() -> None:
    """Not a crossing just behind, not what a solution at rest only tends to, not a start."""
    for how in ({}, {"step_size": 0.01}, {"step_size": 1.0, "method": "dopri8"}):
        solution = qf.solve(
            rising,
            tensor(0.0),
            (0.0, 1.0),
            **how,
            events=[lambda t, y: y[0] - 1 - 1e-9, lambda t, y: t - 1 - 1e-9],
        )
        assert [len(found) for found in solution.t_events] == [0, 0]
    solution = qf.solve(lambda t, y: 1 - y, tensor(0.0), (0.0, 20.0), rtol=1e-10, atol=1e-10,
                        events=lambda t, y: y[0] - 1)  # fmt: skip
    assert len(solution.t_events[0]) == 0
    small = qf.solve(
        rising,
        tensor(-1e-17),
        (0.0, 1.0),
        method="dopri5",
        initial_step=1e-17,
        max_step=1e-16,
        events=qf.Event(lambda t, y: y[0], terminal=True),
    )
    close(small.t_events[0] * 1e17, [1.0])  # no rounding: there is nothing that it is small against


@pytest.mark.parametrize("size", [None, 0.1, 0.07])
def test_a_crossing_is_counted_once_when_the_solve_goes_on(size: float | None) -> None:
    """On a requested time, a landing, a breakpoint; and no restart ends at once."""
    event = qf.Event(lambda t, y: y[0] - 1.1)
    for more in ({"t": (0.0, 1.0, 2.0)}, {"t": (0.0, 2.0), "land_on": [1.0]},
                 {"t": (0.0, 2.0), "breakpoints": [1.0]}):  # fmt: skip
        solution = qf.solve(rising, tensor(0.1), events=event, step_size=size, **more)
        close(solution.t_events[0], [1.0])
    for sign in (1.0, -1.0):
        for direction in (0, 1, -1):
            ending = qf.Event(lambda t, y, s=sign: s * (y[0] - 1.1), terminal=True,
                              direction=direction)  # fmt: skip
            first = qf.solve(rising, tensor(0.1), (0.0, 1.0), events=ending, step_size=size)
            assert len(first.t_events[0]) == (direction != -sign)
            with warnings.catch_warnings():
                warnings.simplefilter("error", qf.EventWarning)
                again = qf.solve(rising, first.y[-1], (1.0, 2.0), events=ending, step_size=size)
            assert again.status is qf.Status.SUCCESS and (again.t_events[0] == 1.0).all()


# -- restarts -------------------------------------------------------------------------------------


def bounces(method: str | None, direction: int, most: int, **how) -> tuple[int, list]:
    """How often the ball bounced before a solve warned, and the warnings."""
    event = qf.Event(lambda t, y: y[0], terminal=True, direction=direction)
    t, y = 0.0, tensor(10.0, 5.0)
    for count in range(most):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", qf.EventWarning)
            solution = qf.solve(thrown, y, (t, math.inf), events=event, method=method, throw=False,
                                max_steps=40, **how)  # fmt: skip
        told = [one for one in told if one.category is qf.EventWarning]
        if told or solution.status is not qf.Status.EVENT:
            return count, told
        t, y = float(solution.t[-1]), solution.y[-1] * tensor(0.0, -0.8)
    return most, []


@pytest.mark.parametrize(("method", "direction"), [("dopri5", -1), ("dopri5", 0), ("adams", -1)])
def test_bounces_shorter_than_the_rounding_of_time_warn(method: str, direction: int) -> None:
    count, told = bounces(method, direction, 400)
    assert 120 < count < 180 and len(told) == 1
    message = str(told[0].message)
    assert "events[0] is zero at the start, t=14.154" in message and "end the chain" in message
    assert told[0].filename == __file__


FLOOR = [  # height, speed, direction; t0 = 1
    ((0.0, 0.0), -1, True), ((0.0, 1e-18), -1, True), ((0.0, -1e-18), -1, True),
    ((0.0, 1e-18), 0, True), ((1e-30, 0.0), -1, True), ((0.0, 1e-16), -1, True),
    ((0.0, 5.0), -1, False), ((0.0, 5.0), 0, False), ((0.0, 1e-10), -1, False),
    ((0.0, 1e-10), 0, False), ((1e-10, 0.0), -1, False), ((0.0, -5.0), 1, False),
    ((0.0, 5.0), 1, False),  # as a section that is restarted
]  # fmt: skip


@pytest.mark.parametrize(("start", "direction", "warns"), FLOOR, ids=str)
def test_what_warns_at_the_start(start: tuple, direction: int, warns: bool) -> None:
    event = qf.Event(lambda t, y: y[..., 0], terminal=True, direction=direction)
    y0 = tensor(*start)
    for state, more in ((y0, {}), (torch.stack((tensor(3.0, 1.0), y0)), {"batch_dims": 1})):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", qf.EventWarning)
            solution = qf.solve(thrown, state, (1.0, 3.5), method="dopri5", events=event, **more)
        told = [one for one in told if one.category is qf.EventWarning]
        assert len(told) == warns
        status = (solution.statuses or [solution.status])[-1]
        if warns:
            assert status is qf.Status.SUCCESS
            assert ("of sample 1" in str(told[0].message)) == bool(more)
        elif direction <= 0:  # a short flight ends where it ends
            assert status is qf.Status.EVENT
            times = (solution.t_events[0][-1] if more else solution.t_events[0])[-1]
            height, speed = start
            flight = (speed + math.sqrt(speed**2 + 2 * 9.81 * height)) / 9.81
            assert abs(float(times) - 1 - flight) < 1e-9 * flight + 4e-16


@pytest.mark.parametrize("direction", [-1, 0, 1])
@pytest.mark.parametrize("method", ["dopri5", "adams"])
def test_restarts_on_a_section_go_on(method: str, direction: int) -> None:
    """As one solve does, without a warning, late in time as well."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[1], -y[0]))

    wanted = [k for k in range(1, 8) if direction == 0 or (k % 2 == 0) == (direction == 1)]
    for t0 in (0.0, 1.7e9):
        t, y = t0, tensor(0.0, 1.0)
        event = qf.Event(lambda t, y: y[0], terminal=True, direction=direction)
        for k in wanted[:2]:
            with warnings.catch_warnings():
                warnings.simplefilter("error", qf.EventWarning)
                solution = qf.solve(f, y, (t, math.inf), events=event, method=method)
            t, y = float(solution.t[-1]), solution.y[-1]
            assert abs(t - t0 - k * math.pi) < 1e-5


# -- what it costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dopri5", "dopri8", "rk4", "gauss4", "gauss", "adams", "pece4"])
def test_looks_and_evaluations_a_step(name: str) -> None:
    """Ten looks a step (two more than the degree, where that is more), and what the dense output
    takes: three evaluations of func with dopri8, one more at the very end where steps do not
    evaluate their ends. With one subinterval one look; what dopri8 evaluates for its dense output
    is evaluated with every try all the same, to see that it can be trusted."""
    looks = 0

    def g(t: Tensor, y: Tensor) -> Tensor:
        nonlocal looks
        looks += 1
        return y[0] - 9

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[..., 1], -y[..., 0]), -1)

    how = {"method": name, "step_size": 0.1 if name in ("rk4", "gauss4") else None,
           "node_evaluation": "broadcast"}  # fmt: skip
    plain = qf.solve(f, tensor(0.0, 1.0), (0.0, 6.0), **how)
    beside = 3 + 2  # the start, and beside the start and the end
    ends = qf.solve(f, tensor(0.0, 1.0), (0.0, 6.0), **how, events=qf.Event(g, subintervals=1))
    assert ends.steps == plain.steps and looks == len(ends.steps) - 1 + beside
    more = 3 * (len(plain.steps) - 1) if name == "dopri8" else 0
    assert ends.stats.nfe == plain.stats.nfe + more
    looks = 0
    solution = qf.solve(f, tensor(0.0, 1.0), (0.0, 6.0), **how, events=g)
    steps = len(solution.steps) - 1
    assert solution.steps == plain.steps
    most = {"adams": 15, "gauss": 10}.get(name, 10)
    assert 10 * steps + beside <= looks <= most * steps + beside
    more = {"dopri8": 3 * steps, "rk4": 1}.get(name, 0)
    assert solution.stats.nfe == plain.stats.nfe + more
    again = qf.solve(f, tensor(0.0, 1.0), (0.0, 6.0), **how, events=g, dense_output=True)
    assert again.stats.nfe == solution.stats.nfe  # the dense output is made once


def test_one_wait_a_step_however_many_looks() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[..., 1], -y[..., 0]), -1)

    far = [lambda t, y: y[..., 0] - 9, lambda t, y: y[..., 1] + t.reshape(-1)[0] + 9]
    for how in ({"step_size": 0.1}, {"max_step": 0.1}, {"max_step": 0.1, "batch_dims": 1}):
        y0 = tensor(0.0, 1.0)[None] if "batch_dims" in how else tensor(0.0, 1.0)
        waits = []
        for events in (None, far):
            for end in (4.0, 8.0):
                with CountWaits() as counter:
                    solution = qf.solve(f, y0, (0.0, end), method="dopri5", events=events, **how)
                waits.append((counter.waits, solution.stats.accepted))
        (without, steps), (more, more_steps) = (
            (b[0] - a[0], b[1] - a[1]) for a, b in (waits[:2], waits[2:])
        )
        assert steps == more_steps > 30 and more == without + steps


def test_large_states_are_looked_at_one_at_a_time() -> None:
    alive: list[weakref.ref] = []
    most = 0

    def g(t: Tensor, y: Tensor) -> Tensor:
        nonlocal most
        alive.append(weakref.ref(y.untyped_storage()))
        most = max(most, sum(one() is not None for one in alive))
        return y[0] - 9

    qf.solve(rising, torch.zeros(50_000), (0.0, 1.0), step_size=0.5, events=g)
    assert len(alive) > 20 and most <= 4


# -- what samples hide ----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.integers(10, 20), st.floats(0.01, 0.99), st.floats(-6.0, -2.0),
    st.lists(st.floats(-2.0, 3.0), max_size=3), st.booleans(),
)  # fmt: skip
def test_hidden_pairs_are_doubted(
    n: int, place: float, log_width: float, others: list[float], negative: bool
) -> None:
    """Two zeros of a polynomial between two samples, however near to each other."""
    width = 10.0**log_width
    x = chebyshev_points(n)
    values = (x - place) ** 2 - width**2
    for other in others:
        values = values * (x - other)
    inside = np.sign(values[:-1]) == np.sign(values[1:])
    k = int(np.searchsorted(x, place)) - 1
    hidden = x[k] < place - width and place + width < x[k + 1] and bool(inside[k])
    if not hidden or any(abs(other - place) < 1e-3 for other in others):
        return
    found = doubts((-values if negative else values)[:, None])
    assert found is not None
    assert np.abs(found.places - place).min() < width


def test_nothing_is_doubted_far_from_zero() -> None:
    x = chebyshev_points(10)
    for values in (x + 1e-3, np.exp(x), (x - 0.5) ** 2 + 0.01, np.sin(3 * x) + 2, 1 + 0 * x):
        assert doubts(values[:, None]) is None and doubts(-values[:, None]) is None
    assert np.array_equal(chebyshev_points(20)[::2], x)
