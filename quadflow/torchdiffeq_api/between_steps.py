"""States between fixed steps by torchdiffeq's interpolation: option "interp"."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..equations.clock import differentiated
from ..equations.velocity import StateLayout, Velocity
from ..loop.grids import fixed_grid
from ..solve import solve


def interpolated(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    times: list[float],
    keywords: dict[str, Any],
    interp: str,
) -> Any:
    """States at `times` by linear or cubic Hermite interpolation between the steps' ends."""
    if isinstance(t, Tensor) and differentiated(t):
        raise ValueError("options['interp']: gradients in t need the method's dense output")
    sign = 1.0 if times[-1] > times[0] else -1.0
    size, grid = keywords.get("step_size"), keywords.get("grid")
    grid = [times[0], *(fixed_grid(times, sign, size, grid) or ())]
    keys = [sign * point for point in grid]
    ends = []
    for when in times:
        right = min(bisect.bisect_left(keys, sign * when), len(grid) - 1)
        ends.append((grid[right], grid[right]) if grid[right] == when else
                    (grid[right - 1], grid[right]))  # fmt: skip
    needed = sorted({grid[0], grid[-1], *itertools.chain(*ends)}, key=lambda point: sign * point)
    reached = solve(func, y0, needed, **{**keywords, "step_size": None, "grid": grid}).y
    layout = StateLayout(y0)
    velocity = Velocity(func, layout, (times[0], times[-1]))
    at = dict(zip(needed, layout.join(reached, 1), strict=True))

    def between(left: float, right: float, when: float) -> Tensor:
        if left == right:
            return at[right]
        h, theta = right - left, (when - left) / (right - left)
        rise = at[right] - at[left]
        if interp == "linear":
            return at[left] + theta * rise
        v0, v1 = (velocity(end, at[end])[0] for end in (left, right))
        bend = (1 - theta) * (h * v0 - rise) - theta * (h * v1 - rise)
        return at[left] + theta * (rise + (1 - theta) * bend)

    return layout.split(
        torch.stack([between(*pair, when) for pair, when in zip(ends, times, strict=True)]), 1
    )
