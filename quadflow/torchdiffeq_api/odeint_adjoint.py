"""`odeint_adjoint` with torchdiffeq's signature: gradients in constant memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..control.tolerances import held
from ..equations.clock import with_graph
from ..equations.velocity import StateLayout, Velocity
from ..errors import caller_level
from ..gradients.adjoint import solve_with_adjoint
from ..gradients.adjoint_solves import GraphAtFirst, exact_solves
from ..gradients.parameters import differentiable, distinct
from ..plans.method import Method
from ..solve import solve
from .adjoint_solves import continuous_backward, continuous_forward
from .names import StepKind, torchdiffeq_method
from .odeint import odeint
from .options import solve_arguments
from .tolerances import requested_times


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
    if adjoint_method not in (None, method) and adjoint_options is None and options:
        raise ValueError(
            f"adjoint_method={adjoint_method!r} is not method={method!r}: options cannot be "
            "those of both, give adjoint_options as well"
        )
    options = options or {}
    t = with_graph(t)
    ends = requested_times(t)
    if event_fn is None and len(ends) == 1:
        return odeint(func, y0, t, rtol=rtol, atol=atol, method=method, options=options)
    when = t if isinstance(t, Tensor) else torch.tensor(ends, dtype=torch.float64)
    layout, named = StateLayout(y0), torchdiffeq_method(method, options)
    start, fixed_t = layout.split(layout.join(y0).detach()), when.detach()
    watched = bool(params) and callable(func) and torch.is_grad_enabled()
    solved = GraphAtFirst(func) if watched else func
    if named.kind in (StepKind.ADAPTIVE, StepKind.SCIPY):
        # here, and not in either solve, so that it is said once
        rtol, atol = held(rtol, atol, layout)
    own = (adjoint_rtol, adjoint_atol, adjoint_method, adjoint_options, event_fn)
    exact = named.method is not None and named.method.has_exact_adjoint
    if exact and all(given is None for given in own):
        found = solve_arguments(func, y0, fixed_t, named, rtol=rtol, atol=atol, options=options)
        forward, backward = exact_solves(solve, solved, layout, start, ends, found)
    else:
        if adjoint_options is None:
            adjoint_options = {name: value for name, value in options.items() if name != "norm"}
        keywords = {"rtol": rtol, "atol": atol, "method": method, "options": options}
        forward = continuous_forward(solved, layout, start, fixed_t, event_fn, keywords)
        backward = continuous_backward(
            func, y0, layout, len(params),
            rtol if adjoint_rtol is None else adjoint_rtol,
            atol if adjoint_atol is None else adjoint_atol,
            method if adjoint_method is None else adjoint_method,
            adjoint_options, options.get("norm"),
        )  # fmt: skip
    mode = options.get("node_evaluation") or "auto"
    velocity = Velocity(func, layout, (ends[0], ends[-1]), mode)
    solves = (forward, backward)
    reached, states = solve_with_adjoint(velocity, solves, layout.join(y0), when, params)
    if event_fn is None:
        return layout.split(states, 1)
    return reached[-1].to(when), layout.split(states, 1)


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
    params = distinct(given, "adjoint_params")
    wanted = differentiable(params)
    if len(wanted) != len(params) and callable((options or {}).get("norm")):
        warnings.warn(
            f"{len(params) - len(wanted)} of adjoint_params do not require grad: they are not "
            "part of what adjoint_options['norm'] is given",
            stacklevel=caller_level(),
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
