"""What the velocity is between the places where it was evaluated: anchors and interpolants."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import integer_from
from ..rules.lagrange import lagrange_matrix
from ..rules.rule import QuadratureRule
from .segment import WeightFunction, lagrange_weights
from .sums import combine

FORMULAS = ("Interval.positions", "PolynomialInterpolant.integrate")
"""Functions with formulas of a step, in which the laboratory plants faults."""


@dataclass(slots=True)
class Anchor:
    """A place where the velocity is truly known: v = f(t, y).

    `detail` is whatever else the evaluation of f brought (see `velocity.DetailedVelocity`), for
    interpolants that want more than v, such as the two halves of a guided pair.
    """

    t: float
    y: Tensor
    v: Tensor
    detail: Any = None


@dataclass(frozen=True)
class IntervalVelocity:
    """The velocity on one interval as an interpolant sees it, already integrated.

    mean: (1/h) ∫ v̂ over the interval, by the rule. values, weights: see `segment.Segment`.
    """

    mean: Tensor
    values: Sequence[Tensor] | Tensor
    weights: WeightFunction


@dataclass(frozen=True)
class Interval:
    """What an interpolant is asked about: the velocity at the rule's nodes of [t0, t1].

    anchors: oldest first, as many as the interpolant wants up to and including the start; in a
    correction the end anchor (at t1) comes last. predicted: None in a prediction; in the correction
    the prediction of the same interval, so that work can be reused. t0, t1: floats, or per-sample
    times that broadcast against the state.
    """

    anchors: Sequence[Anchor]
    t0: float
    t1: float
    rule: QuadratureRule
    predicted: IntervalVelocity | None = None

    @property
    def times(self) -> list[float]:
        """The times of the nodes; a node at an end has the end's time exactly."""
        h = self.t1 - self.t0
        return [
            self.t0 if c == 0 else self.t1 if c == 1 else self.t0 + c * h
            for c in self.rule.nodes.tolist()
        ]

    @property
    def positions(self) -> list[float]:
        """The anchors' times as fractions of the interval: 0 is its start, 1 its end."""
        return [(a.t - self.t0) / (self.t1 - self.t0) for a in self.anchors]


class Interpolant(ABC):
    """Velocities at the nodes of an interval, from anchors.

    Attributes:
        anchors: how many anchors, the start of the interval included, it wants at most (k).
        order: global order p of the predictor made of it (order + 1 with one correction), when the
            rule is exact enough; None where no order is claimed.
    """

    anchors: int
    order: int | None

    @abstractmethod
    def velocities(self, interval: Interval) -> Tensor:
        """v̂ at the rule's nodes: (n, *shape)."""

    def integrate(self, interval: Interval) -> IntervalVelocity:
        """The rule applied to `velocities`."""
        rule = interval.rule
        values = self.velocities(interval)
        mean = combine(rule.weights.tolist(), tuple(values))
        return IntervalVelocity(mean, values, lagrange_weights(rule.nodes))


class PolynomialInterpolant(Interpolant):
    """The polynomial of degree k-1 through the last k anchors (degree k with an end anchor).

    k = 1 is the constant. With a rule of degree >= k-1 the predictor is Adams-Bashforth k on any
    spacing of the anchors; with degree >= k the corrector is Adams-Moulton (Hairer, Nørsett,
    Wanner, Solving ODEs I, section III.1 and III.5).
    """

    def __init__(self, k: int) -> None:
        self.anchors = self.order = integer_from(1, k, "k, the number of anchors,")

    def __repr__(self) -> str:
        return f"PolynomialInterpolant({self.anchors})"

    def velocities(self, interval: Interval) -> Tensor:
        positions, nodes = interval.positions, interval.rule.nodes
        if any(isinstance(p, Tensor) for p in positions):
            rows = [_basis(positions, c) for c in nodes.tolist()]
        else:
            rows = lagrange_matrix(positions, nodes).tolist()
        return torch.stack([combine(row, [a.v for a in interval.anchors]) for row in rows])

    def integrate(self, interval: Interval) -> IntervalVelocity:
        # The interpolant is linear in the anchors: k numbers do the work of n node velocities.
        rule, positions = interval.rule, interval.positions
        if any(isinstance(p, Tensor) for p in positions):  # every sample has numbers of its own
            return super().integrate(interval)
        basis = lagrange_matrix(positions, rule.nodes)
        values = [a.v for a in interval.anchors]
        mean = combine((rule.weights @ basis).tolist(), values)
        if rule.degree >= len(values) - 1:  # then the rule is the polynomial's own integral
            return IntervalVelocity(mean, values, lagrange_weights(positions))
        return IntervalVelocity(mean, values, lagrange_weights(rule.nodes, basis))


def _basis(positions: Sequence[float | Tensor], c: float) -> list[float | Tensor]:
    """Lagrange's basis through per-sample positions at c: a weight for each."""
    return [
        math.prod((c - q) / (p - q) for m, q in enumerate(positions) if m != j)
        for j, p in enumerate(positions)
    ]


class OracleInterpolant(Interpolant):
    """The exact velocity along a known trajectory: a test instrument.

    It isolates the rule: with it a step of size h from the exact state has the pure quadrature
    error, O(h^(d+2)) for a rule of degree d (for Gauss-Lobatto with n nodes O(h^(2n-1)): local
    order 7 for four points).

    Args:
        velocity: t (float) -> dy/dt of the trajectory, a tensor of the state's shape.
    """

    anchors = 1
    order = None

    def __init__(self, velocity: Callable[[float], Tensor]) -> None:
        self.velocity = velocity

    def velocities(self, interval: Interval) -> Tensor:
        return torch.stack([self.velocity(t) for t in interval.times])
