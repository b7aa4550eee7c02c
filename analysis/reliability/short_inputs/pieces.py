"""Exact solutions of problems whose velocity changes its formula at known times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp


def relaxed(
    rate: float, start: float, edges: Sequence[float], levels: Sequence[float], times: np.ndarray
) -> np.ndarray:
    """y' = -rate·y + u(t), y(edges[0]) = start, u = levels[i] between edges[i] and edges[i+1].

    edges: n + 1 ascending times. levels: n. times: (T,), within the edges. Returns (T, 1), by the
    exponentials of each piece; rate 0 is allowed.
    """

    def ahead(y: Any, level: Any, dt: Any) -> Any:
        growth = -np.expm1(-rate * dt) / rate if rate else dt
        return y + (level - rate * y) * growth

    at_edges = [start]
    for (a, b), level in zip(pairwise(edges), levels, strict=True):
        at_edges.append(float(ahead(at_edges[-1], level, b - a)))
    piece = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(levels) - 1)
    begun, driven = np.array(at_edges)[piece], np.array(levels)[piece]
    return np.asarray(ahead(begun, driven, times - np.array(edges)[piece])).reshape(-1, 1)


def square_wave(
    period: float, width: float, height: float, low: float, until: float, first: float = 0.0
) -> tuple[list[float], list[float]]:
    """Edges and levels of a wave that is `height` for `width` of each period from `first` on and
    `low` else, for `relaxed`; from 0 to `until` at least."""
    edges, levels = [0.0], list[float]()
    if first > 0:
        edges, levels = [0.0, first], [low]
    count = 0
    while edges[-1] < until:
        begin = first + count * period
        edges += [begin + width, begin + period]
        levels += [height, low]
        count += 1
    return edges, levels


def solved_tightly(
    f: Callable[[float, np.ndarray], np.ndarray],
    y0: np.ndarray,
    times: np.ndarray,
    breakpoints: Sequence[float],
    longest: float,
) -> np.ndarray:
    """The states at times (T,), the first of them the start: (T, d), by SciPy's DOP853 at rtol
    1e-13, which restarts at the breakpoints and never takes a step longer than `longest`."""
    ends = sorted({float(times[0]), *(b for b in breakpoints if times[0] < b < times[-1]),
                   float(times[-1])})  # fmt: skip
    y, rows = np.array(y0, dtype=np.float64), np.empty((len(times), len(y0)))
    rows[0] = y
    for a, b in pairwise(ends):
        inside = np.flatnonzero((times > a) & (times <= b))
        # evaluated just inside the piece, where the formula is the piece's own
        low, high = np.nextafter(a, b), np.nextafter(b, a)
        wanted = np.unique([*times[inside], b])
        got = solve_ivp(
            lambda t, y, low=low, high=high: f(min(max(t, low), high), y), (a, b), y,
            method="DOP853", rtol=1e-13, atol=1e-18, max_step=longest, t_eval=wanted,
        )  # fmt: skip
        if not got.success:
            raise RuntimeError(f"the reference between {a} and {b} failed: {got.message}")
        rows[inside] = got.y.T[np.searchsorted(wanted, times[inside])]
        y = got.y[:, -1]
    return rows
