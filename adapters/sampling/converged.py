"""The converged solve of a flow from noise to data: what samplers are judged by and trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...checks import integer_from
from ...plans.anchors.method import adams
from ...solve import solve
from ..flow.field import FlowField
from .sample import check_state, time_grid

STEPS = 256
"""Equal steps of a converged solve."""

ORDER = 3
"""Of the Adams-Bashforth method that makes it."""


START = 10
"""Evaluations of its start beyond one a step: two steps of dopri5."""


@dataclass(frozen=True)
class Converged:
    """Ends of the flow from given noises, and how far they may be from the true ones.

    x: (B, ...), states at the data's end. error: RMSE to the ends of a second solve, in units of
    the state. nfe: evaluations of both solves, a guided pair being one.
    """

    x: Tensor
    error: float
    nfe: int


def rmse(a: Tensor, b: Tensor) -> float:
    """Root mean squared difference over all entries, in units of the state."""
    return float((a - b).double().square().mean().sqrt())


def tight_solve(field: FlowField, noise: Tensor, steps: int = STEPS) -> Tensor:
    """The ends (B, ...) of the flow from these noises, at `steps` + 10 evaluations.

    Adams-Bashforth of order 3 in equal steps; two steps of dopri5 are its start.
    Networks are often rough in t: their time embedding oscillates a hundred times or more between
    noise and data. What counts is then at how many different times the network is met, and a
    multistep method meets it at a new one with every evaluation; rk4 in as many evaluations meets
    it at half as many. The velocity at the data's end itself is never asked for.

    Args:
        field: the flow, with labels for the batch. noise: (B, ...) at σ = 1, float32 or float64.
        steps: an integer >= 4.

    Raises:
        TypeError, ValueError: noise that is no finite (B, ...), steps; what the field raises.
        SolveError: the states do not stay finite.
    """
    integer_from(4, steps, "steps")
    return tight_path(field, noise, 1, steps)[-1]


def tight_path(field: FlowField, noise: Tensor, intervals: int, steps: int = STEPS) -> Tensor:
    """The states (intervals + 1, B, ...) of a `tight_solve` at the ends of so many equal intervals.

    Its steps are `steps`, rounded up to a multiple of the intervals.

    Args, raises: as of `tight_solve`; intervals: an integer >= 1.
    """
    integer_from(1, intervals, "intervals")
    integer_from(1, steps, "steps")
    check_state(noise, "noise")
    each = -(-steps // intervals)
    grid = time_grid(intervals * each, field.resolved)
    with torch.no_grad():
        return solve(
            field, noise, grid[::each], grid=grid, method=adams(ORDER), node_evaluation="loop"
        ).y


def steps_apart(steps: int) -> int:
    """The least number of equal steps above steps/2 that has no factor in common with `steps`.

    Uniform grids of such numbers have no time in common but the ends.
    """
    return next(n for n in range(steps // 2 + 1, 2 * steps) if math.gcd(n, steps) == 1)


def converged(field: FlowField, noise: Tensor, steps: int = STEPS) -> Converged:
    """`tight_solve` in `steps` steps, its error from a second one in `steps_apart(steps)` steps.

    The second solve meets the network at other times, so that an oscillation in t that looks
    constant on one grid does not on the other; with about half as many steps it is the worse of the
    two. The distance between both is taken as the error, divided by nothing: what order a rough
    network lets a method reach is not known. Where order 3 is reached it is some seven times too
    large; where roughness rules, near the true error or larger.

    Args, raises: as of `tight_solve`.
    """
    before = field.evaluations
    x = tight_solve(field, noise, steps)
    other = tight_path(field, noise, 1, steps_apart(steps))[-1]
    return Converged(x, rmse(x, other), field.evaluations - before)
