"""Estimated and true local errors of a solve, and how far they are apart."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the ratio of estimated and true error that are told."""


@dataclass(frozen=True)
class LocalErrors:
    """Estimated and true local errors of the accepted steps of one adaptive solve.

    Its fields are described in `estimates.Reliability`.
    """

    solver: str
    problem: str
    tolerance: float
    accepted: int = 0
    starts: tuple[float, ...] = ()
    sizes: tuple[float, ...] = ()
    estimates: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    floors: tuple[float, ...] = ()
    failure: str | None = None
    remark: str = ""

    @functools.cached_property
    def judged(self) -> np.ndarray:
        """Which steps take part, (N,) bool: true error above the floor, positive estimate."""
        errors, floors = np.array(self.errors), np.array(self.floors)
        return np.asarray((errors > floors) & (np.array(self.estimates) > 0))

    @property
    def ratios(self) -> np.ndarray:
        """Estimate over true error of the judged steps, float64."""
        keep = self.judged
        return np.asarray(np.array(self.estimates)[keep] / np.array(self.errors)[keep])

    @property
    def quantiles(self) -> dict[float, float]:
        """`QUANTILES` of the ratio estimate/true; NaN without judged steps."""
        ratios = self.ratios
        if not len(ratios):
            return dict.fromkeys(QUANTILES, math.nan)
        return {q: float(np.quantile(ratios, q)) for q in QUANTILES}

    @property
    def underestimates(self) -> float:
        """Fraction of the judged steps whose error is larger than estimated; NaN without any."""
        ratios = self.ratios
        return float((ratios < 1).mean()) if len(ratios) else math.nan
