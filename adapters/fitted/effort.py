"""How much work a fit is: updates and pairs from minutes, and the evaluations that it took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...checks import integer_from
from ..sampling.converged import START
from .calibrate import searched
from .pairs import BLOCK, coarse

HELD_OUT = (64, 128)
"""Samples that choose (method, grid, best weights), and those whose errors are reported."""

STEPS = 192
"""Of the converged solve of a sample that is held out: networks are rough in t, so many."""

BATCH = 16
UPDATES_A_PAIR = 0.25
"""Updates of 16 a pair, where the number of pairs is left open: four looks at each. With more the
errors on unseen noises fall behind."""

LOOKS, SELDOM = 12, 8
"""Looks at the samples that choose in a training, and the least number of updates between two."""

MINUTES = 20.0

BRIEF_HELD_OUT, BRIEF_STEPS = (32, 32), 64
"""The same in brief fits: where `HELD_OUT` in `STEPS` would take a third of the time."""


@dataclass(frozen=True)
class Effort:
    """How much work a fit is.

    updates: of `batch_size` samples. pairs: a guidance scale, to learn from. held_out: samples that
    choose, and samples that are reported. steps: of the converged solves of those; see `Pairs`.
    """

    updates: int
    pairs: int
    batch_size: int = BATCH
    held_out: tuple[int, int] = HELD_OUT
    steps: int = STEPS

    @property
    def every(self) -> int:
        """Updates between two looks at the samples that choose."""
        return max(SELDOM, self.updates // LOOKS)

    @property
    def choosing(self) -> range:
        """The samples that choose."""
        return range(self.held_out[0])

    @property
    def reporting(self) -> range:
        """The samples whose errors are reported."""
        return range(self.held_out[0], sum(self.held_out))

    @property
    def learning(self) -> range:
        """The samples that are learned from."""
        return range(sum(self.held_out), sum(self.held_out) + self.pairs)


@dataclass(frozen=True)
class Wish:
    """What a fit is asked for.

    nfe: budgets, each >= 2. guidance: scales. minutes: about how long it may take, or updates and
    pairs, the numbers themselves. batch_size: samples an update. held_out, steps: see `Effort`;
    None: as the minutes allow. otherwise: the minutes where none are given.

    Raises:
        ValueError: no budget or scale, minutes out of range or beside updates, counts below 1.
    """

    nfe: Sequence[int]
    guidance: Sequence[float]
    minutes: float | None = None
    updates: int | None = None
    pairs: int | None = None
    batch_size: int = BATCH
    held_out: tuple[int, int] | None = None
    steps: int | None = None
    otherwise: float = MINUTES

    def __post_init__(self) -> None:
        for budget in self.nfe:
            integer_from(2, budget, "nfe")
        if not self.nfe or not self.guidance:
            raise ValueError(
                f"nfe={self.nfe!r} and guidance={self.guidance!r}: give at least one of each"
            )
        minutes = self.minutes
        if minutes is not None and (self.updates is not None or not 0 < minutes < math.inf):
            raise ValueError(f"minutes={minutes}: give a positive number, or updates, not both")
        if self.held_out is not None:
            if len(self.held_out) != 2:
                raise ValueError(f"held_out must be two counts, got {self.held_out!r}")
            for count in self.held_out:
                integer_from(1, count, "held_out")

    def effort(
        self, evaluate: Callable[[int], Any], *, update: float, sampling: float = 1.0
    ) -> Effort:
        """Updates and pairs, from what is given or from what an evaluation costs here.

        Args:
            evaluate: evaluates the backbone once on so many samples. update: evaluations' time that
                an evaluation takes in an update. sampling: the same when sampling.

        Raises:
            ValueError: updates, pairs or batch_size below 1.
        """
        integer_from(1, self.batch_size, "batch_size")
        held, steps = self.held_out or HELD_OUT, self.steps or STEPS
        updates, pairs = self.updates, self.pairs
        if updates is None:
            row = seconds_a_sample(evaluate)
            if 3 * self._holding(row, held, steps) > self._seconds:
                held, steps = self.held_out or BRIEF_HELD_OUT, self.steps or BRIEF_STEPS
            rest = Effort(1, 1, self.batch_size, held, steps)
            updates = self._fitting(rest, row, update, sampling)
        integer_from(1, updates, "updates")
        if pairs is None:
            pairs = max(BLOCK, round(updates / UPDATES_A_PAIR))
        integer_from(1, pairs, "pairs")
        return Effort(updates, pairs, self.batch_size, held, steps)

    @property
    def _seconds(self) -> float:
        return 60 * (self.otherwise if self.minutes is None else self.minutes)

    def _holding(self, row: float, held_out: tuple[int, int], steps: int) -> float:
        """Seconds that the converged ends of what is held out take."""
        return sum(map(halves_of, self.guidance)) * row * sum(held_out) * (steps + START)

    def _fitting(self, effort: Effort, row: float, update: float, sampling: float) -> int:
        """The updates that fit into the minutes, where a sample takes `row` seconds."""
        nfe, guidance, seconds = self.nfe, self.guidance, self._seconds
        halves = sum(map(halves_of, guidance))
        choosing, reporting = effort.held_out
        pair = halves * row * (coarse(effort.steps) + START)
        one = effort.batch_size * row * halves / len(guidance) * sum(nfe) / len(nfe) * update
        one += pair / UPDATES_A_PAIR
        # the search for the start; looks, of which a brief fit has few; the report
        samplings = 40 * searched(choosing) + 5 * choosing + choosing + 2 * reporting
        each = row * sum(nfe) * halves * sampling
        left = seconds - self._holding(row, effort.held_out, effort.steps) - samplings * each
        left = max(0.2 * seconds, left)
        looks = min(LOOKS, left / one / SELDOM) * choosing * each
        return max(16, int((left - min(looks, 0.5 * left)) / one))


def halves_of(scale: float) -> int:
    """Rows that a sample takes of the network: 2 where it is guided."""
    return 1 if scale == 1 else 2


def seconds_a_sample(run: Callable[[int], Any]) -> float:
    """Seconds of `run` for one sample, from its second call with `BLOCK` of them."""
    run(BLOCK)
    begun = time.perf_counter()
    run(BLOCK)
    return (time.perf_counter() - begun) / BLOCK
