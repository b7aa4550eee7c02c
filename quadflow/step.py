"""One interval: predict, evaluate, correct. Every method of the library is advanced here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .dense import Segment, along, combine, lagrange_weights, polynomial_weights
from .evaluation import Velocity
from .host import worst
from .interpolation import Anchor, Interval
from .lagrange import lagrange_integrals, lagrange_matrix
from .methods import AnchorsMethod, Method, StagesMethod, SweepsMethod, VariableOrderMethod
from .quadrature import QuadratureRule
from .tableaus import DOPRI5, Tableau
from .variable_order import IntervalWeights, interval_weights

CONTRACTION = 0.25
"""The share of an increment that the estimate takes for the error left after the sweep, from an
extrapolated guess. Measured on nonlinear problems at the steps that tolerances of 1e-3 to 1e-9 lead
to, all but a twentieth of the sweeps leave less, the median 1/7 to 1/75. Where sweeps hardly
contract, beyond h·L = 0.4 a sweep (L the Lipschitz constant), steps are unstable anyway."""


@dataclass(frozen=True)
class State:
    """Where a solve stands between two intervals.

    anchor: the velocity at (t, y) where it is known already (reused end anchors, first same as
    last). history: earlier anchors, oldest first. last: the interval that led here. order: that of
    the next interval where it varies. twin: another evaluation of f at t, at a state nearby, that
    an adaptive solve made on its way here (a predicted end). In the anchors plan t may be a tensor
    that broadcasts against y: a time for every sample.
    """

    t: float
    y: Tensor
    anchor: Anchor | None = None
    history: tuple[Anchor, ...] = ()
    last: Segment | None = None
    order: int = 1
    twin: Anchor | None = None


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
    (a call of f); None where the method has none. sweeps_left: how often that may go on. spread:
    called with no arguments, the difference of two states (or of combinations of more) at which f
    was evaluated anyway, and that of f there; None where there are none. See `stiffness`.
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
    spread: Callable[[], tuple[Tensor, Tensor]] | None = None

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
    _constants: dict[Any, Tensor] = field(default_factory=dict)

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

    def _twin(self, t: float, y: Tensor, v: Tensor) -> Anchor | None:
        return Anchor(t, y, v) if self.adaptive else None

    def _constant(self, key: Any, make: Callable[[], np.ndarray], like: Tensor) -> Tensor:
        key = (key, like.dtype, like.device)
        if key not in self._constants:
            self._constants[key] = torch.tensor(make()).to(like.device, like.dtype)
        return self._constants[key]

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
        twin: Anchor | None = None
        if method.correction is not None and not (is_last and method.forward_last):
            v1, detail = self.velocity(t1, y1)
            reached = Anchor(t1, y1, v1, detail)
            corrected = interpolant.integrate(Interval((*known, reached), t0, t1, rule, inside))
            y1 = along(y0, corrected.mean, h)
            error = (corrected.mean - inside.mean) * h
            inside = corrected
            if method.correction == "PEC":
                end = Anchor(t1, y1, v1, detail)
            else:
                twin = self._twin(t1, reached.y, v1)
        segment = Segment(t0, t1, y0, inside.values, inside.weights)
        return StepResult(
            State(t1, y1, end, known, twin=twin), error, len(known) + 1, lambda _: segment, start,
            state, spread=_between_twins(state, start),
        )  # fmt: skip

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
            State(t1, y1, history=known, order=k, twin=self._twin(t1, predicted, v1)), errors[-1],
            k + 1, lambda _: segment, start, state, OrderErrors(weights, errors),
            spread=_between_twins(state, start),
        )  # fmt: skip

    # -- sweeps ----------------------------------------------------------------------------------

    def _sweeps(self, method: SweepsMethod, state: State, t1: float) -> StepResult:
        rule, t0, y0, h = method.rule, state.t, state.y, t1 - state.t
        n, shape = rule.n, y0.shape
        matrix = self._constant("A", lambda: rule.integration_matrix, y0)
        weights = self._constant("b", lambda: rule.weights, y0)
        nodes = self._constant(
            "c", lambda: rule.nodes, torch.empty(0, dtype=torch.float64, device=y0.device)
        )
        sweeps, extra = method.sweeps, max(0, method.most_sweeps - method.sweeps)
        extrapolated = method.guess == "extrapolated" and state.last is not None
        if extrapolated:
            assert state.last is not None
            guess = self._extrapolate(rule, state.last, t0, h)
            # without an anchor the first sweep evaluates the start with the other nodes
            anchor = state.anchor if rule.has_left else None
        else:
            anchor = self.start(state)
            guess = anchor.v.reshape(1, -1).expand(n, -1)
            if method.guess == "extrapolated":
                sweeps = max(sweeps, (method.order or 1) - 1)
                if extra and self.adaptive:  # the estimate says when there are enough
                    sweeps, extra = 2, 2 * sweeps
        flat = states = y0.reshape(1, -1)

        def sweep(values: Tensor) -> Tensor:
            """Node velocities at the states that the given ones lead to."""
            nonlocal anchor, states
            # a node at the start has the start's velocity in every sweep: it is evaluated once
            first = 1 if anchor is not None and rule.has_left else 0
            times = torch.add(nodes[first:] * h, t0)
            states = torch.addmm(flat, matrix[first:], values, alpha=h)
            new = self.velocity.nodes(times, states.reshape(-1, *shape)).reshape(n - first, -1)
            if anchor is not None and first:
                return torch.cat((anchor.v.reshape(1, -1), new))
            if rule.has_left:
                anchor = Anchor(t0, y0, new[0].reshape(shape))
            return new

        def result(
            values: Tensor, change: Tensor, extra: int, moved: Callable[[], Tensor] | None
        ) -> StepResult:
            """moved: what the sweep before the last changed, where there was one."""
            y1 = torch.addmv(flat[0], values.T, weights, alpha=h).reshape(shape)
            error, order = None, method.error_order
            if order is not None:
                embedded = self._constant("e", lambda: _embedded(rule), y0)
                increment = torch.mv(change.T, weights)
                if extrapolated:
                    increment = increment * CONTRACTION
                    missed = torch.mv((values - guess).T, embedded)
                else:
                    order, missed = min(order, n), torch.mv(values.T, embedded)
                error = ((increment.abs() + missed.abs()) * h).reshape(shape)

            def refine() -> StepResult:
                new = sweep(values)
                return result(new, new - values, extra - 1, lambda: change)

            def spread() -> tuple[Tensor, Tensor]:
                assert moved is not None
                return matrix @ moved() * h, change

            twin: Anchor | None = None
            if rule.has_right:
                twin = self._twin(t1, states[-1].reshape(shape), values[-1].reshape(shape))
            segment = Segment(t0, t1, y0, values.reshape(n, *shape), lagrange_weights(rule.nodes))
            return StepResult(
                State(t1, y1, last=segment, twin=twin), error, order, lambda _: segment, anchor,
                state, refine=refine if extra > 0 else None, sweeps_left=extra,
                spread=_between_twins(state, anchor) if moved is None else spread,
            )  # fmt: skip

        values = previous = earlier = guess
        change = least = math.inf
        for count in range(1, sweeps + 1):
            earlier, previous, values = previous, values, sweep(values)
            if method.converged:
                before, change = change, _rounding_units(values - previous, h, y0)
                if _converged(change, before, least, count == sweeps, t0, h):
                    break
                least = min(least, change)
        moved = (lambda: previous - earlier) if sweeps > 1 else None
        return result(values, values - previous, extra, moved)

    def _extrapolate(self, rule: QuadratureRule, last: Segment, t0: float, h: float) -> Tensor:
        ratio = h / (last.t1 - last.t0)
        old = last.velocities
        assert isinstance(old, Tensor)

        def matrix() -> np.ndarray:
            return lagrange_matrix(rule.nodes, 1 + ratio * rule.nodes)

        if abs(ratio - 1) < 1e-9:  # uniform steps: one matrix for all of them
            ratio = 1.0
            move = self._constant("extrapolate", matrix, old)
        else:
            move = torch.tensor(matrix()).to(old.device, old.dtype, non_blocking=True)
        return move @ old.reshape(rule.n, -1)

    # -- stages ----------------------------------------------------------------------------------

    def _stages(self, tableau: Tableau, state: State, t1: float) -> StepResult:
        t0, y0 = state.t, state.y
        h: Any = t1 - t0
        start = self.start(state)
        velocities, detail = [start.v], start.detail
        y, c = y0, tableau.c.tolist()
        twin: Anchor | None = None
        for i in range(1, len(tableau.a)):
            y = along(y0, combine(tableau.a[i], velocities), h)
            # c = 1 means t1 itself: t0 + h may miss it by rounding
            v, detail = self.velocity(t1 if c[i] == 1.0 else t0 + c[i] * h, y)
            velocities.append(v)
        if tableau.first_same_as_last:
            end: Anchor | None = Anchor(t1, y, velocities[-1], detail)
            y1 = y
        else:
            end = None
            if c[-1] == 1.0:
                twin = self._twin(t1, y, velocities[-1])
            y1 = along(y0, combine(tableau.b.tolist(), velocities), h)
        error: Tensor | None = None
        if tableau.errors:
            size = h.to(y0.real.dtype) if isinstance(h, Tensor) else h
            parts = [combine(row.tolist(), velocities) * size for row in tableau.errors]
            error = parts[0]
            if len(parts) == 2:
                fifth, third = parts[0].abs(), parts[1].abs()
                total = torch.sqrt(fifth**2 + 0.01 * third**2)
                error = torch.where(total > 0, fifth**2 / torch.where(total > 0, total, 1), 0.0)

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

        spread = _between_twins(state, start)
        if tableau.probe is not None:
            v_weights, y_weights = tableau.probe

            def spread() -> tuple[Tensor, Tensor]:
                return combine(y_weights, velocities) * h, combine(v_weights, velocities)

        return StepResult(
            State(t1, y1, end, twin=twin), error, tableau.error_order, segment, start, state,
            spread=spread,
        )  # fmt: skip


def _between_twins(
    state: State, start: Anchor | None
) -> Callable[[], tuple[Tensor, Tensor]] | None:
    """What `StepResult.spread` needs, of two evaluations of f at the start of an interval."""
    twin = state.twin
    if twin is None or start is None:
        return None
    return lambda: (start.y - twin.y, start.v - twin.v)


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
