"""One interval: predict, evaluate, correct. Every method of the library is advanced here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import attempt
from .attempt import RuleTensors
from .dense import Segment, along, combine, lagrange_weights, polynomial_weights
from .evaluation import Velocity
from .host import worst
from .interpolation import Anchor, Interval
from .lagrange import lagrange_integrals
from .methods import AnchorsMethod, Method, StagesMethod, SweepsMethod, VariableOrderMethod
from .quadrature import QuadratureRule
from .tableaus import DOPRI5, Tableau
from .variable_order import IntervalWeights, interval_weights


@dataclass(frozen=True)
class State:
    """Where a solve stands between two intervals.

    anchor: the velocity at (t, y) where it is known already (reused end anchors, first same as
    last). history: earlier anchors, oldest first. last: the interval that led here. order: that of
    the next interval where it varies. In the anchors plan t may be a tensor that broadcasts against
    y: a time for every sample.
    """

    t: float
    y: Tensor
    anchor: Anchor | None = None
    history: tuple[Anchor, ...] = ()
    last: Segment | None = None
    order: int = 1


class NotContracting(RuntimeError):
    """Sweeps that are to converge do not."""


@dataclass(frozen=True)
class OrderErrors:
    """What the next order is chosen from: errors[i], of the state's shape, estimates the error of
    order weights.orders[i]; O(h^(order+1))."""

    weights: IntervalWeights
    errors: Tensor


@dataclass(frozen=True)
class SamplesStep:
    """Of steps that every sample has for itself: whose was accepted (bool (B,)), and the times t
    (B,) where the samples stand after it, on the host."""

    accepted: np.ndarray
    t: np.ndarray


@dataclass
class StepResult:
    """One interval done.

    state: at its end. previous: at its start. error: estimate of the local error, of the state's
    shape, O(h^error_order); None without one. make_segment: see `segment`. start: the anchor at
    the start, where the plan evaluated one: a rejected step need not evaluate it again. orders: the
    errors of several orders, where the method chooses between them. samples: of steps that every
    sample has for itself. refine: called with no arguments, the same interval with one sweep more
    (a call of f); None where the method has none. sweeps_left: how often that may go on.
    """

    state: State
    error: Tensor | None
    error_order: int | None
    make_segment: Callable[[StepResult], Segment]
    start: Anchor | None
    previous: State
    orders: OrderErrors | None = None
    samples: SamplesStep | None = None
    refine: Callable[[], StepResult] | None = None
    sweeps_left: int = 0

    def segment(self) -> Segment:
        """The interval's dense output. It may need evaluations of f, which are shared with the
        next interval through `state`: it is asked for and not made."""
        return self.make_segment(self)


@dataclass
class Stepper:
    """A method bound to a velocity; `step` advances it by one interval.

    The constants of the method are kept here as tensors of the state's dtype and device, so that
    nothing is moved between host and device inside the loop. adaptive: the error estimate is
    looked at, and `StepResult.refine` asked for what is wanting.
    """

    method: Method
    velocity: Velocity
    adaptive: bool = False
    _rules: dict[Any, RuleTensors] = field(default_factory=dict)
    _uniform: Tensor | None = None

    def start(self, state: State) -> Anchor:
        """The anchor at the start of an interval: known already, or one evaluation."""
        if state.anchor is not None:
            return state.anchor
        v, detail = self.velocity(state.t, state.y)
        return Anchor(state.t, state.y, v, detail)

    def step(self, state: State, t1: float, *, is_last: bool = False) -> StepResult:
        """Advance `state` to time t1 (either direction).

        is_last says that no interval follows, for plans that save an evaluation there.
        """
        if isinstance(self.method, AnchorsMethod):
            return self._anchors(self.method, state, t1, is_last)
        if isinstance(self.method, VariableOrderMethod):
            return self._variable_order(self.method, state, t1)
        if isinstance(self.method, SweepsMethod):
            return self._sweeps(self.method, state, t1)
        if isinstance(self.method, StagesMethod):
            return self._stages(self.method.tableau, state, t1)
        raise TypeError(f"{self.method!r} has no evaluation plan")

    # -- anchors ---------------------------------------------------------------------------------

    def _anchors(self, method: AnchorsMethod, state: State, t1: float, is_last: bool) -> StepResult:
        interpolant, rule = method.interpolant, method.rule
        start = self.start(state)
        known = (*state.history, start)[-interpolant.anchors :]
        if method.startup == "dopri5" and len(known) < interpolant.anchors:
            result = self._stages(DOPRI5, State(state.t, state.y, start), t1)
            result.state = State(t1, result.state.y, result.state.anchor, known)
            return result
        t0, y0 = state.t, state.y
        h: Any = t1 - t0
        if isinstance(h, Tensor):  # per-sample times are float64, the state need not be
            h = h.to(self.velocity.layout.time_dtype)
        inside = interpolant.integrate(Interval(known, t0, t1, rule))
        y1 = along(y0, inside.mean, h)
        end: Anchor | None = None
        error: Tensor | None = None
        if method.correction is not None and not (is_last and method.forward_last):
            v1, detail = self.velocity(t1, y1)
            reached = Anchor(t1, y1, v1, detail)
            corrected = interpolant.integrate(Interval((*known, reached), t0, t1, rule, inside))
            y1 = along(y0, corrected.mean, h)
            error = (corrected.mean - inside.mean) * h
            inside = corrected
            if method.correction == "PEC":
                end = Anchor(t1, y1, v1, detail)
        segment = Segment(t0, t1, y0, inside.values, inside.weights)
        return StepResult(
            State(t1, y1, end, known), error, len(known) + 1, lambda _: segment, start, state
        )

    # -- anchors, variable order -----------------------------------------------------------------

    def _variable_order(self, method: VariableOrderMethod, state: State, t1: float) -> StepResult:
        start = self.start(state)
        known = (*state.history, start)[-(method.max_order + 1) :]
        t0, y0, h = state.t, state.y, t1 - state.t
        shape, recent = y0.shape, known[::-1]
        k = min(state.order, len(known))
        weights = interval_weights([a.t for a in recent], t0, t1, k, method.max_order)
        m = len(weights.positions)
        table = torch.tensor(weights.table).to(y0.device, y0.dtype, non_blocking=True)
        velocities = torch.stack([a.v for a in recent[:m]]).reshape(m, -1)
        predicted = along(y0, (table[0, 1:] @ velocities).reshape(shape), h)
        v1, _ = self.velocity(t1, predicted)
        velocities = torch.cat((v1.reshape(1, -1), velocities))
        y1 = along(y0, (table[1] @ velocities).reshape(shape), h)
        errors = ((table[2:] @ velocities.detach()) * h).reshape(-1, *shape)
        segment = Segment(
            t0, t1, y0, velocities[: k + 1].reshape(-1, *shape),
            lagrange_weights([1.0, *weights.positions[:k].tolist()]),
        )  # fmt: skip
        return StepResult(
            State(t1, y1, history=known, order=k), errors[-1], k + 1,
            lambda _: segment, start, state, OrderErrors(weights, errors),
        )  # fmt: skip

    # -- sweeps ----------------------------------------------------------------------------------

    def _sweeps(self, method: SweepsMethod, state: State, t1: float) -> StepResult:
        rule, t0, y0, h = method.rule, state.t, state.y, t1 - state.t
        n, shape = rule.n, y0.shape
        tensors = self._rule_tensors(method, y0)
        sweeps, extra = method.sweeps, max(0, method.most_sweeps - method.sweeps)
        extrapolated = method.guess == "extrapolated" and state.last is not None
        if extrapolated:
            assert state.last is not None
            guess = self._extrapolate(tensors, state.last, h)
            # without an anchor the first sweep evaluates the start with the other nodes
            anchor = state.anchor if rule.has_left else None
        else:
            anchor = self.start(state)
            guess = anchor.v.reshape(1, -1).expand(n, -1)
            if method.guess == "extrapolated":
                sweeps = max(sweeps, (method.order or 1) - 1)
                if extra and self.adaptive:  # the estimate says when there are enough
                    sweeps, extra = 2, 2 * sweeps
        f, v0 = self.velocity.nodes, None if anchor is None else anchor.v
        if method.converged:
            values, previous, v0 = self._until_converged(tensors, t0, h, y0, v0, guess, sweeps)
        else:
            values, previous, v0 = attempt.sweeps(tensors, f, t0, h, y0, v0, guess, sweeps)
        if v0 is not None and anchor is None:
            anchor = Anchor(t0, y0, v0)

        def result(values: Tensor, previous: Tensor, extra: int) -> StepResult:
            y1, error = attempt.swept(
                tensors, h, y0, values, previous, guess if extrapolated else None
            )

            def refine() -> StepResult:
                return result(
                    attempt.sweep(tensors, f, t0, h, y0, v0, values)[0], values, extra - 1
                )

            order = method.error_order
            if order is not None and not extrapolated:
                order = min(order, n)
            segment = Segment(t0, t1, y0, values.reshape(n, *shape), lagrange_weights(rule.nodes))
            return StepResult(
                State(t1, y1, last=segment), error, order, lambda _: segment, anchor, state,
                refine=refine if extra > 0 else None, sweeps_left=extra,
            )  # fmt: skip

        return result(values, previous, extra)

    def _rule_tensors(self, method: SweepsMethod, y0: Tensor) -> RuleTensors:
        key = (y0.dtype, y0.device)
        if key not in self._rules:
            embedded = _embedded(method.rule) if method.error_order is not None else None
            self._rules[key] = RuleTensors.of(method.rule, embedded, y0)
        return self._rules[key]

    def _until_converged(
        self, rule: RuleTensors, t0: float, h: float, y0: Tensor, v0: Tensor | None,
        guess: Tensor, most: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """As `attempt.sweeps`, until the sweeps move the states by rounding alone."""
        values = previous = guess
        change = least = math.inf
        for count in range(1, most + 1):
            previous = values
            values, v0 = attempt.sweep(rule, self.velocity.nodes, t0, h, y0, v0, previous)
            before, change = change, _rounding_units(values - previous, h, y0)
            if _converged(change, before, least, count == most, t0, h):
                break
            least = min(least, change)
        return values, previous, v0

    def _extrapolate(self, rule: RuleTensors, last: Segment, h: float) -> Tensor:
        ratio = h / (last.t1 - last.t0)
        old = last.velocities
        assert isinstance(old, Tensor)
        if abs(ratio - 1) < 1e-9:  # uniform steps: one matrix for all of them
            if self._uniform is None:
                self._uniform = rule.extrapolation(1.0)
            move = self._uniform
        else:
            move = rule.extrapolation(ratio)
        return attempt.extrapolated(move, old)

    # -- stages ----------------------------------------------------------------------------------

    def _stages(self, tableau: Tableau, state: State, t1: float) -> StepResult:
        t0, y0 = state.t, state.y
        h: Any = t1 - t0
        start = self.start(state)
        detail = start.detail

        def f(t: Any, y: Tensor) -> Tensor:
            nonlocal detail
            v, detail = self.velocity(t, y)
            return v

        y1, velocities, error = attempt.stages(tableau, f, t0, t1, h, y0, start.v)
        end: Anchor | None = None
        if tableau.first_same_as_last:
            end = Anchor(t1, y1, velocities[-1], detail)

        def segment(result: StepResult) -> Segment:
            known = list(velocities)
            if not tableau.first_same_as_last:
                anchor = self.start(result.state)  # shared with the next interval
                result.state = State(t1, y1, anchor, result.state.history)
                known.append(anchor.v)
            for node, row in tableau.extra:
                inner = along(y0, combine(row, known), h)
                known.append(self.velocity(t0 + node * h, inner)[0])
            return Segment(t0, t1, y0, known, polynomial_weights(tableau.dense))

        return StepResult(State(t1, y1, end), error, tableau.error_order, segment, start, state)


def _rounding_units(change: Tensor, h: float, y0: Tensor) -> float:
    """How much a sweep moved the states, in units of their rounding: one host synchronisation."""
    with torch.no_grad():
        size = torch.maximum(y0.abs().amax(), change.abs().amax() * abs(h))
        moved = change.abs().amax() * abs(h) / (size * torch.finfo(y0.dtype).eps)
        return float(worst(torch.where(size > 0, moved, 0.0)))


def _converged(
    change: float, before: float, least: float, is_last: bool, t0: float, h: float
) -> bool:
    """Whether sweeps are done: the last one moved the states by rounding alone.

    change, before: what the last two sweeps changed, in units of rounding; least: the smallest
    change so far.

    Raises:
        NotContracting: they move away, or this was the last sweep there may be.
    """
    # rounding may go on for ever: changes of some units that do not shrink any more are the end
    if change <= 1 or (change <= 64 and change >= 0.5 * before):
        return True
    # a sweep may grow for a while before it contracts, where the equations are coupled one way
    if not math.isfinite(change) or is_last or change > 1e4 * least:
        raise NotContracting(
            f"the sweeps do not contract at t={t0:.9g} with step size {abs(h):.3g} (the last one "
            f"changed the states by {change:.3g} roundings, the one before by {before:.3g}): take "
            "smaller steps, or an implicit method where the problem is stiff"
        )
    return False


def _embedded(rule: QuadratureRule) -> np.ndarray:
    """Weights b - b̂, b̂ being interpolatory on the nodes without the middle one: (n,), O(h^n)."""
    drop = rule.n // 2
    keep = np.delete(np.arange(rule.n), drop)
    difference: np.ndarray = rule.weights.copy()
    difference[keep] -= lagrange_integrals(rule.nodes[keep], np.array([1.0]))[0]
    return difference
