"""Corrected Adams-Bashforth: two anchors, and a constant part of what a third would add."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

import quadflow as qf

from ...adapters import FlowField
from ...adapters.sampling.samplers import Sampler

ADAMS = 5 / 12
"""The θ of Adams-Bashforth 3."""


class CorrectedAdams(qf.Interpolant):
    """The line through two anchors plus θ·12/5 of what the parabola through three adds to it.

    On equal steps the prediction is AB2 + θ h (v0 - 2 v(-1) + v(-2)); θ = 5/12 is AB3, on any grid.
    With fewer than three anchors it is the polynomial through what there is.

    theta: the constant, tuned for a model and a budget.

    Source: the form of arXiv 2605.16736 on equal steps; other grids by the ratio of corrections.
    """

    anchors = 3
    order = 2

    def __init__(self, theta: float) -> None:
        self.theta = float(theta)
        self._line, self._parabola = qf.PolynomialInterpolant(2), qf.PolynomialInterpolant(3)

    def velocities(self, interval: qf.Interval) -> Tensor:
        line = self._line.velocities(replace(interval, anchors=interval.anchors[-2:]))
        if len(interval.anchors) < 3:
            return line
        return line + self.theta / ADAMS * (self._parabola.velocities(interval) - line)


def cab_plan(theta: float) -> Sampler:
    """`CorrectedAdams` as a plan for `sample`, in nfe intervals."""

    def plan(field: FlowField, nfe: int, sidenet: object) -> tuple[qf.Method, int]:
        rule = qf.gauss_legendre(2)
        return qf.anchors(CorrectedAdams(theta), rule, startup="rising", name="cab"), nfe

    return plan
