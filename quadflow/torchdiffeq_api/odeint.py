"""`odeint` with torchdiffeq's signature, names and options."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..control.control import Norm, StepController, rms_norm
from ..equations.clock import differentiated, with_graph
from ..equations.velocity import StateLayout, Velocity
from ..errors import real_number
from ..host import worst
from ..loop.grids import fixed_grid
from ..observe.event_gradients import shift_of_zero
from ..observe.events import event_of_any
from ..plans.registry import Method
from ..solution import Solution
from ..solve import solve
from .names import Kind, named_method
from .through_scipy import solve_by_scipy

_MANY_STEPS = 2**31 - 1  # torchdiffeq's default of max_num_steps


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
    Of fixed steps: step_size or grid_constructor (func, y0, t) -> grid, without which the times t
    are the grid; perturb (func is evaluated just after a step's start and just before its end);
    interp, "linear" or "cubic" between the steps (the default is the method's dense output).
    Of the Adams methods: max_order (<= 12), and max_iters, the most that the corrector is repeated
    (it is made once). Of "scipy_solver": solver, min_step, max_step. Of all others:
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
    named = named_method(method, options or {})
    name, _, kind = named
    if kind is Kind.SCIPY:
        if event_fn is not None:
            raise ValueError(f"method={name!r} has no events: take another, or SciPy itself")
        if isinstance(t, Tensor) and differentiated(t):
            raise ValueError(f"method={name!r} gives no gradients and t requires grad: detach it")
        _callbacks(func, y0, kind, name)
        rtol, atol = solver_tolerance(rtol, y0, "rtol"), solver_tolerance(atol, y0, "atol")
        return solve_by_scipy(func, y0, times, rtol=rtol, atol=atol, options=_given(options))
    if event_fn is not None:
        _refuse_with_event(times, kind, _given(options))
    found = solve_arguments(func, y0, t, named, rtol=rtol, atol=atol, options=options)
    if event_fn is not None:
        return _until_event(func, y0, t, times, event_fn, found)
    if found.interp is not None:
        return _interpolated(func, y0, t, times, found)
    return solve(func, y0, t, **found.keywords).y


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
    named = named_method(method, options or {})
    found = solve_arguments(func, y0, t, named, rtol=rtol, atol=atol, options=options)
    if found.interp is not None:
        raise ValueError(f"options['interp']={found.interp!r}: this is the method's dense output")
    return solve(func, y0, t, **found.keywords, dense_output=True)


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
    if not torch.is_grad_enabled() or worst(event_t) == worst(start[0]):
        return event_t, states
    layout = StateLayout(y0)
    crossing = event_of_any(event_fn, _start_time(start[0], layout), layout.own(y0)).function
    parts = states if isinstance(y0, tuple) else (states,)
    end = layout.join(tuple(part[-1] for part in parts) if isinstance(y0, tuple) else states[-1])
    time = event_t.detach().to(layout.time_dtype)
    with torch.no_grad():
        v = layout.join(func(time, layout.split(end)))
    shift = shift_of_zero(
        lambda t, y: crossing(t, layout.split(y)), crossing(time, layout.split(end)), time, end, v
    )
    event_t = event_t.detach() + shift.to(event_t.dtype)
    end = end + v * shift.to(layout.time_dtype)
    last = layout.split(end)
    moved = tuple(
        torch.cat((part[:-1], state[None]))
        for part, state in zip(parts, last if isinstance(y0, tuple) else (last,), strict=True)
    )
    return event_t, moved if isinstance(y0, tuple) else moved[0]


def _refuse_with_event(times: list[float], kind: Kind, given: Mapping[str, Any]) -> None:
    if len(times) != 2:
        raise ValueError(f"with event_fn t must hold two times, got {len(times)}")
    if times[0] == times[1] or not math.isfinite(times[0]):
        raise ValueError(f"with event_fn t must say where to start and which way, got {times}")
    if kind is not Kind.ADAPTIVE and given.get("step_size") is None:
        raise ValueError("with event_fn fixed steps need options['step_size']: t has no end")
    if "interp" in given:
        raise ValueError(
            f"options['interp']={given['interp']!r} has no use with event_fn: the event is found "
            "on the method's dense output"
        )


def _start_time(t0: Tensor, layout: StateLayout) -> Tensor:
    return t0.detach().to(layout.device, layout.time_dtype)


def _until_event(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    times: list[float],
    event_fn: Callable[..., Tensor],
    found: SolveArguments,
) -> tuple[Tensor, Any]:
    """The time of the event and the states at t[0] and there, differentiated at a fixed time."""
    layout = StateLayout(y0)
    t = t if isinstance(t, Tensor) else torch.tensor(times, dtype=torch.float64)
    # what event_fn does to its argument is seen once the solve runs, and must not reach y0
    event = event_of_any(event_fn, _start_time(t[0], layout), layout.own(y0))
    if worst(event.function(_start_time(t[0], layout), layout.own(y0))) == 0:
        y = layout.join(y0)
        return t[0].detach(), layout.split(torch.stack((y, y)), 1)
    end = math.copysign(math.inf, times[1] - times[0])
    ends = torch.cat((t[:1].to(torch.float64), torch.full_like(t[:1], end, dtype=torch.float64)))
    keywords = dict(found.keywords)
    if keywords.get("max_steps") == _MANY_STEPS:
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


@dataclass(frozen=True)
class SolveArguments:
    """Keyword arguments of `solve`, and the interpolation asked for between fixed steps."""

    keywords: dict[str, Any]
    interp: str | None


def solve_arguments(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    named: tuple[str, Method | None, Kind],
    *,
    rtol: Any,
    atol: Any,
    options: Mapping[str, Any] | None,
) -> SolveArguments:
    """What `solve` is called with for torchdiffeq's arguments: solve(func, y0, t, **keywords).

    named: the method, as `named_method` gives it. Other arguments and errors are those of `odeint`;
    "scipy_solver" is refused, as `solve` has no part in it.
    """
    name, chosen, kind = named
    given = _given(options)
    if chosen is None:
        raise ValueError(f"method={name!r} is not a method of this library")
    keywords: dict[str, Any] = {
        "method": chosen,
        "rtol": solver_tolerance(rtol, y0, "rtol"),
        "atol": solver_tolerance(atol, y0, "atol"),
        **_callbacks(func, y0, kind, name),
    }
    if "node_evaluation" in given:
        keywords["node_evaluation"] = given["node_evaluation"]
    if kind is Kind.ADAPTIVE:
        keywords.update(_adaptive(given, y0, chosen))
    else:
        keywords.update(_fixed(func, y0, t, given))
    interp = given.get("interp")
    if interp not in (None, "linear", "cubic"):
        raise ValueError(f"options['interp'] must be 'linear' or 'cubic', got {interp!r}")
    return SolveArguments(keywords, interp)


def _given(options: Mapping[str, Any] | None) -> dict[str, Any]:
    return {option: value for option, value in (options or {}).items() if value is not None}


def _adaptive(given: Mapping[str, Any], y0: Any, chosen: Method) -> dict[str, Any]:
    keywords: dict[str, Any] = {
        "max_steps": _MANY_STEPS,
        "norm": solver_norm(given.get("norm"), y0),
    }
    for theirs, ours in (
        ("first_step", "initial_step"),
        ("min_step", "min_step"),
        ("max_step", "max_step"),
        ("max_num_steps", "max_steps"),
    ):
        if theirs in given:
            keywords[ours] = given[theirs]
    limits: dict[str, Any] = {
        ours: real_number(given[theirs], f"options[{theirs!r}]")
        for theirs, ours in (
            ("safety", "safety"),
            ("ifactor", "max_factor"),
            ("dfactor", "min_factor"),
        )
        if theirs in given
    }
    if limits:
        limits.setdefault("max_factor", chosen.max_growth)
        keywords["controller"] = StepController(**limits)
    dtype = given.get("dtype", torch.float64)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"options['dtype'] must be a real floating dtype, got {dtype!r}")
    if "eps" in given and "grid_points" not in given:
        raise ValueError("options['eps'] is a distance from grid_points, of which there are none")
    land = _stops(given, "step_t")
    jumps = [*_stops(given, "jump_t"), *_stops(given, "grid_points")]
    repeated = [when for when, count in _counts([*land, *jumps]) if count > 1]
    if repeated:
        raise ValueError(f"times given twice in step_t, jump_t, grid_points: {repeated}")
    if land:
        keywords["land_on"] = land
    if jumps:
        keywords["breakpoints"] = jumps
    return keywords


def _fixed(func: Any, y0: Any, t: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    size, constructor = given.get("step_size"), given.get("grid_constructor")
    if size is not None and constructor is not None:
        raise ValueError("options: give step_size or grid_constructor, not both")
    if constructor is not None and not callable(constructor):
        raise TypeError(f"options['grid_constructor'] must be callable, got {constructor!r}")
    keywords: dict[str, Any] = {}
    if size is not None:
        keywords["step_size"] = real_number(size, "options['step_size']")
    else:
        grid = t if constructor is None else constructor(func, y0, t)
        keywords["grid"] = grid.detach() if isinstance(grid, Tensor) else grid
    if "eps" in given and "perturb" in given:
        raise ValueError("options: eps is the older name of perturb; give one of them")
    if given.get("perturb", False) or real_number(given.get("eps", 0.0), "options['eps']") != 0:
        keywords["perturb"] = True
    return keywords


# -- what single arguments become ----------------------------------------------------------------


def requested_times(t: Any) -> list[float]:
    """The times as floats; `solve` looks at their order and at whether they are finite."""
    if isinstance(t, Tensor):
        if not t.is_floating_point():
            raise TypeError(f"t must be a floating tensor, got {t.dtype}")
    else:
        try:
            t = torch.tensor([float(when) for when in t], dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"t must be a floating tensor or numbers, got {t!r}") from error
    if t.dim() != 1 or not len(t):
        raise ValueError(f"t must be one-dimensional and not empty, got shape {tuple(t.shape)}")
    times: list[float] = t.detach().to(torch.float64).tolist()
    return times


def solver_tolerance(value: Any, y0: Any, name: str) -> Any:
    """A tolerance as `solve` takes it: one for every tensor of a tuple is spread over the state."""
    each: Iterable[Any]
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(f"{name} requires grad: there are no gradients in tolerances, detach")
        if value.dim() == 0 or not isinstance(y0, tuple):
            return value
        each = value.unbind(0)
    elif isinstance(value, (tuple, list)) and isinstance(y0, tuple):
        each = value
    else:
        return value
    each = list(each)
    if len(each) != len(y0):
        raise ValueError(f"{name} has {len(each)} entries for {len(y0)} tensors of y0")
    spread = [
        torch.as_tensor(one, dtype=torch.float64, device=y.device).expand(y.numel())
        for one, y in zip(each, y0, strict=True)
    ]
    return torch.cat(spread)


def solver_norm(norm: Callable[[Any], Any] | None, y0: Any) -> Norm:
    """The norm on the solver's state: of a tuple it gets the tuple, by default the largest RMS."""
    if norm is not None and not callable(norm):
        raise TypeError(f"options['norm'] must be callable, got {norm!r}")
    if not isinstance(y0, tuple):
        if norm is None:
            return rms_norm
        single = norm
        return lambda x: torch.as_tensor(single(x), device=x.device)
    layout = StateLayout(y0)
    on_tuple = norm or (lambda parts: torch.stack([rms_norm(part) for part in parts]).amax())
    return lambda x: torch.as_tensor(on_tuple(layout.split(x)), device=x.device)


def _stops(given: Mapping[str, Any], name: str) -> list[float]:
    """The times options[name]; `solve` leaves out those outside the span."""
    value = given.get(name)
    if value is None:
        return []
    try:
        points = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"options[{name!r}] must be a 1-d tensor of times, got {value!r}"
        ) from error
    if points.dim() != 1 or points.is_complex():
        raise ValueError(f"options[{name!r}] must be a 1-d tensor of times, got {value!r}")
    stops: list[float] = points.detach().to(torch.float64).tolist()
    return stops


def _counts(values: list[float]) -> list[tuple[float, int]]:
    return [(value, len(list(group))) for value, group in itertools.groupby(sorted(values))]


CALLBACKS = {
    Kind.ADAPTIVE: ("callback_step", "callback_accept_step", "callback_reject_step"),
    Kind.FIXED: ("callback_step",),
    Kind.ADAMS: ("callback_step",),
    Kind.SCIPY: (),
}


def _callbacks(func: Any, y0: Any, kind: Kind, name: str) -> dict[str, Any]:
    """`solve`'s hooks for the callbacks that func carries as attributes."""
    named = {
        attribute: getattr(func, attribute)
        for attribute in CALLBACKS[Kind.ADAPTIVE]
        if callable(getattr(func, attribute, None))
    }
    unused = sorted(set(named) - set(CALLBACKS[kind]))
    if unused:
        warnings.warn(f"method {name!r} does not call {', '.join(unused)}", stacklevel=4)
    step, accept, reject = (
        named.get(attribute) if attribute in CALLBACKS[kind] else None
        for attribute in CALLBACKS[Kind.ADAPTIVE]
    )
    device = (y0[0] if isinstance(y0, tuple) else y0).device

    def told(callback: Callable[..., Any], t0: float, state: Any, h: float) -> None:
        start, size = (
            torch.full((), value, dtype=torch.float64, device=device) for value in (t0, abs(h))
        )
        callback(start, state, size)

    tried: list[tuple[float, Any, float]] = []
    hooks: dict[str, Any] = {}
    if step is not None or accept is not None:

        def attempt(t0: float, state: Any, h: float) -> None:
            tried[:] = [(t0, state, h)]
            if step is not None:
                told(step, t0, state, h)

        hooks["attempt_callback"] = attempt
    if accept is not None:
        # what was accepted is what was tried last
        hooks["callback"] = lambda t, y: told(accept, *tried[-1])
    if reject is not None:
        hooks["reject_callback"] = lambda t0, state, h: told(reject, t0, state, h)
    return hooks


# -- between fixed steps -------------------------------------------------------------------------


def _interpolated(
    func: Callable[..., Any], y0: Any, t: Any, times: list[float], found: SolveArguments
) -> Any:
    """States at `times` by linear or cubic Hermite interpolation between the steps' ends."""
    if isinstance(t, Tensor) and differentiated(t):
        raise ValueError("options['interp']: gradients in t need the method's dense output")
    sign = 1.0 if times[-1] > times[0] else -1.0
    size, grid = found.keywords.get("step_size"), found.keywords.get("grid")
    grid = [times[0], *(fixed_grid(times, sign, size, grid) or ())]
    keys = [sign * point for point in grid]
    ends = []
    for when in times:
        right = min(bisect.bisect_left(keys, sign * when), len(grid) - 1)
        ends.append((grid[right], grid[right]) if grid[right] == when else
                    (grid[right - 1], grid[right]))  # fmt: skip
    needed = sorted({grid[0], grid[-1], *itertools.chain(*ends)}, key=lambda point: sign * point)
    reached = solve(func, y0, needed, **{**found.keywords, "step_size": None, "grid": grid}).y
    layout = StateLayout(y0)
    velocity = Velocity(func, layout, (times[0], times[-1]))
    split = zip(*reached, strict=True) if isinstance(y0, tuple) else reached
    at = {point: layout.join(state) for point, state in zip(needed, split, strict=True)}

    def between(left: float, right: float, when: float) -> Tensor:
        if left == right:
            return at[right]
        h, theta = right - left, (when - left) / (right - left)
        rise = at[right] - at[left]
        if found.interp == "linear":
            return at[left] + theta * rise
        v0, v1 = (velocity(end, at[end])[0] for end in (left, right))
        bend = (1 - theta) * (h * v0 - rise) - theta * (h * v1 - rise)
        return at[left] + theta * (rise + (1 - theta) * bend)

    return layout.split(
        torch.stack([between(*pair, when) for pair, when in zip(ends, times, strict=True)]), 1
    )
