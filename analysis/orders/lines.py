"""A straight line through measured points, and how well it is known."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit


def fitted_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope of the least-squares line, half width of its 95 % confidence interval (Student's t on
    the residuals), and the largest distance of a point from it.

    Args:
        x, y: float64 (n,), n >= 3, x not all equal.
    """
    slope, start = np.polyfit(x, y, 1)
    gaps = y - (slope * x + start)
    variance = float(gaps @ gaps) / (len(x) - 2)
    spread = math.sqrt(variance / float(((x - x.mean()) ** 2).sum()))
    return float(slope), float(stdtrit(len(x) - 2, 0.975)) * spread, float(np.abs(gaps).max())
