"""Stability regions and order stars, drawn."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import require
from ..exact.rational_functions import RationalFunction, logarithm_series
from ..report.panels import COLOURS, check_figure_path, pyplot, save_figure
from .report import (
    StabilitySubject,
    is_multistep,
    method_title,
    spectral_radius,
    stability_function,
)

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
"""Line styles that tell methods apart without colour."""

Extent = tuple[float, float, float, float]
"""(least Re z, greatest Re z, least Im z, greatest Im z)."""

_POINTS = 400  # a side of the grid on which a region is contoured


def stability_region(
    path: str | Path,
    methods: Sequence[StabilitySubject],
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    extent: Extent | None = None,
    command: str | None = None,
) -> None:
    """Draw where all modes of y' = λy stay bounded: {z = hλ: the spectral radius is <= 1}.

    Args:
        path: .pdf, .svg or .png.
        methods: one to six; a rule means implicit collocation. One is filled, several are outlined
            and lightly filled, the stable side always inside the shading.
        labels: legend entries; the methods' titles by default.
        extent: the part of the plane; by default bounded regions are shown whole, and of unbounded
            ones the part around the poles.
        command: what reproduces the figure; kept in the file's metadata.

    Raises:
        ValueError: no method, more than there are colours, labels that do not fit, an extent that
            is none, or another suffix.
        TypeError: a method without known stability.
    """
    methods = list(methods)
    if not 1 <= len(methods) <= len(COLOURS):
        raise ValueError(f"methods has {len(methods)} entries, must have 1 to {len(COLOURS)}")
    names = [method_title(m) for m in methods] if labels is None else list(labels)
    title = title or (names[0] if len(names) == 1 else "Stability regions")
    if labels is None and len(names) == 1:
        names = [
            "stable: |R(z)| ≤ 1" if not is_multistep(methods[0]) else "stable: all |roots| ≤ 1"
        ]
    if len(names) != len(methods):
        raise ValueError(f"labels has {len(names)} entries for {len(methods)} methods")
    radii: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda z, method=method: spectral_radius(method, z)  # type: ignore[misc]
        for method in methods
    ]
    box = _checked(extent) if extent else _union([_interesting(m) for m in methods])
    with _Drawing(path, box, title, command) as axis:
        z = _grid(box)
        handles = []
        for i, (radius, name) in enumerate(zip(radii, names, strict=True)):
            with np.errstate(divide="ignore"):  # at a zero of R
                height = np.log(radius(z))
            handles.append(_shade(axis, z, height, i, name, len(names)))
        _legend(axis, handles)


def spread(methods: Sequence[StabilitySubject]) -> list[StabilitySubject]:
    """As many of the methods as a figure has colours for, the first, the last and some between."""
    count = min(len(methods), len(COLOURS))
    places = np.linspace(0, len(methods) - 1, count).round().astype(int)
    return [methods[i] for i in places]


def order_star(
    path: str | Path,
    method: StabilitySubject | RationalFunction,
    *,
    title: str | None = None,
    extent: Extent | None = None,
    command: str | None = None,
) -> None:
    """Draw the order star {z: |R(z)| > |exp(z)|} with the zeros and poles of R.

    p + 1 sectors of width π/(p+1) meet at 0 for an R of order p; a method is A-stable if and only
    if the star does not meet the imaginary axis and all poles lie to its right (Wanner, Hairer &
    Nørsett 1978).

    Args:
        path: .pdf, .svg or .png. method: a one-step method or its R. title, extent, command: see
            `stability_region`.

    Raises:
        TypeError: a multistep method, whose star lies on a Riemann surface.
        ValueError: another suffix, or an extent that is none.
    """
    if isinstance(method, RationalFunction):
        function, name = method, "R"
    else:
        if is_multistep(method):
            raise TypeError(
                f"order_star needs a one-step method, {method_title(method)} is a multistep one: "
                "its order star lies on a Riemann surface of several sheets"
            )
        function, name = stability_function(method), method_title(method)
    zeros = np.roots([float(a) for a in reversed(function.numerator)])
    poles = function.poles()
    if extent is None:
        size = max(2.0, 1.35 * max((abs(x) for x in (*zeros, *poles)), default=0.0))
        extent = (-size, size, -size, size)
    box = _checked(extent)
    with _Drawing(path, box, title or f"Order star of {name}", command) as axis:
        z = _grid(box)
        lines = require("matplotlib.lines", "analysis")
        height = _below_exponential(function, z, min(map(abs, (*zeros, *poles)), default=1.0))
        handles = [_shade(axis, z, height, 0, "|R(z)| > |exp(z)|", 1)]
        for points, marker, what in ((zeros, "o", "zeros of R"), (poles, "x", "poles of R")):
            if not len(points):
                continue
            style: dict[str, Any] = {
                "marker": marker,
                "color": COLOURS[1],
                "markerfacecolor": "white",
                "markeredgewidth": 1.5,
                "linestyle": "none",
                "markersize": 6,
            }
            axis.plot(points.real, points.imag, **style, zorder=4)
            handles.append(lines.Line2D([], [], label=what, **style))
        _legend(axis, handles)


def _below_exponential(function: RationalFunction, z: np.ndarray, radius: float) -> np.ndarray:
    """log |exp(z)| - log |R(z)|; near 0, where that is rounding, by the series of log R - z."""
    with np.errstate(divide="ignore"):
        height = z.real - np.log(np.abs(function(z)))
    log = list(logarithm_series(function.series(48)))
    log[1] -= 1
    near = np.abs(z) < 0.4 * radius  # of convergence, where 48 terms leave 0.4^48
    height[near] = -np.polyval([float(a) for a in reversed(log)], z[near]).real
    # only the sign is drawn; undoing the growth with z^(p+1) lets contours run into the origin
    power = next((k for k, a in enumerate(log) if a), 0)
    return height / np.minimum(np.abs(z) / radius, 1.0) ** power


# -- parts --------------------------------------------------------------------------------------


class _Drawing:
    """A figure of the complex plane, written on a normal exit."""

    def __init__(self, path: str | Path, box: Extent, title: str, command: str | None) -> None:
        self.path, self.box = check_figure_path(path), box
        self.title, self.command, self.plt = title, command, pyplot()

    def __enter__(self) -> Any:
        left, right, bottom, top = self.box
        shape = (top - bottom) / (right - left)
        width = min(5.4, 6.0 / shape + 0.8)
        height = max(2.4, (width - 0.8) * shape + 1.4)  # axis labels, title and legend besides
        self.figure, axis = self.plt.subplots(figsize=(width, height), layout="constrained")
        axis.axhline(0, color="0.45", linewidth=0.7, zorder=1)
        axis.axvline(0, color="0.45", linewidth=0.7, zorder=1)
        axis.set_xlim(left, right)
        axis.set_ylim(bottom, top)
        axis.set_aspect("equal")
        axis.set_xlabel("Re z,  z = hλ (dimensionless)")
        axis.set_ylabel("Im z")
        lines = textwrap.wrap(self.command or "", 75, break_on_hyphens=False)
        axis.set_title(self.title, fontsize=11, pad=6 + 7 * len(lines))
        # how to make it again, small, between title and picture
        axis.text(
            0.5, 1.01, "\n".join(lines), transform=axis.transAxes, fontsize=5, color="0.35",
            family="monospace", ha="center", va="bottom",
        )  # fmt: skip
        return axis

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            save_figure(self.figure, self.path, self.title, self.command or "")
        self.plt.close(self.figure)


def _shade(axis: Any, z: np.ndarray, height: np.ndarray, i: int, label: str, of: int) -> Any:
    """Fill where height <= 0 and draw its boundary; returns the legend's handle."""
    colour, line = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
    height = np.clip(np.nan_to_num(height, nan=50.0, posinf=50.0, neginf=-50.0), -50.0, 50.0)
    alpha = 0.28 if of == 1 else 0.08
    if height.min() <= 0:
        axis.contourf(
            z.real, z.imag, height, levels=[-60.0, 0.0], colors=[colour], alpha=alpha, zorder=2
        )
        # symmetric methods: |R| = 1 on the whole axis, where rounding would draw noise
        axis.contour(
            z.real, z.imag, height, levels=[0.0], colors=[colour], linestyles=[line],
            linewidths=1.5, zorder=3,
        )  # fmt: skip
    faded = require("matplotlib.colors", "analysis").to_rgba(colour, alpha)
    return require("matplotlib.patches", "analysis").Patch(
        facecolor=faded, edgecolor=colour, linestyle=line, linewidth=1.4,
        label=label,
    )  # fmt: skip


def _legend(axis: Any, handles: Sequence[Any]) -> None:
    axis.figure.legend(
        handles=handles, fontsize=8.5, loc="outside lower center", ncols=min(3, len(handles)),
        frameon=False, handlelength=2.6,
    )  # fmt: skip


def _grid(box: Extent) -> np.ndarray:
    left, right, bottom, top = box
    aspect = (top - bottom) / (right - left)
    across = max(80, round(_POINTS / max(1.0, aspect)))
    # an even number of points up and down: no grid line lies on the real axis, where stars close
    up = max(80, 2 * round(_POINTS * min(1.0, aspect) / 2))
    x, y = np.linspace(left, right, across), np.linspace(bottom, top, up)
    return x[None, :] + 1j * y[:, None]


def _checked(extent: Extent) -> Extent:
    left, right, bottom, top = extent
    if not (all(math.isfinite(v) for v in extent) and left < right and bottom < top):
        raise ValueError(
            f"extent {extent} must be (left, right, bottom, top) with left < right, bottom < top"
        )
    return extent


def _union(boxes: Sequence[Extent]) -> Extent:
    left, right, bottom, top = zip(*boxes, strict=True)
    return min(left), max(right), min(bottom), max(top)


def _interesting(method: StabilitySubject) -> Extent:
    """A bounded region with a margin, or the surroundings of the poles of an unbounded one."""
    limit = None if is_multistep(method) else stability_function(method).at_infinity
    if limit is not None and abs(limit) == 1:
        poles = stability_function(method).poles()
        size = max(3.0, 1.6 * max((abs(p) for p in poles), default=0.0))
        return -size, size, -size, size
    bounded_is_stable = limit is None or abs(limit) > 1
    size = 1.0
    while True:  # of what is bounded, perhaps in pieces: grow the box until the rim is free of it
        z = _grid((-size, size, -size, size))[::4, ::4]
        piece = (spectral_radius(method, z) <= 1) == bounded_is_stable
        rim = np.concatenate([piece[0], piece[-1], piece[:, 0], piece[:, -1]])
        if not rim.any() and piece.any():
            break
        size *= 1.5
        if size > 1000:
            raise ValueError(f"{method_title(method)}: no bounded region found, give an extent")
    inside = z[piece]
    if not bounded_is_stable:
        size = 1.15 * float(max(inside.real.max(), inside.imag.max()))
        return -0.7 * size, size, -size, size
    width, height = np.ptp(inside.real), np.ptp(inside.imag)
    margin = 0.12 * max(width, height)
    top = float(np.abs(inside.imag).max()) + margin
    return float(inside.real.min()) - margin, float(inside.real.max()) + margin, -top, top
