"""From step to step: iterators over the accepted steps of a solve, fixed or adaptive."""

from __future__ import annotations

import copy
import enum
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import integer_from, real_number
from ..control.control import StepController, Tolerance, first_step, worth_a_sweep
from ..control.lookout import ABOUT, Lookout
from ..control.time_rounding import TimeRounding
from ..equations.small_states import array_of
from ..equations.velocity import Velocity
from ..errors import StiffnessWarning
from ..host import read_on_host
from ..observe.stiffness import StiffnessMonitor
from ..plans.adams.variable_order import SUDDEN
from ..plans.interpolants import Anchor
from ..plans.method import Method, Stepper
from ..plans.result import StepResult
from ..plans.state import NotContracting, State


class Status(enum.Enum):
    """How a solve ended."""

    SUCCESS = "success"
    EVENT = "terminal event"
    NON_FINITE = "non-finite"
    STEP_COLLAPSE = "step collapse"
    MAX_STEPS = "step cap"
    NOT_CONTRACTING = "sweeps do not contract"
    STIFF = "stiff"
    INTERRUPTED = "interrupted"


@dataclass
class Limits:
    """Limits of adaptive steps: sizes are positive, max_steps counts accepted and rejected ones."""

    initial_step: float | None = None
    min_step: float = 0.0
    max_step: float = math.inf
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        if self.initial_step is not None:
            self.initial_step = real_number(self.initial_step, "initial_step")
        self.min_step = real_number(self.min_step, "min_step")
        self.max_step = real_number(self.max_step, "max_step")
        for name, size in (("initial_step", self.initial_step), ("max_step", self.max_step)):
            if size is not None and not size > 0:
                raise ValueError(f"{name} must be positive, got {size}")
        if not 0 <= self.min_step <= self.max_step:
            raise ValueError(
                f"min_step must be in [0, max_step={self.max_step}], got {self.min_step}"
            )
        self.max_steps = integer_from(1, self.max_steps, "max_steps")

    def bound(self, size: float) -> float:
        """The size within [min_step, max_step]."""
        return min(max(size, self.min_step), self.max_step)


@dataclass(frozen=True)
class Hooks:
    """Called around every trial of an adaptive or fixed step, as hook(t, state, h)."""

    trial: Callable[[float, Tensor, float], None] | None = None
    reject: Callable[[float, Tensor, float], None] | None = None


@dataclass(frozen=True)
class Landing:
    """A time that a step ends on exactly. restart: nothing from before is used after it.

    entering: called when the steps enter the interval that ends here.
    """

    t: float
    restart: bool = False
    entering: Callable[[], None] | None = None


def endless(t: float) -> str:
    """Why a solve to infinity ends where its steps grow without bound."""
    return (
        f"the steps from t={t:.9g} grow without bound: the solution no longer moves, and no "
        "terminal event was found"
    )


def restarted(state: State) -> State:
    """The state without the velocities of earlier intervals."""
    return State(state.t, state.numbers)


class Ended(StopIteration):
    """There is no further step. Not to be taken for a StopIteration that func has raised."""


class Steps(Iterator[StepResult]):
    """Accepted steps, one by one.

    Attributes:
        state: where the solve stands. accepted, rejected, refined: counts so far, the last one of
            further sweeps of a step. status, message: how it ended, once it has. statuses,
            messages: one a sample, where every sample has steps of its own. stopped: whether `stop`
            has ended it. wants_dense: (t0, t1) -> whether dense output of a step between them will
            be asked for; adaptive steps then see to it that it can be trusted.
    """

    def __init__(self, stepper: Stepper, state: State, hooks: Hooks = Hooks()) -> None:
        self.stepper, self.state, self.hooks = stepper, state, hooks
        self.accepted = self.rejected = self.refined = 0
        self.status, self.message = Status.SUCCESS, ""
        self.stopped = False
        self.wants_dense: Callable[[Any, Any], Any] | None = None
        self.statuses: list[Status] | None = None
        self.messages: list[str] | None = None

    @property
    def stiff_at(self) -> float | None:
        """When the problem was found to be stiff, where that is looked for."""
        return None

    def _take(self, result: StepResult) -> None:
        self.accepted += 1
        self.state = result.state

    def stop(self, t: Any) -> None:
        """End the solve within the last step, at time t: a terminal event lies there."""
        self.stopped = True
        self._end(Status.EVENT, f"a terminal event ended the solve at t={t:.9g}")

    def interrupt(self, message: str) -> None:
        """Note that an exception ended the solve."""
        self._end(Status.INTERRUPTED, message)

    def _end(self, status: Status, message: str) -> Ended:
        self.status, self.message = status, message
        return Ended()


class FixedSteps(Steps):
    """Steps between given times.

    Args:
        grid: ends of the steps (floats; tensors for per-sample times).
        landings: those ends where something happens; each must be in the grid.
        perturb: func is evaluated just inside each interval, not at its very ends.
        max_steps: of a grid that has no end.

    Raises:
        ValueError: a method of variable order.
    """

    def __init__(
        self,
        stepper: Stepper,
        state: State,
        grid: Iterable[float],
        *,
        landings: Sequence[Landing] = (),
        perturb: bool = False,
        max_steps: float = math.inf,
        hooks: Hooks = Hooks(),
    ) -> None:
        super().__init__(stepper, state, hooks)
        if not stepper.method.takes_fixed_steps:
            raise ValueError(
                f"method {stepper.method.name!r} chooses its steps together with its order: leave "
                "out step_size and grid, or take a method of fixed order such as 'pece4'"
            )
        self._points = iter(grid)
        self._upcoming = next(self._points, None)
        self._landings = list(landings)
        self._perturb, self._max_steps = perturb, max_steps
        self._restart = True

    def __next__(self) -> StepResult:
        if self._upcoming is None:
            raise Ended
        if self.accepted >= self._max_steps:
            raise self._end(
                Status.MAX_STEPS,
                f"max_steps={self._max_steps} steps were used up at t={self.state.t:.9g} and no "
                "terminal event was found: raise max_steps or step_size, or give t an end",
            )
        t1, self._upcoming = self._upcoming, next(self._points, None)
        state = self.state
        if self._restart and self._landings:
            state = restarted(state) if self.accepted else state
            if self._landings[0].entering is not None:
                self._landings[0].entering()
        self._restart = False
        velocity = self.stepper.velocity
        if self._perturb:
            velocity.window = just_inside(state.t, t1, velocity.layout.time_dtype)
            state = restarted(state)
        if self.hooks.trial is not None:
            self.hooks.trial(state.t, state.y, t1 - state.t)
        try:
            result = self.stepper.step(state, t1, is_last=self._upcoming is None)
        except NotContracting as failure:
            raise self._end(Status.NOT_CONTRACTING, str(failure)) from None
        self._take(result)
        if self._landings and t1 == self._landings[0].t:
            self._restart = self._landings.pop(0).restart
        return result


class AdaptiveSteps(Steps):
    """Steps whose size the error estimate chooses: one host synchronisation a trial.

    Args:
        landings: times to land on, in the direction of the solve; the last one is the end (which
            may be infinite).
        controller: keeps a memory; it is copied. Methods of variable order bring their own
            `OrderControl` instead.
        on_stiff: see `StiffnessMonitor`.

    Raises:
        TypeError: a controller that a method of variable order would not use.
    """

    def __init__(
        self,
        stepper: Stepper,
        state: State,
        landings: Sequence[Landing],
        tolerance: Tolerance,
        controller: StepController,
        limits: Limits,
        *,
        hooks: Hooks = Hooks(),
        on_stiff: str = "warn",
    ) -> None:
        super().__init__(stepper, state, hooks)
        self.tolerance, self.limits = tolerance, limits
        self._monitor = StiffnessMonitor(stepper.method, tolerance, on_stiff)
        self._rounding = TimeRounding(stepper.method, stepper.velocity, tolerance)
        self._controller = copy.copy(controller)
        method = stepper.method
        self._orders = method.order_control
        if self._orders is not None and controller != StepController(max_factor=method.max_growth):
            raise TypeError(
                f"method {method.name!r} chooses its steps together with its order: make it "
                f"with adams_variable(control=OrderControl(...)) instead of controller="
                f"{controller!r}"
            )
        self._landings = list(landings)
        self._sign = math.copysign(1.0, landings[-1].t - state.t)
        self._jumps = any(landing.restart for landing in landings[:-1])
        self._size: float | None = None
        self._entered = True
        self._not_finite_at = math.inf  # the end of the last trial that was not finite
        self._dense_ratio = 0.0
        self._unforeseen, self._unforeseen_before = 0.0, math.inf
        self._lookout = Lookout(method.widest_gap, state.t, landings[-1].t, tolerance.strictest)

    @property
    def stiff_at(self) -> float | None:
        return self._monitor.stiff_at

    def _begin(self) -> None:
        """The first step's size."""
        state, stepper, limits = self.state, self.stepper, self.limits
        self._enter()
        start = stepper.start(state)
        if read_on_host(~start.v.detach().isfinite().all()):
            raise self._end(Status.NON_FINITE, f"func is not finite at the start, t={state.t:.9g}")
        state.known = start
        if limits.initial_step is not None:
            size = limits.initial_step
        else:
            size = stepper.either(state, state.t, self._first_of_arrays, self._first_size, start)
            size = max(min(size, self._lookout.longest), 16 * math.ulp(abs(state.t)))
        self._size = limits.bound(size)
        if self._rounding.amplifies(state.t):
            self._rounding.measure(state.t, state.y, self._size, self._sign)
            self._rounding.read(read_on_host(torch.stack([*self._rounding.pending])))
            self._rounding.tell()
            stepper.corrects = self._rounding.corrects

    def _first_size(self, start: Anchor) -> float:
        velocity = self.stepper.velocity
        return self._first_step(lambda t, y: velocity(t, y)[0], start.y, start.v)

    def _first_of_arrays(self, start: Anchor) -> float:
        y0, v0 = array_of(start.y), array_of(start.v)
        return self._first_step(self.stepper.velocity.arrays.at, y0, v0)

    def _first_step(self, velocity: Callable[[Any, Any], Any], y0: Any, v0: Any) -> float:
        t0 = self.state.t
        # to the end: a landing before it may be as near as rounding
        span, order = abs(self._landings[-1].t - t0), self.stepper.method.error_order or 1
        size: float = first_step(
            velocity, t0, y0, v0, self._sign, span, order, self.tolerance,
            leap=self._lookout.longest_leap,
        )  # fmt: skip
        return size

    def _enter(self) -> None:
        self._entered = True
        upcoming = self._landings[0]
        if upcoming.entering is not None:
            upcoming.entering()
        if self._jumps:
            velocity = self.stepper.velocity
            velocity.enter(just_inside(self.state.t, upcoming.t, velocity.layout.time_dtype))

    def __next__(self) -> StepResult:
        if not self._landings:
            raise Ended
        if self._size is None:
            self._begin()
        if not self._entered:
            self._enter()
        failures = 0
        while True:
            t1, size, lands = self._aim()
            result, ratio, judged, order, errors = self._trial(t1, size)
            if ratio <= 1:
                break
            failures += 1
            self._refuse(result, ratio, order, errors, t1, failures)
        if result.orders is None:
            factor = self._controller.accept(judged, order)
        else:
            assert self._orders is not None
            result.state.order, factor = self._orders.accept(result.orders.weights, errors)
        self._unforeseen_before = self._unforeseen
        self._take(result)
        monitor = self._monitor
        if monitor.accept(result, self._landings[-1].t) and monitor.on_stiff == "warn":
            warnings.warn(monitor.message, StiffnessWarning, stacklevel=4)
        planned = size * factor
        if not lands:  # a step shortened to land says nothing of f
            planned = self._lookout.bound(t1, size, planned, ratio, result.error_order)
        # where the least step was good enough, the next one is no shorter
        planned = self.limits.bound(max(planned, 16 * math.ulp(t1)))
        assert self._size is not None
        # a step shortened to land says little about the steps after it
        self._size = max(planned, self._size) if lands and len(self._landings) > 1 else planned
        if lands:
            self._pass_landing()
        return result

    def _aim(self) -> tuple[float, float, bool]:
        """The end of the next trial, its size, and whether it is the next landing."""
        size, state, t_next = self._size, self.state, self._landings[0].t
        assert size is not None
        self._check(size)
        left = abs(t_next - state.t)
        # land exactly, and leave no sliver for a last step
        if size >= left or (size >= 0.99 * left and left <= self.limits.max_step):
            t1, lands = t_next, True
        else:
            t1, lands = state.t + self._sign * size, False
        if math.isinf(t1):
            raise self._end(Status.NON_FINITE, endless(state.t))
        return t1, abs(t1 - state.t), lands

    def _trial(
        self, t1: float, size: float
    ) -> tuple[StepResult, float, float, int, dict[int, float]]:
        """A trial of the step to t1, with the sweeps that it wants; the ratio of its error and the
        tolerance, which is accepted up to 1; the same before further sweeps, by which the next size
        is chosen; the error's order; and the ratio of every order, where the method chooses between
        some."""
        state, stepper, monitor = self.state, self.stepper, self._monitor
        if self.hooks.trial is not None:
            self.hooks.trial(state.t, state.y, t1 - state.t)
        monitor.expect(size, abs(self._landings[-1].t - state.t))
        result = stepper.step(state, t1)
        order = result.error_order
        assert order is not None
        ratio, errors = self._ratios(result, size)
        judged, before = ratio, None
        while (
            ratio > 1
            and result.refine is not None
            and worth_a_sweep(ratio, before, result.sweeps_left)
        ):
            self.refined += 1  # a trial of its own
            before, result = ratio, result.refine()
            ratio, errors = self._ratios(result, size)
        # steps are chosen such that the least sweeps suffice, of which those of a first
        # interval, from a constant guess, say nothing
        if state.last is None:
            judged = ratio
        if self._rounding.due(state.t, size):
            self._rounding.measure(state.t, state.y, size, self._sign)
        if ratio <= 1 and not self._dense_ratio <= 1:
            ratio, order = self._dense_ratio, stepper.method.dense_order
        if ratio <= 1 and result.refine is not None and monitor.wants_sweep(result):
            self.refined += 1
            swept = result.refine()
            if self._ratios(swept, size)[0] <= 1:
                result = swept
        return result, ratio, judged, order, errors

    def _refuse(
        self, result: StepResult, ratio: float, order: int, errors: dict[int, float], t1: float,
        failures: int,
    ) -> None:  # fmt: skip
        """Choose the next trial after one whose error was too large, the last of some in a row;
        arguments as `_trial` gives them."""
        state = self.state
        if not math.isfinite(ratio):
            self._not_finite_at = t1
        self.rejected += 1
        if self.hooks.reject is not None:
            self.hooks.reject(state.t, state.y, t1 - state.t)
        state.known = state.known or result.begun
        if result.orders is None:
            factor = self._controller.reject(ratio, order)
        else:
            assert self._orders is not None
            state.order, factor = self._orders.reject(result.orders.weights, errors, failures)
        assert self._size is not None
        self._size = abs(t1 - state.t) * factor

    def _pass_landing(self) -> None:
        """The last step has landed."""
        passed = self._landings.pop(0)
        if passed.restart:
            self.state = restarted(self.state)
            self._lookout.restart(self.state.t)
            if self._orders is not None:
                self._size = None  # at order 1 again, and with as short a step as at first
        # not before the next step: dense output may yet evaluate func within this one
        self._entered = False

    def _ratios(self, result: StepResult, size: float) -> tuple[float, dict[int, float]]:
        """The error over the tolerance; and that of every order, where the method chooses between
        some. The one host synchronisation of a trial, of this size."""
        leaps = size >= ABOUT * self._lookout.longest_leap
        others = self._monitor.quantities(result) if self._monitor.due else []
        others += self._rounding.pending
        dense = (
            result.make_misses is not None
            and self.wants_dense is not None
            and self.wants_dense(result.previous.t, result.state.t)
        )
        self._dense_ratio = 0.0
        if dense:
            others.append(result.dense_ratio(self.tolerance))
        if isinstance(result.state.numbers, np.ndarray):
            arrays = self.stepper.velocity.arrays
            numbers = arrays.run(result.numbers, self.tolerance, leaps)
            if others:
                numbers += read_on_host(torch.stack(others))
        else:
            if leaps:
                others.insert(0, result.moved_ratio(self.tolerance))
            numbers = _read_on_host(result.ratios(self.tolerance), others)
        count = 1 if result.orders is None else len(result.orders.weights.orders)
        if len(numbers) > count:
            told = numbers[count:]
            if leaps:
                self._lookout.moved, *told = told
            if dense:
                *told, self._dense_ratio = told
            if told:
                self._monitor.read(self._rounding.read(told))
                self._rounding.tell()
                self.stepper.corrects = self._rounding.corrects
        if result.orders is None:
            return numbers[0], {}
        weights = result.orders.weights
        errors = dict(zip(weights.orders, numbers, strict=False))
        self._unforeseen, breaks = weights.unforeseen(errors)
        if breaks and self._unforeseen > max(1.0, SUDDEN * self._unforeseen_before):
            errors[weights.order] = max(errors[weights.order], self._unforeseen)
        return errors[weights.order], errors

    def _check(self, size: float) -> None:
        """Raise what ends the solve before a trial of this size."""
        limits, t = self.limits, self.state.t
        stiff = self._monitor.message
        if stiff and self._monitor.on_stiff == "stop":
            raise self._end(Status.STIFF, stiff)
        if self.accepted + self.rejected >= limits.max_steps:
            raise self._end(Status.MAX_STEPS, steps_used_up(limits.max_steps, t, size, stiff))
        least = max(limits.min_step, 16 * math.ulp(abs(t)))
        if size >= least:
            return
        if abs(self._not_finite_at - t) <= NEAR * least:
            raise self._end(Status.NON_FINITE, not_finite_past(t, size))
        dtype = self.stepper.velocity.layout.dtype
        raise self._end(Status.STEP_COLLAPSE, collapsed(t, size, least, dtype))


def _read_on_host(ratios: Tensor, others: Sequence[Tensor]) -> list[float]:
    """The numbers of `ratios` (k,) or 0-dimensional, then of others, 0-dimensional: one host
    synchronisation."""
    if not others and not ratios.dim():
        return [read_on_host(ratios)]
    if others:
        rest = torch.stack([x.to(ratios.dtype) for x in others])
        ratios = torch.cat((ratios.reshape(-1), rest))
    found: list[float] = read_on_host(ratios)
    return found


NEAR = 100.0
"""A step that collapses within so many of the least steps before a place where a trial was not
finite was stopped by that, though the last trials, shorter still, may have been finite."""


def steps_used_up(max_steps: int, t: float, size: float, stiff: str | None = None) -> str:
    """The message of Status.MAX_STEPS. stiff: what was found of stiffness ("" for nothing), None
    where nobody looked."""
    used = f"max_steps={max_steps} steps were used up at t={t:.9g}, step size {size:.3g}: "
    if stiff:
        return used + stiff
    if stiff == "":
        return used + "raise max_steps or loosen the tolerances (no stiffness was seen)"
    return (
        used + "raise max_steps, loosen the tolerances, or (if the steps stay this small on a "
        "smooth solution) the problem is stiff and wants an implicit method"
    )


def not_finite_past(t: float, size: float) -> str:
    """The message of Status.NON_FINITE, of an adaptive step."""
    return (
        f"func or the solution is not finite just past t={t:.9g}, however short the step "
        f"({size:.3g}): a singularity, a NaN or inf from func there, or tolerances so small that "
        "the error over them overflows"
    )


def collapsed(t: float, size: float, least: float, dtype: torch.dtype) -> str:
    """The message of Status.STEP_COLLAPSE."""
    return (
        f"the step size fell to {size:.3g}, below {least:.3g}, at t={t:.9g}: the solution may blow "
        "up or jump there; else it moves faster than times so far from 0 can tell (they are "
        f"rounded to {math.ulp(t):.2g}: shift t such that the solve starts at 0), the tolerances "
        f"ask for more than {dtype} holds, or min_step is too large"
    )


def adaptive_stepper(method: Method, velocity: Velocity, tolerance: Tolerance) -> Stepper:
    """For steps that the error estimate chooses: by the method, or what it becomes at the
    tolerance."""
    eps = torch.finfo(velocity.layout.func_dtype).eps
    return method.for_tolerance(tolerance.strictest, eps).stepper(velocity, adaptive=True)


def just_inside(t0: float, t1: float, dtype: torch.dtype) -> tuple[float, float]:
    """The interval without its ends, in the precision in which func sees times; ascending."""

    kind = np.float64 if dtype is torch.float64 else np.float32
    low, high = (kind(min(t0, t1)), kind(max(t0, t1)))
    inside = float(np.nextafter(low, kind(np.inf))), float(np.nextafter(high, kind(-np.inf)))
    return inside if inside[0] <= inside[1] else (float(low), float(high))
