"""Every sample of a batch on steps of its own: times, sizes, acceptance and end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .control import StepController, Tolerance, first_step
from .dense import Segment
from .host import worst
from .interpolation import Anchor
from .methods import Method, StagesMethod
from .step import SamplesStep, State, Stepper, StepResult
from .steps import Limits, Status, Steps

Array = np.ndarray


def check_method(method: Method) -> None:
    """Refuse a method that cannot give every sample steps of its own.

    Raises:
        ValueError: it is not of the stages plan, or has no error estimate.
    """
    if not isinstance(method, StagesMethod) or method.error_order is None:
        raise ValueError(
            f"method {method.name!r} cannot give every sample steps of its own (batch_dims=1): "
            "take an adaptive Runge-Kutta method such as 'dopri5', 'tsit5' or 'dopri8', or "
            "batch_dims=0 for steps that the batch shares"
        )


def per_sample_tolerance(value: Any, y0: Tensor) -> Any:
    """A tolerance of shape (B,) as one that broadcasts against the state (B, ...)."""
    if isinstance(value, Tensor) and value.shape == y0.shape[:1]:
        return value.reshape(-1, *(1,) * (y0.dim() - 1)).to(y0.device)
    return value


def sample_times(t: Any, samples: int) -> Array:
    """Requested times (T, B) of T for all samples, or (T, B), one column a sample.

    Raises:
        TypeError, ValueError: not real, not finite, or not strictly monotone for every sample; or
            samples that run in different directions.
    """
    if isinstance(t, Tensor):
        if t.requires_grad:
            raise ValueError("t requires grad: with batch_dims=1 there are no gradients in t")
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
    if not np.isfinite(times).all():
        raise ValueError(f"t[{np.argwhere(~np.isfinite(times))[0].tolist()}] is not finite")
    steps = np.diff(times, axis=0)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(
            "t must be strictly increasing for all samples, or strictly decreasing for all"
        )
    return times


class PerSampleSteps(Steps):
    """Steps that the error estimate chooses for each sample alone: one host synchronisation a try.

    All samples are tried together: one that has ended stays where it is, at a step of size 0. A
    result says in `accepted` (bool (B,)) whose step was good; its state holds the new states of
    those, and the old ones of the others.

    Attributes:
        statuses, messages: one a sample. counts, rejects: accepted and rejected steps (B,).
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
        self.statuses = [Status.SUCCESS] * samples
        self.messages = [f"reached t={end:.9g}" for end in self.t_end.tolist()]
        self.active = np.ones(samples, bool)
        self._previous, self._after_reject = np.ones(samples), np.zeros(samples, bool)
        self._finite = np.ones(samples, bool)
        self._size: Array | None = None

    def _times(self, t: Array, like: Tensor) -> Any:
        """Per-sample times as a tensor that broadcasts against the state."""
        return torch.tensor(t).to(like.device).reshape(self._column)

    def _fail(self, which: Array, status: Status, why: Callable[[int], str]) -> None:
        for sample in np.flatnonzero(which & self.active).tolist():
            self.statuses[sample] = status
            self.messages[sample] = f"sample {sample}: {why(sample)}"
        self.active &= ~which

    def _begin(self) -> None:
        state = self.state
        start = self.stepper.start(state)
        flat = start.v.detach().reshape(len(self.t), -1)
        bad = np.array(worst(~torch.isfinite(flat).all(1)), bool)
        self._fail(
            bad,
            Status.NON_FINITE,
            lambda i: f"func is not finite at the start, t={self.t[i]:.9g}",
        )
        self.state = replace(state, anchor=start)
        if self.limits.initial_step is not None:
            size = np.full(len(self.t), self.limits.initial_step)
        else:
            size = np.asarray(
                first_step(
                    lambda t, y: self.stepper.velocity(t, y)[0], self.t, state.y, start.v,
                    self.sign, np.abs(self.t_end - self.t), self.stepper.method.error_order or 1,
                    self.tolerance, lambda x: self._times(x, state.y),
                )
            )  # fmt: skip
        self._size = np.clip(size, self.limits.min_step, self.limits.max_step)

    def _check(self, size: Array) -> None:
        limits, t = self.limits, self.t
        self._fail(
            self.counts + self.rejects >= limits.max_steps,
            Status.MAX_STEPS,
            lambda i: (
                f"max_steps={limits.max_steps} steps were used up at t={t[i]:.9g}, step size "
                f"{size[i]:.3g}: raise max_steps, loosen the tolerances, or the problem is stiff"
            ),
        )
        least = np.maximum(limits.min_step, 16 * np.spacing(np.abs(t)))
        short = size < least
        self._fail(
            short & ~self._finite,
            Status.NON_FINITE,
            lambda i: (
                f"func or the solution is not finite just past t={t[i]:.9g}, however short the "
                f"step ({size[i]:.3g})"
            ),
        )
        self._fail(
            short,
            Status.STEP_COLLAPSE,
            lambda i: (
                f"the step size fell to {size[i]:.3g}, below {least[i]:.3g}, at t={t[i]:.9g}: the "
                "solution may blow up or jump there, or the tolerances ask for too much"
            ),
        )

    def __next__(self) -> StepResult:
        if self._size is None:
            self._begin()
        assert self._size is not None
        self._share()
        limits = self.limits
        while True:
            self.active &= self.t != self.t_end
            self._check(self._size)
            if not self.active.any():
                raise self._finish()
            state, left = self.state, np.abs(self.t_end - self.t)
            lands = (self._size >= left) | ((self._size >= 0.99 * left) & (left <= limits.max_step))
            t1 = np.where(lands, self.t_end, self.t + self.sign * self._size)
            t1 = np.where(self.active, t1, self.t)
            size = np.abs(t1 - self.t)
            result = self.stepper.step(state, self._times(t1, state.y))
            assert result.error_order is not None
            with torch.no_grad():
                # the one host synchronisation of a try
                ratio = np.array(worst(result.error_ratio(self.tolerance)))
            self._finite = np.isfinite(ratio)
            good = self.active & self._finite & (ratio <= 1)
            if torch.is_grad_enabled() and not self._finite[self.active].all():
                # a step that was not finite would poison the gradients of those it is joined with
                t1 = np.where(good, t1, self.t)
                result = self.stepper.step(state, self._times(t1, state.y))
            factor = self._factors(ratio, good, result.error_order or 1)
            self._size = np.where(
                self.active, np.clip(size * factor, limits.min_step, limits.max_step), self._size
            )
            self._after_reject = np.where(self.active, ~good, self._after_reject)
            self._previous = np.where(good, np.fmax(ratio, 1e-4), self._previous)
            self.counts += good
            self.rejects += self.active & ~good
            self.t = np.where(good, t1, self.t)
            result.samples = SamplesStep(good, self.t.copy())
            if not good.all():
                result.state = self._joined(result, state, good)
            if good.any():
                break
            self.state = result.state
        self._take(result)
        return result

    def _factors(self, ratio: Array, good: Array, order: int) -> Array:
        control = self.controller
        clipped = np.fmax(np.where(self._finite, ratio, 1.0), 1e-10)
        grown = np.clip(
            control.growth(clipped, self._previous, order), control.min_factor, control.max_factor
        )
        grown = np.where(self._after_reject, np.fmin(grown, 1.0), grown)
        shrunk = np.clip(control.safety * clipped ** (-1 / order), control.min_factor, 0.9)
        shrunk = np.where(self._finite, shrunk, control.min_factor)
        return np.asarray(np.where(good, grown, shrunk))

    def _joined(self, result: StepResult, state: State, good: Array) -> State:
        """The state after a try: new where a sample's step was good, else the old one."""
        mask = self._times(good, state.y)
        y = torch.where(mask, result.state.y, state.y)
        t: Any = self._times(self.t, state.y)
        end, start = result.state.anchor, state.anchor or result.start
        anchor = None
        if end is not None and start is not None:
            anchor = Anchor(t, y, torch.where(mask, end.v, start.v))
        elif start is not None and not good.any():
            anchor = start
        return State(t, y, anchor)

    def _finish(self) -> StopIteration:
        failed = [i for i, status in enumerate(self.statuses) if status is not Status.SUCCESS]
        self.accepted, self.rejected = int(self.counts.sum()), int(self.rejects.sum())
        if not failed:
            return self._end(Status.SUCCESS, "every sample reached its end")
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

    steps: tuple[()] = ()

    def check_finite(self) -> str | None:
        """Nothing to say: the samples' own statuses do."""
        return None

    def take(self, result: StepResult, stop: Any = None) -> None:
        """Keep what an accepted step covers."""
        assert result.samples is not None
        good, t = result.samples.accepted, result.samples.t
        last = len(self.times) - 1
        column = (-1, *(1,) * (result.state.y.dim() - 1))
        device = self.states.device
        segment: Segment | None = None
        if self.segments is not None:
            segment = result.segment()
            self.segments.append((segment, np.where(good, self._t, np.nan), t))
        while True:
            wanted = self.times[np.minimum(self._next, last), np.arange(len(t))]
            due = good & (self._next <= last) & (self.sign * wanted <= self.sign * t)
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
        self._t = t


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
