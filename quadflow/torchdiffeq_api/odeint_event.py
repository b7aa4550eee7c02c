"""`odeint_event` with torchdiffeq's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..equations.velocity import StateLayout
from ..host import read_on_host
from ..observe.events.event import event_of_any
from ..observe.events.gradients import shift_of_zero
from .odeint import odeint
from .until_event import start_time


def odeint_event(
    func: Callable[..., Any],
    y0: Any,
    t0: float | Tensor,
    *,
    event_fn: Callable[..., Tensor],
    reverse_time: bool = False,
    odeint_interface: Callable[..., Any] = odeint,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """Solve until the event, and let gradients through the time of it.

    Args:
        func, y0, event_fn: as in `odeint`.
        t0: the first time, a number or a tensor of one entry.
        reverse_time: go from t0 to earlier times.
        odeint_interface: `odeint`, `odeint_adjoint` or a function like them: its gradients are
            those at a fixed time of the event.
        kwargs: handed on to it (rtol, atol, method, options, ...).

    Returns:
        (time of the event, 0-dimensional; states at t0 and there), both differentiable in all that
        the solve is differentiable in, and in the parameters of event_fn. First derivatives alone.

    With c the event function, dT = -(c_y dy)/(c_t + c_y f) by the implicit function theorem, and
    the state there moves by f dT (Chen, Amos & Nickel 2021).
    """
    start = torch.as_tensor(t0, dtype=None if isinstance(t0, Tensor) else torch.float64).reshape(1)
    ahead = start.detach().abs().clamp(min=1.0)
    ends = torch.cat((start, start.detach() + (-ahead if reverse_time else ahead)))
    event_t, states = odeint_interface(func, y0, ends, event_fn=event_fn, **kwargs)
    if not torch.is_grad_enabled() or read_on_host(event_t) == read_on_host(start[0]):
        return event_t, states
    layout = StateLayout(y0)
    crossing = event_of_any(event_fn, start_time(start[0], layout), layout.own(y0)).function
    joined = layout.join(states, 1)
    end = joined[-1]
    time = event_t.detach().to(layout.time_dtype)
    with torch.no_grad():
        v = layout.join(func(time, layout.split(end)))
    shift = shift_of_zero(
        lambda t, y: crossing(t, layout.split(y)), crossing(time, layout.split(end)), time, end, v
    )
    event_t = event_t.detach() + shift.to(event_t.dtype)
    end = end + v * shift.to(layout.time_dtype)
    return event_t, layout.split(torch.cat((joined[:-1], end[None])), 1)
