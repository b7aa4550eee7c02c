"""Samples with times of their own, as one solve in a common variable."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..equations.velocity import Velocity


class LaneVelocity:
    """The velocity of samples between their own requested times, in a variable τ that all share.

    From τ = i to i + 1 sample b goes from t[i, b] to t[i + 1, b] at an even pace:
    dy_b/dτ = (t[i + 1, b] - t[i, b]) · f(t_b(τ), y_b). So one backward solve serves all samples,
    whose gradients in common parameters are one sum.

    Args:
        velocity: of a state whose leading axis counts the samples.
        t: requested times, (T,) for all samples or (T, B).
    """

    def __init__(self, velocity: Velocity, t: Any) -> None:
        layout = velocity.layout
        times = torch.as_tensor(t, dtype=torch.float64).to(layout.device)
        self._velocity = velocity
        self._times = times.reshape(len(times), -1).expand(-1, layout.batch[0])
        self.enter_interval(0)

    def enter_interval(self, i: int) -> None:
        """Say that the times to come lie between the requested ones of index i and i + 1."""
        self._index, self._start = i, self._times[i]
        self._length = self._times[min(i + 1, len(self._times) - 1)] - self._start

    def __call__(self, tau: Any, y: Tensor) -> tuple[Tensor, None]:
        """dy/dτ (B, ...) at one τ, and no detail."""
        column = (-1, *(1,) * (y.dim() - 1))
        t = self._start + (tau - self._index) * self._length
        v, _ = self._velocity(t.reshape(column), y)
        return v * self._length.reshape(column).to(v.real.dtype), None

    def nodes(self, taus: Tensor, states: Tensor) -> Tensor:
        """dy/dτ (n, B, ...) at n nodes τ (n,)."""
        column = (-1, *(1,) * (states.dim() - 2))
        t = self._start + (taus[:, None].to(torch.float64) - self._index) * self._length
        v = self._velocity.nodes(t.reshape(len(taus), *column), states)
        return v * self._length.reshape(column).to(v.real.dtype)
