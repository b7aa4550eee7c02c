"""Pictures of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...extras import require
from ..orders.convergence import OrderMeasurement

# Okabe & Ito's colours, told apart by colour-blind readers; markers say the same once more
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def pyplot() -> Any:
    matplotlib = require("matplotlib", "analysis")
    matplotlib.use("Agg")
    return require("matplotlib.pyplot", "analysis")


def convergence_plot(path: Path, measurements: Sequence[OrderMeasurement]) -> None:
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
    cells: Mapping[str, Mapping[int, np.ndarray]],
    reference: np.ndarray,
    errors: Mapping[str, Mapping[int, float]],
    title: str,
) -> None:
    """Tiles of images: a row a method, a column an NFE, the converged solution last."""
    plt = pyplot()
    rows, columns = list(cells), list(next(iter(cells.values())))
    height, width = reference.shape[:2]
    cell_w = 2.1
    figure, axes = plt.subplots(
        len(rows),
        len(columns) + 1,
        figsize=(
            cell_w * (len(columns) + 1) + 0.6,
            (cell_w * height / width + 0.22) * len(rows) + 0.6,
        ),
        layout="constrained",
        squeeze=False,
    )
    for i, row in enumerate(rows):
        for j, column in enumerate([*columns, None]):
            axis = axes[i][j]
            pixels = reference if column is None else cells[row][column]
            axis.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if column is not None:
                axis.set_xlabel(f"RMSE {errors[row][column]:.3f}", fontsize=8, labelpad=1)
            if i == 0:
                axis.set_title("converged" if column is None else f"NFE {column}", fontsize=10)
            if j == 0:
                axis.set_ylabel(row, fontsize=10)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)
