"""The plan *anchors* with an order chosen anew for every interval: Adams methods of variable order.

How order and step size are chosen stands in `variable_order`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ...equations.small_states import array_of, tensor_of
from ...equations.velocity import Velocity
from ...rules.pairs import DOPRI5
from ..anchors.method import PECE_LIMITS
from ..interpolants import Anchor
from ..method import Method, Stepper
from ..result import OrderErrors, StepResult
from ..segment import Segment, lagrange_weights
from ..stages.method import stages
from ..state import State, between_ends
from ..sums import add_scaled, product
from .variable_order import MAX_ORDER, IntervalWeights, OrderControl, interval_weights


@dataclass(frozen=True, eq=False, repr=False)
class VariableOrderMethod(Method):
    """The plan *anchors* with PECE, its number of anchors chosen anew for every interval.

    `order` is None: the order is chosen together with the steps, so there is none at fixed steps,
    which the method does not take. error_order is that of the lowest order.

    Attributes:
        control: chooses order and step size; order k (k anchors predict, k+1 correct) goes from 1
            to control.max_order.
    """

    takes_fixed_steps: ClassVar[bool] = False

    control: OrderControl

    @property
    def max_order(self) -> int:
        """The highest k."""
        return self.control.max_order

    @property
    def order_control(self) -> OrderControl:
        return self.control

    @property
    def stability_limit(self) -> float | None:
        return adams_limit(MAX_ORDER)

    def stability_limit_at(self, order: int) -> float | None:
        return adams_limit(order)

    @property
    def stiff_margins(self) -> tuple[float, float] | None:
        # order and steps let the noise of a stiff part grow to some tens of tolerances
        return 4.0, 50.0

    def stepper(self, velocity: Velocity, *, adaptive: bool = False) -> AdamsStepper:
        return AdamsStepper(self, velocity, adaptive=adaptive)


def adams_limit(k: int) -> float:
    """The mean of h·L above which steps of order k count as limited by stability.

    In a stiff problem the order wanders through all of 1 … 12 and the steps with it; over 40 steps
    h·L is then 1.4 to 2.6 times the larger of its limit and 0.3, and at most 1.3 times elsewhere.
    """
    return 1.5 * max(0.3, PECE_LIMITS[k - 1])


def adams_variable(control: OrderControl | None = None) -> VariableOrderMethod:
    """Adams predictor-corrector of variable order and step, for functions that are expensive.

    It evaluates f twice a step whatever the order, once in the last and in rejected ones, starts
    itself at order 1 (by Runge-Kutta steps where t holds none that short), and takes adaptive steps
    alone. Between the steps: the polynomial through the anchors used, the predicted end included,
    as accurate as the steps and continuous at the joins.

    Args:
        control: how order and step size are chosen; the default goes up to k = 12.

    Sources: Shampine & Gordon, Computer Solution of Ordinary Differential Equations, 1975; Hairer,
    Nørsett & Wanner, Solving ODEs I, sections III.5 and III.7.
    """
    return VariableOrderMethod(
        name="adams",
        order=None,
        dense_order=None,
        error_order=2,
        max_growth=2.0,
        control=OrderControl() if control is None else control,
    )


SHORTEST = 1e3
"""Roundings of t in the shortest step of variable order; shorter ones are made by Runge-Kutta.
Order 1, at which the method starts itself, might want steps that t does not hold, where those of
order 5 are fine."""

RUNGE_KUTTA_STARTS = 4
"""The most anchors that the first step of variable order after such steps is predicted from."""


class AdamsStepper(Stepper):
    """Steps of Adams methods of variable order: predict, evaluate, correct, evaluate."""

    method: VariableOrderMethod

    def __init__(
        self, method: VariableOrderMethod, velocity: Velocity, *, adaptive: bool = False
    ) -> None:
        super().__init__(method, velocity, adaptive=adaptive)
        self._runge_kutta = stages(DOPRI5).stepper(velocity, adaptive=adaptive)
        self._rows: tuple[Any, np.ndarray] = (None, np.empty((0, 0)))

    def step(self, state: State, t1: Any, *, is_last: bool = False) -> StepResult:
        if abs(t1 - state.t) < SHORTEST * math.ulp(state.t):
            return self._started_anew(state, t1)
        ways = self._of_arrays, self._of_tensors
        return self.either(state, t1, *ways, state, t1)

    def _started_anew(self, state: State, t1: float) -> StepResult:
        """A step that is too short for order 1, by Runge-Kutta."""
        start = self.start(state)
        known = _looked_back_on(self.method, state, start)
        result = self._runge_kutta.step(State(state.t, state.numbers, start), t1)
        order = min(len(known), RUNGE_KUTTA_STARTS)
        result.state.history, result.state.order = known, order
        result.lipschitz_pair = None  # of stages, which limits of variable order say nothing of
        return result

    def _of_tensors(self, state: State, t1: float) -> StepResult:
        start = self.start(state)
        known = _looked_back_on(self.method, state, start)
        weights = _weights_to(t1, self.method, state, known)
        y0, h = state.y, t1 - state.t
        recent = known[: -len(weights.positions) - 1 : -1]
        table = torch.tensor(weights.table).to(y0.device, y0.dtype, non_blocking=True)
        rows = torch.stack([tensor_of(a.v) for a in recent]).reshape(len(recent), -1)
        guess = predicted(table, y0, rows, h)
        v1, _ = self.velocity.of_held(t1, guess)
        rows = torch.cat((v1.reshape(1, -1), rows))
        y1, errors = corrected(table, y0, rows, h)
        return self._result(state, start, known, weights, guess, v1, t1, y1, errors)

    def _of_arrays(self, state: State, t1: float) -> StepResult:
        start = self.start_in_arrays(state)
        known = _looked_back_on(self.method, state, start)
        weights = _weights_to(t1, self.method, state, known)
        y0, velocity = array_of(state.numbers), self.velocity.arrays
        h = np.array(t1 - state.t, velocity.real)
        table = weights.table.astype(y0.dtype, copy=False)
        rows = self._velocity_rows(state.history, known)[: 1 + len(weights.positions)]
        guess = predicted(table, y0, rows[1:], h)
        v1 = velocity.at(t1, guess, held=True)
        rows[0] = v1.reshape(-1)
        y1, errors = corrected(table, y0, rows, h)
        return self._result(state, start, known, weights, guess, v1, t1, y1, errors)

    def _result(
        self, state: State, start: Anchor, known: tuple[Anchor, ...], weights: IntervalWeights,
        predicted: Any, v1: Any, t1: float, y1: Any, errors: Any,
    ) -> StepResult:  # fmt: skip
        k = weights.order

        def segment(_: StepResult) -> Segment:
            nodes = [1.0, *weights.positions[:k].tolist()]
            own = [tensor_of(v) for v in (v1, *(a.v for a in known[: -k - 1 : -1]))]
            return Segment(state.t, t1, state.y, own, lagrange_weights(nodes), tensor_of(y1))

        other = self.other_end(lambda: Anchor(t1, tensor_of(predicted), tensor_of(v1)))
        return StepResult(
            State(t1, y1, history=known, order=k, other_end=other), errors[-1], k + 1, segment,
            start, state, OrderErrors(weights, errors), lipschitz_pair=between_ends(state, start),
        )  # fmt: skip

    def _velocity_rows(self, history: tuple[Anchor, ...], known: tuple[Anchor, ...]) -> np.ndarray:
        """Velocities of anchors, newest first, below a row that is free: (1 + known, numel). Those
        of the step before are found again, where `history` is what it knew."""
        own, (before, rows) = array_of(known[-1].v).reshape(-1), self._rows
        fresh = np.empty((1 + len(known), own.size), own.dtype)
        fresh[1] = own
        if before is history and history:
            fresh[2:] = rows[1 : len(known)]
        else:
            for i, anchor in enumerate(known[-2::-1], start=2):
                fresh[i] = array_of(anchor.v).reshape(-1)
        self._rows = known, fresh
        return fresh


def _looked_back_on(method: VariableOrderMethod, state: State, start: Anchor) -> tuple[Anchor, ...]:
    """The anchors of a step of variable order, `start` the last of them."""
    # nothing looks at the states of earlier anchors, which need not be kept
    return (*state.history, Anchor(start.t, start.v, start.v))[-(method.max_order + 1) :]


def _weights_to(
    t1: float, method: VariableOrderMethod, state: State, known: tuple[Anchor, ...]
) -> IntervalWeights:
    times = [anchor.t for anchor in known[::-1]]
    order = min(state.order, len(known))
    return interval_weights(times, state.t, t1, order, method.max_order)


def predicted(table: Any, y0: Any, known: Any, h: Any) -> Any:
    """The state that the predictor of `variable_order.IntervalWeights` leads to, of known
    velocities (m, numel), newest first. table: as there, of the state's dtype and device."""
    return add_scaled(y0, _summed(table[0, 1:], known).reshape(y0.shape), h)


def corrected(table: Any, y0: Any, velocities: Any, h: Any) -> tuple[Any, Any]:
    """The corrected state, and the errors of several orders (k, *shape). velocities: that at the
    predicted end, then the known ones."""
    is_array = isinstance(velocities, np.ndarray)
    y1 = add_scaled(y0, _summed(table[1], velocities).reshape(y0.shape), h)
    errors = product(table[2:], velocities if is_array else velocities.detach())
    return y1, (errors * h).reshape(-1, *y0.shape)


def _summed(weights: Any, values: Any) -> Any:
    """weights (n,) times values (n, numel)."""
    return weights.dot(values) if isinstance(values, np.ndarray) else torch.mv(values.T, weights)
