"""Whether libraries are right where something short happens, each at its own defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....arguments import DEFAULT_METHOD
from ...report.panels import Panels, styles
from ...solvers.solver import as_solver
from .problem_set import ShortInput, short_inputs

RIGHT = 100.0
"""A solution is right whose error is at most so many tolerances, at all times looked at."""


@dataclass(frozen=True)
class Contender:
    """A library, or a method of ours, at its own tolerances.

    title: in the table. solver: see `solvers.solver.as_solver`.
    """

    title: str
    solver: str
    rtol: float
    atol: float


OURS = Contender("quadflow", DEFAULT_METHOD, 1e-7, 1e-9)
SCIPY = Contender("scipy", "scipy:RK45", 1e-3, 1e-6)
CONTENDERS = (
    OURS,
    *(Contender(name, name, 1e-7, 1e-9) for name in ("dopri5", "tsit5", "dopri8", "gauss")),
    SCIPY,
    # solver and tolerances of the first example of its documentation, and the solver it recommends
    Contender("diffrax", "diffrax:Dopri5", 1e-5, 1e-5),
    Contender("diffrax Tsit5", "diffrax:Tsit5", 1e-5, 1e-5),
    Contender("torchdiffeq", "torchdiffeq:dopri5", 1e-7, 1e-9),
)
"""What `solve`, `solve_ivp`, `diffeqsolve` and `odeint` do where nothing but the problem is given;
and other methods of ours."""


@dataclass(frozen=True)
class Outcome:
    """The largest error of one solve.

    error: the largest over all times looked at, in tolerances atol + rtol·max|y| of that time;
    infinite where the end was not reached. calls: of f, dense output left out."""

    error: float
    calls: int

    @property
    def right(self) -> bool:
        """Whether the error is at most `RIGHT` tolerances."""
        return self.error <= RIGHT


def outcome(case: ShortInput, contender: Contender) -> Outcome:
    """What a contender makes of a problem."""
    solver = as_solver(contender.solver)
    assert solver.adaptive is not None
    run = solver.adaptive(case.problem, contender.rtol, contender.atol)
    if run.end is None or run.dense is None:
        return Outcome(np.inf, run.calls)
    states = np.concatenate((run.states(case.times[1:-1]).numpy(), run.end.numpy()[None]))
    exact = case.exact[1:]
    tolerance = contender.atol + contender.rtol * np.abs(exact).max(1)
    with np.errstate(invalid="ignore"):
        errors = np.abs(states - exact).max(1) / tolerance
    return Outcome(float(np.nan_to_num(errors, nan=np.inf).max()), run.calls)


@dataclass(frozen=True)
class ShortInputs:
    """The study.

    rows: (name, kind and statement of the problem, an Outcome of every contender)."""

    contenders: tuple[Contender, ...]
    rows: tuple[tuple[str, str, str, tuple[Outcome, ...]], ...]

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return {
            "right": RIGHT,
            "contenders": [vars(c) for c in self.contenders],
            "rows": [
                {"name": name, "kind": kind, "statement": statement,
                 "outcomes": {c.title: {"error": o.error, "calls": o.calls}
                              for c, o in zip(self.contenders, outcomes, strict=True)}}
                for name, kind, statement, outcomes in self.rows
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        titles = [c.title for c in self.contenders]
        widths = [max(11, len(title) + 2) for title in titles]

        def line(name: str, cells: Sequence[str]) -> str:
            return f"{name:<27}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))

        lines = [
            f"largest error in tolerances of the contender's own; * where it is above {RIGHT:g}",
            line("", titles).rstrip(),
            line("rtol", [f"{c.rtol:.0e}" for c in self.contenders]),
            line("atol", [f"{c.atol:.0e}" for c in self.contenders]),
        ]
        for name, _, _, outcomes in self.rows:
            lines.append(line(name, [_shown(o) for o in outcomes]).rstrip())
        by_contender = list(zip(*(row[-1] for row in self.rows), strict=True))
        right = [f"{sum(o.right for o in own)} of {len(own)}" for own in by_contender]
        lines.append(line("right", right).rstrip())
        calls = [str(sum(o.calls for o in own)) for own in by_contender]
        lines.append(line("calls of f, all together", calls).rstrip())
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """A dot a problem, a column a contender; .pdf, .svg or .png."""
        command = f"quadflow study short-inputs --out {Path(path).name}"
        title = "Short inputs: every library at its own defaults"
        titles = [c.title for c in self.contenders]
        with Panels(path, [title], title, command) as panels:
            axis = panels.axes[title]
            look = styles(titles)
            for i, name in enumerate(titles):
                errors = np.array([row[-1][i].error for row in self.rows])
                shown = np.clip(np.nan_to_num(errors, posinf=1e8), 1e-3, 1e8)
                column = np.full(len(shown), i)
                axis.semilogy(column, shown, **{**look[name], "linestyle": ""}, label=name)
            axis.axhline(RIGHT, color="black", linewidth=0.8)
            axis.set_xticks([])
            panels.label("contender", "largest error over tolerance")


def _shown(found: Outcome) -> str:
    if found.error == np.inf:
        return "failed *"
    size = f"{found.error:.2g}" if 1e-3 <= found.error < 1e4 else f"{found.error:.0e}"
    return f"{size} {' ' if found.right else '*'}"


def short_inputs_study(
    contenders: Sequence[Contender] = CONTENDERS,
    names: Sequence[str] | None = None,
    progress: Callable[[], None] | None = None,
) -> ShortInputs:
    """Every contender on every problem (or those named); progress is called after each problem.

    Raises:
        MissingExtraError: a contender's library is not installed.
    """
    rows = []
    for case in short_inputs():
        if names is not None and case.problem.name not in names:
            continue
        found = tuple(outcome(case, contender) for contender in contenders)
        rows.append((case.problem.name, case.kind, case.problem.statement, found))
        if progress is not None:
            progress()
    return ShortInputs(tuple(contenders), tuple(rows))
