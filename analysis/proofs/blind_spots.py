"""What linear or autonomous test problems cannot see: two wrong methods that pass them.

Both look like the classical fourth-order method to a test that solves y' = λy or an autonomous
system, which is what many libraries test their solvers on:

- *tall trees only*: stages in a chain, a21 = 1/4, a32 = 1/3, a43 = 1/2, and all weight on the last.
  Then b A^k 1 = 1/(k+1)! up to k = 3, so its stability function is right to z^4 and a linear system
  with constant coefficients sees order 4; but b·c^2 = 1/4 where 1/3 is needed: its order is 2.
- *wrong node*: the classical A and b, with c3 = 2/5 where the row sum is 1/2. An autonomous system
  never looks at c; for others b·c = 7/15, not 1/2: its order is 1.

The conditions are those of rooted trees (Butcher; Hairer, Nørsett & Wanner, Solving ODEs I, section
II.2): only a nonlinear and non-autonomous problem has all of them alive.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...rules.classical import RK4
from ..exact.multiprecision import multiprecision
from ..orders.convergence import measured_order
from ..orders.measurement import OrderMeasurement
from ..problems.problem import Problem, get_problem, vector
from ..report.records import written
from ..solvers.callables import callable_solver
from ..solvers.run import Solver


@dataclass(frozen=True)
class Scheme:
    """An explicit Runge-Kutta scheme whose nodes c need not be the row sums of A.

    a: rows of A, row i of length i. b, c: weights and nodes. promised: what it is taken for. true:
    the order it has.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    promised: int
    true: int

    def __call__(self, rhs: Callable[[Any, Any], Any], y0: Any, grid: np.ndarray) -> np.ndarray:
        """Steps over the grid, as `solvers.callables.callable_solver` wants them."""
        y: np.ndarray = y0.numpy().copy()
        for t, t1 in pairwise(grid.tolist()):
            h = t1 - t
            values: list[Any] = []
            for row, c in zip(self.a, self.c, strict=True):
                inner = sum((x * v for x, v in zip(row, values, strict=True)), np.zeros_like(y))
                values.append(rhs(t + c * h, y + h * inner))
            y = y + h * sum(x * v for x, v in zip(self.b, values, strict=True))
        return y

    @property
    def solver(self) -> Solver:
        """For `measured_order`, with the order that it claims."""
        return dataclasses.replace(callable_solver(self, self.name), order=self.promised)


SCHEMES = (
    Scheme("classical RK4", RK4.a, tuple(RK4.b.tolist()), tuple(RK4.c.tolist()), 4, 4),
    Scheme(
        "tall trees only",
        ((), (1 / 4,), (0.0, 1 / 3), (0.0, 0.0, 1 / 2)),
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 1 / 4, 1 / 3, 1 / 2),
        4,
        2,
    ),
    Scheme("wrong node", RK4.a, tuple(RK4.b.tolist()), (0.0, 1 / 2, 2 / 5, 1.0), 4, 1),
)


def study_problems() -> tuple[Problem, ...]:
    """The four kinds of test problem, the last of which sees everything."""
    mp = multiprecision()
    return (
        Problem(
            "linear autonomous", "x' = -x/4 + 2y, y' = -2x - y/4", "a spiral, closed form",
            lambda t, y, m: (-y[0] / 4 + 2 * y[1], -2 * y[0] - y[1] / 4),
            vector(1.0, 0.0), (0.0, 3.0),
            exact=lambda t: [mp.exp(-t / 4) * x for x in (mp.cos(2 * t), -mp.sin(2 * t))],
        ),
        Problem(
            "linear non-autonomous", "y' = y cos t", "closed form exp(sin t)",
            lambda t, y, m: (y[0] * m.cos(t),),
            vector(1.0), (0.0, 2.0), exact=lambda t: [mp.exp(mp.sin(t))],
        ),
        Problem(
            "nonlinear autonomous", "y' = y (1 - y)", "logistic growth, closed form",
            lambda t, y, m: (y[0] * (1 - y[0]),),
            vector(0.25), (0.0, 3.0), exact=lambda t: [1 / (1 + 3 * mp.exp(-t))],
        ),
        dataclasses.replace(get_problem("driven"), name="nonlinear non-autonomous"),
    )  # fmt: skip


@dataclass(frozen=True)
class BlindSpots:
    """Measured orders of every scheme on every kind of problem, by name of scheme and problem."""

    measurements: dict[str, dict[str, OrderMeasurement]]

    def __str__(self) -> str:
        names = list(next(iter(self.measurements.values())))
        wide = max(len(n) for n in names) + 2
        true = {s.name: s.true for s in SCHEMES}
        lines = [
            f"{'scheme':<17}{'order':>6}" + "".join(f"{n:>{wide}}" for n in names),
            *(
                f"{scheme:<17}{true[scheme]:>6}"
                + "".join(f"{m.order if m.trusted else math.nan:>{wide}.2f}" for m in row.values())
                for scheme, row in self.measurements.items()
            ),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return written(self)["measurements"]

    def plot(self, path: str | Path) -> None:
        """Error against steps, a panel a kind of problem, a line a scheme; .pdf, .svg or .png."""
        from ..report.panels import Panels, label_end, styles

        names = list(next(iter(self.measurements.values())))
        look = styles(list(self.measurements))
        command = f"quadflow study blind-spots --out {Path(path).name}"
        title = "Two wrong methods that linear or autonomous problems take for fourth order"
        with Panels(path, names, title, command, log="xy") as panels:
            for name, axis in panels.axes.items():
                for i, (scheme, row) in enumerate(self.measurements.items()):
                    m = row[name]
                    # smaller and smaller, so that curves that coincide are all seen
                    style = {"markersize": 9 - 2.5 * i, "linewidth": 3 - i, **look[scheme]}
                    axis.plot(m.steps, m.errors, label=scheme, **style)
                    text = f"{m.order:.1f}" if m.trusted else "?"
                    label_end(axis, m.steps[-1], m.errors[-1], text, look[scheme]["color"])
                axis.margins(x=0.12)
            panels.label("number of equal steps", "relative error at the end")


STEPS = (32, 45, 64, 91, 128, 181, 256)


def blind_spots(
    steps: Sequence[int] = STEPS, *, progress: Callable[[], None] | None = None
) -> BlindSpots:
    """Measure every scheme on every kind of problem.

    Args:
        steps: numbers of equal steps, as `measured_order` takes them.
        progress: called after every solve.

    Ctrl-C ends it with the schemes that are finished.
    """
    problems = study_problems()
    rows: dict[str, dict[str, OrderMeasurement]] = {}
    for scheme in SCHEMES:
        row = {p.name: measured_order(scheme.solver, p, steps, progress=progress) for p in problems}
        if any(m.interrupted for m in row.values()):
            if not rows:
                raise KeyboardInterrupt
            break
        rows[scheme.name] = row
    return BlindSpots(rows)
