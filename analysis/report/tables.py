"""Figures by name and number of evaluations, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = Mapping[str, Mapping[Any, float]]
"""name -> NFE -> figure; every name has the same NFE."""


def guided(scale: float) -> str:
    """What a guidance scale is called in a title."""
    return "no guidance" if scale == 1 else f"guidance {scale:g} (a pair is one evaluation)"


def columns(title: str, rows: Rows) -> str:
    """A table of `rows` under its title."""
    wide = max(16, *(len(name) + 2 for name in rows))
    return "\n".join([title, _header("", rows, wide), *(
        f"{name:<{wide}}" + "".join(f"{value:>10.4f}" for value in row.values())
        for name, row in rows.items()
    )])  # fmt: skip


def starred(rows: Rows, wide: int) -> list[str]:
    """Header and lines of a table of methods, the least figure of every column starred."""
    wide = max(wide, *(len(name) + 1 for name in rows), 0)
    lines = [_header("method", rows, wide)]
    known = {n: [row[n] for row in rows.values() if row[n] == row[n]] for n in _nfes(rows)}
    best = {n: min(figures, default=0.0) for n, figures in known.items()}
    for method, row in rows.items():
        figures = {n: f"{x:.4f}" if (x := row[n]) == x else "-" for n in best}
        cells = "".join(f"{figures[n]:>9}{'*' if row[n] == best[n] else ' '}" for n in best)
        lines.append(f"{method:<{wide}}{cells}".rstrip())
    return lines


def _header(corner: str, rows: Rows, wide: int) -> str:
    return f"{corner:<{wide}}" + "".join(f"{f'NFE {n}':>10}" for n in _nfes(rows))


def _nfes(rows: Rows) -> list[Any]:
    return list(next(iter(rows.values()), {}))
