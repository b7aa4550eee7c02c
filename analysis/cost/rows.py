"""What the rows of a work-precision study show: cost at an error, ratios, error against tolerance.

Rows with failures or at the reference's accuracy take no part, and nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from ...checks import check_choice
from ..orders.lines import fitted_line
from ..report.records import picked, written

COSTS = {
    "nfe": "evaluations of f (single states)",
    "calls": "sequential calls of f",
    "seconds": "wall time (s)",
}
"""Kinds of cost with what they are, and their unit."""

REFERENCE_MARGIN = 10.0
"""Achieved errors below so many times the reference's own error say nothing."""


@dataclass(frozen=True)
class Row:
    """One solver on one problem at one tolerance or number of steps.

    solver, problem: names. tolerance: relative; None where steps is given. steps: equal ones, of a
    solver without error control. error: achieved at the end of the span, largest entry over the
    largest entry of the reference; None where the solve failed. reference_error: of what it is
    compared with, relative. nfe, calls: as in `Run`. seconds: median of `times`. times: wall
    seconds of every timed run. accepted: steps, where known. failure: why the end was not reached.
    """

    solver: str
    problem: str
    tolerance: float | None
    steps: int | None
    error: float | None
    reference_error: float
    nfe: int
    calls: int
    seconds: float | None
    times: tuple[float, ...] = ()
    accepted: int | None = None
    failure: str | None = None

    @property
    def key(self) -> tuple[str, str, float | None, int | None]:
        """The fields that tell it from other rows."""
        return self.solver, self.problem, self.tolerance, self.steps

    @property
    def at_reference(self) -> bool:
        """Whether the error may be the reference's own."""
        return self.error is not None and self.error <= REFERENCE_MARGIN * self.reference_error

    @property
    def usable(self) -> bool:
        """Whether the error is one, and the solver's."""
        return self.error is not None and self.error > 0 and not self.at_reference

    @property
    def note(self) -> str:
        """The failure, or that the reference is no better; empty where nothing is to be said."""
        if self.failure is not None:
            return f"failed: {self.failure}"
        return "at the reference's accuracy" if self.at_reference else ""

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return {**written(self), "at_reference": self.at_reference}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> Row:
        """The row that `to_dict` wrote.

        Raises:
            ValueError: an entry is missing.
        """
        return cls(**picked(figures, (f.name for f in fields(cls)), "work-precision study"))


def cost_at(rows: Sequence[Row], error: float, cost: str = "nfe") -> float | None:
    """Cost of an achieved error by one solver on one problem; None where it is not reached.

    rows: from loose to tight. The last pair of neighbouring usable rows between which the error
    passes `error` counts: an earlier one is luck, such as an error that changes its sign.

    Raises:
        ValueError: an error that is not positive, or unknown cost.
    """
    check_choice(cost, COSTS, "cost")
    if not (error > 0 and math.isfinite(error)):
        raise ValueError(f"error must be positive, got {error}")
    for a, b in reversed(list(pairwise(rows))):
        if not (a.usable and b.usable):
            continue
        assert a.error is not None and b.error is not None
        if b.error <= error <= a.error:
            low, high = float(getattr(a, cost)), float(getattr(b, cost))
            if a.error == b.error:
                return high
            part = math.log(a.error / error) / math.log(a.error / b.error)
            return math.exp((1 - part) * math.log(low) + part * math.log(high))
    return None


def cost_below(rows: Sequence[Row], error: float, cost: str = "nfe") -> float | None:
    """Cost of the loosest row, where that is nearer than `error` already: a bound; else None."""
    first = next((r for r in rows if r.usable), None)
    if first is None or first.error is None or first.error >= error:
        return None
    return float(getattr(first, cost))


Table = Mapping[str, Mapping[str, float | None]]
"""problem -> solver -> figure, None where there is none."""


@dataclass(frozen=True)
class Proportionality:
    """How the achieved error of one solver on one problem follows the tolerance.

    points: how many usable rows. slope: of log error against log tolerance, 1 where the error is
    proportional; half_width: of its 95 % confidence interval (Student's t); residual: largest
    distance from the line, in decades; all NaN below three points. least, median, most: of
    error/tolerance; NaN without points. left_out: rows that failed, reached the reference's
    accuracy, or no longer fall with the tolerance because they are rounding.
    """

    solver: str
    problem: str
    points: int
    slope: float
    half_width: float
    residual: float
    least: float
    median: float
    most: float
    left_out: int

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON: None stands for what is no number."""
        return written(self)


def proportionality(rows: Sequence[Row]) -> Proportionality:
    """`Proportionality` of the rows of one solver on one problem, which have tolerances.

    Raises:
        ValueError: no rows, or one without tolerance.
    """
    if not rows or any(r.tolerance is None for r in rows):
        raise ValueError("rows must hold at least one row, all with tolerances")
    used = _above_rounding([r for r in rows if r.usable])
    slope = half = residual = math.nan
    least = middle = most = math.nan
    if used:
        tolerance = np.array([r.tolerance for r in used], dtype=float)
        error = np.array([r.error for r in used], dtype=float)
        ratio = error / tolerance
        least, middle, most = float(ratio.min()), float(np.median(ratio)), float(ratio.max())
        if len(set(tolerance.tolist())) >= 3:
            x, y = np.log10(tolerance), np.log10(error)
            slope, half, residual = fitted_line(x, y)
    return Proportionality(
        rows[0].solver, rows[0].problem, len(used), slope, half, residual, least, middle, most,
        len(rows) - len(used),
    )  # fmt: skip


def _above_rounding(rows: Sequence[Row]) -> list[Row]:
    """The rows without the tight ones whose errors no longer fall with the tolerance."""
    errors = [r.error or 0.0 for r in rows]
    for i in range(len(rows) - 1):
        rest = errors[i:]
        if rest[0] < 1e-10 and rest[-1] > 0.5 * rest[0] and max(rest) < 100 * min(rest):
            return list(rows[:i])
    return list(rows)


def solvers_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the solvers, in the order of the rows."""
    return tuple(dict.fromkeys(r.solver for r in rows))


def problems_in(rows: Sequence[Row]) -> tuple[str, ...]:
    """Names of the problems, in the order of the rows."""
    return tuple(dict.fromkeys(r.problem for r in rows))


def rows_of(rows: Sequence[Row], solver: str, problem: str) -> list[Row]:
    """The rows of one solver on one problem, from loose to tight."""
    chosen = [r for r in rows if r.solver == solver and r.problem == problem]
    return sorted(chosen, key=lambda r: r.steps or -(r.tolerance or 0.0))


# -- text -----------------------------------------------------------------------------------------


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def rows_text(title: str, rows: Sequence[Row]) -> str:
    """All rows of a problem, as text."""
    head = f"{'solver':<24}{'tolerance':>10}{'error':>10}{'nfe':>9}{'calls':>9}{'ms':>10}"
    lines = [title, f"{head}{'steps':>8}  note"]
    for r in rows:
        level = f"{r.tolerance:.0e}" if r.steps is None else f"{r.steps} st."
        milliseconds = None if r.seconds is None else 1e3 * r.seconds
        lines.append(
            f"{r.solver:<24}{level:>10}{_figure(r.error, '.2e'):>10}{r.nfe:>9}{r.calls:>9}"
            f"{_figure(milliseconds, '.2f'):>10}{_figure(r.accepted, 'd'):>8}  {r.note}".rstrip()
        )
    return "\n".join(lines)


def costs_text(
    rows: Mapping[str, Sequence[Row]], errors: Sequence[float], title: str, cost: str
) -> str:
    """Costs at achieved errors, as text, a line a solver; rows: solver -> its rows on the problem.

    "≤" stands before the cost of a loosest row that is more accurate already.
    """
    form = ".2e" if cost == "seconds" else ".0f"
    head = "".join(f"{f'at {e:.0e}':>11}" for e in errors)
    lines = [title, f"{'solver':<24}{head}"]
    for solver, of in rows.items():
        cells = ""
        for e in errors:
            value, bound = cost_at(of, e, cost), cost_below(of, e, cost)
            text = f"≤{bound:{form}}" if value is None and bound else _figure(value, form)
            cells += f"{text:>11}"
        lines.append(f"{solver:<24}{cells}")
    return "\n".join(lines)


def geometric_mean(values: Sequence[float]) -> float | None:
    """exp of the mean log; None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def ratios_text(figures: Table, title: str) -> str:
    """Problem -> solver -> ratio, as text: a line a solver, the geometric mean last."""
    problems = list(figures)
    wide = [max(9, len(p) + 2) for p in problems]
    head = "".join(f"{p:>{w}}" for p, w in zip(problems, wide, strict=True))
    lines = [title, f"{'solver':<24}{head}{'mean':>9}{'of':>4}"]
    for s in next(iter(figures.values()), {}):
        values = [figures[p][s] for p in problems]
        cells = "".join(f"{_figure(v, '.2f'):>{w}}" for v, w in zip(values, wide, strict=True))
        known = [v for v in values if v is not None]
        mean = _figure(geometric_mean(known), ".2f")
        lines.append(f"{s:<24}{cells}{mean:>9}{len(known):>4}")
    return "\n".join(lines)


def proportionality_text(found: Sequence[Proportionality]) -> str:
    """One line a solver and problem."""
    lines = [
        "achieved error against tolerance",
        f"{'solver':<24}{'problem':<20}{'points':>7}{'slope':>15}{'off (dec)':>10}"
        f"{'least':>10}{'median':>10}{'most':>10}",
    ]
    for p in found:
        slope = f"{p.slope:.2f} ± {p.half_width:.2f}" if math.isfinite(p.slope) else "-"
        ratio = "".join(f"{_figure(v, '.2g'):>10}" for v in (p.least, p.median, p.most))
        lines.append(
            f"{p.solver:<24}{p.problem:<20}{p.points:>7}{slope:>15}"
            f"{_figure(p.residual, '.2f'):>10}{ratio}"
        )
    return "\n".join(lines)
