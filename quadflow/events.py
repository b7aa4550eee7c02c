"""Events: zeros of functions g(t, y) along the solution, found on its dense output.

After every accepted step the values of all events at its end are read together, in one host
synchronisation. A zero lies where the sign has changed since the last value. It is bracketed
there (Chandrupatla 1997) down to the rounding of the step, on the polynomial of the step.

A value that is exactly zero is one event, where zero is reached: neither staying at zero nor
leaving it is another. Its sign afterwards is looked at just behind it.

Times and states of events are differentiable. Where p is anything that the solve is differentiable
in, g(t_e, y(t_e; p); p) = 0 gives dt_e/dp = -(∂g/∂p + ∂g/∂y ∂y/∂p) / (dg/dt), and the state there
moves by ∂y/∂p + y' dt_e/dp, with dg/dt and y' those of the polynomial: the derivatives of what was
computed, to rounding. First derivatives alone: a second one is an error in backward mode. Where
dg/dt is zero they are infinite or NaN.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor
from torch.autograd import forward_ad

from .bracketing import bracketed_zeros
from .clock import Clock
from .dense import Segment, combine
from .evaluation import StateLayout
from .step import StepResult

Array = np.ndarray
EventFunction = Callable[[Tensor, Any], Tensor]

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
    subintervals: into how many equal parts every step is cut to look for changes of sign. With 1
        two zeros of g within one step go unseen. More cost evaluations of g, and of the dense
        output in every step, but no host synchronisation.

    Raises:
        TypeError, ValueError: an argument that is none of these.
    """

    function: EventFunction
    terminal: bool | int = False
    direction: int = 0
    subintervals: int = 1

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"an event's function must be callable as g(t, y): {self.function!r}")
        if not isinstance(self.terminal, (bool, np.bool_)) and not _counts(self.terminal):
            raise ValueError(
                f"terminal must be True, False or an integer >= 1, got {self.terminal!r}"
            )
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"direction must be -1, 0 or 1, got {self.direction!r}")
        if not _counts(self.subintervals):
            raise ValueError(f"subintervals must be an integer >= 1, got {self.subintervals!r}")


def _counts(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


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

    return Event(least, terminal=True, direction=-1)


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
    go on. y: the state there, in shared steps.
    """

    t: Any
    y: Tensor | None = None


class EventTracker:
    """Finds the events of one solve, step by step: `start`, then `step` for every accepted step.

    Args:
        events: see `as_events`.
        layout: of the state; gives functions their y and t.
        samples: B where every sample has steps of its own, None for shared steps.
        clock: of a solve whose times require grad.

    The host arrays here are (lanes, B), with B = 1 for shared steps. A lane is one of the parts
    that an event cuts each step into, in the order of the events and of time.
    """

    def __init__(
        self, events: Any, layout: StateLayout, samples: int | None, clock: Clock | None = None
    ) -> None:
        self._events = as_events(events)
        self._layout, self._samples, self._clock = layout, samples, clock
        parts = [event.subintervals for event in self._events]
        self._event_of = np.repeat(np.arange(len(parts)), np.array(parts, int))
        places = [(np.arange(n), n) for n in parts]
        none = [np.empty(0)]
        self._low = np.concatenate([k / n for k, n in places] or none)[:, None]
        self._high = np.concatenate([(k + 1) / n for k, n in places] or none)[:, None]
        self._lanes_of = np.split(np.arange(len(self._event_of)), np.cumsum(parts)[:-1])
        self._direction = np.array([self._events[i].direction for i in self._event_of])[:, None]
        # without parts only the ends of steps are looked at, and dense output made only for a zero
        self._whole = all(n == 1 for n in parts)
        self._first = np.array([own[0] for own in self._lanes_of if len(own)], int)
        self._last = np.array([own[-1] for own in self._lanes_of if len(own)], int)
        self._found: list[list[_Occurrence]] = [[] for _ in self._events]

    def start(self, t0: Any, y0: Tensor) -> None:
        """Take the values at the start: t0 a float, or times of B samples; y0 the state there.

        Raises:
            TypeError, ValueError: a function that gives no number, or NaN.
        """
        width = 1 if self._samples is None else self._samples
        if isinstance(t0, Tensor):
            t0 = t0.detach().cpu().numpy()
        times = np.broadcast_to(np.asarray(t0, dtype=np.float64).reshape(-1), (width,))
        self._t = times.copy()
        self._fresh = np.ones(width, bool)
        self._counts = np.zeros((len(self._events), width), int)
        if self._events:
            events = range(len(self._events))
            self._g = self._read(events, [times] * len(events), [y0] * len(events), self._fresh)

    def step(self, result: StepResult) -> Stop | None:
        """Look for events in an accepted step.

        Returns:
            Where terminal events end the solve; None where none does.

        Raises:
            TypeError, ValueError: a function that gives no number, or NaN.
        """
        if not self._events:
            return None
        interval = _Interval(result, self._t, self._samples)
        final = self._look(interval)
        self._t = np.where(interval.good, interval.t1, interval.t0)
        if final is None or np.isnan(final).all():
            return None
        if self._samples is not None:
            return Stop(final)
        ended = next(own[-1] for event, own in zip(self._events, self._found, strict=True)
                     if event.terminal and own and own[-1].when == final[0])  # fmt: skip
        return Stop(float(final[0]), ended.y[0])

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

    # -- finding -----------------------------------------------------------------------------

    def _look(self, interval: _Interval) -> Array | None:
        """Record the events of a step; their end of the solve (B,), NaN or None without one."""
        t0, t1, good, lanes = interval.t0, interval.t1, interval.good, np.arange(len(self._low))
        first, last = self._first, self._last
        started = self._g
        if self._whole:
            y1 = interval.result.state.y
            after = self._read(lanes, [t1] * len(lanes), [y1] * len(lanes), good)
            before = started.copy()
        else:
            high = t0 + self._high * (t1 - t0)
            high[last] = t1
            after = self._at(interval, lanes, high)
            before = np.concatenate((after[:1], after[:-1]))
            before[first] = started
        self._g = np.where(good, after[last], started)
        quiet = ((before > 0) & (after > 0)) | ((before < 0) & (after < 0)) | ~good
        if quiet.all():
            self._fresh &= ~good
            return None
        low, high = (t0 + place * (t1 - t0) for place in (self._low, self._high))
        high[last] = t1
        zero = good & (before == 0)
        if zero.any():
            which = lanes[zero.any(1)]
            behind = low + _BEHIND * (high - low)
            low = np.where(zero, behind, low)
            before[which] = np.where(
                zero[which], self._at(interval, which, low[which], zero[which]), before[which]
            )
        rising, falling = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        found = good & ((rising & (self._direction >= 0)) | (falling & (self._direction <= 0)))
        times = np.where(found, high, np.nan)
        inside = found & (after != 0)
        rounding = float(torch.finfo(self._layout.time_dtype).eps) * np.abs(t1 - t0)
        rounding = rounding + np.spacing(np.maximum(np.abs(t0), np.abs(t1)))
        if inside.any():
            which = lanes[inside.any(1)]

            def values(moments: Array, searched: Array) -> Array:
                some = searched.any(1)
                got = np.zeros_like(moments)
                got[some] = self._at(interval, which[some], moments[some], searched[some])
                return got

            zeros = bracketed_zeros(
                values, low[which], high[which], before[which], after[which], rounding,
                inside[which],
            )  # fmt: skip
            times[which] = np.where(inside[which], zeros, times[which])
        times, stop = self._ended(times, np.where(t1 >= t0, 1.0, -1.0), 4 * rounding)
        # what lies behind the start, for zeros there
        leaving = np.where(before[first] == 0, after[first], before[first])
        wanted = self._direction[first]
        at_start = good & self._fresh & (started == 0)
        at_start &= (wanted == 0) | (np.sign(leaving) == wanted)
        self._fresh &= ~good
        for i, own in enumerate(self._lanes_of):
            if at_start[i].any():
                self._keep(i, interval, np.where(at_start[i], t0, np.nan), is_start=True)
            for lane in own[~np.isnan(times[own]).all(1)]:
                self._keep(i, interval, times[lane])
        return stop

    def _ended(self, times: Array, sign: Array, near: Array) -> tuple[Array, Array]:
        """Zeros without those after the end of the solve, and that end (B,), NaN where none is."""
        order = sign * times
        end = np.full(times.shape[1], np.inf)
        hits = ~np.isnan(times)
        for event, own, count in zip(self._events, self._lanes_of, self._counts, strict=True):
            if event.terminal:
                final = hits[own] & (count + np.cumsum(hits[own], axis=0) == int(event.terminal))
                end = np.minimum(end, np.where(final, order[own], np.inf).min(0))
        # as near as zeros are told apart is the same time
        times = np.where(np.abs(order - end) <= near, sign * end, times)
        times = np.where(sign * times <= end, times, np.nan)
        for own, count in zip(self._lanes_of, self._counts, strict=True):
            count += (~np.isnan(times[own])).sum(0)
        return times, np.where(np.isfinite(end), sign * end, np.nan)

    # -- evaluating --------------------------------------------------------------------------

    def _value(self, i: int, t: float | Tensor, y: Tensor) -> Tensor:
        """g of event i, checked: () for shared steps, (B,) for steps of every sample."""
        dtype = self._layout.time_dtype
        if isinstance(t, Tensor):
            t = self._layout.against_parts(t).to(dtype)
        else:  # a fill on the device, where a copy from the host would synchronise
            t = torch.full((), t, dtype=dtype, device=self._layout.device)
        value = self._events[i].function(t, self._layout.split(y))
        name = f"events[{i}]"
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
        return value

    def _at(
        self, interval: _Interval, lanes: Array, times: Array, asked: Array | None = None
    ) -> Array:
        """Values (len(lanes), B) of the lanes' events at times of that shape."""
        interval.prepare(times)
        with torch.no_grad():
            states = [interval.state(row) for row in times]
        asked = interval.good if asked is None else asked
        return self._read(self._event_of[lanes], times, states, asked)

    def _read(
        self, events: Iterable[int], times: Iterable[Array], states: Sequence[Tensor], asked: Array
    ) -> Array:
        """Values on the host, (len(states), B), in one synchronisation.

        Raises:
            ValueError: NaN, of a finite state and where `asked`.
        """
        events, times = list(events), list(times)
        with torch.no_grad():
            rows = [
                self._value(i, self._moment(when), y).to(torch.float64)
                for i, when, y in zip(events, times, states, strict=True)
            ]
            try:
                values = np.array(torch.stack(rows).tolist()).reshape(len(rows), -1)
            except RuntimeError as error:
                raise RuntimeError(
                    "the values of the events could not be read; under torch.func.vmap there are "
                    "no events: take batch_dims=1, where every sample has its own"
                ) from error
        missing = np.isnan(values)
        for k, sample in np.argwhere(missing & asked).tolist() if missing.any() else ():
            state = states[k].detach()
            if bool(torch.isfinite(state if self._samples is None else state[sample]).all()):
                where = "" if self._samples is None else f" in sample {sample}"
                raise ValueError(f"events[{events[k]}] is NaN at t={times[k][sample]:.9g}{where}")
        return values

    def _moment(self, when: Array) -> float | Tensor:
        """A row of times as functions and segments take it."""
        if self._samples is None:
            return float(when[0])
        shape = (-1, *(1,) * (self._layout.rank - 1 if not self._layout.joined else 1))
        return torch.tensor(when).to(self._layout.device).reshape(shape)

    # -- keeping -----------------------------------------------------------------------------

    def _keep(self, i: int, interval: _Interval, when: Array, is_start: bool = False) -> None:
        """Record event i at the times `when` (B,), NaN where there is none."""
        hit = ~np.isnan(when)
        times = np.where(hit, when, interval.t1)
        moment = self._moment(times)
        interval.prepare(times if not is_start else interval.t1)
        y = interval.result.previous.y if is_start else interval.state(times)
        tau = torch.tensor(times).to(self._layout.device)
        if not is_start:
            value = self._value(i, self._through_clock(moment), y)
            if differentiated(value):
                tau, y = self._moved(i, interval, times, tau, y, value, hit)
        tau = self._through_clock(tau)
        if self._samples is None:
            y = y.unsqueeze(0)
        rows = np.flatnonzero(hit)
        if not hit.all():
            index = torch.tensor(rows).to(self._layout.device)
            tau, y = tau[index], y[index]
        self._found[i].append(_Occurrence(rows, tau, y, float(when[0])))

    def _moved(
        self, i: int, interval: _Interval, times: Array, tau: Tensor, y: Tensor, value: Tensor,
        hit: Array,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Time and state of an event, unchanged in value, with the derivative of the time."""
        interval.prepare(None)
        with torch.no_grad():
            velocity = interval.velocity(times)
        moment = self._moment(times)
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


def differentiated(x: Tensor) -> bool:
    """Whether derivatives of x are wanted, by backward or forward mode."""
    return x.requires_grad or forward_ad.unpack_dual(x).tangent is not None


def shift_of_zero(
    function: EventFunction,
    value: Tensor,
    t: Tensor,
    y: Tensor,
    velocity: Tensor,
    hit: Tensor | None = None,
) -> Tensor:
    """How a zero of g along y(t) moves: zeros, with the first derivative of its time.

    Args:
        function: g(t, y) -> () or, one number a sample, (B,).
        value: g at the zero, with all that it is differentiable in but t.
        t, y, velocity: the zero, the state and dy/dt there.
        hit: (B,) or (1,), where there is a zero at all; elsewhere the derivative is left out.

    Source: the implicit function theorem, as in Chen, Amos & Nickel 2021.
    """
    with torch.no_grad():
        y, velocity = y.detach(), velocity.detach()
        pull = torch.func.vjp(function, t.detach(), y)[1]
        by_time, by_state = pull(torch.ones_like(value))
        along = (by_state.conj() * velocity).real.to(torch.float64)
        slope = by_time.to(torch.float64).reshape(value.shape)
        slope = slope + along.reshape(*value.shape, -1).sum(-1)
        if hit is not None:
            # a sample without the event must not turn its zero gradient into 0/0
            slope = torch.where(hit.to(slope.device).reshape(value.shape), slope, 1.0)
    value = _first_derivative_alone(value)
    shift = -(value - value.detach()) / slope
    # at a slope of zero the derivative is not finite, the time is
    return torch.where(shift.isnan(), 0.0, shift)


class _Once(torch.autograd.Function):
    """Identity in its first argument, that cannot be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, source: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise RuntimeError("the time of an event has first derivatives alone, not a second one")


class _FirstDerivativeAlone(torch.autograd.Function):
    """Identity, of which a second derivative is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Once.apply(gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()


def _first_derivative_alone(x: Tensor) -> Tensor:
    result: Tensor = _FirstDerivativeAlone.apply(x)  # type: ignore[no-untyped-call]
    return result


class _Interval:
    """An accepted step as events see it. t0, t1 (B,), good: whose step it is."""

    def __init__(self, result: StepResult, t0: Array, samples: int | None) -> None:
        self.result, self.t0 = result, t0
        if samples is None:
            self.t1, self.good = np.array([result.state.t]), np.ones(1, bool)
        else:
            assert result.samples is not None
            self.t1, self.good = result.samples.t, result.samples.accepted
        self._shared = samples is None

    @functools.cached_property
    def segment(self) -> Segment:
        """The dense output. Making it may evaluate func, of which gradients may be wanted."""
        return self.result.segment()

    def prepare(self, times: Array | None) -> None:
        """Make the dense output, in the caller's grad mode, where `state(times)` needs it."""
        if times is None or not np.array_equal(np.broadcast_to(self.t1, times.shape), times):
            _ = self.segment

    def state(self, times: Array) -> Tensor:
        """The state at times (B,) within the step."""
        y1 = self.result.state.y
        at_end = times == self.t1
        if at_end.all():
            return y1
        if self._shared:
            return self.segment(float(times[0]))
        y = self.segment(self._column(times, y1))
        return torch.where(self._column(at_end, y1), y1, y) if at_end.any() else y

    def velocity(self, times: Array) -> Tensor:
        """dy/dt of the dense output at times (B,) within the step."""
        segment = self.segment
        width = np.where(self.t1 == self.t0, 1.0, self.t1 - self.t0)
        # weights are polynomials in θ, of no higher degree than there are velocities: through
        # their Chebyshev coefficients they are differentiated exactly
        degree = len(segment.velocities) + 1
        points = chebyshev.chebpts1(degree + 1)
        table = np.array([segment.weights(theta) for theta in ((1 + points) / 2).tolist()])
        slopes = 2 * chebyshev.chebder(chebyshev.chebfit(points, table, degree))
        values = chebyshev.chebval(2 * (times - self.t0) / width - 1, slopes)  # (m, B)
        velocities = tuple(segment.velocities)
        if self._shared:
            return combine(values[:, 0].tolist(), velocities)
        return combine([self._column(row, velocities[0]) for row in values], velocities)

    @staticmethod
    def _column(row: Array, like: Tensor) -> Tensor:
        return torch.tensor(row).to(like.device).reshape(-1, *(1,) * (like.dim() - 1))
