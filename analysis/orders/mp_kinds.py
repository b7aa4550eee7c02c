"""Errors of solves and of single steps in extended precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ...checks import check_choice
from ...plans.anchors.method import AnchorsMethod
from ...plans.method import Method
from ...plans.sweeps.method import SweepsMethod
from ..exact.methods import look_back
from ..exact.mp_backend import (
    ImplicitCollocation,
    MpRun,
    coefficients_limit,
    exact_states,
    mp_solve,
)
from ..exact.multiprecision import multiprecision
from ..problems.problem import Problem
from .error_kinds import KINDS, MP_KINDS
from .kind import FRACTIONS, STARTS, Kind, Sample, UnavailableError
from .single_steps import local_order


def make_mp_kind(
    of: str, method: Method | ImplicitCollocation, problem: Problem, digits: int, start: str
) -> Kind:
    """The Kind of a name in `MP_KINDS` at a number of decimal digits, by `mp_backend`.

    Raises:
        ValueError: unknown name, a problem without exact solution.
        UnavailableError: not to be had in extended precision.
    """
    check_choice(of, KINDS, "of")
    if of not in MP_KINDS:
        raise UnavailableError(f"of={of!r} is measured in float64 only")
    solves = _Solves(method, problem, exact_states(problem), digits, start)
    measure, promised, what = {
        "endpoint": (solves.endpoint, method.order, "error at the end of the span"),
        "dense": (solves.dense, method.dense_order,
                  "largest error between the steps, over the whole span"),
        "local": (solves.local, local_order(method),
                  "error of one step from the exact state (largest)"),
    }[of]  # fmt: skip
    floor = 1e-14 if coefficients_limit(method) is not None else 10.0 ** (6 - digits)
    # the problem's exact solution meets its right-hand side to the working precision
    reference = 10.0**-digits
    return Kind(solves.sampled(measure), promised, floor, reference, f"{what}, {digits} digits")


@dataclass(frozen=True)
class _Solves:
    """Solves with a number of equal steps each, and how far they are from the exact states."""

    method: Method | ImplicitCollocation
    problem: Problem
    exact: Callable[[Any], Sequence[Any]]
    digits: int
    start: str

    def sampled(self, measure: Callable[[int], Sample]) -> Callable[[int], Sample]:
        """`measure` in the working precision, what fails in its arithmetic as a failed sample."""

        def sample(n: int) -> Sample:
            with multiprecision().workdps(self.digits + 10):
                try:
                    return measure(n)
                except (ArithmeticError, ZeroDivisionError) as error:
                    return Sample(math.inf, failure=str(error))

        return sample

    @property
    def span(self) -> tuple[Fraction, Fraction]:
        begin, end = self.problem.span
        return Fraction(begin), Fraction(end)

    def whole(self, n: int) -> MpRun:
        """The solve of the whole span in n equal steps."""
        begin, end = self.span
        grid = [begin + (end - begin) * i / n for i in range(n + 1)]
        return mp_solve(self.problem, self.method, grid, self.digits, start=self.start)

    def gap(self, state: Sequence[Any], t: Any) -> tuple[Any, Any]:
        """The largest error of a state at t, and the largest entry of the exact one."""
        truth = self.exact(t)
        worst = max(abs(a - b) for a, b in zip(state, truth, strict=True))
        return worst, max(abs(b) for b in truth)

    def endpoint(self, n: int) -> Sample:
        exact_starts = self.start == "exact" and isinstance(self.method, AnchorsMethod)
        if n <= (look_back(self.method) if exact_starts else 0):
            return Sample(math.inf, failure=f"{n} steps are all taken up by exact starting values")
        run = self.whole(n)
        worst, scale = self.gap(run.end, _number(self.span[1]))
        return Sample(float(worst / scale), run.nfe, run.calls)

    def dense(self, n: int) -> Sample:
        run = self.whole(n)
        if run.segments is None:
            raise UnavailableError(
                "the interpolant is known in float64 only, or not in the first intervals (start="
                "'own' of an Adams method)"
            )
        pairs = [
            self.gap(piece(t), t)
            for piece in run.segments
            for t in (piece.t0 + piece.h * x for x in FRACTIONS)
        ]
        worst, scale = max(w for w, _ in pairs), max(s for _, s in pairs)
        return Sample(float(worst / scale), run.nfe, run.calls)

    def local(self, n: int) -> Sample:
        history = look_back(self.method)
        if isinstance(self.method, SweepsMethod) and history:
            raise UnavailableError(
                "one step with an extrapolated guess is measured in float64 only"
            )
        if n - 1 - history < 0:
            return Sample(math.inf, failure=f"{n} steps leave no room for {history} of history")
        begin, end = self.span
        h = (end - begin) / n
        worst, scale, nfe, calls = 0.0, 0.0, 0, 0
        for x in STARTS:
            first = begin + h * (n - 1 - history) * Fraction(x)
            times = [first + h * i for i in range(history + 2)]
            before = self.exact(_number(first))
            run = mp_solve(self.problem, self.method, times, self.digits, y0=before, start="exact")
            error, size = self.gap(run.end, _number(times[-1]))
            worst, scale = max(worst, error), max(scale, size)
            nfe, calls = nfe + run.nfe, calls + run.calls
        return Sample(float(worst / scale), nfe, calls)


def _number(x: Fraction) -> Any:
    return multiprecision().mpf(x.numerator) / x.denominator
