"""How much work a fit is: updates and pairs from minutes, and the evaluations that it took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...checks import integer_from
from .pairs import BLOCK

SELECTION, REPORTED = 64, 128
"""Samples that choose (method, grid, best weights), and those whose errors are reported."""

STEPS = 192
"""Of the converged solve of a pair: networks are rough in t, so many."""

BATCH = 16
UPDATES_A_PAIR = 0.5
"""Updates of 16 a pair, where the number of pairs is left open: eight looks at each."""

LOOKS = 12
"""Looks at the selection noises in a training."""


@dataclass(frozen=True)
class Effort:
    """How much work a fit is: updates of `batch_size` samples, and pairs a guidance scale."""

    updates: int
    pairs: int
    batch_size: int = BATCH


@dataclass(frozen=True)
class Wish:
    """What a fit is asked for.

    nfe: budgets, each >= 2. guidance: scales. minutes: about how long it may take, or updates and
    pairs, the numbers themselves. batch_size: samples an update. steps: of the converged solves.

    Raises:
        ValueError: no budget or scale, minutes out of range or beside updates.
    """

    nfe: Sequence[int]
    guidance: Sequence[float]
    minutes: float | None = None
    updates: int | None = None
    pairs: int | None = None
    batch_size: int = BATCH
    steps: int = STEPS

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
        updates, pairs = self.updates, self.pairs
        if updates is None:
            updates = self._fitting(seconds_a_sample(evaluate), update, sampling)
        integer_from(1, updates, "updates")
        if pairs is None:
            pairs = max(BLOCK, round(updates / UPDATES_A_PAIR))
        integer_from(1, pairs, "pairs")
        return Effort(updates, pairs, self.batch_size)

    def _fitting(self, row: float, update: float, sampling: float) -> int:
        """The updates that fit into the minutes, where a sample takes `row` seconds."""
        nfe, guidance = self.nfe, self.guidance
        seconds = 60 * (20.0 if self.minutes is None else self.minutes)
        halves = sum(map(halves_of, guidance))
        held = halves * row * (SELECTION + REPORTED) * (self.steps + 10)
        one = self.batch_size * row * halves / len(guidance) * sum(nfe) / len(nfe) * update
        pair = halves * row * (self.steps + 10)
        looks = LOOKS * SELECTION * row * sum(nfe) * halves * sampling
        start = 40 * SELECTION * row * sum(nfe) * halves * sampling
        left = max(0.2 * seconds, seconds - held - looks - start)
        return max(16, int(left / (one + pair / UPDATES_A_PAIR)))


def halves_of(scale: float) -> int:
    """Rows that a sample takes of the network: 2 where it is guided."""
    return 1 if scale == 1 else 2


def seconds_a_sample(run: Callable[[int], Any]) -> float:
    """Seconds of `run` for one sample, from its second call with `BLOCK` of them."""
    run(BLOCK)
    begun = time.perf_counter()
    run(BLOCK)
    return (time.perf_counter() - begun) / BLOCK
