"""`solve` with gradient="adjoint": the forward solve as asked for, and the backward one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..control.tolerances import held, positive_tolerance
from ..equations.clock import differentiated
from ..equations.ownership import in_transform
from ..equations.velocity import StateLayout, Velocity
from ..loop.steps import just_inside
from ..plans.method import Method
from ..plans.registry import get_method
from ..solution import Solution
from .adjoint import SolveBackward, SolveForward, solve_with_adjoint
from .adjoint_solves import GraphAtFirst, augmented_norm, augmented_tolerance, exact_solves
from .augmented import Augmented, Parts
from .choice import Adjoint, refuse_together
from .lanes import LaneVelocity
from .moving_events import event_times, moved_events
from .parameters import differentiable, distinct, refuse_others, tensors_of

Solve = Callable[..., Solution]
"""`quadflow.solve`, which stands on this room and so is handed to it."""


def solve_by_adjoint(
    solve: Solve, how: Adjoint, layout: StateLayout, chosen: Method, given: dict[str, Any]
) -> Solution:
    """Solve, with gradients in y0, t and parameters by the adjoint equation.

    Args:
        how: the settings.
        layout: of the state. chosen: the forward solve's method.
        given: what `solve` was called with, by name, tolerances complete.

    Returns:
        As `solve`. y, and with events t_events and y_events, carry gradients; y_reached does where
        it is the last state of y.

    Raises:
        As `solve`; ValueError: arguments that have no adjoint. In the backward pass SolveError,
        where the state cannot be solved for backward.
    """
    _refuse(given)
    func, y0, t, args = (given[name] for name in ("func", "y0", "t", "args"))
    wanted = tensors_of(func, args).values() if how.params is None else how.params
    params = differentiable(distinct(wanted, "Adjoint.params"))
    bound = _bound(func, args)
    start = layout.split(layout.join(y0).detach())
    if how.params is None and torch.is_grad_enabled():
        first = _first_time(t, layout)
        refuse_others(bound, first, layout.own(start), params, "Adjoint(params=...)")
    lanes = bool(layout.batch)
    solved: Any = bound
    if params and torch.is_grad_enabled() and given["compile"] is False:
        solved = GraphAtFirst(bound)
    if given["compile"] is not False:
        solved, forward_args = func, args
    else:
        forward_args = ()
    fixed_t = t.detach() if isinstance(t, Tensor) else t
    found: list[Solution] = []

    def forward_solve(*arguments: Any, **keywords: Any) -> Solution:
        found.append(solve(*arguments, **keywords))
        return found[-1]

    same = {k: x for k, x in given.items() if k not in ("func", "y0", "t", "gradient")}
    same["args"] = forward_args
    velocity: Any = Velocity(bound, layout, _span(fixed_t), given["node_evaluation"])
    exact = chosen.has_exact_adjoint and how.steps_as_forward
    if exact and not lanes and given["events"] is None and not given["perturb"]:
        same["record_steps"] = True  # the backward solve goes over them
        times = torch.as_tensor(fixed_t, dtype=torch.float64).tolist()
        solves = exact_solves(forward_solve, solved, layout, start, times, same)
        when = t if isinstance(t, Tensor) else torch.tensor(times, dtype=torch.float64)
    else:
        if lanes:
            velocity = LaneVelocity(velocity, fixed_t)
        forward = _forward(forward_solve, solved, layout, start, fixed_t, same)
        solves = (forward, _backward(solve, how, layout, velocity, len(params), chosen, given))
        when = t if isinstance(t, Tensor) and not lanes else _as_times(fixed_t, lanes)
    reached, states = solve_with_adjoint(velocity, solves, layout.join(y0), when, params)
    return _told(found[0], layout, reached, states, when, velocity, given)


def _refuse(given: dict[str, Any]) -> None:
    if in_transform():
        raise ValueError(
            "gradient='adjoint' does not go through torch.func's transforms: take "
            "gradient='backprop', or torch.autograd.grad in the place of torch.func.grad"
        )
    lanes, grid, t = given["batch_dims"] == 1, given["grid"], given["t"]
    refuse_together(
        "adjoint",
        {
            "dense_output=True": (
                given["dense_output"],
                "no graph is kept inside the steps; ask for the states at more times in t",
            ),
            "a grid of per-sample times": (
                isinstance(grid, Tensor) and grid.dim() > 1,
                "the backward solve has one grid; take gradient='backprop'",
            ),
            "events with batch_dims=1": (
                lanes and given["events"] is not None,
                "take gradient='backprop', or batch_dims=0",
            ),
            "a t that requires grad with batch_dims=1": (
                lanes and isinstance(t, Tensor) and differentiated(t),
                "detach t, or take batch_dims=0",
            ),
        },
    )


def _bound(func: Any, args: Sequence[Any]) -> Any:
    """func with its further arguments."""
    return (lambda t, y: func(t, y, *args)) if args else func


def _span(t: Any) -> tuple[float, float]:
    times = torch.as_tensor(t, dtype=torch.float64)
    return (float(times.min()), float(times.max())) if times.dim() > 1 else (
        float(times[0]), float(times[-1])
    )  # fmt: skip


def _first_time(t: Any, layout: StateLayout) -> Tensor:
    """The first time as func gets it."""
    first = torch.as_tensor(t, dtype=torch.float64)[0].detach()
    first = first.to(layout.device, layout.time_dtype)
    if layout.batch:
        first = first.expand(layout.batch).reshape(-1, *(1,) * (layout.rank - 1))
    return first


def _as_times(t: Any, lanes: bool) -> Tensor:
    """The times (T,) that the adjoint counts by: with lanes those of `LaneVelocity`."""
    times = torch.as_tensor(t, dtype=torch.float64)
    return torch.arange(len(times), dtype=torch.float64) if lanes else times


def _forward(
    solve: Solve, func: Any, layout: StateLayout, y0: Any, t: Any, keywords: dict[str, Any]
) -> SolveForward:
    """The forward solve: its times and those of events in it, in the order of the solve."""

    def forward() -> tuple[list[float], Tensor]:
        found = solve(func, y0, t, **keywords)
        states = layout.join(found.y, 1)
        if layout.batch:
            return list(map(float, range(len(states)))), states
        return event_times(found, layout, states)

    return forward


def _backward(
    solve: Solve, how: Adjoint, layout: StateLayout, velocity: Any, count: int, chosen: Method,
    given: dict[str, Any],
) -> SolveBackward:  # fmt: skip
    """The backward solve over one interval, by the forward solve's settings where `how` has none.

    velocity: that of `Augmented`. count: of the parameters.
    """
    keywords = _backward_keywords(how, layout, chosen, given)
    norm = augmented_norm(how.norm, layout, given["norm"])
    like = torch.empty((*layout.batch, *_shape(layout)), dtype=layout.dtype, device=layout.device)
    grid = keywords.pop("grid", None)
    points = [] if grid is None else torch.as_tensor(grid, dtype=torch.float64).tolist()
    for name in ("rtol", "atol"):
        value = keywords[name]
        if layout.batch and isinstance(value, Tensor) and value.shape == layout.batch:
            value = value.reshape(-1, *(1,) * (like.dim() - 1))
        keywords[name] = augmented_tolerance(value, like, count)

    def backward(augmented: Augmented, start: Parts, t1: float, t0: float) -> Parts:
        of_parts = StateLayout(start)
        own = dict(keywords)
        for name in ("rtol", "atol"):
            if isinstance(own[name], tuple):
                own[name] = _spread(own[name], start)
        if isinstance(velocity, LaneVelocity):
            velocity.enter_interval(int(t0))
        elif own.get("breakpoints"):  # func may jump at the very ends
            velocity.enter(just_inside(t1, t0, layout.time_dtype))
        if points:
            inside = [when for when in points if min(t0, t1) < when < max(t0, t1)]
            own["grid"] = [t1, *reversed(inside), t0]
        path = solve(
            augmented, start, (t1, t0), norm=lambda x: norm(of_parts.split(x)),
            node_evaluation=augmented.node_evaluation, **own,
        )  # fmt: skip
        return tuple(part[-1] for part in path.y)

    return backward


def _shape(layout: StateLayout) -> tuple[int, ...]:
    return (sum(layout.sizes),) if layout.joined else tuple(layout.shapes[0])


def _spread(each: Sequence[Any], parts: Parts) -> Tensor:
    """A tolerance for every part of a state, spread over the flattened state."""
    spread = [
        torch.as_tensor(one, dtype=part.dtype, device=part.device).expand(part.numel())
        for one, part in zip(each, parts, strict=True)
    ]
    return torch.cat(spread)


_STEPS = (
    "step_size", "grid", "initial_step", "min_step", "max_step", "controller", "perturb",
    "breakpoints", "land_on",
)  # fmt: skip
"""Arguments of `solve` that the backward solve takes over from the forward one."""


def _backward_keywords(
    how: Adjoint, layout: StateLayout, chosen: Method, given: dict[str, Any]
) -> dict[str, Any]:
    """What the backward solve is called with, beside its norm."""
    names = _STEPS if how.method is None else ("breakpoints", "land_on")
    keywords = {} if layout.batch else {name: given[name] for name in names}
    if layout.batch and how.method is None:
        keywords["controller"] = given["controller"]
    size = keywords.get("step_size") if how.step_size is None else how.step_size
    if size is not None:
        keywords |= {"step_size": abs(size), "grid": None}
    rtol, atol = (
        given[name] if own is None else positive_tolerance(own, f"Adjoint.{name}")
        for name, own in (("rtol", how.rtol), ("atol", how.atol))
    )
    rtol, atol = held(rtol, atol, layout, "Adjoint.")
    return keywords | {
        "rtol": rtol, "atol": atol,
        "method": chosen if how.method is None else get_method(how.method),
        "max_steps": given["max_steps"] if how.max_steps is None else how.max_steps,
        "on_stiff": "ignore" if given["on_stiff"] == "ignore" or size is not None else "warn",
    }  # fmt: skip


def _told(
    found: Solution, layout: StateLayout, reached: Tensor, states: Tensor, when: Tensor,
    velocity: Any, given: dict[str, Any],
) -> Solution:  # fmt: skip
    """The forward solution, with the gradients on it."""
    t, y, times, events = found.t, states, found.t_events, found.y_events
    if given["events"] is not None:
        t, y, times, events = moved_events(found, layout, reached, states, velocity, given)
    if when.requires_grad:
        count = int((when.detach().to(torch.float64).cpu()[: len(t)] == t.detach()).sum())
        t = torch.cat((when[:count].to("cpu", torch.float64), t[count:]))
    last, at_end = found.y_reached, not layout.batch and found.t_reached == float(found.t[-1])
    if at_end or (layout.batch and found.success):
        last = layout.split(y[-1])
    return replace(
        found, t=t, y=layout.split(y, 1), t_events=times, y_events=events, y_reached=last
    )
