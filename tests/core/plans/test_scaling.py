"""Squares of intermediate values neither overflow nor underflow: scaling y changes no step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quadflow as qf
from quadflow.control.control import Tolerance, rms_norm

ADAPTIVE = sorted(name for name, method in qf.methods().items() if method.error_order is not None)
LOW = ("heun", "pec1", "pece1", "pec2", "pece2")
PER_SAMPLE = [
    name for name in ADAPTIVE if isinstance(qf.methods()[name], (qf.StagesMethod, qf.SweepsMethod))
]


def turning(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1] - 0.1 * y[..., 0], -y[..., 0] - 0.2 * y[..., 1]), -1)


def kinks(t: Tensor, y: Tensor) -> Tensor:
    """Homogeneous, not linear."""
    first, second = y.unbind(-1)
    return torch.stack(
        ((first - second).abs() - 0.5 * first, 0.3 * torch.maximum(first, second) - second), -1
    )


def forced(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(t) * y.flip(-1) - 0.3 * y


def spiral(t: Tensor, y: Tensor) -> Tensor:
    return (1j - 0.1) * y


# the largest and the smallest power of two, of which the squares are beyond the dtype
CASES: list[tuple[Callable[[Tensor, Tensor], Tensor], torch.dtype, tuple[int, ...]]] = [
    (turning, torch.float64, (660, 990, -660, -900)),
    (kinks, torch.float64, (880, -800)),
    (forced, torch.float64, (700, -850)),
    (turning, torch.float32, (68, 100, -66, -85)),
    (forced, torch.float32, (90, -80)),
    (spiral, torch.complex128, (900, -900)),
    (spiral, torch.complex64, (98, -80)),
]


def counts(name: str, func: Any, y0: Tensor, power: int, **how: Any) -> tuple[Any, ...]:
    """What a solve from 2^power y0 cost, its steps, and its states over 2^power."""
    unit = 2.0**power
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = qf.solve(
            func, y0 * unit, (0.0, 4.0), method=name, rtol=1e-3, atol=1e-5 * unit, max_steps=3000,
            node_evaluation="broadcast", **how,
        )  # fmt: skip
    stats = found.stats
    return (
        (stats.accepted, stats.rejected, stats.refined, stats.calls, stats.nfe), found.steps,
        (found.y / unit).tolist(),
    )  # fmt: skip


@pytest.mark.parametrize("name", ADAPTIVE)
def test_scaling_changes_nothing(name: str) -> None:
    # half of the cases each, in turn; less for orders that take hundreds of steps
    first = ADAPTIVE.index(name) % 2
    for func, dtype, powers in CASES[first :: 6 if name in LOW else 2]:
        y0 = torch.tensor([1.0, 0.25], dtype=dtype)
        alike = counts(name, func, y0, 0)
        for power in powers:
            assert counts(name, func, y0, power) == alike, (func.__name__, dtype, power)


@pytest.mark.parametrize("name", PER_SAMPLE)
def test_scaling_of_samples(name: str) -> None:
    first = PER_SAMPLE.index(name) % 3
    for func, dtype, powers in CASES[first :: 6 if name in LOW else 3]:
        y0 = torch.tensor([[1.0, 0.25], [-0.5, 2.0]], dtype=dtype)
        alike = counts(name, func, y0, 0, batch_dims=1)
        for power in powers[-2:]:
            assert counts(name, func, y0, power, batch_dims=1) == alike


@pytest.mark.parametrize("name", ["dopri8", "lobatto"])
def test_scaling_of_compiled_steps(name: str) -> None:
    y0 = torch.tensor([1.0, 0.25], dtype=torch.float64)
    how = {"compile": {"backend": "eager"}}
    counts(name, turning, y0, 0, **how)  # which runs first as it is
    alike = counts(name, turning, y0, 0, **how)
    for power in (900, -900):
        assert counts(name, turning, y0, power, **how) == alike


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    name=st.sampled_from([name for name in ADAPTIVE if name not in LOW]),
    power=st.integers(-900, 990),
    entries=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_scaling_of_any_linear_problem(name: str, power: int, entries: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(entries, entries, generator=generator, dtype=torch.float64)
    matrix = matrix / entries**0.5 - 0.5 * torch.eye(entries, dtype=torch.float64)
    y0 = torch.randn(entries, generator=generator, dtype=torch.float64)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return (matrix * y.unsqueeze(-2)).sum(-1)

    assert counts(name, func, y0, power) == counts(name, func, y0, 0)


@pytest.mark.parametrize("power", [0, 480, 900, -480, -900])
def test_stiffness_is_seen_at_any_scale(power: int) -> None:
    unit = 2.0**power

    def relaxation(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((-1e5 * (y[..., 0] - y[..., 1]), -y[..., 1]), -1)

    y0 = torch.ones(2, dtype=torch.float64) * unit
    for name in ("dopri8", "dopri5", "adams", "gauss"):
        found = qf.solve(
            relaxation, y0, (0.0, 10.0), method=name, rtol=1e-5, atol=1e-7 * unit, throw=False,
            on_stiff="stop", max_steps=2000,
        )  # fmt: skip
        assert found.status is qf.Status.STIFF, (name, found.message)


class Growth(nn.Module):
    def __init__(self, unit: float) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.3], dtype=torch.float64))
        self.unit = unit

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.rate * y


@pytest.mark.parametrize("power", [300, 600, -300, -600])
def test_scaling_of_adjoints(power: int) -> None:
    """The gradient in a parameter is of y's size, as the loss is."""

    def gradients(unit: float) -> list[float]:
        func = Growth(unit)
        y0 = (torch.tensor([1.0], dtype=torch.float64) * unit).requires_grad_()
        times = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        y = qf.odeint_adjoint(func, y0, times, rtol=1e-6, atol=1e-8 * unit)
        by_y, by_rate = torch.autograd.grad(y.sum(), (y0, func.rate))
        return [float(by_y), float(by_rate) / unit]

    assert gradients(2.0**power) == pytest.approx(gradients(1.0), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("converged", ["gauss", "lobatto"])
def test_converged_sweeps_at_any_scale(dtype: torch.dtype, converged: str) -> None:
    family = qf.gauss_legendre if converged == "gauss" else qf.gauss_lobatto
    method = qf.collocation(family(4), "converged")
    largest = 100 if dtype is torch.float32 else 990
    y0 = torch.tensor([1.0, 0.25], dtype=dtype)
    found = [
        qf.solve(turning, y0 * 2.0**k, (0.0, 2.0), method=method, step_size=0.25)
        for k in (0, largest, 20 - largest)
    ]
    assert len({one.stats.calls for one in found}) == 1
    assert torch.equal(found[0].y, found[1].y / 2.0**largest)


def test_a_size_is_that_of_its_norm_without_the_squares() -> None:
    for per_sample in (False, True):
        tolerance = Tolerance(1e-3, 1e-6, rms_norm, per_sample)
        x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, -1.0]], dtype=torch.float64)
        for k in (0, 700, -700):
            size = tolerance.size(x * 2.0**k) / 2.0**k
            torch.testing.assert_close(size, tolerance.measure(x), rtol=1e-15, atol=0.0)
        for bad in (torch.inf, torch.nan):
            assert not tolerance.size(torch.where(x == 4, bad, x)).isfinite().all()
    zero = torch.tensor(0.0)
    assert float(Tolerance(1e-3, 1e-6).size(zero)) == 0.0


@pytest.mark.parametrize("rate", [1e20, 1e25, 1e30])
def test_first_steps_of_fast_single_precision(rate: float) -> None:
    """y' = k/y from 1 at t = 0: the velocity over the tolerance is beyond 1e19."""
    for name in ("dopri5", "adams", "gauss"):
        found = qf.solve(
            lambda t, y: rate / y, torch.ones(1), (0.0, 1.0), method=name, max_steps=3000
        )
        assert abs(float(found.y[-1]) / (2 * rate) ** 0.5 - 1) < 1e-2
