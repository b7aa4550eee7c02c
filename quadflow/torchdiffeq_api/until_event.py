"""A solve until an event, as torchdiffeq ends one: where an entry of event_fn changes its sign."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..equations.clock import differentiated
from ..equations.velocity import StateLayout
from ..host import read_on_host
from ..observe.events.event import event_of_any
from ..solve import solve
from .names import StepKind
from .options import MANY_STEPS


def refuse_with_event(times: list[float], kind: StepKind, given: Mapping[str, Any]) -> None:
    """Refuse times and options that a solve until an event cannot have (ValueError)."""
    if len(times) != 2:
        raise ValueError(f"with event_fn t must hold two times, got {len(times)}")
    if times[0] == times[1] or not math.isfinite(times[0]):
        raise ValueError(f"with event_fn t must say where to start and which way, got {times}")
    if kind is not StepKind.ADAPTIVE and given.get("step_size") is None:
        raise ValueError("with event_fn fixed steps need options['step_size']: t has no end")
    if "interp" in given:
        raise ValueError(
            f"options['interp']={given['interp']!r} has no use with event_fn: the event is found "
            "on the method's dense output"
        )


def start_time(t0: Tensor, layout: StateLayout) -> Tensor:
    """The start of the solve as event_fn gets it."""
    return t0.detach().to(layout.device, layout.time_dtype)


def until_event(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    times: list[float],
    event_fn: Callable[..., Tensor],
    keywords: dict[str, Any],
) -> tuple[Tensor, Any]:
    """The time of the event and the states at t[0] and there, differentiated at a fixed time."""
    layout = StateLayout(y0)
    t = t if isinstance(t, Tensor) else torch.tensor(times, dtype=torch.float64)
    # what event_fn does to its argument is seen once the solve runs, and must not reach y0
    event = event_of_any(event_fn, start_time(t[0], layout), layout.own(y0))
    if read_on_host(event.function(start_time(t[0], layout), layout.own(y0))) == 0:
        y = layout.join(y0)
        return t[0].detach(), layout.split(torch.stack((y, y)), 1)
    end = math.copysign(math.inf, times[1] - times[0])
    ends = torch.cat((t[:1].to(torch.float64), torch.full_like(t[:1], end, dtype=torch.float64)))
    if keywords.get("max_steps") == MANY_STEPS:
        del keywords["max_steps"]  # a solve without an end, and maybe without an event
    solution = solve(func, y0, ends, events=event, **keywords)
    event_t, states = solution.t_events[0][-1], layout.join(solution.y, 1)
    if differentiated(event_t):
        # the solution's state moves with the event
        last = layout.split(states[-1].detach())
        with torch.no_grad():
            v = layout.join(func(event_t.detach().to(layout.time_dtype), last))
        moved = v * (event_t - event_t.detach()).to(layout.time_dtype)
        states = torch.stack((states[0], states[-1] - moved))
    return event_t.detach().to(t), layout.split(states, 1)
