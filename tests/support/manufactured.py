"""Nonlinear, non-autonomous systems with the known solution (sin ωt, 1/(2 + cos ωt)).

The right-hand side is p'(t) + G(t, y) - G(t, p(t)) with a coupling G that is nonlinear in y and
depends on t, so that no condition of any order is trivially true. It is written once, for torch
(several nodes at a time) and for mpmath (one state, as many digits as wanted).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mpmath import mp, mpf
from torch import Tensor


@dataclass(frozen=True)
class Manufactured:
    """a, b, c: coefficients of the coupling, of size about 1. rate: ω.

    Strong coupling shows errors of the sweeps, a high rate shows errors of the quadrature.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 1.0
    rate: float = 1.0
    span: float = 1.5

    def solution(self, t: float) -> Tensor:
        time = torch.tensor(self.rate * t, dtype=torch.float64)
        return torch.stack((torch.sin(time), 1 / (2 + torch.cos(time))))

    def _coupling(self, t, u, w, m):
        return (
            self.a * u * w + self.b * m.sin(w + t),
            self.b * m.cos(u) * w - self.c * t * u * u,
        )

    def _rhs(self, t, u, w, m):
        sin, cos = m.sin(self.rate * t), m.cos(self.rate * t)
        here = self._coupling(t, u, w, m)
        there = self._coupling(t, sin, 1 / (2 + cos), m)
        slope = self.rate * cos, self.rate * sin / (2 + cos) ** 2
        return slope[0] + here[0] - there[0], slope[1] + here[1] - there[1]

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """y (..., 2), t 0-dimensional or (..., 1)."""
        u, w = y.split(1, dim=-1)
        return torch.cat(
            self._rhs(t.reshape(*t.shape, *(1,) * (y.dim() - t.dim())), u, w, torch), -1
        )

    def f_mp(self, t: mpf, y: list[mpf]) -> list[mpf]:
        return list(self._rhs(t, y[0], y[1], mp))

    def solution_mp(self, t: mpf) -> list[mpf]:
        return [mp.sin(self.rate * t), 1 / (2 + mp.cos(self.rate * t))]

    def velocity(self, t: float) -> Tensor:
        """Exact dy/dt along the solution."""
        time = torch.tensor(self.rate * t, dtype=torch.float64)
        slopes = (torch.cos(time), torch.sin(time) / (2 + torch.cos(time)) ** 2)
        return self.rate * torch.stack(slopes)
