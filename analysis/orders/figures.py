"""Measured orders, drawn: errors with their lines, and the slopes between neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import require
from ..report.panels import Panels, styles, tidy_log
from .points import OrderPoints


def order_plot(
    path: str | Path,
    measurements: Sequence[OrderPoints],
    *,
    title: str | None = None,
    command: str = "",
) -> None:
    """Error against number of steps, and slope against number of steps.

    Filled marks are the points that the line is fitted to, hollow ones are those left out
    (pre-asymptotic, rounding); dotted lines have the promised order.

    Args:
        path: .pdf, .svg or .png.
        measurements: those without a finite error are left out.
        title: above the figure; by default the method and the problem, where they are the same.
        command: what reproduces the figure, printed below and kept in the file's metadata.

    Raises:
        ValueError: no measurement with a finite error, or a path of another suffix.
    """
    drawn = [m for m in measurements if any(0 < e < math.inf for e in m.errors)]
    if not drawn:
        reasons = "; ".join(dict.fromkeys(m.reason for m in measurements)) or "none was given"
        raise ValueError(f"there is no measurement to draw: {reasons}")
    common = [
        values.pop() if len(values := {getattr(m, part) for m in drawn}) == 1 else None
        for part in ("method", "problem", "of")
    ]
    if title is None:
        method, problem = common[:2]
        title = " on ".join(filter(None, (method, problem))) or "Measured orders"
    labels = [_label(m, common) for m in drawn]
    look = styles(labels)
    names = "error (hollow: not fitted)", "slopes (dotted: promised)"
    with Panels(path, names, title, command, log="x") as panels:
        errors, slopes = (panels.axes[name] for name in names)
        for m, label in zip(drawn, labels, strict=True):
            _errors(errors, m, label, look[label])
            _slopes(slopes, m, look[label])
        errors.set_yscale("log")
        tidy_log(errors, "y")
        slopes.set_xlim(errors.get_xlim())
        for axis in (errors, slopes):
            axis.set_xlabel("number of equal steps n", fontsize=9)
        errors.set_ylabel(_unit(drawn), fontsize=9)
        slopes.set_ylabel("order p, error ~ n$^{-p}$", fontsize=9)
        top = max([m.promised or 0 for m in drawn] + [m.slope for m in drawn if m.slope > 0])
        slopes.set_ylim(0, max(2.0, top + 2.0))
        slopes.yaxis.set_major_locator(
            require("matplotlib.ticker", "analysis").MaxNLocator(8, integer=True)
        )


def _label(m: OrderPoints, common: Sequence[Any]) -> str:
    parts = [p for p, same in zip((m.method, m.problem, m.of), common, strict=True) if same is None]
    name = ", ".join(parts) or m.of
    got = f"{m.order:.2f} ± {m.half_width:.2f}" if m.trusted else "no order"
    promised = "" if m.promised is None else f", promised {m.promised}"
    return f"{name}: {got}{promised}"


def _unit(drawn: Sequence[OrderPoints]) -> str:
    words = {m.of for m in drawn}
    if len(words) > 1:
        return "relative error"
    return {
        "endpoint": "relative error at the end",
        "dense": "largest relative error between steps",
        "estimate": "relative error estimate of one step",
        "event": "relative error of the event's time",
        "gradient": "relative error of the gradient",
        "local": "relative error of one step",
    }.get(words.pop(), "relative error")


def _errors(axis: Any, m: OrderPoints, label: str, look: dict[str, Any]) -> None:
    steps, errors = np.array(m.steps, float), np.array(m.errors)
    used, drawn = np.array(m.used), np.isfinite(errors) & (errors > 0)
    marks = {"color": look["color"], "marker": look["marker"], "linestyle": "none"}
    axis.plot(steps[used], errors[used], label=label, markersize=5, **marks)
    left = drawn & ~used
    axis.plot(steps[left], errors[left], markersize=5, markerfacecolor="none", **marks)
    if used.any() and math.isfinite(m.slope):
        x, y = np.log(steps[used]), np.log(errors[used])
        middle = float(np.mean(x)), float(np.mean(y))
        for slope, line in ((m.slope, "-"), (m.promised, ":")):
            if slope is not None:
                values = np.exp(middle[1] - slope * (np.log(steps[drawn]) - middle[0]))
                inside = values < 10 * errors[drawn].max()
                axis.plot(
                    steps[drawn][inside], values[inside], line, color=look["color"], linewidth=1
                )


def _slopes(axis: Any, m: OrderPoints, look: dict[str, Any]) -> None:
    points = [
        (n, e, used)
        for n, e, used in zip(m.steps, m.errors, m.used, strict=True)
        if 0 < e < math.inf
    ]
    for (n, e, a), (n1, e1, b) in pairwise(points):
        axis.plot(
            math.sqrt(n * n1), math.log(e / e1) / math.log(n1 / n), color=look["color"],
            marker=look["marker"], markersize=5, linestyle="none",
            markerfacecolor=look["color"] if a and b else "none",
        )  # fmt: skip
    if m.promised is not None:
        axis.axhline(m.promised, color=look["color"], linestyle=":", linewidth=1)
