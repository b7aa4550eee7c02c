"""Reliability diagrams: estimated and true local errors of a solve, as text, in files, drawn."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...storage import json_number, write_json
from ..report.panels import COLOURS, Panels, styles
from ..report.records import written

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of the ratio of estimated and true error that are told."""


@dataclass(frozen=True)
class Reliability:
    """Estimated and true local errors of the accepted steps of one adaptive solve.

    solver, problem: names. tolerance: relative. accepted: steps of the solve. starts, sizes: of the
    steps judged, in time. estimates, errors: estimated and true, largest entry, in units of the
    state. floors: a true error below is rounding or the local reference's own error, and takes no
    part. failure: why there is nothing to judge. remark: what else is to be known.
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

    def __str__(self) -> str:
        return reliability_text([self])

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON: None stands for what is no number."""
        return written(self) | {
            "judged": int(self.judged.sum()),
            "quantiles": {str(q): json_number(v) for q, v in self.quantiles.items()},
            "underestimates": json_number(self.underestimates),
        }

    def plot(self, path: str | Path, *, command: str = "") -> None:
        """Draw estimate against true error; the suffix (pdf, svg, png) says the format.

        command: kept in the file, as what reproduces it.
        """
        reliability_plot(path, [self], command=command)


def reliability_plot(
    path: str | Path, measurements: Sequence[Reliability], *, command: str = ""
) -> None:
    """Draw estimated against true local error, a mark a step, a panel a problem.

    Marks above the diagonal are safe, those below it (shaded) are underestimates. Steps whose true
    error is rounding are left out.

    Args:
        path: .pdf, .svg or .png. measurements: at least one with judged steps. command: what
            reproduces it, printed below and kept in the file's metadata.

    Raises:
        ValueError: another suffix, or nothing to draw.
        MissingExtraError: matplotlib is not installed.
    """
    drawn = [m for m in measurements if m.judged.any()]
    if not drawn:
        why = "; ".join(
            f"{m.solver}: {m.failure or 'no step above rounding'}" for m in measurements
        )
        raise ValueError(f"there is nothing to draw: {why or 'no measurements'}")
    tolerances = dict.fromkeys(m.tolerance for m in drawn)
    names = list(dict.fromkeys(m.problem for m in drawn))

    def label(m: Reliability) -> str:
        return m.solver if len(tolerances) == 1 else f"{m.solver} at {m.tolerance:.0e}"

    style = styles(list(dict.fromkeys(label(m) for m in drawn)))
    title = "Estimated against true local error"
    if len(tolerances) == 1:
        title += f", relative tolerance {next(iter(tolerances)):.0e}"
    with Panels(path, names, title, command, log="xy") as panels:
        for name, axis in panels.axes.items():
            here = [m for m in drawn if m.problem == name]
            for m in here:
                keep, many = m.judged, list(style).index(label(m)) >= len(COLOURS)
                axis.plot(
                    np.array(m.errors)[keep], np.array(m.estimates)[keep], label=label(m),
                    markersize=3.2, alpha=0.7,
                    markeredgewidth=0.8 if many else 0, fillstyle="none" if many else "full",
                    **{**style[label(m)], "linestyle": "none"},
                )  # fmt: skip
            x, y = axis.get_xlim(), axis.get_ylim()
            ends = np.array([min(x[0], y[0]), max(x[1], y[1])])
            axis.plot(ends, ends, color="0.3", linewidth=0.9, label="estimate = true", zorder=1)
            axis.fill_between(
                ends, ends[0], ends, color="0.5", alpha=0.13, linewidth=0, label="underestimates",
                zorder=0,
            )  # fmt: skip
            axis.set_xlim(x)
            axis.set_ylim(y)
        panels.label("true local error (units of y)", "estimate (units of y)")


def save_reliabilities(
    path: str | Path, measurements: Sequence[Reliability], *, command: str = ""
) -> None:
    """Write them as JSON, whole or not at all."""
    diagrams = [m.to_dict() for m in measurements]
    write_json(path, {"kind": "reliability", "command": command, "diagrams": diagrams})


def reliability_text(measurements: Sequence[Reliability]) -> str:
    """One line a measurement: quantiles of estimate/true and the fraction of underestimates."""
    head = "".join(f"{f'{100 * q:.0f} %':>9}" for q in QUANTILES)
    lines = [
        "estimated over true local error of the accepted steps",
        f"{'solver':<24}{'problem':<20}{'tol':>7}{'steps':>7}{'judged':>8}{head}{'under':>8}",
    ]
    for m in measurements:
        line = f"{m.solver:<24}{m.problem:<20}{m.tolerance:>7.0e}"
        if m.failure is not None:
            lines.append(f"{line}  none: {m.failure}")
            continue
        cells = "".join(
            f"{value:>9.2g}" if math.isfinite(value) else f"{'-':>9}"
            for value in m.quantiles.values()
        )
        under = f"{100 * m.underestimates:.0f} %" if m.judged.any() else "-"
        remark = f"  ({m.remark})" if m.remark else ""
        lines.append(f"{line}{m.accepted:>7}{int(m.judged.sum()):>8}{cells}{under:>8}{remark}")
    return "\n".join(lines)
