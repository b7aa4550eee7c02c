"""`check`: what a careful user asks of a problem first, in one call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import real_number
from ..control.tolerances import default_atol, default_rtol, positive_tolerance
from ..equations.times import monotone_times
from ..equations.velocity import StateLayout
from ..loop.steps import Status
from ..plans.method import Method
from ..plans.registry import get_method
from ..solution import Solution
from ..solve import solve
from .along import Along, defect, find_jumps, gives_the_same, largest_entry
from .found import FAR, OVERLOOKED, Check, CheckedRun, digits_of

METHODS = ("adams", "dopri8")
"""A multistep method and a Runge-Kutta method: where they agree, no habit of one is the reason."""

TIGHTER = 0.01
"""The second tolerance over the first."""


BY_TIME = "give breakpoints="
BY_STATE = "where depends on the state, so let an Event end the solve there and go on from it"

NOISE = (
    "func gives another velocity for the same time and state: random numbers, or a memory of its "
    "own (dropout, noise, a counter)? No solver can meet a tolerance then"
)


def check(
    func: Callable[..., Any],
    y0: Any,
    t: Sequence[float] | np.ndarray | Tensor,
    *,
    args: tuple[Any, ...] = (),
    methods: tuple[str | Method, str | Method] = METHODS,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 20_000,
) -> Check:
    """Solve a problem by two methods at two tolerances each, and say what that tells.

    It costs four solves, one of them again, and some hundred evaluations more, once, before the
    solves that matter. Does func give the same twice? Do two kinds of method agree, and to how
    many digits? Is the problem stiff? Does func jump, and when? Was something between the steps
    overlooked? Which method is the cheaper one, and with which tolerance?

    Args:
        func, y0, t, args: as of `solve`; dtypes as there. t must end (no infinity).
        methods: two adaptive methods, names or `Method`.
        rtol, atol: the first tolerance, numbers; the second one is a hundredth. Defaults as of
            `solve`.
        max_steps: of each solve.

    Returns:
        `Check`, an object that prints as a page.

    Raises:
        TypeError, ValueError: what `solve` raises for bad arguments, and methods that are not two
            different adaptive ones. What func raises.
    """
    layout = StateLayout(y0, None, 0)
    rtol = default_rtol(layout) if rtol is None else _number(rtol, "rtol")
    atol = default_atol(layout) if atol is None else _number(atol, "atol")
    chosen = _two_methods(methods)
    told: list[str] = []

    def run(method: Method, factor: float, until: Any = None) -> Solution:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = solve(
                func, y0, t if until is None else until, args=args, method=method,
                rtol=rtol * factor, atol=atol * factor, max_steps=max_steps, on_stiff="stop",
                dense_output=until is not None, throw=False,
            )  # fmt: skip
        told.extend(text for w in caught if (text := str(w.message)) not in told)
        return found

    look = Along(func, args, layout)
    with torch.no_grad():
        start = float(monotone_times(t, "t")[0])
        if not gives_the_same(look, start, layout.start(y0)):
            return Check([], math.nan, math.nan, None, [], False, told, None, None, [NOISE])
        solved = [_Solved(m, f, run(m, f)) for m in chosen for f in (1.0, TIGHTER)]
        best = solved[1] if solved[1].solution.success else max(solved, key=lambda s: s.reach)
        # once more, with what lies between the steps: that may cost evaluations
        dense = (
            run(best.method, best.factor, (start, best.solution.t_reached))
            if best.reach
            else best.solution
        )
        return _concluded(look, solved, dense, rtol, atol, told)


def _number(value: Any, name: str) -> float:
    positive_tolerance(value, name)
    return real_number(value, name)


def _two_methods(methods: Any) -> list[Method]:
    if isinstance(methods, (str, Method)) or len(methods) != 2:
        raise ValueError(f"methods must be two methods, got {methods!r}")
    chosen = [get_method(m) for m in methods]
    if chosen[0].name == chosen[1].name:
        raise ValueError(f"methods must be two different ones, got {chosen[0].name!r} twice")
    for method in chosen:
        if method.error_order is None:
            raise ValueError(
                f"methods: {method.name!r} has no error estimate and cannot choose its steps; take "
                "adaptive ones such as 'adams', 'dopri5', 'dopri8', 'gauss'"
            )
    return chosen


def _difference(look: Along, one: Solution, other: Solution) -> float:
    """The largest distance of two solutions at the requested times, over the largest state."""
    if not (one.success and other.success):
        return math.nan
    a, b = look.states(one), look.states(other)
    return largest_entry(a - b) / max(largest_entry(b), math.ulp(0.0))


@dataclass(frozen=True)
class _Solved:
    """One of the four solves. factor: of the tolerances, 1 or `TIGHTER`."""

    method: Method
    factor: float
    solution: Solution

    @property
    def reach(self) -> float:
        """How far it came in time."""
        return abs(self.solution.t_reached - self.solution.steps[0])


def _concluded(
    look: Along, solved: Sequence[_Solved], dense: Solution, rtol: float, atol: float,
    told: list[str],
) -> Check:  # fmt: skip
    one, other = (s.solution for s in solved if s.factor < 1)
    runs = [
        CheckedRun(
            s.method.name, rtol * s.factor, s.solution.status,
            _difference(look, s.solution, other if s in solved[:2] else one),
            s.solution.stats.nfe, s.solution.stats.accepted, s.solution.stats.rejected,
            s.solution.stats.wall_time,
        )
        for s in solved
    ]  # fmt: skip
    same = gives_the_same(look, dense.t_reached, look.layout.start(dense.y_reached))
    seen = same and len(dense.steps) > 1
    stiff = [at for s in solved if (at := s.solution.stats.stiff_at) is not None]
    found = Check(
        runs, digits_of(_difference(look, one, other)), defect(look, dense) if seen else math.nan,
        min(stiff, key=lambda t: abs(t - dense.steps[0]), default=None),
        find_jumps(look, dense) if seen else [], same, told, dense, None,
    )  # fmt: skip
    ended = (Status.SUCCESS, Status.STIFF)
    failed = [s for s in solved if s.solution.status not in ended]
    return replace(
        found, suggestion=_suggested(found, rtol, atol), remarks=_remarks(found, rtol, failed)
    )


def _suggested(found: Check, rtol: float, atol: float) -> dict[str, Any] | None:
    """The cheaper of the two methods, at the tolerance by which its error should be rtol."""
    if found.stiff_at is not None or not found.deterministic or math.isnan(found.digits):
        return None
    choices = []
    for loose, tight in (found.runs[:2], found.runs[2:]):
        share = _share(loose.error, tight.error, rtol)
        cost = loose.nfe * (tight.nfe / loose.nfe) ** share
        choices.append((cost, loose.method, TIGHTER**share))
    _, method, factor = min(choices)
    tolerances = {"rtol": rtol * factor, "atol": atol * factor}
    chosen: dict[str, Any] = {"method": method}
    chosen |= {name: float(f"{value:.1e}") for name, value in tolerances.items()}
    times = tuple(jump.t for jump in found.jumps if jump.in_time)
    return chosen | ({"breakpoints": times} if times else {})


def _share(loose: float, tight: float, wanted: float) -> float:
    """Where between two tolerances the wanted error lies: 0 at the loose one, 1 at the tight."""
    if loose <= wanted:
        return 0.0
    if not 0 < tight < loose:
        return 1.0
    return min(1.0, math.log(loose / wanted) / math.log(loose / tight))


def _remarks(found: Check, rtol: float, failed: Sequence[_Solved]) -> list[str]:
    said = []
    if not found.deterministic:
        said.append(NOISE)
    said += [f"{s.method.name} at rtol={rtol * s.factor:.0e}: {s.solution.message}" for s in failed]
    if found.stiff_at is not None:
        said.append(
            f"stiff from t={found.stiff_at:.6g} on: stability holds the steps of explicit methods "
            "small; take odeint(..., method='scipy_solver', options={'solver': 'Radau'})"
        )
    if not math.isnan(found.digits):
        said.append(f"both methods agree to {found.digits:.1f} digits at the tighter tolerance")
        overlooked = found.defect > OVERLOOKED
        if max(run.error for run in found.runs) > FAR * rtol and not overlooked:
            said.append(
                "errors grow far beyond the tolerance, as in chaotic and unstable problems: a "
                "single trajectory is known to the digits above alone"
            )
    for jump in found.jumps:
        how = BY_TIME if jump.in_time else BY_STATE
        said.append(f"func jumps at t={jump.t:.9g}, by {jump.size:.2g} of its largest: {how}")
    if found.defect > OVERLOOKED:
        said.append(
            f"between its steps the solution misses the equation by {found.defect:.2g} of the "
            "largest velocity: something short was overlooked; give max_step= or breakpoints="
        )
    return said + found.warnings
