"""Which zeros of a step are events, and which of these end the solve."""

from __future__ import annotations

import warnings

import numpy as np

from ...errors import EventWarning, caller_level
from .dense_step import Array, DenseStep
from .lanes import BEHIND, Lanes
from .occurrences import Occurrences
from .rounding import NEAR, NEAR_START, is_lost, slope_at_start
from .values import EventValues


class Zeros:
    """The zeros of the events of one solve, step by step.

    Args:
        values: of the events.
        occurrences: where what is found is kept.
        t0, t_end: start and end of the solve (B,).
        started: the values at the start (events, B).
    """

    def __init__(
        self, values: EventValues, occurrences: Occurrences, t0: Array, t_end: Array,
        started: Array,
    ) -> None:  # fmt: skip
        self._values, self._occurrences = values, occurrences
        self._begin, self._end, self._started = t0, t_end, started
        self._directions = np.array([event.direction for event in values.events], int)[:, None]
        self._counts = np.zeros((len(values.events), values.width), int)
        self._warned = False

    def record(
        self, step: DenseStep, points: list[Array], values: list[Array], fresh: Array
    ) -> Array | None:
        """Find and record the zeros between looks (P, B) of every event, of those values.

        fresh: whose first step it is (B,).

        Returns:
            The end of the solve (B,), NaN where there is none; None where there is none at all.
        """
        lanes = Lanes.between(points, values, step.good)
        started = lanes.before[lanes.first]
        lanes.leave_zeros(self._values, step)
        before, after, event_of = lanes.before, lanes.after, lanes.event_of
        directions = self._directions[event_of]
        rising, falling = (before < 0) & (after >= 0), (before > 0) & (after <= 0)
        found = lanes.there & ((rising & (directions >= 0)) | (falling & (directions <= 0)))
        places = lanes.zeros(self._values, step, found)
        times = np.maximum(np.abs(step.t0), np.abs(step.t1))
        length = np.abs(step.t1 - step.t0)
        with np.errstate(divide="ignore"):
            rounding = self._values.eps + np.spacing(times) / length
        at_end = (step.t1 == self._end) & (places >= 1 - NEAR * rounding)
        places = np.where(at_end, 1.0, places)
        lost = found & fresh & (places <= NEAR_START * rounding)
        lost &= ~self._values.may_end_at_start[event_of]
        places = np.where(lost, np.nan, places)
        # what lies behind the start, for zeros there
        first = lanes.first
        leaving = np.sign(np.where(before[first] == 0, after[first], before[first]))
        for lane in np.flatnonzero(lost.any(1)):
            i = event_of[lane]
            leaving[i] = np.where(lost[lane], np.where(rising[lane], 1, -1), leaving[i])
        crossed = np.logical_or.reduceat(lost, first)
        at_start = (started == 0) | crossed
        at_start &= step.good & fresh
        at_start &= (self._directions == 0) | (leaving == self._directions)
        if at_start.any():
            self._warn_of_lost(step, at_start, leaving, crossed, lanes)
        places, end = self._ended(places, lanes.of_event, NEAR * rounding)
        for i, own in enumerate(lanes.of_event):
            if at_start[i].any():
                at_zero = np.where(at_start[i], 0.0, np.nan)
                self._occurrences.keep(i, step, at_zero, is_start=True)
            for lane in own[~np.isnan(places[own]).all(1)]:
                self._occurrences.keep(i, step, places[lane])
        return None if np.isnan(end).all() else step.times(end)

    def _ended(self, places: Array, lanes_of: list[Array], near: Array) -> tuple[Array, Array]:
        """Zeros without those after the end of the solve, and that end (B,), NaN where none is."""
        end = np.full(places.shape[1], np.inf)
        hits = ~np.isnan(places)
        for event, own, count in zip(self._values.events, lanes_of, self._counts, strict=True):
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
        self, step: DenseStep, at_start: Array, leaving: Array, crossed: Array, lanes: Lanes
    ) -> None:
        """Warn, once, of a terminal event whose zero at the start should have ended the solve.

        crossed: whether g crosses zero within rounding of the start; like the others (events, B).
        """
        # of every event the first look behind the start, and its value
        high, after = lanes.high[lanes.first], lanes.after[lanes.first]
        for i, event in enumerate(self._values.events):
            if not event.terminal or self._values.may_end_at_start[i, 0] or self._warned:
                continue
            if not at_start[i].any():
                continue
            part = high[i : i + 1] * BEHIND
            value = self._values.at(step, [i], part, at_start[i : i + 1])[0]
            slope = slope_at_start(BEHIND, self._started[i], value, after[i])
            lost = at_start[i] & is_lost(event.direction, leaving[i], crossed[i], slope, after[i])
            if not lost.any():
                continue
            sample = int(np.flatnonzero(lost)[0])
            of = "" if self._values.samples is None else f" of sample {sample}"
            self._warned = True
            warnings.warn(
                f"the terminal event events[{i}] is zero at the start, t={self._begin[sample]:.9g}"
                f"{of}, and leaves zero in its direction, direction={event.direction}: a zero at "
                "the start ends nothing, so the solve goes on past it. Where it was restarted at "
                "this event, the next one comes within the rounding of t (a ball that bounces ever "
                "shorter): end the chain of solves before, or change the state so that g leaves "
                "zero the other way",
                EventWarning,
                stacklevel=caller_level(),
            )
