"""Times and states of events on a solution whose states carry gradients at fixed times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..equations.velocity import StateLayout
from ..observe.events.event import as_events
from ..observe.events.gradients import shift_of_zero
from ..solution import Solution


def event_times(found: Solution, layout: StateLayout, states: Tensor) -> tuple[list[float], Tensor]:
    """All times at which a solution holds states, those of events too, each once, in the order of
    the solve; the states there."""
    times: list[float] = found.t.tolist()
    known = dict(zip(times, states.unbind(0), strict=True))
    for when, there in zip(found.t_events, found.y_events, strict=True):
        known |= dict(zip(when.tolist(), layout.join(there, 1).unbind(0), strict=True))
    order = sorted(known, reverse=len(times) > 1 and times[-1] < times[0])
    return order, torch.stack([known[when] for when in order])


def moved_events(
    found: Solution, layout: StateLayout, reached: Tensor, states: Tensor, velocity: Any,
    given: dict[str, Any],
) -> tuple[Tensor, Tensor, list[Tensor], list[Any]]:  # fmt: skip
    """t, y, t_events and y_events of a solution, with the gradients of events that move.

    reached, states: of `solve_with_adjoint`. The gradient of an event's time is that of the
    implicit function theorem, see `observe.events.gradients`, with f for dy/dt.
    """
    place = {when: i for i, when in enumerate(reached.tolist())}
    t, start = found.t, float(reached[0])
    y = states[[place[when] for when in t.tolist()]]
    times: list[Tensor] = []
    at_events: list[Tensor] = []
    events = as_events(given["events"])
    for event, when in zip(events, found.t_events, strict=True):
        own = [
            _moved(event.function, layout, velocity, float(x), states[place[float(x)]], start)
            for x in when
        ]
        none = states[:0]
        times.append(torch.stack([one for one, _ in own]) if own else when)
        at_events.append(torch.stack([one for _, one in own]) if own else none)
        if event.terminal and own and float(when[-1]) == float(found.t[-1]) == found.t_reached:
            t = torch.cat((t[:-1], times[-1][-1:].cpu()))
            y = torch.cat((y[:-1], at_events[-1][-1:]))
    return t, y, times, [layout.split(one, 1) for one in at_events]


def _moved(
    function: Any, layout: StateLayout, velocity: Any, when: float, y: Tensor, start: float
) -> tuple[Tensor, Tensor]:
    """Time and state of one event, unchanged in value, with the derivative of the time."""
    tau = torch.tensor(when, dtype=torch.float64, device=layout.device)
    t = tau.to(layout.time_dtype)
    value = function(t, layout.split(y)).reshape(())
    if when == start or not value.requires_grad:
        return tau, y
    with torch.no_grad():
        v = velocity(when, y.detach())[0]
    shift = shift_of_zero(
        lambda t, x: function(t, layout.split(x)).reshape(()), value, t, y, v
    ).reshape(())
    return tau + shift, y + v * shift.to(y.real.dtype)
