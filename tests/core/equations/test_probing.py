"""How func treats several states in one call is found out without a trace, inside the span."""

from __future__ import annotations

import math
import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quadflow as qf

F64 = torch.float64
Y0 = torch.tensor([1.0, 0.5], dtype=F64)


def decay(t: Tensor, y: Tensor) -> Tensor:
    return -y * torch.cos(t)


def in_four_threads(work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_random_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    qf.solve(decay, Y0, (0.0, 1.0), method="gauss")
    qf.solve(decay, Y0[:, None], (0.0, 1.0), batch_dims=1, method="lobatto")
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_starts_drawn_in_threads_are_distinct() -> None:
    starts: list[float] = []

    def work() -> None:
        for _ in range(30):
            start = torch.rand(1, dtype=F64)
            starts.append(start.item())
            qf.solve(decay, start, (0.0, 0.1), method="gauss", rtol=1e-3)

    in_four_threads(work)
    assert len(starts) == 120 and len(set(starts)) == 120


def test_filters_of_warnings_are_left_alone() -> None:
    # in threads, where saved filters would be put back in the wrong order
    before = list(warnings.filters)

    def work() -> None:
        for _ in range(10):
            qf.solve(decay, Y0, (0.0, 0.1), method="gauss", rtol=1e-3)

    in_four_threads(work)
    assert warnings.filters == before

    def deprecated(t: Tensor, y: Tensor) -> Tensor:
        warnings.warn("an old function", UserWarning, stacklevel=1)
        return -y

    with pytest.warns(UserWarning, match="an old function"):
        qf.solve(deprecated, Y0, (0.0, 0.1), method="gauss")


MIXING_TIMES: dict[str, Any] = {
    "mean": lambda t, y: torch.cos(t - t.mean()) - y,
    "first": lambda t, y: torch.cos(t - t.reshape(-1)[0]) - y,
    "largest": lambda t, y: torch.sin(t.amax() - t) - y,
    "least": lambda t, y: (t - t.amin()) * torch.ones_like(y) - y,
    "spread": lambda t, y: torch.exp(-(t.amax() - t.amin())) - y,
    "sum of sines": lambda t, y: torch.sin(t).sum() - y,
    "order": lambda t, y: torch.cos(t.flip(0)) - y,
    "states of others": lambda t, y: torch.cos(t) - y + (y - y.mean()).abs(),
}


@pytest.mark.parametrize("name", MIXING_TIMES)
@pytest.mark.parametrize("t0", [0.0, 1.7e9])
def test_times_are_told_apart_far_from_zero(name: str, t0: float) -> None:
    func = MIXING_TIMES[name]
    arguments = {"method": "gauss4", "step_size": 0.25}
    loop = qf.solve(func, Y0, (t0, t0 + 4), node_evaluation="loop", **arguments)
    auto = qf.solve(func, Y0, (t0, t0 + 4), **arguments)
    assert auto.stats.node_evaluation in ("vmap", "loop")
    assert (auto.y - loop.y).abs().max() < 1e-12


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    t0=st.floats(-1e9, 1e9),
    span=st.floats(1e-3, 1e3),
    backward=st.booleans(),
    single=st.booleans(),
    method=st.sampled_from(["gauss", "lobatto4", "radau3"]),
)
def test_func_is_evaluated_inside_the_span(
    t0: float, span: float, backward: bool, single: bool, method: str
) -> None:
    dtype = torch.float32 if single else F64
    t1 = t0 - span if backward else t0 + span
    kind = np.float32 if single else np.float64
    ends = sorted((float(kind(t0)), float(kind(t1))))
    met: list[float] = []

    def func(t: Tensor, y: Tensor) -> Tensor:
        if torch._C._functorch.maybe_current_level() is None:
            met.extend(t.reshape(-1).tolist())
        return torch.zeros_like(y) + 0 * t

    qf.solve(func, Y0.to(dtype), (t0, t1), method=method, step_size=span / 2)
    assert ends[0] <= min(met) and max(met) <= ends[1]


def test_no_breakpoint_is_crossed_to_find_out() -> None:
    met: list[float] = []

    def func(t: Tensor, y: Tensor) -> Tensor:
        if torch._C._functorch.maybe_current_level() is None:
            met.extend(t.reshape(-1).tolist())
        return -y

    sol = qf.solve(
        func, Y0, (0.0, 3.0), method="gauss", breakpoints=[1.0], max_steps=1, throw=False
    )
    assert sol.stats.probe_nfe and max(met) < 1.0


# -- batch_dims=1: samples that are mixed --------------------------------------------------------


def single_oscillator(t: Tensor, y: Tensor) -> Tensor:
    """Written for one state (2,), given (2, ...)."""
    return torch.stack((y[1], -y[0]))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2, dtype=F64)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.norm(y)


MATRIX = torch.eye(4, dtype=F64) + 1e-3
MIXING_SAMPLES: dict[str, Any] = {
    "one state's indices": (single_oscillator, (2, 2)),
    "a norm over the batch": (lambda t, y: -y / y.norm(), (4, 2)),
    "mean": (lambda t, y: y.mean(0) - y, (4, 2)),
    "mean of one column": (lambda t, y: -y * y[:, :1].mean(), (5, 2)),
    "softmax over samples": (lambda t, y: torch.softmax(y, 0), (3, 2)),
    "the neighbour": (lambda t, y: y.roll(1, 0) - y, (6, 2)),
    "two halves": (lambda t, y: torch.cat((y[4:], -y[:4])), (8, 2)),
    "every other": (lambda t, y: y.roll(2, 0) - y, (4, 2)),
    "the first one": (lambda t, y: y[:1] - y, (7, 2)),
    "the last one": (lambda t, y: y[-1:] - y, (7, 2)),
    "matrix from the left": (lambda t, y: -(MATRIX @ y), (4, 2)),
    "a threshold on all": (lambda t, y: -y if y.norm() < 50 else y, (4, 2)),
    "clipped together": (lambda t, y: -y * torch.clamp(10 / y.norm(), max=1.0), (4, 2)),
    "cumulated": (lambda t, y: -y.cumsum(0), (4, 2)),
    "sorted": (lambda t, y: -y.sort(0).values, (6, 2)),
    "one time for all": (lambda t, y: torch.cos(t.reshape(-1)[0]) - y, (4, 2)),
    "the mean time": (lambda t, y: torch.cos(t.mean()) - y, (4, 2)),
    "batch norm": (Normed(), (6, 2)),
    "a trailing axis": (lambda t, y: y - y.mean(dim=(0, 2), keepdim=True), (4, 2, 3)),
    "complex": (lambda t, y: 1j * y * y.abs().amax(), (4, 2)),
    "a threshold below": (lambda t, y: torch.where((y < 0).any(), 0 * y, -y), (2, 1)),
    "a branch on all": (lambda t, y: -y if bool((y > 0.1).all()) else 0 * y, (4, 1)),
    "the least": (lambda t, y: torch.where(y.amin() < -1, 0 * y, -y), (5, 1)),
    "a logarithm of all": (lambda t, y: -y * (1 + 0 * torch.log(y.sum())), (4, 2)),
    "all finite": (lambda t, y: -y * torch.isfinite(y).all(), (4, 2)),
    "a late time of others": (lambda t, y: torch.where(t.max() > 0.9, 0 * y, -y), (4, 1)),
}


@pytest.mark.parametrize("name", MIXING_SAMPLES)
def test_samples_that_are_mixed_are_refused(name: str) -> None:
    func, shape = MIXING_SAMPLES[name]
    y0 = torch.linspace(0.3, 1.7, math.prod(shape), dtype=F64).reshape(shape)
    y0 = y0.to(torch.complex128) if name == "complex" else y0
    for method in ("dopri5", "gauss"):
        with pytest.raises(qf.VelocityError, match=r"func mixes the samples.*batch_dims"):
            qf.solve(func, y0, (0.0, 1.0), batch_dims=1, method=method)
    qf.solve(func, y0, (0.0, 0.1))  # whose steps are shared may do as it likes


APART: dict[str, Any] = {
    "last axis": lambda t, y: torch.stack((y[..., 1], -y[..., 0]), -1),
    "norm of each": lambda t, y: -y / (1 + y.norm(dim=-1, keepdim=True)),
    "own time": lambda t, y: torch.cos(t) * y,
    "network": nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double(),
    "large terms that cancel": lambda t, y: 1e9 * (y + 1) - 1e9 * y - 1e9,
    "layer norm": lambda t, y: nn.functional.layer_norm(y, (2,)),
    "a domain": lambda t, y: -torch.sqrt(y),
    "a threshold of each": lambda t, y: torch.where(y > 1, -y, y),
    "random": lambda t, y: -y + 1e-3 * torch.rand_like(y),
    "constant": lambda t, y: torch.ones_like(y),
}


@pytest.mark.parametrize("name", APART)
def test_samples_that_are_apart_are_taken(name: str) -> None:
    func = APART[name]
    call = (lambda t, y: func(y)) if isinstance(func, nn.Module) else func
    y0 = torch.linspace(0.3, 1.7, 10, dtype=F64).reshape(5, 2)
    with torch.no_grad():
        sol = qf.solve(call, y0, (0.0, 1.0), batch_dims=1, rtol=1e-3, atol=1e-3)
    # a random func is found to be one by the first of the groups
    assert sol.success and sol.stats.probe_nfe == (4 if name == "random" else 9)


def test_one_sample_is_not_probed() -> None:
    assert qf.solve(decay, Y0[None], (0.0, 1.0), batch_dims=1).stats.probe_nfe == 0


def test_a_func_that_refuses_far_states_is_still_probed() -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        if bool((y.abs() > 5).any()):
            raise ValueError("out of range")
        return y.mean(0) - y

    with pytest.raises(qf.VelocityError, match="mixes the samples"):
        qf.solve(func, torch.tensor([[1.0], [2.0]], dtype=F64), (0.0, 1.0), batch_dims=1)


def test_events_that_mix_samples_are_refused() -> None:
    y0 = torch.linspace(0.3, 1.7, 8, dtype=F64).reshape(4, 2)
    turning = APART["last axis"]
    for g in (
        lambda t, y: y[:, 0] - y[:, 0].mean(), lambda t, y: y[:, 0] - y[0, 0] - 5,
        lambda t, y: y[:, 0] * y.norm() - 3, lambda t, y: t[:, 0] - t.mean() + y[:, 0],
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"events\[0\] mixes the samples"):
            qf.solve(turning, y0, (0.0, 2.0), batch_dims=1, events=g)
    for g in (lambda t, y: y[:, 0] - 0.1, lambda t, y: t[:, 0] - 1.5, lambda t, y: y.norm(dim=-1)):
        assert qf.solve(turning, y0, (0.0, 2.0), batch_dims=1, events=g).success


def test_what_is_found_to_a_tolerance_for_all_samples_is_taken() -> None:
    """An equilibrium iterated until all samples have converged."""

    def func(t: Tensor, y: Tensor) -> Tensor:
        z = torch.zeros_like(y)
        for _ in range(100):
            new = torch.cos(0.5 * z + 0.1 * y)
            if (new - z).abs().max() < 1e-10:
                break
            z = new
        return new - y

    assert qf.solve(func, torch.rand(5, 2, dtype=F64), (0.0, 1.0), batch_dims=1).success


@pytest.mark.parametrize("method", ["gauss", "lobatto", "radau3", "dopri5"])
def test_probes_hold_the_largest_numbers(method: str) -> None:
    for dtype, size in ((torch.float32, 1e31), (F64, 1e300), (torch.complex64, 1e31)):
        for y0, more in ((torch.ones(2), {}), (torch.ones(3, 1), {"batch_dims": 1})):
            y = size * y0.to(dtype)
            sol = qf.solve(lambda t, y: -y, y, (0.0, 1.0), method=method, rtol=1e-4,
                           atol=1e-6 * size, **more)  # fmt: skip
            assert ((sol.y[-1] / size).abs() - math.exp(-1)).abs().max() < 1e-3


def test_nodes_are_probed_anew_behind_a_breakpoint() -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t > 3, -2 * y * y.max(), -0.1 * y)

    y0 = torch.tensor([1.0, 2.0], dtype=F64)
    how = {"method": "gauss", "breakpoints": [3.0]}
    loop = qf.solve(func, y0, (0.0, 5.0), node_evaluation="loop", **how)
    auto = qf.solve(func, y0, (0.0, 5.0), **how)
    assert auto.stats.node_evaluation == "vmap" and (auto.y - loop.y).abs().max() < 1e-9
