"""The velocity of a fitted sampler: the Adams polynomial, and what is learned beyond its span."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...plans.anchors.method import AnchorsMethod, anchors
from ...plans.interpolants import (
    Anchor,
    Interpolant,
    Interval,
    IntervalVelocity,
    PolynomialInterpolant,
)
from ...plans.segment import WeightFunction
from ...plans.sums import combine
from ...rules.gauss import gauss_legendre
from .plan import PlanNumbers


@dataclass
class Evaluation:
    """What an evaluation of the backbone brought besides its velocity.

    index: 0 for the first of a solve. features: of the halves of a guided pair, or of the one
    there is. fields: what the network made of it, once it was asked.
    """

    index: int
    features: Sequence[Tensor]
    fields: tuple[Tensor, Tensor] | None = None


Fields = Callable[[Anchor, "Anchor | None"], tuple[Tensor, Tensor]]
"""(anchor, the one before it or None) -> two fields of the state's shape: for the correction that
the anchor makes, and for the prediction that starts at it."""


class LearnedInterpolant(Interpolant):
    """The Adams polynomial through k anchors plus learned terms.

    In a prediction over h with the anchors t_0 > t_1 > … so far it adds to the mean velocity, in
    form "ordered", Σ_q c_q h^q v[t_0 … t_q] over the divided differences of order q >= k (k+1 in a
    correction), and the network's field times Π_{j<k} (t + h - t_j), over a unit of length fixed
    for the plan; in a correction times h more. Whatever is learned, these are O(h^k) and
    O(h^(k+1)): the order of the method stays. In form "free" the additions are Σ_j c_j v_j and
    the field times h + h_before, in a correction h: no order is claimed.

    numbers: the plan's. fields: the network, None without. anchors: all there are.
    """

    def __init__(self, numbers: PlanNumbers, fields: Fields | None) -> None:
        start = numbers.start
        self.numbers, self.fields = numbers, fields
        self.anchors = max(start.nfe, start.k)
        self.order = start.k if start.form == "ordered" else None
        self.classical = PolynomialInterpolant(start.k)

    def velocities(self, interval: Interval) -> Tensor:
        raise NotImplementedError("this interpolant is integrated in closed form")

    def integrate(self, interval: Interval) -> IntervalVelocity:
        corrected = interval.predicted is not None
        used = interval.anchors[-(self.numbers.start.k + corrected) :]
        classical = self.classical.integrate(replace(interval, anchors=used, predicted=None))
        terms = self._coefficients(interval, corrected) + self._field(interval, corrected)
        if not terms:
            return classical
        learned = combine(*zip(*terms, strict=True))
        return IntervalVelocity(
            classical.mean + learned,
            [*classical.values, learned],
            _and_one_more(classical.weights),
        )

    def _start(self, interval: Interval, corrected: bool) -> Anchor:
        return interval.anchors[-2 if corrected else -1]

    def _coefficients(self, interval: Interval, corrected: bool) -> list[tuple[Any, Tensor]]:
        numbers, anchors = self.numbers, interval.anchors
        table = numbers.correct if corrected else numbers.predict
        row = table[_index(self._start(interval, corrected))]
        if numbers.start.form == "free":
            return [(row[_index(a)], a.v) for a in anchors]
        h = _width(interval)
        newest = anchors[::-1]
        lowest = numbers.start.k + corrected
        if len(newest) <= lowest:
            return []
        weights: list[Any] = [0] * len(newest)
        for q in range(lowest, len(newest)):
            times = [a.t for a in newest[: q + 1]]
            for j, t in enumerate(times):
                spread = math.prod(t - other for m, other in enumerate(times) if m != j)
                weights[j] = weights[j] + row[q] * h**q / spread
        return [(w, a.v) for w, a in zip(weights, newest, strict=True)]

    def _field(self, interval: Interval, corrected: bool) -> list[tuple[Any, Tensor]]:
        if self.fields is None:
            return []
        numbers = self.numbers
        start = self._start(interval, corrected)
        anchor = interval.anchors[-1]
        if anchor.detail.fields is None:
            before = interval.anchors[-2] if len(interval.anchors) > 1 else None
            anchor.detail.fields = self.fields(anchor, before)
        h = _width(interval)
        known = interval.anchors[: -1 if corrected else None]
        if numbers.start.form == "free":
            size = h if corrected else abs(interval.t1 - known[-2].t) if len(known) > 1 else h
        else:
            reach = [abs(interval.t1 - a.t) for a in known[-numbers.start.k :]]
            power = len(reach) - 1 + corrected
            size = math.prod(reach) * (h if corrected else 1.0) / numbers.start.length**power
        gain = numbers.gains[_index(start)][0 if corrected else 1]
        return [(size * gain, anchor.detail.fields[0 if corrected else 1])]


def learned_method(numbers: PlanNumbers, fields: Fields | None) -> AnchorsMethod:
    """The method of a plan, for fixed steps on its own times.

    Its order is that of the classical method in form "ordered", None in form "free".
    """
    start = numbers.start
    method = anchors(
        LearnedInterpolant(numbers, fields),
        gauss_legendre(start.k // 2 + 1),
        correction="PEC" if start.corrected else None,
        forward_last=start.corrected,
        name=f"fitted {start.name}",
    )
    # the difference of prediction and correction holds what was learned: it estimates no error
    return replace(method, error_order=None)


def _index(anchor: Anchor) -> int:
    return int(anchor.detail.index)


def _width(interval: Interval) -> Any:
    return abs(interval.t1 - interval.t0)


def _and_one_more(weights: WeightFunction) -> WeightFunction:
    """The weights of an interval with one more velocity, which comes in as θ²."""

    def extended(theta: Any) -> list[Any]:
        return [*weights(theta), theta * theta]

    return extended
