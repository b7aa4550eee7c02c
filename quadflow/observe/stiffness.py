"""Whether a solve crawls: stability limits its steps where the solution asks for far fewer.

An explicit method holds h·L, the step size times the rate at which f changes with the state, below
what its stability region has on the negative real axis, whatever the tolerance. Where f was
evaluated at two states that the method meets anyway, ‖Δf‖/‖Δy‖ estimates L: in steps that
stability limits the difference lies in the fast directions, which are the ones excited.

Source: Hairer & Wanner, Solving ODEs II, section IV.2, "automatic stiffness detection".
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..control.control import Tolerance
from ..errors import nearest
from ..plans.interpolants import PolynomialInterpolant
from ..plans.registry import (
    AnchorsMethod,
    Method,
    StagesMethod,
    SweepsMethod,
    VariableOrderMethod,
)
from ..plans.step import StepResult
from ..plans.variable_order import MAX_ORDER
from ..rules.lagrange import lagrange_matrix

ON_STIFF = ("warn", "stop", "ignore")

FEW_TIMES = 2000.0
"""L times what is left of the span. Below, stability alone asks an explicit Runge-Kutta method for
no more than some hundred steps, and an implicit method gains little."""

EVERY = 10
"""Accepted steps between two estimates while nothing looks stiff."""

WINDOW, ENOUGH = 40, 0.9
"""Accepted steps over which h·L over its limit must be so much on average."""

PECE_LIMITS = (2.0, 2.4, 1.93, 1.41, 1.03, 0.77, 0.58, 0.43, 0.33, 0.26, 0.21, 0.06)
"""Real stability interval of Adams PECE with k = 1 … 12 anchors (k+1 correct), equal steps."""


def adams_limit(k: int) -> float:
    """h·L above which steps of variable order count as limited by stability, on average.

    In a stiff problem the order wanders through all of 1 … 12 and the steps with it; over 40 steps
    h·L is then 1.4 to 2.6 times the larger of its limit and 0.3, and at most 1.3 times elsewhere.
    """
    return 1.5 * max(0.3, PECE_LIMITS[k - 1])


def own_rates(method: Method) -> tuple[float, float] | None:
    """How much faster the stiff part must be than the solution itself turns, and how many
    tolerances a step may move the state by and still be at rest: noise of the stiff part, which
    turns without end (the variable-order method lets it grow to some tens of tolerances).

    For plans whose limits are so small that loose tolerances meet them on any problem, and for
    stages none of which are at one time, which see f jump in time; None for the others.
    """
    if isinstance(method, VariableOrderMethod):
        return 4.0, 50.0
    if isinstance(method, SweepsMethod):
        return 5.0, 10.0
    if isinstance(method, StagesMethod) and method.tableau.probe is not None:
        weights = np.array(method.tableau.probe[0])
        return (5.0, 10.0) if np.count_nonzero(weights) > 2 else None
    return None


@functools.lru_cache(maxsize=64)
def real_limit(method: Method) -> float | None:
    """How far the method's stability region reaches on the negative real axis, at equal steps.

    None where it is not known, or f is never evaluated at two states to compare.
    """
    if isinstance(method, StagesMethod):
        tableau, s = method.tableau, len(method.tableau.a)
        moment, powers = np.ones(s), [1.0]
        for _ in range(s):
            powers.append(float(tableau.b @ moment))
            moment = tableau.matrix @ moment
        return _reach(lambda x: np.abs(np.polynomial.polynomial.polyval(-x, powers)))
    if isinstance(method, SweepsMethod):
        return None if method.converged else _reach(lambda x: _sweeps_radius(method, -x))
    if isinstance(method, AnchorsMethod):
        k = method.interpolant.anchors
        known = isinstance(method.interpolant, PolynomialInterpolant) and k <= len(PECE_LIMITS)
        # steps that stability limits are never quite equal, which costs a fifth of the interval
        return 0.8 * PECE_LIMITS[k - 1] if known and method.correction == "PECE" else None
    return None


def _reach(growth: Callable[[np.ndarray], np.ndarray]) -> float:
    """The last x, of 0.02, 0.04, … 12, up to which the growth over a step does not exceed 1."""
    x = np.arange(0.0, 12.0, 0.02)
    above = growth(x) > 1 + 1e-6
    return float(x[max(0, int(above.argmax()) - 1)] if above.any() else x[-1])


def _sweeps_radius(method: SweepsMethod, z: np.ndarray) -> np.ndarray:
    """Spectral radius (len(z),) of one interval on y' = λy, z = hλ, in (h V, y)."""
    rule = method.rule
    n = rule.n
    nodes = np.zeros((len(z), n, n + 1))  # h times the node velocities, of the last (h V, y)
    if method.guess == "extrapolated":
        nodes[:, :, :n] = lagrange_matrix(rule.nodes, 1 + rule.nodes)
    else:
        nodes[:, :, n] = z[:, None]
    for _ in range(method.sweeps):
        nodes = rule.integration_matrix @ nodes
        nodes[:, :, n] += 1.0
        nodes *= z[:, None, None]
    matrix = np.concatenate((nodes, (rule.weights @ nodes)[:, None]), axis=1)
    matrix[:, n, n] += 1.0
    radius: np.ndarray = np.abs(np.linalg.eigvals(matrix)).max(1)
    return radius


def check_action(on_stiff: str) -> None:
    """Raise ValueError for what is none of `ON_STIFF`."""
    if on_stiff not in ON_STIFF:
        raise ValueError(f"on_stiff={on_stiff!r} is unknown: {nearest(on_stiff, ON_STIFF)}")


class StiffnessMonitor:
    """Watches the steps of one adaptive solve; numbers reach it with the error ratios' own read.

    Args:
        on_stiff: "warn", "stop" or "ignore"; "ignore" looks at nothing.

    It looks at every tenth accepted step, at every one once h·L is half its limit (in sweeps: and
    the solution itself slow, see `own_rates`), and at none while what is left of the span is too
    short for stiffness to matter (`FEW_TIMES`).

    Attributes:
        message: what to tell the user, once the problem is found to be stiff. stiff_at: the time
            then.
    """

    def __init__(self, method: Method, tolerance: Tolerance, on_stiff: str) -> None:
        self.method, self.tolerance, self.on_stiff = method, tolerance, on_stiff
        self.message = ""
        self.stiff_at: float | None = None
        self._adams = isinstance(method, VariableOrderMethod)
        self._own = own_rates(method)
        self._limit = adams_limit(MAX_ORDER) if self._adams else None
        self._known = False
        self._since, self._suspect, self._due = 0, False, False
        self._numbers: Sequence[float] = ()
        self._window: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def expect(self, size: float, left: float) -> None:
        """A step of this size is about to be tried, with `left` of the span before it."""
        self._due = False
        if self.on_stiff == "ignore" or self.message:
            return
        if self._since + 1 < EVERY and not self._suspect:
            return
        if not self._known and not self._adams:
            self._limit, self._known = real_limit(self.method), True
        self._due = self._limit is not None and left * self._limit >= FEW_TIMES * size

    def wants_sweep(self, result: StepResult) -> bool:
        """Whether one more sweep of an accepted step is asked for, to see two evaluations of f at
        the same nodes: where an estimate is due that nothing else can give."""
        return (
            self._due
            and self._since + 1 >= EVERY
            and result.spread is None
            and result.refine is not None
        )

    def quantities(self, result: StepResult) -> list[Tensor]:
        """h·L and, where `own_rates` asks for it, the like of the solution itself, that many times;
        0-dimensional. None where no estimate is due or there is nothing to compare."""
        self._numbers = ()
        if not self._due or result.spread is None:
            return []
        before, after = result.previous.y, result.state.y
        h = abs(result.state.t - result.previous.t)
        with torch.no_grad():
            states, velocities = result.spread()
            info = torch.finfo(after.dtype)
            # over the largest of the state, so that no square overflows
            unit = after.abs().amax().clamp(min=info.tiny)
            size, moved, changed = (
                torch.linalg.vector_norm(x / unit) for x in (after, states, velocities * h)
            )
            # a difference that is all rounding tells nothing
            rate = changed / (moved + size * (10 * info.eps) + info.tiny)
            if self._own is None:
                return [rate]
            slow, rest = self._own
            turned = self._turn(result) * h
            turned = self.tolerance.ratio(turned, before, after)
            moved = self.tolerance.ratio(after - before, before, after)
            return [rate, slow * turned / (moved + rest)]

    def _turn(self, result: StepResult) -> Tensor:
        """How much the velocity changes over an interval, this one or the last."""
        if self._adams:
            assert result.start is not None
            return result.start.v - result.previous.history[-1].v
        if result.state.anchor is not None and result.start is not None:
            return result.state.anchor.v - result.start.v
        nodes = result.segment().velocities
        return nodes[-1] - nodes[0]

    def read(self, numbers: Sequence[float]) -> None:
        """The numbers of `quantities`."""
        self._numbers = numbers

    def accept(self, result: StepResult, end: float) -> bool:
        """The step was accepted: whether the problem now counts as stiff, for the first time."""
        self._since += 1
        if not self._numbers:
            return False
        h, t = abs(result.state.t - result.previous.t), result.state.t
        rate = self._numbers[0]
        limit = self._limit
        if result.orders is not None:
            limit = adams_limit(result.orders.weights.order)
        assert limit is not None
        share = rate / limit
        share = min(share, 2.0) if share > 0 else 0.0  # 0 for NaN
        slower = share * limit - sum(self._numbers[1:])
        self._window.extend([(share, slower)] * min(self._since, EVERY))
        # a few samples tell what sweeps do, whose estimate costs as much as half a step
        self._since, self._suspect = 0, share >= 0.5 and (slower >= 0 or self._adams)
        shares, slower_ones = zip(*self._window, strict=True)
        limited = len(shares) == WINDOW and sum(shares) >= ENOUGH * WINDOW
        if not (self._suspect and limited and sum(slower_ones) >= 0):  # not with a NaN either
            return False
        self.stiff_at = t
        more = abs(end - t) / h
        rest = f"{more:.3g} more such steps to t={end:.6g}" if math.isfinite(more) else "no end"
        self.message = (
            f"the problem is stiff at t={t:.9g}: stability, not the tolerances, holds the step "
            f"size of method {self.method.name!r} at h = {h:.3g} (f changes with the state at a "
            f"rate of L = {rate / h:.3g} per unit of time, h·L = {rate:.2g}), with {rest}. Other "
            "tolerances hardly change that; an implicit solver does: odeint(..., "
            "method='scipy_solver', options={'solver': 'Radau'}) or 'BDF'. on_stiff='ignore' goes "
            "on without this message, on_stiff='stop' ends the solve"
        )
        return True
