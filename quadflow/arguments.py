"""The arguments of `solve`, checked and completed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from .checks import check_booleans, check_callable, check_choice
from .control.control import Norm, StepController
from .control.tolerances import default_atol, default_rtol, held, positive_tolerance
from .equations.clock import Clock, with_graph
from .equations.ownership import Untouched
from .equations.velocity import StateLayout, check_function
from .gradients.choice import Adjoint, Forward, chosen_gradient
from .loop.steps import Limits
from .observe.stiffness import ON_STIFF
from .plans.method import Method
from .plans.registry import get_method

DEFAULT_METHOD = "adams"
"""The method of adaptive steps that the whole state shares: its cost is never far from the best
one's, in calls and in evaluations of func (`quadflow.analysis.benchmarks.default_method`)."""

DEFAULT_RUNGE_KUTTA = "dopri5"
"""The method where `DEFAULT_METHOD` cannot be taken: at fixed steps, with a controller of one's
own, for samples with steps of their own."""


@dataclass
class Arguments:
    """What `solve` was called with, by the names that it has there.

    t, rtol and atol are as the steps take them: times with a graph as one tensor, defaults filled
    in, tolerances raised to what the state holds.

    Attributes:
        began: when the solve was asked for, on the clock of `time.perf_counter`.
        layout: how the state lies in one tensor. chosen: the method. limits: of step sizes and of
            the number of steps. step_control: the controller given, or the method's own. way: to
            differentiate, None through the steps.
    """

    func: Callable[..., Any]
    y0: Any
    t: Any
    args: tuple[Any, ...]
    method: str | Method | None
    rtol: Any
    atol: Any
    step_size: float | None
    grid: Any
    initial_step: float | None
    min_step: float
    max_step: float
    max_steps: int
    norm: Norm
    controller: StepController | None
    node_evaluation: str
    dense_output: bool
    events: Any
    batch_dims: int
    breakpoints: Any
    land_on: Any
    perturb: bool
    callback: Callable[[float, Any], None] | None
    attempt_callback: Callable[[float, Any, float], None] | None
    reject_callback: Callable[[float, Any, float], None] | None
    accumulation_dtype: torch.dtype | None
    record_steps: bool
    on_stiff: str
    progress: bool
    compile: bool | Mapping[str, Any]
    throw: bool
    gradient: Any
    began: float = field(default_factory=time.perf_counter)
    layout: StateLayout = field(init=False)
    chosen: Method = field(init=False)
    limits: Limits = field(init=False)
    step_control: StepController = field(init=False)
    way: Adjoint | Forward | None = field(init=False)

    def __post_init__(self) -> None:
        if self.batch_dims not in (0, 1) or isinstance(self.batch_dims, bool):
            raise ValueError(f"batch_dims must be 0 or 1, got {self.batch_dims!r}")
        check_choice(self.on_stiff, ON_STIFF, "on_stiff")
        self.way = chosen_gradient(self.gradient)
        self.layout = StateLayout(self.y0, self.accumulation_dtype, self.batch_dims)
        self.chosen = self._chosen_method()
        self._complete_tolerances()
        self.limits = Limits(self.initial_step, self.min_step, self.max_step, self.max_steps)
        check_callable(self.norm, "norm")
        for name in ("callback", "attempt_callback", "reject_callback"):
            if getattr(self, name) is not None:
                check_callable(getattr(self, name), name)
        names = ("dense_output", "perturb", "record_steps", "progress", "throw")
        check_booleans(**{name: getattr(self, name) for name in names})
        if self.controller is not None and not isinstance(self.controller, StepController):
            raise TypeError(f"controller must be a StepController, got {self.controller!r}")
        self.step_control = self.controller or StepController(max_factor=self.chosen.max_growth)
        self.t = with_graph(self.t)

    def _chosen_method(self) -> Method:
        if self.method is not None:
            return get_method(self.method)
        asked = (self.step_size, self.grid, self.controller, self.batch_dims or None)
        return get_method(DEFAULT_METHOD if all(x is None for x in asked) else DEFAULT_RUNGE_KUTTA)

    def _complete_tolerances(self) -> None:
        rtol, atol, layout = self.rtol, self.atol, self.layout
        rtol = default_rtol(layout) if rtol is None else positive_tolerance(rtol, "rtol")
        atol = default_atol(layout) if atol is None else positive_tolerance(atol, "atol")
        if self.step_size is None and self.grid is None:
            rtol, atol = held(rtol, atol, layout)
        self.rtol, self.atol = rtol, atol

    def by_name(self) -> dict[str, Any]:
        """What `solve` was called with, by the names it has there, completed."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.init and one.name != "began"
        }

    def bound(self, clock: Clock | None) -> Any:
        """func as the evaluator calls it: with its further arguments, in the clock's time."""
        func, args = self.func, self.args
        check_function(func)
        if not isinstance(args, (tuple, list)):
            raise TypeError(f"args must be a tuple of func's further arguments, got {args!r}")
        if args:
            check_callable(func, "func", "func(t, y, *args)")  # a DetailedVelocity cannot be
            inner, further = func, tuple(args)

            def func(t: Any, y: Any) -> Any:
                return inner(t, y, *further)

        return func if clock is None else clock.wrap(func)


def on_state(callback: Callable[..., Any] | None, name: str, layout: StateLayout) -> Any:
    """The callback as the solver calls it, with its own state in the place of the user's."""
    if callback is None:
        return None
    told, guard = callback, Untouched(name, ValueError)

    def on_own_state(t: Any, y: Tensor, *others: float) -> None:
        seen = layout.seen(y)
        seen = y.clone() if seen is y else seen
        mark = guard.before(seen)
        told(t, layout.split(seen), *others)
        guard.after(seen, mark)

    return on_own_state
