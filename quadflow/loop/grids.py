"""Fixed grids: of one step size, of given points, with times of its own for every sample."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checks import real_number
from ..equations.times import monotone_times
from ..equations.velocity import StateLayout
from .steps import Landing


def per_sample_grid(
    grid: Tensor, ends: Sequence[float], sign: float, layout: StateLayout
) -> Iterable[float]:
    """The ends of the steps of a grid (N+1, *per sample): tensors, and the last one as a float.

    Args:
        grid: real; grid[i] broadcasts against the state.
        ends: the times that the caller wants, which must be the first and the last alone.
        sign: 1 where time runs forward, -1 where it runs backward.

    Raises:
        TypeError, ValueError: a grid that is not real, finite, strictly monotone for every sample,
            or that does not run from ends[0] to ends[1] or does not fit the state.
    """
    if grid.is_complex() or not grid.is_floating_point():
        raise TypeError(f"grid must be a real floating tensor, got {grid.dtype}")
    if len(ends) != 2:
        raise ValueError(f"with a grid of per-sample times, t must be its two ends, got {ends}")
    if layout.joined:
        raise ValueError("a grid of per-sample times needs a state of one tensor, got several")
    shape, per_sample = layout.shapes[0], grid.shape[1:]
    fits = len(per_sample) <= len(shape) and all(
        n in (1, m) for n, m in zip(reversed(per_sample), reversed(shape), strict=False)
    )
    if not fits or len(grid) < 2:
        raise ValueError(
            f"grid has shape {tuple(grid.shape)}; it must be (N+1, ...) with N >= 1 and rows that "
            f"broadcast against the state {tuple(shape)}"
        )
    grid = grid.to(torch.float64)  # with its gradient: where the steps end may be learned
    times = grid.detach()
    # the one look at its numbers, before the first step
    good = torch.stack(
        [
            torch.isfinite(times).all(),
            ((times[0] == ends[0]) & (times[-1] == ends[1])).all(),
            (times.diff(dim=0) * sign > 0).all(),
        ]
    ).tolist()
    if not good[0]:
        raise ValueError("grid is not finite")
    if not good[1]:
        raise ValueError(f"every sample's grid must run from t[0]={ends[0]} to t[-1]={ends[1]}")
    if not good[2]:
        raise ValueError("every sample's grid must be strictly monotone from t[0] to t[-1]")
    # the steps take a tensor wherever they take a float
    return [*grid.to(layout.device)[1:-1].unbind(0), ends[1]]  # type: ignore[list-item]


def fixed_grid(
    times: list[float], sign: float, step_size: float | None, grid: Any
) -> Iterable[float] | None:
    """The ends of the fixed steps, or None where steps are adaptive."""
    if grid is not None:
        if step_size is not None:
            raise ValueError(f"give step_size={step_size} or grid, not both")
        points = monotone_times(grid, "grid")
        if (points[0], points[-1]) != (times[0], times[-1]):
            raise ValueError(
                f"grid runs from {points[0]} to {points[-1]}; it must run from t[0]={times[0]} to "
                f"t[-1]={times[-1]}"
            )
        return points[1:]
    if step_size is None:
        return None
    size = real_number(step_size, "step_size")
    if not math.isfinite(size) or size == 0:
        raise ValueError(f"step_size must be finite and not zero, got {step_size}")
    if size < 0 and sign > 0:
        raise ValueError(f"step_size={step_size} is negative but t runs forward")
    size = abs(size)
    span = abs(times[-1] - times[0])
    farthest = max((end for end in (times[0], times[-1]) if math.isfinite(end)), key=abs)
    if abs(farthest) + size == abs(farthest):
        raise ValueError(f"step_size={step_size} is lost to rounding at t={farthest}")
    # a solve to infinity has no last step
    count = None if math.isinf(span) else max(1, math.ceil(span / size * (1 - 1e-12)))
    ordered = sorted(times)

    def points_of_size() -> Iterable[float]:
        for i in itertools.count(1) if count is None else range(1, count):
            point = times[0] + sign * i * size
            # a requested time that the grid means to hit is hit exactly
            near = bisect.bisect_left(ordered, point)
            for wanted in ordered[max(0, near - 1) : near + 1]:
                if abs(wanted - point) <= 8 * math.ulp(max(abs(point), abs(times[0]))):
                    point = wanted
            yield point
        yield times[-1]

    return points_of_size()


def with_landings(grid: Iterable[float], landings: list[Landing], sign: float) -> Iterable[float]:
    """The grid with the landings among its points."""
    waiting = [landing.t for landing in landings]
    for point in grid:
        while waiting and sign * waiting[0] < sign * point:
            yield waiting.pop(0)
        if waiting and waiting[0] == point:
            waiting.pop(0)
        yield point
