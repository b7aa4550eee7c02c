"""The order of anything, measured: by slopes that have settled, above rounding, on a line.

An order is a limit, and two things stand between it and a table of errors: steps that are still too
long (pre-asymptotic) and errors that are rounding, or the reference's own. The points in between
are found here, a line is fitted to them, and where they do not lie on one there is no order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np

import quadflow as qf

from ...storage import json_number, read_json_object, write_json
from ..exact.mp_backend import ImplicitCollocation, coefficients_limit
from ..problems.problem import Problem, get_problem
from ..solvers.solver import Solver, as_solver, quadflow_solver
from .error_kinds import (
    KINDS,
    ROUNDING_FLOOR,
    Kind,
    Sample,
    UnavailableError,
    endpoint_error,
    make_kind,
    make_mp_kind,
)
from .lines import fitted_line

__all__ = [
    "KINDS",
    "ROUNDING_FLOOR",
    "OrderMeasurement",
    "endpoint_error",
    "measured_order",
    "order_figures",
    "window",
]

RESIDUAL_GATE = 0.06
"""Farthest that a point may lie from the line, in decades (15 %)."""
LEAST_POINTS = 4
"""Fewer usable points show no order: any three lie near some line."""
WIDEST = 0.3
"""Largest half width of the confidence interval of an order."""
SETTLED = 0.15
"""Slopes between neighbours that differ by less have settled."""
DRIFT = 0.1
"""Slopes that rise or fall all the way by more than this are on their way to another order, unless
the line has a whole number as its slope within `MARGIN`."""
MARGIN = 0.15
"""A measured order within this of the promised one agrees with it: what slopes that are still
settling leave undecided (no two orders are nearer than 1)."""


@dataclass(frozen=True)
class OrderMeasurement:
    """Errors at several step numbers, which of them count, and the order that they show.

    method, problem: names. promised: the order that the method declares for this kind of error;
    None where none is. steps: numbers of steps, ascending (for `of` "local" and "estimate": the
    span over the step size; "event": steps up to the event). errors: relative, see `error_kinds`;
    inf where the solve failed. calls, nfe: cost of each solve. used: which points the line is
    fitted to. notes: why each point is or is not used: "used", "pre-asymptotic", "rounding",
    "reference" (near the error of what it is compared with), "failed: ...". of: which error.
    what: the same in words. ratios: estimate over true local error (median), for of="estimate".
    floor: errors below it are rounding. reference_error: relative. digits: decimal digits of an
    extended-precision measurement. margin: see `MARGIN`. remark: what else there is to know, such
    as "interrupted"; or why nothing was measured.
    """

    method: str
    problem: str
    promised: int | None
    steps: tuple[int, ...]
    errors: tuple[float, ...]
    calls: tuple[int, ...]
    nfe: tuple[int, ...]
    used: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    of: str = "endpoint"
    what: str = ""
    ratios: tuple[float, ...] = ()
    floor: float = ROUNDING_FLOOR
    reference_error: float = 0.0
    digits: int | None = None
    margin: float = MARGIN
    remark: str = ""

    @property
    def _points(self) -> tuple[np.ndarray, np.ndarray]:
        keep = np.array(self.used, dtype=bool)
        return np.log(np.array(self.steps, float)[keep]), np.log(np.array(self.errors)[keep])

    @functools.cached_property
    def _line(self) -> tuple[float, float, float]:
        """Slope (positive: errors fall), half width of its 95 % interval, residual in decades."""
        x, y = self._points
        if len(x) < 3:
            return math.nan, math.nan, math.nan
        slope, half, farthest = fitted_line(x, y)
        return -slope, half, farthest / math.log(10)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Between neighbouring used points."""
        x, y = self._points
        return tuple((-np.diff(y) / np.diff(x)).tolist())

    @property
    def slope(self) -> float:
        """Of the regression over the used points, whether to be trusted or not; NaN below three."""
        return self._line[0]

    @property
    def half_width(self) -> float:
        """Half width of the slope's 95 % confidence interval (Student's t on the residuals)."""
        return self._line[1]

    @property
    def residual(self) -> float:
        """Largest distance of a used point from the line, in decades; NaN below three points."""
        return self._line[2]

    @property
    def reason(self) -> str:
        """Why there is no order; empty where there is one."""
        count = sum(self.used)
        if not self.steps:
            return self.remark or "nothing was measured"
        if count < LEAST_POINTS:
            lost = [n for n, used in zip(self.notes, self.used, strict=True) if not used]
            why = dict.fromkeys(n.partition(":")[0] for n in lost)
            tally = ", ".join(f"{sum(n.startswith(w) for n in lost)} {w}" for w in why)
            text = f"{count} usable points, {LEAST_POINTS} are needed"
            text += f" (of {len(self.steps)}: {tally})" if tally else ""
            failures = [n for n in lost if n.startswith("failed")]
            if failures and count == 0:
                text += f"; {failures[-1]}"
            if any(n == "reference" for n in lost):
                text += f"; the reference is only good to {self.reference_error:.1e}"
            return text
        if self.residual > RESIDUAL_GATE:
            return (
                f"the points lie {self.residual:.2f} decades off a line (at most {RESIDUAL_GATE}): "
                "no power of the step"
            )
        if self.half_width > WIDEST:
            return f"the slope is uncertain by {self.half_width:.2f} (at most {WIDEST})"
        slopes = self.slopes
        drift = slopes[-1] - slopes[0]
        one_way = all((b - a) * drift > 0 for a, b in pairwise(slopes))
        if one_way and abs(drift) > DRIFT and abs(self.slope - round(self.slope)) > self.margin:
            return (
                f"slopes still {'rise' if drift > 0 else 'fall'}, from {slopes[0]:.2f} to "
                f"{slopes[-1]:.2f}: shorter steps are needed (a larger budget, or more digits)"
            )
        return ""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it before its time."""
        return "interrupted" in self.remark

    @property
    def trusted(self) -> bool:
        """Whether the points show an order at all."""
        return not self.reason

    @property
    def order(self) -> float:
        """The measured order; NaN where the points show none (`reason` says why)."""
        return self.slope if self.trusted else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the order; NaN where there is none."""
        return self.order - self.half_width, self.order + self.half_width

    @property
    def agrees(self) -> bool | None:
        """Whether the promised order is the measured one, from both sides; None without either.

        Promised within the confidence interval, or within `margin`.
        """
        if not self.trusted or self.promised is None:
            return None
        return abs(self.order - self.promised) <= max(self.margin, self.half_width)

    @property
    def verdict(self) -> str:
        """`agrees` in words."""
        if not self.trusted:
            return f"not measured: {self.reason}"
        if self.promised is None:
            return "none is promised"
        if self.agrees:
            return f"agrees with the promised {self.promised}"
        side = "higher" if self.order > self.promised else "LOWER"
        return f"{side} than the promised {self.promised}"

    def __str__(self) -> str:
        title = f"{self.method} on {self.problem}, {self.what or self.of}"
        lines = [title]
        if self.steps:
            ratios = self.ratios if self.of == "estimate" else ()
            head = f"{'steps':>8}{'error':>12}{'slope':>8}{'nfe':>9}{'calls':>9}"
            lines.append(head + (f"{'est/true':>10}" if ratios else "") + "  note")
        before: tuple[int, float] | None = None
        for i, (n, e) in enumerate(zip(self.steps, self.errors, strict=True)):
            slope = "-"
            if before is not None and math.isfinite(e) and e > 0:
                slope = f"{-math.log(e / before[1]) / math.log(n / before[0]):.2f}"
            before = (n, e) if math.isfinite(e) and e > 0 else None
            error = f"{e:.2e}" if math.isfinite(e) else "-"
            row = f"{n:>8}{error:>12}{slope:>8}{self.nfe[i]:>9}{self.calls[i]:>9}"
            if self.of == "estimate" and self.ratios:
                row += f"{self.ratios[i]:>10.2g}" if math.isfinite(self.ratios[i]) else f"{'-':>10}"
            note = self.notes[i]
            lines.append(f"{row}  {note if len(note) < 60 else note[:57] + '...'}")
        if self.trusted:
            lines.append(
                f"order {self.order:.2f} ± {self.half_width:.2f} (95 %), residual "
                f"{self.residual:.3f} decades: {self.verdict}"
            )
        else:
            lines.append(self.verdict)
        if self.remark and self.steps:
            lines.append(f"({self.remark})")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON: None stands for what is no number."""
        return {
            "method": self.method,
            "problem": self.problem,
            "of": self.of,
            "what": self.what,
            "promised_order": self.promised,
            "measured_order": json_number(self.order),
            "half_width_95": json_number(self.half_width),
            "residual_decades": json_number(self.residual),
            "trusted": self.trusted,
            "verdict": self.verdict,
            "steps": list(self.steps),
            "errors": [json_number(e) for e in self.errors],
            "calls": list(self.calls),
            "nfe": list(self.nfe),
            "used": list(self.used),
            "notes": list(self.notes),
            "ratios": [json_number(r) for r in self.ratios],
            "slopes": list(self.slopes),
            "floor": self.floor,
            "reference_error": self.reference_error,
            "digits": self.digits,
            "margin": self.margin,
            "remark": self.remark,
        }

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> OrderMeasurement:
        """The measurement that `to_dict` wrote; what follows from the points is worked out anew.

        Raises:
            ValueError: an entry is missing.
        """
        try:
            return cls(
                method=figures["method"],
                problem=figures["problem"],
                promised=figures["promised_order"],
                steps=tuple(figures["steps"]),
                errors=tuple(math.inf if e is None else e for e in figures["errors"]),
                calls=tuple(figures["calls"]),
                nfe=tuple(figures["nfe"]),
                used=tuple(figures["used"]),
                notes=tuple(figures["notes"]),
                of=figures["of"],
                what=figures["what"],
                ratios=tuple(math.nan if r is None else r for r in figures["ratios"]),
                floor=figures["floor"],
                reference_error=figures["reference_error"],
                digits=figures["digits"],
                margin=figures["margin"],
                remark=figures["remark"],
            )
        except KeyError as error:
            raise ValueError(f"this is no order measurement: {error} is missing") from None

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> OrderMeasurement:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        return cls.from_dict(read_json_object(path, "order measurement"))

    def plot(self, path: str | Path, *, command: str = "") -> None:
        """Draw error against steps with the fitted and the promised line; the suffix (pdf, svg,
        png) says the format. command: kept in the file, as what reproduces it."""
        from .figures import order_plot

        order_plot(path, [self], command=command)


def window(ratio: float = math.sqrt(2), first: int = 4) -> Iterator[int]:
    """Step numbers by a constant ratio, rounded, without end: 4, 6, 8, 11, 16, 23, 32, ..."""
    last, k = 0, 0
    while True:
        n = round(first * ratio**k)
        if n > last:
            yield n
            last = n
        k += 1


def window_length(budget: int) -> int:
    """How many step numbers of `window` a budget of steps pays for."""
    return sum(spent <= budget for spent in accumulate(takewhile(budget.__ge__, window())))


def default_budget(of: str, digits: int | None) -> int:
    """Most steps of all solves of a measurement, where none is given: what takes some seconds."""
    return 700 if digits is not None else 3_000 if of == "gradient" else 12_000


def _notes(
    steps: Sequence[int], samples: Sequence[Sample], kind: Kind, automatic: bool
) -> list[str]:
    """Why each point is or is not used."""
    notes = ["used"] * len(steps)
    for i, s in enumerate(samples):
        if s.failure is not None:
            notes[i] = f"failed: {s.failure}"
        elif s.error <= 10 * kind.reference and kind.reference > kind.floor / 10:
            notes[i] = "reference"
        elif s.error <= kind.floor:
            notes[i] = "rounding"
    errors = np.array([s.error for s in samples])
    # rounding that is larger than the usual floor shows as errors that no longer fall
    good = [i for i, note in enumerate(notes) if note == "used"]
    plateau = _plateau(errors[good]) if automatic else None
    if plateau is not None:
        for i in good:
            if errors[i] <= plateau:
                notes[i] = "rounding"
    if automatic:
        good = [i for i, note in enumerate(notes) if note == "used"]
        keep = _settled(np.array(steps, float)[good], errors[good])
        for i in good[: len(good) - keep]:
            notes[i] = "pre-asymptotic"
    return notes


def _plateau(errors: np.ndarray) -> float | None:
    """The size below which errors are rounding, seen from where they cease to fall."""
    for j in range(1, len(errors) - 1):
        rest = errors[j:]
        if rest.max() < 1e-8 and rest[-1] > 0.5 * rest[0] and rest.max() < 100 * rest.min():
            return 10 * float(rest.max())
    return None


def _settled(steps: np.ndarray, errors: np.ndarray) -> int:
    """How many of the finest points lie where the slope has settled; 0 where it has nowhere."""
    if len(steps) < LEAST_POINTS:
        return len(steps)
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(steps))
    for start in range(len(slopes) - LEAST_POINTS + 2):
        kept = slopes[start:]
        if kept.max() - kept.min() <= SETTLED and kept.mean() > 0.3:
            return len(kept) + 1
    # nothing has settled: the finest points as they are, for the gates to judge
    return min(len(steps), LEAST_POINTS + 1)


def _enough(steps: Sequence[int], samples: Sequence[Sample], notes: Sequence[str]) -> bool:
    """Whether a finer step would tell no more."""
    if sum(n in ("rounding", "reference") for n in notes) >= 2:
        return True
    good = [i for i, n in enumerate(notes) if n == "used"]
    if len(good) < 6 or good[-1] != len(steps) - 1:
        return False
    last = good[-5:]
    slopes = [
        -math.log(samples[b].error / samples[a].error) / math.log(steps[b] / steps[a])
        for a, b in pairwise(last)
    ]
    # half-way between whole numbers two terms of the error compete, and the slope moves on
    mean = sum(slopes) / len(slopes)
    return max(slopes) - min(slopes) < 0.04 and abs(mean - round(mean)) < 0.08


def measured_order(
    method: Any,
    problem: str | Problem,
    steps: Sequence[int] | None = None,
    *,
    of: str = "endpoint",
    digits: int | None = None,
    start: str = "exact",
    budget: int | None = None,
    margin: float = MARGIN,
    node_evaluation: str = "broadcast",
    progress: Callable[[], None] | None = None,
    path: str | Path | None = None,
) -> OrderMeasurement:
    """Solve a problem with several numbers of equal steps and measure the slope of the error.

    Args:
        method: a name, a Method, a Solver, a peer ("torchdiffeq:dopri5", "scipy:DOP853",
            "diffrax:Dopri5") or a callable solve(rhs, y0, grid); see `solvers.as_solver`. With
            digits: a name, a Method or an `ImplicitCollocation`.
        problem: a registered name or a Problem.
        steps: numbers of steps, at least three, ascending. None chooses them: from four steps on,
            by factors of sqrt 2, until the slopes have settled, rounding is reached, or the budget
            is spent; then coarse points whose slopes have not settled are dropped. With given
            steps only failures and rounding are dropped.
        of: "endpoint"; "dense", the largest error between the steps over the whole span; "event",
            the time of the problem's event, found on the dense output; "gradient", of w·y(T) with
            respect to y0, by backpropagation through the solve against the variational equation;
            "local", one step from exact states, which has one order more; "estimate", the
            estimated local error of one step from exact states, with its ratio to the true one.
        digits: None is float64; otherwise the steps are carried out in mpmath with this many
            decimal digits (endpoint, dense and local; problems with an exact solution), which
            orders above 8 need.
        start: with digits, how multistep methods start: "exact" or "own".
        budget: most steps of all solves together, by choice of `steps`: 12000, or 3000 for the
            gradient, or 700 with digits.
        margin: see `MARGIN`.
        node_evaluation: of quadflow's methods, see `quadflow.solve`.
        progress: called after every solve.
        path: JSON file that is rewritten after every solve, so that nothing done is lost.

    Returns:
        `OrderMeasurement`. Ctrl-C ends it with what has been measured, remarked "interrupted". A
        kind of error that cannot be had (no dense output, no event, no gradient) gives one without
        points whose `reason` says so.

    Raises:
        ValueError, TypeError: unknown names, steps that are too few or not ascending; digits for
            what is no Method or has no exact solution.
    """
    problem = get_problem(problem)
    numbers: tuple[int, ...] | None = None
    if steps is not None:
        numbers = tuple(int(n) for n in steps)
        if len(numbers) < 3 or numbers[0] < 1 or any(b <= a for a, b in pairwise(numbers)):
            raise ValueError(f"steps must be at least three ascending numbers, got {list(steps)}")
    if budget is None:
        budget = default_budget(of, digits)
    if budget < 4 * LEAST_POINTS:
        raise ValueError(f"budget={budget} steps are too few for any order: at least 100 or so")
    remark = ""
    try:
        if digits is None:
            if isinstance(method, ImplicitCollocation):
                raise ValueError(f"{method.name} runs in extended precision: give digits=")
            solver = _solver(method, node_evaluation)
            name = solver.name
            kind = make_kind(of, solver, problem)
        else:
            plan = method if isinstance(method, ImplicitCollocation) else qf.get_method(method)
            name, remark = plan.name, coefficients_limit(plan) or ""
            kind = make_mp_kind(of, plan, problem, digits, start)
    except UnavailableError as error:
        return OrderMeasurement(
            name, problem.name, None, (), (), (), (), (), of=of, digits=digits, remark=str(error)
        )

    done: list[int] = []
    samples: list[Sample] = []

    def result(remark: str) -> OrderMeasurement:
        notes = _notes(done, samples, kind, numbers is None)
        return OrderMeasurement(
            method=name,
            problem=problem.name,
            promised=kind.promised,
            steps=tuple(done),
            errors=tuple(s.error for s in samples),
            calls=tuple(s.calls for s in samples),
            nfe=tuple(s.nfe for s in samples),
            used=tuple(n == "used" for n in notes),
            notes=tuple(notes),
            of=of,
            what=kind.what,
            ratios=tuple(s.ratio for s in samples) if of == "estimate" else (),
            floor=kind.floor,
            reference_error=kind.reference,
            digits=digits,
            margin=margin,
            remark=remark,
        )

    try:
        for n in numbers if numbers is not None else window():
            if numbers is None and sum(done) + n > budget:
                remark = "; ".join(filter(None, (remark, f"the budget of {budget} steps is spent")))
                break
            sample = kind.sample(n)
            done.append(n)
            samples.append(sample)
            if progress is not None:
                progress()
            if path is not None:
                result("; ".join(filter(None, (remark, "not finished")))).save(path)
            if numbers is None:
                notes = _notes(done, samples, kind, True)
                if _enough(done, samples, notes):
                    break
    except KeyboardInterrupt:
        remark = "; ".join(filter(None, (remark, "interrupted")))
    except UnavailableError as error:
        remark = str(error)
    finished = result(remark)
    if path is not None:
        finished.save(path)
    return finished


def _solver(method: Any, node_evaluation: str) -> Solver:
    solver = as_solver(method)
    if solver.method is not None and not isinstance(method, Solver):
        return quadflow_solver(solver.method, node_evaluation=node_evaluation)
    return solver


def order_figures(measurements: Sequence[OrderMeasurement]) -> str:
    """One line a measurement: what, promised, measured, verdict."""
    lines = [f"{'method':<22}{'problem':<16}{'of':<10}{'promised':>9}{'measured':>16}  verdict"]
    for m in measurements:
        got = f"{m.order:.2f} ± {m.half_width:.2f}" if m.trusted else "-"
        promised = "-" if m.promised is None else str(m.promised)
        lines.append(f"{m.method:<22}{m.problem:<16}{m.of:<10}{promised:>9}{got:>16}  {m.verdict}")
    return "\n".join(lines)
