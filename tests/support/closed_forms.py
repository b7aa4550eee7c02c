"""Problems whose solution has a formula, on states of any shape: what fuzzed solves are judged by.

s = |t - t0| / scale is the time that has gone by, so that a problem may run forwards or backwards,
over 1e-8 or 1e8 units of t; its slopes in s are of size 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import expm

Array = np.ndarray


@dataclass(frozen=True)
class ClosedForm:
    """dy/ds = slope(s, y), y(0) = y0, has the solution exact(s, y0).

    slope: on tensors; s broadcasts against y. exact: on arrays, s a float.
    growth: bounds |∂y(s)/∂y(r)| for 0 <= r <= s, as growth(s, y0).
    kinds: of which states it makes sense, "real" and "complex". last: smallest s of a singularity.
    autonomous: slope does not look at s. linear: in y.
    """

    name: str
    slope: Callable[[Any, Any], Any]
    exact: Callable[[float, Array], Array]
    growth: Callable[[float, Array], float] = lambda s, y0: 1.0
    complex: bool = True
    last: Callable[[Array], float] = lambda y0: math.inf
    autonomous: bool = True
    linear: bool = True


def _matrix(d: int) -> Array:
    """Rotations of size 1, slightly damped."""
    random = np.random.default_rng(d).standard_normal((d, d))
    skew = random - random.T
    size = np.linalg.norm(skew, 2)
    return (skew / size if size else skew) - 0.2 * np.eye(d)


def _linear_slope(s: Any, y: Any) -> Any:
    return y @ torch.tensor(_matrix(y.shape[-1]).T).to(y)


def _linear(s: float, y0: Array) -> Array:
    return y0 @ expm(s * _matrix(y0.shape[-1])).T


def _driven(s: float, y0: Array) -> Array:
    return (y0 - 0.5) * np.exp(-s) + (np.cos(s) + np.sin(s)) / 2


def _logistic(s: float, y0: Array) -> Array:
    return y0 / (y0 + (1 - y0) * np.exp(-s))


CLOSED_FORMS = {
    form.name: form
    for form in (
        ClosedForm("decay", lambda s, y: -y, lambda s, y0: y0 * np.exp(-s)),
        ClosedForm("linear", _linear_slope, _linear),
        ClosedForm(
            "driven", lambda s, y: torch.cos(s).to(y.dtype) - y, _driven, autonomous=False
        ),
        # ∂y(s)/∂y0 = e^(-s) (y(s)/y0)² <= 1 / (4 y0 (1 - y0)) for y0 < 1/2
        ClosedForm(
            "logistic", lambda s, y: y * (1 - y), _logistic,
            lambda s, y0: max(1.0, 1 / float(2 * y0.min())), complex=False, linear=False,
        ),
        ClosedForm("still", lambda s, y: torch.zeros_like(y), lambda s, y0: y0),
        ClosedForm(
            "blow-up", lambda s, y: y * y, lambda s, y0: y0 / (1 - y0 * s),
            lambda s, y0: 1 / float(1 - y0.max() * s) ** 2, complex=False, linear=False,
            last=lambda y0: 1 / float(y0.max()),
        ),
    )
}  # fmt: skip
