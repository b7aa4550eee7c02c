"""`solve`: its parts put together, and the loop over the steps."""

from __future__ import annotations

import bisect
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arguments import Arguments, on_state
from .assembly import assembly_of_samples, compiled_trials, event_tracker, shared_assembly
from .control.control import Norm, StepController, rms_norm
from .equations.clock import Clock
from .equations.velocity import Velocity
from .gradients.choice import Adjoint, Forward
from .gradients.in_solve import differentiated_solve
from .host import read_on_host
from .loop.per_sample import PerSampleCollector
from .loop.steps import Ended, Status, Steps
from .observe.events.event import Stop
from .observe.events.tracker import EventTracker
from .observe.progress import ProgressBar
from .plans.method import Method
from .plans.result import StepResult
from .plans.segment import Segment
from .plans.state import State
from .solution import Solution, SolveError, Statistics


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
    gradient: str | Adjoint | Forward = "backprop",
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
        attempt_callback, reject_callback: called as callback(t, y, h) before every trial step and
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
        gradient: how the solution is differentiated: "backprop", through the steps; "adjoint", by
            the adjoint equation, in memory that does not grow with the steps; "forward", by
            sensitivities solved together with the state, for few parameters. An `Adjoint` or a
            `Forward` gives their settings. The last two are for backward() and
            torch.autograd.grad, first derivatives alone; what they do not go with is refused.

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
    given = Arguments(**locals())
    if given.way is not None:
        return differentiated_solve(solve, given.way, given.layout, given.chosen, given.by_name())
    parts = assembly_of_samples(given) if batch_dims else shared_assembly(given)
    steps, times, y = parts.steps, parts.times, parts.y
    collector: _Collector | PerSampleCollector
    if batch_dims:
        collector = PerSampleCollector(times, parts.sign, y, dense_output)
    else:
        record = record_steps or dense_output
        collector = _Collector(times, parts.sign, y, dense_output, record, parts.clock)
    tracker = event_tracker(given, parts)
    # an event may lie anywhere
    steps.wants_dense = collector.wants_dense if tracker is None else lambda t0, t1: True
    steps.stepper.compiled = compiled_trials(given, parts)
    bar = ProgressBar(times[0], times[-1]) if progress else None
    run = _Run(steps, collector, tracker, given, parts.velocity)
    try:
        run.to_the_end(callback, bar)
    except BaseException as error:  # what func, a callback or Ctrl-C raised, with what was reached
        run.attach(error)
        raise
    if not (solution := run.solution(*run.ending())).success and throw:
        raise SolveError(solution.message, solution)
    return solution


class _Run:
    """One solve: the loop over its steps, and what they reached, at the end or before."""

    def __init__(
        self, steps: Steps, collector: _Collector | PerSampleCollector,
        tracker: EventTracker | None, given: Arguments, velocity: Velocity,
    ) -> None:  # fmt: skip
        self.steps, self.collector, self.tracker = steps, collector, tracker
        self.given, self.velocity = given, velocity
        self.stop: Stop | None = None

    def to_the_end(self, callback: Callable[[Any, Any], None] | None, bar: Any) -> None:
        """Take all steps."""
        steps, collector, tracker = self.steps, self.collector, self.tracker
        told = None if callback is None else on_state(callback, "callback", self.given.layout)
        with bar or contextlib.nullcontext():
            while True:
                try:
                    result = next(steps)
                except Ended:
                    break
                stop = self.stop = None if tracker is None else tracker.step(result)
                collector.take(result, stop)
                if stop is not None:
                    steps.stop(stop.t)
                if bar is not None:
                    bar.take(result, steps)
                if told is not None:
                    told(*where_it_stands(steps.state, stop))
                if steps.stopped:
                    break

    def ending(self) -> tuple[Status, str]:
        """How the solve ended, once all steps are taken."""
        steps, collector = self.steps, self.collector
        status, message = steps.status, steps.message
        if status in (Status.SUCCESS, Status.EVENT):
            bad = collector.check_finite()
            if bad is not None:
                return Status.NON_FINITE, bad
            if status is Status.SUCCESS:
                message = steps.message or f"reached t={collector.reached_times[-1]}"
        return status, message

    def solution(self, status: Status, message: str) -> Solution:
        """What was reached."""
        steps, collector, velocity, layout = (
            self.steps, self.collector, self.velocity, self.given.layout
        )  # fmt: skip
        t, y = collector.reached(steps.state, self.stop)
        return Solution(
            t=collector.t,
            y=layout.split(collector.y, 1),
            stats=Statistics(
                self.given.chosen.name, velocity.nfe, velocity.calls, velocity.probe_nfe,
                steps.accepted, steps.rejected, steps.refined,
                time.perf_counter() - self.given.began, velocity.mode, steps.stiff_at,
            ),
            status=status,
            message=message,
            steps=list(collector.steps),
            t_events=[] if self.tracker is None else self.tracker.t_events,
            y_events=[] if self.tracker is None else self.tracker.y_events,
            t_reached=t,
            y_reached=layout.split(y),
            _layout=layout,
            _segments=collector.segments,
            statuses=steps.statuses,
            messages=steps.messages,
        )  # fmt: skip

    def attach(self, error: BaseException) -> None:
        """Put the solution so far on an exception that ends the solve."""
        # nothing that goes wrong here may hide the error itself
        with contextlib.suppress(Exception):
            if isinstance(error, SolveError):
                return
            if getattr(error, "_quadflow_since", -math.inf) >= self.given.began:
                return  # it has the solution of a solve within func
            self.collector.truncate()
            self.steps.interrupt(f"{type(error).__name__} ended the solve")
            partial = self.solution(self.steps.status, self.steps.message)
            error._quadflow_since = self.given.began  # type: ignore[attr-defined]
            error.solution = partial  # type: ignore[attr-defined]


def where_it_stands(state: State, stop: Stop | None) -> tuple[Any, Tensor]:
    """Time and state after the last accepted step, or at the event that ended the solve."""
    if stop is not None and stop.y is not None:
        return stop.t, stop.y
    return state.t, state.y


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

    reached = staticmethod(where_it_stands)

    def truncate(self) -> None:
        """Forget what belongs to a step that was interrupted while it was kept."""
        if self.segments is not None:
            del self.segments[len(self.steps) - 1 :]

    def check_finite(self) -> str | None:
        """What is not finite, if anything."""
        # one look at all of them: dense output may meet a NaN that the steps stepped over
        finite = torch.isfinite(self.y.detach())
        if not read_on_host(~finite.all()):
            return None
        bad_ones = read_on_host(~finite.reshape(self.count, -1).all(1))
        times, bad = self.reached_times, [bool(one) for one in bad_ones].index(True)
        self._parts, self.count = [self.y[:bad]], bad
        return (
            f"the solution is not finite at t={times[bad]:.9g} (it still was at "
            f"t={times[bad - 1]:.9g}): func returned NaN or inf on the way, or the fixed "
            "steps are too long for stability; look at func near there, or take smaller steps"
        )
