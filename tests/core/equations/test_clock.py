"""Times that require grad: the clock alone, and solves that are differentiated in their times."""

from __future__ import annotations

import pytest
import torch

import quadflow as qf
from quadflow.equations.clock import Clock

F64 = torch.float64
Y0 = torch.tensor([0.5, 0.3], dtype=F64)


def f(t, y):
    """Nonlinear and non-autonomous, on the last axis of y."""
    t = torch.as_tensor(t)
    t = t.reshape(t.shape[:1] if t.dim() else ())
    return torch.stack((y[..., 1] * torch.cos(t), -(y[..., 0] ** 2) + torch.sin(2 * t)), -1)


def times(*values: float, dtype: torch.dtype = F64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, requires_grad=True)


# -- the clock alone -----------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(0.1, 0.8, 1.9), (1.9, 0.8, 0.1), (-1e3, 3.3, 1e5)])
def test_values_are_untouched(values: tuple[float, ...]) -> None:
    """Bit for bit: a solve with differentiable times takes the steps of one without."""
    clock = Clock(times(*values))
    assert clock.times == list(values)
    velocity = clock.wrap(f)
    for i in range(2):
        clock.enter(i)
        for theta in (0.0, 0.1, 1 / 3, 0.7, 1.0):
            tau = values[i] + theta * (values[i + 1] - values[i])
            assert float(clock.time(tau).detach()) == tau
            assert torch.equal(velocity(tau, Y0), f(torch.tensor(tau, dtype=F64), Y0))


@pytest.mark.parametrize("kind", ["float", "0-dimensional", "nodes"])
def test_time_and_velocity_follow_both_ends(kind: str) -> None:
    """Against the formula: time = t_i + θ (t_(i+1) - t_i), velocity = slope · f."""
    t = times(0.2, 1.0, 2.6)
    clock = Clock(t)
    clock.enter(1)
    tau = {"float": 1.4, "0-dimensional": torch.tensor(1.4, dtype=F64),
           "nodes": torch.tensor([1.2, 1.4, 2.0], dtype=F64).reshape(3, 1)}[kind]  # fmt: skip
    theta = (torch.as_tensor(tau, dtype=F64) - 1.0) / 1.6
    time = clock.time(tau)
    assert time.shape == theta.shape
    (gradient,) = torch.autograd.grad(time.sum(), t, retain_graph=True)
    expected = torch.stack((torch.zeros(()), (1 - theta).sum(), theta.sum()))
    assert torch.allclose(gradient, expected, rtol=1e-14)

    y = Y0 if kind != "nodes" else torch.stack((Y0, 2 * Y0, -Y0))
    (got,) = torch.autograd.grad(clock.wrap(f)(tau, y).sum(), t)
    left, right = t.detach()[1].requires_grad_(), t.detach()[2].requires_grad_()
    direct = (right - left) / 1.6 * f(left + theta * (right - left), y)
    expected = torch.stack(torch.autograd.grad(direct.sum(), (left, right)))
    assert got[0] == 0
    assert torch.allclose(got[1:], expected, rtol=1e-13)


def test_containers_dtypes_and_arguments_pass_through() -> None:
    clock = Clock(times(0.0, 1.0, dtype=torch.float32))
    half, complexes = torch.ones(2, dtype=torch.float16), torch.ones(3, dtype=torch.complex64)

    def func(t, y, factor):
        assert t.dtype == torch.float32
        return {"a": (y[0] * factor, y[1]), "b": [y[1] * 1j]}

    value = clock.wrap(func)(torch.tensor(0.5), (half, complexes), 3)
    assert set(value) == {"a", "b"}
    assert isinstance(value["a"], tuple) and isinstance(value["b"], list)
    assert torch.equal(value["a"][0], 3 * half) and value["a"][0].dtype == torch.float16
    assert torch.equal(value["b"][0], 1j * complexes) and value["b"][0].dtype == torch.complex64
    assert Clock(times(0.0, 1.0)).wrap(lambda t, y: None)(0.5, half) is None


def test_the_wrapped_function_can_be_vmapped() -> None:
    t = times(0.0, 1.0)
    nodes, states = torch.linspace(0, 1, 4, dtype=F64), torch.randn(4, 2, dtype=F64)
    velocity = Clock(t).wrap(f)
    together = torch.func.vmap(velocity)(nodes, states)
    one_by_one = torch.stack([velocity(n, y) for n, y in zip(nodes, states, strict=True)])
    assert torch.allclose(together, one_by_one, rtol=1e-14)
    grads = [torch.autograd.grad(v.sum(), t, retain_graph=True)[0] for v in (together, one_by_one)]
    assert torch.allclose(*grads, rtol=1e-13)


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"real floating tensor.*complex64"):
        Clock(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match=r"real floating tensor.*list"):
        Clock([0.0, 1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least two times, got shape \(1,\)"):
        Clock(times(1.0))
    with pytest.raises(IndexError, match="interval 2 does not exist: 3 times have 2 intervals"):
        Clock(times(0.0, 1.0, 2.0)).enter(2)

    class Detailed:
        def evaluate(self, t, y):
            return y, None

    with pytest.raises(TypeError, match="Detailed, whose `evaluate` takes times without gradient"):
        Clock(times(0.0, 1.0)).wrap(Detailed())  # type: ignore[arg-type]


# -- solves --------------------------------------------------------------------------------------

FIXED = ["euler", "heun", "rk4", "dopri5", "dopri8", "ab3", "pec2", "pece3", "gauss2", "lobatto4",
         "radau3"]  # fmt: skip


@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_gradcheck_of_fixed_steps(method: str, backward: bool) -> None:
    """Steps from requested time to requested time, so coarse that only the derivative of the
    discretisation itself passes."""
    t = times(0.0, 0.4, 1.1, 1.5)
    t = t.detach().flip(0).requires_grad_() if backward else t

    def run(t, y0):
        return qf.solve(f, y0, t, method=method, grid=t.detach()).y

    assert torch.autograd.gradcheck(run, (t, Y0.clone().requires_grad_()))


@pytest.mark.parametrize("method", ["rk4", "gauss2"])
def test_gradgradcheck_of_fixed_steps(method: str) -> None:
    def run(t):
        return qf.solve(f, Y0, t, method=method, grid=t.detach()).y[1:]

    assert torch.autograd.gradgradcheck(run, (times(0.0, 0.4, 1.1),))


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "pece4", "gauss6"])
def test_gradient_of_adaptive_steps(method: str) -> None:
    """dy(t_i)/dt_i = f(t_i, y_i), and nothing of the other later times; dy/dt_0 by differences."""
    t = times(0.0, 0.7, 1.6)
    y = qf.solve(f, Y0, t, method=method, rtol=1e-10, atol=1e-12).y
    plain = qf.solve(f, Y0, t.detach(), method="dopri8", rtol=1e-12, atol=1e-13).y
    assert (y - plain).abs().max() < 1e-7
    first = torch.tensor([1e-4, 0, 0], dtype=F64)
    moved = [
        qf.solve(f, Y0, t.detach() + sign * first, method="dopri8", rtol=1e-13, atol=1e-14).y
        for sign in (1, -1)
    ]
    by_first = (moved[0] - moved[1]) / 2e-4
    for i in (1, 2):
        for j in range(2):
            (gradient,) = torch.autograd.grad(y[i, j], t, retain_graph=True)
            expected = torch.zeros(3, dtype=F64)
            expected[0], expected[i] = by_first[i, j], f(t.detach()[i], plain[i])[j]
            assert torch.allclose(gradient, expected, rtol=0, atol=1e-6), (i, j, gradient, expected)


def test_state_at_the_first_time_has_no_gradient_in_it() -> None:
    t = times(0.0, 1.0)
    y = qf.solve(f, Y0, t, method="rk4", step_size=0.25).y
    assert torch.equal(torch.autograd.grad(y[0].sum() + 0 * y[1].sum(), t)[0], torch.zeros(2))


def test_times_in_float32_and_states_in_float32() -> None:
    t = times(0.0, 0.5, 1.0, dtype=torch.float32)
    y = qf.solve(f, Y0.float(), t, method="rk4", step_size=0.1).y
    (gradient,) = torch.autograd.grad(y[-1].sum(), t)
    exact = times(0.0, 0.5, 1.0)
    reference = qf.solve(f, Y0, exact, method="rk4", step_size=0.1).y
    (expected,) = torch.autograd.grad(reference[-1].sum(), exact)
    assert gradient.dtype == torch.float32
    assert torch.allclose(gradient.double(), expected, atol=1e-5)


def test_tuple_states() -> None:
    def g(t, y):
        return y[1].sum(0, keepdim=True) * torch.cos(t), -y[0] * y[1]

    def run(t):
        y = qf.solve(g, (Y0[:1], Y0), t, method="rk4", grid=t.detach()).y
        return y[0], y[1]

    assert torch.autograd.gradcheck(run, (times(0.0, 0.5, 0.9),))


def test_through_torch_func() -> None:
    def last(t):
        return qf.solve(f, Y0, t, method="rk4", step_size=0.1).y[-1].sum()

    t = times(0.0, 0.5, 1.0)
    (expected,) = torch.autograd.grad(last(t), t)
    assert torch.allclose(torch.func.grad(last)(t.detach()), expected, rtol=1e-13)
