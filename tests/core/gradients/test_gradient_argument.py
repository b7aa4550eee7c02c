"""`gradient` of `solve`: the adjoint and forward sensitivities against closed forms, and what is
refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quadflow as qf

F64 = torch.float64
TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11}
WAYS = ["adjoint", "forward"]


def growth(t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
    """Logistic growth."""
    return rate * y * (1 - y)


def logistic(t: Tensor | float, y0: Tensor, rate: Tensor) -> Tensor:
    """Its solution in closed form."""
    t = torch.as_tensor(t, dtype=F64).reshape(-1, 1)
    return 1 / (1 + (1 / y0 - 1) * torch.exp(-rate * t))


def leaves() -> tuple[Tensor, Tensor]:
    return (
        torch.tensor([0.2, 0.6], dtype=F64, requires_grad=True),
        torch.tensor([1.5, -0.7], dtype=F64, requires_grad=True),
    )


def weighted(y: Tensor) -> Tensor:
    """A loss that depends on every number in another way."""
    return (torch.arange(1, y.numel() + 1, dtype=F64).reshape(y.shape) * y).sum()


def errors(found: Tensor, exact: Tensor, sources: tuple[Tensor, ...]) -> list[float]:
    """The largest error of the gradient of `weighted` in every source."""
    got = torch.autograd.grad(weighted(found), sources, retain_graph=True)
    wanted = torch.autograd.grad(weighted(exact), sources, retain_graph=True)
    return [float((a - b).abs().max()) for a, b in zip(got, wanted, strict=True)]


@pytest.mark.parametrize("gradient", WAYS)
@pytest.mark.parametrize("method", ["dopri5", "gauss", "pece4", "adams"])
def test_closed_form(method: str, gradient: str) -> None:
    y0, rate = leaves()
    sol = qf.solve(
        growth, y0, (0.0, 0.5, 2.0), args=(rate,), method=method, gradient=gradient, **TIGHT
    )
    exact = logistic(torch.tensor([0.0, 0.5, 2.0]), y0, rate)
    assert max(errors(sol.y, exact, (y0, rate))) < 2e-7
    assert torch.equal(sol.y_reached, sol.y[-1]) and sol.y_reached.requires_grad


@pytest.mark.parametrize("method", ["dopri8", "gauss4", "ab3"])
def test_forward_sensitivities_are_those_of_the_discrete_solution(method: str) -> None:
    y0, rate = leaves()
    how: dict[str, Any] = {"args": (rate,), "method": method, "step_size": 0.25}
    steps = qf.solve(growth, y0, (0.0, 1.1), **how).y
    forward = qf.solve(growth, y0, (0.0, 1.1), **how, gradient="forward").y
    assert max(errors(forward, steps, (y0, rate))) < 1e-13


def test_exact_adjoint() -> None:
    y0, rate = leaves()
    gauss = qf.collocation(qf.gauss_legendre(2), "converged")
    how: dict[str, Any] = {"args": (rate,), "method": gauss, "step_size": 0.5}
    steps = qf.solve(growth, y0, (0.0, 0.7, 2.0), breakpoints=(0.7,), **how).y
    adjoint = qf.solve(growth, y0, (0.0, 0.7, 2.0), gradient="adjoint", **how).y
    assert max(errors(adjoint, steps, (y0, rate))) < 1e-12
    # asked for other steps, the gradient is that of the exact solution, not of these
    other = qf.Adjoint(method="dopri8", rtol=1e-10, atol=1e-12)
    adjoint = qf.solve(growth, y0, (0.0, 0.7, 2.0), gradient=other, **how).y
    assert max(errors(adjoint, steps, (y0, rate))) > 1e-7


def test_error_control_of_the_sensitivities() -> None:
    """y' = -k y with a column k·t e^(-kt) that moves while y itself, at 1e-9, is below atol."""
    y0 = torch.tensor([1e-9], dtype=F64)
    shift = torch.tensor(0.0, dtype=F64, requires_grad=True)

    def func(t: Tensor, y: Tensor, shift: Tensor) -> Tensor:
        return torch.sin(20 * t) * shift - y

    def run(gradient: Any) -> tuple[float, int]:
        sol = qf.solve(
            func, y0, (0.0, 3.0), args=(shift,), method="dopri5", rtol=1e-6, atol=1e-8,
            gradient=gradient,
        )  # fmt: skip
        exact = (torch.exp(torch.tensor(-3.0, dtype=F64)) * 20 + torch.sin(60 * one)) / 401
        exact = exact - 20 * torch.cos(60 * one) / 401
        got = torch.autograd.grad(sol.y[-1].sum(), shift)[0]
        return abs(float(got - exact)), sol.stats.accepted

    one = torch.ones((), dtype=F64)
    (error, steps), (loose, few) = run("forward"), run(qf.Forward(error_control=False))
    assert error < 1e-6 and error < loose
    assert steps > 2 * few


def test_memory_does_not_grow_with_the_steps() -> None:
    """What autograd saves for the backward pass."""
    y0, rate = leaves()

    def saved(gradient: str, size: float) -> int:
        count = 0

        def pack(x: Tensor) -> Tensor:
            nonlocal count
            count += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            y = qf.solve(
                growth, y0, (0.0, 1.0), args=(rate,), method="rk4", step_size=size,
                gradient=gradient,
            ).y  # fmt: skip
        assert y.requires_grad
        return count

    for gradient in WAYS:
        assert 0 < saved(gradient, 0.25) == saved(gradient, 0.05)
    assert saved("backprop", 0.25) < saved("backprop", 0.05)


@pytest.mark.parametrize("gradient", WAYS)
def test_modules_and_structures(gradient: str) -> None:
    """Parameters of func and of a module in args, a tuple state, a tensor of tolerances."""

    class Pull(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.8, dtype=F64))

        def forward(self, t: Tensor, y: tuple[Tensor, ...], other: nn.Module) -> Any:
            return (self.rate * y[1], -self.rate * y[0] + other(y[0]))

    pull, other = Pull(), nn.Linear(2, 2, bias=False).double()
    y0 = leaves()[0]
    sources = (y0, pull.rate, other.weight)
    rtol = torch.full((4,), 1e-9, dtype=F64)

    def run(gradient: str) -> tuple[Tensor, ...]:
        sol = qf.solve(
            pull, (y0, 2 * y0), (0.0, 1.0), args=(other,), rtol=rtol, atol=1e-11,
            gradient=gradient,
        )  # fmt: skip
        return torch.autograd.grad(weighted(sol.y[0]) + weighted(sol.y[1].cos()), sources)

    for one, two in zip(run(gradient), run("backprop"), strict=True):
        assert torch.allclose(one, two, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("apart", [False, True])
def test_adjoint_of_samples_with_steps_of_their_own(apart: bool) -> None:
    _, rate = leaves()
    y0 = torch.tensor([[0.2, 0.6], [0.1, 0.9], [0.5, 0.3]], dtype=F64, requires_grad=True)
    t = torch.tensor([[0.0, 0.1, 0.2], [1.0, 1.5, 2.0], [1.5, 2.5, 3.0]], dtype=F64)
    times: Any = t if apart else (0.0, 1.0, 1.5)
    sol = qf.solve(
        growth, y0, times, args=(rate,), batch_dims=1, gradient="adjoint", method="dopri5",
        rtol=torch.tensor([1e-9, 1e-8, 1e-9], dtype=F64), atol=1e-11,
    )  # fmt: skip
    spent = (t - t[0])[..., None] if apart else torch.tensor(times, dtype=F64)[:, None, None]
    exact = 1 / (1 + (1 / y0 - 1) * torch.exp(-rate * spent))
    assert max(errors(sol.y, exact.expand(3, 3, 2), (y0, rate))) < 1e-6


@pytest.mark.parametrize("terminal", [False, True])
def test_adjoint_of_events(terminal: bool) -> None:
    """When and where y = level: t = (log(level/(1-level)) - log(y0/(1-y0)))/rate."""
    y0 = torch.tensor([0.2], dtype=F64, requires_grad=True)
    rate = torch.tensor([1.5], dtype=F64, requires_grad=True)
    level = torch.tensor(0.7, dtype=F64, requires_grad=True)
    event = qf.Event(lambda t, y: y[0] - level, terminal=terminal)
    sol = qf.solve(
        growth, y0, (0.0, 0.5, 2.0), args=(rate,), events=event, gradient="adjoint",
        method="dopri8", **TIGHT,
    )  # fmt: skip
    when = (torch.logit(level) - torch.logit(y0)) / rate
    sources = (y0, rate, level)
    assert max(errors(sol.t_events[0], when, sources)) < 1e-7
    by_level = torch.autograd.grad(sol.y_events[0].sum(), level, retain_graph=True)[0]
    assert abs(float(by_level) - 1) < 1e-7
    if terminal:
        assert max(errors(sol.t[-1:], when, sources)) < 1e-7
    assert len(sol.t) == 3


def test_adjoint_in_the_times_and_across_a_jump() -> None:
    y0, rate = leaves()
    t = torch.tensor([0.0, 0.5, 2.0], dtype=F64, requires_grad=True)
    sol = qf.solve(growth, y0, t, args=(rate,), gradient="adjoint", **TIGHT)
    exact = logistic(t.reshape(-1, 1) - t[0], y0, rate)
    assert max(errors(sol.y, exact, (t, y0, rate))) < 2e-7

    def jumping(t: Tensor, y: Tensor, rate: Tensor) -> Tensor:
        return torch.where(t < 0.5, rate, -2 * rate) * y

    for gradient in WAYS:
        sol = qf.solve(
            jumping, y0, (0.0, 0.5, 2.0), args=(rate,), breakpoints=(0.5,), gradient=gradient,
            method="dopri8", **TIGHT,
        )  # fmt: skip
        exact = y0 * torch.exp(rate * (0.5 - 2 * 1.5))
        assert max(errors(sol.y[-1], exact, (y0, rate))) < 2e-7


def test_a_compiled_forward_solve() -> None:
    y0, rate = leaves()
    sol = qf.solve(
        growth, y0, (0.0, 1.0), args=(rate,), method="dopri5", compile={"backend": "eager"},
        gradient="adjoint", **TIGHT,
    )  # fmt: skip
    assert max(errors(sol.y, logistic(torch.tensor([0.0, 1.0]), y0, rate), (y0, rate))) < 2e-7


@pytest.mark.parametrize("gradient", WAYS)
def test_a_tensor_that_nothing_names(gradient: str) -> None:
    """Its gradient would be zero without a word."""
    y0, rate = leaves()
    how: dict[str, Any] = {"gradient": gradient}
    with pytest.raises(ValueError, match=r"shape \(2,\) that requires grad .* pass it in args"):
        qf.solve(lambda t, y: rate * y, y0, (0.0, 1.0), **how)
    with torch.no_grad():
        assert not qf.solve(lambda t, y: rate * y, y0, (0.0, 1.0), **how).y.requires_grad
    if gradient == "adjoint":
        way = qf.Adjoint(params=[rate])
        y = qf.solve(lambda t, y: rate * y, y0, (0.0, 1.0), gradient=way, **TIGHT).y[-1]
        assert max(errors(y, y0 * torch.exp(rate), (y0, rate))) < 2e-7


def test_a_failed_solve_has_the_gradients_of_what_was_reached() -> None:
    y0, rate = leaves()
    for gradient in (qf.Adjoint(max_steps=1000), "forward"):
        sol = qf.solve(
            growth, y0, (0.0, 0.01, 50.0), args=(rate,), max_steps=12, throw=False,
            gradient=gradient, method="dopri5", **TIGHT,
        )  # fmt: skip
        assert not sol.success and len(sol.y) == 2
        exact = logistic(torch.tensor([0.0, 0.01]), y0, rate)
        assert max(errors(sol.y, exact, (y0, rate))) < 2e-7


T_GRAD = torch.tensor([0.0, 1.0], dtype=F64, requires_grad=True)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"gradient": "adjiont"}, "did you mean 'adjoint'"),
        ({"gradient": "adjoint", "dense_output": True}, "'adjoint' and dense_output=True"),
        ({"gradient": "forward", "dense_output": True}, "'forward' and dense_output=True"),
        ({"gradient": "forward", "events": lambda t, y: y[0]}, "'forward' and events"),
        ({"gradient": "forward", "batch_dims": 1}, "'forward' and batch_dims=1"),
        ({"gradient": "forward", "compile": True}, "'forward' and compile=True"),
        ({"gradient": "forward", "t": T_GRAD}, "'forward' and a t that requires grad"),
        (
            {"gradient": "adjoint", "batch_dims": 1, "events": lambda t, y: y[..., 0]},
            "'adjoint' and events with batch_dims=1",
        ),
        ({"gradient": "adjoint", "batch_dims": 1, "t": T_GRAD}, "detach t"),
        ({"gradient": qf.Forward(params=[torch.ones(1, requires_grad=True)])}, "pass it in args"),
        ({"gradient": qf.Adjoint(rtol=-1.0)}, "Adjoint.rtol must be positive"),
    ],
)
def test_refusals(keywords: dict[str, Any], match: str) -> None:
    y0, rate = leaves()
    keywords = {"t": (0.0, 1.0), "args": (rate,), **keywords}
    with pytest.raises(ValueError, match=match):
        qf.solve(growth, y0, **keywords)
    with pytest.raises(TypeError, match="gradient must be one of"):
        qf.solve(growth, y0, (0.0, 1.0), args=(rate,), gradient=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("gradient", WAYS)
def test_transforms_and_second_derivatives_are_refused(gradient: str) -> None:
    y0, rate = leaves()

    def last(rate: Tensor) -> Tensor:
        return qf.solve(growth, y0.detach(), (0.0, 1.0), args=(rate,), gradient=gradient).y[-1]

    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.vmap):
        with pytest.raises(ValueError, match=r"torch.func's transforms: take gradient='backprop'"):
            transform(last)(rate.detach())
    first = torch.autograd.grad(last(rate).sum(), rate, create_graph=True)[0]
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        first.sum().backward()


def test_no_warning_on_the_way() -> None:
    y0, rate = leaves()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for gradient in WAYS:
            y = qf.solve(growth, y0, (0.0, 1.0), args=(rate,), gradient=gradient).y
            weighted(y).backward()
