"""One interval: predict, evaluate, correct. Every method of the library is advanced here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..compiled.step import CompiledTrial, CompiledTrials, counts
from ..control.control import Tolerance
from ..equations.small_states import NeedsTensors, array_of, tensor_of
from ..equations.velocity import Velocity
from ..host import read_on_host
from ..rules.pairs import DOPRI5
from ..rules.tableau import Tableau
from . import arithmetic
from .adams import VariableOrderMethod
from .anchors import AnchorsMethod
from .arithmetic import ColumnSums, RuleTensors, StageSums, Swept
from .interpolants import Anchor, Interval
from .method import Method
from .seen_times import SeenTimes, derivative_matrix, seen_by_samples, seen_numbers
from .segment import (
    Segment,
    WeightFunction,
    add_scaled,
    combine,
    lagrange_weights,
    polynomial_weights,
)
from .stages import StagesMethod
from .sweeps import SweepsMethod
from .variable_order import IntervalWeights, interval_weights

T = TypeVar("T")

TRUSTED = 100.0
"""How many tolerances a step's dense output may miss what the step knows by, see
`Tableau.misses`. Of dopri8 on smooth problems the median is 1/2, the largest 50 (380 where
stability holds the steps); where f jumps past the stages it is hundreds and more."""

FARTHEST = 10.0
"""A step this many times longer than the one before it starts anew from its start alone: what is
extrapolated from an interval so short is the rounding in it."""

SHORTEST = 1e3
"""Roundings of t in the shortest step of variable order; shorter ones are made by Runge-Kutta.
Order 1, at which the method starts itself, might want steps that t does not hold, where those of
order 5 are fine."""

RUNGE_KUTTA_STARTS = 4
"""The most anchors that the first step of variable order after such steps is predicted from."""


@dataclass(slots=True)
class State:
    """Where a solve stands between two intervals.

    numbers: the state y; an array after a step that went through NumPy, as are then the numbers of
    all anchors. known: the velocity at (t, y) where it is known already (reused end anchors, first
    same as last). history: earlier anchors, oldest first. last: the interval that led here. order:
    that of the next interval where it varies. other_end: another evaluation of f at t, at a state
    nearby, that an adaptive solve made on its way here (a predicted end). t may be a tensor that
    broadcasts against y: a time for every sample. unfinished: see `Unfinished`; samples that have
    no interval behind them have f at their start as `last`, at all nodes.
    """

    t: float
    numbers: Any
    known: Anchor | None = None
    history: tuple[Anchor, ...] = ()
    last: Behind | None = None
    order: int = 1
    unfinished: Unfinished | None = None
    other_end: Callable[[], Anchor] | None = None

    @property
    def y(self) -> Tensor:
        """The state as a tensor."""
        found: Tensor = tensor_of(self.numbers)
        return found

    @property
    def anchor(self) -> Anchor | None:
        """`known` in tensors."""
        return None if self.known is None else _in_tensors(self.known)


def _in_tensors(anchor: Anchor) -> Anchor:
    """The anchor, of tensors."""
    v = tensor_of(anchor.v)
    return anchor if v is anchor.v else Anchor(anchor.t, tensor_of(anchor.y), v, anchor.detail)


class Behind(NamedTuple):
    """The interval behind a state. velocities: at its nodes, (n, *shape), in either kind."""

    t0: Any
    t1: Any
    velocities: Any


class NotContracting(RuntimeError):
    """Sweeps that are to converge do not."""


@dataclass(slots=True)
class OrderErrors:
    """What the next order is chosen from: errors[i], of the state's shape, estimates the error of
    order weights.orders[i]; O(h^(order+1))."""

    weights: IntervalWeights
    errors: Any


@dataclass(frozen=True)
class SamplesStep:
    """A step of every sample's own: which were accepted (bool (B,)), and the times t (B,) where the
    samples stand after it, on the host."""

    accepted: np.ndarray
    t: np.ndarray


@dataclass(frozen=True)
class Unfinished:
    """Where the samples stand in the sweeps of an interval of their own.

    active: the samples that have a way to go still (bool (B,), like the others). first: those
    in their first interval. again: those whose interval gets one sweep more, of the same size and
    from `values` ((n, B·rest); None before any sweep).
    """

    active: np.ndarray
    first: np.ndarray
    again: np.ndarray
    values: Tensor | None = None


@dataclass(slots=True)
class StepResult:
    """One interval done.

    state: at its end. previous: at its start. estimate: see `error`, in an array where the step
    went through NumPy. error_order: an integer, or one a sample.
    make_segment: see `segment`. begun: the anchor at the start, where the plan evaluated one: a
    rejected step need not evaluate it again. orders: the errors of several orders, where the method
    chooses between them. samples: of steps that every sample has for itself. refine: called with no
    arguments, the same interval with one sweep more (a call of f); None where the method has none.
    sweeps_left: how often that may go on. swept: the values that `Unfinished` takes; sweeps_left is
    then how often it may in all, one a sample. lipschitz_pair: called with no arguments, the
    difference of two states (or of combinations of more) at which f was evaluated anyway, and that
    of f there;
    None where there are none. See `stiffness`. ratio: of error and tolerance, where a compiled step
    brings it instead of the error. make_misses: see `dense_ratio`; None where dense output is made
    of what the error estimate has judged.
    """

    state: State
    estimate: Any
    error_order: Any
    make_segment: Callable[[StepResult], Segment]
    begun: Anchor | None
    previous: State
    orders: OrderErrors | None = None
    samples: SamplesStep | None = None
    refine: Callable[[], StepResult] | None = None
    sweeps_left: Any = 0
    swept: Tensor | None = None
    lipschitz_pair: Callable[[], tuple[Tensor, Tensor]] | None = None
    ratio: Tensor | None = None
    make_misses: Callable[[StepResult], list[Tensor]] | None = None
    _segment: Segment | None = None

    @property
    def error(self) -> Tensor | None:
        """Estimate of the local error, of the state's shape, O(h^error_order); None without one."""
        found: Tensor | None = tensor_of(self.estimate)
        return found

    @property
    def start(self) -> Anchor | None:
        """`begun` in tensors."""
        return None if self.begun is None else _in_tensors(self.begun)

    def ratios(self, tolerance: Tolerance) -> Tensor:
        """Norm of the error over the tolerance, 0-dimensional; or that of every order, (k,)."""
        if self.ratio is not None:
            return self.ratio
        y0, y1 = self.previous.y, self.state.y
        if self.orders is not None:
            return tolerance.ratios(self.orders.errors, y0, y1)
        return tolerance.ratio(self.estimate, y0, y1)

    def moved_ratio(self, tolerance: Tolerance) -> Tensor:
        """The same of what the step moves the state by."""
        y0, y1 = self.previous.y, self.state.y
        return tolerance.ratio((y1 - y0).detach(), y0, y1)

    def numbers(self, tolerance: Tolerance, moved: bool) -> list[float]:
        """`ratios` of a step that went through NumPy, and `moved_ratio` if asked for."""
        y0, y1 = array_of(self.previous.numbers), self.state.numbers
        errors = [self.estimate] if self.orders is None else [*self.orders.errors]
        if not moved:
            return tolerance.numbers(errors, y0, y1)
        # the norm sees the errors last, as it does in tensors
        first, *numbers = tolerance.numbers([y1 - y0, *errors], y0, y1)
        return [*numbers, first]

    def dense_ratio(self, tolerance: Tolerance) -> Tensor:
        """By how much dense output misses what the step knows, over what it may: 0-dimensional, or
        (B,). It evaluates f where `segment` does, which does not do so again."""
        assert self.make_misses is not None
        misses, y0, y1 = self.make_misses(self), self.previous.y.detach(), self.state.y.detach()
        return torch.stack([tolerance.ratio(miss, y0, y1) for miss in misses]).amax(0) / TRUSTED

    def segment(self) -> Segment:
        """The interval's dense output. It may need evaluations of f, which are shared with the
        next interval through `state`: it is asked for and not made, and made once."""
        if self._segment is None:
            self._segment = self.make_segment(self)
        return self._segment


@dataclass
class Stepper:
    """A method bound to a velocity; `step` advances it by one interval.

    The constants of the method are kept here as tensors of the state's dtype and device, so that
    nothing is moved between host and device inside the loop. adaptive: the error estimate is
    looked at, and `StepResult.refine` asked for what is wanting. compiled: runs the trials, those
    of the stages and the sweeps plan. corrects: sweeps undo the rounding of their times; bool (B,)
    where every sample has steps of its own.
    """

    method: Method
    velocity: Velocity
    adaptive: bool = False
    compiled: CompiledTrials | None = None
    corrects: Any = False
    _rules: dict[Any, RuleTensors] = field(default_factory=dict)
    _columns: dict[Any, list[Tensor]] = field(default_factory=dict)
    _derivatives: dict[Any, Tensor] = field(default_factory=dict)
    _weights: WeightFunction | None = None
    _rows: tuple[Any, np.ndarray] = (None, np.empty((0, 0)))

    def start(self, state: State) -> Anchor:
        """The anchor at the start of an interval: known already, or one evaluation."""
        known = state.anchor
        if known is not None:
            return known
        v, detail = self.velocity.of_held(state.t, state.y)
        return Anchor(state.t, state.y, v, detail)

    def _start_in_numpy(self, state: State) -> Anchor:
        """The same with an array for its velocity, if it is not known."""
        if state.known is not None:
            return state.known
        v: Any = self.velocity.arrays.at(state.t, array_of(state.numbers), held=True)
        return Anchor(state.t, state.numbers, v)

    def either(
        self, state: State, t1: Any, in_arrays: Callable[..., T], in_tensors: Callable[..., T],
        *arguments: Any,
    ) -> T:  # fmt: skip
        """A step from the state to t1 by the one function or the other; see `small_states`."""
        arrays = self.velocity.arrays
        if not isinstance(t1, Tensor) and arrays.takes(state.numbers):
            try:
                return arrays.attempt(in_arrays, *arguments)
            except NeedsTensors:
                pass
        return in_tensors(*arguments)

    def step(self, state: State, t1: float, *, is_last: bool = False) -> StepResult:
        """Advance `state` to time t1 (either direction).

        is_last says that no interval follows, for plans that save an evaluation there.
        """
        method = self.method
        if isinstance(method, StagesMethod):
            return self._stages(method.tableau, state, t1)
        if isinstance(method, SweepsMethod):
            if state.unfinished is not None:
                return self._sweeps_of_samples(method, state, t1)
            return self._sweeps(method, state, t1)
        if isinstance(method, VariableOrderMethod):
            return self._variable_order(method, state, t1)
        if isinstance(method, AnchorsMethod):
            return self._anchors(method, state, t1, is_last)
        raise TypeError(f"{self.method!r} has no evaluation plan")

    def _other_end(self, make: Callable[[], Anchor]) -> Callable[[], Anchor] | None:
        """`State.other_end`: only adaptive steps look at it."""
        return make if self.adaptive else None

    # -- anchors ---------------------------------------------------------------------------------

    def _anchors(self, method: AnchorsMethod, state: State, t1: float, is_last: bool) -> StepResult:
        interpolant, rule = method.interpolant, method.rule
        start = self.start(state)
        known = _spaced((*map(_in_tensors, state.history), start), t1)[-interpolant.anchors :]
        if method.startup == "dopri5" and len(known) < interpolant.anchors:
            result = self._stages(DOPRI5, State(state.t, state.y, start), t1)
            result.state.history = known
            return result
        t0, y0 = state.t, state.y
        h: Any = t1 - t0
        if isinstance(h, Tensor):  # per-sample times are float64, the state need not be
            h = h.to(self.velocity.layout.time_dtype)
        inside = interpolant.integrate(Interval(known, t0, t1, rule))
        y1 = add_scaled(y0, inside.mean, h)
        end: Anchor | None = None
        error: Tensor | None = None
        other: Callable[[], Anchor] | None = None
        if method.correction is not None and not (is_last and method.forward_last):
            v1, detail = self.velocity.of_held(t1, y1)
            reached = Anchor(t1, y1, v1, detail)
            corrected = interpolant.integrate(Interval((*known, reached), t0, t1, rule, inside))
            y1 = add_scaled(y0, corrected.mean, h)
            error = (corrected.mean - inside.mean) * h
            inside = corrected
            if method.correction == "PEC":
                end = Anchor(t1, y1, v1, detail)
            else:
                other = self._other_end(lambda: reached)
        segment = Segment(t0, t1, y0, inside.values, inside.weights)
        return StepResult(
            State(t1, y1, end, known, other_end=other), error, len(known) + 1, lambda _: segment,
            start, state, lipschitz_pair=_between_ends(state, start),
        )  # fmt: skip

    # -- anchors, variable order -----------------------------------------------------------------

    def _variable_order(self, method: VariableOrderMethod, state: State, t1: float) -> StepResult:
        if abs(t1 - state.t) < SHORTEST * math.ulp(state.t):
            return self._started_anew(method, state, t1)
        ways = self._adams_of_arrays, self._adams_of_tensors
        return self.either(state, t1, *ways, method, state, t1)

    def _started_anew(self, method: VariableOrderMethod, state: State, t1: float) -> StepResult:
        """A step that is too short for order 1, by Runge-Kutta."""
        start = self.start(state)
        known = _looked_back_on(method, state, start)
        result = self._stages(DOPRI5, State(state.t, state.numbers, start), t1)
        order = min(len(known), RUNGE_KUTTA_STARTS)
        result.state.history, result.state.order = known, order
        result.lipschitz_pair = None  # of stages, which limits of variable order say nothing of
        return result

    def _adams_of_tensors(
        self, method: VariableOrderMethod, state: State, t1: float
    ) -> StepResult:  # fmt: skip
        start = self.start(state)
        known = _looked_back_on(method, state, start)
        weights = _weights_to(t1, method, state, known)
        y0, h = state.y, t1 - state.t
        recent = known[: -len(weights.positions) - 1 : -1]
        table = torch.tensor(weights.table).to(y0.device, y0.dtype, non_blocking=True)
        rows = torch.stack([tensor_of(a.v) for a in recent]).reshape(len(recent), -1)
        predicted = arithmetic.predicted(table, y0, rows, h)
        v1, _ = self.velocity.of_held(t1, predicted)
        rows = torch.cat((v1.reshape(1, -1), rows))
        y1, errors = arithmetic.corrected(table, y0, rows, h)
        return self._adams_result(state, start, known, weights, predicted, v1, t1, y1, errors)

    def _adams_of_arrays(
        self, method: VariableOrderMethod, state: State, t1: float
    ) -> StepResult:  # fmt: skip
        start = self._start_in_numpy(state)
        known = _looked_back_on(method, state, start)
        weights = _weights_to(t1, method, state, known)
        y0, velocity = array_of(state.numbers), self.velocity.arrays
        h = np.array(t1 - state.t, velocity.real)
        table = weights.table.astype(y0.dtype, copy=False)
        rows = self._velocity_rows(state.history, known)[: 1 + len(weights.positions)]
        predicted = arithmetic.predicted(table, y0, rows[1:], h)
        v1 = velocity.at(t1, predicted, held=True)
        rows[0] = v1.reshape(-1)
        y1, errors = arithmetic.corrected(table, y0, rows, h)
        return self._adams_result(state, start, known, weights, predicted, v1, t1, y1, errors)

    def _adams_result(
        self, state: State, start: Anchor, known: tuple[Anchor, ...], weights: IntervalWeights,
        predicted: Any, v1: Any, t1: float, y1: Any, errors: Any,
    ) -> StepResult:  # fmt: skip
        k = weights.order

        def segment(_: StepResult) -> Segment:
            nodes = [1.0, *weights.positions[:k].tolist()]
            own = [tensor_of(v) for v in (v1, *(a.v for a in known[: -k - 1 : -1]))]
            return Segment(state.t, t1, state.y, own, lagrange_weights(nodes), tensor_of(y1))

        other = self._other_end(lambda: Anchor(t1, tensor_of(predicted), tensor_of(v1)))
        return StepResult(
            State(t1, y1, history=known, order=k, other_end=other), errors[-1], k + 1, segment,
            start, state, OrderErrors(weights, errors), lipschitz_pair=_between_ends(state, start),
        )  # fmt: skip

    def _velocity_rows(self, history: tuple[Anchor, ...], known: tuple[Anchor, ...]) -> np.ndarray:
        """Velocities of anchors, newest first, below a row that is free: (1 + known, numel). Those
        of the step before are found again, where `history` is what it knew."""
        own, (before, rows) = array_of(known[-1].v).reshape(-1), self._rows
        fresh = np.empty((1 + len(known), own.size), own.dtype)
        fresh[1] = own
        if before is history and history:
            fresh[2:] = rows[1 : len(known)]
        else:
            for i, anchor in enumerate(known[-2::-1], start=2):
                fresh[i] = array_of(anchor.v).reshape(-1)
        self._rows = known, fresh
        return fresh

    # -- sweeps ----------------------------------------------------------------------------------

    def _efforts(self, method: SweepsMethod) -> tuple[tuple[int, int], tuple[int, int]]:
        """(sweeps, further ones there may be) of an interval, and of a first one, whose guess is a
        constant where that of later ones is extrapolated."""
        sweeps, further = method.sweeps, max(0, method.most_sweeps - method.sweeps)
        if method.guess == "constant":
            return (sweeps, further), (sweeps, further)
        full = max(sweeps, (method.order or 1) - 1)
        if further and self.adaptive:  # the estimate says when there are enough
            return (sweeps, further), (2, 2 * full)
        return (sweeps, further), (full, further)

    def _sweeps(self, method: SweepsMethod, state: State, t1: float) -> StepResult:
        rule, h, last = method.rule, t1 - state.t, state.last
        usual, at_first = self._efforts(method)
        order, known = method.error_order, state.known
        from_, old = "constant", None
        if (
            method.guess == "extrapolated"
            and last is not None
            and h / (last.t1 - last.t0) <= FARTHEST
        ):
            from_, old = "extrapolated", last.velocities
            # without an anchor the first sweep evaluates the start with the other nodes
            known = known if rule.has_left else None
        elif order is not None:
            order = min(order, rule.n)

        sweeps, further = usual if from_ == "extrapolated" else at_first
        v0 = None if known is None else known.v
        done = self._swept(method, state, t1, from_, v0, old, None, sweeps)
        return self._swept_result(method, state, t1, known, order, done, further)

    def _swept_result(
        self, method: SweepsMethod, state: State, t1: float, known: Anchor | None,
        order: int | None, done: Swept, further: int,
    ) -> StepResult:  # fmt: skip
        """The result of sweeps that are done, of which `further` more may follow. A method, for
        nested functions that call each other would live until garbage is collected."""
        t0, h, numbers, anchor = state.t, t1 - state.t, state.numbers, known
        if anchor is None and done.v0 is not None:
            anchor = Anchor(t0, numbers, done.v0)

        def refine() -> StepResult:
            more = self._swept(
                method, state, t1, "given", done.v0, done.values, done.guess, 1
            )._replace(earlier=done.previous)
            return self._swept_result(method, state, t1, known, order, more, further - 1)

        def reached() -> Anchor:  # where the last sweep evaluated f at the end
            y0 = tensor_of(numbers)
            moved = self._rule_tensors(method, y0).matrix[-1] @ tensor_of(done.previous) * h
            return Anchor(t1, y0 + moved.reshape(y0.shape), tensor_of(done.values)[-1])

        other = self._other_end(reached) if method.rule.has_right else None
        lipschitz_pair = _between_ends(state, anchor)
        if done.earlier is not None and done.previous is not None:

            def lipschitz_pair() -> tuple[Tensor, Tensor]:
                previous = tensor_of(done.previous)
                matrix = self._rule_tensors(method, tensor_of(numbers)).matrix
                moved = matrix @ (previous - tensor_of(done.earlier)) * h
                return moved, tensor_of(done.values).reshape(len(previous), -1) - previous

        def segment(_: StepResult) -> Segment:
            return Segment(t0, t1, tensor_of(numbers), tensor_of(done.values), self._dense(method))

        return StepResult(
            State(t1, done.y1, last=Behind(t0, t1, done.values), other_end=other),
            done.error, order, segment, anchor, state,
            refine=refine if further > 0 else None, sweeps_left=further,
            lipschitz_pair=lipschitz_pair, ratio=done.ratio,
        )  # fmt: skip

    def _swept(
        self, method: SweepsMethod, state: State, t1: float, from_: str, v0: Any, old: Any,
        guess: Any, count: int,
    ) -> Swept:  # fmt: skip
        """`count` sweeps over an interval, compiled or not, in NumPy or in tensors; arguments as of
        `arithmetic.guessed`."""
        if not (self.compiled is not None or self.corrects or method.converged):
            ways = self._sweeps_of_arrays, self._sweeps_of_tensors
            return self.either(state, t1, *ways, method, state, t1, from_, v0, old, guess, count)
        v0, old, guess = tensor_of(v0), tensor_of(old), tensor_of(guess)
        t0, y0, last = state.t, state.y, state.last
        rule = self._rule_tensors(method, y0)
        h, width = t1 - t0, 1.0 if last is None else last.t1 - last.t0
        seen, numbers = self._seen(method, t0, h, y0) if self.corrects else (None, ())
        compiled: CompiledTrial | None = None
        # an interval that starts anew is swept in a way of its own, which is rare
        anew = from_ == "constant" or (from_ == "given" and guess is None)
        if self.compiled is not None and (not anew or method.guess == "constant"):
            compiled = self.compiled.sweeps(
                rule, count, from_, v0 is not None, guess is not None, seen
            )
        if compiled is not None and compiled.known:
            return compiled.swept(from_, count, rule, y0, v0, old, guess, (t0, t1, width, *numbers))
        before = counts(self.velocity)
        done = self._sweeps_of_tensors(method, state, t1, from_, v0, old, guess, count, seen)
        if compiled is not None:
            compiled.measure(before)
        return done

    def _sweeps_of_tensors(
        self, method: SweepsMethod, state: State, t1: float, from_: str, v0: Any, old: Any,
        guess: Any, count: int, seen: SeenTimes | None = None,
    ) -> Swept:  # fmt: skip
        t0, y0, last, velocity = state.t, state.y, state.last, self.velocity
        v0, old, guess = tensor_of(v0), tensor_of(old), tensor_of(guess)
        h, width = t1 - t0, 1.0 if last is None else last.t1 - last.t0
        rule = self._rule_tensors(method, y0)
        if from_ == "constant" and v0 is None:
            v0, _ = velocity.of_held(t0, y0)
        start, guess = arithmetic.guessed(from_, rule, h, width, v0, old, guess)
        earlier: Any = None
        if seen is not None and from_ == "constant" and rule.has_left:
            v0 = None  # evaluated beside the start as well, if t is not float64
        if method.converged:
            values, previous, v0 = self._until_converged(rule, t0, h, y0, v0, start, count)
        else:
            values, previous, earlier, v0 = arithmetic.sweeps(
                rule, velocity.nodes, arithmetic.node_times(rule, t0, h), h, y0, v0, start, count,
                seen,
            )  # fmt: skip
        y1, error = arithmetic.swept(rule, h, y0, values, previous, guess)
        return Swept(y1, values.reshape(-1, *y0.shape), error, guess, v0, previous, earlier)

    def _sweeps_of_arrays(
        self, method: SweepsMethod, state: State, t1: float, from_: str, v0: Any, old: Any,
        guess: Any, count: int,
    ) -> Swept:  # fmt: skip
        t0, last, velocity = state.t, state.last, self.velocity.arrays
        h: Any = t1 - t0
        width = 1.0 if last is None else last.t1 - last.t0
        y0 = array_of(state.numbers)
        v0 = None if v0 is None else array_of(v0)
        old = None if old is None else array_of(old)
        rule = arithmetic.rule_arrays(method.rule, y0.dtype, method.error_order is not None)
        if from_ == "constant" and v0 is None:
            v0 = velocity.at(t0, y0, held=True)
        times = arithmetic.node_times(rule, np.array(t0), np.array(h))
        h = np.array(h, velocity.real)
        start, guess = arithmetic.guessed(from_, rule, h, width, v0, old, guess)
        values, previous, earlier, v0 = arithmetic.sweeps(
            rule, velocity.nodes, times, h, y0, v0, start, count
        )
        y1, error = arithmetic.swept(rule, h, y0, values, previous, guess)
        return Swept(y1, values.reshape(-1, *y0.shape), error, guess, v0, previous, earlier)

    def _seen(
        self, method: SweepsMethod, t0: float, h: float, y0: Tensor
    ) -> tuple[SeenTimes, tuple[float, ...]]:
        """The nodes' times as func sees them, and the numbers of it, times before shifts."""
        velocity = self.velocity
        numbers = np.stack(
            seen_numbers(method.rule.nodes, t0, h, velocity.layout.time_dtype, velocity.window)
        )
        times, shifts = torch.tensor(numbers).to(y0.device, non_blocking=True).unbind()
        shifts = shifts.reshape(-1, *(1,) * y0.dim())
        return SeenTimes(times, shifts, self._derivative(method, y0)), tuple(numbers.flat)

    def _seen_by_samples(
        self, method: SweepsMethod, t0: Tensor, h: Tensor, y0: Tensor
    ) -> SeenTimes:
        wanted = torch.tensor(self.corrects).to(y0.device, non_blocking=True).reshape(h.shape)
        nodes = self._rule_tensors(method, y0).nodes
        times, shifts = seen_by_samples(nodes, t0, h, self.velocity.layout.time_dtype, wanted)
        return SeenTimes(times, shifts, self._derivative(method, y0))

    def _derivative(self, method: SweepsMethod, y0: Tensor) -> Tensor:
        key = (y0.dtype, y0.device)
        if key not in self._derivatives:
            self._derivatives[key] = derivative_matrix(method.rule, y0)
        return self._derivatives[key]

    def _dense(self, method: SweepsMethod) -> WeightFunction:
        if self._weights is None:
            self._weights = lagrange_weights(method.rule.nodes)
        return self._weights

    def _sweeps_of_samples(self, method: SweepsMethod, state: State, t1: Any) -> StepResult:
        """As `_sweeps`, with an interval of its own for every sample: see `Unfinished`."""
        waiting = state.unfinished
        assert waiting is not None
        t0: Any = state.t
        rule, y0, h = method.rule, state.y, t1 - t0
        n, shape = rule.n, y0.shape
        tensors = self._rule_tensors(method, y0)
        usual, at_first = self._efforts(method)
        first: Tensor | None = None
        order: Any = method.error_order
        if method.guess == "extrapolated" and state.last is not None:
            anchor = state.anchor if rule.has_left else None
            guess = extrapolated = arithmetic.extrapolated(tensors, h, *_rows(state.last))
            if waiting.first.any():
                first = _columns(waiting.first, y0)
                guess = extrapolated = torch.where(first, _rows(state.last)[1], guess)
            begun, further = (
                np.where(waiting.first, a, b) for a, b in zip(at_first, usual, strict=True)
            )
            order = np.where(waiting.first, min(order, n), order)
        else:
            anchor, extrapolated = self.start(state), None
            guess = anchor.v.reshape(1, -1).expand(n, -1)
            begun, further = (np.full(len(y0), count) for count in at_first)
            order = min(order, n)
        values = previous = guess
        if waiting.again.any():
            assert waiting.values is not None
            values = torch.where(_columns(waiting.again, y0), waiting.values, guess)
        v0 = None if anchor is None else anchor.v
        seen: SeenTimes | None = None
        if np.any(self.corrects):
            seen = self._seen_by_samples(method, t0, h, y0)
            if self.velocity.layout.time_dtype is not torch.float64:
                v0 = None  # evaluated beside the start as well
        wanted = np.where(waiting.active, np.where(waiting.again, 1, begun), 0)
        f, times = self.velocity.nodes, arithmetic.node_times(tensors, t0, h)
        for left in range(int(wanted.max()), 0, -1):
            new, v0 = arithmetic.sweep(tensors, f, times, h, y0, v0, values, seen)
            late = waiting.active & (wanted < left)
            if late.any():  # all end with the same sweep
                new = torch.where(_columns(late, y0), values, new)
            previous, values = values, new
        if v0 is not None and anchor is None:
            anchor = Anchor(t0, y0, v0)
        y1, error = arithmetic.swept(tensors, h, y0, values, previous, extrapolated, first)
        velocities = values.reshape(n, *shape)
        segment = Segment(t0, t1, y0, velocities, self._dense(method))
        return StepResult(
            State(t1, y1, last=Behind(t0, t1, velocities)), error, order, lambda _: segment,
            anchor, state, sweeps_left=further, swept=values,
        )  # fmt: skip

    def _rule_tensors(self, method: SweepsMethod, y0: Tensor) -> RuleTensors:
        key = (y0.dtype, y0.device)
        if key not in self._rules:
            self._rules[key] = arithmetic.rule_tensors(
                method.rule, y0, estimated=method.error_order is not None
            )
        return self._rules[key]

    def _stage_sums(self, tableau: Tableau, y0: Tensor, h: Any) -> StageSums:
        large = y0.numel() > arithmetic.SUMMED_AT_ONCE
        if large or len(tableau.a) < 4 or isinstance(h, Tensor):
            return StageSums(tableau, y0, h)
        key = (id(tableau), y0.dtype, y0.device)
        if key not in self._columns:
            self._columns[key] = arithmetic.stage_columns(tableau, y0)
        return ColumnSums(tableau, y0, h, self._columns[key])

    def _until_converged(
        self, rule: RuleTensors, t0: float, h: float, y0: Tensor, v0: Tensor | None,
        guess: Tensor, most: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """As `arithmetic.sweeps`, until the sweeps move the states by rounding alone."""
        values = previous = guess
        eps = torch.finfo(self.velocity.layout.func_dtype).eps  # func knows its states no better
        change = least = math.inf
        times = arithmetic.node_times(rule, t0, h)
        for count in range(1, most + 1):
            previous = values
            values, v0 = arithmetic.sweep(rule, self.velocity.nodes, times, h, y0, v0, previous)
            before, change = change, _rounding_units(values - previous, h, y0, eps)
            if _converged(change, before, least, count == most, t0, h):
                break
            least = min(least, change)
        return values, previous, v0

    # -- stages ----------------------------------------------------------------------------------

    def _stages(self, tableau: Tableau, state: State, t1: float) -> StepResult:
        compiled: CompiledTrial | None = None
        if self.compiled is not None:
            compiled = self.compiled.stages(tableau, state.known is not None)
        if compiled is not None and compiled.known:
            return self._staged(tableau, state, t1, *_compiled_stages(compiled, state, t1))
        if compiled is None:
            ways = self._stages_of_arrays, self._stages_of_tensors
            return self.either(state, t1, *ways, tableau, state, t1)
        before = counts(self.velocity)
        result = self._stages_of_tensors(tableau, state, t1)
        compiled.measure(before)
        return result

    def _stages_of_tensors(self, tableau: Tableau, state: State, t1: Any) -> StepResult:
        velocity, y0 = self.velocity, state.y
        h: Any = t1 - state.t
        start = self.start(state)
        detail = start.detail

        def f(t: Any, y: Tensor, held: bool) -> Tensor:
            nonlocal detail
            v, detail = velocity.of_held(t, y) if held else velocity(t, y)
            return v

        sums = self._stage_sums(tableau, y0, h)
        y1, error = arithmetic.stages(tableau, f, state.t, t1, h, start.v, sums)
        return self._staged(tableau, state, t1, start, y1, sums.velocities, error, detail)

    def _stages_of_arrays(self, tableau: Tableau, state: State, t1: float) -> StepResult:
        velocity, y0 = self.velocity.arrays, array_of(state.numbers)
        start = self._start_in_numpy(state)
        f, flat, v0, shape = velocity.at, y0, array_of(start.v), y0.shape
        if y0.ndim > 1:
            flat, v0 = y0.reshape(-1), v0.reshape(-1)

            def f(t: float, y: np.ndarray, held: bool = False) -> np.ndarray:
                return velocity.at(t, y.reshape(shape), held).reshape(-1)

        y1, error, velocities = arithmetic.array_stages(
            tableau, f, state.t, t1, flat, v0, velocity.real
        )
        if y0.ndim > 1:
            y1, velocities = y1.reshape(shape), velocities.reshape(-1, *shape)
            error = None if error is None else error.reshape(shape)
        return self._staged(tableau, state, t1, start, y1, velocities, error, None)

    def _staged(
        self, tableau: Tableau, state: State, t1: Any, start: Anchor, y1: Any, velocities: Any,
        error: Any, detail: Any, ratio: Tensor | None = None,
    ) -> StepResult:  # fmt: skip
        """The result of stages that are done; velocities: as of `Stages`."""
        stages = Stages(self, tableau, state, t1, velocities)
        end: Anchor | None = None
        other: Callable[[], Anchor] | None = None
        if tableau.first_same_as_last:
            end = Anchor(t1, y1, velocities[-1], detail)
        elif tableau.c[-1] == 1.0:
            # nothing but what it needs: states that held their steps would hold all steps before
            h, y0 = t1 - state.t, state.numbers
            other = self._other_end(lambda: _last_stage(tableau, y0, t1, h, velocities))
        pair = _between_ends(state, start) if tableau.probe is None else stages.lipschitz_pair
        return StepResult(
            State(t1, y1, end, other_end=other), error, tableau.error_order, stages.segment, start,
            state, lipschitz_pair=pair, ratio=ratio,
            make_misses=stages.misses if tableau.misses else None,
        )  # fmt: skip


def _last_stage(tableau: Tableau, y0: Any, t1: Any, h: Any, velocities: Any) -> Anchor:
    """The last stage's evaluation, of a method that makes it at the end of the step."""
    *earlier, last = tensor_of(velocities)
    return Anchor(t1, add_scaled(tensor_of(y0), combine(tableau.a[-1], earlier), h), last)


@dataclass(slots=True)
class Stages:
    """What may be asked of a Runge-Kutta step that is done.

    velocities: of its stages, a sequence of tensors or one array (s, *shape).
    """

    stepper: Stepper
    tableau: Tableau
    state: State
    t1: Any
    velocities: Any
    _known: list[Tensor] | None = None

    def _stages(self) -> Sequence[Tensor]:
        found: Sequence[Tensor] = tensor_of(self.velocities)
        return found

    def lipschitz_pair(self) -> tuple[Tensor, Tensor]:
        """`StepResult.lipschitz_pair`, of a tableau with a probe."""
        assert self.tableau.probe is not None
        v_weights, y_weights = self.tableau.probe
        velocities, h = tuple(self._stages()), self.t1 - self.state.t
        return combine(y_weights, velocities) * h, combine(v_weights, velocities)

    def _evaluated(self, result: StepResult) -> list[Tensor]:
        """All velocities that dense output is made of."""
        if self._known is None:
            t0, y0, h = self.state.t, self.state.y, self.t1 - self.state.t
            known = list(self._stages())
            if not self.tableau.first_same_as_last:
                anchor = self.stepper.start(result.state)  # shared with the next interval
                result.state.known = anchor
                known.append(anchor.v)
            for node, row in self.tableau.extra:
                inner = add_scaled(y0, combine(row, known), h)
                known.append(self.stepper.velocity(t0 + node * h, inner)[0])
            self._known = known
        return self._known

    def segment(self, result: StepResult) -> Segment:
        """The step's dense output."""
        dense = self.tableau.dense
        velocities, weights = self._evaluated(result), polynomial_weights(dense)
        return Segment(
            self.state.t, self.t1, self.state.y, velocities, weights, degree=dense.shape[1]
        )

    def misses(self, result: StepResult) -> list[Tensor]:
        """By how much dense output misses what the step knows, see `Tableau.misses`."""
        size: Any = self.t1 - self.state.t
        if isinstance(size, Tensor):
            size = size.to(self.state.y.real.dtype)
        # f is evaluated with its graph, which dense output needs; the misses have none
        found = [v.detach() for v in self._evaluated(result)]
        return [combine(row, found) * size for row in self.tableau.misses]


def _looked_back_on(method: VariableOrderMethod, state: State, start: Anchor) -> tuple[Anchor, ...]:
    """The anchors of a step of variable order, `start` the last of them."""
    # nothing looks at the states of earlier anchors, which need not be kept
    return (*state.history, Anchor(start.t, start.v, start.v))[-(method.max_order + 1) :]


def _weights_to(
    t1: float, method: VariableOrderMethod, state: State, known: tuple[Anchor, ...]
) -> IntervalWeights:
    times = [anchor.t for anchor in known[::-1]]
    order = min(state.order, len(known))
    return interval_weights(times, state.t, t1, order, method.max_order)


def _compiled_stages(
    compiled: CompiledTrial, state: State, t1: Any
) -> tuple[Anchor, Tensor, list[Tensor], None, None, Tensor | None]:
    t0: Any = state.t
    start = state.anchor
    times = (t0, t1, None, None) if isinstance(t0, Tensor) else compiled.times(t0, t1)
    v0 = None if start is None else start.v
    y1, velocities, ratio = compiled(state.y, v0, times)
    if start is None:
        start = Anchor(t0, state.y, velocities[0])
    else:
        velocities.insert(0, v0)
    return start, y1, velocities, None, None, ratio


def _between_ends(state: State, start: Anchor | None) -> Callable[[], tuple[Tensor, Tensor]] | None:
    """`StepResult.lipschitz_pair` of two evaluations of f at the start of an interval."""
    make = state.other_end
    if make is None or start is None:
        return None

    def lipschitz_pair() -> tuple[Tensor, Tensor]:
        here, there = _in_tensors(start), make()
        return here.y - there.y, here.v - there.v

    return lipschitz_pair


def _spaced(anchors: tuple[Anchor, ...], t1: Any) -> tuple[Anchor, ...]:
    """The anchors without those that are much nearer to the last one than the step to t1 is long:
    their difference from it is their error, which a longer step would magnify."""
    *earlier, start = anchors
    if any(isinstance(t, Tensor) for t in (t1, *(anchor.t for anchor in anchors))):
        return anchors  # a time for every sample, which is not read here
    while earlier and abs(t1 - start.t) > FARTHEST * abs(start.t - earlier[-1].t):
        earlier.pop()
    return (*earlier, start)


def _rows(last: Behind) -> tuple[Any, Tensor]:
    """Its size, and its velocities, one row a node."""
    return last.t1 - last.t0, last.velocities.reshape(len(last.velocities), -1)


def _columns(which: np.ndarray, y: Tensor) -> Tensor:
    """Entries (y.numel(),) of the samples that are named: bool, on y's device."""
    named = torch.tensor(which).to(y.device, non_blocking=True)
    return named.repeat_interleave(y[0].numel())


def _rounding_units(change: Tensor, h: float, y0: Tensor, eps: float) -> float:
    """How much a sweep moved the states, in units of their rounding: one host synchronisation."""
    with torch.no_grad():
        size = torch.maximum(y0.abs().amax(), change.abs().amax() * abs(h))
        moved = change.abs().amax() * abs(h) / size / eps
        return float(read_on_host(torch.where(size > 0, moved, 0.0)))


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
