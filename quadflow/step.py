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
from .attempt import RuleTensors, Swept
from .compiled import Attempt, CompiledAttempts, counts
from .control import Tolerance
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
    (a call of f); None where the method has none. sweeps_left: how often that may go on. ratio:
    of error and tolerance, where a compiled step brings it instead of the error.
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
    ratio: Tensor | None = None

    def error_ratio(self, tolerance: Tolerance) -> Tensor:
        """Norm of the error over the tolerance."""
        if self.ratio is not None:
            return self.ratio
        assert self.error is not None
        return tolerance.ratio(self.error, self.previous.y, self.state.y)

    def segment(self) -> Segment:
        """The interval's dense output. It may need evaluations of f, which are shared with the
        next interval through `state`: it is asked for and not made."""
        return self.make_segment(self)


@dataclass
class Stepper:
    """A method bound to a velocity; `step` advances it by one interval.

    The constants of the method are kept here as tensors of the state's dtype and device, so that
    nothing is moved between host and device inside the loop. adaptive: the error estimate is
    looked at, and `StepResult.refine` asked for what is wanting. compiled: runs the tries, those
    of the stages and the sweeps plan.
    """

    method: Method
    velocity: Velocity
    adaptive: bool = False
    compiled: CompiledAttempts | None = None
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
        rule, t0, y0, last = method.rule, state.t, state.y, state.last
        tensors = self._rule_tensors(method, y0)
        sweeps, extra = method.sweeps, max(0, method.most_sweeps - method.sweeps)
        order = method.error_order
        if method.guess == "extrapolated" and last is not None:
            assert isinstance(last.velocities, Tensor)
            from_, old = "extrapolated", last.velocities
            # without an anchor the first sweep evaluates the start with the other nodes
            v0 = state.anchor.v if state.anchor is not None and rule.has_left else None
        else:
            from_, old, v0 = "constant", None, None if state.anchor is None else state.anchor.v
            order = None if order is None else min(order, rule.n)
            if method.guess == "extrapolated":
                sweeps = max(sweeps, (method.order or 1) - 1)
                if extra and self.adaptive:  # the estimate says when there are enough
                    sweeps, extra = 2, 2 * sweeps

        def result(done: Swept, extra: int) -> StepResult:
            anchor = state.anchor
            if anchor is None and done.v0 is not None:
                anchor = Anchor(t0, y0, done.v0)

            def refine() -> StepResult:
                again = self._swept(
                    method, tensors, state, t1, "given", done.values, done.guess, done.v0, 1
                )
                return result(again, extra - 1)

            segment = Segment(t0, t1, y0, done.values, tensors.dense)
            return StepResult(
                State(t1, done.y1, last=segment), done.error, order, lambda _: segment, anchor,
                state, refine=refine if extra > 0 else None, sweeps_left=extra, ratio=done.ratio,
            )  # fmt: skip

        return result(self._swept(method, tensors, state, t1, from_, old, None, v0, sweeps), extra)

    def _swept(
        self, method: SweepsMethod, rule: RuleTensors, state: State, t1: float, from_: str,
        old: Tensor | None, guess: Tensor | None, v0: Tensor | None, count: int,
    ) -> Swept:  # fmt: skip
        """`count` sweeps over an interval, compiled or not; arguments as of `attempt.swept`."""
        t0, y0, last = state.t, state.y, state.last
        stretch = 1.0 if last is None else (t1 - t0) / (last.t1 - last.t0)
        compiled = None
        # a first interval is swept in a way of its own, once
        if self.compiled is not None and (last is not None or method.guess == "constant"):
            compiled = self.compiled.sweeps(rule, count, from_, v0 is not None, guess is not None)
        if compiled is not None and compiled.known:
            times = compiled.owner.times(t0, t1, stretch)
            done: Swept = compiled(y0, v0, old, guess, times)
            return done.completed(v0, guess)
        before, velocity = counts(self.velocity), self.velocity
        if from_ == "constant" and v0 is None:
            v0, _ = velocity(t0, y0)
        move = self._extrapolation(rule, stretch) if from_ == "extrapolated" else None
        start, guess = attempt.guessed(from_, rule, v0, old, guess, move)
        h = t1 - t0
        if method.converged:
            swept = self._until_converged(rule, t0, h, y0, v0, start, count)
        else:
            swept = attempt.sweeps(rule, velocity.nodes, t0, h, y0, v0, start, count)
        done = attempt.swept(rule, h, y0, *swept, guess)
        if compiled is not None:
            compiled.measure(before)
        return done

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

    def _extrapolation(self, rule: RuleTensors, stretch: float) -> Tensor:
        if abs(stretch - 1) >= 1e-9:
            return rule.extrapolation(stretch)
        if self._uniform is None:  # uniform steps: one matrix for all of them
            self._uniform = rule.extrapolation(1.0)
        return self._uniform

    # -- stages ----------------------------------------------------------------------------------

    def _stages(self, tableau: Tableau, state: State, t1: float) -> StepResult:
        compiled = None
        if self.compiled is not None:
            compiled = self.compiled.stages(tableau, state.anchor is not None)
        if compiled is not None and compiled.known:
            return self._staged(tableau, state, t1, *self._compiled_stages(compiled, state, t1))
        before = counts(self.velocity)
        start = self.start(state)
        detail = start.detail

        def f(t: Any, y: Tensor) -> Tensor:
            nonlocal detail
            v, detail = self.velocity(t, y)
            return v

        t0: Any = state.t
        y1, velocities, error = attempt.stages(tableau, f, t0, t1, t1 - t0, state.y, start.v)
        if compiled is not None:
            compiled.measure(before)
        return self._staged(tableau, state, t1, start, y1, velocities, error, detail)

    def _compiled_stages(
        self, compiled: Attempt, state: State, t1: Any
    ) -> tuple[Anchor, Tensor, list[Tensor], None, None, Tensor | None]:
        t0: Any = state.t
        start = state.anchor
        times = (t0, t1, None, None) if isinstance(t0, Tensor) else compiled.owner.times(t0, t1)
        v0 = None if start is None else start.v
        y1, velocities, ratio = compiled(state.y, v0, times)
        if start is None:
            start = Anchor(t0, state.y, velocities[0])
        else:
            velocities.insert(0, v0)
        return start, y1, velocities, None, None, ratio

    def _staged(
        self, tableau: Tableau, state: State, t1: float, start: Anchor, y1: Tensor,
        velocities: list[Tensor], error: Tensor | None, detail: Any, ratio: Tensor | None = None,
    ) -> StepResult:  # fmt: skip
        t0, y0, h = state.t, state.y, t1 - state.t
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

        return StepResult(
            State(t1, y1, end), error, tableau.error_order, segment, start, state, ratio=ratio
        )


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
