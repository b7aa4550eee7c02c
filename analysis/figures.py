"""Pictures of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quadflow.adapters.extras import require

from .convergence import OrderMeasurement

# Okabe & Ito's colours, told apart by colour-blind readers; markers say the same once more
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def _pyplot() -> Any:
    matplotlib = require("matplotlib", "analysis")
    matplotlib.use("Agg")
    return require("matplotlib.pyplot", "analysis")


def convergence_plot(path: Path, measurements: Sequence[OrderMeasurement]) -> None:
    """Error against sequential calls of f, a panel a problem, with lines of the promised order."""
    plt = _pyplot()
    names = list(dict.fromkeys(m.problem for m in measurements))
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.6 * len(names), 4.4), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], names, strict=True):
        here = [m for m in measurements if m.problem == name]
        for colour, marker, m in zip(COLOURS, MARKERS, here, strict=False):
            steps, errors = np.array(m.steps, float), np.array(m.errors)
            used = np.array(m.used)
            axis.loglog(steps[used], errors[used], color=colour, marker=marker, linestyle="none",
                        label=f"{m.method}: {m.order:.2f} (promised {m.promised})")  # fmt: skip
            axis.loglog(steps[~used], errors[~used], color=colour, marker=marker,
                        linestyle="none", markerfacecolor="none", alpha=0.5)  # fmt: skip
            if m.promised is not None and used.any():
                anchor = np.flatnonzero(used)[-1]
                line = errors[anchor] * (steps / steps[anchor]) ** -float(m.promised)
                axis.loglog(steps, line, color=colour, linewidth=1)
        axis.set_ylim(1e-15, None)
        axis.set_title(name)
        axis.set_xlabel("number of steps")
        axis.grid(True, which="major", alpha=0.3)
        axis.legend(fontsize=8, title="measured order", title_fontsize=8)
    axes[0][0].set_ylabel("relative error at the end")
    figure.suptitle(
        "Gauss-Lobatto collocation (dots) against its promised global order 2n-2 (lines)"
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
    plt = _pyplot()
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
