"""How far a method's stability region reaches on the negative real axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def reach(growth: Callable[[np.ndarray], np.ndarray]) -> float:
    """The last x, of 0.02, 0.04, … 12, up to which the growth over a step does not exceed 1."""
    x = np.arange(0.0, 12.0, 0.02)
    above = growth(x) > 1 + 1e-6
    return float(x[max(0, int(above.argmax()) - 1)] if above.any() else x[-1])
