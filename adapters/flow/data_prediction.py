"""DPM-Solver++ (2M) as an interpolant: the data estimate, linear in log-SNR, on two anchors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...equations.velocity import Time
from ...plans.interpolants import Anchor, Interpolant, Interval, IntervalVelocity
from ...plans.sums import combine
from .field import Convention


class DataPredictionInterpolant(Interpolant):
    """Second-order multistep in data prediction on the path x = (1-σ) data + σ noise.

    convention: that of the flow field whose velocities the anchors hold.

    With D = x - σ dx/dσ at the anchors, λ = log((1-σ)/σ), h = λ1 - λ0 and h' = λ0 - λ_(-1):
    x1 = (σ1/σ0) x0 + (1 - σ1/σ0) (D0 + h/(2h') (D0 - D_(-1))). First order (which on this path is
    Euler's step) without a second anchor, from σ = 1 and in the step to σ = 0, where λ is infinite.

    Source: Lu et al. 2022, DPM-Solver++, algorithm 2 (2M) with α = 1-σ. As an interpolant it is
    integrated in closed form; the rule is not used. Its order is 2 where the steps in λ shrink with
    the grid; from σ = 1 to 0 on a uniform one, where they do not at the ends, the error is
    O(h² log 1/h).
    """

    anchors = 2
    order = None  # none that holds on every grid, see above

    def __init__(self, convention: Convention) -> None:
        self.convention = convention

    def velocities(self, interval: Interval) -> Tensor:
        raise NotImplementedError("this interpolant is integrated in closed form")

    def integrate(self, interval: Interval) -> IntervalVelocity:
        anchors, t0, t1 = interval.anchors, interval.t0, interval.t1
        now = anchors[-1]
        s0, s1 = self.convention.sigma(t0), self.convention.sigma(t1)
        if not isinstance(s0, Tensor) and s0 == 0:
            raise ValueError(
                "DPM-Solver++ cannot start at σ = 0: it divides by σ. Invert by another method"
            )
        mean = now.v
        if len(anchors) > 1 and (isinstance(s1, Tensor) or s1 > 0):
            before = anchors[-2]
            earlier = self.convention.sigma(before.t)
            past = _log_snr(s0) - _log_snr(earlier)
            # at σ = 1 it is infinite and the gain nothing; per-sample times come out so by
            # themselves, without a look at their values
            if isinstance(past, Tensor) or math.isfinite(past):
                gain = (_log_snr(s1) - _log_snr(s0)) / (2 * past)
                weight = (1 - s1 / s0) * gain / (t1 - t0)
                if isinstance(weight, Tensor):
                    weight = weight.to(mean.dtype)
                mean = mean + weight * (self._data(now, s0) - self._data(before, earlier))
        return IntervalVelocity(mean, (mean,), lambda theta: (theta,))

    def _data(self, anchor: Anchor, sigma: Time) -> Tensor:
        return combine((1.0, -sigma * self.convention.direction), (anchor.y, anchor.v))


def _log_snr(sigma: Time) -> Time:
    if isinstance(sigma, Tensor):
        return torch.log((1 - sigma) / sigma)
    return -math.inf if sigma >= 1 else math.log((1 - sigma) / sigma)
