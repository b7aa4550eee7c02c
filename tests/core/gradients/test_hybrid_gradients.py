"""Gradients through chains of solves that events end: times that carry them on."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from in_tensors import InTensors
from torch import Tensor

import quadflow as qf

F64 = torch.float64
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def scalar(value: float, grad: bool = True, dtype: torch.dtype = F64) -> Tensor:
    return torch.tensor(value, dtype=dtype, requires_grad=grad)


def same(found, expected, tolerance: float = 1e-9) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (torch.as_tensor(a) - torch.as_tensor(b)).abs().max() < tolerance, (a, b)


# -- a bouncing ball ------------------------------------------------------------------------------


def impacts(height: Tensor, restitution: Tensor, gravity: Tensor, count: int, **how) -> Tensor:
    """The times of its impacts, by the recipe of the docs."""
    ground = qf.Event(lambda t, y: y[0], terminal=True, direction=-1)

    def fall(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[1], -gravity + 0 * y[1]))

    t, y, times = 0.0, torch.stack((height, torch.zeros_like(height))), []
    for _ in range(count):
        solution = qf.solve(fall, y, (t, math.inf), events=ground, **how)
        t = solution.t[-1]
        y = torch.stack((torch.zeros_like(height), -restitution * solution.y[-1][1]))
        times.append(t)
    return torch.stack(times)


def exact_impacts(height: Tensor, restitution: Tensor, gravity: Tensor, count: int) -> Tensor:
    """√(2h/g), and then 2 eᵏ √(2gh) / g more each."""
    times = [torch.sqrt(2 * height / gravity)]
    speed = torch.sqrt(2 * gravity * height)
    for k in range(1, count):
        times.append(times[-1] + 2 * restitution**k * speed / gravity)
    return torch.stack(times)


PLANS = [
    {}, {"method": "dopri5"}, {"method": "dopri8"}, {"method": "gauss", **TIGHT},
    {"method": "rk4", "step_size": 0.3}, {"method": "gauss4", "step_size": 2.0},
    {"method": "pec2", "step_size": 0.05}, {"method": "tsit5"},
]  # fmt: skip


@pytest.mark.parametrize("how", PLANS, ids=lambda how: how.get("method", "default"))
def test_every_impact_of_a_bouncing_ball(how: dict) -> None:
    """Each in height, restitution and gravity, against the closed form."""
    inputs, count = (scalar(10.0), scalar(0.8), scalar(9.81)), 4
    found, expected = impacts(*inputs, count, **how), exact_impacts(*inputs, count)
    near = 3e-2 if how.get("method") == "pec2" else 1e-9
    same(found, expected, near)
    for k in range(count):
        pairs = [
            torch.autograd.grad(times[k], inputs, retain_graph=True, materialize_grads=True)
            for times in (found, expected)
        ]
        same(*pairs, near)


def test_transforms_of_the_bouncing_ball() -> None:
    inputs = (scalar(10.0, False), scalar(0.8, False), scalar(9.81, False))
    expected = torch.func.jacrev(exact_impacts, (0, 1, 2))(*inputs, 3)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        found = jacobian(lambda *x: impacts(*x, 3, method="dopri5"), (0, 1, 2))(*inputs)
        same(found, expected)
    steps = {"method": "rk4", "step_size": 0.25}
    assert torch.autograd.gradcheck(
        lambda *x: impacts(*x, 3, **steps), [x.requires_grad_() for x in inputs],
        check_forward_ad=True,
    )  # fmt: skip


def test_odeint_event_in_a_chain() -> None:
    """By backpropagation and by the adjoint; a state that starts a little above the ground."""

    class Fall(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gravity = torch.nn.Parameter(torch.tensor(9.81, dtype=F64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return torch.stack((y[1], -self.gravity + 0 * y[1]))

    for interface in (qf.odeint, qf.odeint_adjoint):
        func, height, restitution = Fall(), scalar(10.0), scalar(0.8)
        t, y = scalar(0.0, False), torch.stack((height, 0 * height))
        times = []
        for _ in range(4):
            t, states = qf.odeint_event(func, y, t, event_fn=lambda t, y: y[0], method="dopri5",
                                        odeint_interface=interface)  # fmt: skip
            y = torch.stack((torch.full_like(height, 1e-13), -restitution * states[-1][1]))
            times.append(t)
        inputs = (height, restitution, func.gravity)
        expected = exact_impacts(*inputs, 4)
        for k in range(4):
            same(*([*torch.autograd.grad(x[k], inputs, retain_graph=True, materialize_grads=True)]
                   for x in (times, expected)), 1e-6)  # fmt: skip


# -- other hybrid systems -------------------------------------------------------------------------


def test_a_thermostat_with_a_parameter_in_its_switch() -> None:
    """y' = -y until the level, y' = c - y until the other: periods in closed form, with levels that
    the times move as well."""
    low, high, heating = scalar(0.5), scalar(1.0), scalar(2.0)
    t, y, times = scalar(0.1, False), high.reshape(1), []
    for k in range(5):
        on = k % 2 == 1
        level, direction = (high, 1) if on else (low, -1)
        solution = qf.solve(
            lambda t, y, on=on: -y + (heating if on else 0), y, [t, math.inf], method="dopri8",
            **TIGHT,
            events=qf.Event(lambda t, y, level=level: y[0] - level, True, direction),
        )  # fmt: skip
        t, y = solution.t[-1], solution.y[-1]
        times.append(t)
    fall = torch.log(high / low)
    rise = torch.log((heating - low) / (heating - high))
    expected = 0.1 + torch.stack([(k // 2 + 1) * fall + (k + 1) // 2 * rise for k in range(5)])
    same(torch.stack(times), expected)
    weights = torch.linspace(1.0, 2.0, 5, dtype=F64)
    same(*(torch.autograd.grad((weights * x).sum(), (low, high, heating))
           for x in (torch.stack(times), expected)), 1e-7)  # fmt: skip


def test_an_event_of_time_then_one_of_the_state() -> None:
    """y' = 2t from (s, 0), ended at s + d by a clock, then until y = 4: y = t² - s²."""
    start, delay = scalar(0.5), scalar(0.25)
    first = qf.solve(lambda t, y: 2 * t + 0 * y, torch.zeros(1, dtype=F64), (start, math.inf),
                     events=qf.Event(lambda t, y: t - start - delay, True))  # fmt: skip
    second = qf.solve(lambda t, y: 2 * t + 0 * y, first.y[-1], (first.t[-1], math.inf), **TIGHT,
                      events=qf.Event(lambda t, y: y[0] - 4, True))  # fmt: skip
    same([first.t[-1], first.y[-1][0]], [start + delay, (start + delay) ** 2 - start**2])
    ends = (second.t[-1], torch.sqrt(4 + start**2))
    same([ends[0]], [ends[1]])
    same(torch.autograd.grad(ends[0], (start, delay), retain_graph=True),
         (torch.autograd.grad(ends[1], start)[0], 0.0))  # fmt: skip
    same(torch.autograd.grad(first.t[-1], (start, delay)), (1.0, 1.0))


def test_backward_in_time_and_in_float32() -> None:
    for dtype, near in ((F64, 1e-7), (torch.float32, 1e-5)):
        level = scalar(3.0, dtype=dtype)
        t, y = torch.tensor(1.0), torch.ones(1, dtype=dtype)
        for k in (1, 2):
            solution = qf.solve(
                lambda t, y: -y, y, (t, -math.inf), method="dopri8", rtol=1e-7,
                events=qf.Event(lambda t, y, level=level: y[0] - level, True),
            )  # fmt: skip
            t, y = solution.t[-1], solution.y[-1] / level
            assert t.dtype == F64
            same([t, torch.autograd.grad(t, level, retain_graph=True)[0]],
                 [1 - k * math.log(3.0), -k / 3.0], near)  # fmt: skip


# -- the times of a solution ----------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["y0", "t", "both"])
@pytest.mark.parametrize("size", [None, 0.125])
def test_times_of_a_solution(graph: str, size: float | None) -> None:
    """Unchanged in value; those before the event move as the requested ones do."""
    times = torch.tensor([0.0, 0.5, 1.0, 5.0], dtype=F64, requires_grad=graph != "y0")
    y0 = torch.tensor([2.0], dtype=F64, requires_grad=graph != "t")
    event = qf.Event(lambda t, y: y[0] - 1, True)
    solution = qf.solve(lambda t, y: -y, y0, times, events=event, step_size=size, **TIGHT)
    fixed = times.detach()  # on which steps land, where they are differentiated
    with InTensors():  # as where there is a graph, to the last bit
        plain = qf.solve(lambda t, y: -y, y0.detach(), fixed, events=event, step_size=size, **TIGHT,
                         breakpoints=fixed[1:-1] if graph != "y0" else ())  # fmt: skip
    assert solution.t.tolist() == plain.t.tolist() and not plain.t.requires_grad
    assert solution.t.dtype == F64 and len(solution.t) == 3
    assert float(solution.t[-1].detach()) == float(solution.t_events[0][-1].detach())
    inputs = [x for x in (y0, times) if x.requires_grad]
    ours, theirs = (
        torch.autograd.grad(x, inputs, retain_graph=True)
        for x in (solution.t[-1], solution.t_events[0][-1])
    )
    same(ours, theirs, 1e-15)
    if graph != "t":
        same([ours[0]], [0.5], 1e-7)  # t = log y0
    if graph != "y0":
        same([ours[-1]], [[1.0, 0.0, 0.0, 0.0]], 1e-5 if size else 1e-7)
        (by_times,) = torch.autograd.grad(solution.t[1], times)
        assert by_times.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_times_without_an_event_and_after_a_failure() -> None:
    end = scalar(1.5)
    solution = qf.solve(lambda t, y: -y, torch.ones(1, dtype=F64), (0.0, end))
    assert torch.autograd.grad(solution.t[-1], end)[0] == 1
    failed = qf.solve(lambda t, y: y * y, torch.ones(1, dtype=F64), (0.0, 0.5, end), throw=False)
    assert failed.t.tolist() == [0.0, 0.5] and not failed.success
    with torch.no_grad():
        solution = qf.solve(lambda t, y: -y, torch.ones(1, dtype=F64), (0.0, end))
    assert not solution.t.requires_grad
    single = qf.Event(lambda t, y: y[:, 0] - 0.5, True)
    y0 = torch.tensor([[1.0], [2.0]], dtype=F64, requires_grad=True)
    solution = qf.solve(lambda t, y: -y, y0, (0.0, math.inf), events=single, batch_dims=1, **TIGHT)
    assert not solution.t.requires_grad  # (T, B), as they were asked for
    times = torch.cat(solution.t_events[0])
    same(torch.autograd.grad(times.sum(), y0)[0][:, 0], [1.0, 0.5], 1e-8)
    with pytest.raises(ValueError, match="with batch_dims=1 there are no gradients in t"):
        qf.solve(lambda t, y: -y, y0, (0.0, end), batch_dims=1)


# -- times given in pieces ------------------------------------------------------------------------

PIECES = [
    lambda a, b: (a, 3.0), lambda a, b: [a, 3], lambda a, b: (0.0, a), lambda a, b: (a, b),
    lambda a, b: [a, b, 4.5], lambda a, b: [0, a, torch.tensor(2), b],
    lambda a, b: (a, np.float64(1.0), torch.tensor(2.5, dtype=torch.float16)),
    lambda a, b: (Fraction(-1, 2), a.to(torch.float32)), lambda a, b: [5.0, b, a],
    lambda a, b: [torch.tensor(-1.0), b.reshape(1)[0]],
]  # fmt: skip


@pytest.mark.parametrize("pieces", PIECES)
def test_times_in_pieces_are_one_tensor(pieces) -> None:
    """Differentiated as that is, by every interface, in both modes."""
    a, b = scalar(0.25), scalar(2.25)
    y0 = torch.tensor([1.5], dtype=F64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.sin(t) - y

    def joined(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(float(x) if isinstance(x, Fraction) else x, dtype=F64)
                            for x in pieces(a, b)])  # fmt: skip

    def by_solve(t) -> Tensor:
        return qf.solve(f, y0, t, method="dopri8").y

    def by_fixed(t) -> Tensor:
        return qf.solve(f, y0, t, method="rk4", step_size=0.2).y

    def by_odeint(t) -> Tensor:
        return qf.odeint(f, y0, t, method="dopri5")

    def by_adjoint(t) -> Tensor:
        return qf.odeint_adjoint(f, y0, t, method="dopri5", adjoint_params=())

    for how in (by_solve, by_fixed, by_odeint, by_adjoint):
        found, expected = how(pieces(a, b)), how(joined(a, b))
        assert torch.equal(found, expected)
        weights = torch.linspace(1.0, 2.0, len(found), dtype=F64)[:, None]
        same(*(torch.autograd.grad((weights * x).sum(), (a, b), materialize_grads=True)
               for x in (found, expected)), 1e-14)  # fmt: skip
    tangent = torch.ones((), dtype=F64)
    for times in (lambda a: pieces(a, b.detach()), lambda a: joined(a, b.detach())):
        _, slope = torch.func.jvp(
            lambda a, t=times: by_fixed(t(a)).sum(), (a.detach(),), (tangent,)
        )
        (expected,) = torch.autograd.grad(by_fixed(joined(a, b)).sum(), a, materialize_grads=True)
        assert abs(slope - expected) < 1e-7 * (1 + abs(expected))  # one of them is in float32


def test_times_in_pieces_to_an_event() -> None:
    """dT/dt0 of y' = -y from y(t0) = 1 to y = level is 1; of the state at a fixed time it is y'."""
    start, level = scalar(0.25), scalar(0.5)
    y0 = torch.ones(1, dtype=F64)
    solution = qf.solve(lambda t, y: -y, y0, (start, math.inf), **TIGHT,
                        events=qf.Event(lambda t, y: y[0] - level, True))  # fmt: skip
    same(torch.autograd.grad(solution.t[-1], (start, level)), [1.0, -2.0], 1e-8)
    for interface in (qf.odeint, qf.odeint_adjoint):
        more = {"adjoint_params": ()} if interface is qf.odeint_adjoint else {}
        _, states = interface(lambda t, y: -y, y0, (start, 1.0), method="dopri5", **more,
                              event_fn=lambda t, y: y[0] - 0.5)  # fmt: skip
        same(torch.autograd.grad(states[-1].sum(), start), [0.5], 1e-6)
    when, _ = qf.odeint_event(lambda t, y: -y, y0, start, event_fn=lambda t, y: y[0] - level)
    same(torch.autograd.grad(when, (start, level)), [1.0, -2.0], 1e-6)


@pytest.mark.parametrize(
    ("times", "error", "match"),
    [
        ((scalar(0.0), torch.ones(2)), ValueError, r"t\[1\] has shape \(2,\).* 0-dimensional"),
        ([torch.ones(1, requires_grad=True), 2.0], ValueError, r"t\[0\] has shape \(1,\)"),
        ((scalar(0.0), torch.tensor(1j)), TypeError, r"t\[1\] must be real, got dtype torch.comp"),
        (
            (scalar(2.0), 1.0, 3.0),
            ValueError,
            r"strictly increasing or strictly decreasing; t\[0\]",
        ),
        ((scalar(0.0), math.inf), ValueError, r"t\[1\]=inf is not finite"),
        ((scalar(0.0), "1"), TypeError, r"t\[1\] must be a real number, got '1'"),
        ((scalar(0.0), None), TypeError, r"t\[1\] must be a real number, got None"),
        ((scalar(0.0),), ValueError, "at least two times"),
    ],
)
def test_bad_times_in_pieces(times, error, match: str) -> None:
    with pytest.raises(error, match=match):
        qf.solve(lambda t, y: -y, torch.ones(1, dtype=F64), times)
