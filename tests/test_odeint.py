"""`odeint` against torchdiffeq: the same contract, the same answers."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq

import quadflow as qf

Y0 = torch.tensor([[1.0, 0.5], [0.2, -0.3]], dtype=torch.float64)
T = torch.tensor([0.0, 0.4, 1.0, 2.5], dtype=torch.float64)


def f(t, y):
    return torch.stack((-(y[0] ** 2) * torch.cos(t), y[0] * y[1] + torch.sin(3 * t)))


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
@pytest.mark.parametrize("times", [T, T.flip(0)], ids=["forward", "reversed"])
def test_adaptive_methods_agree(method: str, times: torch.Tensor) -> None:
    ours = qf.odeint(f, Y0, times, rtol=1e-9, atol=1e-10, method=method)
    theirs = torchdiffeq.odeint(f, Y0, times, rtol=1e-9, atol=1e-10, method=method)
    assert ours.shape == theirs.shape == (4, 2, 2)
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours[0], Y0)
    exact = qf.odeint(f, Y0, times, rtol=1e-13, atol=1e-14, method="dopri8")
    assert (ours - exact).abs().max() < 3e-8
    # torchdiffeq's dopri8 reads requested times off a quartic interpolant: 3e-6 off here
    assert (ours - theirs).abs().max() < (1e-7 if method == "dopri5" else 1e-5)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_fixed_steps_between_the_times(method: str) -> None:
    """Without step_size the times are the grid, in both libraries."""
    ours = qf.odeint(f, Y0, T, method=method)
    theirs = torchdiffeq.odeint(f, Y0, T, method=method)
    assert (ours - theirs).abs().max() < 1e-13


@pytest.mark.parametrize("method", ["euler", "midpoint"])
@pytest.mark.parametrize("sign", [1, -1])
def test_fixed_steps_of_a_size(method: str, sign: int) -> None:
    times = sign * torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
    ours = qf.odeint(f, Y0, times, method=method, options={"step_size": 0.125})
    theirs = torchdiffeq.odeint(f, Y0, times, method=method, options={"step_size": 0.125})
    assert (ours - theirs).abs().max() < 1e-13


def test_grid_constructor() -> None:
    def grid(func, y0, t):
        return torch.linspace(t[0], t[-1], 26, dtype=torch.float64)

    times = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
    ours = qf.odeint(f, Y0, times, method="midpoint", options={"grid_constructor": grid})
    theirs = torchdiffeq.odeint(f, Y0, times, method="midpoint", options={"grid_constructor": grid})
    assert (ours - theirs).abs().max() < 1e-13


def test_rk4_is_the_classical_one() -> None:
    """torchdiffeq's rk4 is the 3/8 rule: the two differ by their error, not by more."""
    options = {"step_size": 0.05}
    ours = qf.odeint(f, Y0, T, method="rk4", options=options)
    theirs = torchdiffeq.odeint(f, Y0, T, method="rk4", options=options)
    exact = qf.odeint(f, Y0, T, method="dopri8", rtol=1e-12, atol=1e-13)
    assert (ours[-1] - theirs[-1]).abs().max() < 5e-6
    assert (ours[-1] - exact[-1]).abs().max() < 5e-6


def test_tuple_states() -> None:
    def g(t, y):
        a, b = y
        return -a * torch.cos(t), a.sum() * b - b**2

    y0 = (Y0, torch.tensor(0.7, dtype=torch.float64))
    ours = qf.odeint(g, y0, T, method="dopri5", rtol=1e-9, atol=1e-10)
    theirs = torchdiffeq.odeint(g, y0, T, method="dopri5", rtol=1e-9, atol=1e-10)
    assert isinstance(ours, tuple)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() < 1e-7


def test_options_of_adaptive_steps_arrive() -> None:
    options = {"first_step": 0.01, "max_num_steps": 10_000, "safety": 0.8, "ifactor": 5.0,
               "dfactor": 0.3, "norm": qf.max_norm, "max_step": 0.2}  # fmt: skip
    exact = qf.odeint(f, Y0, T, method="dopri8", rtol=1e-12, atol=1e-13)
    got = qf.odeint(f, Y0, T, rtol=1e-8, atol=1e-9, options=options)
    assert (got - exact).abs().max() < 1e-6
    with pytest.raises(qf.SolveError, match="max_steps=3"):
        qf.odeint(f, Y0, T, options={"max_num_steps": 3})


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("dopri5", {"firststep": 0.1}, r"options\['firststep'\] is unknown: .*'first_step'"),
        ("euler", {"step_size": 0.1, "first_step": 0.1}, "first_step.*belong to adaptive steps"),
        ("euler", {"max_num_steps": 5}, "max_num_steps.*belong to adaptive steps"),
        (
            "euler",
            {"step_size": 0.1, "grid_constructor": lambda f, y, t: t},
            "step_size or grid_constructor, not both",
        ),
    ],
)
def test_options_that_do_nothing_are_refused(method: str, options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        qf.odeint(f, Y0, T, method=method, options=options)


def test_a_module_with_parameters_gets_gradients() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    net.double()
    grads = []
    for library in (qf, torchdiffeq):
        net.zero_grad()
        library.odeint(lambda t, y: net(y), Y0, T, method="midpoint")[-1].square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for mine, theirs in zip(*grads, strict=True):
        assert theirs.abs().max() > 0
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14)
