"""Steps of very different lengths, one after another: rounding in short ones is not magnified."""

from __future__ import annotations

import math

import pytest
import torch

import quadflow as qf

Y0 = torch.tensor([1.0, -2.0], dtype=torch.float64)
FIXED = sorted(set(qf.methods()) - {"adams"})  # which takes adaptive steps alone


def error(**arguments) -> float:
    end = qf.solve(lambda t, y: -y, Y0, (0.0, 1.0), **arguments).y[-1]
    return float((end - Y0 * math.exp(-1)).abs().max())


@pytest.mark.parametrize("where", [0.5 + 1e-10, math.nextafter(0.5, 1), 1e-15, 1e-300])
@pytest.mark.parametrize("name", FIXED)
def test_a_sliver_among_fixed_steps(name: str, where: float) -> None:
    """A point to land on just beside one of the grid costs no accuracy."""
    without = error(method=name, step_size=0.1)
    assert error(method=name, step_size=0.1, land_on=[where]) < 2 * without + 1e-13


@pytest.mark.parametrize("name", FIXED)
def test_a_grid_with_a_sliver(name: str) -> None:
    points = [i / 10 for i in range(11)]
    without = error(method=name, grid=points)
    assert error(method=name, grid=sorted([*points, 0.3 + 1e-9])) < 2 * without + 1e-13


@pytest.mark.parametrize("batch_dims", [0, 1])
@pytest.mark.parametrize("near", [1.0 + 3e-16, 1.0 + 1e-14])
def test_a_landing_just_behind_the_start(batch_dims: int, near: float) -> None:
    """The first step, to land there, says nothing about the steps that the solution allows."""
    if batch_dims:
        times = (1.0, near, 2.0)
        solution = qf.solve(lambda t, y: -y, Y0, times, method="dopri5", batch_dims=1)
    else:
        for name in ("land_on", "breakpoints"):
            solution = qf.solve(lambda t, y: -y, Y0, (1.0, 2.0), **{name: [near]})
            assert near in solution.steps
    assert (solution.y[-1] - Y0 * math.exp(-1)).abs().max() < 1e-6


@pytest.mark.parametrize("batch_dims", [0, 1])
def test_a_first_step_above_the_rounding_of_time(batch_dims: int) -> None:
    """Late times and slow solutions: the usual guess of 1e-6 would be lost in t."""
    for slope in (0.0, 1e-10):
        solution = qf.solve(
            lambda t, y, k=slope: -k * y, Y0[:, None], (1e10, 2e10), method="dopri5",
            batch_dims=batch_dims,
        )  # fmt: skip
        assert (solution.y[-1] - Y0[:, None] * math.exp(-slope * 1e10)).abs().max() < 1e-5


def test_a_rule_of_the_start_alone() -> None:
    """Euler's method, as a rule of one node."""
    euler = qf.collocation(qf.radau_left(1), 2)
    grid = [i / 8 for i in range(9)]
    assert error(method=euler, grid=grid) == pytest.approx(error(method="euler", grid=grid))


def test_least_step_of_every_sample() -> None:
    """A sample whose step must be shorter than min_step ends there, instead of trying it again."""
    solution = qf.solve(
        lambda t, y: -50 * y * torch.sin(30 * t), Y0[:, None], (0.0, 5.0), method="dopri5",
        batch_dims=1, min_step=0.2, throw=False,
    )  # fmt: skip
    assert solution.statuses == [qf.Status.STEP_COLLAPSE] * 2
    assert solution.stats.rejected < 20
