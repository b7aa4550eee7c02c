"""Parity with torchdiffeq 0.2.5: methods times options on nonlinear, nonautonomous problems."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import pytest
import torch
import torchdiffeq
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS

import quadflow as qf
from quadflow.analysis.proofs.certificates import certify
from quadflow.torchdiffeq_api.names import TORCHDIFFEQ_METHODS, named_method
from quadflow.torchdiffeq_api.odeint import odeint_event

Field = Callable[[Tensor, Tensor], Tensor]


def driven(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((-(y[0] ** 2) * torch.cos(t), y[0] * y[1] + torch.sin(3 * t)))


def pendulum(t: Tensor, y: Tensor) -> Tensor:
    angle, speed = y.unbind(-1)
    return torch.stack((speed, -torch.sin(angle) - 0.1 * speed + 0.4 * torch.cos(2 * t)), -1)


def turning(t: Tensor, y: Tensor) -> Tensor:
    return 1j * y * (1 + torch.sin(t) / (1 + y.abs() ** 2))  # keeps |y|


PROBLEMS: dict[str, tuple[Field, Tensor]] = {
    "driven": (driven, torch.tensor([[1.0, 0.5], [0.2, -0.3]], dtype=torch.float64)),
    "pendulum": (pendulum, torch.tensor([[0.4, 0.0], [2.0, -0.3]], dtype=torch.float64)),
    "turning": (turning, torch.tensor([0.7 + 0.2j, -0.3j], dtype=torch.complex128)),
}
FORWARD = torch.tensor([0.0, 0.45, 1.0, 2.5], dtype=torch.float64)
TIMES = {"forward": FORWARD, "reversed": FORWARD.flip(0)}
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
ADAPTIVE = ("dopri8", "dopri5", "bosh3", "adaptive_heun", "fehlberg2")
ADAMS = ("explicit_adams", "implicit_adams", "fixed_adams")


def both(field: Field, y0: Tensor, t: Tensor, **arguments: object) -> tuple[Tensor, Tensor]:
    ours = qf.odeint(field, y0, t, **arguments)  # type: ignore[arg-type]
    theirs = torchdiffeq.odeint(field, y0, t, **arguments)
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return ours, theirs


def exact(field: Field, y0: Tensor, t: Tensor) -> Tensor:
    return qf.solve(field, y0, t, method="dopri8", rtol=1e-12, atol=1e-13).y


def test_every_name_is_known() -> None:
    assert set(TORCHDIFFEQ_METHODS) == set(SOLVERS)
    assert {*FIXED, *ADAPTIVE, *ADAMS, "scipy_solver"} == set(SOLVERS)


@pytest.mark.parametrize("name", (*FIXED, *ADAPTIVE))
def test_every_runge_kutta_method_is_proved(name: str) -> None:
    """Those that are not registered by their own name as well."""
    _, method, _ = named_method(name, {})
    assert method is not None
    certificate = certify(method)
    assert certificate.agrees, certificate
    assert certificate.order == SOLVERS[name].order


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps(method: str, times: str, problem: str) -> None:
    """The same formulas on the same grid give the same numbers."""
    field, y0 = PROBLEMS[problem]
    t = TIMES[times]

    def grid(func: object, y: object, t: Tensor) -> Tensor:
        return torch.cat((t[0] + (t[-1] - t[0]) * torch.linspace(0, 0.9, 14) ** 2, t[-1:]))

    for options in (
        {},
        {"step_size": 0.05},  # all times are on the grid
        {"step_size": 0.13, "interp": "linear"},
        {"step_size": 0.13, "interp": "cubic"},
        {"grid_constructor": grid, "interp": "linear"},
        {"grid_constructor": grid, "interp": "cubic"},
    ):
        ours, theirs = both(field, y0, t, method=method, options=options)
        assert (ours - theirs).abs().max() < 1e-12 * theirs.abs().max(), options


@pytest.mark.parametrize("method", ["midpoint", "rk4"])
def test_between_fixed_steps_dense_output_is_the_default(method: str) -> None:
    """torchdiffeq's default is linear there, which has order 2 whatever the method's."""
    field, y0 = PROBLEMS["driven"]
    ours, theirs = both(field, y0, FORWARD, method=method, options={"step_size": 0.13})
    reference = exact(field, y0, FORWARD)
    assert torch.allclose(ours[[0, -1]], theirs[[0, -1]], rtol=1e-13)
    error, error_there = ((y[1:3] - reference[1:3]).abs().max() for y in (ours, theirs))
    if method == "rk4":
        assert error < error_there / 100
    cubic = torchdiffeq.odeint(
        field, y0, FORWARD, method=method, options={"step_size": 0.13, "interp": "cubic"}
    )
    assert torch.allclose(ours, cubic, rtol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_steps(method: str, times: str, problem: str) -> None:
    """Ours is as near to the solution as theirs, or nearer.

    torchdiffeq steps past every requested time, the last one included, and interpolates by a
    quartic through a midpoint of low order.
    """
    field, y0 = PROBLEMS[problem]
    t = TIMES[times][[0, -1]]
    tol = 1e-5 if method in ("adaptive_heun", "fehlberg2") else 1e-7
    ours, theirs = both(field, y0, t, method=method, rtol=tol, atol=tol)
    reference = exact(field, y0, t)
    error, error_there = (float((y - reference).abs().max()) for y in (ours, theirs))
    assert error < max(2 * error_there, 20 * tol), (error / tol, error_there / tol)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", ADAMS)
def test_adams(method: str, times: str) -> None:
    """The same order, with starting steps of its own: both converge to the same solution."""
    field, y0 = PROBLEMS["pendulum"]
    t = TIMES[times]
    reference = exact(field, y0, t)
    for max_order in (4, 5):
        errors = []
        for size in (0.05, 0.025):
            options = {"max_order": max_order, "step_size": size}
            ours, theirs = both(field, y0, t, method=method, options=options)
            errors.append(tuple((y - reference).abs().max() for y in (ours, theirs)))
        assert errors[1][0] < max(3 * errors[1][1], 1e-9)
        order = max_order - (method == "explicit_adams")
        assert errors[0][0] / errors[1][0] > 0.75 * 2**order
    ours, theirs = both(field, y0, t, method="implicit_adams", options={"step_size": 0.05})
    assert (ours - theirs).abs().max() < 1e-5  # max_order 12


def test_adams_of_low_order_is_rk4() -> None:
    field, y0 = PROBLEMS["driven"]
    for method in ADAMS:
        options = {"max_order": 3, "step_size": 0.1}
        with pytest.warns(UserWarning, match="max_order=3 is below 4"):
            ours = qf.odeint(field, y0, FORWARD, method=method, options=options)
        assert torch.equal(
            ours, qf.odeint(field, y0, FORWARD, method="rk4", options={"step_size": 0.1})
        )


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("solver", ["LSODA", "RK45", "DOP853", "Radau"])
def test_scipy(solver: str, times: str) -> None:
    for problem in ("driven", "turning"):
        field, y0 = PROBLEMS[problem]
        if y0.is_complex() and solver != "RK45":
            continue
        options = {"solver": solver, "max_step": 0.5}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs hands min_step to solvers without
            ours, theirs = both(
                field, y0, TIMES[times], method="scipy_solver", options=options, rtol=1e-8
            )
        assert (ours - theirs).abs().max() < 1e-6


def test_scipy_on_tuples() -> None:
    def field(t, y):
        a, b = y
        return -a * torch.cos(t), a.sum() * b - b**2

    y0 = (torch.ones(2, 2), torch.tensor(0.7))
    ours = qf.odeint(field, y0, FORWARD, method="scipy_solver")
    # float32's own default tolerances
    theirs = torchdiffeq.odeint(field, y0, FORWARD, method="scipy_solver", rtol=1e-4, atol=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.float32 and mine.shape == other.shape
        assert (mine - other).abs().max() < 1e-5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scipys_lsoda_comes_back_from_what_is_not_finite(bad: float) -> None:
    y0 = torch.tensor([1.0], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="LSODA': func is not finite at t="):
        qf.odeint(lambda t, y: torch.where(t > 0.5, bad, -y), y0, FORWARD, method="scipy_solver")


def test_scipys_lsoda_comes_back_from_a_singularity() -> None:
    """y' = y², which is 1/(1 - t): LSODA alone would go on at one time for ever."""
    y0 = torch.tensor([1.0], dtype=torch.float64)
    times = torch.tensor([0.0, 2.0], dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"LSODA': no advance past t=0\.99"):
        qf.odeint(lambda t, y: y * y, y0, times, method="scipy_solver", rtol=1e-8, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize("t_dtype", [torch.float32, torch.float64])
def test_dtypes(t_dtype: torch.dtype, dtype: torch.dtype) -> None:
    """State and time may have different ones; the result has the state's."""
    start, tol = PROBLEMS["driven"][1], 1e-5
    t = FORWARD.to(t_dtype)
    ours, theirs = both(driven, start.to(dtype), t, method="rk4", options={"step_size": 0.05})
    assert ours.dtype == dtype
    assert torch.allclose(ours, theirs, rtol=1e-12 if dtype == torch.float64 else 1e-5)
    ours, theirs = both(driven, start.to(dtype), t, method="dopri5", rtol=tol, atol=tol)
    assert ours.dtype == dtype
    reference = exact(driven, start, t).to(dtype)
    error, error_there = ((y - reference).abs().max() for y in (ours, theirs))
    assert error < max(2 * error_there, 20 * tol)


def test_tolerances_of_every_tensor() -> None:
    """One number for every tensor of a tuple; tensors that broadcast otherwise."""

    def field(t, y):
        a, b = y
        return -a * torch.cos(5 * t), a.sum() * b - b**2

    y0 = (torch.ones(2, 2, dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64))
    reference = qf.odeint(field, y0, FORWARD, rtol=1e-11, atol=1e-12)
    loose = {"rtol": (1e-3, 1e-9), "atol": torch.tensor([1e-3, 1e-10])}
    for library in (qf, torchdiffeq):
        got = library.odeint(field, y0, FORWARD, **loose)
        assert (got[1] - reference[1]).abs().max() < 1e-5
    sizes = []
    for rtol in ((1e-9, 1e-9), (1e-3, 1e-3)):
        seen = []

        def counted(t, y, seen=seen):
            seen.append(t)
            return field(t, y)

        qf.odeint(counted, y0, FORWARD, rtol=rtol, atol=rtol)
        sizes.append(len(seen))
    assert sizes[0] > 2 * sizes[1]
    with pytest.raises(ValueError, match="rtol has 3 entries for 2 tensors"):
        qf.odeint(field, y0, FORWARD, rtol=(1e-3, 1e-3, 1e-3))


def test_the_norm_of_a_tuple_gets_the_tuple() -> None:
    def field(t, y):
        return y[1], -torch.sin(y[0]).expand(1)

    y0 = (torch.tensor(0.4, dtype=torch.float64).expand(1), torch.zeros(1, dtype=torch.float64))
    seen: dict[str, list] = {}
    for name, library in (("ours", qf), ("theirs", torchdiffeq)):
        calls: list = []

        def norm(parts, calls=calls):
            calls.append([tuple(part.shape) for part in parts])
            return max(part.abs().max() for part in parts)

        library.odeint(field, y0, FORWARD, method="dopri5", options={"norm": norm})
        seen[name] = calls[0]
    assert seen["ours"] == seen["theirs"] == [(1,), (1,)]


def test_the_default_norm_of_a_tuple_is_its_largest_part() -> None:
    """A large tensor that does nothing must not hide the error of a small one."""

    def field(t, y):
        return torch.cos(20 * t).expand(1) * y[0] ** 2, torch.zeros_like(y[1])

    y0 = (torch.ones(1, dtype=torch.float64), torch.zeros(10**4, dtype=torch.float64))
    reference = qf.odeint(field, (y0[0], y0[1][:1]), FORWARD, rtol=1e-11, atol=1e-11)[0]
    got = qf.odeint(field, y0, FORWARD, rtol=1e-7, atol=1e-7)[0]
    hidden = qf.odeint(field, y0, FORWARD, rtol=1e-7, atol=1e-7, method="dopri5",
                       options={"norm": lambda y: qf.rms_norm(torch.cat(y))})[0]  # fmt: skip
    assert (got - reference).abs().max() < 1e-6
    assert (hidden - reference).abs().max() > 3 * (got - reference).abs().max()


def test_backpropagation() -> None:
    field, y0 = PROBLEMS["driven"]
    for method, options in (
        ("rk4", {"step_size": 0.13, "interp": "linear"}),
        ("rk4", {"step_size": 0.13, "interp": "cubic"}),
        ("heun3", {"step_size": 0.1}),
        ("bosh3", {}),
    ):
        found = []
        for library in (qf, torchdiffeq):
            start = y0.clone().requires_grad_()
            end = library.odeint(field, start, FORWARD, method=method, options=options)
            end[[1, -1] if "interp" in options else [-1]].square().sum().backward()
            found.append(start.grad)
        allowed = 1e-12 if options else 1e-4
        assert torch.allclose(*found, rtol=allowed, atol=allowed), (method, options)


# -- events ---------------------------------------------------------------------------------------


class Ball(torch.nn.Module):
    """A ball under gravity and drag; it meets the ground, whose height is a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.gravity = torch.nn.Parameter(torch.tensor(9.8, dtype=torch.float64))
        self.drag = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, t, y):
        return torch.stack((y[1], -self.gravity - self.drag * y[1] + 0.3 * torch.sin(t)))

    def ground(self, t, y):
        return y[0] + 0.05 * t


START = torch.tensor([3.0, 1.0], dtype=torch.float64)


def event_gradients(odeint_event, **arguments) -> list[Tensor]:
    ball, y0 = Ball(), START.clone().requires_grad_()
    event_t, states = odeint_event(
        ball, y0, torch.tensor(0.0, dtype=torch.float64), event_fn=ball.ground,
        rtol=1e-10, atol=1e-12, **arguments,
    )  # fmt: skip
    assert states.shape == (2, 2) and event_t.dtype == torch.float64
    (event_t + states[-1] @ torch.tensor([2.0, 0.3], dtype=torch.float64)).backward()
    return [event_t.detach(), states.detach(), y0.grad, ball.gravity.grad, ball.drag.grad]


def test_gradients_through_the_time_of_an_event_with_their_solver() -> None:
    ours = event_gradients(odeint_event, odeint_interface=torchdiffeq.odeint)
    theirs = event_gradients(torchdiffeq.odeint_event)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("how", [
    {"method": "dopri5"}, {"method": "dopri8"}, {"method": "rk4", "options": {"step_size": 0.01}},
    {"method": "implicit_adams", "options": {"step_size": 0.01, "max_order": 5}},
], ids=lambda how: how["method"])  # fmt: skip
def test_event_gradients_are_torchdiffeqs(interface: str, how: dict) -> None:
    """theirs on linear interpolation at fixed steps: as near as that is."""
    mine = event_gradients(
        qf.odeint_event, odeint_interface=getattr(qf, interface), **how
    )  # fmt: skip
    theirs = event_gradients(
        torchdiffeq.odeint_event, odeint_interface=torchdiffeq.odeint, method="dopri5"
    )
    for ours, other in zip(mine, theirs, strict=True):
        assert torch.allclose(ours, other, rtol=1e-7, atol=1e-8), (ours, other)


def to_event(event_fn, y0, t, func=None, **how):
    """Time and states by both libraries, of which ours come first."""
    tight = {"rtol": 1e-9, "atol": 1e-9, "event_fn": event_fn, **how}
    found = []
    for library in (qf, torchdiffeq):
        found.append(library.odeint(func or Ball(), y0, t, **tight))
        if "options" in how:  # theirs is linear by default
            tight["options"] = {**how["options"], "interp": "cubic"}
    return found


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("how", [
    {}, {"method": "rk4", "options": {"step_size": 0.001}},
    {"method": "explicit_adams", "options": {"step_size": 0.001, "max_order": 4}},
], ids=str)  # fmt: skip
def test_odeint_ends_at_the_first_of_several_events(how: dict, backward: bool) -> None:
    """Entries of both signs, in either direction of time; t's second time says the direction."""
    t = torch.tensor([0.0, -7.0 if backward else 1e-3], dtype=torch.float64)

    def event_fn(t, y):
        return torch.stack((y[0] - 2.9, 3.02 - y[0], y[1] + 30.0))

    (when, states), (theirs, their_states) = to_event(event_fn, START, t, **how)
    assert when.shape == theirs.shape == () and states.shape == their_states.shape == (2, 2)
    assert abs(when - theirs) < 2e-7 and (states - their_states).abs().max() < 2e-6
    assert states[-1, 0].isclose(torch.tensor(2.9 if backward else 3.02).double(), atol=1e-7)


def test_an_event_at_the_start_ends_at_once() -> None:
    t = torch.tensor([0.5, 1.0], dtype=torch.float64, requires_grad=True)

    def event_fn(t, y):
        return torch.stack((y[0] + 1, y[1] - 1))

    for when, states in to_event(event_fn, START, t):
        assert when == 0.5 and torch.equal(states, torch.stack((START, START)))
    y0 = START.clone().requires_grad_()
    for interface in (qf.odeint, qf.odeint_adjoint):
        when, states = qf.odeint_event(Ball(), y0, t[0], event_fn=event_fn,
                                       odeint_interface=interface)  # fmt: skip
        (gradient,) = torch.autograd.grad(states.sum(), y0)
        assert torch.equal(gradient, torch.full_like(START, 2.0))


def test_events_of_tuple_states_and_in_float32() -> None:
    def func(t, y):
        return y[1], -torch.sin(y[0])

    t = torch.tensor([0.0, 1.0], dtype=torch.float32)
    for dtype, allowed in ((torch.float64, 1e-7), (torch.float32, 2e-5)):
        y0 = (torch.ones(2, dtype=dtype), torch.zeros(2, dtype=dtype))
        found = to_event(lambda t, y: y[0].sum() + y[1], y0, t, func, rtol=1e-6, atol=1e-7)
        for when, (first, second) in found:
            assert when.dtype == torch.float32 and first.dtype == second.dtype == dtype
            assert first.shape == (2, 2)
        assert abs(found[0][0] - found[1][0]) < 2e-6
        assert (found[0][1][0] - found[1][1][0]).abs().max() < 10 * allowed + 2e-6


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"t": torch.tensor([0.0])}, "must hold two times, got 1"),
        ({"t": torch.tensor([0.0, 1.0, 2.0])}, "must hold two times, got 3"),
        ({"t": torch.tensor([1.0, 1.0])}, "where to start and which way"),
        ({"method": "rk4"}, r"fixed steps need options\['step_size'\]"),
        ({"method": "rk4", "options": {"step_size": 0.1, "interp": "linear"}}, "has no use with"),
        ({"method": "scipy_solver"}, "has no events"),
        ({"event_fn": lambda t, y: (y > 0).long()}, "real floating tensor, got dtype torch.int64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("interface", [qf.odeint, qf.odeint_adjoint])
def test_what_events_refuse(interface, how: dict, match: str) -> None:
    given = {"t": torch.tensor([0.0, 1.0]), "event_fn": Ball().ground, **how}
    with pytest.raises((ValueError, TypeError), match=match):
        interface(Ball(), START, **given)


def test_an_event_that_never_comes() -> None:
    with pytest.raises(qf.SolveError, match="max_steps=40"):
        qf.odeint(Ball(), START, torch.tensor([0.0, 1.0]), event_fn=lambda t, y: y[0] + 1e9 + t,
                  options={"max_num_steps": 40, "max_step": 1.0})  # fmt: skip


# -- times that steps land on --------------------------------------------------------------------


def jumping(t: Tensor, y: Tensor) -> Tensor:
    """f jumps at t = 0.7."""
    return torch.where(t < 0.7, torch.cos(3 * t) - 0.5 * y, 4.0 - y**2)


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("method", FIXED)
def test_perturb(method: str, times: str) -> None:
    """A jump on the grid: the step before it and the step after it see one side each."""
    t = TIMES[times][[0, -1]]
    y0 = torch.tensor([0.5, 1.0], dtype=torch.float64)
    ends = {}
    for perturb in (False, True):
        options = {"step_size": 0.1, "perturb": perturb}
        ours, theirs = both(jumping, y0, t, method=method, options=options)
        assert (ours - theirs).abs().max() < 1e-9
        ends[perturb] = ours[-1]
    if times == "reversed" and method != "midpoint":  # forward the grid passes 0.7 by a rounding
        assert (ends[True] - ends[False]).abs().max() > 1e-4
    older = qf.odeint(jumping, y0, t, method=method, options={"step_size": 0.1, "eps": 1e-6})
    assert torch.equal(older[-1], ends[True])


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("option", ["jump_t", "grid_points", "step_t"])
def test_times_to_land_on(option: str, times: str) -> None:
    t = TIMES[times]
    y0 = torch.tensor([0.5, 1.0], dtype=torch.float64)
    landed = torch.tensor([-3.0, 0.7, 1.3, 9.0], dtype=torch.float64)
    starts: list[float] = []

    class Watched(torch.nn.Module):
        def forward(self, t, y):
            return jumping(t, y)

        def callback_accept_step(self, t0, y0, dt):
            starts.append(float(t0))

    tol = 1e-8
    found = qf.odeint(Watched(), y0, t, rtol=tol, atol=tol, method="dopri5",
                      options={option: landed})  # fmt: skip
    assert {0.7, 1.3} <= set(starts)
    parts = [float(t[0]), 0.7, float(t[-1])]
    side = [lambda t, y: torch.cos(3 * t) - 0.5 * y, lambda t, y: 4.0 - y**2]
    state = y0
    for field, ends in zip(side if times == "forward" else side[::-1],
                           itertools.pairwise(parts), strict=True):  # fmt: skip
        state = qf.solve(field, state, ends, method="dopri8", rtol=1e-12, atol=1e-13).y[-1]
    # the velocity at a time landed on is reused after it, unless it is one where func jumps
    assert (found[-1] - state).abs().max() < (50 * tol if option == "jump_t" else 1e-5)
    if option != "grid_points":
        theirs = torchdiffeq.odeint(jumping, y0, t, rtol=tol, atol=tol, method="dopri5",
                                    options={option: landed})  # fmt: skip
        assert (found - theirs).abs().max() < 1e-5


# -- callbacks ------------------------------------------------------------------------------------


class Told(torch.nn.Module):
    def __init__(self, field, names) -> None:
        super().__init__()
        self.field, self.heard = field, {name: [] for name in names}
        for name in names:
            setattr(self, name, lambda *given, name=name: self.heard[name].append(given))

    def forward(self, t, y):
        return self.field(t, y)


@pytest.mark.parametrize("times", TIMES)
def test_callbacks_of_fixed_steps(times: str) -> None:
    field, y0 = PROBLEMS["driven"]
    heard = []
    for library in (qf, torchdiffeq):
        func = Told(field, ["callback_step"])
        library.odeint(func, y0, TIMES[times], method="rk4", options={"step_size": 0.1})
        heard.append(func.heard["callback_step"])
    assert len(heard[0]) == len(heard[1]) == 25
    for mine, other in zip(*heard, strict=True):
        assert all(isinstance(given, Tensor) for given in mine)
        for a, b in zip(mine, other, strict=True):
            assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-12, atol=1e-14)
    with pytest.warns(UserWarning, match="does not call callback_reject_step"):
        qf.odeint(Told(field, ["callback_reject_step"]), y0, TIMES[times], method="rk4")
    with pytest.warns(UserWarning, match="'scipy_solver' does not call callback_step"):
        qf.odeint(Told(field, ["callback_step"]), y0, TIMES[times], method="scipy_solver")


@pytest.mark.parametrize("times", TIMES)
def test_callbacks_of_adaptive_steps(times: str) -> None:
    field, y0 = PROBLEMS["driven"]
    t = TIMES[times]
    names = ["callback_step", "callback_accept_step", "callback_reject_step"]
    func = Told(lambda t, y: (field(t, y[0]) * (1 + 8 * torch.exp(-((t - 1.5) ** 2) * 400)),),
                names)  # fmt: skip
    qf.odeint(func, (y0,), t, rtol=1e-6, atol=1e-6)
    tried, accepted, rejected = (func.heard[name] for name in names)
    assert len(tried) == len(accepted) + len(rejected) and rejected
    sign = 1.0 if times == "forward" else -1.0
    where = float(t[0])
    for t0, state, size in accepted:
        assert float(t0) == pytest.approx(where, abs=1e-12) and float(size) > 0
        assert isinstance(state, tuple) and state[0].shape == y0.shape
        where += sign * float(size)
    assert where == pytest.approx(float(t[-1]))
    assert torch.equal(accepted[0][1][0], y0)
