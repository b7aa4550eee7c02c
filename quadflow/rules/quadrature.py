"""Every quadrature rule there is: importing this fills `FAMILIES`.

A family of one's own carries the `family` decorator; one that belongs here is a file beside the
others, imported below.
"""

from .chebyshev import clenshaw_curtis as clenshaw_curtis
from .chebyshev import fejer as fejer
from .chebyshev import fejer_first as fejer_first
from .chebyshev import fejer_second as fejer_second
from .families import FAMILIES as FAMILIES
from .families import MAX_NODES as MAX_NODES
from .families import NegativeWeightsWarning as NegativeWeightsWarning
from .families import family as family
from .from_nodes import rule_from_nodes as rule_from_nodes
from .from_nodes import symmetric_four as symmetric_four
from .gauss import gauss_legendre as gauss_legendre
from .gauss import gauss_lobatto as gauss_lobatto
from .gauss import radau_left as radau_left
from .gauss import radau_right as radau_right
from .newton_cotes import boole as boole
from .newton_cotes import midpoint_rule as midpoint_rule
from .newton_cotes import newton_cotes as newton_cotes
from .newton_cotes import newton_cotes_closed as newton_cotes_closed
from .newton_cotes import newton_cotes_open as newton_cotes_open
from .newton_cotes import simpson as simpson
from .newton_cotes import three_eighths as three_eighths
from .newton_cotes import trapezoid as trapezoid
from .rule import QuadratureRule as QuadratureRule
