"""`odeint` with torchdiffeq's signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .control import StepController
from .errors import nearest
from .methods import Method, get_method
from .solve import DEFAULT_METHOD, solve

_OPTIONS = (
    "step_size",
    "grid_constructor",
    "norm",
    "first_step",
    "min_step",
    "max_step",
    "max_num_steps",
    "safety",
    "ifactor",
    "dfactor",
    "node_evaluation",
)


def odeint(
    func: Callable[..., Any],
    y0: Any,
    t: Tensor,
    *,
    rtol: float | Tensor = 1e-7,
    atol: float | Tensor = 1e-9,
    method: str | Method | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Solve dy/dt = func(t, y) from y(t[0]) = y0; the states at all times t, t[0] included.

    Args:
        func: func(t, y) -> dy/dt; see `solve`.
        y0: tensor of any shape, or a tuple of tensors.
        t: 1-d tensor, strictly increasing or decreasing.
        rtol, atol: tolerances of adaptive methods.
        method: name or Method. A method without an error estimate takes fixed steps: between the
            times in t, or of options["step_size"].
        options: step_size, grid_constructor (func, y0, t) -> grid, norm, first_step, min_step,
            max_step, max_num_steps, safety, ifactor, dfactor, node_evaluation. An option that the
            method does not use is an error.

    Returns:
        Tensor (len(t), *y0.shape), or a tuple of such for a tuple state.

    Raises:
        As `solve`; ValueError for an unknown option.

    The contract is torchdiffeq's (Chen 2018), where a time between two fixed steps is interpolated
    linearly by default; here by the method's dense output.
    """
    given = dict(options or {})
    for name in given:
        if name not in _OPTIONS:
            raise ValueError(f"options[{name!r}] is unknown: {nearest(name, _OPTIONS)}")
    chosen = get_method(DEFAULT_METHOD if method is None else method)
    grid = None
    if "grid_constructor" in given:
        if "step_size" in given:
            raise ValueError("options: give step_size or grid_constructor, not both")
        grid = given["grid_constructor"](func, y0, t)
    elif "step_size" not in given and chosen.error_order is None:
        grid = t
    fixed = grid is not None or "step_size" in given
    adaptive = ("first_step", "min_step", "max_step", "max_num_steps", "safety", "ifactor",
                "dfactor", "norm")  # fmt: skip
    unused = [name for name in adaptive if name in given and fixed]
    if unused:
        raise ValueError(f"options {unused} belong to adaptive steps; these steps are fixed")
    arguments: dict[str, Any] = {
        ours: given[theirs]
        for theirs, ours in (
            ("step_size", "step_size"),
            ("norm", "norm"),
            ("first_step", "initial_step"),
            ("min_step", "min_step"),
            ("max_step", "max_step"),
            ("max_num_steps", "max_steps"),
            ("node_evaluation", "node_evaluation"),
        )
        if theirs in given
    }
    limits: dict[str, Any] = {
        ours: float(given[theirs])
        for theirs, ours in (
            ("safety", "safety"),
            ("ifactor", "max_factor"),
            ("dfactor", "min_factor"),
        )
        if theirs in given
    }
    if limits:
        limits.setdefault("max_factor", chosen.max_growth)
        arguments["controller"] = StepController(**limits)
    return solve(func, y0, t, method=chosen, rtol=rtol, atol=atol, grid=grid, **arguments).y
