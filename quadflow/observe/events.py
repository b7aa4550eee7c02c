"""Events: zeros of functions g(t, y) along the solution, found on its dense output.

Every accepted step is looked at in several places, and the values there of all events are read
together, in one host synchronisation. A zero lies where the sign changes from one look to the next;
where the looks' own polynomial comes to zero between two of one sign, or they are too few to say
so, there are more looks (`hidden_zeros`). A zero is bracketed (Chandrupatla 1997) down to the
rounding of the step, on the polynomial of the step.

A value that is exactly zero is one event, where zero is reached: neither staying at zero nor
leaving it is another. Its sign afterwards is looked at just behind it. At the start and at the end
of the solve a value that rounding alone keeps from zero is zero (`event_rounding`).

Times and states of events are differentiable: see `event_gradients`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from sys import getrefcount
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..equations.clock import Clock, differentiated
from ..equations.ownership import Outputs, Untouched
from ..equations.probing import mixed_samples
from ..equations.velocity import StateLayout
from ..errors import EventWarning
from ..plans.step import StepResult
from .bracketing import bracketed_zeros
from .event_gradients import EventFunction, shift_of_zero
from .event_interval import Interval
from .event_looks import LEAST_PARTS, Plan, parts_for
from .event_rounding import (
    NEAR,
    NEAR_START,
    crosses,
    ends_at_zero,
    is_lost,
    moved_by_rounding,
    roundings,
    slope_at_start,
)
from .hidden_zeros import Doubts, chebyshev_points, doubts

Array = np.ndarray

# where the sign behind an exact zero is looked at, as a part of the interval that it starts
_BEHIND = 2.0**-10


@dataclass(frozen=True)
class Event:
    """A zero of g along the solution.

    function: g(t, y) -> 0-dimensional real tensor; t and y as func gets them. With batch_dims=1
        (B,), one number a sample, each of its own sample alone.
    terminal: True ends the solve at the first zero, an integer m >= 1 at the m-th. A zero at the
        very start does not count.
    direction: 1 for zeros where g rises in the direction of the solve, -1 where it falls, 0 for
        both.
    subintervals: None looks at every step in as many places as its polynomial needs, ten or more,
        and more closely where these do not settle whether there are zeros between them. An integer
        cuts every step into so many equal parts and looks for changes of sign alone; two zeros in
        one part go unseen. With 1 nothing is looked at but the ends of the steps, and dense output
        is made only in steps with a zero.

    Raises:
        TypeError, ValueError: an argument that is none of these.
    """

    function: EventFunction
    terminal: bool | int = False
    direction: int = 0
    subintervals: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"an event's function must be callable as g(t, y): {self.function!r}")
        if not isinstance(self.terminal, (bool, np.bool_)) and not _counts(self.terminal):
            raise ValueError(
                f"terminal must be True, False or an integer >= 1, got {self.terminal!r}"
            )
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"direction must be -1, 0 or 1, got {self.direction!r}")
        if self.subintervals is not None and not _counts(self.subintervals):
            raise ValueError(
                f"subintervals must be an integer >= 1, got {self.subintervals!r} (or None, to "
                "look where the step's polynomial needs it)"
            )


def _counts(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


class _FirstChange(Event):
    """An event whose zeros within rounding of the start are no zeros at the start: the solve ends
    there, as by torchdiffeq's contract."""


def event_of_any(event_fn: Callable[..., Tensor], t0: Tensor, y0: Any) -> Event:
    """The terminal event that an entry of event_fn changes its sign: torchdiffeq's `event_fn`.

    Args:
        event_fn: event_fn(t, y) -> real tensor of any shape.
        t0, y0: start of the solve, where each entry's sign is taken.

    Returns:
        `Event` whose function is the least of the entries, each times its sign at the start: zero
        where the first of them is. It is zero at the start already where an entry is; by
        torchdiffeq's contract (Chen 2018) the solve then ends at once, which is for the caller to
        look at: a tracker does not end a solve where it starts.
    """
    with torch.no_grad():
        signs = torch.sign(event_fn(t0, y0))

    def least(t: Tensor, y: Any) -> Tensor:
        return (event_fn(t, y) * signs).min()

    return _FirstChange(least, terminal=True, direction=-1)


def as_events(events: Any) -> list[Event]:
    """Events of what a user gives: an Event, a function, or a sequence of these.

    A plain function may carry scipy's attributes `terminal` and `direction`.

    Raises:
        TypeError, ValueError: something else, or attributes that an `Event` does not take.
    """
    several = isinstance(events, Iterable) and not isinstance(events, (Event, dict, str))
    found: list[Event] = []
    for i, event in enumerate(events if several and not callable(events) else [events]):
        if isinstance(event, Event):
            found.append(event)
        elif callable(event):
            terminal = getattr(event, "terminal", False)
            direction = getattr(event, "direction", 0)
            try:  # scipy takes any number for its sign
                direction = int(np.sign(direction))
                # None and 0 are scipy's False
                found.append(Event(event, terminal or False, direction))
            except (TypeError, ValueError) as error:
                raise type(error)(f"events[{i}]: {error}") from error
        else:
            raise TypeError(
                f"events[{i}] must be an Event or a function g(t, y), got {type(event).__name__}"
            )
    return found


@dataclass(frozen=True)
class Stop:
    """Where terminal events end a solve.

    t: a float for shared steps; a float64 array (B,) for steps of every sample, NaN for those that
    go on. y, time: in shared steps the state there, and t as a tensor (1,) that is differentiable,
    as the event moves.
    """

    t: Any
    y: Tensor | None = None
    time: Tensor | None = None


class EventTracker:
    """Finds the events of one solve, step by step: `start`, then `step` for every accepted step.

    Args:
        events: see `as_events`.
        layout: of the state; gives functions their y and t.
        samples: B where every sample has steps of its own, None for shared steps.
        clock: of a solve whose times require grad.

    The host arrays here are (lanes, B) or (events, B), with B = 1 for shared steps; see `Plan`.
    """

    def __init__(
        self, events: Any, layout: StateLayout, samples: int | None, clock: Clock | None = None
    ) -> None:
        self._events = as_events(events)
        self._guards = [Untouched(f"events[{i}]", ValueError) for i in range(len(self._events))]
        self._outputs = [Outputs() for _ in self._events]
        self._layout, self._samples, self._clock = layout, samples, clock
        self._width = 1 if samples is None else samples
        self._eps = float(torch.finfo(layout.time_dtype).eps)
        self._parts = [event.subintervals for event in self._events]
        self._plans: dict[int, Plan] = {}
        self._found: list[list[_Occurrence]] = [[] for _ in self._events]
        self._directions = np.array([event.direction for event in self._events], int)[:, None]
        self._may_end_at_start = np.array(
            [isinstance(event, _FirstChange) for event in self._events], bool
        )[:, None]
        self._warned = False
        self._kept: tuple[Tensor, ...] = ()  # states that outlive a call of g

    def start(self, t0: Any, y0: Tensor, t_end: Any) -> None:
        """Take the values at the start: t0 a float, or times of B samples; y0 the state there;
        t_end where the solve will end.

        Raises:
            TypeError, ValueError: a function that gives no number, or NaN.
        """
        if isinstance(t0, Tensor):
            t0 = t0.detach().cpu().numpy()
        self._t, self._end = (
            np.broadcast_to(np.asarray(t, dtype=np.float64).reshape(-1), (self._width,)).copy()
            for t in (t0, t_end)
        )
        self._begin = self._t
        self._fresh = np.ones(self._width, bool)
        self._counts = np.zeros((len(self._events), self._width), int)
        self._steps = 0
        if not self._events:
            return
        with torch.no_grad():
            self._size = y0.detach().abs()
            self._kept = (y0,)
            values = [self._value(i, self._moment(self._t), y0) for i in range(len(self._events))]
            values += self._moved_values(self._t, y0, self._size)
            numbers = self._numbers(values)
        own, moved = numbers[: len(self._events)], numbers[len(self._events) :]
        self._refuse_nan(own, self._fresh, lambda _: (self._t, y0))
        if self._samples is not None:
            self._refuse_mixing(y0)
        near = crosses(own, moved.reshape(2, *own.shape)) & ~self._may_end_at_start
        self._started, self._g = own, np.where(near, 0.0, own)

    def _refuse_mixing(self, y0: Tensor) -> None:
        for i, guard in enumerate(self._guards):
            call = functools.partial(self._value, i)
            mixed = mixed_samples(call, self._t, self._end, y0, 0.0)
            if mixed:
                raise ValueError(
                    f"{guard.name} mixes the samples: its value {mixed}. With batch_dims=1 every "
                    "sample has times of its own, and its value must depend on its own row of t "
                    "and y alone"
                )

    def step(self, result: StepResult) -> Stop | None:
        """Look for events in an accepted step.

        Returns:
            Where terminal events end the solve; None where none does.

        Raises:
            TypeError, ValueError: a function that gives no number, or NaN.
        """
        if not self._events:
            return None
        interval = Interval(result, self._t, self._samples)
        self._steps += 1
        self._kept = (result.previous.y, result.state.y)
        with torch.no_grad():
            self._size = torch.maximum(self._size, result.state.y.detach().abs())
        final = self._look(interval)
        self._fresh &= ~interval.good
        self._t = np.where(interval.good, interval.t1, interval.t0)
        if final is None or np.isnan(final).all():
            return None
        if self._samples is not None:
            return Stop(final)
        ended = next(own[-1] for event, own in zip(self._events, self._found, strict=True)
                     if event.terminal and own and own[-1].when == final[0])  # fmt: skip
        return Stop(float(final[0]), ended.y[0], ended.t)

    @property
    def t_events(self) -> list[Any]:
        """Of every event its times so far, in the order of the solve: float64 (k,), on the state's
        device. For steps of every sample a list of B such tensors."""
        return [self._gathered(found, states=False) for found in self._found]

    @property
    def y_events(self) -> list[Any]:
        """Of every event the states there, (k, *shape) in the user's structure; a list of B such
        for steps of every sample."""
        return [self._gathered(found, states=True) for found in self._found]

    # -- looking -----------------------------------------------------------------------------

    def _look(self, interval: Interval) -> Array | None:
        """Record the events of a step; their end of the solve (B,), NaN or None without one."""
        automatic = parts_for(interval.degree) if None in self._parts else LEAST_PARTS
        if automatic not in self._plans:
            self._plans[automatic] = Plan(self._parts, automatic)
        plan = self._plans[automatic]
        after, started = self._sampled(interval, plan), self._g
        before = np.concatenate((after[:1], after[:-1]))
        before[plan.first] = started
        good = interval.good
        self._g = np.where(good, after[plan.last], started)
        in_doubt: Doubts | None = None
        if plan.automatic.size:
            columns = np.concatenate(
                (started[None, plan.automatic], after[plan.blocks.T])
            )  # (parts + 1, automatic events, B)
            columns = np.where(good, columns, 1.0).reshape(len(columns), -1)
            in_doubt = doubts(columns)
        quiet = ((before > 0) & (after > 0)) | ((before < 0) & (after < 0)) | ~good
        if in_doubt is None and quiet.all():
            return None
        points = [np.repeat(own[:, None], self._width, 1) for own in plan.points]
        values = [
            np.concatenate((started[i : i + 1], after[first : last + 1]))
            for i, (first, last) in enumerate(zip(plan.first, plan.last, strict=True))
        ]
        if in_doubt is not None:
            for k, i in enumerate(plan.automatic.tolist()):
                own = slice(k * self._width, (k + 1) * self._width)
                points[i], values[i] = self._closer(interval, i, columns[:, own])
        return self._recorded(interval, points, values)

    def _sampled(self, interval: Interval, plan: Plan) -> Array:
        """Values at the ends of the plan's lanes, (lanes, B), in one host synchronisation."""
        ends = interval.good & (interval.t1 == self._end)
        if plan.inner:
            _ = interval.segment  # in the caller's grad mode
        with torch.no_grad():
            y1 = interval.result.state.y
            states = chain(interval.states(plan.inner) if plan.inner else (), (y1,))
            times = self._times(interval.times(plan.thetas))
            values = [
                self._value(i, t, state)
                for t, state, events in zip(times, states, plan.events_at, strict=True)
                for i in events
            ]
            count = len(values)
            if ends.any():
                size = self._size
                if plan.inner:
                    size = torch.maximum(size, interval.largest_move())
                values += self._moved_values(interval.t1, y1, size)
            numbers = self._numbers(values)
        after = numbers[:count][plan.order]
        if not np.isfinite(after).all():
            after = self._held(after, interval, plan)
        if ends.any():
            value, alone = after[plan.last], (plan.first == plan.last)[:, None]
            before = np.where(alone, self._g, after[plan.last - 1])
            largest = np.maximum(np.abs(self._g), np.maximum.reduceat(np.abs(after), plan.first))
            moved = numbers[count:].reshape(2, *value.shape)
            zero = ends & ends_at_zero(value, before, moved, largest)
            after[plan.last] = np.where(zero, 0.0, value)
        return after

    def _held(self, after: Array, interval: Interval, plan: Plan) -> Array:
        """Values of which those of a state that is not finite, within the step, are those of the
        look before: dense output may be infinite where the ends of a step are not.

        Raises:
            ValueError: NaN of a finite state.
        """
        ends = np.concatenate([points[1:] for points in plan.points])
        events = np.repeat(np.arange(len(plan.points)), [len(p) - 1 for p in plan.points])

        def at(lane: int) -> tuple[Array, Tensor]:
            theta = np.full(self._width, ends[lane])
            return interval.times(theta), interval.state(theta)

        self._refuse_nan(after, interval.good, at, events.tolist())
        known = after.copy()
        for lane in np.flatnonzero(~np.isfinite(after).all(1) & (ends < 1)).tolist():
            state = at(lane)[1].detach().reshape(self._width, -1)
            finite = np.array(torch.isfinite(state).all(1).tolist())
            before = self._g[events[lane]] if lane in plan.first else known[lane - 1]
            known[lane] = np.where(finite, known[lane], before)
        return known

    def _closer(self, interval: Interval, i: int, values: Array) -> tuple[Array, Array]:
        """Looks (P, B) of an automatic event and its values there, with more of them where zeros
        may hide between those (parts + 1, B) that there are."""
        n, found = len(values) - 1, doubts(values)
        while found is not None and found.unresolved.any():
            n *= 2
            between = np.repeat(chebyshev_points(n)[1::2, None], self._width, 1)
            finer = np.empty((n + 1, self._width))
            finer[::2] = values
            finer[1::2] = np.where(interval.good, self._at(interval, [i] * (n // 2), between), 1.0)
            values = finer
            found = doubts(values, found)
        points = np.repeat(chebyshev_points(n)[:, None], self._width, 1)
        if found is None or not len(found.columns):
            return points, values
        row = np.zeros(self._width, int)
        turns = np.full((int(np.bincount(found.columns).max()), self._width), np.nan)
        for sample, place in zip(found.columns, found.places, strict=True):
            turns[row[sample], sample] = place
            row[sample] += 1
        asked = ~np.isnan(turns)
        turns = np.where(asked, turns, 1.0)
        got = self._at(interval, [i] * len(turns), turns, asked)
        points = np.concatenate((points, turns))
        values = np.concatenate((values, np.where(asked, got, values[-1])))
        order = np.argsort(points, axis=0, kind="stable")
        return np.take_along_axis(points, order, 0), np.take_along_axis(values, order, 0)

    # -- finding -----------------------------------------------------------------------------

    def _recorded(
        self, interval: Interval, points: list[Array], values: list[Array]
    ) -> Array | None:
        """Find and record the zeros between looks (P, B) of every event, of those values; the end
        of the solve (B,), NaN where there is none."""
        counts = [len(own) - 1 for own in points]
        event_of = np.repeat(np.arange(len(counts)), counts)
        lanes_of = np.split(np.arange(len(event_of)), np.cumsum(counts)[:-1])
        first = np.array([own[0] for own in lanes_of])
        low, high = (np.concatenate([own[a:b] for own in points]) for a, b in ((0, -1), (1, None)))
        before, after = (
            np.concatenate([own[a:b] for own in values]) for a, b in ((0, -1), (1, None))
        )
        started = before[first]
        there = interval.good & (high > low)
        low, before = self._behind_zeros(interval, event_of, low, high, before, after, there)
        directions = self._directions[event_of]
        rising, falling = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        found = there & ((rising & (directions >= 0)) | (falling & (directions <= 0)))
        places = self._places(interval, event_of, low, high, before, after, found)
        times = np.maximum(np.abs(interval.t0), np.abs(interval.t1))
        length = np.abs(interval.t1 - interval.t0)
        with np.errstate(divide="ignore"):
            rounding = self._eps + np.spacing(times) / length
        at_end = (interval.t1 == self._end) & (places >= 1 - NEAR * rounding)
        places = np.where(at_end, 1.0, places)
        lost = found & self._fresh & (places <= NEAR_START * rounding)
        lost &= ~self._may_end_at_start[event_of]
        places = np.where(lost, np.nan, places)
        # what lies behind the start, for zeros there
        leaving = np.sign(np.where(before[first] == 0, after[first], before[first]))
        for lane in np.flatnonzero(lost.any(1)):
            i = event_of[lane]
            leaving[i] = np.where(lost[lane], np.where(rising[lane], 1, -1), leaving[i])
        crossed = np.logical_or.reduceat(lost, first)
        at_start = (started == 0) | crossed
        at_start &= interval.good & self._fresh
        at_start &= (self._directions == 0) | (leaving == self._directions)
        if at_start.any():
            self._warn_of_lost(interval, at_start, leaving, crossed, high[first], after[first])
        places, end = self._ended(places, lanes_of, NEAR * rounding)
        for i, own in enumerate(lanes_of):
            if at_start[i].any():
                self._keep(i, interval, np.where(at_start[i], 0.0, np.nan), is_start=True)
            for lane in own[~np.isnan(places[own]).all(1)]:
                self._keep(i, interval, places[lane])
        return None if np.isnan(end).all() else interval.times(end)

    def _behind_zeros(
        self, interval: Interval, event_of: Array, low: Array, high: Array, before: Array,
        after: Array, there: Array,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Starts of lanes and values there; of lanes that start at zero, just behind it."""
        zero = there & (before == 0)
        which = np.flatnonzero(zero.any(1))
        if not which.size:
            return low, before
        low, before, zero, width = low.copy(), before.copy(), zero[which], (high - low)[which]
        start, part = low[which], np.full(width.shape, _BEHIND)
        value = self._at(interval, event_of[which], start + part * width, zero)
        # by the parabola through it: where g left the other way and has come back already
        with np.errstate(all="ignore"):
            slope = slope_at_start(_BEHIND, np.zeros_like(value), value, after[which])
            back = slope / (slope - after[which])
        left = zero & (slope * value < 0) & (back > 0) & (back < _BEHIND)
        if left.any():
            part = np.where(left, back / 2, part)
            nearer = self._at(interval, event_of[which], start + part * width, left)
            left &= np.sign(nearer) == np.sign(slope)
            value, part = np.where(left, nearer, value), np.where(left, part, _BEHIND)
        low[which] = np.where(zero, start + part * width, start)
        before[which] = np.where(zero, value, before[which])
        return low, before

    def _places(
        self, interval: Interval, event_of: Array, low: Array, high: Array, before: Array,
        after: Array, found: Array,
    ) -> Array:  # fmt: skip
        """The zeros (lanes, B) between low and high where there is one, else NaN."""
        places = np.where(found, high, np.nan)
        inside = found & (after != 0)
        # a value that ends at zero may have been there for a while
        flat = found & (after == 0)
        which = np.flatnonzero(flat.any(1))
        if which.size:
            just_before = (high - _BEHIND * (high - low))[which]
            resting = self._at(interval, event_of[which], just_before, flat[which]) == 0
            flat[which] &= resting
            inside |= flat
        which = np.flatnonzero(inside.any(1))
        if not which.size:
            return places
        # zero itself then is behind the change
        behind = np.where(flat, -np.sign(before) * np.finfo(np.float64).tiny, after)[which]

        def values(moments: Array, searched: Array) -> Array:
            some = searched.any(1)
            got = np.zeros_like(moments)
            got[some] = self._at(interval, event_of[which[some]], moments[some], searched[some])
            return np.where(flat[which] & (got == 0), behind, got)

        zeros = bracketed_zeros(
            values, low[which], high[which], before[which], behind, np.full((1, 1), self._eps),
            inside[which],
        )  # fmt: skip
        places[which] = np.where(inside[which], zeros, places[which])
        return places

    def _ended(self, places: Array, lanes_of: list[Array], near: Array) -> tuple[Array, Array]:
        """Zeros without those after the end of the solve, and that end (B,), NaN where none is."""
        end = np.full(places.shape[1], np.inf)
        hits = ~np.isnan(places)
        for event, own, count in zip(self._events, lanes_of, self._counts, strict=True):
            if event.terminal:
                final = hits[own] & (count + np.cumsum(hits[own], axis=0) == int(event.terminal))
                end = np.minimum(end, np.where(final, places[own], np.inf).min(0))
        # as near as zeros are told apart is the same time
        places = np.where(np.abs(places - end) <= near, end, places)
        places = np.where(places <= end, places, np.nan)
        for own, count in zip(lanes_of, self._counts, strict=True):
            count += (~np.isnan(places[own])).sum(0)
        return places, np.where(np.isfinite(end), end, np.nan)

    def _warn_of_lost(
        self, interval: Interval, at_start: Array, leaving: Array, crossed: Array, high: Array,
        after: Array,
    ) -> None:  # fmt: skip
        """Warn, once, of a terminal event whose zero at the start should have ended the solve.

        crossed: whether g crosses zero within rounding of the start. high, after: of every event
        the first look behind the start and its value. All (events, B).
        """
        for i, event in enumerate(self._events):
            if not event.terminal or self._may_end_at_start[i, 0] or self._warned:
                continue
            if not at_start[i].any():
                continue
            part = high[i : i + 1] * _BEHIND
            value = self._at(interval, [i], part, at_start[i : i + 1])[0]
            slope = slope_at_start(_BEHIND, self._started[i], value, after[i])
            lost = at_start[i] & is_lost(event.direction, leaving[i], crossed[i], slope, after[i])
            if not lost.any():
                continue
            sample = int(np.flatnonzero(lost)[0])
            of = "" if self._samples is None else f" of sample {sample}"
            self._warned = True
            warnings.warn(
                f"the terminal event events[{i}] is zero at the start, t={self._begin[sample]:.9g}"
                f"{of}, and leaves zero in its direction, direction={event.direction}: a zero at "
                "the start ends nothing, so the solve goes on past it. Where it was restarted at "
                "this event, the next one comes within the rounding of t (a ball that bounces ever "
                "shorter): end the chain of solves before, or change the state so that g leaves "
                "zero the other way",
                EventWarning,
                stacklevel=7,
            )

    # -- evaluating --------------------------------------------------------------------------

    def _value(self, i: int, t: float | Tensor, y: Tensor) -> Tensor:
        """g of event i, checked: () for shared steps, (B,) for steps of every sample."""
        dtype = self._layout.time_dtype
        if isinstance(t, Tensor):
            t = self._layout.against_parts(t).to(dtype)
        else:  # a fill on the device, where a copy from the host would synchronise
            t = torch.full((), t, dtype=dtype, device=self._layout.device)
        seen, guard = self._layout.seen(y), self._guards[i]
        if seen is y and any(y is kept for kept in self._kept):
            seen = y.clone()
        mark = guard.before(seen)
        value = self._events[i].function(t, self._layout.split(seen))
        guard.after(seen, mark)
        name = guard.name
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must return a torch.Tensor, got {type(value).__name__}")
        if not value.is_floating_point():
            raise TypeError(f"{name} must return a real floating tensor, got dtype {value.dtype}")
        wanted = () if self._samples is None else (self._samples,)
        if value.shape != wanted:
            meant = "one number" if self._samples is None else "one number a sample"
            raise ValueError(
                f"{name} returned shape {tuple(value.shape)}; it must be {wanted}, {meant}"
            )
        if value.device != self._layout.device:
            raise ValueError(f"{name} is on {value.device}, the state on {self._layout.device}")
        # values are read together: g may fill the same memory in its next call
        return self._outputs[i].own(value, seen, getrefcount(value))

    def _at(
        self, interval: Interval, events: Sequence[int] | Array, thetas: Array,
        asked: Array | None = None,
    ) -> Array:  # fmt: skip
        """Values (len(events), B) at θ of that shape, in one host synchronisation.

        Raises:
            ValueError: NaN, of a finite state and where `asked`.
        """
        if (thetas != 1).any():
            _ = interval.segment  # in the caller's grad mode
        events = [int(i) for i in events]
        with torch.no_grad():
            values = self._numbers(
                [
                    self._value(i, self._moment(interval.times(row)), interval.state(row))
                    for i, row in zip(events, thetas, strict=True)
                ]
            )
        self._refuse_nan(
            values, interval.good if asked is None else asked,
            lambda k: (interval.times(thetas[k]), interval.state(thetas[k])), events,
        )  # fmt: skip
        return values

    def _moved_values(self, times: Array, y: Tensor, size: Tensor) -> list[Tensor]:
        """Of all events the values where rounding may have moved time and state from, on either
        side: the first side's of all, then the other's."""
        farthest = np.maximum(np.abs(self._begin), np.abs(times))
        return [
            self._value(i, self._moment(t), state)
            for t, state in moved_by_rounding(times, y, size, roundings(self._steps), farthest)
            for i in range(len(self._events))
        ]

    @staticmethod
    def _numbers(values: list[Tensor]) -> Array:
        """Values on the host, (len(values), B), in one synchronisation."""
        try:
            numbers = torch.stack([value.to(torch.float64) for value in values]).tolist()
        except RuntimeError as error:
            raise RuntimeError(
                "the values of the events could not be read; under torch.func.vmap there are "
                "no events: take batch_dims=1, where every sample has its own"
            ) from error
        return np.array(numbers).reshape(len(values), -1)

    def _refuse_nan(
        self, values: Array, asked: Array, where: Callable[[int], tuple[Array, Tensor]],
        events: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Raise ValueError for a value that is NaN of a finite state and where `asked`.

        where: the times (B,) and the state of a row of values. events: the rows' events.
        """
        missing = np.isnan(values)
        for k, sample in np.argwhere(missing & asked).tolist() if missing.any() else ():
            times, state = where(k)
            state = state.detach()
            if bool(torch.isfinite(state if self._samples is None else state[sample]).all()):
                of = "" if self._samples is None else f" in sample {sample}"
                event = k if events is None else events[k]
                raise ValueError(f"events[{event}] is NaN at t={times[sample]:.9g}{of}")

    def _times(self, when: Array) -> Sequence[Tensor]:
        """Rows of times (n, B) as tensors, as functions take them."""
        layout, shape = self._layout, (len(when),)
        if self._samples is not None:
            shape = (*when.shape, *(1,) * (layout.rank - 1 if not layout.joined else 1))
        times = torch.tensor(when).to(layout.device, layout.time_dtype, non_blocking=True)
        return times.reshape(shape).unbind(0)

    def _moment(self, when: Array) -> float | Tensor:
        """A row of times as functions and segments take it."""
        if self._samples is None:
            return float(when[0])
        shape = (-1, *(1,) * (self._layout.rank - 1 if not self._layout.joined else 1))
        return torch.tensor(when).to(self._layout.device).reshape(shape)

    # -- keeping -----------------------------------------------------------------------------

    def _keep(self, i: int, interval: Interval, place: Array, is_start: bool = False) -> None:
        """Record event i at θ of `place` (B,), NaN where there is none."""
        hit = ~np.isnan(place)
        place = np.where(hit, place, 1.0)
        times = interval.times(place)
        moment = self._moment(times)
        if not is_start and (place != 1).any():
            _ = interval.segment
        y = interval.result.previous.y if is_start else interval.state(place)
        tau = torch.tensor(times).to(self._layout.device)
        if not is_start:
            value = self._value(i, self._through_clock(moment), y)
            if differentiated(value):
                tau, y = self._moved(i, interval, place, tau, y, value, hit)
        tau = self._through_clock(tau)
        if self._samples is None:
            y = y.unsqueeze(0)
        rows = np.flatnonzero(hit)
        if not hit.all():
            index = torch.tensor(rows).to(self._layout.device)
            tau, y = tau[index], y[index]
        self._found[i].append(_Occurrence(rows, tau, y, float(times[0])))

    def _moved(
        self, i: int, interval: Interval, place: Array, tau: Tensor, y: Tensor, value: Tensor,
        hit: Array,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Time and state of an event, unchanged in value, with the derivative of the time."""
        _ = interval.segment
        with torch.no_grad():
            velocity = interval.velocity(place)
        moment = self._moment(interval.times(place))
        time = torch.full_like(tau[0], moment) if isinstance(moment, float) else moment
        shift = shift_of_zero(
            lambda t, x: self._value(i, t, x), value, time, y, velocity, torch.tensor(hit)
        ).reshape(-1)
        column = shift.reshape(-1, *(1,) * (y.dim() - 1)) if self._samples else shift.reshape(())
        return tau + shift, y + velocity * column.to(y.real.dtype)

    def _through_clock(self, tau: Any) -> Any:
        """The user's time, which carries gradients where t does."""
        return tau if self._clock is None else self._clock.time(tau)

    def _gathered(self, found: list[_Occurrence], states: bool) -> Any:
        layout, width = self._layout, 1 if self._samples is None else self._samples
        samples = np.concatenate([np.empty(0, int), *(one.samples for one in found)])
        order = torch.tensor(np.argsort(samples, kind="stable")).to(layout.device)
        counts = np.bincount(samples, minlength=width).tolist()
        if not states:
            none = torch.empty(0, dtype=torch.float64, device=layout.device)
            flat = torch.cat([none, *(one.t for one in found)])[order]
            return flat if self._samples is None else list(flat.split(counts))
        shape = layout.shapes[0] if not layout.joined else (sum(layout.sizes),)
        empty = torch.empty((0, *shape), dtype=layout.dtype, device=layout.device)
        rows = torch.cat([empty, *(one.y for one in found)])[order]
        if self._samples is None:
            return layout.split(rows, 1)
        return [layout.split(own) for own in rows.split(counts)]


@dataclass(frozen=True)
class _Occurrence:
    """An event at once in some samples (k,): times t (k,) and states y (k, *shape).

    when: the time on the host, of the first sample.
    """

    samples: Array
    t: Tensor
    y: Tensor
    when: float
