"""Fixed grids that give every sample of a batch its own times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .evaluation import StateLayout


def per_sample_grid(
    grid: Tensor, ends: Sequence[float], sign: float, layout: StateLayout
) -> Iterable[float]:
    """The ends of the steps of a grid (N+1, *per sample), the last one as the float that it is.

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
    times = grid.detach().to(torch.float64)
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
    times = times.to(layout.device)
    # the steps take a tensor wherever they take a float
    return [*times[1:-1].unbind(0), ends[1]]  # type: ignore[list-item]
