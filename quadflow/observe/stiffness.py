"""Whether a solve crawls: stability limits its steps where the solution asks for far fewer.

An explicit method holds h·L, the step size times the rate at which f changes with the state, below
what its stability region has on the negative real axis, whatever the tolerance. Where f was
evaluated at two states that the method meets anyway, ‖Δf‖/‖Δy‖ estimates L: in steps that
stability limits the difference lies in the fast directions, which are the ones excited.

Source: Hairer & Wanner, Solving ODEs II, section IV.2, "automatic stiffness detection".
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ..control.control import Tolerance
from ..equations.small_states import tensor_of
from ..plans.method import Method
from ..plans.result import StepResult

ON_STIFF = ("warn", "stop", "ignore")

FEW_TIMES = 2000.0
"""The least product of L and what is left of the span at which steps are looked at. Below it,
stability alone asks an explicit Runge-Kutta method for no more than some hundred steps, and an
implicit method gains little."""

EVERY = 10
"""Accepted steps between two estimates while nothing looks stiff."""

WINDOW, ENOUGH = 40, 0.9
"""How many accepted steps are averaged, and the least mean of h·L over its limit that counts."""


class StiffnessMonitor:
    """Watches the steps of one adaptive solve; its numbers are read together with the error ratios.

    Args:
        on_stiff: "warn", "stop" or "ignore"; "ignore" looks at nothing.

    It looks at every tenth accepted step, and at every one once h·L is half its limit (and, where
    the method has `stiff_margins`, the solution itself slow). It looks at none while what is left
    of the span is too short for stiffness to matter (`FEW_TIMES`).

    Attributes:
        due: whether an estimate is due in this trial.
        message: what to tell the user, once the problem is found to be stiff.
        stiff_at: the time then.
    """

    def __init__(self, method: Method, tolerance: Tolerance, on_stiff: str) -> None:
        self.method, self.tolerance, self.on_stiff = method, tolerance, on_stiff
        self.message = ""
        self.stiff_at: float | None = None
        self._margins = method.stiff_margins
        self._since, self._suspect, self.due = 0, False, False
        self._numbers: Sequence[float] = ()
        self._window: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def expect(self, size: float, left: float) -> None:
        """A trial step of this size comes next, with `left` of the span before it."""
        self.due, self._numbers = False, ()
        if self.on_stiff == "ignore" or self.message:
            return
        if self._since + 1 < EVERY and not self._suspect:
            return
        limit = self.method.stability_limit
        self.due = limit is not None and left * limit >= FEW_TIMES * size

    def wants_sweep(self, result: StepResult) -> bool:
        """Whether an accepted step is to be swept once more, so that f is seen twice at the same
        nodes: where an estimate is due that nothing else can give.
        """
        return (
            self.due
            and self._since + 1 >= EVERY
            and result.lipschitz_pair is None
            and result.refine is not None
        )

    def quantities(self, result: StepResult) -> list[Tensor]:
        """0-dimensional numbers to be read: h·L and, where the method has `stiff_margins`, the like
        of the solution itself, that many times; asked for where an estimate is due. Empty where
        there is nothing to compare."""
        self._numbers = ()
        if result.lipschitz_pair is None:
            return []
        before, after = result.previous.y, result.state.y
        h = abs(result.state.t - result.previous.t)
        with torch.no_grad():
            states, velocities = result.lipschitz_pair()
            info = torch.finfo(after.dtype)
            # over the largest of the state, so that no square overflows
            unit = after.abs().amax().clamp(min=info.tiny)
            size, moved, changed = (
                torch.linalg.vector_norm(x / unit) for x in (after, states, velocities * h)
            )
            # a difference that is all rounding tells nothing
            rate = changed / (moved + size * (10 * info.eps) + info.tiny)
            if self._margins is None:
                return [rate]
            slow, rest = self._margins
            turned = self._turn(result) * h
            turned = self.tolerance.ratio(turned, before, after)
            moved = self.tolerance.ratio(after - before, before, after)
            return [rate, slow * turned / (moved + rest)]

    def _turn(self, result: StepResult) -> Tensor:
        """How much the velocity changes over an interval, this one or the last."""
        if result.orders is not None:
            assert result.start is not None
            return result.start.v - tensor_of(result.previous.history[-1].v)
        if result.state.anchor is not None and result.start is not None:
            return result.state.anchor.v - result.start.v
        nodes = result.segment().velocities
        return nodes[-1] - nodes[0]

    def read(self, numbers: Sequence[float]) -> None:
        """The numbers of `quantities`."""
        self._numbers = numbers

    def accept(self, result: StepResult, end: float) -> bool:
        """Note an accepted step. Returns whether the problem now counts as stiff, for the first
        time.

        end: where the solve will end.
        """
        self._since += 1
        if not self._numbers:
            return False
        h, t = abs(result.state.t - result.previous.t), result.state.t
        rate = self._numbers[0]
        limit = self.method.stability_limit
        if result.orders is not None:
            limit = self.method.stability_limit_at(result.orders.weights.order)
        assert limit is not None
        share = rate / limit
        share = min(share, 2.0) if share > 0 else 0.0  # 0 for NaN
        slower = share * limit - sum(self._numbers[1:])
        self._window.extend([(share, slower)] * min(self._since, EVERY))
        # a few samples tell what sweeps do, whose estimate costs as much as half a step
        self._since, self._suspect = 0, share >= 0.5 and (slower >= 0 or result.orders is not None)
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
