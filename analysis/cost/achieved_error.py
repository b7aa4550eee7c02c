"""Achieved error over tolerance, for the whole problem library, and what the problems make of it.

An adaptive solver keeps the error of every step near the tolerance; what becomes of these errors
until the end is the problem's doing. Its growth is measured: states along the solution are moved by
as much as a tolerance would let them, and followed to the end by another solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import integrate

from ..problems.problem import Problem, get_problem, problems
from ..report.records import written
from ..solvers.run import ATOL_RATIO
from .figures import proportionality_plot
from .rows import Row
from .work_precision import work_precision

METHODS = ("dopri5", "dopri8", "gauss", "adams")
TOLERANCES = tuple(float(f"1e-{k}") for k in range(3, 12))
BAND = 0.05, 20.0
"""Achieved error over tolerance that a user may expect."""

_MOVED = 1e-6
_STARTS = 8


def growth(problem: Problem, *, directions: int = 2) -> float:
    """The relative error at the end that one of size 1 on the way becomes; the largest of some.

    At eight times along the solution every component is moved by 1e-6 (|y_i| + 1e-2), with random
    signs, as a tolerance whose absolute part is 1e-2 of the relative one would let it; scipy's
    DOP853 at rtol 1e-11 follows it. Both ends are compared in the largest entry.

    Raises:
        RuntimeError: DOP853 fails.
    """
    random = np.random.default_rng(0)
    t0, t1 = problem.span
    times = np.linspace(t0, t1, _STARTS + 1)

    def follow(start: float, y: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
        found = integrate.solve_ivp(
            problem.f_numpy, (start, t1), y, method="DOP853", rtol=1e-11, atol=1e-13,
            t_eval=wanted,
        )  # fmt: skip
        if not found.success:
            raise RuntimeError(f"{problem.name}: {found.message}")
        return np.asarray(found.y.T)

    path = follow(t0, problem.y0.numpy(), times.tolist())
    end, worst = path[-1], 0.0
    for start, y in zip(times[:-1].tolist(), path[:-1], strict=True):
        for _ in range(directions):
            signs = random.choice((-1.0, 1.0), len(y))
            moved = follow(start, y + _MOVED * signs * (np.abs(y) + ATOL_RATIO), [t1])[-1]
            worst = max(worst, float(np.abs(moved - end).max() / _MOVED))
    return worst / float(np.abs(end).max())


@dataclass(frozen=True)
class AchievedError:
    """The study. rows: as in `WorkPrecision`. growths: problem -> `growth`."""

    rows: Sequence[Row]
    growths: Mapping[str, float]

    def ratios(self, method: str | None = None, problem: str | None = None) -> np.ndarray:
        """Achieved relative error over tolerance at the end of the span, of the usable rows."""
        return np.array([r.error / r.tolerance for r in self._of(method, problem)])  # type: ignore[operator]

    def own(self, method: str | None = None, problem: str | None = None) -> np.ndarray:
        """The same, over the problem's growth: what the solver itself made of the tolerance."""
        grown = np.array([self.growths[r.problem] for r in self._of(method, problem)])
        return np.asarray(self.ratios(method, problem) / grown)

    def _of(self, method: str | None, problem: str | None) -> list[Row]:
        return [
            r
            for r in self.rows
            if r.usable and method in (None, r.solver) and problem in (None, r.problem)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return written(self)

    def __str__(self) -> str:
        solvers = list(dict.fromkeys(r.solver for r in self.rows))
        lines = [
            "achieved relative error at the end over tolerance, least and most from "
            f"{max(r.tolerance or 0 for r in self.rows):.0e} to "
            f"{min(r.tolerance or 1 for r in self.rows):.0e}",
            f"{'problem':<18}{'growth':>9}" + "".join(f"{s:>20}" for s in solvers),
        ]
        names = dict.fromkeys(r.problem for r in self.rows if r.usable)
        for name in sorted(names, key=lambda n: self.growths[n]):
            cells = "".join(f"{_range(self.ratios(s, name)):>20}" for s in solvers)
            lines.append(f"{name:<18}{self.growths[name]:>9.2g}{cells}")
        low, high = BAND
        for title, least, most in (
            (f"in [{low:g}, {high:g}]", low, high),
            (f"below {low:g}", 0.0, low),
            (f"above {high:g}", high, math.inf),
        ):
            for what, values in ((title, self.ratios), ("  error over growth", self.own)):
                parts = [((x >= least) & (x < most)).mean() for x in map(values, solvers)]
                lines.append(f"{what:<27}" + "".join(f"{100 * x:>18.0f} %" for x in parts))
        for solver in solvers:
            failed = dict.fromkeys(
                r.problem for r in self.rows if r.solver == solver and r.failure is not None
            )
            if failed:
                lines.append(f"not solved by {solver} at some tolerance: {', '.join(failed)}")
        return "\n".join(lines)

    def plot(self, path: Any) -> None:
        """Achieved error against tolerance, a panel a problem; see `proportionality_plot`."""
        proportionality_plot(path, self.rows, command=f"quadflow study tolerance --out {path}")


def _range(values: np.ndarray) -> str:
    return f"{values.min():.2g} … {values.max():.2g}" if len(values) else "-"


def achieved_error(
    methods: Sequence[str] = METHODS,
    subjects: Sequence[str] | None = None,
    tolerances: Sequence[float] = TOLERANCES,
    *,
    progress: Callable[[], None] | None = None,
) -> AchievedError:
    """Solve the problems with the methods at the tolerances, and measure the problems' growth.

    Args:
        methods, tolerances: as in `work_precision`; atol is 1e-2 of rtol. subjects: names of
            problems; None is the whole library. progress: called after every solve.
    """
    names = list(problems()) if subjects is None else list(subjects)
    study = work_precision(
        list(methods), names, tolerances=tolerances, repeats=1, progress=progress,
    )  # fmt: skip
    if not study.complete:
        raise KeyboardInterrupt
    return of_rows(study.rows)


def of_rows(rows: Sequence[Row]) -> AchievedError:
    """The study of rows that are there, as of `quadflow bench --json`."""
    names = dict.fromkeys(r.problem for r in rows)
    solved = {r.problem for r in rows if r.usable}
    return AchievedError(
        rows, {n: growth(get_problem(n)) if n in solved else math.nan for n in names}
    )
