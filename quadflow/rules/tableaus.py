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
