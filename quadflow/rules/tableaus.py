"""Every tableau there is; a new one is a line here, and then a method by its name."""

from .classical import FEHLBERG2, HEUN, HEUN3, MIDPOINT, RK4, RK4_THREE_EIGHTHS
from .dop853 import DOPRI8
from .pairs import BOSH3, DOPRI5, TSIT5
from .tableau import Tableau

__all__ = [
    "BOSH3",
    "DOPRI5",
    "DOPRI8",
    "FEHLBERG2",
    "HEUN",
    "HEUN3",
    "MIDPOINT",
    "RK4",
    "RK4_THREE_EIGHTHS",
    "TABLEAUS",
    "TSIT5",
    "Tableau",
]

TABLEAUS = {
    "midpoint": MIDPOINT,
    "heun": HEUN,
    "heun3": HEUN3,
    "rk4": RK4,
    "rk4_38": RK4_THREE_EIGHTHS,
    "bosh3": BOSH3,
    "dopri5": DOPRI5,
    "tsit5": TSIT5,
    "dopri8": DOPRI8,
}
"""The tableaus that are registered methods, by the names of these."""
