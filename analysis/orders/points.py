"""Errors at several step numbers, which of them count, and the order that these show."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .kind import ROUNDING_FLOOR
from .lines import fitted_line

RESIDUAL_GATE = 0.06
"""Farthest that a point may lie from the line, in decades (15 %)."""
LEAST_POINTS = 4
"""Fewer usable points show no order: any three lie near some line."""
WIDEST = 0.3
"""Largest half width of the confidence interval of an order."""
DRIFT = 0.1
"""Slopes that rise or fall all the way by more than this are on their way to another order, unless
the line has a whole number as its slope within `MARGIN`."""
MARGIN = 0.15
"""A measured order within this of the promised one agrees with it: what slopes that are still
settling leave undecided (no two orders are nearer than 1)."""


@dataclass(frozen=True)
class OrderPoints:
    """Errors at several step numbers, which of them count, and the order that they show.

    method, problem: names. promised: the order that the method declares for this kind of error;
    None where none is. steps: numbers of steps, ascending (for `of` "local" and "estimate": the
    span over the step size; "event": steps up to the event). errors: relative, see `error_kinds`;
    inf where the solve failed. calls, nfe: cost of each solve. used: which points the line is
    fitted to. notes: why each point is or is not used: "used", "pre-asymptotic", "rounding",
    "reference" (near the error of what it is compared with), "failed: ...". of: which error.
    what: the same in words. ratios: estimate over true local error (median), for of="estimate".
    floor: errors below it are rounding. reference_error: relative. digits: decimal digits of an
    extended-precision measurement. margin: see `MARGIN`. remark: what else there is to know, such
    as "interrupted"; or why nothing was measured.
    """

    method: str
    problem: str
    promised: int | None
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    calls: tuple[int, ...]
    nfe: tuple[int, ...]
    used: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    of: str = "endpoint"
    what: str = ""
    ratios: tuple[float, ...] = ()
    floor: float = ROUNDING_FLOOR
    reference_error: float = 0.0
    digits: int | None = None
    margin: float = MARGIN
    remark: str = ""

    @property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        keep = np.array(self.used, dtype=bool)
        return np.log(np.array(self.steps, float)[keep]), np.log(np.array(self.errors)[keep])

    @functools.cached_property
    def _line(self) -> tuple[float, float, float]:
        """Slope (positive: errors fall), half width of its 95 % interval, residual in decades."""
        x, y = self._points
        if len(x) < 3:
            return math.nan, math.nan, math.nan
        slope, half, farthest = fitted_line(x, y)
        return -slope, half, farthest / math.log(10)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Between neighbouring used points."""
        x, y = self._points
        return tuple((-np.diff(y) / np.diff(x)).tolist())

    @property
    def slope(self) -> float:
        """The fitted line's, whether to be trusted or not; NaN below three used points."""
        return self._line[0]

    @property
    def half_width(self) -> float:
        """Half width of the slope's 95 % confidence interval (Student's t on the residuals)."""
        return self._line[1]

    @property
    def residual(self) -> float:
        """Largest distance of a used point from the line, in decades; NaN below three points."""
        return self._line[2]

    @property
    def reason(self) -> str:
        """Why there is no order; empty where there is one."""
        count = sum(self.used)
        if not self.steps:
            return self.remark or "nothing was measured"
        if count < LEAST_POINTS:
            lost = [n for n, used in zip(self.notes, self.used, strict=True) if not used]
            why = dict.fromkeys(n.partition(":")[0] for n in lost)
            tally = ", ".join(f"{sum(n.startswith(w) for n in lost)} {w}" for w in why)
            text = f"{count} usable points, {LEAST_POINTS} are needed"
            text += f" (of {len(self.steps)}: {tally})" if tally else ""
            failures = [n for n in lost if n.startswith("failed")]
            if failures and count == 0:
                text += f"; {failures[-1]}"
            if any(n == "reference" for n in lost):
                text += f"; the reference is only good to {self.reference_error:.1e}"
            return text
        if self.residual > RESIDUAL_GATE:
            return (
                f"the points lie {self.residual:.2f} decades off a line (at most {RESIDUAL_GATE}): "
                "no power of the step"
            )
        if self.half_width > WIDEST:
            return f"the slope is uncertain by {self.half_width:.2f} (at most {WIDEST})"
        slopes = self.slopes
        drift = slopes[-1] - slopes[0]
        one_way = all((b - a) * drift > 0 for a, b in pairwise(slopes))
        if one_way and abs(drift) > DRIFT and abs(self.slope - round(self.slope)) > self.margin:
            return (
                f"slopes still {'rise' if drift > 0 else 'fall'}, from {slopes[0]:.2f} to "
                f"{slopes[-1]:.2f}: shorter steps are needed (a larger budget, or more digits)"
            )
        return ""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it before its time."""
        return "interrupted" in self.remark

    @property
    def trusted(self) -> bool:
        """Whether the points show an order at all."""
        return not self.reason

    @property
    def order(self) -> float:
        """The measured order; NaN where the points show none (`reason` says why)."""
        return self.slope if self.trusted else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the order; NaN where there is none."""
        return self.order - self.half_width, self.order + self.half_width

    @property
    def agrees(self) -> bool | None:
        """Whether the promised order is the measured one, from both sides; None without either.

        Promised within the confidence interval, or within `margin`.
        """
        if not self.trusted or self.promised is None:
            return None
        return abs(self.order - self.promised) <= max(self.margin, self.half_width)

    @property
    def verdict(self) -> str:
        """`agrees` in words."""
        if not self.trusted:
            return f"not measured: {self.reason}"
        if self.promised is None:
            return "none is promised"
        if self.agrees:
            return f"agrees with the promised {self.promised}"
        side = "higher" if self.order > self.promised else "LOWER"
        return f"{side} than the promised {self.promised}"
