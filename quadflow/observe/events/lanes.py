"""Zeros between two looks at a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bracketing import bracketed_zeros
from .dense_step import Array, DenseStep
from .rounding import slope_at_start
from .values import EventValues

BEHIND = 2.0**-10
"""Where the sign behind an exact zero is looked at, as a part of the lane that it starts."""


@dataclass
class Lanes:
    """Parts of a step between two looks of one event, in the order of the events and of time.

    Attributes:
        event_of: the event of every lane (lanes,).
        low, high: the ends θ of every lane (lanes, B). before, after: the values there.
        there: whether there is such a part at all (lanes, B).
        of_event: the lanes of every event. first: the first of these (events,).
    """

    event_of: Array
    low: Array
    high: Array
    before: Array
    after: Array
    there: Array
    of_event: list[Array]
    first: Array

    @classmethod
    def between(cls, points: list[Array], values: list[Array], good: Array) -> Lanes:
        """The lanes between looks (P, B) of every event, with the values there. good: whose step
        it is (B,)."""
        counts = [len(own) - 1 for own in points]
        event_of = np.repeat(np.arange(len(counts)), counts)
        of_event = np.split(np.arange(len(event_of)), np.cumsum(counts)[:-1])
        low, high = (np.concatenate([own[a:b] for own in points]) for a, b in ((0, -1), (1, None)))
        before, after = (
            np.concatenate([own[a:b] for own in values]) for a, b in ((0, -1), (1, None))
        )
        first = np.array([own[0] for own in of_event])
        return cls(event_of, low, high, before, after, good & (high > low), of_event, first)

    def leave_zeros(self, values: EventValues, step: DenseStep) -> None:
        """Move the starts of lanes that start at zero just behind it."""
        zero = self.there & (self.before == 0)
        which = np.flatnonzero(zero.any(1))
        if not which.size:
            return
        low, before, after = self.low.copy(), self.before.copy(), self.after[which]
        zero, width, events = zero[which], (self.high - low)[which], self.event_of[which]
        start, part = low[which], np.full(width.shape, BEHIND)
        value = values.at(step, events, start + part * width, zero)
        # by the parabola through it: where g left the other way and has come back already
        with np.errstate(all="ignore"):
            slope = slope_at_start(BEHIND, np.zeros_like(value), value, after)
            back = slope / (slope - after)
        left = zero & (slope * value < 0) & (back > 0) & (back < BEHIND)
        if left.any():
            part = np.where(left, back / 2, part)
            nearer = values.at(step, events, start + part * width, left)
            left &= np.sign(nearer) == np.sign(slope)
            value, part = np.where(left, nearer, value), np.where(left, part, BEHIND)
        low[which] = np.where(zero, start + part * width, start)
        before[which] = np.where(zero, value, before[which])
        self.low, self.before = low, before

    def zeros(self, values: EventValues, step: DenseStep, found: Array) -> Array:
        """The zeros (lanes, B) of the lanes where there is one (`found`), else NaN."""
        low, high, before, after = self.low, self.high, self.before, self.after
        places = np.where(found, high, np.nan)
        inside = found & (after != 0)
        # a value that ends at zero may have been there for a while
        flat = found & (after == 0)
        which = np.flatnonzero(flat.any(1))
        if which.size:
            just_before = (high - BEHIND * (high - low))[which]
            resting = values.at(step, self.event_of[which], just_before, flat[which]) == 0
            flat[which] &= resting
            inside |= flat
        which = np.flatnonzero(inside.any(1))
        if not which.size:
            return places
        # zero itself then is behind the change
        behind = np.where(flat, -np.sign(before) * np.finfo(np.float64).tiny, after)[which]

        def value(moments: Array, searched: Array) -> Array:
            some = searched.any(1)
            got = np.zeros_like(moments)
            got[some] = values.at(step, self.event_of[which[some]], moments[some], searched[some])
            return np.where(flat[which] & (got == 0), behind, got)

        zeros = bracketed_zeros(
            value, low[which], high[which], before[which], behind, np.full((1, 1), values.eps),
            inside[which],
        )  # fmt: skip
        places[which] = np.where(inside[which], zeros, places[which])
        return places
