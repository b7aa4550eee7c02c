"""The looks of events at a step: at which parts θ of it, from 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .bracketing import Array
from .hidden_zeros import chebyshev_points

LEAST_PARTS = 10
"""The fewest parts of a step that is looked at automatically."""


def parts_for(degree: int) -> int:
    """How many parts a polynomial of this degree is cut into: two more than it needs, so that its
    last Chebyshev coefficients say how well it is known."""
    return max(LEAST_PARTS, degree + 2)


class LookPlan:
    """The looks of several events at one step.

    A lane is a part of the step between two looks of one event; lanes are in the order of the
    events and of time.

    Args:
        parts: of every event the number of equal parts, None for an automatic one.
        automatic: the number of parts of those, which end at the Chebyshev points.

    Attributes:
        points: of every event its looks, (parts + 1,), from 0 to 1.
        first, last: of every event its lanes at the start and at the end of the step.
        automatic: the automatic events. blocks: their lanes, (len(automatic), parts).
        inner: the θ inside the step that any event looks at, ascending. thetas: these and 1,
            (looks, 1). events_at: of every one of thetas the events that look there.
        order: where the lanes' ends are in the order of `events_at`.
    """

    def __init__(self, parts: Sequence[int | None], automatic: int) -> None:
        self.points = [
            chebyshev_points(automatic) if n is None else np.arange(n + 1) / n for n in parts
        ]
        counts = np.array([len(points) - 1 for points in self.points], int)
        self.last: Array = np.cumsum(counts) - 1
        self.first: Array = self.last + 1 - counts
        self.automatic = np.array([i for i, n in enumerate(parts) if n is None], int)
        self.blocks = self.first[self.automatic][:, None] + np.arange(automatic)
        ends = np.concatenate([points[1:] for points in self.points])
        events = np.repeat(np.arange(len(parts)), counts)
        every = np.unique(ends)
        self.inner: tuple[float, ...] = tuple(every[:-1].tolist())
        self.thetas = every[:, None]
        self.events_at: list[list[int]] = [events[ends == theta].tolist() for theta in every]
        self.order = np.argsort(np.lexsort((events, ends)))
