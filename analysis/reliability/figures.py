"""Reliability diagrams of error estimates, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..report.panels import COLOURS, Panels, styles
from .local_errors import LocalErrors


def reliability_plot(
    path: str | Path, measurements: Sequence[LocalErrors], *, command: str = ""
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

    def label(m: LocalErrors) -> str:
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
