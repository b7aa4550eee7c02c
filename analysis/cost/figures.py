"""Work-precision diagrams, and achieved error against tolerance, drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...checks import check_choice
from ..report.panels import Panels, styles
from .rows import COSTS, Row, problems_in, rows_of, solvers_in


def _points(axis: Any, rows: Sequence[tuple[float, float, bool] | None], style: Any) -> None:
    """Marks, hollow where a row is not usable, joined between neighbours that are; None: failed."""
    x = np.array([r[0] if r and r[2] else math.nan for r in rows])
    y = np.array([r[1] if r and r[2] else math.nan for r in rows])
    axis.plot(x, y, markersize=4.5, linewidth=1.1, **style)
    hollow = [r for r in rows if r and not r[2]]
    if hollow:
        axis.plot(
            [r[0] for r in hollow], [r[1] for r in hollow], markersize=4.5,
            **{**style, "linestyle": "none", "markerfacecolor": "white"},
        )  # fmt: skip


def _failures(axis: Any, rows: Mapping[str, Sequence[Row]], where: str) -> None:
    """Who failed how often, said in the panel's "top" or "bottom" left."""
    lines = []
    for solver, of in rows.items():
        failed = sum(r.failure is not None for r in of)
        if failed:
            lines.append(f"{solver} failed: {failed} of {len(of)}")
    if len(lines) > 6:
        lines = [*lines[:5], f"and {len(lines) - 5} more solvers"]
    if lines:
        axis.text(
            0.02, 0.98 if where == "top" else 0.02, "\n".join(lines), fontsize=5.5, va=where,
            color="0.25", transform=axis.transAxes,
        )  # fmt: skip


def _panel(
    axis: Any,
    rows: Mapping[str, Sequence[Row]],
    point: Callable[[Row], tuple[float | None, float | None]],
    style: Mapping[str, Any],
    failures: str,
) -> None:
    """A curve a solver through the points of its rows; accuracy grows to the right."""
    for solver, of in rows.items():
        places = [(*point(r), r) for r in of]
        marks = [
            None if not r.error or x is None or y is None else (float(x), float(y), r.usable)
            for x, y, r in places
        ]
        _points(axis, marks, {**style[solver], "label": solver})
    _failures(axis, rows, failures)
    axis.invert_xaxis()


def work_precision_plot(
    path: str | Path, rows: Sequence[Row], cost: str = "nfe", *, command: str = ""
) -> None:
    """Draw cost against achieved relative error, a panel a problem; accuracy grows to the right.

    Args:
        path: .pdf, .svg or .png. cost: "nfe", "calls" or "seconds".
        command: what reproduces it, printed below and kept in the file's metadata.

    Hollow marks are at the reference's accuracy: their solver may be better than it shows. Failed
    solves break the line, and are counted in the panel.

    Raises:
        ValueError: unknown cost, another suffix, or no rows.
        MissingExtraError: matplotlib is not installed.
    """
    check_choice(cost, COSTS, "cost")
    style = styles(solvers_in(rows))
    title = f"Work and precision: {COSTS[cost]}"
    with Panels(path, problems_in(rows), title, command, log="xy") as p:
        for name, axis in p.axes.items():
            here = {s: rows_of(rows, s, name) for s in style}
            _panel(axis, here, lambda r: (r.error, getattr(r, cost)), style, "top")
        p.label("achieved relative error at the end", COSTS[cost])


def proportionality_plot(path: str | Path, rows: Sequence[Row], *, command: str = "") -> None:
    """Draw achieved relative error against relative tolerance, with the line where they are equal.

    Args:
        path: .pdf, .svg or .png. rows: solvers without error control are left out.
        command: as in `work_precision_plot`.

    Raises:
        ValueError: another suffix, or no rows with tolerances.
        MissingExtraError: matplotlib is not installed.
    """
    style = styles(solvers_in(rows))
    rows = [r for r in rows if r.tolerance is not None]
    solvers = solvers_in(rows)
    title = "Achieved error against tolerance"
    with Panels(path, problems_in(rows), title, command, log="xy") as p:
        for name, axis in p.axes.items():
            here = {s: rows_of(rows, s, name) for s in solvers}
            levels = sorted({r.tolerance for of in here.values() for r in of if r.tolerance})
            axis.plot(
                [levels[0], levels[-1]], [levels[0], levels[-1]], color="0.3", linewidth=0.9,
                linestyle=(0, (5, 2)), label="error = tolerance", zorder=1,
            )  # fmt: skip
            _panel(axis, here, lambda r: (r.tolerance, r.error), style, "bottom")
        p.label("relative tolerance", "achieved relative error at the end")
