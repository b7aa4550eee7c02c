"""Figures by name and number of evaluations, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

Rows = Mapping[str, Mapping[Any, float]]
"""name -> NFE -> figure; "–" stands in the table where a name lacks an NFE that another has."""


def guided(scale: float) -> str:
    """What a guidance scale is called in a title."""
    return "no guidance" if scale == 1 else f"guidance {scale:g} (a pair is one evaluation)"


def columns(title: str, rows: Rows) -> str:
    """A table of `rows` under its title."""
    wide = max(16, *(len(name) + 2 for name in rows))
    return "\n".join([title, _header("", rows, wide), *(
        f"{name:<{wide}}" + "".join(f"{_figure(row, n):>10}" for n in _nfes(rows))
        for name, row in rows.items()
    )])  # fmt: skip


def starred(rows: Rows, wide: int) -> list[str]:
    """Header and lines of a table of methods, the least figure of every column starred."""
    wide = max(wide, *(len(name) + 1 for name in rows), 0)
    lines = [_header("method", rows, wide)]
    best = {n: min((x for row in rows.values() if _known(x := row.get(n))), default=0.0)
            for n in _nfes(rows)}  # fmt: skip
    for method, row in rows.items():
        cells = "".join(
            f"{_figure(row, n):>9}{'*' if row.get(n) == best[n] else ' '}" for n in best
        )
        lines.append(f"{method:<{wide}}{cells}".rstrip())
    return lines


def _header(corner: str, rows: Rows, wide: int) -> str:
    return f"{corner:<{wide}}" + "".join(f"{f'NFE {n}':>10}" for n in _nfes(rows))


def _nfes(rows: Rows) -> list[Any]:
    return list(dict.fromkeys(nfe for row in rows.values() for nfe in row))


def _known(figure: float | None) -> TypeGuard[float]:
    return figure is not None and not math.isnan(figure)


def _figure(row: Mapping[Any, float], nfe: Any) -> str:
    return f"{figure:.4f}" if _known(figure := row.get(nfe)) else "–"
