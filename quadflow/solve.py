"""The one solve loop."""

from __future__ import annotations

import bisect
import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checks import (
    check_booleans,
    check_callables,
    check_fits,
    monotone_times,
    points_in_time,
    positive,
)
from .compiled.step import CompiledAttempts
from .control.control import Norm, StepController, Tolerance, rms_norm
from .control.tolerances import default_atol, default_rtol, held_atol, held_rtol
from .equations.clock import Clock, differentiated, with_graph
from .equations.ownership import Untouched
from .equations.velocity import StateLayout, Velocity, check_function
from .host import worst
from .loop.grids import fixed_grid, per_sample_grid, with_landings
from .loop.per_sample import (
    PerSampleCollector,
    PerSampleSteps,
    check_method,
    per_sample_tolerance,
    sample_times,
)
from .loop.steps import (
    AdaptiveSteps,
    Ended,
    FixedSteps,
    Hooks,
    Landing,
    Limits,
    Status,
    Steps,
    adaptive_stepper,
)
from .observe.events import EventTracker, Stop
from .observe.stiffness import check_action
from .plans.registry import AnchorsMethod, Method, StagesMethod, SweepsMethod, get_method
from .plans.segment import Segment
from .plans.step import State, Stepper, StepResult
from .solution import Solution, SolveError, Statistics

DEFAULT_METHOD = "adams"
"""Of adaptive steps that the whole state shares: the method whose cost is never far from the best
one's, in calls and in evaluations of func (`quadflow.analysis.benchmarks.default_method`)."""

DEFAULT_RUNGE_KUTTA = "dopri5"
"""Where `DEFAULT_METHOD` cannot be taken: fixed steps, a controller of one's own, samples with
steps of their own."""


def solve(
    func: Callable[..., Any],
    y0: Any,
    t: Sequence[float] | np.ndarray | Tensor,
    *,
    args: tuple[Any, ...] = (),
    method: str | Method | None = None,
    rtol: float | Tensor | None = None,
    atol: float | Tensor | None = None,
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
    events: Any = None,
    batch_dims: int = 0,
    breakpoints: Sequence[float] | np.ndarray | Tensor = (),
    land_on: Sequence[float] | np.ndarray | Tensor = (),
    perturb: bool = False,
    callback: Callable[[float, Any], None] | None = None,
    attempt_callback: Callable[[float, Any, float], None] | None = None,
    reject_callback: Callable[[float, Any, float], None] | None = None,
    accumulation_dtype: torch.dtype | None = None,
    record_steps: bool = True,
    on_stiff: str = "warn",
    progress: bool = False,
    compile: bool | Mapping[str, Any] = False,
    throw: bool = True,
) -> Solution:
    """Solve dy/dt = func(t, y), y(t[0]) = y0, and give y at every time in t.

    Args:
        func: func(t, y, *args) -> dy/dt of y's shape, dtype and device; t is 0-dimensional, of the
            real dtype in which states are added up. With a collocation method it may be called on
            several nodes together, see node_evaluation.
        y0: tensor of any shape (float32, float64, complex64, complex128), or a tuple or dict of
            such. float16 and bfloat16 with an accumulation_dtype.
        t: at least two strictly monotone times, increasing or decreasing; kept in float64. Times
            that require grad, a tensor or 0-dimensional ones among numbers, are differentiated:
            steps then land on all times. The last one may be infinite where an event ends the
            solve.
        args: further arguments of func.
        method: a name in `methods()`, a Method, or None: "adams", but "dopri5" with step_size,
            grid, controller or batch_dims=1, which "adams" does not take. See the docs, "Which
            method?".
        rtol, atol: positive; a step may make an error of atol + rtol*|y| (in `norm`). float, or
            tensors that broadcast against y (against the flattened state for tuples and dicts).
            Default: 1e-7 and 1e-9 where y0 is float64 or complex128, 1e-4 and 1e-6 for float32 and
            complex64, 1e-2 and 1e-4 for float16 and bfloat16. What the state does not hold is
            raised, with a `ToleranceWarning`: rtol to 100 roundings of the dtype in which states
            are added up (and to one of y0's), atol to the least number of it.
        step_size: fixed steps of this size (the last one shortened to land on t[-1]); its sign,
            if given negative, must be that of t[-1] - t[0].
        grid: fixed steps between these times, from t[0] to t[-1] (both included). A tensor of more
            dimensions, (N+1, *per sample), gives every sample times of its own: grid[i] broadcasts
            against y0, the first and the last row are t[0] and t[-1] (for methods of the anchors
            plan with startup="rising"; no times between, no dense output).
        initial_step, min_step, max_step, max_steps: of adaptive steps, sizes positive; max_steps
            counts accepted and rejected ones; it also bounds fixed steps where t ends at infinity.
        norm: tensor -> 0-dimensional tensor, the norm of the scaled error; default: RMS.
        controller: the step-size controller; the default follows the method.
        node_evaluation: "auto", "broadcast", "vmap" or "loop", how several nodes are evaluated:
            in one call on states (n, *shape) and t of shape (n, 1, ..., 1), through
            torch.func.vmap, or one by one. "auto" tries and compares at the first interval.
        dense_output: keep the polynomial of every interval, so that sol(t) works.
        events: an `Event`, a function g(t, y), or a sequence of these: zeros of g are found on the
            dense output. t_events and y_events of the solution, and its time and state at a
            terminal event, are differentiable, as the event moves.
        batch_dims: 1 gives every sample (entry of y0's leading axis) times, steps, acceptance and
            end of its own: t is (T,) or (T, B), func gets times (B, 1, ..., 1) that broadcast
            against the state, rtol and atol may be (B,); a sample that fails leaves the others
            alone. For adaptive Runge-Kutta methods and adaptive collocation, whose number of
            nodes follows the least rtol.
        breakpoints: times at which func jumps. Steps land on them, func is never evaluated across
            one, and nothing from before is used after. Those outside the span are left out.
        land_on: times that steps end on; those outside the span are left out.
        perturb: in fixed steps, evaluate func just inside every step, not at its very ends.
        callback: callback(t, y) after every accepted step.
        attempt_callback, reject_callback: called as callback(t, y, h) before every try of a step,
            after every rejected one, with its start and its signed size.
        accumulation_dtype: dtype in which states are kept and added up between the steps; func and
            the solution have y0's.
        record_steps: keep the times of all steps; without, and without dense output, the memory
            does not grow with their number.
        on_stiff: what to do once adaptive steps are held small by stability on a smooth solution,
            with hundreds of them to come: "warn" (a `StiffnessWarning`, once), "stop"
            (Status.STIFF) or "ignore" (not looked for). It costs no evaluation of func but for
            "gauss" and like methods of one sweep: in long solves they are swept again every tenth
            step. Not looked for with batch_dims=1, in fixed steps and by PEC methods.
        progress: show a bar on standard error: time reached, accepted steps a second, step size;
            with batch_dims=1 of the sample that has come least far. Wants tqdm (the extra
            "progress").
        compile: run the step as one graph made by torch.compile, for methods of the stages and the
            sweeps plan; a dict gives its keywords (backend, mode, options). Compiling takes
            seconds, once for every func and method; see the docs.
        throw: raise `SolveError` if the end is not reached; otherwise the solution's status says
            why and holds what was reached.

    Steps are adaptive unless step_size or grid is given. The last step lands on t[-1] exactly;
    requested times between steps come from dense output of the order that the method declares.
    Under torch.func.vmap all samples share the steps that the worst of them needs.

    Returns:
        `Solution`.

    Raises:
        TypeError, ValueError: a bad argument, named with its value.
        VelocityError: func returned something of another type, shape, dtype or device.
        CompileError: func cannot be compiled as one graph.
        SolveError: non-finite values, collapsed step, step cap, stiff with on_stiff="stop" (unless
            throw=False).

    Warns, each at most once:
        ToleranceWarning: a tolerance that the state's dtype does not hold was raised.
        RoundingWarning: t is so far from 0 that its rounding counts at this rtol; see the docs,
            "Far from t = 0".
        StiffnessWarning: see on_stiff.
    """
    began = time.perf_counter()
    if batch_dims not in (0, 1) or isinstance(batch_dims, bool):
        raise ValueError(f"batch_dims must be 0 or 1, got {batch_dims!r}")
    check_action(on_stiff)
    layout = StateLayout(y0, accumulation_dtype, batch_dims)
    if method is None:
        asked = (step_size, grid, controller, batch_dims or None)
        method = DEFAULT_METHOD if all(x is None for x in asked) else DEFAULT_RUNGE_KUTTA
    chosen = get_method(method)
    rtol = default_rtol(layout) if rtol is None else positive(rtol, "rtol")
    atol = default_atol(layout) if atol is None else positive(atol, "atol")
    if step_size is None and grid is None:
        rtol, atol = held_rtol(rtol, layout), held_atol(atol, layout)
    limits = Limits(initial_step, min_step, max_step, max_steps)
    check_callables(
        norm=norm, callback=callback, attempt_callback=attempt_callback,
        reject_callback=reject_callback,
    )  # fmt: skip
    check_booleans(
        dense_output=dense_output, perturb=perturb, record_steps=record_steps, progress=progress,
        throw=throw,
    )  # fmt: skip
    if controller is not None and not isinstance(controller, StepController):
        raise TypeError(f"controller must be a StepController, got {controller!r}")
    if controller is None:
        controller = StepController(max_factor=chosen.max_growth)
    steps: Steps
    collector: _Collector | PerSampleCollector
    times: Any
    t = with_graph(t)
    fixed: Iterable[float] | None = None
    clock: Clock | None = None
    if batch_dims:
        unused = {
            "step_size": step_size, "grid": grid, "perturb": perturb or None,
            "breakpoints": points_in_time(breakpoints, "breakpoints") or None,
            "land_on": points_in_time(land_on, "land_on") or None,
            "attempt_callback": attempt_callback, "reject_callback": reject_callback,
            "on_stiff='stop'": True if on_stiff == "stop" else None,
        }  # fmt: skip
        for name, value in unused.items():
            if value is not None:
                raise ValueError(f"{name} is not available with batch_dims=1")
        check_method(chosen)
        times = sample_times(t, layout.batch[0], open_ended=events is not None)
        y_start = layout.start(y0)
        rtol, atol = (per_sample_tolerance(x, y_start) for x in (rtol, atol))
        check_fits(rtol, "rtol", y_start)
        check_fits(atol, "atol", y_start)
        tolerance = Tolerance(rtol, atol, norm, per_sample=True)
        span = (float(times.min()), float(times.max()))
        velocity = Velocity(_bound(func, args, None), layout, span, node_evaluation)
        steps = PerSampleSteps(
            adaptive_stepper(chosen, velocity, tolerance), y_start, times, tolerance,
            controller, limits,
        )  # fmt: skip
        collector = PerSampleCollector(times, steps.sign, y_start, dense_output)
        tracker = _tracker(events, layout, times[0], y_start, times[-1])
    else:
        clock = Clock(t) if isinstance(t, Tensor) and differentiated(t) else None
        times = monotone_times(t, "t", open_ended=events is not None)
        sign = 1.0 if times[-1] > times[0] else -1.0
        velocity = Velocity(
            _bound(func, args, clock), layout, (times[0], times[-1]), node_evaluation
        )
        tolerance = Tolerance(rtol, atol, norm)
        landings = _landings(times, sign, breakpoints, land_on, clock)
        hooks = Hooks(
            _on_state(attempt_callback, "attempt_callback", layout),
            _on_state(reject_callback, "reject_callback", layout),
        )
        if isinstance(grid, Tensor) and grid.dim() > 1:
            if not isinstance(chosen, AnchorsMethod) or chosen.startup != "rising":
                raise ValueError(
                    f"grid has shape {tuple(grid.shape)}, times for every sample: method "
                    f"{chosen.name!r} cannot; take one of the anchors plan with startup='rising'"
                )
            if dense_output or step_size is not None or events is not None or len(landings) > 1:
                raise ValueError(
                    "a grid of per-sample times excludes step_size, dense_output, events, "
                    "breakpoints, land_on and a t that requires grad"
                )
            if clock is not None or perturb:
                raise ValueError("a grid of per-sample times excludes perturb and gradients in t")
            fixed = per_sample_grid(grid, times, sign, layout)
            landings = []
        else:
            fixed = fixed_grid(times, sign, step_size, grid)
            if fixed is not None and len(landings) > 1:
                fixed = with_landings(fixed, landings, sign)
        if fixed is None and chosen.error_order is None:
            raise ValueError(
                f"method {chosen.name!r} has no error estimate, so it cannot choose its steps: "
                "give step_size or grid, or take an adaptive method such as 'dopri5'"
            )
        if fixed is None and perturb:
            raise ValueError("perturb=True belongs to fixed steps: give step_size or grid")
        if fixed is not None and on_stiff == "stop":
            raise ValueError(
                "on_stiff='stop' belongs to adaptive steps: leave out step_size and grid"
            )

        state = State(times[0], layout.start(y0))
        check_fits(rtol, "rtol", state.y)
        check_fits(atol, "atol", state.y)
        if fixed is not None:
            cap = limits.max_steps if math.isinf(times[-1]) else math.inf
            steps = FixedSteps(
                Stepper(chosen, velocity), state, fixed, landings=landings, perturb=perturb,
                max_steps=cap, hooks=hooks,
            )  # fmt: skip
        else:
            steps = AdaptiveSteps(
                adaptive_stepper(chosen, velocity, tolerance), state, landings, tolerance,
                controller, limits, hooks=hooks, on_stiff=on_stiff,
            )  # fmt: skip
        collector = _Collector(
            times, sign, state.y, dense_output, record_steps or dense_output, clock
        )
        tracker = _tracker(events, layout, state.t, state.y, times[-1], clock)
    # an event may lie anywhere
    steps.wants_dense = collector.wants_dense if tracker is None else lambda t0, t1: True
    told = (callback, attempt_callback, reject_callback, events)
    steps.stepper.compiled = _compiled(
        compile, steps.stepper.method, func, args, clock, velocity,
        tolerance if fixed is None else None, all(one is None for one in told),
    )  # fmt: skip
    return _finish(
        steps, collector, tracker, callback, layout, velocity, chosen.name, began, throw,
        _bar(progress, times[0], times[-1]),
    )  # fmt: skip


def _bar(progress: bool, t0: Any, t1: Any) -> Any:
    if not progress:
        return None
    from .observe.progress import ProgressBar

    return ProgressBar(t0, t1)


def _finish(
    steps: Steps,
    collector: _Collector | PerSampleCollector,
    tracker: EventTracker | None,
    callback: Callable[[Any, Any], None] | None,
    layout: StateLayout,
    velocity: Velocity,
    name: str,
    began: float,
    throw: bool,
    bar: Any,
) -> Solution:
    """The loop over the steps, and the solution of what they reached."""
    told = None if callback is None else _on_state(callback, "callback", layout)
    with bar or contextlib.nullcontext():
        while True:
            try:
                result = next(steps)
            except Ended:
                break
            stop = None if tracker is None else tracker.step(result)
            collector.take(result, stop)
            if stop is not None:
                steps.stop(stop.t)
            if bar is not None:
                bar.take(result, steps)
            if told is not None:
                at, y = result.state.t, result.state.y
                if stop is not None and stop.y is not None:
                    at, y = stop.t, stop.y
                told(at, y)
            if steps.stopped:
                break
    status, message = steps.status, steps.message
    if status in (Status.SUCCESS, Status.EVENT):
        bad = collector.check_finite()
        if bad is not None:
            status, message = Status.NON_FINITE, bad
        elif status is Status.SUCCESS:
            message = steps.message or f"reached t={collector.reached_times[-1]}"
    solution = Solution(
        t=collector.t,
        y=layout.split(collector.y, 1),
        stats=Statistics(
            name, velocity.nfe, velocity.calls, velocity.probe_nfe, steps.accepted,
            steps.rejected, steps.refined, time.perf_counter() - began, velocity.mode,
            steps.stiff_at,
        ),
        status=status,
        message=message,
        steps=list(collector.steps),
        t_events=[] if tracker is None else tracker.t_events,
        y_events=[] if tracker is None else tracker.y_events,
        _layout=layout,
        _segments=collector.segments,
        statuses=steps.statuses,
        messages=steps.messages,
    )  # fmt: skip
    if throw and not solution.success:
        raise SolveError(message, solution)
    return solution


def _compiled(
    compile: bool | Mapping[str, Any],
    method: Method,
    func: Any,
    args: tuple[Any, ...],
    clock: Clock | None,
    velocity: Velocity,
    tolerance: Tolerance | None,
    alone: bool,
) -> CompiledAttempts | None:
    """The compiled steps, if asked for; alone: no code of the user's runs between the steps."""
    if compile is False:
        return None
    if not isinstance(method, (StagesMethod, SweepsMethod)):
        raise ValueError(
            f"compile: method {method.name!r} looks back on a varying number of anchors and has no "
            "compiled step; take a Runge-Kutta method such as method='dopri8' or a collocation "
            "method such as method='gauss'"
        )
    if isinstance(method, SweepsMethod):
        if method.converged:
            raise ValueError(
                f"compile: method {method.name!r} sweeps until it has converged, which a compiled "
                "step cannot decide; give the number of sweeps"
            )
        if velocity.layout.batch:
            raise ValueError(
                f"compile: method {method.name!r} sweeps every sample on its own with "
                "batch_dims=1, which is not compiled; take a Runge-Kutta method such as 'dopri5', "
                "or batch_dims=0"
            )
    if clock is not None:
        raise ValueError("compile: t requires grad; detach t, or leave out compile")
    if torch._C._functorch.maybe_current_level() is not None:
        raise ValueError("compile: not inside a transform of torch.func (vmap, grad); leave it out")
    return CompiledAttempts(func, args, velocity, tolerance, compile, alone)


def _bound(func: Any, args: Any, clock: Clock | None) -> Any:
    """func as the evaluator calls it: with its further arguments, in the clock's time."""
    check_function(func)
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"args must be a tuple of func's further arguments, got {args!r}")
    if args:
        if not callable(func):  # a DetailedVelocity
            raise TypeError(f"func must be callable as func(t, y, *args), got {func!r}")
        inner, further = func, tuple(args)

        def func(t: Any, y: Any) -> Any:
            return inner(t, y, *further)

    return func if clock is None else clock.wrap(func)


def _on_state(callback: Callable[..., Any] | None, name: str, layout: StateLayout) -> Any:
    """The callback as the solver calls it, with its own state in the place of the user's."""
    if callback is None:
        return None
    told, guard = callback, Untouched(name, ValueError)

    def on_state(t: Any, y: Tensor, *others: float) -> None:
        seen = layout.seen(y)
        seen = y.clone() if seen is y else seen
        mark = guard.before(seen)
        told(t, layout.split(seen), *others)
        guard.after(seen, mark)

    return on_state


def _tracker(
    events: Any,
    layout: StateLayout,
    t0: Any,
    y0: Tensor,
    t_end: Any,
    clock: Clock | None = None,
) -> EventTracker | None:
    if events is None:
        return None
    tracker = EventTracker(events, layout, layout.batch[0] if layout.batch else None, clock)
    tracker.start(t0, y0, t_end)
    return tracker


def _landings(
    times: list[float], sign: float, breakpoints: Any, land_on: Any, clock: Clock | None
) -> list[Landing]:
    """Where steps must end, the last requested time included, in the direction of the solve."""
    restarts: dict[float, bool] = {}
    for name, given, restart in (("land_on", land_on, False), ("breakpoints", breakpoints, True)):
        for point in points_in_time(given, name):
            if sign * times[0] < sign * point < sign * times[-1]:
                restarts[point] = restart or restarts.get(point, False)
    if clock is not None:
        restarts.update(dict.fromkeys(times[1:-1], True))
    ends = [*sorted(restarts, key=lambda point: sign * point), times[-1]]

    def entering(end: float) -> Callable[[], None] | None:
        if clock is None:
            return None
        index = next(i for i, when in enumerate(times[1:]) if sign * end <= sign * when)
        return lambda: clock.enter(index)

    return [Landing(end, restarts.get(end, False), entering(end)) for end in ends]


class _Collector:
    """Keeps what was asked for: states at the requested times, the steps, the dense output.

    Attributes:
        steps: times of the accepted steps. segments: the dense output, where it is kept. count: how
            many states there are.
    """

    def __init__(
        self, times: list[float], sign: float, y0: Tensor, dense: bool, record: bool,
        clock: Clock | None,
    ) -> None:  # fmt: skip
        self.times, self.sign, self.record, self.clock = times, sign, record, clock
        self._keys = [sign * when for when in times]  # ascending
        self._parts, self.count = [y0.unsqueeze(0)], 1  # states, some of them in one tensor
        self.steps = [times[0]]
        self.stopped: list[float] = []
        self._stop: Tensor | None = None
        self.segments: list[Segment] | None = [] if dense else None

    def wants_dense(self, t0: float, t1: float) -> bool:
        """Whether a step between these times would be looked at inside."""
        if self.segments is not None:
            return True
        return self.count < len(self.times) and self._keys[self.count] < self.sign * t1

    @property
    def reached_times(self) -> list[float]:
        """The times of the states."""
        at_stop = self.stopped if self.count > self._requested else []
        return self.times[: self.count - len(at_stop)] + at_stop

    @property
    def t(self) -> Tensor:
        """The same in one tensor (T,), on the CPU, differentiable where the requested times are,
        and where an event ended the solve."""
        times = self.reached_times
        t = torch.tensor(times, dtype=torch.float64)
        if self.clock is not None:
            count = min(len(times), self._requested)
            t = torch.cat((self.clock.exact[:count].cpu(), t[count:]))
        if self._stop is not None and self.count > self._requested:
            t = torch.cat((t[:-1], self._stop.cpu()))
        return t

    @property
    def y(self) -> Tensor:
        """The states that were reached, in one tensor."""
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts)]
        return self._parts[0]

    @property
    def _requested(self) -> int:
        """How many of the states are at requested times."""
        if not self.stopped:
            return self.count
        return bisect.bisect_left(self._keys, self.sign * self.stopped[0])

    def _keep(self, states: Tensor) -> None:
        self._parts.append(states)
        self.count += len(states)

    def take(self, result: StepResult, ended: Stop | None = None) -> None:
        """Keep of an accepted step what is wanted, up to where an event ended the solve."""
        end: Any = result.state.t
        if isinstance(end, Tensor):  # per-sample times: only their common end is wanted
            self.steps.append(end)  # type: ignore[arg-type]
            return
        reached = end if ended is None else ended.t
        if self.segments is not None:
            self.segments.append(result.segment())
        if self.count < len(self.times) and self._keys[self.count] <= self.sign * reached:
            upto = bisect.bisect_right if ended is None else bisect.bisect_left
            last = upto(self._keys, self.sign * reached, self.count)
            wanted = self.times[self.count : last]
            at_end = bool(wanted) and wanted[-1] == end
            inside = wanted[:-1] if at_end else wanted
            if inside:
                self._keep(result.segment().at(inside))
            if at_end:
                self._keep(result.state.y.unsqueeze(0))
        if ended is not None and ended.y is not None:
            self.stopped, self._stop = [ended.t], ended.time
            self._keep(ended.y.unsqueeze(0))
        if not self.record and len(self.steps) > 1:
            self.steps.pop()
        self.steps.append(reached)

    def check_finite(self) -> str | None:
        """What is not finite, if anything."""
        # one look at all of them: dense output may meet a NaN that the steps stepped over
        finite = torch.isfinite(self.y.detach())
        if not worst(~finite.all()):
            return None
        bad_ones = worst(~finite.reshape(self.count, -1).all(1))
        times, bad = self.reached_times, [bool(one) for one in bad_ones].index(True)
        self._parts, self.count = [self.y[:bad]], bad
        return (
            f"the solution is not finite at t={times[bad]:.9g} (it still was at "
            f"t={times[bad - 1]:.9g}): func returned NaN or inf on the way, or the fixed "
            "steps are too long for stability; look at func near there, or take smaller steps"
        )
