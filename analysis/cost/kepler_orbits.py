"""The energy of Kepler orbits over thousands of periods: converged Gauss collocation, and others.

Gauss collocation is symplectic once its equations are solved, so that its energy error stays
bounded for exponentially long times (Hairer, Lubich & Wanner, Geometric Numerical Integration,
sections II.16 and IX.8). Solved to rounding alone the error of every step is random, and what is
left is a random walk of roundings. Explicit methods lose energy in proportion to time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import quadflow as qf

from ...storage import json_number
from ..problems.problem import get_problem
from ..report.panels import Panels, styles
from ..report.records import written

ECCENTRICITY = 0.6
PERIOD = 2 * math.pi
WINDOW = 10
"""Periods over which the largest energy error is taken."""


def phases(count: int) -> Tensor:
    """States (count, 4), position and momentum, on one orbit of period 2π at as many places.

    The first is the pericentre; the others are equally spaced in the eccentric anomaly.
    """
    u = torch.arange(count, dtype=torch.float64) * (PERIOD / count)
    e, b = ECCENTRICITY, math.sqrt(1 - ECCENTRICITY**2)
    rate = 1 / (1 - e * torch.cos(u))
    return torch.stack(
        (torch.cos(u) - e, b * torch.sin(u), -torch.sin(u) * rate, b * torch.cos(u) * rate), -1
    )


def energy(y: Tensor) -> Tensor:
    """The energy (...) of states (..., 4)."""
    return get_problem("kepler").invariants["energy"](y.unbind(-1), torch)


@dataclass(frozen=True)
class Orbit:
    """A method over many periods.

    errors: the largest relative energy error of all phases in every window of `WINDOW` periods.
    means: the mean of the relative energy error over every window, with its sign.
    nfe: evaluations a period of one phase. seconds: of the whole solve.
    """

    method: str
    steps_per_period: float
    periods: int
    errors: tuple[float, ...]
    means: tuple[float, ...]
    nfe: float
    seconds: float

    @property
    def times(self) -> np.ndarray:
        """Ends of the windows, in periods."""
        return WINDOW * np.arange(1, len(self.errors) + 1)

    @property
    def drift(self) -> tuple[float, float]:
        """Slope of the mean energy error in periods, by least squares, and its standard error; NaN
        of one window."""
        if len(self.means) < 2:
            return math.nan, math.nan
        t, y = self.times - self.times.mean(), np.array(self.means)
        slope = float(t @ (y - y.mean()) / (t @ t))
        left = y - y.mean() - slope * t
        return slope, float(math.sqrt(left @ left / max(1, len(t) - 2) / (t @ t)))

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        slope, doubt = self.drift
        return {**written(self), "drift": json_number(slope), "drift_error": json_number(doubt)}


def orbit(
    method: str | qf.Method,
    periods: int,
    steps_per_period: float,
    *,
    count: int = 1,
    progress: Callable[[], None] | None = None,
) -> Orbit:
    """Follow `count` phases of an orbit in fixed steps, and their energy at the end of each.

    Args:
        method: of fixed steps. periods: a multiple of `WINDOW`. steps_per_period: need be no whole
            number; one that is not meets the orbit at other places every time.
        count: see `phases`. progress: called after every window.

    Raises:
        ValueError: periods is no multiple of `WINDOW`.
        SolveError: as `solve`.
    """
    if periods < WINDOW or periods % WINDOW:
        raise ValueError(f"periods must be a positive multiple of {WINDOW}, got {periods}")
    y0 = phases(count)
    first = energy(y0)
    errors: list[float] = []
    means: list[float] = []
    window: list[Tensor] = []

    def look(t: float, y: Tensor) -> None:
        window.append((energy(y) - first) / first.abs())
        if t >= PERIOD * WINDOW * (len(errors) + 1) * (1 - 1e-12):
            seen = torch.stack(window)
            errors.append(float(seen.abs().max()))
            means.append(float(seen.mean()))
            window.clear()
            if progress is not None:
                progress()

    solution = qf.solve(
        get_problem("kepler").f, y0, (0.0, periods * PERIOD), method=method,
        step_size=PERIOD / steps_per_period, node_evaluation="broadcast", callback=look,
        record_steps=False,
    )  # fmt: skip
    stats = solution.stats
    return Orbit(
        stats.method, steps_per_period, periods, tuple(errors), tuple(means),
        stats.nfe / periods, stats.wall_time,
    )  # fmt: skip


@dataclass(frozen=True)
class KeplerOrbits:
    """The study: `Orbit`s by what they are called."""

    orbits: Mapping[str, Orbit] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return {name: o.to_dict() for name, o in self.orbits.items()}

    def __str__(self) -> str:
        lines = [
            f"Kepler's problem, eccentricity {ECCENTRICITY}: relative energy error",
            f"{'method':<30}{'steps':>8}{'f evals':>9}{'periods':>9}{'first ' + str(WINDOW):>10}"
            f"{'worst':>10}{'last ' + str(WINDOW):>10}  drift a period",
            f"{'':<30}{'a per.':>8}{'a per.':>9}",
        ]
        for name, o in self.orbits.items():
            slope, doubt = o.drift
            lines.append(
                f"{name:<30}{o.steps_per_period:>8g}{o.nfe:>9.0f}{o.periods:>9}{o.errors[0]:>10.1e}"
                f"{max(o.errors):>10.1e}{o.errors[-1]:>10.1e}  {slope:+.1e} ± {2 * doubt:.0e}"
            )
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Energy error against time, a curve a method."""
        command = f"quadflow study kepler --out {Path(path).name}"
        panel = "largest relative energy error in 10 periods"
        style = styles(list(self.orbits))
        title = f"Kepler's problem, eccentricity {ECCENTRICITY}"
        with Panels(path, [panel], title, command) as panels:
            axis = panels.axes[panel]
            for name, o in self.orbits.items():
                # evenly spaced to the eye; every window's error counts in the curve's own maximum
                marks = np.unique(np.geomspace(1, len(o.errors), 14).round().astype(int)) - 1
                axis.loglog(
                    o.times, o.errors, label=name, markevery=marks.tolist(), markersize=4,
                    linewidth=1, **style[name],
                )  # fmt: skip
            panels.label("periods", "relative energy error")


def kepler_orbits(
    periods: int = 10_000,
    compared: int = 500,
    *,
    progress: Callable[[], None] | None = None,
) -> KeplerOrbits:
    """Converged Gauss collocation over `periods`, explicit methods over `compared` periods.

    progress: called every `WINDOW` periods.
    """
    rule = qf.gauss_legendre(8)
    subjects: Sequence[tuple[str, str | qf.Method, int, float]] = (
        (
            "Gauss 8, converged",
            qf.collocation(rule, "converged", guess="extrapolated"),
            periods,
            10.3,
        ),
        ("Gauss 8, 6 sweeps", qf.collocation(rule, 6, guess="extrapolated"), compared, 20.6),
        ("dopri8", "dopri8", compared, 60.3),
        ("dopri5", "dopri5", compared, 150.3),
    )
    return KeplerOrbits(
        {
            name: orbit(method, long, steps, progress=progress)
            for name, method, long, steps in subjects
        }
    )
