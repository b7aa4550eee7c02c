"""Error against cost: solvers of anybody's, side by side on the same problems in one run.

Each solve is compared with a reference whose own error is known, and rows that come as near to the
solution as the reference does are flagged. Wall times are medians of interleaved repetitions: one
round through all solvers after another, so that the load of the machine hits all alike. Each solver
calls f in its own arithmetic (torch, numpy, jax), and on small states that is most of the time:
evaluations and calls compare methods, seconds what a user waits for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from ...checks import check_choice, integer_from
from ...errors import nearest
from ...storage import read_json_object, write_json
from ..problems.problem import Problem
from ..references.reference import reference_end, relative_error
from ..report.machine import machine
from ..report.records import picked, written
from ..solvers.counting import BUDGET, OVER, Counter
from ..solvers.run import ATOL_RATIO, Run
from .figures import proportionality_plot, work_precision_plot
from .levels import Wanted, checked_levels, levels, problems_of, solvers_of
from .rows import (
    COSTS,
    Proportionality,
    Row,
    cost_at,
    costs_text,
    problems_in,
    proportionality,
    ratios_text,
    rows_of,
    rows_text,
    solvers_in,
)
from .timing import Timing, interleaved

TOLERANCES = tuple(float(f"1e-{k}") for k in range(3, 11))
"""Relative tolerances of adaptive solvers, one a decade."""
STEPS = tuple(2**k for k in range(6, 14))
"""Numbers of equal steps of solvers that have no error control."""


@dataclass
class WorkPrecision:
    """Rows of (solver, problem, tolerance or number of steps) with achieved error and cost.

    rows: see `Row`. references: problem -> {"error": relative error of the reference, "how": how it
    was found}, or {"failure": why there is none}. settings: repeats, atol_ratio, budget. machine:
    see `machine`. complete: False where it was interrupted. command: what reproduces it, if known.
    """

    rows: list[Row] = field(default_factory=list)
    references: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    command: str = ""

    @property
    def solvers(self) -> tuple[str, ...]:
        """Names, in the order of the rows."""
        return solvers_in(self.rows)

    @property
    def problems(self) -> tuple[str, ...]:
        """Names, in the order of the rows."""
        return problems_in(self.rows)

    @property
    def failures(self) -> list[Row]:
        """Rows of solves that did not reach the end."""
        return [r for r in self.rows if r.failure is not None]

    def of(self, solver: str, problem: str) -> list[Row]:
        """The rows of one solver on one problem, from loose to tight."""
        return rows_of(self.rows, solver, problem)

    def cost_at(self, error: float, cost: str = "nfe") -> dict[str, dict[str, float | None]]:
        """What each solver needs for an achieved relative error: problem -> solver -> cost.

        Interpolated between neighbouring rows, linearly in both logarithms, where the error passes
        `error` for the last time on the way to tight tolerances; None where it does not pass it:
        nothing is extrapolated. cost: "nfe", "calls" or "seconds".

        Raises:
            ValueError: an error that is not positive, or unknown cost.
        """
        return {
            p: {s: cost_at(self.of(s, p), error, cost) for s in self.solvers} for p in self.problems
        }

    def ratios(
        self, error: float, peer: str, cost: str = "nfe"
    ) -> dict[str, dict[str, float | None]]:
        """`cost_at` over the cost of `peer` at the same error: problem -> solver -> ratio.

        Raises:
            ValueError: peer is none of the solvers; otherwise as `cost_at`.
        """
        if peer not in self.solvers:
            raise ValueError(
                f"peer={peer!r} is not among the solvers: {nearest(peer, self.solvers)}"
            )
        found: dict[str, dict[str, float | None]] = {}
        for problem, row in self.cost_at(error, cost).items():
            base = row[peer]
            found[problem] = {
                s: None if v is None or base is None else v / base for s, v in row.items()
            }
        return found

    def ratio_table(self, errors: Sequence[float], peer: str, cost: str = "nfe") -> str:
        """`ratios` as text, with geometric means over the problems where both reach the error."""
        return "\n\n".join(
            ratios_text(self.ratios(e, peer, cost), f"{cost} over {peer}'s at error {e:.0e}")
            for e in errors
        )

    def cost_table(self, errors: Sequence[float], cost: str = "nfe") -> str:
        """`cost_at` as text, a table a problem; "≤" before what the loosest row costs, where that
        is more accurate already.

        Raises:
            ValueError: as `cost_at`.
        """
        check_choice(cost, COSTS, "cost")
        return "\n\n".join(
            costs_text(
                {s: self.of(s, p) for s in self.solvers}, errors, f"{p}: {COSTS[cost]}", cost
            )
            for p in self.problems
        )

    def proportionality(self) -> list[Proportionality]:
        """How the achieved error follows the tolerance, for every adaptive solver and problem."""
        found = []
        for p in self.problems:
            for s in self.solvers:
                rows = [r for r in self.of(s, p) if r.tolerance is not None]
                if rows:
                    found.append(proportionality(rows))
        return found

    def __str__(self) -> str:
        parts = []
        for name, reference in self.references.items():
            if "failure" in reference:
                parts.append(f"{name}: no reference: {reference['failure']}")
                continue
            title = f"{name} (reference: {reference['how']}, relative error "
            title += f"{reference['error']:.0e})"
            rows = [r for s in self.solvers for r in self.of(s, name)]
            parts.append(rows_text(title, rows))
        if not self.complete:
            parts.append("not complete: it was interrupted")
        return "\n\n".join(parts) or "no rows"

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"kind": "work-precision", **written(self)}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> WorkPrecision:
        """The study that `to_dict` wrote.

        Raises:
            ValueError: it is something else, or an entry is missing.
        """
        if figures.get("kind") != "work-precision":
            raise ValueError("this is no work-precision study: it has no kind 'work-precision'")
        values = picked(figures, (f.name for f in fields(cls)), "work-precision study")
        return cls(**values | {"rows": [Row.from_dict(r) for r in values["rows"]]})

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> WorkPrecision:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        figures = read_json_object(path, "work-precision study")
        try:
            return cls.from_dict(figures)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def plot(self, path: str | Path, cost: str = "nfe", *, command: str | None = None) -> None:
        """Draw cost against achieved error; the suffix (pdf, svg, png) says the format.

        cost: "nfe", "calls" or "seconds". command: kept in the file, as what reproduces it.
        """
        command = self.command if command is None else command
        work_precision_plot(path, self.rows, cost, command=command)

    def plot_proportionality(self, path: str | Path, *, command: str | None = None) -> None:
        """Draw achieved error against tolerance with the line where they are equal."""
        command = self.command if command is None else command
        proportionality_plot(path, self.rows, command=command)


# -- the measurement ------------------------------------------------------------------------------


def work_precision(
    methods: Any,
    problems: Any,
    *,
    tolerances: Sequence[float] = TOLERANCES,
    steps: Sequence[int] = STEPS,
    repeats: int = 3,
    atol_ratio: float = ATOL_RATIO,
    budget: int | None = BUDGET,
    progress: Callable[[], None] | None = None,
    save: str | Path | None = None,
    resume: bool = True,
    command: str = "",
) -> WorkPrecision:
    """Solve every problem with every method at every tolerance; record error, evaluations, time.

    Args:
        methods: one or several of what `as_solver` takes. Those with error control run over
            `tolerances`, those without over `steps`.
        problems: one or several names or Problems; a mapping (as `problems("nonstiff")` gives) is
            read by its values.
        tolerances: relative tolerances, positive; the absolute one is atol_ratio times it.
        atol_ratio: positive.
        steps: numbers of equal steps over the span.
        repeats: timed runs of each row after a first one that is not timed.
        budget: most sequential calls of f in one solve; a solve that needs more has failed, and
            tighter tolerances of that solver and problem are not tried. It is enforced in the
            first, not timed, run. None: no limit. What runs inside jax is not stopped by it.
        progress: called (1 + repeats) times for every row, see `row_count`.
        save: JSON file, rewritten after every finished (problem, tolerance).
        resume: go on from the rows in `save`, where that file exists; False starts anew.
        command: kept in the result, as what reproduces it.

    Returns:
        `WorkPrecision`; after Ctrl-C what was finished, with complete=False. A failed solve, a
        problem without reference: reported in it.

    Raises:
        ValueError, TypeError: unknown names, names that occur twice, bad numbers; a file to resume
            from that holds another study, other settings, or another machine's times.
        MissingExtraError: a peer that is not installed.
    """
    solvers = solvers_of(methods)
    subjects = problems_of(problems)
    tolerances, steps = checked_levels(tolerances, steps)
    integer_from(1, repeats, "repeats")
    if not (atol_ratio > 0 and math.isfinite(atol_ratio)):
        raise ValueError(f"atol_ratio must be positive, got {atol_ratio}")
    if budget is not None and budget < 1:
        raise ValueError(f"budget must be at least 1 call of f, got {budget}")
    settings = {"repeats": repeats, "atol_ratio": atol_ratio, "budget": budget}
    asked = levels(solvers, tolerances, steps)
    order = {w.key(p): i for i, (p, w) in enumerate(
        (p, w) for p in subjects for level in asked for w in level
    )}  # fmt: skip
    result = WorkPrecision(
        settings=settings, machine=machine(s.name for s in solvers), command=command
    )
    path = None if save is None else Path(save)
    if path is not None:
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"save {path}: must be a file in a folder that exists")
        if resume and path.exists():
            before = _earlier(path, result, order)
            result.rows, result.references = before.rows, before.references
    done = {r.key for r in result.rows}

    def tick(times: int) -> None:
        for _ in range(times if progress is not None else 0):
            progress()  # type: ignore[misc]

    try:
        for label, problem in subjects.items():
            missing = [lv for lv in asked if not all(w.key(label) in done for w in lv)]
            there = sum(len(lv) for lv in asked) - sum(len(lv) for lv in missing)
            tick(there * (1 + repeats))
            if not missing:
                continue  # before its reference, which may take a minute
            try:
                end, error, how = reference_end(problem)
            except Exception as wrong:  # whatever it is, there is nothing to compare with
                result.references[label] = {"failure": f"{type(wrong).__name__}: {wrong}"}
                tick(sum(len(lv) for lv in missing) * (1 + repeats))
                continue
            result.references[label] = {"error": error, "how": how}
            for level in missing:
                first = order[level[0].key(label)]
                looser = [r for r in result.rows if r.problem == label and order[r.key] < first]
                over = {r.solver: r for r in reversed(looser) if (r.failure or "").startswith(OVER)}
                bench = _Bench(problem, label, end, float(error), settings, tick)
                fresh = bench.rows(level, over)
                keys = {r.key for r in fresh}
                result.rows = [r for r in result.rows if r.key not in keys] + fresh
                result.rows.sort(key=lambda r: order[r.key])
                if path is not None:
                    result.save(path)
        result.complete = True
    except KeyboardInterrupt:
        pass
    if path is not None:
        result.save(path)
    return result


def row_count(
    methods: Any,
    problems: Any,
    *,
    tolerances: Sequence[float] = TOLERANCES,
    steps: Sequence[int] = STEPS,
) -> int:
    """How many rows `work_precision` will have; it calls `progress` (1 + repeats) times for each.

    Raises:
        ValueError, TypeError, MissingExtraError: as `work_precision`.
    """
    tolerances, steps = checked_levels(tolerances, steps)
    each = (len(steps) if s.adaptive is None else len(tolerances) for s in solvers_of(methods))
    return sum(each) * len(problems_of(problems))


@dataclass
class _Bench:
    """The rows of one problem at one level."""

    problem: Problem
    label: str
    end: Tensor
    reference_error: float
    settings: Mapping[str, Any]
    tick: Callable[[int], None]

    def rows(self, level: Sequence[Wanted], over: Mapping[str, Row]) -> list[Row]:
        """Counted solves that also warm up, then timed ones in turns. over: solver -> its looser
        row that was over the budget already."""
        repeats = self.settings["repeats"]
        first: dict[str, Run] = {}
        for w in level:
            name = w.solver.name
            if name in over:
                first[name] = Run(None, 0, 0, 0.0, f"{OVER}: not tried, see {_at(over[name])}")
            else:
                first[name] = self._first(w)
            self.tick(1)
            if first[name].failure is not None:
                self.tick(repeats)

        def again(w: Wanted) -> float:
            run = self._solved(w, self.problem)
            if run.failure is not None:
                text = f"in a timed run, not in the first: {run.failure}"
                first[w.solver.name] = dataclasses.replace(run, end=None, failure=text)
            self.tick(1)
            return run.seconds

        timings = interleaved(
            {w.solver.name: w for w in level if first[w.solver.name].failure is None},
            repeats=repeats, seconds=math.inf,
            warm_ups={name: run.seconds for name, run in first.items()}, clock=again,
        )  # fmt: skip
        return [self._row(w, first[w.solver.name], timings.get(w.solver.name)) for w in level]

    def _solved(self, w: Wanted, problem: Problem) -> Run:
        return w.solve(problem, self.settings["atol_ratio"])

    def _first(self, w: Wanted) -> Run:
        budget = self.settings["budget"]
        counter = Counter(self.problem.dimension, budget)
        run = self._solved(w, self.problem if budget is None else counter.in_problem(self.problem))
        if counter.over:
            return dataclasses.replace(run, end=None, failure=f"{OVER} of {budget} calls of f")
        return run

    def _row(self, w: Wanted, run: Run, timing: Timing | None) -> Row:
        failure, error = run.failure, None
        if failure is None:
            assert run.end is not None
            error = relative_error(run.end, self.end)
            if not math.isfinite(error):
                failure, error = f"the error is {error}", None
        return Row(
            w.solver.name, self.label, w.tolerance, w.steps, error, self.reference_error,
            run.nfe, run.calls, timing.median if timing and failure is None else None,
            timing.times if timing else (),
            len(run.steps) - 1 if run.steps and failure is None else None, failure,
        )  # fmt: skip


def _at(row: Row) -> str:
    return f"tolerance {row.tolerance:.0e}" if row.steps is None else f"{row.steps} steps"


def _earlier(
    path: Path, now: WorkPrecision, wanted: Mapping[tuple[Any, ...], int]
) -> WorkPrecision:
    """The study in a file, if it is the one that goes on.

    Raises:
        ValueError: it is not.
    """
    before = WorkPrecision.load(path)
    way = "name another file, or start anew with resume=False"
    for what, old, new in (
        ("settings", before.settings, now.settings), ("machine", before.machine, now.machine),
    ):  # fmt: skip
        for name in {**old, **new}:
            # a peer may join; the rows of one that has gone are refused below
            alone = what == "machine" and not (name in old and name in new)
            if old.get(name) != new.get(name) and not alone:
                raise ValueError(
                    f"save {path} holds rows of {name} {old.get(name)!r}, now it is "
                    f"{new.get(name)!r}: {way}"
                )
    for row in before.rows:
        if row.key not in wanted:
            raise ValueError(
                f"save {path} holds {row.solver} on {row.problem} at {_at(row)}, which is not "
                f"asked for and would be lost: {way}"
            )
    return before
