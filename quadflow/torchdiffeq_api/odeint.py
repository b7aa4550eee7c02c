"""`odeint` with torchdiffeq's signature, names and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..equations.clock import differentiated, with_graph
from ..plans.method import Method
from ..solution import Solution
from ..solve import solve
from .between_steps import interpolated
from .callbacks import callbacks_of
from .names import StepKind, torchdiffeq_method
from .options import given_options, solve_arguments
from .through_scipy import solve_by_scipy
from .tolerances import requested_times, solver_tolerance
from .until_event import refuse_with_event, until_event


def odeint(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: Any = None,
    atol: Any = None,
    method: str | Method | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: Callable[..., Tensor] | None = None,
) -> Any:
    """Solve dy/dt = func(t, y) from y(t[0]) = y0; the states at all times t, t[0] included.

    Args:
        func: func(t, y) -> dy/dt; see `solve`. Its attributes callback_step (before every step),
            callback_accept_step and callback_reject_step (of adaptive steps), if there, are called
            with (t0, y0, dt): the step's start, the state there, its positive size.
        y0: tensor of any shape, or a tuple of tensors.
        t: 1-d floating tensor, or a sequence of numbers and 0-dimensional tensors, strictly
            increasing or decreasing; differentiated where it requires grad. With event_fn two
            times, of which the second only says the direction.
        rtol, atol: tolerances of adaptive methods; numbers or tensors; for a tuple state also one
            of these for every tensor of it. Default: those of `solve`, torchdiffeq's 1e-7 and 1e-9
            for float64 and complex128, 1e-4 and 1e-6 for float32 and complex64.
        method: a name of torchdiffeq 0.2.5, a registered name, or a Method; None is "dopri5". By
            torchdiffeq's names "rk4" is the 3/8 rule ("rk4_38" in the registry), "heun2" is
            "heun" at fixed steps and "adaptive_heun" at adaptive ones, "explicit_adams" and
            "implicit_adams" are `adams` of max_order.
        options: those that the method has a use for; see below.
        event_fn: event_fn(t, y) -> real tensor. The solve ends where one of its entries first
            changes its sign, at once where one is zero at the start, and is given up after
            max_num_steps (then 100 000 by default, of fixed steps as well). Fixed steps need
            step_size.

    Options of adaptive steps: first_step, min_step, max_step, max_num_steps (over the whole solve),
    safety, ifactor, dfactor, norm (for a tuple state it gets the tuple), step_t (steps land on
    these times), jump_t (func may jump there: steps land on them and start anew), grid_points (an
    older name of jump_t), dtype (the least dtype of time; time is float64 whatever it is).
    Options of fixed steps: step_size or grid_constructor (func, y0, t) -> grid, without which the
    times t are the grid; perturb (func is evaluated just after a step's start and just before
    its end); interp, "linear" or "cubic" between the steps (the default is the method's dense
    output).
    Options of the Adams methods: max_order (<= 12), and max_iters, the most that the corrector is
    repeated (it is made once). "scipy_solver" takes solver, min_step and max_step; all others
    node_evaluation, see `solve`. eps, the older perturb of fixed steps, and the distance kept from
    grid_points, which are not crossed at any distance.

    Returns:
        Tensor (len(t), *y0.shape), or a tuple of such for a tuple state. With event_fn a pair: the
        time of the event (0-dimensional, of t's dtype), and the states at t[0] and there; their
        gradients are those at a fixed time of the event, `odeint_event` has those of its moving.

    Raises:
        As `solve`; TypeError for times that are not floating; ValueError for an unknown option or
        one that the method has no use for.

    The contract is torchdiffeq's (Chen 2018).
    """
    t = with_graph(t)
    times = requested_times(t)
    if event_fn is None and len(times) == 1:
        return tuple(y[None] for y in y0) if isinstance(y0, tuple) else y0[None]
    named = torchdiffeq_method(method, options or {})
    name, _, kind = named
    given = given_options(options)
    if kind is StepKind.SCIPY:
        if event_fn is not None:
            raise ValueError(f"method={name!r} has no events: take another, or SciPy itself")
        if isinstance(t, Tensor) and differentiated(t):
            raise ValueError(f"method={name!r} gives no gradients and t requires grad: detach it")
        callbacks_of(func, y0, kind, name)
        rtol, atol = solver_tolerance(rtol, y0, "rtol"), solver_tolerance(atol, y0, "atol")
        return solve_by_scipy(func, y0, times, rtol=rtol, atol=atol, options=given)
    if event_fn is not None:
        refuse_with_event(times, kind, given)
    keywords = solve_arguments(func, y0, t, named, rtol=rtol, atol=atol, options=options)
    if event_fn is not None:
        return until_event(func, y0, t, times, event_fn, keywords)
    if "interp" in given:
        return interpolated(func, y0, t, times, keywords, given["interp"])
    return solve(func, y0, t, **keywords).y


def odeint_dense(
    func: Callable[..., Any],
    y0: Any,
    t0: float | Tensor,
    t1: float | Tensor,
    *,
    rtol: Any = None,
    atol: Any = None,
    method: str | Method | None = None,
    options: Mapping[str, Any] | None = None,
) -> Solution:
    """The solution between t0 and t1 as a function of time; arguments as in `odeint`.

    Returns:
        `Solution`: called with a time or a 1-d sequence of times it gives the states there.
    """
    t = torch.stack([torch.as_tensor(end, dtype=torch.float64).reshape(()) for end in (t0, t1)])
    named = torchdiffeq_method(method, options or {})
    keywords = solve_arguments(func, y0, t, named, rtol=rtol, atol=atol, options=options)
    interp = given_options(options).get("interp")
    if interp is not None:
        raise ValueError(f"options['interp']={interp!r}: this is the method's dense output")
    return solve(func, y0, t, **keywords, dense_output=True)
