"""`odeint_adjoint` with torchdiffeq's signature: gradients in constant memory."""

from __future__ import annotations

import bisect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..control.control import rms_norm
from ..control.tolerances import held_atol, held_rtol
from ..equations.clock import with_graph
from ..equations.velocity import StateLayout, Velocity
from ..gradients.adjoint import (
    AdjointProblem,
    Augmented,
    Parts,
    SolveBackward,
    SolveForward,
    as_complex,
    has_exact_adjoint,
    solve_with_adjoint,
)
from ..plans.registry import Method
from ..solve import solve
from .names import Kind, named_method
from .odeint import (
    CALLBACKS,
    odeint,
    requested_times,
    solve_arguments,
    solver_norm,
    solver_tolerance,
)


def odeint_adjoint(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = None,
    atol: Any = None,
    method: str | Method | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Tensor] | None = None,
    adjoint_rtol: Any = None,
    adjoint_atol: Any = None,
    adjoint_method: str | Method | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
) -> Any:
    """`odeint` with gradients by the adjoint equation, whose memory does not grow with the steps.

    Gradients are in y0, t and adjoint_params, and first derivatives alone. They are those of the
    exact solution, to within the tolerances; but with a converged Gauss collocation
    (`collocation(gauss_legendre(n), "converged")`) and no adjoint_rtol, adjoint_atol,
    adjoint_method, adjoint_options or event_fn, the steps land on all times t, the backward solve
    goes over the same steps, and the gradient is the exact one of the discrete solution, however
    coarse the steps. What is kept for it is the state at every time t and, there, the float times
    of the steps.

    Args:
        func, y0, t, rtol, atol, method, options: as in `odeint`. func is an nn.Module unless
            adjoint_params is given.
        event_fn: as in `odeint`; the gradients are those at a fixed time of the event.
            `odeint_event` with odeint_interface=odeint_adjoint adds what comes from its moving.
        adjoint_rtol, adjoint_atol, adjoint_method: of the backward solve; default: the forward
            ones. A tolerance that is not one number is as for y0, and holds for the adjoint too.
        adjoint_options: options of the backward solve; default: `options` without norm, which must
            be told where adjoint_method is another than method. norm is "seminorm" (no error
            control on the gradients in parameters), or a function of the tuple (t, y, adjoint,
            *parameters) of the augmented state, tuple states spread out in it; default: the
            largest of the parts' norms, that of `options` for y and the adjoint.
        adjoint_params: the tensors to give gradients to; default: func's parameters; () for none.
            Those that do not require grad are left out. Where func makes use of a tensor that was
            computed before the solve, this may be the tensor itself or what it was computed from;
            the first costs less, for its own graph then is gone through once and not at every
            evaluation.

    func's attributes callback_step_adjoint, callback_accept_step_adjoint and
    callback_reject_step_adjoint are called in the backward solve as those of `odeint` are in the
    forward one, with the tuple (gradients in the interval's two ends, y, adjoint, *parameters).

    Returns:
        As `odeint`.

    Raises:
        As `odeint`; ValueError: func is not an nn.Module and adjoint_params is not given, or
        adjoint_options is missing; TypeError: an entry of adjoint_params is not a tensor. In the
        backward pass SolveError, where the state cannot be solved for backward.

    Sources: Chen, Rubanova, Bettencourt & Duvenaud 2018; Kidger, Chen & Lyons 2021 (seminorm);
    Sanz-Serna 2016 (exactness).
    """
    params = _parameters(func, adjoint_params, adjoint_options)
    if adjoint_method is not None and adjoint_method != method and adjoint_options is None:
        if options:
            raise ValueError(
                f"adjoint_method={adjoint_method!r} is not method={method!r}: options cannot be "
                "those of both, give adjoint_options as well"
            )
        adjoint_options = {}
    t = with_graph(t)
    ends = requested_times(t)
    if event_fn is None and len(ends) == 1:
        return odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options)
    when = t if isinstance(t, Tensor) else torch.tensor(ends, dtype=torch.float64)
    layout = StateLayout(y0)
    fixed_y0 = layout.split(layout.join(y0).detach())
    fixed_t = when.detach()
    named = named_method(method, options or {})
    chosen = named[1]
    solved = func
    if params and callable(func) and torch.is_grad_enabled():
        solved = _GraphAtFirst(func)
    if named[2] in (Kind.ADAPTIVE, Kind.SCIPY):
        # here, and not in either solve, so that it is said once
        rtol, atol = held_rtol(rtol, layout), held_atol(atol, layout)
    own = (adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options, event_fn)
    forward: SolveForward
    backward: SolveBackward
    if chosen is not None and has_exact_adjoint(chosen) and all(given is None for given in own):
        keywords = solve_arguments(
            func, y0, fixed_t, named, rtol=rtol, atol=atol, options=options
        ).keywords
        forward, backward = _exact(solved, layout, fixed_y0, ends, keywords)
    else:
        if adjoint_options is None:
            adjoint_options = {key: x for key, x in (options or {}).items() if key != "norm"}
        forward = _forward(
            solved, layout, fixed_y0, fixed_t, event_fn,
            {"rtol": rtol, "atol": atol, "method": method, "options": options},
        )  # fmt: skip
        backward = _backward(
            func, y0, layout, len(params),
            rtol if adjoint_rtol is None else adjoint_rtol,
            atol if adjoint_atol is None else adjoint_atol,
            method if adjoint_method is None else adjoint_method,
            adjoint_options,
            (options or {}).get("norm"),
        )  # fmt: skip
    mode = (options or {}).get("node_evaluation") or "auto"
    velocity = Velocity(func, layout, (ends[0], ends[-1]), mode)
    problem = AdjointProblem(velocity, forward, backward)
    reached, states = solve_with_adjoint(problem, layout.join(y0), when, params)
    if event_fn is None:
        return layout.split(states, 1)
    return reached[-1].to(when), layout.split(states, 1)


class _GraphAtFirst:
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


# -- the continuous adjoint ----------------------------------------------------------------------


def _forward(
    func: Any,
    layout: StateLayout,
    y0: Any,
    t: Tensor,
    event_fn: Callable[..., Tensor] | None,
    keywords: dict[str, Any],
) -> SolveForward:
    def forward() -> tuple[list[float], Tensor]:
        if event_fn is None:
            return requested_times(t), layout.join(odeint(func, y0, t, **keywords), 1)
        # in float64, where t's dtype may round the time to start backward from
        start = t.to(torch.float64)
        event_t, states = odeint(func, y0, start, event_fn=event_fn, **keywords)
        return [float(t[0]), float(event_t)], layout.join(states, 1)

    return forward


def _backward(
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
    options = dict(options)
    kind = named_method(method, {k: x for k, x in options.items() if k != "norm"})[2]
    if kind in (Kind.ADAPTIVE, Kind.SCIPY):
        rtol = held_rtol(rtol, layout, "adjoint_rtol")
        atol = held_atol(atol, layout, "adjoint_atol")
    tolerances = {
        name: _augmented_tolerance(value, y0, layout, count, name)
        for name, value in (("rtol", rtol), ("atol", atol))
    }
    if kind is Kind.ADAPTIVE:
        options["norm"] = _augmented_norm(options.get("norm"), layout, solver_norm(state_norm, y0))
    options.pop("node_evaluation", None)
    callbacks = {
        name: getattr(func, f"{name}_adjoint")
        for name in CALLBACKS[Kind.ADAPTIVE]
        if callable(getattr(func, f"{name}_adjoint", None))
    }

    def backward(augmented: Augmented, start: Parts, t1: float, t0: float) -> Parts:
        given = dict(options)
        if kind is not Kind.SCIPY:
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


# -- the exact adjoint ---------------------------------------------------------------------------


def _exact(
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


# -- arguments -----------------------------------------------------------------------------------


def _parameters(
    func: Any, given: Iterable[Tensor] | None, options: Mapping[str, Any] | None
) -> list[Tensor]:
    if given is None:
        if not isinstance(func, nn.Module):
            raise ValueError(
                f"func is a {type(func).__name__}, no nn.Module, so its parameters are unknown: "
                "give adjoint_params, the tensors that gradients are wanted in, or () for none"
            )
        given = _module_parameters(func)
    params = list(given)
    for i, param in enumerate(params):
        if not isinstance(param, Tensor):
            raise TypeError(f"adjoint_params[{i}] must be a tensor, got {type(param).__name__}")
    params = list({id(param): param for param in params}.values())  # else counted twice
    wanted = [param for param in params if param.requires_grad and param.numel()]
    if len(wanted) != len(params) and callable((options or {}).get("norm")):
        warnings.warn(
            f"{len(params) - len(wanted)} of adjoint_params do not require grad: they are not "
            "part of what adjoint_options['norm'] is given",
            stacklevel=3,
        )
    return wanted


def _module_parameters(module: nn.Module) -> list[Tensor]:
    if not getattr(module, "_is_replica", False):
        return list(module.parameters())
    # nn.DataParallel's replicas hold theirs as plain attributes
    return [
        value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and value.requires_grad
    ]
