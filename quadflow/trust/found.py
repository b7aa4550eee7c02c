"""What a check found, as an object that prints as a page."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..loop.steps import Status
from ..solution import Solution

FAR = 1000.0
"""Tolerances that a run's error may have before `Check.ok` is False."""

OVERLOOKED = 0.1
"""The least defect that counts as something overlooked."""


def digits_of(error: float) -> float:
    """-log10 of a relative error: correct decimal digits; nan for nan."""
    return math.inf if error == 0 else -math.log10(error) if error > 0 else math.nan


@dataclass(frozen=True)
class CheckedRun:
    """One solve of a check.

    method, rtol: of the solve. status: how it ended. error: the largest distance, at any of the
    times t, to the other method's run at the tighter tolerance, over the largest state met; nan
    where one of both did not get there. nfe, accepted, rejected, seconds: what it cost.
    """

    method: str
    rtol: float
    status: Status
    error: float
    nfe: int
    accepted: int
    rejected: int
    seconds: float

    @property
    def digits(self) -> float:
        """Correct decimal digits of the largest state."""
        return digits_of(self.error)


@dataclass(frozen=True)
class Jump:
    """A time at which func jumps along the solution.

    t: where, as exactly as floats say. size: of the jump, over the largest velocity met. in_time:
    func jumps as a function of t alone, so that `breakpoints=` takes care of it.
    """

    t: float
    size: float
    in_time: bool


@dataclass(frozen=True)
class Check:
    """What `check` found; print it to read it.

    runs: two methods at two tolerances, see `CheckedRun`. digits: in which the tighter runs of both
    agree: more are not known; nan where one failed. defect: the largest |dy/dt - f(t, y)| between
    the steps of `solution`, over the largest |f|: near 1 where something was overlooked. stiff_at:
    the time from which the problem is stiff, or None. jumps: see `Jump`. deterministic: whether
    func gave the same for the same state twice. warnings: texts of what was warned of on the way.
    solution: the first method's tighter run over its own steps, else what came farthest, with dense
    output. suggestion: arguments of
    `solve`, for `solve(func, y0, t, **suggestion)`; None where no explicit method is to be
    suggested. remarks: sentences that say what was found.
    """

    runs: list[CheckedRun]
    digits: float
    defect: float
    stiff_at: float | None
    jumps: list[Jump]
    deterministic: bool
    warnings: list[str]
    solution: Solution | None
    suggestion: dict[str, Any] | None
    remarks: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing was found that needs a look: all runs reached the end and agree within a
        thousand tolerances, no stiffness, no jump, nothing overlooked, the same velocity twice."""
        if not self.runs:
            return False
        asked = max(run.rtol for run in self.runs)
        agree = all(run.error <= FAR * asked for run in self.runs)
        calm = self.stiff_at is None and not self.jumps and self.defect < OVERLOOKED
        return agree and calm and self.deterministic

    def __str__(self) -> str:
        lines = [f"{'method':<10}{'rtol':>9}{'digits':>8}{'nfe':>9}{'steps':>8}{'rejected':>10}"]
        lines[0] += f"{'seconds':>9}  status"
        lines += [
            f"{r.method:<10}{r.rtol:>9.0e}{r.digits:>8.1f}{r.nfe:>9}{r.accepted:>8}"
            f"{r.rejected:>10}{r.seconds:>9.3f}  {r.status.value}"
            for r in self.runs
        ]
        lines += [f"- {remark}" for remark in self.remarks]
        if self.suggestion is not None:
            how = ", ".join(f"{name}={value!r}" for name, value in self.suggestion.items())
            lines.append(f"suggested: solve(func, y0, t, {how})")
        return "\n".join(lines)
