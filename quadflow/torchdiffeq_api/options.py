"""What `solve` is called with for torchdiffeq's arguments and options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..checks import check_callable, real_number
from ..control.control import StepController
from ..equations.times import points_in_time
from ..plans.method import Method
from .callbacks import callbacks_of
from .names import NamedMethod, StepKind
from .tolerances import solver_norm, solver_tolerance

MANY_STEPS = 2**31 - 1
"""torchdiffeq's default of max_num_steps."""


_STEPS = {
    "first_step": "initial_step",
    "min_step": "min_step",
    "max_step": "max_step",
    "max_num_steps": "max_steps",
}
_FACTORS = {"safety": "safety", "ifactor": "max_factor", "dfactor": "min_factor"}


def solve_arguments(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    named: NamedMethod,
    *,
    rtol: Any,
    atol: Any,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What `solve` is called with for torchdiffeq's arguments: solve(func, y0, t, **keywords).

    named: the method. Other arguments and errors are those of `odeint`; "scipy_solver" is refused,
    as `solve` has no part in it.
    """
    name, chosen, kind = named
    given = given_options(options)
    if chosen is None:
        raise ValueError(f"method={name!r} is not a method of this library")
    keywords: dict[str, Any] = {
        "method": chosen,
        "rtol": solver_tolerance(rtol, y0, "rtol"),
        "atol": solver_tolerance(atol, y0, "atol"),
        **callbacks_of(func, y0, kind, name),
    }
    if "node_evaluation" in given:
        keywords["node_evaluation"] = given["node_evaluation"]
    if kind is StepKind.ADAPTIVE:
        keywords.update(_adaptive(given, y0, chosen))
    else:
        keywords.update(_fixed(func, y0, t, given))
    interp = given.get("interp")
    if interp not in (None, "linear", "cubic"):
        raise ValueError(f"options['interp'] must be 'linear' or 'cubic', got {interp!r}")
    return keywords


def given_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options without those that are None, which are as good as not there."""
    return {option: value for option, value in (options or {}).items() if value is not None}


def _adaptive(given: Mapping[str, Any], y0: Any, chosen: Method) -> dict[str, Any]:
    keywords: dict[str, Any] = {
        "max_steps": MANY_STEPS,
        "norm": solver_norm(given.get("norm"), y0),
    }
    keywords.update({ours: given[theirs] for theirs, ours in _STEPS.items() if theirs in given})
    limits: dict[str, Any] = {
        ours: real_number(given[theirs], f"options[{theirs!r}]")
        for theirs, ours in _FACTORS.items()
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
    land, *jumps = (
        points_in_time(given.get(name, ()), f"options[{name!r}]")
        for name in ("step_t", "jump_t", "grid_points")
    )
    together = [*land, *jumps[0], *jumps[1]]
    repeated = sorted({when for when in together if together.count(when) > 1})
    if repeated:
        raise ValueError(f"times given twice in step_t, jump_t, grid_points: {repeated}")
    return {**keywords, "land_on": land, "breakpoints": jumps[0] + jumps[1]}


def _fixed(func: Any, y0: Any, t: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    size, constructor = given.get("step_size"), given.get("grid_constructor")
    if size is not None and constructor is not None:
        raise ValueError("options: give step_size or grid_constructor, not both")
    if constructor is not None:
        check_callable(constructor, "options['grid_constructor']")
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
