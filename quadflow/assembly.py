"""The parts of a solve, put together from its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .arguments import Arguments, on_state
from .compiled.step import CompiledTrials
from .control.control import Tolerance
from .control.tolerances import check_fits
from .equations.clock import Clock, differentiated
from .equations.times import monotone_times, points_in_time
from .equations.velocity import Velocity
from .loop.grids import fixed_grid, per_sample_grid, with_landings
from .loop.per_sample import PerSampleSteps, check_method, per_sample_tolerance, sample_times
from .loop.steps import AdaptiveSteps, FixedSteps, Hooks, Landing, Steps, adaptive_stepper
from .observe.events.tracker import EventTracker
from .plans.state import State


class Assembly(NamedTuple):
    """What a solve is made of.

    times: requested, floats (T,); an array (T, B) where every sample has its own. sign: 1 where
    time runs forward, -1 where it runs backward. y: the solver's state at the start. tolerance:
    None for fixed steps. clock: of times that require grad.
    """

    steps: Steps
    velocity: Velocity
    times: Any
    sign: float
    y: Tensor
    tolerance: Tolerance | None
    clock: Clock | None = None


# -- steps of every sample -----------------------------------------------------------------------


def assembly_of_samples(given: Arguments) -> Assembly:
    """The parts of a solve in which every sample has times and adaptive steps of its own.

    Raises:
        TypeError, ValueError: a bad argument, or one that is not available then.
    """
    _refuse_unavailable(given)
    check_method(given.chosen)
    layout = given.layout
    times = sample_times(given.t, layout.batch[0], open_ended=given.events is not None)
    y = layout.start(given.y0)
    rtol, atol = (per_sample_tolerance(x, y) for x in (given.rtol, given.atol))
    check_fits(rtol, "rtol", y)
    check_fits(atol, "atol", y)
    tolerance = Tolerance(rtol, atol, given.norm, per_sample=True)
    span = (float(times.min()), float(times.max()))
    velocity = Velocity(given.bound(None), layout, span, given.node_evaluation)
    stepper = adaptive_stepper(given.chosen, velocity, tolerance)
    steps = PerSampleSteps(stepper, y, times, tolerance, given.step_control, given.limits)
    return Assembly(steps, velocity, times, steps.sign, y, tolerance)


def _refuse_unavailable(given: Arguments) -> None:
    unused = {
        "step_size": given.step_size, "grid": given.grid, "perturb": given.perturb or None,
        "breakpoints": points_in_time(given.breakpoints, "breakpoints") or None,
        "land_on": points_in_time(given.land_on, "land_on") or None,
        "attempt_callback": given.attempt_callback, "reject_callback": given.reject_callback,
        "on_stiff='stop'": True if given.on_stiff == "stop" else None,
    }  # fmt: skip
    for name, value in unused.items():
        if value is not None:
            raise ValueError(f"{name} is not available with batch_dims=1")


# -- steps that the whole state shares -----------------------------------------------------------


def shared_assembly(given: Arguments) -> Assembly:
    """The parts of a solve whose steps, fixed or adaptive, the whole state shares.

    Raises:
        TypeError, ValueError: a bad argument, or some that exclude one another.
    """
    layout, t = given.layout, given.t
    clock = Clock(t) if isinstance(t, Tensor) and differentiated(t) else None
    times = monotone_times(t, "t", open_ended=given.events is not None)
    sign = 1.0 if times[-1] > times[0] else -1.0
    velocity = Velocity(given.bound(clock), layout, (times[0], times[-1]), given.node_evaluation)
    tolerance = Tolerance(given.rtol, given.atol, given.norm)
    landings = _landings(given, times, sign, clock)
    fixed = _fixed_ends(given, times, sign, landings, clock)
    _check_choice(given, is_fixed=fixed is not None)
    state = State(times[0], layout.start(given.y0))
    check_fits(given.rtol, "rtol", state.y)
    check_fits(given.atol, "atol", state.y)
    hooks = Hooks(
        on_state(given.attempt_callback, "attempt_callback", layout),
        on_state(given.reject_callback, "reject_callback", layout),
    )
    if fixed is None:
        steps: Steps = AdaptiveSteps(
            adaptive_stepper(given.chosen, velocity, tolerance), state, landings, tolerance,
            given.step_control, given.limits, hooks=hooks, on_stiff=given.on_stiff,
        )  # fmt: skip
        return Assembly(steps, velocity, times, sign, state.y, tolerance, clock)
    steps = FixedSteps(
        given.chosen.stepper(velocity), state, fixed, perturb=given.perturb, hooks=hooks,
        landings=[] if _has_sample_grid(given) else landings,
        max_steps=given.limits.max_steps if math.isinf(times[-1]) else math.inf,
    )  # fmt: skip
    return Assembly(steps, velocity, times, sign, state.y, None, clock)


def _landings(
    given: Arguments, times: list[float], sign: float, clock: Clock | None
) -> list[Landing]:
    """The times that steps must end on, the last requested one included, in the direction of the
    solve."""
    restarts: dict[float, bool] = {}
    for name, points, restart in (
        ("land_on", given.land_on, False),
        ("breakpoints", given.breakpoints, True),
    ):
        for point in points_in_time(points, name):
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


def _has_sample_grid(given: Arguments) -> bool:
    """Whether the grid gives every sample times of its own."""
    return isinstance(given.grid, Tensor) and given.grid.dim() > 1


def _fixed_ends(
    given: Arguments, times: list[float], sign: float, landings: list[Landing], clock: Clock | None
) -> Iterable[float] | None:
    """The ends of the fixed steps, landings among them; None where steps are adaptive."""
    grid, chosen = given.grid, given.chosen
    if not _has_sample_grid(given):
        fixed = fixed_grid(times, sign, given.step_size, grid)
        if fixed is not None and len(landings) > 1:
            return with_landings(fixed, landings, sign)
        return fixed
    if not chosen.takes_sample_grid:
        raise ValueError(
            f"grid has shape {tuple(grid.shape)}, times for every sample: method "
            f"{chosen.name!r} cannot; take one of the anchors plan with startup='rising'"
        )
    excluded = (given.dense_output, given.step_size is not None, given.events is not None)
    if any(excluded) or len(landings) > 1:
        raise ValueError(
            "a grid of per-sample times excludes step_size, dense_output, events, "
            "breakpoints, land_on and a t that requires grad"
        )
    if clock is not None or given.perturb:
        raise ValueError("a grid of per-sample times excludes perturb and gradients in t")
    return per_sample_grid(grid, times, sign, given.layout)


def _check_choice(given: Arguments, is_fixed: bool) -> None:
    """Refuse arguments of fixed steps where they are adaptive, and the other way round."""
    if not is_fixed and given.chosen.error_order is None:
        raise ValueError(
            f"method {given.chosen.name!r} has no error estimate, so it cannot choose its steps: "
            "give step_size or grid, or take an adaptive method such as 'dopri5'"
        )
    if not is_fixed and given.perturb:
        raise ValueError("perturb=True belongs to fixed steps: give step_size or grid")
    if is_fixed and given.on_stiff == "stop":
        raise ValueError("on_stiff='stop' belongs to adaptive steps: leave out step_size and grid")


# -- what both have ------------------------------------------------------------------------------


def event_tracker(given: Arguments, parts: Assembly) -> EventTracker | None:
    """What finds the events, if there are any, with the values at the start taken."""
    if given.events is None:
        return None
    layout = given.layout
    samples = layout.batch[0] if layout.batch else None
    tracker = EventTracker(given.events, layout, samples, parts.clock)
    tracker.start(parts.times[0], parts.y, parts.times[-1])
    return tracker


def compiled_trials(given: Arguments, parts: Assembly) -> CompiledTrials | None:
    """The compiled steps, if they are asked for.

    Raises:
        TypeError, ValueError: there is no compiled step for these arguments.
    """
    if given.compile is False:
        return None
    method = parts.steps.stepper.method
    why_not = method.not_compiled(bool(given.layout.batch))
    if why_not is not None:
        raise ValueError(f"compile: method {method.name!r} {why_not}")
    if parts.clock is not None:
        raise ValueError("compile: t requires grad; detach t, or leave out compile")
    if torch._C._functorch.maybe_current_level() is not None:
        raise ValueError("compile: not inside a transform of torch.func (vmap, grad); leave it out")
    # nothing of the user's but func then runs between the steps
    alone = all(
        one is None
        for one in (given.callback, given.attempt_callback, given.reject_callback, given.events)
    )
    return CompiledTrials(
        given.func, given.args, parts.velocity, parts.tolerance, given.compile, alone
    )
