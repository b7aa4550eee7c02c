"""Norms, the first step, and the step-size controller."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Norm = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor) -> Tensor:
    """Root of the mean of |x|² over all entries: a 0-dimensional real tensor."""
    norm: Tensor = torch.linalg.vector_norm(x) / math.sqrt(x.numel())
    return norm


def max_norm(x: Tensor) -> Tensor:
    """The largest |x|: a 0-dimensional real tensor."""
    return x.abs().amax()


@dataclass(frozen=True)
class Tolerance:
    """scale = atol + rtol * |y|, the error a step may make; atol and rtol float or tensors that
    broadcast against the solver's state."""

    rtol: float | Tensor
    atol: float | Tensor
    norm: Norm = rms_norm

    def ratio(self, error: Tensor, y0: Tensor, y1: Tensor) -> Tensor:
        """Norm of error / scale, 0-dimensional: a step is accepted where it is at most 1."""
        scale = torch.maximum(y0.abs(), y1.abs()).mul(self.rtol).add(self.atol)
        return self.norm(error / scale)


def first_step(
    velocity: Callable[[float, Tensor], Tensor],
    t0: float,
    y0: Tensor,
    v0: Tensor,
    direction: float,
    span: float,
    order: int,
    tolerance: Tolerance,
) -> float:
    """A first step size (positive), from one more evaluation of f.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, section II.4, "starting step size".
    """
    with torch.no_grad():
        scale = y0.abs() * tolerance.rtol + tolerance.atol
        d0, d1 = (float(tolerance.norm(x / scale)) for x in (y0, v0))
        h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
        h0 = min(h0, span)
        v1 = velocity(t0 + direction * h0, torch.add(y0, v0, alpha=direction * h0))
        d2 = float(tolerance.norm((v1 - v0) / scale)) / h0
    if not math.isfinite(d2):
        return h0
    largest = max(d1, d2)
    h1 = max(1e-6, h0 * 1e-3) if largest <= 1e-15 else (0.01 / largest) ** (1 / order)
    return min(100 * h0, h1, span)


@dataclass
class StepController:
    """Proportional-integral control of the step size.

    The factor after a step with error ratio r and estimate order q is
    safety * r^(-0.7/q) * r_previous^(0.4/q), within [min_factor, max_factor]; after a rejection
    the integral part is left out and the step does not grow.

    Source: Hairer & Wanner, Solving ODEs II, section IV.2; Gustafsson 1991.
    """

    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    _previous: float = 1.0
    _rejected: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.safety <= 1:
            raise ValueError(f"safety must be in (0, 1], got {self.safety}")
        if not 0 < self.min_factor < 1 <= self.max_factor:
            raise ValueError(
                f"a step-size factor must be able to shrink and to grow: 0 < min_factor < 1 <= "
                f"max_factor, got min_factor={self.min_factor}, max_factor={self.max_factor}"
            )

    def accept(self, ratio: float, order: int) -> float:
        """Factor for the next step after an accepted one."""
        ratio = max(ratio, 1e-10)
        factor: float = self.safety * ratio ** (-0.7 / order) * self._previous ** (0.4 / order)
        factor = min(self.max_factor, max(self.min_factor, factor))
        if self._rejected:
            factor = min(1.0, factor)
        self._previous, self._rejected = max(ratio, 1e-4), False
        return factor

    def reject(self, ratio: float, order: int) -> float:
        """Factor for another try after a rejected step (ratio > 1, or not finite)."""
        self._rejected = True
        if not math.isfinite(ratio):
            return self.min_factor
        factor: float = self.safety * ratio ** (-1 / order)
        return min(0.9, max(self.min_factor, factor))
