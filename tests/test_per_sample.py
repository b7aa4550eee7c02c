"""Every sample on steps of its own: the solves that each would have had alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import quadflow as qf

MU = torch.tensor([0.5, 1.0, 20.0, 3.0], dtype=torch.float64)
Y0 = torch.tensor([[2.0, 0.0], [1.0, 0.3], [2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
T = torch.tensor([0.0, 1.0, 2.5, 6.0], dtype=torch.float64)
METHODS = ["dopri5", "tsit5", "dopri8", "bosh3"]


def oscillator(mu: Tensor):
    def f(t: Tensor, y: Tensor) -> Tensor:
        x, v = y[..., :1], y[..., 1:]
        return torch.cat((v, mu[:, None] * (1 - x * x) * v - x + 0.1 * torch.sin(t)), -1)

    return f


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_equals_the_solves_alone(name: str, backward: bool) -> None:
    mu, times = (-MU, -T) if backward else (MU, T)
    tol = 1e-4 if name == "bosh3" else 1e-7
    how = {"method": name, "rtol": tol, "atol": tol, "dense_output": True}
    together = qf.solve(oscillator(mu), Y0, times, batch_dims=1, **how)
    assert together.success and together.y.shape == (4, 4, 2) and together.t.shape == (4, 4)
    accepted = 0
    for i in range(4):
        alone = qf.solve(oscillator(mu[i : i + 1]), Y0[i : i + 1], times, **how)
        accepted += alone.stats.accepted
        assert (together.y[:, i] - alone.y[:, 0]).abs().max() < 1e-10
        between = [float(times[0] + x * (times[-1] - times[0])) for x in (0.01, 0.4, 0.77, 1.0)]
        assert (together(between)[:, i] - alone(between)[:, 0]).abs().max() < 1e-10
    assert together.stats.accepted == accepted


def test_own_times_and_tolerances() -> None:
    times = torch.stack([T, 0.5 * T, 0.1 + 0.3 * T, 2 * T], dim=1)
    rtol = torch.tensor([1e-3, 1e-6, 1e-9, 1e-5], dtype=torch.float64)
    together = qf.solve(oscillator(MU), Y0, times, method="dopri5", rtol=rtol, atol=rtol,
                        batch_dims=1, dense_output=True)  # fmt: skip
    for i in range(4):
        alone = qf.solve(oscillator(MU[i : i + 1]), Y0[i : i + 1], times[:, i], method="dopri5",
                         rtol=float(rtol[i]), atol=float(rtol[i]))  # fmt: skip
        assert (together.y[:, i] - alone.y[:, 0]).abs().max() < 1e-10
        assert (together(times)[:, i] - together.y[:, i]).abs().max() < 1e-12


def test_a_failing_sample_leaves_the_others_alone() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return y * y

    y0 = torch.tensor([[0.1], [1.0], [0.2]], dtype=torch.float64)
    solution = qf.solve(f, y0, (0.0, 0.5, 2.0), method="dopri5", batch_dims=1, throw=False)
    assert [s is qf.Status.SUCCESS for s in solution.statuses] == [True, False, True]
    assert "sample 1" in solution.message and "t=1" in solution.messages[1]
    exact = y0 / (1 - y0 * torch.tensor([[0.5, 2.0]], dtype=torch.float64))
    for i in (0, 2):
        assert (solution.y[1:, i, 0] - exact[i]).abs().max() < 1e-6
        alone = qf.solve(f, y0[i : i + 1], (0.0, 0.5, 2.0), method="dopri5")
        assert (solution.y[:, i] - alone.y[:, 0]).abs().max() < 1e-12
    assert torch.isfinite(solution.y[1, 1]).all() and torch.isnan(solution.y[2, 1]).all()
    with pytest.raises(qf.SolveError, match="1 of 3 samples"):
        qf.solve(f, y0, (0.0, 2.0), method="dopri5", batch_dims=1)


def test_gradients() -> None:
    """Of every sample, also beside one whose tries were not finite on the way."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return -torch.log(y) * torch.cos(t)  # NaN where a long try makes y negative

    y0 = torch.tensor([[0.05], [0.8], [3.0]], dtype=torch.float64, requires_grad=True)
    solution = qf.solve(f, y0, (0.0, 1.0), method="dopri5", batch_dims=1, initial_step=1.0)
    (gradient,) = torch.autograd.grad(solution.y[-1].sum(), y0)
    h = 1e-5
    ends = [
        qf.solve(f, y0.detach() + s * h, (0.0, 1.0), method="dopri8", rtol=1e-12, atol=1e-13).y[-1]
        for s in (1, -1)
    ]
    assert (gradient - (ends[0] - ends[1]) / (2 * h)).abs().max() < 1e-5


def test_times_for_tuples_of_many_axes() -> None:
    """They broadcast against the tensors, not against the joined state."""

    def f(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        assert t.shape == (4, 1, 1)
        return -y[0] * t, torch.cos(t).expand_as(y[1])

    y0 = (Y0[:, None, :], Y0[:, None, :1].abs())
    solution = qf.solve(f, y0, T, method="dopri5", batch_dims=1)
    times = T[:, None, None, None]
    assert (solution.y[0] - y0[0] * torch.exp(-(times**2) / 2)).abs().max() < 1e-6
    assert (solution.y[1] - y0[1] - torch.sin(times)).abs().max() < 1e-6


def test_tuple_states() -> None:
    def f(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[1].sum(-1, keepdim=True) - y[0], -y[1] * t

    y0 = (Y0[:, :1], Y0.abs())
    solution = qf.solve(f, y0, T, method="dopri5", batch_dims=1)
    assert solution.y[0].shape == (4, 4, 1) and solution.y[1].shape == (4, 4, 2)
    exact = Y0.abs() * torch.exp(-(T[:, None, None] ** 2) / 2)
    assert (solution.y[1] - exact).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": "gauss4"}, "take an adaptive Runge-Kutta method"),
        ({"method": "rk4"}, "take an adaptive Runge-Kutta method"),
        ({"step_size": 0.1}, "step_size is not available with batch_dims=1"),
        ({"batch_dims": 2}, "batch_dims must be 0 or 1, got 2"),
        ({"t": torch.zeros(3, 5)}, r"it must be \(T,\) or \(T, 4\)"),
        ({"t": torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0]])}, "for all samples"),
        ({"t": [0.0, np.inf]}, "not finite"),
    ],
)
def test_bad_input(arguments: dict, match: str) -> None:
    given = {"t": T, "method": "dopri5", "batch_dims": 1, **arguments}
    with pytest.raises(ValueError, match=match):
        qf.solve(oscillator(MU), Y0, **given)
