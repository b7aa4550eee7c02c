"""Solvers at equal achieved error: a tolerance sweep each, then the cheapest timed in turns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..problems.subjects import Subject
from ..solvers.counting import BUDGET, Counter
from ..solvers.run import Solve, Solver, first_line, quietly
from .rows import Row
from .timing import Timing, forget_compiled, interleaved

HALF_DECADES = tuple(float(f"{10 ** (-k / 2):.2e}") for k in range(4, 28))
"""Relative tolerances of a sweep, from loose to tight: 1e-2, 3.16e-3, ..., 3.16e-14."""


@dataclass(frozen=True)
class Entry:
    """One solver at one target: the cheapest of its trials that reaches it, and its wall time.

    solver: title. trial, timing: None where no tolerance reaches the target; `failure` says what
    the tightest did. share: of the whole job, what was run.
    """

    solver: str
    library: str
    target: float
    trial: Row | None
    timing: Timing | None
    failure: str | None = None
    share: float = 1.0

    @property
    def wall(self) -> float | None:
        """Best wall seconds of the whole job (extrapolated where only a share of it was run)."""
        return None if self.timing is None else self.timing.best / self.share

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        row: dict[str, Any] = {
            "solver": self.solver, "library": self.library, "target": self.target,
            "failure": self.failure,
        }  # fmt: skip
        if self.trial is not None:
            row |= {"tolerance": self.trial.tolerance, "error": self.trial.error}
            row |= {k: round(getattr(self.trial, k) / self.share) for k in ("calls", "nfe")}
        if self.timing is not None:
            row |= {
                "wall": self.wall, "median": self.timing.median / self.share,
                "warm_up": self.timing.warm_up, "times": list(self.timing.times),
                "share": self.share,
            }  # fmt: skip
        return row


def trial(
    solver: str, problem: str, tolerance: float, counter: Counter, error: Callable[[float], float]
) -> Row:
    """The row of one counted solve. error: solves at a tolerance, and tells the error achieved."""
    achieved, failure = None, None
    try:
        achieved = error(tolerance)
    except Exception as failed:
        failure = first_line(failed)
    return Row(
        solver, problem, tolerance, None, achieved, 0.0, counter.nfe, counter.calls, None,
        failure=failure,
    )  # fmt: skip


def sweep(
    solver: Solver,
    subject: Subject,
    targets: Sequence[float],
    *,
    tolerances: Sequence[float] = HALF_DECADES,
    budget: int | None = BUDGET,
) -> list[Row]:
    """Solve from loose to tight tolerances until every target is reached, or the budget is not
    enough twice running: a solve at a loose tolerance may need more calls than at a tighter one."""
    rows: list[Row] = []
    over = False
    counter = Counter(subject.y0.shape[-1], budget)
    solve = bound(solver, subject, counter)

    def error(tolerance: float) -> float:
        return subject.error(quietly(lambda: solve(tolerance)))

    for tolerance in tolerances:
        counter.calls = counter.nfe = 0
        row = trial(solver.title, subject.name, tolerance, counter, error)
        rows.append(row)
        over_before, over = over, counter.over and row.error is None
        if (over and over_before) or (row.error is not None and row.error <= min(targets)):
            break
    return rows


def bound(solver: Solver, subject: Subject, counter: Counter | None = None) -> Solve:
    """The solver's bare `Solve` of a subject, counted where a counter is given.

    Raises:
        ValueError: the solver has none.
    """
    if solver.bind is None:
        raise ValueError(f"{solver.name} has no bare solve that could be compared")
    return solver.bind(subject, counter)


def cheapest(trials: Sequence[Row], target: float) -> Row | None:
    """The trial of fewest calls whose error is at most `target`; None where none is."""
    reached = [t for t in trials if t.error is not None and t.error <= target]
    return min(reached, key=lambda t: (t.calls, t.nfe), default=None)


def compare(
    solvers: Sequence[Solver],
    subject: Subject,
    targets: Sequence[float],
    *,
    budget: int | None = BUDGET,
    repeats: int = 7,
    seconds: float = 1.5,
    parts: Mapping[str, tuple[Subject, float]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Entry]:
    """Every solver at every target: one sweep each, and at each target all of them in turns.

    parts: solver's title -> (part of the batch that it solves, the part's share of it); its calls,
    its evaluations and its wall time are scaled up to the whole.

    Two solvers that differ only in being compiled take the same steps, so the sweep of one is the
    other's. What is compiled is compiled once, at the loosest target; its `warm_up` says how long
    the first run took.
    """
    parts = parts or {}
    if any(s.compiled for s in solvers):
        forget_compiled()
    sweeps: dict[str, list[Row]] = {}
    solves: dict[str, Solve] = {}
    for s in solvers:
        part, _ = parts.get(s.title, (subject, 1.0))
        if s.twin not in sweeps:
            say(f"{subject.name}: sweep of {s.twin}")
            sweeps[s.twin] = sweep(s, part, targets, budget=budget)
        solves[s.title] = bound(s, part)
    entries: list[Entry] = []
    warm: dict[str, float] = {}
    for target in sorted(targets, reverse=True):
        chosen = {s.title: cheapest(sweeps[s.twin], target) for s in solvers}
        runs: dict[str, Callable[[], object]] = {
            name: functools.partial(solves[name], row.tolerance)
            for name, row in chosen.items()
            if row is not None and row.tolerance is not None
        }
        say(f"{subject.name}: error {target:.0e}, {len(runs)} solvers in turns")
        known = {name: warm[name] for name in runs if name in warm}
        in_turns = functools.partial(interleaved, runs, warm_ups=known)
        timings = quietly(lambda: in_turns(repeats=repeats, seconds=seconds))  # noqa: B023
        warm |= {name: timing.warm_up for name, timing in timings.items()}
        for s in solvers:
            last, found = sweeps[s.twin][-1], chosen[s.title]
            why = last.failure or f"error {last.error:.1e} at tolerance {last.tolerance:.0e}"
            entries.append(
                Entry(
                    s.title, s.library, target, found, timings.get(s.title),
                    None if found is not None else why, parts.get(s.title, (subject, 1.0))[1],
                )
            )  # fmt: skip
    return entries
