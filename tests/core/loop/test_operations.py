"""How much a step does: counted, since times depend on the machine."""

from __future__ import annotations

import sys
from types import FrameType

import numpy as np
import pytest
import torch
from in_tensors import InTensors
from torch import Tensor

import quadflow as qf
from quadflow.plans.stages.sums import stage_table
from quadflow.plans.sweeps.sweep import rule_arrays

TRY_IN_TENSORS = {"dopri5": 46, "gauss": 35, "adams": 52}
"""Torch's operations of one try of a step, those of func (one a call) included."""

TRY_IN_NUMPY = {"dopri5": 164, "gauss": 152, "adams": 229}
"""Function calls of one try through NumPy, Python's and C's together, a tenth more than counted."""


def f(t: Tensor, y: Tensor) -> Tensor:
    return -y


def solved(name: str, tolerance: float, t: object = (0.0, 3.0), size: float | None = None) -> int:
    """The number of tries. size: of every step, which no error then decides on."""
    y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
    held = {} if size is None else dict.fromkeys(("initial_step", "min_step", "max_step"), size)
    stats = qf.solve(f, y0, t, method=name, rtol=tolerance, atol=tolerance,
                     node_evaluation="broadcast", **held).stats  # fmt: skip
    return stats.accepted + stats.rejected + stats.refined


def operations(name: str, end: float) -> tuple[InTensors, int]:
    """Of steps of one size: their number does not hang on the rounding of a machine."""
    with InTensors() as mode:
        tries = solved(name, 1e-3, (0.0, end), 2.0**-6)
    return mode, tries


def function_calls(name: str, tolerance: float, t: object = (0.0, 3.0)) -> tuple[int, int]:
    solved(name, tolerance, t)  # what is kept from solve to solve is made
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        tries = solved(name, tolerance, t)
    finally:
        sys.setprofile(None)
    return calls, tries


@pytest.mark.parametrize("name", TRY_IN_TENSORS)
def test_operations_of_a_try_in_tensors(name: str) -> None:
    (few, first), (many, second) = (operations(name, end) for end in (1.0, 3.0))
    assert (first, second) == (64, 192)
    extra = many.counts.total() - few.counts.total()
    assert extra <= TRY_IN_TENSORS[name] * (second - first)
    # the host sends nothing but a table of weights, where these follow the steps
    tables = second - first if name == "adams" else 0
    upload = "aten.lift_fresh.default"
    assert many.counts[upload] - few.counts[upload] == tables


@pytest.mark.parametrize("name", TRY_IN_NUMPY)
def test_calls_of_a_try_through_numpy(name: str) -> None:
    (few, first), (many, second) = (function_calls(name, tol) for tol in (1e-4, 1e-10))
    assert many - few <= TRY_IN_NUMPY[name] * (second - first)
    # the same in tensors is more: had the steps not gone through NumPy, this would fail
    with InTensors():
        assert function_calls(name, 1e-10)[0] > 1.2 * many


@pytest.mark.parametrize("name", TRY_IN_NUMPY)
def test_constants_are_made_once(name: str) -> None:
    solved(name, 1e-6)
    makers = (rule_arrays, stage_table)
    made = [maker.cache_info().misses for maker in makers]
    solved(name, 1e-6)
    assert [maker.cache_info().misses for maker in makers] == made


@pytest.mark.parametrize("name", ["dopri5", "dopri8", "gauss", "adams", "rk4", "ab4"])
def test_output_costs_by_the_step(name: str) -> None:
    """Ten times as many times inside the same steps."""
    few, many = np.linspace(0.0, 3.0, 2001), np.linspace(0.0, 3.0, 20001)
    how = {"step_size": 0.1} if qf.methods()[name].error_order is None else {}
    y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)
    counts = []
    for times in (few, many):
        with InTensors() as mode:
            solution = qf.solve(f, y0, times, method=name, rtol=1e-6, atol=1e-6, **how)
        counts.append(mode.counts.total())
        exact = torch.exp(-solution.t)[:, None] * y0
        assert float((solution.y - exact).abs().max()) < 1e-3
    assert counts[1] <= 1.1 * counts[0]
