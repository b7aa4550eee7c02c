"""What tolerances are where none are given, and what a dtype holds of those that are."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import real_number
from ..equations.velocity import StateLayout
from ..errors import ToleranceWarning, caller_level

ROUNDINGS = 100.0
"""The least rtol in units of the state's rounding: below, an error estimate is made of rounding.
SciPy's bound."""


def default_rtol(layout: StateLayout) -> float:
    """1e-7 where func's values are float64 or complex128, 1e-4 for float32 and complex64, 1e-2 for
    float16 and bfloat16."""
    eps = torch.finfo(layout.func_dtype).eps
    return 1e-7 if eps < 1e-12 else 1e-4 if eps < 1e-6 else 1e-2


def default_atol(layout: StateLayout) -> float:
    """A hundredth of `default_rtol`."""
    return default_rtol(layout) / 100


def least_rtol(layout: StateLayout) -> float:
    """100 roundings of the dtype in which states are added up, and no less than one rounding of
    func's values: where these are rounded more coarsely, adding up averages the roundings."""
    own, of_func = (torch.finfo(dtype).eps for dtype in (layout.dtype, layout.func_dtype))
    return max(ROUNDINGS * own, of_func)


def least_atol(layout: StateLayout) -> float:
    """The least normal number of the dtype in which states are added up."""
    return torch.finfo(layout.dtype).tiny


def held(rtol: Any, atol: Any, layout: StateLayout, prefix: str = "") -> tuple[Any, Any]:
    """Tolerances raised (with a `ToleranceWarning`) to what the state's dtype holds.

    rtol, atol: a number, a tensor (raised entry by entry; it comes back in the state's real dtype),
    or a tuple or list of these; what is none of them comes back as it is. prefix: of their names.
    """
    return (
        _raised(rtol, least_rtol(layout), layout, f"{prefix}rtol"),
        _raised(atol, least_atol(layout), layout, f"{prefix}atol"),
    )


def _raised(value: Any, least: float, layout: StateLayout, name: str) -> Any:
    raised, smallest = _at_least(value, least)
    if isinstance(raised, Tensor) and raised.is_floating_point():
        raised = raised.to(layout.time_dtype)
    if smallest >= least:
        return raised
    with_func = "" if layout.dtype is layout.func_dtype else f" with func in {layout.func_dtype}"
    warnings.warn(
        f"{name}={smallest:.3g} is less than a state in {layout.dtype}{with_func} holds: "
        f"{name}={least:.3g} is used. Take that or a larger one"
        + (", or a state in float64" if torch.finfo(layout.dtype).bits < 64 else ""),
        ToleranceWarning,
        stacklevel=caller_level(),
    )
    return raised


def _at_least(value: Any, least: float) -> tuple[Any, float]:
    """The value raised to `least`, and the smallest number in it. What is no tolerance comes back
    as it is, to be refused elsewhere."""
    if isinstance(value, (tuple, list)):
        parts = [_at_least(part, least) for part in value]
        raised = [part for part, _ in parts]
        smallest = min((number for _, number in parts), default=math.inf)
        return (raised if isinstance(value, list) else tuple(raised)), smallest
    if isinstance(value, Tensor):
        if not (value.is_floating_point() and value.numel()):
            return value, math.inf
        smallest = float(value.detach().min())
        return (value.clamp(min=least), smallest) if smallest > 0 else (value, math.inf)
    if not isinstance(value, (float, np.floating)) or not value > 0:
        return value, math.inf
    return max(value, least), float(value)


def positive_tolerance(value: Any, name: str) -> Any:
    """A tolerance as it is: a positive number, or a tensor of such.

    Raises:
        TypeError, ValueError: it is neither.
    """
    try:
        if isinstance(value, Tensor) and (value.is_complex() or not value.numel()):
            raise TypeError("no order, or nothing")
        smallest = real_number(value.min() if isinstance(value, Tensor) else value, name)
    except TypeError as error:
        raise TypeError(f"{name} must be a float or a tensor, got {value!r}") from error
    if not (smallest > 0 and (isinstance(value, Tensor) or math.isfinite(smallest))):
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return value


def check_fits(tolerance: Any, name: str, y: Tensor) -> None:
    """Refuse a tolerance that does not broadcast against the state."""
    if not isinstance(tolerance, Tensor):
        return
    pairs = zip(reversed(tolerance.shape), reversed(y.shape), strict=False)
    if tolerance.dim() > y.dim() or any(mine not in (1, its) for mine, its in pairs):
        raise ValueError(
            f"{name} has shape {tuple(tolerance.shape)}, which does not broadcast against the "
            f"state's, {tuple(y.shape)}"
        )
