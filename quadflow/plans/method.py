"""Methods and what takes their steps: what those of all plans have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor

from ..equations.small_states import NeedsTensors, array_of
from ..equations.velocity import Velocity
from .interpolants import Anchor
from .result import StepResult
from .state import State

if TYPE_CHECKING:
    from ..compiled.step import CompiledTrials
    from .adams.variable_order import OrderControl


FLOAT64 = 2.0**-52
"""Relative rounding of float64."""


@dataclass(frozen=True, eq=False)
class Method:
    """What `solve` needs to know of a method; each plan has a class of its own.

    Attributes:
        name: as in the registry.
        order: global order p, error O(h^p) at fixed steps; None where none is claimed.
        dense_order: the same for the solution between the steps.
        error_order: q, the error estimate being O(h^q); None without an estimate (fixed steps
            only).
        max_growth: largest factor between the sizes of successive adaptive steps.
        description: what the method is and where it comes from, in one line.
        takes_fixed_steps: False where step sizes are chosen together with something else, such as
            the order.
        looks_back: whether a step uses velocities at times of earlier steps, of a varying number.
    """

    takes_fixed_steps: ClassVar[bool] = True
    looks_back: ClassVar[bool] = True

    name: str
    order: int | None
    dense_order: int | None
    error_order: int | None
    max_growth: float
    description: str = field(default="", kw_only=True)

    def for_tolerance(self, rtol: float, eps: float = FLOAT64) -> Method:
        """The method that an adaptive solve takes at this relative tolerance: itself, unless its
        size is to be chosen.

        eps: relative rounding of func's values.
        """
        return self

    def on_nodes(self, n: int) -> Method:
        """The same on n nodes of its family, 2 to 8, whatever the tolerance.

        Raises:
            ValueError: there is no family, or n is none of these.
        """
        raise self._without_family(n)

    def _without_family(self, n: int) -> ValueError:
        return ValueError(f"method {self.name!r} has no family of rules to take {n} nodes of")

    def stepper(self, velocity: Velocity, *, adaptive: bool = False) -> Stepper:
        """What takes the steps; adaptive: see `Stepper`."""
        raise NotImplementedError(f"method {self.name!r} has no evaluation plan")

    @property
    def order_control(self) -> OrderControl | None:
        """What chooses order and step size together; None where the order is fixed."""
        return None

    @property
    def takes_sample_grid(self) -> bool:
        """Whether a grid may give every sample times of its own."""
        return False

    @property
    def is_driven(self) -> bool:
        """Whether steps may be driven from outside, see `drive`."""
        return False

    @property
    def amplification(self) -> float:
        """By how much a guess extrapolated over an interval as long as the last one amplifies the
        rounding of func; 0 where nothing is extrapolated."""
        return 0.0

    def not_compiled(self, samples: bool) -> str | None:
        """Why there is no compiled step, in words; None where there is one.

        samples: every sample has steps of its own.
        """
        if not self.looks_back:
            return None
        return (
            "looks back on a varying number of anchors and has no compiled step; take a "
            "Runge-Kutta method such as method='dopri8' or a collocation method such as "
            "method='gauss'"
        )

    @functools.cached_property
    def widest_gap(self) -> float:
        """The longest part of a step within which f is not evaluated: 1 where it is at the ends
        alone."""
        return 1.0

    @property
    def stability_limit(self) -> float | None:
        """The reach of the stability region on the negative real axis, at equal steps.

        None where it is not known, or f is never evaluated at two states to compare.
        """
        return None

    def stability_limit_at(self, order: int) -> float | None:
        """The same of steps of this order, where it is chosen anew for every step."""
        return self.stability_limit

    @property
    def stiff_margins(self) -> tuple[float, float] | None:
        """Two factors that tell a stiff problem from one whose solution itself is fast: how many
        times faster than the solution turns the stiff part must be; and how many tolerances a step
        may move the state by and still be at rest.

        A state at rest moves by the noise of the stiff part, which turns without end. Two kinds of
        plans need the factors: those whose stability limits are so small that loose tolerances meet
        them on any problem, and those that may take a jump of f in time for a change with the
        state. None for the others.
        """
        return None

    @property
    def has_exact_adjoint(self) -> bool:
        """Whether the adjoint equation gives the exact gradient of what the method computed, where
        the method solves it backward over its own steps.
        """
        return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: order {self.order}>"


def widest_gap(nodes: np.ndarray) -> float:
    """The longest part of a step, from 0 to 1, between two nodes or a node and an end."""
    return float(np.diff(np.unique([0.0, *nodes, 1.0])).max())


def reach(growth: Callable[[np.ndarray], np.ndarray]) -> float:
    """The last x, of 0.02, 0.04, … 12, up to which the growth over a step does not exceed 1."""
    x = np.arange(0.0, 12.0, 0.02)
    above = growth(x) > 1 + 1e-6
    return float(x[max(0, int(above.argmax()) - 1)] if above.any() else x[-1])


T = TypeVar("T")

FARTHEST = 10.0
"""A step this many times longer than the one before it starts anew from its start alone: what is
extrapolated from an interval so short is the rounding in it."""


class Stepper:
    """A method bound to a velocity; `step` advances it by one interval. Every plan has its own.

    A stepper keeps the constants of its method as tensors of the state's dtype and device, so that
    nothing is moved between host and device inside the loop.

    Args:
        method, velocity: what it is made of.
        adaptive: the error estimate is looked at, and `StepResult.refine` asked for what is
            wanting.

    Attributes:
        compiled: runs the trials, those of the stages and the sweeps plan.
        corrects: sweeps undo the rounding of their times; bool (B,) where every sample has steps of
            its own.
    """

    def __init__(self, method: Method, velocity: Velocity, *, adaptive: bool = False) -> None:
        self.method, self.velocity, self.adaptive = method, velocity, adaptive
        self.compiled: CompiledTrials | None = None
        self.corrects: Any = False

    def step(self, state: State, t1: Any, *, is_last: bool = False) -> StepResult:
        """Advance `state` to time t1 (either direction).

        is_last says that no interval follows, for plans that save an evaluation there.
        """
        raise NotImplementedError

    def start(self, state: State) -> Anchor:
        """The anchor at the start of an interval: known already, or one evaluation."""
        known = state.anchor
        if known is not None:
            return known
        v, detail = self.velocity.of_held(state.t, state.y)
        return Anchor(state.t, state.y, v, detail)

    def start_in_arrays(self, state: State) -> Anchor:
        """The same with an array for its velocity, if it is not known."""
        if state.known is not None:
            return state.known
        v: Any = self.velocity.arrays.at(state.t, array_of(state.numbers), held=True)
        return Anchor(state.t, state.numbers, v)

    def either(
        self, state: State, t1: Any, in_arrays: Callable[..., T], in_tensors: Callable[..., T],
        *arguments: Any,
    ) -> T:  # fmt: skip
        """A step from the state to t1 by the one function or the other; see `small_states`."""
        arrays = self.velocity.arrays
        if not isinstance(t1, Tensor) and arrays.takes(state.numbers):
            try:
                return arrays.attempt(in_arrays, *arguments)
            except NeedsTensors:
                pass
        return in_tensors(*arguments)

    def other_end(self, make: Callable[[], Anchor]) -> Callable[[], Anchor] | None:
        """`State.other_end`: only adaptive steps look at it."""
        return make if self.adaptive else None
