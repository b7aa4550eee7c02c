"""Pictures of the demo and of judged samplers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import require
from ..orders.points import OrderPoints
from .panels import COLOURS, MARKERS, pyplot

Tiles = Mapping[str, Mapping[int, np.ndarray]]
"""method -> NFE -> images laid out as one array."""

CELL = 2.3
"""Width of a tile, inches."""
BRIGHTEST = 0.99
"""Part of all pixels of a column's difference maps that its colour scale covers."""


def convergence_plot(path: Path, measurements: Sequence[OrderPoints]) -> None:
    """Error against number of steps, a panel a problem, with lines of the promised order."""
    plt = pyplot()
    ticker = require("matplotlib.ticker", "analysis")
    names = list(dict.fromkeys(m.problem for m in measurements))
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.4 * len(names), 5.2), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], names, strict=True):
        here = [m for m in measurements if m.problem == name]
        for colour, marker, m in zip(COLOURS, MARKERS, here, strict=False):
            steps, errors, used = np.array(m.steps, float), np.array(m.errors), np.array(m.used)
            label = f"{m.method}: measured {m.order:.2f}, promised {m.promised}"
            style = {"color": colour, "marker": marker, "linestyle": "none"}
            axis.loglog(steps[used], errors[used], label=label, **style)
            # hollow: below the rounding floor, not used for the slope
            axis.loglog(steps[~used], errors[~used], markerfacecolor="none", **style)
            if m.promised is not None and used.any():
                first = np.flatnonzero(used)[0]
                line = errors[first] * (steps / steps[first]) ** -float(m.promised)
                axis.loglog(steps, line, color=colour, linewidth=1)
        ticks = sorted({m.steps[0] for m in here} | {m.steps[-1] for m in here})
        axis.xaxis.set_major_locator(ticker.FixedLocator(ticks))
        axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.tick_params(axis="x", labelrotation=45)
        axis.set_title(name)
        axis.set_xlabel("number of equal steps")
        axis.grid(True, axis="y", alpha=0.3)
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    axes[0][0].set_ylabel("relative error at the end of the span")
    figure.suptitle(
        "Gauss-Lobatto collocation (marks; hollow: near rounding, not fitted) "
        "and its promised global order 2n-2 (lines)"
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def sample_grid(
    path: Path,
    cells: Tiles,
    reference: np.ndarray,
    errors: Mapping[str, Mapping[int, float]],
    title: str,
    *,
    differences: Tiles | None = None,
) -> None:
    """Draw tiles of images: a row a method, a column an NFE, the converged solution above all.

    The least RMSE of a column is bold.

    Args:
        path: of the PNG.
        cells: uint8 pixels (H, W) or (H, W, 3) of one size; a method may lack an NFE.
        reference: pixels of the converged solution, the same size.
        errors: method -> NFE -> RMSE, written under the tile.
        title: above all.
        differences: distances (H, W) >= 0 to the converged solution, pixel by pixel, for every
            tile: drawn under it as a map, in colours that are the same for all methods of a column
            and whose scale stands below. Default: no maps.

    Raises:
        ValueError: a tile without a map of its size.
    """
    _check_maps(cells, reference, differences)
    rows = list(cells)
    columns = sorted({nfe for row in cells.values() for nfe in row})
    high, wide = reference.shape[:2]
    strip = CELL * high / wide
    tall = strip if differences is None else 2 * strip
    plt = pyplot()
    across = CELL * len(columns) + 0.9
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, int(11 * across))]
    figure, axes = plt.subplots(
        len(rows) + 1, len(columns), squeeze=False, layout="constrained",
        height_ratios=[strip, *[tall] * len(rows)],
        figsize=(
            across,
            strip + (tall + 0.2) * len(rows) + 0.2 * len(lines)
            + (0.3 if differences is None else 0.8),
        ),
    )  # fmt: skip
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.02, hspace=0, wspace=0)
    for drawn, nfe in zip(axes.T, columns, strict=True):
        _tile(drawn[0], reference)
        drawn[0].set_title(f"NFE {nfe}", fontsize=11)
        maps = {m: differences[m][nfe] for m in rows if nfe in cells[m]} if differences else {}
        scale = _Scale(list(maps.values())) if maps else None
        least = min(errors[m][nfe] for m in rows if nfe in cells[m])
        for axis, method in zip(drawn[1:], rows, strict=True):
            if nfe not in cells[method]:
                _tile(axis, np.full_like(reference, 255), "–")
                continue
            pixels, error = cells[method][nfe], errors[method][nfe]
            pixels = pixels if scale is None else scale.under(pixels, maps[method])
            _tile(axis, pixels, f"RMSE {error:.3f}", best=error == least)
        if scale is not None:
            scale.bar(figure, drawn)
    for axis, name in zip(axes[:, 0], ["converged", *rows], strict=True):
        axis.set_ylabel(name, fontsize=10, rotation=0, ha="right", va="center", labelpad=6)
    figure.suptitle("\n".join(lines), fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _check_maps(cells: Tiles, reference: np.ndarray, differences: Tiles | None) -> None:
    if differences is None:
        return
    for method, row in cells.items():
        for nfe in row:
            found = differences.get(method, {}).get(nfe)
            shape = None if found is None else found.shape
            if shape != reference.shape[:2]:
                raise ValueError(
                    f"differences of {method!r} at NFE {nfe} must be of shape "
                    f"{reference.shape[:2]}, got {shape}"
                )


def _tile(axis: Any, pixels: np.ndarray, text: str = "", best: bool = False) -> None:
    axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_xlabel(text, fontsize=9, labelpad=2, weight="bold" if best else "normal")


class _Scale:
    """The colours of a column's difference maps, from 0 to what all but a few pixels reach."""

    def __init__(self, maps: Sequence[np.ndarray]) -> None:
        colours = require("matplotlib.colors", "analysis")
        most = float(np.quantile(np.concatenate([m.ravel() for m in maps]), BRIGHTEST))
        self.norm = colours.Normalize(0, most or 1.0, clip=True)
        self.map = require("matplotlib", "analysis").colormaps["inferno"]

    def under(self, pixels: np.ndarray, differences: np.ndarray) -> np.ndarray:
        """Pixels (H, W[, 3]), a white line, and their map: uint8 (2H + 1, W, 3)."""
        grey = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
        coloured = self.map(self.norm(differences), bytes=True)[..., :3]
        return np.concatenate([grey, np.full_like(grey[:1], 255), coloured])

    def bar(self, figure: Any, axes: Any) -> None:
        """The scale below a column."""
        plt = pyplot()
        drawn = plt.cm.ScalarMappable(self.norm, self.map)
        bar = figure.colorbar(
            drawn, ax=list(axes), location="bottom", extend="max", aspect=22, pad=0.005, shrink=0.9
        )
        step = _round_down(self.norm.vmax)
        bar.set_ticks([0, step / 2, step], labels=["0", f"{step / 2:g}", f"{step:g}"])
        bar.ax.tick_params(labelsize=8)
        bar.set_label("|sample − converged|, pixels in [−1, 1]", fontsize=8)


def _round_down(x: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above x > 0."""
    power = 10.0 ** math.floor(math.log10(x))
    return max(m * power for m in (1, 2, 5) if m * power <= x * (1 + 1e-9))
