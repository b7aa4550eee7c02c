"""The tableaus of Runge, Heun and Kutta, and Fehlberg's second-order pair."""

from .tableau import Tableau

MIDPOINT = Tableau([[], [1 / 2]], [0, 1], 2)
"""The explicit midpoint rule (Runge 1895)."""

RK4 = Tableau([[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], 4)
"""The classical fourth-order method (Kutta 1901)."""

RK4_THREE_EIGHTHS = Tableau([[], [1 / 3], [-1 / 3, 1], [1, -1, 1]], [1 / 8, 3 / 8, 3 / 8, 1 / 8], 4)
"""The 3/8 rule (Kutta 1901): fourth order, smaller error constants than `RK4`."""

HEUN = Tableau([[], [1.0]], [1 / 2, 1 / 2], 2, errors=[-1 / 2, 1 / 2], error_order=2)
"""Heun's second-order method (explicit trapezoid) with Euler embedded."""

HEUN3 = Tableau([[], [1 / 3], [0, 2 / 3]], [1 / 4, 0, 3 / 4], 3)
"""Heun's third-order method (Heun 1900)."""

FEHLBERG2 = Tableau(
    [[], [1 / 2], [1 / 256, 255 / 256]],
    [1 / 512, 255 / 256, 1 / 512],
    2,
    errors=[1 / 512, 0, -1 / 512],
    error_order=2,
)
"""Fehlberg 1969 (NASA TR R-315), order 2(1): the last stage is the embedded first-order step."""
