"""The forward and the backward solve of `odeint_adjoint`, by torchdiffeq's names and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..control.tolerances import held
from ..equations.velocity import StateLayout
from ..gradients.adjoint import SolveBackward, SolveForward
from ..gradients.adjoint_solves import augmented_norm, augmented_tolerance
from ..gradients.augmented import Augmented, Parts
from ..plans.method import Method
from .callbacks import CALLBACKS
from .names import StepKind, torchdiffeq_method
from .odeint import odeint
from .tolerances import requested_times, solver_norm, solver_tolerance


def continuous_forward(
    func: Any,
    layout: StateLayout,
    y0: Any,
    t: Tensor,
    event_fn: Callable[..., Tensor] | None,
    keywords: dict[str, Any],
) -> SolveForward:
    """`odeint` with these keywords, without gradients: at all times, or until an event."""

    def forward() -> tuple[list[float], Tensor]:
        if event_fn is None:
            return requested_times(t), layout.join(odeint(func, y0, t, **keywords), 1)
        # in float64, where t's dtype may round the time to start backward from
        start = t.to(torch.float64)
        event_t, states = odeint(func, y0, start, event_fn=event_fn, **keywords)
        return [float(t[0]), float(event_t)], layout.join(states, 1)

    return forward


def continuous_backward(
    func: Any,
    y0: Any,
    layout: StateLayout,
    count: int,
    rtol: Any,
    atol: Any,
    method: str | Method | None,
    options: Mapping[str, Any],
    state_norm: Callable[[Any], Any] | None,
) -> SolveBackward:
    """`odeint` of the augmented state, over one interval between requested times.

    count: of the parameters. state_norm: the forward solve's norm, as it was given.
    """
    options = dict(options)
    kind = torchdiffeq_method(method, {k: x for k, x in options.items() if k != "norm"})[2]
    if kind in (StepKind.ADAPTIVE, StepKind.SCIPY):
        rtol, atol = held(rtol, atol, layout, "adjoint_")
    tolerances = {
        name: augmented_tolerance(solver_tolerance(value, y0, name), layout.join(y0), count)
        for name, value in (("rtol", rtol), ("atol", atol))
    }
    if kind is StepKind.ADAPTIVE:
        norm = options.get("norm")
        if not (callable(norm) or norm in (None, "seminorm")):
            raise ValueError(
                f"adjoint_options['norm'] must be 'seminorm' or a function, got {norm!r}"
            )
        options["norm"] = augmented_norm(norm, layout, solver_norm(state_norm, y0))
    options.pop("node_evaluation", None)
    callbacks = {
        name: getattr(func, f"{name}_adjoint")
        for name in CALLBACKS[StepKind.ADAPTIVE]
        if callable(getattr(func, f"{name}_adjoint", None))
    }

    def backward(augmented: Augmented, start: Parts, t1: float, t0: float) -> Parts:
        given = dict(options)
        if kind is not StepKind.SCIPY:
            given["node_evaluation"] = augmented.node_evaluation

        def velocity(t: Tensor, parts: Parts) -> Parts:
            return augmented(t, parts)

        for name, callback in callbacks.items():
            setattr(velocity, name, callback)
        ends = torch.tensor([t1, t0], dtype=torch.float64)
        path: Parts = odeint(velocity, start, ends, method=method, options=given, **tolerances)
        return tuple(part[-1] for part in path)

    return backward
