"""Every family of quadrature rules: importing this fills `FAMILIES`.

A family of one's own carries the `family` decorator; one that belongs here is a file beside the
others, imported below.
"""

from . import chebyshev, gauss, newton_cotes  # noqa: F401
from .families import FAMILIES as FAMILIES
