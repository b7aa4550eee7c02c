"""Where events look at an accepted step, and what they see there."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from torch import Tensor

from .dense_step import Array, DenseStep
from .hidden_zeros import Doubts, chebyshev_points, doubts
from .plan import LEAST_PARTS, LookPlan, parts_for
from .rounding import crosses, ends_at_zero, roundings
from .values import EventValues


class Looks:
    """Looks of the events of one solve, step by step.

    Args:
        values: of the events.
        t0, t_end: start and end of the solve (B,).
    """

    def __init__(self, values: EventValues, t0: Array, t_end: Array) -> None:
        self._values, self._begin, self._end = values, t0, t_end
        self._parts = [event.subintervals for event in values.events]
        self._plans: dict[int, LookPlan] = {}
        self._steps = 0

    def start(self, y0: Tensor) -> Array:
        """The values at the start (events, B), as they are.

        Raises:
            TypeError, ValueError: a function that gives no number, or NaN, or mixes the samples.
        """
        values, t0 = self._values, self._begin
        count = len(values.events)
        with torch.no_grad():
            self._size = y0.detach().abs()
            values.kept = (y0,)
            found = [values.value(i, values.moment(t0), y0) for i in range(count)]
            found += values.moved(t0, y0, self._size, roundings(0), np.abs(t0))
            numbers = values.numbers(found)
        own, moved = numbers[:count], numbers[count:]
        values.refuse_nan(own, np.ones(values.width, bool), lambda _: (t0, y0))
        if values.samples is not None:
            values.refuse_mixing(t0, self._end, y0)
        near = crosses(own, moved.reshape(2, *own.shape)) & ~values.may_end_at_start
        self._g = np.where(near, 0.0, own)
        return own

    def look(self, step: DenseStep) -> tuple[list[Array], list[Array]] | None:
        """Looks (P, B) of every event at a step and its values there; None where no sign changes,
        and none is in doubt."""
        state = step.result.state.y
        self._steps += 1
        self._values.kept = (step.result.previous.y, state)
        with torch.no_grad():
            self._size = torch.maximum(self._size, state.detach().abs())
        plan = self._plan(step)
        after, started = self._sampled(step, plan), self._g
        before = np.concatenate((after[:1], after[:-1]))
        before[plan.first] = started
        good = step.good
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
        width = self._values.width
        points = [np.repeat(own[:, None], width, 1) for own in plan.points]
        values = [
            np.concatenate((started[i : i + 1], after[first : last + 1]))
            for i, (first, last) in enumerate(zip(plan.first, plan.last, strict=True))
        ]
        if in_doubt is not None:
            for k, i in enumerate(plan.automatic.tolist()):
                own = slice(k * width, (k + 1) * width)
                points[i], values[i] = self._closer(step, i, columns[:, own])
        return points, values

    def _plan(self, step: DenseStep) -> LookPlan:
        automatic = parts_for(step.degree) if None in self._parts else LEAST_PARTS
        if automatic not in self._plans:
            self._plans[automatic] = LookPlan(self._parts, automatic)
        return self._plans[automatic]

    def _sampled(self, step: DenseStep, plan: LookPlan) -> Array:
        """Values at the ends of the plan's lanes, (lanes, B), in one host synchronisation."""
        values = self._values
        ends = step.good & (step.t1 == self._end)
        if plan.inner:
            _ = step.segment  # in the caller's grad mode
        with torch.no_grad():
            y1 = step.result.state.y
            states = chain(step.states(plan.inner) if plan.inner else (), (y1,))
            times = values.times(step.times(plan.thetas))
            found = [
                values.value(i, t, state)
                for t, state, events in zip(times, states, plan.events_at, strict=True)
                for i in events
            ]
            count = len(found)
            if ends.any():
                size = self._size
                if plan.inner:
                    size = torch.maximum(size, step.largest_move())
                farthest = np.maximum(np.abs(self._begin), np.abs(step.t1))
                found += values.moved(step.t1, y1, size, roundings(self._steps), farthest)
            numbers = values.numbers(found)
        after = numbers[:count][plan.order]
        if not np.isfinite(after).all():
            after = self._held(after, step, plan)
        if ends.any():
            value, alone = after[plan.last], (plan.first == plan.last)[:, None]
            before = np.where(alone, self._g, after[plan.last - 1])
            largest = np.maximum(np.abs(self._g), np.maximum.reduceat(np.abs(after), plan.first))
            moved = numbers[count:].reshape(2, *value.shape)
            zero = ends & ends_at_zero(value, before, moved, largest)
            after[plan.last] = np.where(zero, 0.0, value)
        return after

    def _held(self, after: Array, step: DenseStep, plan: LookPlan) -> Array:
        """Values of which those of a state that is not finite, within the step, are those of the
        look before: dense output may be infinite where the ends of a step are not.

        Raises:
            ValueError: NaN of a finite state.
        """
        width = self._values.width
        ends = np.concatenate([points[1:] for points in plan.points])
        events = np.repeat(np.arange(len(plan.points)), [len(p) - 1 for p in plan.points])

        def at(lane: int) -> tuple[Array, Tensor]:
            theta = np.full(width, ends[lane])
            return step.times(theta), step.state(theta)

        self._values.refuse_nan(after, step.good, at, events.tolist())
        known = after.copy()
        for lane in np.flatnonzero(~np.isfinite(after).all(1) & (ends < 1)).tolist():
            state = at(lane)[1].detach().reshape(width, -1)
            finite = np.array(torch.isfinite(state).all(1).tolist())
            before = self._g[events[lane]] if lane in plan.first else known[lane - 1]
            known[lane] = np.where(finite, known[lane], before)
        return known

    def _closer(self, step: DenseStep, i: int, values: Array) -> tuple[Array, Array]:
        """Looks (P, B) of an automatic event and its values there, with more of them where zeros
        may hide between those (parts + 1, B) that there are."""
        n, found, width = len(values) - 1, doubts(values), self._values.width
        while found is not None and found.unresolved.any():
            n *= 2
            between = np.repeat(chebyshev_points(n)[1::2, None], width, 1)
            finer = np.empty((n + 1, width))
            finer[::2] = values
            got = self._values.at(step, [i] * (n // 2), between)
            finer[1::2] = np.where(step.good, got, 1.0)
            values = finer
            found = doubts(values, found)
        points = np.repeat(chebyshev_points(n)[:, None], width, 1)
        if found is None or not len(found.columns):
            return points, values
        row = np.zeros(width, int)
        turns = np.full((int(np.bincount(found.columns).max()), width), np.nan)
        for sample, place in zip(found.columns, found.places, strict=True):
            turns[row[sample], sample] = place
            row[sample] += 1
        asked = ~np.isnan(turns)
        turns = np.where(asked, turns, 1.0)
        got = self._values.at(step, [i] * len(turns), turns, asked)
        points = np.concatenate((points, turns))
        values = np.concatenate((values, np.where(asked, got, values[-1])))
        order = np.argsort(points, axis=0, kind="stable")
        return np.take_along_axis(points, order, 0), np.take_along_axis(values, order, 0)
