"""Every sample of a batch on steps of its own: times, sizes, acceptance and end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..control.control import StepController, Tolerance, first_step, worth_a_sweep
from ..control.lookout import ABOUT, SamplesLookout
from ..control.time_rounding import TimeRounding
from ..equations.clock import differentiated
from ..equations.probing import check_samples
from ..host import read_on_host
from ..observe.events.event import Stop
from ..plans.interpolants import Anchor
from ..plans.method import Method, Stepper
from ..plans.result import SamplesStep, StepResult
from ..plans.segment import Segment
from ..plans.state import Behind, State, Unfinished
from .steps import (
    NEAR,
    Ended,
    Limits,
    Status,
    Steps,
    collapsed,
    endless,
    not_finite_past,
    steps_used_up,
)

Array = np.ndarray


def check_method(method: Method) -> None:
    """Refuse a method that cannot give every sample steps of its own.

    Raises:
        ValueError: it looks back on the anchors of earlier steps, or has no error estimate.
    """
    if method.looks_back:
        why = "looks back on the anchors of earlier steps, whose times all samples share"
    elif method.error_order is None:
        why = "has no error estimate to choose them by"
    else:
        return
    raise ValueError(
        f"method {method.name!r} cannot give every sample steps of its own (batch_dims=1): it "
        f"{why}. Take an adaptive Runge-Kutta method such as 'dopri5', 'tsit5' or 'dopri8', "
        "adaptive collocation such as 'gauss' or 'lobatto', or batch_dims=0 for steps that the "
        "batch shares"
    )


def per_sample_tolerance(value: Any, y0: Tensor) -> Any:
    """A tolerance of shape (B,) as one that broadcasts against the state (B, ...)."""
    if isinstance(value, Tensor) and value.shape == y0.shape[:1]:
        return value.reshape(-1, *(1,) * (y0.dim() - 1)).to(y0.device)
    return value


def sample_times(t: Any, samples: int, open_ended: bool = False) -> Array:
    """Requested times (T, B) of T for all samples, or (T, B), one column a sample.

    open_ended: the last of them may be infinite.

    Raises:
        TypeError, ValueError: not real, not finite, or not strictly monotone for every sample; or
            samples that run in different directions.
    """
    if isinstance(t, Tensor):
        if differentiated(t):
            raise ValueError("t requires grad: with batch_dims=1 there are no gradients in t")
        if t.is_complex():
            raise TypeError(f"t must be real, got dtype {t.dtype}")
        t = t.detach().cpu().to(torch.float64).numpy()
    try:
        times = np.array(t, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"t must be a sequence of real times, got {t!r}") from error
    if times.ndim == 1:
        times = np.repeat(times[:, None], samples, axis=1)
    if times.ndim != 2 or times.shape[1] != samples or len(times) < 2:
        raise ValueError(
            f"t has shape {times.shape}; for {samples} samples it must be (T,) or (T, {samples}) "
            "with T >= 2"
        )
    finite = np.isfinite(times)
    if open_ended:
        finite[-1] |= np.isinf(times[-1])
    if not finite.all():
        raise ValueError(f"t[{np.argwhere(~finite)[0].tolist()}] is not finite")
    steps = np.diff(times, axis=0)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            "t must be strictly increasing for all samples, or strictly decreasing for all"
        )
    return times


def _strictest_of_each(tolerance: Tolerance, y0: Tensor) -> float | Array:
    """The least relative tolerance of every sample (B,), or of all where they have none apart."""
    rtol = tolerance.rtol
    if not isinstance(rtol, Tensor) or rtol.dim() < y0.dim() or len(rtol) != len(y0):
        return tolerance.strictest
    return -np.array(read_on_host((-rtol).reshape(len(y0), -1).amax(1)))


class PerSampleSteps(Steps):
    """Steps that the error estimate chooses for each sample alone: one host wait a trial.

    All samples are tried together: one that has ended stays where it is, at a step of size 0. A
    result says in `accepted` (bool (B,)) whose step was good; its state holds the new states of
    those, and the old ones of the others.

    A further sweep is a trial of its own: samples whose estimate wants one take it in the next,
    in which the others take their next step. Where a sample has not finished its first interval,
    which has more sweeps, those sweeps change this sample alone.

    Attributes:
        counts, rejects: accepted and rejected steps (B,).
    """

    def __init__(
        self,
        stepper: Stepper,
        y0: Tensor,
        times: Array,
        tolerance: Tolerance,
        controller: StepController,
        limits: Limits,
    ) -> None:
        self._column = (-1, *(1,) * (y0.dim() - 1))
        self.t, self.t_end = times[0].copy(), times[-1]
        super().__init__(stepper, State(self._times(self.t, y0), y0))
        self.tolerance, self.controller, self.limits = tolerance, controller, limits
        self.sign = np.sign(self.t_end[0] - self.t[0])
        samples = len(self.t)
        self.counts, self.rejects = np.zeros(samples, int), np.zeros(samples, int)
        self.statuses: list[Status] = [Status.SUCCESS] * samples
        self.messages: list[str] = [f"reached t={end:.9g}" for end in self.t_end.tolist()]
        self.active = np.ones(samples, bool)
        self._previous, self._calm = np.ones(samples), np.full(samples, 10)
        self._not_finite_at = np.full(samples, np.inf)
        self._size: Array | None = None
        self._lookout = SamplesLookout(
            stepper.method.widest_gap, self.t, self.t_end, _strictest_of_each(tolerance, y0)
        )
        self._again, self._further = np.zeros(samples, bool), np.zeros(samples, int)
        self._ratio, self._judged = np.ones(samples), np.ones(samples)
        self._swept: Tensor | None = None
        self._rounding = TimeRounding(stepper.method, stepper.velocity, tolerance, samples)

    def _times(self, t: Array, like: Tensor) -> Any:
        """Per-sample times as a tensor that broadcasts against the state."""
        return torch.tensor(t).to(like.device, non_blocking=True).reshape(self._column)

    def stop(self, t: Any) -> None:
        """End samples within the last step, at times t (B,), NaN for those that go on."""
        ended = ~np.isnan(t)
        for sample in np.flatnonzero(ended).tolist():
            self.statuses[sample] = Status.EVENT
            self.messages[sample] = f"a terminal event ended the solve at t={t[sample]:.9g}"
        self.active &= ~ended

    def interrupt(self, message: str) -> None:
        """Note that an exception ended the solve for all that were still going."""
        for sample in np.flatnonzero(self.active & (self.t != self.t_end)).tolist():
            self.statuses[sample] = Status.INTERRUPTED
            self.messages[sample] = f"sample {sample}: {message}"
        self.accepted, self.rejected = int(self.counts.sum()), int(self.rejects.sum())
        super().interrupt(message)

    def _fail(self, which: Array, status: Status, why: Callable[[int], str]) -> None:
        for sample in np.flatnonzero(which & self.active).tolist():
            self.statuses[sample] = status
            self.messages[sample] = f"sample {sample}: {why(sample)}"
        self.active &= ~which

    def _begin(self) -> None:
        state = self.state
        start = self.stepper.start(state)
        flat = start.v.detach().reshape(len(self.t), -1)
        bad = np.array(read_on_host(~torch.isfinite(flat).all(1)), bool)
        self._fail(
            bad,
            Status.NON_FINITE,
            lambda i: f"func is not finite at the start, t={self.t[i]:.9g}",
        )
        self.state = replace(state, known=start)
        check_samples(self.stepper.velocity, self.t, self.t_end, state.y, self.tolerance.strictest)
        if self.limits.initial_step is not None:
            size = np.full(len(self.t), self.limits.initial_step)
        else:
            size = np.asarray(
                first_step(
                    lambda t, y: self.stepper.velocity(t, y)[0], self.t, state.y, start.v,
                    self.sign, np.abs(self.t_end - self.t), self.stepper.method.error_order or 1,
                    self.tolerance, lambda x: self._times(x, state.y), self._lookout.longest_leap,
                )
            )  # fmt: skip
            size = np.minimum(size, self._lookout.longest)
            size = np.maximum(size, 16 * np.spacing(np.abs(self.t)))
        self._size = np.clip(size, self.limits.min_step, self.limits.max_step)
        rounding = self._rounding
        amplifies = rounding.amplifies(self.t)
        if amplifies.any():
            self._measure_rounding(self._size, amplifies)
            rounding.read(read_on_host(torch.stack([*rounding.pending])))
            self.stepper.corrects = rounding.corrects

    def _check(self, size: Array) -> None:
        limits, t, dtype = self.limits, self.t, self.stepper.velocity.layout.dtype
        self._fail(
            self.counts + self.rejects >= limits.max_steps,
            Status.MAX_STEPS,
            lambda i: steps_used_up(limits.max_steps, t[i], size[i]),
        )
        with np.errstate(over="ignore"):
            endless_ones = np.isinf(self.t_end) & np.isinf(np.abs(t) + size)
        self._fail(endless_ones, Status.NON_FINITE, lambda i: endless(t[i]))
        least = np.maximum(limits.min_step, 16 * np.spacing(np.abs(t)))
        short = size < least
        self._fail(
            short & (np.abs(self._not_finite_at - t) <= NEAR * least),
            Status.NON_FINITE,
            lambda i: not_finite_past(t[i], size[i]),
        )
        self._fail(short, Status.STEP_COLLAPSE, lambda i: collapsed(t[i], size[i], least[i], dtype))

    def __next__(self) -> StepResult:
        if self._size is None:
            self._begin()
        assert self._size is not None
        while True:
            self.active &= self.t != self.t_end
            self._check(self._size)
            if not self.active.any():
                raise self._finish()
            first, again = self.counts == 0, self._again & self.active
            waiting = Unfinished(self.active, first & self.active, again, self._swept)
            state = replace(self.state, unfinished=waiting)
            t1, lands = self._aim()
            size = np.abs(t1 - self.t)
            result = self.stepper.step(state, self._times(t1, state.y))
            leaps = bool((self.active & (size >= ABOUT * self._lookout.longest_leap)).any())
            ratio, missed = self._read(result, t1, leaps)
            self._rounding.tell()
            order = result.error_order
            refused = (ratio <= 1) & ~(missed <= 1)
            if refused.any():
                ratio = np.where(refused, missed, ratio)
                order = np.where(refused, self.stepper.method.dense_order, order)
            finite = np.isfinite(ratio)
            self._not_finite_at = np.where(self.active & ~finite, t1, self._not_finite_at)
            good = self.active & finite & (ratio <= 1)
            more = self._wants_a_sweep(result, ratio, again)
            if torch.is_grad_enabled() and not finite[self.active].all():
                # a step that was not finite would poison the gradients of those it is joined with
                t1 = np.where(good | more, t1, self.t)
                result = self.stepper.step(state, self._times(t1, state.y))
            self._judged = np.where(again, self._judged, ratio)
            self._swept, self._ratio = result.swept, ratio
            done = self.active & ~more
            due = self._rounding.due(self.t, size, done)
            if np.any(due):
                self._measure_rounding(size, due)
            self._choose(t1, size, ratio, order, good, done, first, lands)
            self.counts += good
            self.rejects += done & ~good
            self.t = np.where(good, t1, self.t)
            result.samples = SamplesStep(good, self.t.copy())
            if not good.all():
                result.state = self._joined(result, state, good)
            if good.any():
                break
            self.state = result.state
        self._take(result)
        return result

    def _choose(
        self, t1: Array, size: Array, ratio: Array, order: Any, good: Array, done: Array,
        first: Array, lands: Array,
    ) -> None:  # fmt: skip
        """Choose the next sizes of the samples whose trial is done."""
        # steps are chosen such that the least sweeps suffice, of which those of a first
        # interval, from a constant guess, say nothing
        judged = np.where(good & ~first, self._judged, ratio)
        factor = self._factors(judged, good, order)
        with np.errstate(over="ignore"):  # infinite where there is no end to come to
            planned = size * factor
        seen = self._lookout.bound(t1, size, planned, ratio, order, good & ~lands)
        least = 16 * np.spacing(np.abs(t1))  # where it was good enough, no shorter step is
        bounded = np.clip(np.maximum(seen, least), self.limits.min_step, self.limits.max_step)
        # that a step must be shorter than min_step is for `_check` to see
        sizes: Array = np.where(good, bounded, planned)
        assert self._size is not None
        self._size = np.where(done, sizes, self._size)
        self._calm = np.where(good, self._calm + 1, np.where(done, 0, self._calm))
        self._previous = np.where(good, np.fmax(judged, 1e-4), self._previous)

    def _measure_rounding(self, size: Array, due: Array) -> None:
        y = self.state.y
        self._rounding.measure(self.t, y, size, self.sign, due, lambda x: self._times(x, y))

    def _read(self, result: StepResult, t1: Array, leaps: bool) -> tuple[Array, Array]:
        """The errors over the tolerance (B,), and what dense output misses over what it may: the
        one host synchronisation of a trial.

        leaps: some step is so long that what it moved the state by is wanted as well.
        """
        y0, y1 = result.previous.y, result.state.y
        with torch.no_grad():
            wanted = [result.ratios(self.tolerance)]
            if leaps:
                wanted.append(self.tolerance.ratio(y1 - y0, y0, y1))
        wanted += self._rounding.pending
        inside: Any = False
        if result.make_misses is not None and self.wants_dense is not None:
            inside = self.active & self.wants_dense(self.t, t1)
        if np.any(inside):
            wanted.append(result.dense_ratio(self.tolerance))
        dtype = wanted[0].dtype
        ratio, *numbers = np.array(
            read_on_host(torch.stack([x.detach().to(dtype) for x in wanted]))
        )
        missed = np.where(inside, numbers.pop(), 0.0) if np.any(inside) else np.zeros(len(ratio))
        others = self._rounding.read(numbers)
        self.stepper.corrects = self._rounding.corrects
        if leaps:
            self._lookout.moved = others[0]
        return ratio, missed

    def _aim(self) -> tuple[Array, Array]:
        """The ends (B,) of the next trials, of samples that have ended where they are; and whose
        are their last."""
        assert self._size is not None
        limits = self.limits
        left = np.abs(self.t_end - self.t)
        lands = (self._size >= left) | ((self._size >= 0.99 * left) & (left <= limits.max_step))
        t1 = np.where(lands, self.t_end, self.t + self.sign * self._size)
        return np.where(self.active, t1, self.t), lands

    def _wants_a_sweep(self, result: StepResult, ratio: Array, again: Array) -> Array:
        """The samples whose interval gets one sweep more in the next trial, bool (B,); again: those
        that had one in this."""
        self._further = np.where(again, self._further, 0)
        if np.any(result.sweeps_left):
            with np.errstate(over="ignore"):
                before = np.where(again, self._ratio, 10 * ratio)
                left = result.sweeps_left - self._further
                self._again = self.active & worth_a_sweep(ratio, before, left)
            self._further += self._again
            self.refined += int(self._again.sum())
        return self._again

    def _factors(self, ratio: Array, good: Array, order: Any) -> Array:
        control, finite = self.controller, np.isfinite(ratio)
        clipped = np.fmax(np.where(finite, ratio, 1.0), 1e-10)
        grown = np.clip(
            control.growth(clipped, self._previous, self._calm, order),
            control.min_factor, control.max_factor,
        )  # fmt: skip
        grown = np.where(self._calm == 0, np.fmin(grown, 1.0), grown)
        shrunk = np.clip(control.shrinkage(clipped, order), control.min_factor, 0.9)
        shrunk = np.where(finite, shrunk, control.min_factor)
        return np.asarray(np.where(good, grown, shrunk))

    def _joined(self, result: StepResult, state: State, good: Array) -> State:
        """The state after a trial: new where a sample's step was good, else the old one."""
        mask = self._times(good, state.y)
        y = torch.where(mask, result.state.y, state.y)
        t: Any = self._times(self.t, state.y)
        end, start = result.state.anchor, state.anchor or result.start
        anchor = None
        if end is not None and start is not None:
            anchor = Anchor(t, y, torch.where(mask, end.v, start.v))
        elif start is not None and not good.any():
            anchor = start
        last = self._last(result, state, mask) if good.any() else state.last
        return State(t, y, anchor, last=last)

    def _last(self, result: StepResult, state: State, mask: Tensor) -> Behind | None:
        """The interval that led each sample to where it is now."""
        new, old = result.state.last, state.last
        if new is None:
            return None
        if old is None:  # what the guess was made of
            assert result.start is not None
            velocities = result.start.v.expand_as(new.velocities)
            old = Behind(state.t, state.t, velocities)
        t0, t1 = (
            torch.where(mask, torch.as_tensor(a), torch.as_tensor(b))
            for a, b in ((new.t0, old.t0), (new.t1, old.t1))
        )
        return Behind(t0, t1, torch.where(mask, new.velocities, old.velocities))

    def _finish(self) -> Ended:
        good = (Status.SUCCESS, Status.EVENT)
        failed = [i for i, status in enumerate(self.statuses) if status not in good]
        self.accepted, self.rejected = int(self.counts.sum()), int(self.rejects.sum())
        if not failed:
            if Status.EVENT not in self.statuses:
                return self._end(Status.SUCCESS, "every sample reached its end")
            if Status.SUCCESS not in self.statuses:
                return self._end(Status.EVENT, "a terminal event ended every sample")
            return self._end(
                Status.SUCCESS, "every sample reached its end or was ended by a terminal event"
            )
        shown = "; ".join(self.messages[i] for i in failed[:3])
        return self._end(
            self.statuses[failed[0]],
            f"{len(failed)} of {len(self.statuses)} samples did not reach their end: {shown}"
            + ("; …" if len(failed) > 3 else ""),
        )


class PerSampleCollector:
    """States of every sample at its requested times; NaN where it did not get there.

    times: (T, B). `states` is (T, B, *rest). `segments`: with dense output, every result's segment
    with the samples' ends and who accepted.
    """

    def __init__(self, times: Array, sign: float, y0: Tensor, dense: bool) -> None:
        self.times, self.sign = times, sign
        self.reached_times = times
        self.states = torch.full(
            (len(times), *y0.shape), torch.nan, dtype=y0.dtype, device=y0.device
        )
        self.states = torch.cat((y0.unsqueeze(0), self.states[1:]))
        self._next = np.ones(times.shape[1], int)
        self.segments: list[tuple[Segment, Array, Array]] | None = [] if dense else None
        self._t = times[0].copy()
        self._stopped: tuple[Array, Tensor] | None = None  # times, NaN without an event, and states

    steps: tuple[()] = ()

    def reached(self, state: State, stop: Stop | None) -> tuple[Any, Tensor]:
        """How far every sample came, (B,) float64, and its state there."""
        if self._stopped is None:
            return torch.tensor(self._t), state.y
        t, y = self._stopped
        ended = torch.tensor(~np.isnan(t)).to(y.device).reshape(-1, *(1,) * (y.dim() - 1))
        return torch.tensor(np.where(np.isnan(t), self._t, t)), torch.where(ended, y, state.y)

    def truncate(self) -> None:
        """Nothing: a step that was interrupted while it was kept leaves nothing half."""

    def wants_dense(self, t0: Array, t1: Array) -> Array:
        """The samples whose steps between these times (B,) would be looked at inside: bool (B,)."""
        if self.segments is not None:
            return np.ones(len(t0), bool)
        last = len(self.times) - 1
        wanted = self.times[np.minimum(self._next, last), np.arange(len(t0))]
        inside: Array = (self._next <= last) & (self.sign * wanted < self.sign * t1)
        return inside

    @property
    def t(self) -> Tensor:
        """The requested times."""
        return torch.as_tensor(self.reached_times, dtype=torch.float64)

    @property
    def y(self) -> Tensor:
        """The states at the requested times, in one tensor."""
        return self.states

    def check_finite(self) -> str | None:
        """Nothing to say: the samples' own statuses do."""
        return None

    def take(self, result: StepResult, ended: Stop | None = None) -> None:
        """Keep what an accepted step covers, up to where an event ended a sample."""
        assert result.samples is not None
        good, t = result.samples.accepted, result.samples.t
        reached = t if ended is None else np.where(np.isnan(ended.t), t, ended.t)
        last = len(self.times) - 1
        column = (-1, *(1,) * (result.state.y.dim() - 1))
        device = self.states.device
        segment: Segment | None = None
        if self.segments is not None:
            segment = result.segment()
            self.segments.append((segment, np.where(good, self._t, np.nan), reached))
        while True:
            wanted = self.times[np.minimum(self._next, last), np.arange(len(t))]
            due = good & (self._next <= last) & (self.sign * wanted <= self.sign * reached)
            if not due.any():
                break
            if (wanted == t)[due].all():
                values = result.state.y
            else:
                segment = segment or result.segment()
                when = torch.tensor(np.where(due, wanted, t)).to(device).reshape(column)
                at_end = torch.tensor(wanted == t).to(device).reshape(column)
                values = torch.where(at_end, result.state.y, segment(when))
            rows = np.flatnonzero(due)
            index = torch.tensor(self._next[rows]).to(device), torch.tensor(rows).to(device)
            self.states = self.states.index_put(index, values[index[1]])
            self._next[due] += 1
        if ended is not None and not np.isnan(ended.t).all():
            segment = segment or result.segment()
            when = torch.tensor(np.where(np.isnan(ended.t), t, ended.t)).to(device).reshape(column)
            times, states = self._stopped or (np.full(len(t), np.nan), result.state.y)
            now = torch.tensor(~np.isnan(ended.t)).to(device).reshape(column)
            states = torch.where(now, segment(when), states)
            self._stopped = np.where(np.isnan(ended.t), times, ended.t), states
        self._t = t.copy()


def dense_states(segments: Sequence[tuple[Segment, Array, Array]], times: Array) -> Tensor:
    """Every sample at times (T, B) of its own: (T, B, *rest).

    Raises:
        ValueError: a time that no accepted step of its sample covers.
    """
    if not segments:
        raise ValueError("no step was accepted: there is nothing to interpolate")
    rows: list[Tensor] = []
    y0 = segments[0][0].y0
    column = (-1, *(1,) * (y0.dim() - 1))
    starts = np.array([start for _, start, _ in segments])
    ends = np.array([end for _, _, end in segments])
    moved = starts != ends
    sign = np.sign(np.nansum(ends - starts))
    for row in times:
        covers = moved & (sign * starts <= sign * row) & (sign * row <= sign * ends)
        missing = np.flatnonzero(~covers.any(0))
        if missing.size:
            i = int(missing[0])
            raise ValueError(f"t={row[i]} lies outside the solved span of sample {i}")
        which = covers.argmax(0)
        value = torch.zeros_like(y0)
        for k in np.unique(which).tolist():
            mask = which == k
            inside = np.where(mask, row, np.nan_to_num(starts[k], nan=0.0))
            states = segments[k][0](torch.tensor(inside).to(y0.device).reshape(column))
            value = torch.where(torch.tensor(mask).to(y0.device).reshape(column), states, value)
        rows.append(value)
    return torch.stack(rows)
