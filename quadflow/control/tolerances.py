"""What tolerances are where none are given, and what a dtype holds of those that are."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    """100 roundings of the dtype in which states are added up, and no less than one of func's
    values: where these are rounded more coarsely, adding up averages them."""
    own, of_func = (torch.finfo(dtype).eps for dtype in (layout.dtype, layout.func_dtype))
    return max(ROUNDINGS * own, of_func)


def least_atol(layout: StateLayout) -> float:
    """The least normal number of the dtype in which states are added up."""
    return torch.finfo(layout.dtype).tiny


def held_rtol(value: Any, layout: StateLayout, name: str = "rtol") -> Any:
    """A relative tolerance, raised to what the state's dtype holds with a `ToleranceWarning`: a
    number, a tensor (entry by entry; comes back in the state's real dtype) or a tuple or list of
    these."""
    return _raised(value, least_rtol(layout), layout, name)


def held_atol(value: Any, layout: StateLayout, name: str = "atol") -> Any:
    """`held_rtol` of an absolute tolerance."""
    return _raised(value, least_atol(layout), layout, name)


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
    """The value, raised, and the least number in it; what is no tolerance as it is, which others
    refuse."""
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
