"""Figures that a paper could use: panels with one legend, the command below, reproducible files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...extras import require
from ...storage import whole_file

# Okabe & Ito's colours, told apart by colour-blind readers; markers say the same once more
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")

SUFFIXES = (".pdf", ".svg", ".png")
"""Formats of a figure, by the suffix of its path."""

_LINES = ("-", "--", ":")
_PANEL = 3.5, 2.9  # inches


def pyplot() -> Any:
    """matplotlib.pyplot, drawing to files alone.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "analysis").use("Agg")
    return require("matplotlib.pyplot", "analysis")


def check_figure_path(path: str | Path) -> Path:
    """`path` of a figure.

    Raises:
        ValueError: another suffix, a folder, or in no folder.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path {path} must end in one of {', '.join(SUFFIXES)} to say the format")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"path {path} must be a file in a folder that exists")
    return path


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line for each name, all three telling them apart."""
    n = len(COLOURS)
    return {
        name: {
            "color": COLOURS[i % n],
            "marker": MARKERS[(i + i // n) % len(MARKERS)],
            "linestyle": _LINES[i // n % len(_LINES)],
        }
        for i, name in enumerate(names)
    }


def save_figure(figure: Any, path: Path, title: str, command: str) -> None:
    """Write a figure whole, with title and the command that reproduces it as metadata.

    The same figure gives the same bytes: no dates, no random names.
    """
    matplotlib = require("matplotlib", "analysis")
    suffix = path.suffix.lower()
    metadata: dict[str, Any] = {"Title": title}
    if suffix == ".pdf":
        metadata |= {"Subject": command, "CreationDate": None}
    else:
        metadata |= {"Description": command} | ({"Date": None} if suffix == ".svg" else {})
    fixed = {"svg.hashsalt": "quadflow", "svg.fonttype": "none", "pdf.fonttype": 42}
    with matplotlib.rc_context(fixed), whole_file(path) as file:
        figure.savefig(file, format=suffix[1:], dpi=200, metadata=metadata)


class Panels:
    """A figure of one panel a name, with one legend and a caption below; written on a normal exit.

    `with Panels(path, names, title, command) as panels:` and draw on panels.axes[name]. log: which
    axes are logarithmic, "x", "y" or "xy"; their ticks are tidied when everything is drawn.
    """

    def __init__(
        self, path: str | Path, names: Sequence[str], title: str, command: str, log: str = ""
    ) -> None:
        if not names:
            raise ValueError("there is nothing to draw: no rows")
        self.path, self.title, self.command = check_figure_path(path), title, command
        self._plt, self._log = pyplot(), log
        n = len(names)
        across = min(n, 2 if n == 4 else 3 if n <= 9 else 4 if n <= 20 else 5)
        down = math.ceil(n / across)
        self._width = max(5.2, _PANEL[0] * across)
        self._height = _PANEL[1] * down + 0.3
        self.figure, axes = self._plt.subplots(
            down, across, figsize=(self._width, self._height), squeeze=False, layout="constrained"
        )
        flat = list(axes.ravel())
        self.axes = dict(zip(names, flat, strict=False))
        for unused in flat[len(names) :]:
            unused.set_axis_off()
        for name, axis in self.axes.items():
            axis.set_title(name, fontsize=10)
            axis.tick_params(labelsize=8)
            axis.grid(True, alpha=0.25, linewidth=0.5)
            axis.set(**{f"{which}scale": "log" for which in log})
        self._edges = (
            [axes[r][0] for r in range(down)],
            [
                # the lowest panel of each column, which may stand above an empty place
                [axes[r][c] for r in range(down) if r * across + c < len(names)][-1]
                for c in range(across)
            ],
        )

    def __enter__(self) -> Panels:
        return self

    def label(self, x: str, y: str) -> None:
        """Name the axes, at the outer panels."""
        left, low = self._edges
        for axis in left:
            axis.set_ylabel(y, fontsize=9)
        for axis in low:
            axis.set_xlabel(x, fontsize=9)

    def _finish(self) -> None:
        """Legend and caption in a strip of their own below the panels."""
        handles: dict[str, Any] = {}
        for axis in self.axes.values():
            for which in self._log:
                tidy_log(axis, which)
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        longest = max((len(label) for label in handles), default=1)
        ncols = max(1, min(len(handles), int(self._width / (0.55 + 0.068 * longest))))
        rows = math.ceil(len(handles) / ncols)
        caption = textwrap.wrap(self.command, int(self._width * 17), break_on_hyphens=False)
        small, legend = 0.11 * len(caption) + 0.06, 0.175 * rows + 0.1
        strip = small + legend
        height = self._height + strip
        self.figure.set_size_inches(self._width, height)
        self.figure.get_layout_engine().set(rect=(0, strip / height, 1, 1 - strip / height))
        self.figure.suptitle(self.title, fontsize=11)
        if handles:
            self.figure.legend(
                list(handles.values()), list(handles), loc="lower center", ncols=ncols,
                bbox_to_anchor=(0.5, small / height), frameon=False, fontsize=8, handlelength=2.8,
            )  # fmt: skip
        self.figure.text(
            0.5, 0.04 / height, "\n".join(caption), fontsize=5.5, color="0.35", ha="center",
            va="bottom", family="monospace",
        )  # fmt: skip

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
                save_figure(self.figure, self.path, self.title, self.command)
        finally:
            self._plt.close(self.figure)


def label_end(axis: Any, x: float, y: float, text: str, colour: str) -> None:
    """A short text to the right of a curve's last point, in the curve's colour."""
    axis.annotate(
        text, (x, y), color=colour, textcoords="offset points", xytext=(6, -3), fontsize=8
    )


def tidy_log(axis: Any, which: str) -> None:
    """Decades as ticks, about six of them however wide the range; 1, 2, 5 where it is narrow."""
    ticker = require("matplotlib.ticker", "analysis")
    line = axis.xaxis if which == "x" else axis.yaxis
    low, high = sorted(axis.get_xlim() if which == "x" else axis.get_ylim())
    if low <= 0:
        return
    wide = math.log10(high / low) > 2
    if wide:
        line.set_major_locator(ticker.LogLocator(numticks=7))
    else:
        line.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        line.set_major_formatter(ticker.FuncFormatter(lambda v, _: _short(v)))
    line.set_minor_locator(ticker.LogLocator(subs="auto" if wide else range(2, 10), numticks=99))
    line.set_minor_formatter(ticker.NullFormatter())


def _short(value: float) -> str:
    """A tick of 1, 2 or 5 times a power of ten."""
    if 1e-3 < value < 1e5:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    return rf"$\mathdefault{{{value / 10**power:.0f}\times10^{{{power}}}}}$"
