"""How far a step may go beyond what has been seen of f.

An error estimate knows f where it was evaluated. Between, there may be anything, and steps that
grow on the estimate's word alone leap over whatever is short. Three limits, for all methods alike:

- *All is smooth*: f is looked at `LOOKS_A_DIGIT` times over the span for every digit of the
  tolerance, however smooth the solution.
- *Nothing happens*: the state moved by no more than `STILL` tolerances, at a rate that would move
  it by no more than `DRIFT` of its size over the span. Such a step is no reason for one that looks
  at f less often than `LOOKS` times over the span, nor, half as often, one whose error would allow
  a step of `BEYOND` spans. The first step after these at most doubles.
- *Something has happened*: f has broken where the steps suddenly fell to a small part (`FALL`) of
  the longest since the last break; the start counts as one. What broke twice within some time may
  do so again: f is then looked at twice within the shorter of the last two such times, until it has
  been quiet for `MEMORY` times as long as a look.

All are in units of the widest gap between the places in a step where a method evaluates f.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray

LOOKS_A_DIGIT = 3.0
"""21 looks over the span at a tolerance of 1e-7: an input that lasts a twentieth of it is met."""

LOOKS = 100
"""An input that lasts a hundredth of the span is met. A rest costs so many looks at f."""

STILL, DRIFT, BEYOND = 4.0, 0.01, 10.0
"""Where stability holds the steps of a solution that has come to rest, it wavers by about a
tolerance a step. At loose tolerances a solution that moves does no more: hence the drift, by which
smooth solves, measured on 16 problems at 1e-3 to 1e-9, cost what they cost without a lookout."""

FALL, MEMORY = 1 / 32, 48
"""At a break steps fall by hundreds and more, on smooth solutions hardly ever so suddenly. The
memory is the half hour of a day; after one that says nothing, steps still grow by a 48th each."""


ABOUT = 0.999
"""A step is as long as it was to be, but for rounding."""


def longest_step(gap: float, span: Any, rtol: Any) -> Any:
    """The longest step of a solve, that of a solution which is smooth: f is looked at
    `LOOKS_A_DIGIT` times over the span for every digit of the tolerance."""
    return span / (np.maximum(1.0, -LOOKS_A_DIGIT * np.log10(rtol)) * gap)


class Lookout:
    """Bounds the steps of a solve, from step to step.

    Args:
        gap: widest gap between evaluations of f, as a part of a step.
        t0, t1: the span; t1 may be infinite.
        rtol: relative tolerance.

    Attributes:
        longest: size of the longest step there may be. longest_leap: of the longest where nothing
            happens. moved: of a trial of that size or
            longer, what it moved the state by, over the tolerance.
    """

    def __init__(self, gap: float, t0: float, t1: float, rtol: float) -> None:
        self._gap, self._span = gap, abs(t1 - t0)
        self._drift = DRIFT / (rtol * self._span)
        self.longest_leap = self._span / (LOOKS * gap)
        self.longest = float(longest_step(gap, self._span, rtol))
        self.moved = math.inf
        self.restart(t0)

    def restart(self, t: float) -> None:
        """f breaks at t, as is known: what was seen before says nothing of what comes."""
        self._broke, self._between, self._before = t, math.inf, math.inf
        # after a break steps fall to some least one; once they have grown again, to some longest
        self._falls, self._extreme = True, math.inf
        self._quiet = False

    def bound(self, t: float, size: float, planned: float, ratio: float, order: int) -> float:
        """The size of the next step.

        planned: what the error says. t, size, ratio, order: end and size of the last step, its
        error over the tolerance, which is O(h^order). Sizes are positive.
        """
        if self._falls:
            if size < self._extreme:
                self._extreme = size
            elif size * FALL > self._extreme:
                self._falls, self._extreme = False, size
        elif size > self._extreme:
            self._extreme = size
        elif size < FALL * self._extreme:
            self._before, self._between = self._between, abs(t - self._broke)
            self._falls, self._extreme, self._broke = True, size, t
        planned, leap = min(planned, self.longest), self.longest_leap
        if planned > leap and size < ABOUT * leap:
            planned = leap  # a step of this size shows whether anything happens
        elif planned > leap:
            still = self.moved <= min(STILL, self._drift * size)
            idle = not still and ratio * (BEYOND * self._span / size) ** order <= 1
            if still or idle:
                planned = min(planned, leap if still else 2 * leap)
            elif self._quiet:
                planned = min(planned, max(leap, 2 * size))
            self._quiet = still or idle
        look = min(self._before, self._between) / 2
        if planned * self._gap > look:
            look = max(look, abs(t - self._broke) / MEMORY)
            planned = min(planned, look / self._gap)
        return planned


class SamplesLookout:
    """`Lookout` of every sample of a batch: times, sizes, ratios and orders are arrays (B,)."""

    def __init__(self, gap: float, t0: Array, t1: Array, rtol: float | Array) -> None:
        self._gap, self._span = gap, np.abs(t1 - t0)
        self._drift = DRIFT / (rtol * self._span)
        self.longest_leap: Array = self._span / (LOOKS * gap)
        self.longest: Array = longest_step(gap, self._span, rtol)
        self.moved: Array = np.full(len(t0), math.inf)
        self._broke = t0.copy()
        self._between, self._before = np.full((2, len(t0)), math.inf)
        self._falls, self._extreme = np.ones(len(t0), bool), np.full(len(t0), math.inf)
        self._quiet = np.zeros(len(t0), bool)

    def bound(
        self, t: Array, size: Array, planned: Array, ratio: Array, order: Array | int, who: Array
    ) -> Array:
        """As `Lookout.bound`; who: the samples (bool) whose step this was: nothing is noted of the
        others."""
        falls, extreme, leap = self._falls, self._extreme, self.longest_leap
        recovered = who & falls & (size * FALL > extreme)
        broken = who & ~falls & (size < FALL * extreme)
        further = np.where(falls, size < extreme, size > extreme)
        self._extreme = np.where(who & (further | recovered | broken), size, extreme)
        self._falls = (falls & ~recovered) | broken
        self._before = np.where(broken, self._between, self._before)
        self._between = np.where(broken, np.abs(t - self._broke), self._between)
        self._broke = np.where(broken, t, self._broke)
        planned = np.where(who, np.fmin(planned, self.longest), planned)
        leaps = who & (planned > leap)
        first = leaps & (size < ABOUT * leap)
        leaps &= ~first
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            still = leaps & (self.moved <= np.fmin(STILL, self._drift * size))
            idle = leaps & ~still & (ratio * (BEYOND * self._span / size) ** order <= 1)
            most = np.where(still, leap, np.where(idle, 2 * leap, np.maximum(leap, 2 * size)))
        planned = np.where(leaps & (still | idle | self._quiet), np.fmin(planned, most), planned)
        planned = np.where(first, leap, planned)
        self._quiet = np.where(leaps, still | idle, self._quiet)
        look = np.fmin(self._before, self._between) / 2
        look = np.maximum(look, np.abs(t - self._broke) / MEMORY)
        bounded: Array = np.where(who, np.fmin(planned, look / self._gap), planned)
        return bounded
