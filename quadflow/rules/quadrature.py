"""Every quadrature rule there is: importing this fills `FAMILIES`.

A family of one's own carries the `family` decorator; one that belongs here is a file beside the
others, imported below.
"""

from .chebyshev import clenshaw_curtis, fejer, fejer_first, fejer_second
from .families import FAMILIES, MAX_NODES, FamilyInfo, NegativeWeightsWarning, family
from .from_nodes import rule_from_nodes, symmetric_four
from .gauss import gauss_legendre, gauss_lobatto, radau_left, radau_right
from .newton_cotes import (
    boole,
    midpoint_rule,
    newton_cotes,
    newton_cotes_closed,
    newton_cotes_open,
    simpson,
    three_eighths,
    trapezoid,
)
from .rule import QuadratureRule

__all__ = [
    "FAMILIES",
    "MAX_NODES",
    "FamilyInfo",
    "NegativeWeightsWarning",
    "QuadratureRule",
    "boole",
    "clenshaw_curtis",
    "family",
    "fejer",
    "fejer_first",
    "fejer_second",
    "gauss_legendre",
    "gauss_lobatto",
    "midpoint_rule",
    "newton_cotes",
    "newton_cotes_closed",
    "newton_cotes_open",
    "radau_left",
    "radau_right",
    "rule_from_nodes",
    "simpson",
    "symmetric_four",
    "three_eighths",
    "trapezoid",
]
