"""The best grid of a sampler among shifts of the uniform one, widened until it lies between two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

SHIFTS = (0.6, 0.8, 1.0, 1.5, 2.5)
"""Where the search begins."""

WIDEST = 64.0
"""Shifts beyond this, or below its reciprocal, leave all steps but one at an end."""


@dataclass(frozen=True)
class Choice:
    """The best of what was tried on the selection noises.

    shift: of the grid. setting: of the rival's parameter, None without one. rmse: there. tried:
    shift -> RMSE at that setting. edge: the best shift is the largest or smallest that was tried.
    """

    shift: float
    setting: float | None
    rmse: float
    tried: dict[float, float]
    edge: bool


def best_choice(
    error: Callable[[float, float | None], float],
    shifts: Sequence[float] = SHIFTS,
    settings: Iterable[float] = (),
) -> Choice:
    """The shift and setting of the least error.

    Args:
        error: (shift, setting) -> RMSE; infinite where a sampler explodes.
        shifts: tried first, positive, at least one; with two or more, further ones follow beyond
            the edge as long as the best is at it, in the ratio of the last two, up to `WIDEST`.
        settings: of the rival's parameter; none: it has no parameter.

    Raises:
        ValueError: shifts that are none or not positive.
    """
    if not shifts or not all(0 < s < math.inf for s in shifts):
        raise ValueError(f"shifts must be positive and at least one, got {tuple(shifts)}")
    choices = [_widened(error, shifts, setting) for setting in tuple(settings) or (None,)]
    return min(choices, key=lambda c: c.rmse)


def _widened(
    error: Callable[[float, float | None], float], shifts: Sequence[float], setting: float | None
) -> Choice:
    tried = {s: error(s, setting) for s in shifts}
    while True:
        # of equals the one nearest to the uniform grid
        best = min(tried, key=lambda s: (tried[s], abs(math.log(s))))
        known = sorted(tried)
        edge = len(known) > 1 and best in (known[0], known[-1])
        beyond = _beyond(known, best) if edge else None
        if beyond is None:
            return Choice(best, setting, tried[best], {s: tried[s] for s in known}, edge)
        tried[beyond] = error(beyond, setting)


def _beyond(known: Sequence[float], best: float) -> float | None:
    """The next shift outside; None where that leads nowhere."""
    further = best**2 / (known[1] if best == known[0] else known[-2])
    return further if 1 / WIDEST <= further <= WIDEST else None
