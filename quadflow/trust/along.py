"""The equation along a solution: its velocity, its defect, and where it jumps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..equations.velocity import StateLayout, Velocity
from ..solution import Solution
from .found import Jump

SEEN = 512
"""Times at which the solution is put into the equation."""

REACH = 8
"""Steps on each side that a short one is compared with."""

NARROWED = 60
"""Halvings, at most, of an interval in which a jump is looked for."""

MOST_JUMPS = 20


class Along:
    """The equation as the check looks at it: velocities along a solution."""

    def __init__(self, func: Callable[..., Any], args: tuple[Any, ...], layout: StateLayout):
        self.layout = layout
        bound = func if not args else lambda t, y: func(t, y, *args)
        self._velocity = Velocity(bound, layout, (0.0, 1.0), "loop")

    def at(self, t: float, y: Tensor) -> Tensor:
        """func at a time and a state, both of the solver."""
        return self._velocity(t, y.clone())[0]

    def state(self, solution: Solution, t: float) -> Tensor:
        """The solution at a time, as the solver's state."""
        return self.layout.join(solution(t))

    def along(self, solution: Solution, t: float) -> Tensor:
        """func on the solution at a time."""
        return self.at(t, self.state(solution, t))

    def states(self, solution: Solution) -> Tensor:
        """The solution at the requested times that it reached: (T, *state)."""
        parts = solution.y
        if isinstance(parts, Tensor):
            return parts
        each = list(parts.values()) if isinstance(parts, dict) else list(parts)
        return torch.cat([p.reshape(len(p), -1) for p in each], 1)


def largest_entry(x: Tensor) -> float:
    """The largest absolute value; 0 of an empty tensor."""
    return float(x.abs().double().max()) if x.numel() else 0.0


def gives_the_same(look: Along, t: float, y: Tensor) -> bool:
    """Whether func gives the same velocity twice."""
    return torch.allclose(look.at(t, y), look.at(t, y), rtol=0.0, atol=0.0, equal_nan=True)


def defect(look: Along, solution: Solution) -> float:
    """The largest |dy/dt - f| of the dense output at times that no step was made for."""
    start, end = solution.steps[0], solution.steps[-1]
    # a golden section's multiples lie evenly, and meet no pattern of the steps
    places = [(0.5 + k * 0.6180339887498949) % 1 for k in range(1, SEEN + 1)]
    worst, largest = 0.0, math.ulp(0.0)
    h = 1e-4 * abs(end - start) / max(1, len(solution.steps) - 1)
    for t in (start + (end - start) * p for p in places):
        a, b = max(t - h, min(start, end)), min(t + h, max(start, end))
        slope = (look.state(solution, b) - look.state(solution, a)) / (b - a)
        v = look.along(solution, t)
        worst, largest = max(worst, largest_entry(slope - v)), max(largest, largest_entry(v))
    return worst / largest


def find_jumps(look: Along, solution: Solution) -> list[Jump]:
    """Where func jumps along a solution: intervals around its shortest steps, halved."""
    steps = solution.steps
    sizes = [abs(b - a) for a, b in itertools.pairwise(steps)]
    largest = max(
        largest_entry(look.along(solution, t)) for t in steps[:: max(1, len(steps) // 64)]
    )
    found: list[Jump] = []
    for a, b in _suspects(steps, sizes):
        jump = _narrowed(look, solution, a, b, largest)
        if jump is not None and all(abs(jump.t - j.t) > abs(b - a) / 4 for j in found):
            found.append(jump)
        if len(found) == MOST_JUMPS:
            break
    return sorted(found, key=lambda j: abs(j.t - steps[0]))


def _suspects(steps: Sequence[float], sizes: Sequence[float]) -> list[tuple[float, float]]:
    """Intervals around steps that are far shorter than some near them on both sides."""
    found = []
    for i, size in enumerate(sizes):
        before, after = sizes[max(0, i - REACH) : i], sizes[i + 1 : i + 1 + REACH]
        least = size <= min([*before[-3:], size]) and size <= min([*after[:3], size])
        if before and after and least and 5 * size < min(max(before), max(after)):
            found.append((steps[max(0, i - 2)], steps[min(len(steps) - 1, i + 3)]))
    return found


def _narrowed(look: Along, solution: Solution, a: float, b: float, largest: float) -> Jump | None:
    """The jump of func between two times, if what it changes by does not vanish with them."""
    va, vb = look.along(solution, a), look.along(solution, b)
    for _ in range(NARROWED):
        middle = 0.5 * (a + b)
        if middle in (a, b):
            break
        vm = look.along(solution, middle)
        if largest_entry(vm - va) >= largest_entry(vb - vm):
            b, vb = middle, vm
        else:
            a, va = middle, vm
    size = largest_entry(vb - va)
    if size < 1e-3 * largest or size < 1e3 * _noise(look, solution, a, b):
        return None
    y = look.state(solution, b)
    in_time = largest_entry(look.at(b, y) - look.at(a, y)) > 0.5 * size
    # two neighbouring floats: the shorter one is more likely what was meant
    return Jump(min(a, b, key=lambda t: len(repr(t))), size / largest, in_time)


def _noise(look: Along, solution: Solution, a: float, b: float) -> float:
    """What func changes by over as short a time beyond b."""
    ends = sorted((solution.steps[0], solution.steps[-1]))
    beyond = min(max(b + (b - a), ends[0]), ends[1])
    return largest_entry(look.along(solution, b) - look.along(solution, beyond))
