"""An accepted step as events see it: times and states at parts θ of it, from 0 to 1."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from ...plans.result import StepResult
from ...plans.segment import Segment
from ...plans.sums import combine

Array = np.ndarray

_TOGETHER = 2**15
"""Numbers in states that are made together: of a larger state there is one at a time."""


class DenseStep:
    """A step of one state, or of B samples that have steps of their own.

    Args:
        result: the step.
        t0: where it starts, (B,), with B = 1 for one state.
        samples: B, None for one state.

    Attributes:
        result: the step. t0, t1: its ends (B,). good: the samples that take it (bool (B,)); for the
            others nothing here means anything.
    """

    def __init__(self, result: StepResult, t0: Array, samples: int | None) -> None:
        self.result, self.t0 = result, t0
        if samples is None:
            self.t1, self.good = np.array([result.state.t]), np.ones(1, bool)
        else:
            assert result.samples is not None
            self.t1, self.good = result.samples.t, result.samples.accepted
        self._shared = samples is None

    @functools.cached_property
    def segment(self) -> Segment:
        """The dense output. Making it may evaluate func, whose gradients may be wanted: ask for it
        in the caller's grad mode."""
        return self.result.segment()

    @property
    def degree(self) -> int:
        """Degree of the dense output as a polynomial in θ."""
        segment = self.segment
        return len(segment.velocities) if segment.degree is None else segment.degree

    def times(self, thetas: Array) -> Array:
        """The times at θ, an array that broadcasts against (B,), never outside the step."""
        inside = self.t0 + thetas * (self.t1 - self.t0)
        low, high = np.minimum(self.t0, self.t1), np.maximum(self.t0, self.t1)
        return np.where(thetas == 1, self.t1, np.clip(inside, low, high))

    def states(self, thetas: tuple[float, ...]) -> Iterator[Tensor]:
        """The states at θ in (0, 1), one after another, each the same θ for all samples."""
        segment = self.segment
        if len(thetas) * self.result.state.y.numel() <= _TOGETHER:
            yield from segment.parts(thetas).unbind(0)
            return
        for theta in thetas:
            yield segment.part(theta)

    def state(self, thetas: Array) -> Tensor:
        """The state at θ (B,), exactly the end of the step where θ is 1."""
        y1 = self.result.state.y
        at_end = thetas == 1
        if at_end.all():
            return y1
        if self._shared:
            return self.segment.part(float(thetas[0]))
        y = self.segment.part(self._column(thetas, y1))
        return torch.where(self._column(at_end, y1), y1, y) if at_end.any() else y

    def velocity(self, thetas: Array) -> Tensor:
        """dy/dt of the dense output at θ (B,)."""
        segment = self.segment
        # weights are polynomials in θ: through their Chebyshev coefficients they are
        # differentiated exactly
        degree = self.degree + 1
        points = chebyshev.chebpts1(degree + 1)
        table = np.array([segment.weights(theta) for theta in ((1 + points) / 2).tolist()])
        slopes = 2 * chebyshev.chebder(chebyshev.chebfit(points, table, degree))
        values = chebyshev.chebval(2 * thetas - 1, slopes)  # (m, B)
        velocities = tuple(segment.velocities)
        if self._shared:
            return combine(values[:, 0].tolist(), velocities)
        return combine([self._column(row, velocities[0]) for row in values], velocities)

    def largest_move(self) -> Tensor:
        """The size |h v| by which each entry moves at most: v is the largest, entry by entry, of
        the velocities that the step is made of, as far as they are finite.
        """
        segment = self.segment
        largest = functools.reduce(torch.maximum, (v.abs() for v in segment.velocities))
        return (largest * abs(segment.t1 - segment.t0)).nan_to_num(0.0, 0.0).to(segment.y0.real)

    @staticmethod
    def _column(row: Array, like: Tensor) -> Tensor:
        return torch.tensor(row).to(like.device).reshape(-1, *(1,) * (like.dim() - 1))
