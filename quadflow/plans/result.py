"""One interval done: the state at its end, its error, and what may be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..equations.small_states import array_of, tensor_of
from .interpolants import Anchor
from .segment import Segment
from .state import State, in_tensors

if TYPE_CHECKING:
    from ..control.control import Tolerance
    from .adams.variable_order import IntervalWeights

TRUSTED = 100.0
"""How many tolerances a step's dense output may miss what the step knows by, see
`Tableau.misses`. Of dopri8 on smooth problems the median is 1/2, the largest 50 (380 where
stability holds the steps); where f jumps past the stages it is hundreds and more."""


@dataclass(slots=True)
class OrderErrors:
    """What the next order is chosen from: errors[i], of the state's shape, estimates the error of
    order weights.orders[i]; O(h^(order+1))."""

    weights: IntervalWeights
    errors: Any


@dataclass(frozen=True)
class SamplesStep:
    """A step of every sample's own: which were accepted (bool (B,)), and the times t (B,) where the
    samples stand after it, on the host."""

    accepted: np.ndarray
    t: np.ndarray


@dataclass(slots=True)
class StepResult:
    """One interval done.

    state: at its end. previous: at its start. estimate: see `error`, in an array where the step
    went through NumPy. error_order: an integer, or one a sample.
    make_segment: see `segment`. begun: the anchor at the start, where the plan evaluated one: a
    rejected step need not evaluate it again. orders: the errors of several orders, where the method
    chooses between them. samples: of steps that every sample has for itself. refine: called with no
    arguments, the same interval with one sweep more (a call of f); None where the method has none.
    sweeps_left: how often that may go on. swept: the values that `Unfinished` takes; sweeps_left is
    then how often it may in all, one a sample. lipschitz_pair: called with no arguments, the
    difference of two states (or of combinations of more) at which f was evaluated anyway, and that
    of f there;
    None where there are none. See `stiffness`. ratio: of error and tolerance, where a compiled step
    brings it instead of the error. make_misses: see `dense_ratio`; None where dense output is made
    of what the error estimate has judged.
    """

    state: State
    estimate: Any
    error_order: Any
    make_segment: Callable[[StepResult], Segment]
    begun: Anchor | None
    previous: State
    orders: OrderErrors | None = None
    samples: SamplesStep | None = None
    refine: Callable[[], StepResult] | None = None
    sweeps_left: Any = 0
    swept: Tensor | None = None
    lipschitz_pair: Callable[[], tuple[Tensor, Tensor]] | None = None
    ratio: Tensor | None = None
    make_misses: Callable[[StepResult], list[Tensor]] | None = None
    _segment: Segment | None = None

    @property
    def error(self) -> Tensor | None:
        """Estimate of the local error, of the state's shape, O(h^error_order); None without one."""
        found: Tensor | None = tensor_of(self.estimate)
        return found

    @property
    def start(self) -> Anchor | None:
        """`begun` in tensors."""
        return None if self.begun is None else in_tensors(self.begun)

    def ratios(self, tolerance: Tolerance) -> Tensor:
        """Norm of the error over the tolerance, 0-dimensional; or that of every order, (k,)."""
        if self.ratio is not None:
            return self.ratio
        y0, y1 = self.previous.y, self.state.y
        if self.orders is not None:
            return tolerance.ratios(self.orders.errors, y0, y1)
        return tolerance.ratio(self.estimate, y0, y1)

    def moved_ratio(self, tolerance: Tolerance) -> Tensor:
        """The same of what the step moves the state by."""
        y0, y1 = self.previous.y, self.state.y
        return tolerance.ratio((y1 - y0).detach(), y0, y1)

    def numbers(self, tolerance: Tolerance, moved: bool) -> list[float]:
        """`ratios` of a step that went through NumPy, and `moved_ratio` if asked for."""
        y0, y1 = array_of(self.previous.numbers), self.state.numbers
        errors = [self.estimate] if self.orders is None else [*self.orders.errors]
        if not moved:
            return tolerance.numbers(errors, y0, y1)
        # the norm sees the errors last, as it does in tensors
        first, *numbers = tolerance.numbers([y1 - y0, *errors], y0, y1)
        return [*numbers, first]

    def dense_ratio(self, tolerance: Tolerance) -> Tensor:
        """By how much dense output misses what the step knows, over what it may: 0-dimensional, or
        (B,). It evaluates f where `segment` does, which does not do so again."""
        assert self.make_misses is not None
        misses, y0, y1 = self.make_misses(self), self.previous.y.detach(), self.state.y.detach()
        return torch.stack([tolerance.ratio(miss, y0, y1) for miss in misses]).amax(0) / TRUSTED

    def segment(self) -> Segment:
        """The interval's dense output. It may need evaluations of f, which are shared with the
        next interval through `state`: it is asked for and not made, and made once."""
        if self._segment is None:
            self._segment = self.make_segment(self)
        return self._segment
