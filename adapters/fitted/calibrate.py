"""The best classical method of a budget on a backbone: method and grid, measured on some noises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ...solution import SolveError
from ..flow.field import FlowField
from ..sampling.sample import sample, time_grid
from .plan import PlanStart

STARTS = ((2, False), (3, False), (2, True), (3, True))
"""Anchors k and whether there is a correction: ab2, ab3, pec2, pec3."""

RATIO = 1.25
"""Between neighbouring shifts of a grid."""

WIDEST = 30.0
"""No shift is tried beyond this, or below one over it."""


@dataclass(frozen=True)
class Calibrated:
    """A classical method with its grid. start: see `PlanStart`. shift: of its grid. error: its RMSE
    to the converged ends, in units of the state. rows: evaluations of single states that the search
    for the grid took."""

    start: PlanStart
    shift: float
    error: float
    rows: int = 0


def searched(choosing: int) -> int:
    """Of so many samples, how many the shifts are compared on."""
    return max(1, choosing * 3 // 8)


def grid_of(nfe: int, shift: float) -> tuple[float, ...]:
    """Noise fractions of a grid, from 1 to 0: (nfe + 1,); see `time_grid`."""
    return tuple(float(s) for s in time_grid(nfe, shift=shift))


def best_shift(error: Callable[[float], float]) -> tuple[float, float, int]:
    """The shift of least error, that error, and how many were tried: from 1 on in steps of
    `RATIO`, downhill. Where the sampler does not stay finite the error is inf.

    It walks both ways until the error has grown twice in a row, so the best is never at the edge of
    what was tried, but at `WIDEST`.
    """
    found = {0: _or_infinite(error, 1.0)}
    for sign in (1, -1):
        at, worse, best = sign, 0, found[0]
        while worse < 2 and RATIO ** abs(at) <= WIDEST:
            found[at] = _or_infinite(error, RATIO**at)
            worse = worse + 1 if not found[at] < best else 0
            best = min(best, found[at])
            at += sign
    index = min(found, key=lambda i: found[i])
    return RATIO**index, found[index], len(found)


def _or_infinite(error: Callable[[float], float], shift: float) -> float:
    try:
        return error(shift)
    except SolveError:  # some guided fields blow up under correctors at few evaluations
        return math.inf


def calibrate(
    flow: Callable[[range], FlowField],
    noise: Tensor,
    ends: Tensor,
    nfe: int,
    *,
    form: str,
    starts: Sequence[tuple[int, bool]] = STARTS,
) -> list[Calibrated]:
    """Every classical method of this budget on its own best shift, the best one first.

    Shifts are compared on the first `searched` samples, the methods on all.

    Args:
        flow: makes the flow field of these samples. noise, ends: (B, ...), and where it takes them.
        nfe: evaluations. form: of the starts that are returned. starts: see `STARTS`; those with
            more anchors than the budget are left out.
    """
    results = []
    for k, corrected in starts:
        if k > max(1, nfe - 1) and (k, corrected) != (2, False):
            continue
        name = f"{'pec' if corrected else 'ab'}{k}"
        few = searched(len(noise))

        def error(shift: float, count: int, name: str = name) -> float:
            made = sample_flow(flow(range(count)), noise[:count], method=name, nfe=nfe, shift=shift)
            return rms(made - ends[:count])

        shift, _, tries = best_shift(partial(error, count=few))
        one = flow(range(1))
        start = PlanStart(nfe, k, corrected, grid_of(nfe, shift), one.guidance.scale, form)
        rows = (tries * few + len(noise)) * nfe * one.halves
        results.append(
            Calibrated(start, shift, _or_infinite(partial(error, count=len(noise)), shift), rows)
        )
    return sorted(results, key=lambda c: c.error)


def sample_flow(flow: FlowField, noise: Tensor, **options: Any) -> Tensor:
    """What `sample` makes of a flow field's model, labels and guidance: (B, ...)."""
    return sample(
        flow.model, noise, flow.labels, guidance=flow.guidance, convention=flow.convention,
        extras=flow.extras, null_extras=flow.null_extras, **options,
    ).x  # fmt: skip


def rms(x: Tensor) -> float:
    """Root mean square over all entries; inf where some are not finite."""
    value = float(x.double().square().mean().sqrt())
    return value if value < math.inf else math.inf
