"""Every tableau there is; a new one is a line here, and then a method by its name."""

from . import classical, dop853, pairs

TABLEAUS = {
    "midpoint": (classical.MIDPOINT, "explicit midpoint rule, 2 stages (Runge 1895)"),
    "heun": (classical.HEUN, "explicit trapezoid, 2 stages (Heun 1900)"),
    "heun3": (classical.HEUN3, "Heun of order 3, 3 stages (Heun 1900)"),
    "rk4": (classical.RK4, "classical Runge-Kutta, 4 stages (Kutta 1901)"),
    "rk4_38": (classical.RK4_THREE_EIGHTHS, "Runge-Kutta 3/8, 4 stages (Kutta 1901)"),
    "bosh3": (pairs.BOSH3, "Bogacki & Shampine 3(2), 4 stages, FSAL (1989)"),
    "dopri5": (pairs.DOPRI5, "Dormand & Prince 5(4), 7 stages, FSAL (1980)"),
    "tsit5": (pairs.TSIT5, "Tsitouras 5(4), 7 stages, FSAL (2011)"),
    "dopri8": (dop853.DOPRI8, "Dormand & Prince 8(5,3), 13 stages, FSAL (1993)"),
}
"""The tableaus that are registered methods, each with its description, by the names of these."""
