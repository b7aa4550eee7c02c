"""torchdiffeq's method "scipy_solver": a solve by scipy.integrate.solve_ivp, without gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..control.tolerances import default_atol, default_rtol, held_atol, held_rtol
from ..equations.velocity import StateLayout, Velocity
from ..errors import real_number


def solve_by_scipy(
    func: Callable[..., Any],
    y0: Any,
    times: list[float],
    *,
    rtol: float | Tensor | None,
    atol: float | Tensor | None,
    options: Mapping[str, Any],
) -> Any:
    """States at all `times` by SciPy, as `odeint` returns them: on y0's device, in its dtype.

    Args:
        func: func(t, y) -> dy/dt, called with tensors of y0's dtype and device, under no_grad.
        y0: tensor, or a tuple of tensors.
        times: strictly monotone.
        rtol, atol: numbers, or tensors that broadcast against the flattened state; their defaults
            and bounds are those of `solve`.
        options: solver (a method of solve_ivp; default "LSODA"), max_step, min_step ("LSODA"
            alone).

    Raises:
        ValueError: gradients are wanted (of y0 or of parameters of an nn.Module), min_step for
            another solver than LSODA, or what solve_ivp refuses. RuntimeError: it did not reach
            the last time, SciPy's message says why; or func is not finite ("LSODA"), or the solver
            does not advance.
    """
    from scipy.integrate import solve_ivp  # slow to import, and wanted here alone

    layout = StateLayout(y0)
    rtol = default_rtol(layout) if rtol is None else held_rtol(rtol, layout)
    atol = default_atol(layout) if atol is None else held_atol(atol, layout)
    _refuse_gradients(func, y0 if isinstance(y0, tuple) else (y0,))
    solver = options.get("solver", "LSODA")
    if "min_step" in options and solver != "LSODA":
        raise ValueError(f"options['min_step'] has no use in solver={solver!r}, only in 'LSODA'")
    velocity = Velocity(func, layout, (times[0], times[-1]))
    start = layout.join(y0)
    shape = start.shape
    farthest, idle = times[0], 0
    # Jacobians by differences need as many evaluations at one time as the state has entries
    patience = 10_000 + 100 * math.prod(shape)

    def on_numpy(t: float, y: np.ndarray) -> np.ndarray:
        nonlocal farthest, idle
        idle += 1
        if (t - farthest) * (times[-1] - times[0]) > 0 and abs(t - farthest) > 16 * math.ulp(t):
            farthest, idle = t, 0
        if idle > patience:  # LSODA would go on for ever
            raise RuntimeError(
                f"scipy_solver, solver={solver!r}: no advance past t={farthest:.9g} in {patience} "
                "evaluations of func: a singularity, or tolerances below rounding"
            )
        state = torch.from_numpy(y.copy()).to(layout.device, layout.dtype).reshape(shape)
        value: np.ndarray = velocity(float(t), state)[0].cpu().numpy().reshape(-1)
        if solver == "LSODA" and not np.isfinite(value).all():  # which would never come back
            raise RuntimeError(f"scipy_solver, solver='LSODA': func is not finite at t={t:.9g}")
        return value

    steps = {
        name: real_number(options[name], f"options[{name!r}]")
        for name in ("min_step", "max_step")
        if name in options
    }
    with torch.no_grad():
        found = solve_ivp(
            on_numpy, (times[0], times[-1]), start.cpu().numpy().reshape(-1),
            method=solver, t_eval=times, rtol=_as_numpy(rtol), atol=_as_numpy(atol), **steps,
        )  # fmt: skip
    if not found.success:
        raise RuntimeError(f"scipy_solver, solver={solver!r}: {found.message}")
    states = torch.from_numpy(np.ascontiguousarray(found.y.T)).to(layout.device, layout.dtype)
    return layout.split(states.reshape(len(times), *shape), 1)


def _refuse_gradients(func: Any, parts: tuple[Tensor, ...]) -> None:
    if not torch.is_grad_enabled():
        return
    parameters = func.parameters() if isinstance(func, torch.nn.Module) else ()
    wanting = "y0" if any(part.requires_grad for part in parts) else ""
    if not wanting and any(p.requires_grad for p in parameters):
        wanting = "a parameter of func"
    if wanting:
        raise ValueError(
            f"method='scipy_solver' gives no gradients and {wanting} requires grad: solve under "
            "torch.no_grad(), use odeint_adjoint, or take another method"
        )


def _as_numpy(tolerance: float | Tensor) -> Any:
    if isinstance(tolerance, Tensor):
        return tolerance.detach().cpu().to(torch.float64).numpy()
    return float(tolerance)
