"""The forward and the backward solve of `odeint_adjoint`."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..control.control import rms_norm
from ..control.tolerances import held
from ..equations.velocity import StateLayout
from ..gradients.adjoint import SolveBackward, SolveForward
from ..gradients.augmented import Augmented, Parts, as_complex
from ..plans.method import Method
from ..solve import solve
from .callbacks import CALLBACKS
from .names import StepKind, torchdiffeq_method
from .odeint import odeint
from .tolerances import requested_times, solver_norm, solver_tolerance


class GraphAtFirst:
    """func as the forward solve calls it, without gradients but for its first evaluation.

    What func computes there once and keeps (cached parametrizations, weights made by a network, the
    casts of autocast) has a graph then, as the backward solve needs it.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func, self._is_first = func, True

    def __getattr__(self, name: str) -> Any:  # the callbacks of `odeint`
        return getattr(self._func, name)

    def __call__(self, t: Tensor, y: Any) -> Any:
        if not self._is_first:
            return self._func(t, y)
        self._is_first = False
        with torch.enable_grad():
            v = self._func(t, y)
        if isinstance(v, (tuple, list)):
            return type(v)(x.detach() if isinstance(x, Tensor) else x for x in v)
        return v.detach() if isinstance(v, Tensor) else v


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
        name: _augmented_tolerance(value, y0, layout, count, name)
        for name, value in (("rtol", rtol), ("atol", atol))
    }
    if kind is StepKind.ADAPTIVE:
        options["norm"] = _augmented_norm(options.get("norm"), layout, solver_norm(state_norm, y0))
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


def _augmented_tolerance(value: Any, y0: Any, layout: StateLayout, count: int, name: str) -> Any:
    """One tolerance for every part of the augmented state: y's for the adjoint as well, and the
    least of them for the gradients in times and parameters."""
    spread = solver_tolerance(value, y0, name)
    if not isinstance(spread, Tensor) or spread.dim() == 0:
        return spread
    like = layout.join(y0).detach()
    each = spread.to(like.real).expand(like.shape)
    if like.is_complex():
        each = each[..., None].expand(*each.shape, 2)
    each, least = each.reshape(-1), float(spread.min())
    return (least, each, each, *[least] * count)


def _augmented_norm(
    norm: Any, layout: StateLayout, state_norm: Callable[[Tensor], Tensor]
) -> Callable[[Parts], Tensor]:
    def as_state(part: Tensor) -> Tensor:
        return as_complex(part) if layout.dtype.is_complex else part

    if callable(norm):

        def of_user(parts: Parts) -> Tensor:
            times, y, adjoint, *params = parts
            states = [layout.split(as_state(part)) for part in (y, adjoint)]
            if layout.joined:
                return norm((times.abs().amax(), *states[0], *states[1], *params))
            return norm((times.abs().amax(), *states, *params))

        return of_user
    if norm not in (None, "seminorm"):
        raise ValueError(f"adjoint_options['norm'] must be 'seminorm' or a function, got {norm!r}")

    def largest(parts: Parts) -> Tensor:
        times, y, adjoint, *params = parts
        norms = [times.abs().amax(), *(state_norm(as_state(part)) for part in (y, adjoint))]
        if norm is None:
            norms += [rms_norm(part) for part in params]
        return torch.stack(norms).amax()

    return largest


def exact_solves(
    func: Any, layout: StateLayout, y0: Any, times: list[float], keywords: dict[str, Any]
) -> tuple[SolveForward, SolveBackward]:
    """Both solves over the same steps, which land on all the times."""
    steps: list[float] = []
    sign = 1.0 if times[-1] > times[0] else -1.0

    def forward() -> tuple[list[float], Tensor]:
        inner = sorted({*times[1:-1], *keywords.get("breakpoints", ())}, reverse=sign < 0)
        found = solve(func, y0, times, **{**keywords, "breakpoints": inner})
        steps[:] = found.steps
        return times, layout.join(found.y, 1)

    def backward(augmented: Augmented, start: Parts, t1: float, t0: float) -> Parts:
        keys = [sign * step for step in steps]
        first, last = (bisect.bisect_left(keys, sign * end) for end in (t0, t1))
        ends, y, adjoint, *by_params = start
        # all but y is linear in the adjoint: at y's size the sweeps converge for both alike
        scale = adjoint.abs().amax() / y.abs().amax()
        scale = torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
        zeros = [torch.zeros_like(part) for part in by_params]
        found = solve(
            augmented, (ends, y, adjoint / scale, *zeros), (t1, t0), method=keywords["method"],
            grid=steps[first : last + 1][::-1], node_evaluation=augmented.node_evaluation,
        )  # fmt: skip
        ends, y, adjoint, *added = (part[-1] for part in found.y)
        total = (old + scale * new for old, new in zip(by_params, added, strict=True))
        return (scale * ends, y, scale * adjoint, *total)

    return forward, backward
