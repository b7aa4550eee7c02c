"""Every tableau there is; a new one is a line here, and then a method by its name."""

from .classical import FEHLBERG2 as FEHLBERG2
from .classical import HEUN as HEUN
from .classical import HEUN3 as HEUN3
from .classical import MIDPOINT as MIDPOINT
from .classical import RK4 as RK4
from .classical import RK4_THREE_EIGHTHS as RK4_THREE_EIGHTHS
from .dop853 import DOPRI8 as DOPRI8
from .pairs import BOSH3 as BOSH3
from .pairs import DOPRI5 as DOPRI5
from .pairs import TSIT5 as TSIT5
from .tableau import Tableau as Tableau

TABLEAUS = {
    "midpoint": (MIDPOINT, "explicit midpoint rule, 2 stages (Runge 1895)"),
    "heun": (HEUN, "explicit trapezoid, 2 stages (Heun 1900)"),
    "heun3": (HEUN3, "Heun of order 3, 3 stages (Heun 1900)"),
    "rk4": (RK4, "classical Runge-Kutta, 4 stages (Kutta 1901)"),
    "rk4_38": (RK4_THREE_EIGHTHS, "Runge-Kutta 3/8, 4 stages (Kutta 1901)"),
    "bosh3": (BOSH3, "Bogacki & Shampine 3(2), 4 stages, FSAL (1989)"),
    "dopri5": (DOPRI5, "Dormand & Prince 5(4), 7 stages, FSAL (1980)"),
    "tsit5": (TSIT5, "Tsitouras 5(4), 7 stages, FSAL (2011)"),
    "dopri8": (DOPRI8, "Dormand & Prince 8(5,3), 13 stages, FSAL (1993)"),
}
"""The tableaus that are registered methods, each with its description, by the names of these."""
