"""The converged solve: its error is never smaller than it says, on fields smooth and rough in t."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from toyflow import Calls, Toy, seeded

import quadflow as qf
from quadflow.adapters import FlowField, Guidance
from quadflow.adapters.sampling.converged import (
    STEPS,
    converged,
    rmse,
    steps_apart,
    tight_path,
    tight_solve,
)

TOY = Toy(gap=0.0)
NOISE = seeded(4, 1, 3, 3)
LABELS = torch.arange(4)
TRUE = TOY.flow(NOISE, 0.0, LABELS)
ROUGH = 1e-3


def rough(k: int) -> FlowField:
    """The toy with ROUGH·cos(2πkt) added, whose integral over the span is 0: its ends are moved
    by far less than by the oscillation's height."""

    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        wave = ROUGH * torch.cos(2 * math.pi * k * t)
        return TOY.velocity(x, t, y) + wave.view(-1, 1, 1, 1)

    return FlowField(model, "repa", LABELS)


def smooth(model: Any = TOY.velocity, **how: Any) -> FlowField:
    return FlowField(model, "repa", LABELS, **how)


@pytest.mark.parametrize("k", [32, 96, 129, 160, 192, 256, 512])
def test_the_error_is_seen_on_a_field_rough_in_t(k: int) -> None:
    """256 and its multiples look constant on the grid of 256: the solve is then off by all of the
    oscillation, and says so."""
    found = converged(rough(k), NOISE)
    true = rmse(found.x, TRUE)
    assert true < 1.5 * found.error
    assert true > 0.3 * ROUGH if k % STEPS == 0 else true < 0.05 * ROUGH


def test_halving_rk4_does_not_see_it() -> None:
    """The estimate that `converged` replaced: nested uniform grids of rk4, divided by 15."""

    def rk4(steps: int) -> Tensor:
        return qf.solve(rough(96), NOISE, (1.0, 0.0), method="rk4", step_size=1 / steps).y[-1]

    coarse, fine = rk4(24), rk4(48)  # they meet the field at multiples of 1/48 and 1/96
    assert rmse(fine, TRUE) > 0.3 * ROUGH > 20 * rmse(fine, coarse) / 15
    found = converged(rough(96), NOISE)  # at no more evaluations than those two and theirs again
    assert rmse(found.x, TRUE) < 0.05 * ROUGH


def test_third_order_and_an_error_that_holds_where_the_field_is_smooth() -> None:
    errors = []
    for steps in (64, 128, 256):
        found = converged(smooth(), NOISE, steps)
        errors.append(rmse(found.x, TRUE))
        assert errors[-1] < found.error < 20 * errors[-1]
    assert all(6.5 < a / b < 9.5 for a, b in pairwise(errors)), errors


@pytest.mark.parametrize("steps", [4, 7, 30, 97, 256])
def test_both_solves_meet_the_network_at_times_of_their_own(steps: int) -> None:
    calls = Calls(TOY.velocity)
    found = converged(smooth(calls), NOISE, steps)
    other = steps_apart(steps)
    assert found.nfe == len(calls) == (steps + 10) + (other + 10)
    assert steps / 2 < other < steps
    times = [round(float(t[0]), 9) for _, t, _ in calls]
    first, second = set(times[: steps + 10]), set(times[steps + 10 :])
    assert len(first) > steps and len(second) > other
    assert first & second == {1.0}  # the noise
    assert 0.0 not in first | second  # the data's end, where networks are poor


def test_no_number_of_steps_is_without_another() -> None:
    for steps in range(4, 600):
        assert math.gcd(steps, steps_apart(steps)) == 1 and steps / 2 < steps_apart(steps) < steps


def test_the_path_passes_where_the_flow_does() -> None:
    path = tight_path(smooth(), NOISE, 5, 250)
    assert path.shape == (6, *NOISE.shape) and torch.equal(path[0], NOISE)
    for i, x in enumerate(path):
        assert rmse(x, TOY.flow(NOISE, 1 - i / 5, LABELS)) < 1e-5
    calls = Calls(TOY.velocity)
    tight_path(smooth(calls), NOISE, 5, 7)
    assert len(calls) == 10 + 10  # steps rounded up to a multiple of 5


@pytest.mark.parametrize("convention", ["repa", "sit"])
def test_either_direction_of_time_and_guidance(convention: str) -> None:
    sign = 1 if convention == "repa" else -1

    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return sign * TOY.velocity(x, t if sign == 1 else 1 - t, y)

    field = FlowField(model, convention, LABELS, Guidance(2.0, 4))
    found = tight_solve(field, NOISE, 50)
    wanted = tight_solve(smooth(guidance=Guidance(2.0, 4)), NOISE, 50)
    assert rmse(found, wanted) < 1e-12
    assert field.rows == 2 * 60 * len(NOISE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_keeps_its_dtype_and_no_gradients_are_kept(dtype: torch.dtype) -> None:
    x = converged(smooth(), NOISE.to(dtype).requires_grad_(), 8).x
    assert x.dtype == dtype and not x.requires_grad


@pytest.mark.parametrize("solver", [tight_solve, converged])
@pytest.mark.parametrize(
    ("noise", "steps", "message"),
    [
        (NOISE, 3, "steps must be an integer >= 4, got 3"),
        (NOISE, 0, "steps must be an integer >= 4, got 0"),
        (NOISE, 8.0, "steps must be an integer >= 4, got 8.0"),
        (NOISE, True, "steps must be an integer >= 4, got True"),
        (NOISE[0, 0, 0, 0], 8, "noise must be"),
        (NOISE[:0], 8, "noise must be"),
        (NOISE.tolist(), 8, "noise must be a tensor"),
        (NOISE / 0, 8, "noise is not finite in sample 0"),
        (NOISE[:2], 8, "labels has 4 entries, the state 2 samples"),
    ],
)
def test_bad_arguments(solver: Any, noise: Any, steps: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        solver(smooth(), noise, steps)


def test_a_bad_number_of_intervals() -> None:
    with pytest.raises(ValueError, match="intervals must be an integer >= 1, got 0"):
        tight_path(smooth(), NOISE, 0)
