"""The one solve loop, and what it returns."""

from __future__ import annotations

import bisect
import copy
import enum
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .control import Norm, StepController, Tolerance, first_step, rms_norm
from .dense import Segment
from .evaluation import StateLayout, Velocity
from .grids import per_sample_grid
from .methods import AnchorsMethod, Method, get_method
from .step import State, Stepper, StepResult

DEFAULT_METHOD = "dopri5"


class Status(enum.Enum):
    """How a solve ended."""

    SUCCESS = "success"
    NON_FINITE = "non-finite"
    STEP_COLLAPSE = "step collapse"
    MAX_STEPS = "step cap"


@dataclass
class Statistics:
    """What a solve cost.

    nfe: velocity evaluations, each of one state (n nodes evaluated together are n). calls:
    sequential calls of func. probe_nfe: the part of nfe that node_evaluation="auto" spent on
    finding its mode. accepted, rejected: steps. wall_time: seconds. node_evaluation: the mode in
    use ("auto" where no nodes were evaluated together). method: name.
    """

    method: str
    nfe: int = 0
    calls: int = 0
    probe_nfe: int = 0
    accepted: int = 0
    rejected: int = 0
    wall_time: float = 0.0
    node_evaluation: str = "auto"


class SolveError(RuntimeError):
    """A solve did not reach its end. `status` says why, `solution` holds what was reached."""

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution
        self.status = solution.status


@dataclass
class Solution:
    """What `solve` returns.

    t: float64 tensor (T,) of the requested times that were reached. y: the states there, (T,
    *shape), a tuple of such tensors for a tuple state. stats: `Statistics`. status, message: how it
    ended. steps: times of all accepted steps, the first time included (a list of floats; tensors
    where the grid gives every sample its own).
    Calling the solution, sol(t), evaluates its dense output (solve with dense_output=True): t a
    number or a 1-d sequence within the solved span; returns (*shape) or (len(t), *shape).
    """

    t: Tensor
    y: Any
    stats: Statistics
    status: Status
    message: str
    steps: list[float]
    _layout: StateLayout
    _segments: list[Segment] | None

    @property
    def success(self) -> bool:
        """Whether the end was reached."""
        return self.status is Status.SUCCESS

    def __call__(self, t: float | Sequence[float] | np.ndarray | Tensor) -> Any:
        if self._segments is None:
            raise ValueError("there is no dense output: call solve(..., dense_output=True)")
        times = np.asarray(t.detach().cpu() if isinstance(t, Tensor) else t, dtype=np.float64)
        if times.ndim > 1:
            raise ValueError(f"t must be a number or one-dimensional, got shape {times.shape}")
        low, high = sorted((self.steps[0], self.steps[-1]))
        outside = times[~((times >= low) & (times <= high))]
        if outside.size:
            raise ValueError(f"t={outside.flat[0]} lies outside the solved span [{low}, {high}]")
        if not self._segments:
            raise ValueError("no step was accepted: there is nothing to interpolate")
        sign = 1.0 if self.steps[-1] >= self.steps[0] else -1.0
        keys = [sign * s for s in self.steps]

        def at(when: float) -> Tensor:
            assert self._segments is not None
            index = bisect.bisect_left(keys, sign * when, lo=1, hi=len(keys) - 1) - 1
            return self._segments[index](when)

        if times.ndim == 0:
            return self._layout.split(at(float(times)))
        if not times.size:
            raise ValueError("t is empty: give at least one time")
        return self._layout.split(torch.stack([at(when) for when in times.tolist()]), 1)


def solve(
    func: Callable[..., Any],
    y0: Any,
    t: Sequence[float] | np.ndarray | Tensor,
    *,
    method: str | Method | None = None,
    rtol: float | Tensor = 1e-7,
    atol: float | Tensor = 1e-9,
    step_size: float | None = None,
    grid: Sequence[float] | np.ndarray | Tensor | None = None,
    initial_step: float | None = None,
    min_step: float = 0.0,
    max_step: float = math.inf,
    max_steps: int = 100_000,
    norm: Norm = rms_norm,
    controller: StepController | None = None,
    node_evaluation: str = "auto",
    dense_output: bool = False,
    callback: Callable[[float, Any], None] | None = None,
    throw: bool = True,
) -> Solution:
    """Solve dy/dt = func(t, y), y(t[0]) = y0, and give y at every time in t.

    Args:
        func: func(t, y) -> dy/dt of y's shape, dtype and device; t is 0-dimensional, of y's real
            dtype. With a collocation method it may be called on several nodes together, see
            node_evaluation.
        y0: tensor of any shape (float32, float64, complex64, complex128), or a tuple of such.
        t: at least two strictly monotone times, increasing or decreasing; kept in float64.
        method: a name in `methods()`, a Method, or None for "dopri5".
        rtol, atol: positive; a step may make an error of atol + rtol*|y| (in `norm`). float, or
            tensors that broadcast against y (against the flattened state for tuples).
        step_size: fixed steps of this size (the last one shortened to land on t[-1]); its sign,
            if given negative, must be that of t[-1] - t[0].
        grid: fixed steps between these times, from t[0] to t[-1] (both included). A tensor of more
            dimensions, (N+1, *per sample), gives every sample times of its own: grid[i] broadcasts
            against y0, the first and the last row are t[0] and t[-1] (for methods of the anchors
            plan with startup="rising"; no times between, no dense output).
        initial_step, min_step, max_step, max_steps: of adaptive steps, sizes positive; max_steps
            counts accepted and rejected ones.
        norm: tensor -> 0-dimensional tensor, the norm of the scaled error; default: RMS.
        controller: the step-size controller; the default follows the method.
        node_evaluation: "auto", "broadcast", "vmap" or "loop", how several nodes are evaluated:
            in one call on states (n, *shape) and t of shape (n, 1, ..., 1), through
            torch.func.vmap, or one by one. "auto" tries and compares at the first interval.
        dense_output: keep the polynomial of every interval, so that sol(t) works.
        callback: callback(t, y) after every accepted step.
        throw: raise `SolveError` if the end is not reached; otherwise the solution's status says
            why and holds what was reached.

    Steps are adaptive unless step_size or grid is given. The last step lands on t[-1] exactly;
    requested times between steps come from dense output of the order that the method declares.

    Returns:
        `Solution`.

    Raises:
        TypeError, ValueError: a bad argument, named with its value.
        VelocityError: func returned something of another type, shape, dtype or device.
        SolveError: non-finite values, collapsed step, step cap (unless throw=False).
    """
    began = time.perf_counter()
    layout = StateLayout(y0)
    times = _times(t, "t")
    chosen = get_method(DEFAULT_METHOD if method is None else method)
    sign = 1.0 if times[-1] > times[0] else -1.0
    velocity = Velocity(func, layout, (times[0], times[-1]), node_evaluation)
    tolerance = Tolerance(_positive(rtol, "rtol"), _positive(atol, "atol"), norm)
    if initial_step is not None:
        initial_step = float(initial_step)
    min_step, max_step = float(min_step), float(max_step)
    for name, size in (("initial_step", initial_step), ("max_step", max_step)):
        if size is not None and not size > 0:
            raise ValueError(f"{name} must be positive, got {size}")
    if not 0 <= min_step <= max_step:
        raise ValueError(f"min_step must be in [0, max_step={max_step}], got {min_step}")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps must be an integer >= 1, got {max_steps!r}")
    fixed: Iterable[float] | None
    if isinstance(grid, Tensor) and grid.dim() > 1:
        if not isinstance(chosen, AnchorsMethod) or chosen.startup != "rising":
            raise ValueError(
                f"grid has shape {tuple(grid.shape)}, times for every sample: method "
                f"{chosen.name!r} cannot; take one of the anchors plan with startup='rising'"
            )
        if dense_output or step_size is not None:
            raise ValueError("a grid of per-sample times excludes step_size and dense_output")
        fixed = per_sample_grid(grid, times, sign, layout)
    else:
        fixed = _fixed_grid(times, sign, step_size, grid)
    if fixed is None and chosen.error_order is None:
        raise ValueError(
            f"method {chosen.name!r} has no error estimate, so it cannot choose its steps: give "
            "step_size or grid, or take an adaptive method such as 'dopri5'"
        )

    stepper = Stepper(chosen, velocity)
    collector = _Collector(times, sign, layout.join(y0), dense_output)
    statistics = Statistics(chosen.name)

    def accepted(result: StepResult) -> None:
        statistics.accepted += 1
        collector.take(result)
        if callback is not None:
            callback(result.state.t, layout.split(result.state.y))

    state = State(times[0], layout.join(y0))
    if fixed is not None:
        status, message = _run_fixed(stepper, state, fixed, accepted)
    else:
        if controller is None:
            controller = StepController(max_factor=chosen.max_growth)
        controller = copy.copy(controller)  # it keeps a memory, which must not outlive the solve
        status, message = _run_adaptive(
            stepper, state, times[-1], tolerance, controller, accepted, statistics,
            initial_step=initial_step, min_step=min_step, max_step=max_step, max_steps=max_steps,
        )  # fmt: skip
    if status is Status.SUCCESS:
        status, message = collector.check_finite()
    statistics.nfe, statistics.calls = velocity.nfe, velocity.calls
    statistics.probe_nfe, statistics.node_evaluation = velocity.probe_nfe, velocity.mode
    statistics.wall_time = time.perf_counter() - began
    reached = collector.states
    solution = Solution(
        t=torch.tensor(times[: len(reached)], dtype=torch.float64),
        y=layout.split(torch.stack(reached), 1),
        stats=statistics,
        status=status,
        message=message,
        steps=collector.steps,
        _layout=layout,
        _segments=collector.segments,
    )
    if throw and status is not Status.SUCCESS:
        raise SolveError(message, solution)
    return solution


class _Collector:
    """Keeps what was asked for: states at the requested times, the steps, the dense output."""

    def __init__(self, times: list[float], sign: float, y0: Tensor, dense: bool) -> None:
        self.times, self.sign = times, sign
        self.states, self.steps = [y0], [times[0]]
        self.segments: list[Segment] | None = [] if dense else None

    def take(self, result: StepResult) -> None:
        end: Any = result.state.t
        if isinstance(end, Tensor):  # per-sample times: only their common end is wanted
            self.steps.append(end)  # type: ignore[arg-type]
            return
        wanted: list[float] = []
        reached = self.sign * result.state.t
        for when in self.times[len(self.states) :]:
            if self.sign * when > reached:
                break
            wanted.append(when)
        segment: Segment | None = None
        if self.segments is not None or any(when != result.state.t for when in wanted):
            segment = result.segment()
        for when in wanted:
            if when == result.state.t or segment is None:
                self.states.append(result.state.y)
            else:
                self.states.append(segment(when))
        if self.segments is not None and segment is not None:
            self.segments.append(segment)
        self.steps.append(result.state.t)

    def check_finite(self) -> tuple[Status, str]:
        # one look at all of them: dense output may meet a NaN that the steps stepped over
        finite = torch.stack([torch.isfinite(y.detach()).all() for y in self.states]).tolist()
        if all(finite):
            return Status.SUCCESS, f"reached t={self.times[-1]}"
        bad = finite.index(False)
        self.states = self.states[:bad]
        return Status.NON_FINITE, (
            f"the solution is not finite at t={self.times[bad]:.9g} (it still was at "
            f"t={self.times[bad - 1]:.9g}): func returned NaN or inf on the way, or the fixed "
            "steps are too long for stability; look at func near there, or take smaller steps"
        )


def _run_fixed(
    stepper: Stepper, state: State, grid: Iterable[float], accepted: Callable[[StepResult], None]
) -> tuple[Status, str]:
    points = iter(grid)
    upcoming = next(points, None)
    while upcoming is not None:
        t1, upcoming = upcoming, next(points, None)
        result = stepper.step(state, t1, is_last=upcoming is None)
        accepted(result)
        state = result.state
    return Status.SUCCESS, ""


def _run_adaptive(
    stepper: Stepper,
    state: State,
    t_end: float,
    tolerance: Tolerance,
    controller: StepController,
    accepted: Callable[[StepResult], None],
    statistics: Statistics,
    *,
    initial_step: float | None,
    min_step: float,
    max_step: float,
    max_steps: int,
) -> tuple[Status, str]:
    span = t_end - state.t
    sign = math.copysign(1.0, span)
    start = stepper.start(state)
    if not bool(torch.isfinite(start.v.detach()).all()):
        return Status.NON_FINITE, f"func is not finite at the start, t={state.t:.9g}"
    state = replace(state, anchor=start)
    if initial_step is None:
        order = stepper.method.error_order or 1
        size = first_step(
            lambda t, y: stepper.velocity(t, y)[0],
            state.t, state.y, start.v, sign, abs(span), order, tolerance,
        )  # fmt: skip
    else:
        size = initial_step
    size = min(max(size, min_step), max_step)
    finite = True
    while state.t != t_end:
        if statistics.accepted + statistics.rejected >= max_steps:
            return Status.MAX_STEPS, (
                f"max_steps={max_steps} steps were used up at t={state.t:.9g}, step size "
                f"{size:.3g}: raise max_steps, loosen the tolerances, or (if the steps stay this "
                "small on a smooth solution) the problem is stiff and wants an implicit method"
            )
        least = max(min_step, 16 * math.ulp(abs(state.t)))
        if size < least:
            if not finite:
                return Status.NON_FINITE, (
                    f"func or the solution is not finite just past t={state.t:.9g}, however short "
                    f"the step ({size:.3g}): a singularity, or a NaN or inf from func there"
                )
            return Status.STEP_COLLAPSE, (
                f"the step size fell to {size:.3g}, below {least:.3g}, at t={state.t:.9g}: the "
                "solution may blow up or jump there; else the tolerances ask for more than "
                f"{stepper.velocity.layout.dtype} holds, or min_step is too large"
            )
        left = abs(t_end - state.t)
        # land exactly, and leave no sliver for a last step
        lands = size >= left or (size >= 0.99 * left and left <= max_step)
        t1 = t_end if lands else state.t + sign * size
        size = abs(t1 - state.t)
        result = stepper.step(state, t1)
        assert result.error is not None and result.error_order is not None
        with torch.no_grad():
            # the one host synchronisation of a step
            ratio = float(tolerance.ratio(result.error, state.y, result.state.y))
        finite = math.isfinite(ratio)
        if finite and ratio <= 1:
            accepted(result)
            state = result.state
            size *= controller.accept(ratio, result.error_order)
            size = min(max(size, min_step), max_step)
        else:
            statistics.rejected += 1
            state = replace(state, anchor=state.anchor or result.start)
            size *= controller.reject(ratio, result.error_order)
    return Status.SUCCESS, ""


def _times(t: Any, name: str) -> list[float]:
    if isinstance(t, Tensor):
        if t.requires_grad:
            raise ValueError(f"{name} requires grad: gradients in {name} are not available, detach")
        if t.is_complex():
            raise TypeError(f"{name} must be real, got dtype {t.dtype}")
        t = t.cpu().to(torch.float64).numpy()
    try:
        array = np.asarray(t, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a sequence of real times, got {t!r}") from error
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name} must hold at least two times, got shape {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array)))
        raise ValueError(f"{name}[{bad}]={array[bad]} is not finite")
    steps = np.diff(array) * (1.0 if array[-1] > array[0] else -1.0)
    if not (steps > 0).all():
        bad = int(np.argmin(steps > 0))
        raise ValueError(
            f"{name} must be strictly increasing or strictly decreasing; "
            f"{name}[{bad}]={array[bad]} is followed by {array[bad + 1]}"
        )
    times: list[float] = array.tolist()
    return times


def _positive(value: Any, name: str) -> Any:
    try:
        smallest = float(value.min()) if isinstance(value, Tensor) else float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a float or a tensor, got {value!r}") from error
    if not (smallest > 0 and (isinstance(value, Tensor) or math.isfinite(smallest))):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


def _fixed_grid(
    times: list[float], sign: float, step_size: float | None, grid: Any
) -> Iterable[float] | None:
    """The ends of the fixed steps, or None where steps are adaptive."""
    if grid is not None:
        if step_size is not None:
            raise ValueError(f"give step_size={step_size} or grid, not both")
        points = _times(grid, "grid")
        if (points[0], points[-1]) != (times[0], times[-1]):
            raise ValueError(
                f"grid runs from {points[0]} to {points[-1]}; it must run from t[0]={times[0]} to "
                f"t[-1]={times[-1]}"
            )
        return points[1:]
    if step_size is None:
        return None
    size = float(step_size)
    if not math.isfinite(size) or size == 0:
        raise ValueError(f"step_size must be finite and not zero, got {step_size}")
    if size < 0 and sign > 0:
        raise ValueError(f"step_size={step_size} is negative but t runs forward")
    size = abs(size)
    span = abs(times[-1] - times[0])
    if times[0] + size == times[0]:
        raise ValueError(f"step_size={step_size} is lost to rounding at t={times[0]}")
    count = max(1, math.ceil(span / size * (1 - 1e-12)))
    ordered = sorted(times)

    def points_of_size() -> Iterable[float]:
        for i in range(1, count):
            point = times[0] + sign * i * size
            # a requested time that the grid means to hit is hit exactly
            near = bisect.bisect_left(ordered, point)
            for wanted in ordered[max(0, near - 1) : near + 1]:
                if abs(wanted - point) <= 8 * math.ulp(max(abs(point), abs(times[0]))):
                    point = wanted
            yield point
        yield times[-1]

    return points_of_size()
