"""Rules on equidistant nodes: Newton-Cotes and its classical members.

Source: P. J. Davis, P. Rabinowitz, *Methods of Numerical Integration*, 2nd ed., 1984, chapter 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from ..checks import check_booleans
from .decimals import mirrored
from .families import even_or_odd, family
from .rule import QuadratureRule

MAX_NEWTON_COTES = 24
"""The largest n of a Newton-Cotes rule: the weights grow like 2**n with alternating signs."""

_NO_DIGITS = (
    "the weights grow like 2**n with alternating signs and leave no digits; "
    "use clenshaw_curtis or gauss_legendre"
)


@family(
    "newton-cotes-closed",
    minimum=2,
    maximum=MAX_NEWTON_COTES,
    degree=even_or_odd,
    too_few="it contains both end points; use newton_cotes(1, closed=False) for a one-point rule",
    too_many=_NO_DIGITS,
)
def newton_cotes_closed(n: int) -> Sequence[Decimal]:
    """Closed Newton-Cotes rule: n >= 2 equidistant nodes ``i / (n - 1)``; see `newton_cotes`."""
    return mirrored([Decimal(i) / (n - 1) for i in range(n // 2)], n)


@family(
    "newton-cotes-open",
    minimum=1,
    maximum=MAX_NEWTON_COTES,
    degree=even_or_odd,
    too_many=_NO_DIGITS,
)
def newton_cotes_open(n: int) -> Sequence[Decimal]:
    """Open Newton-Cotes: n >= 1 equidistant nodes ``(i + 1) / (n + 1)``; see `newton_cotes`."""
    return mirrored([Decimal(i + 1) / (n + 1) for i in range(n // 2)], n)


def newton_cotes(n: int, closed: bool = True) -> QuadratureRule:
    """Newton-Cotes rule on n equidistant nodes; degree n - 1, or n for odd n.

    Args:
        n: number of nodes, 2 to 24 closed, 1 to 24 open.
        closed: True for the nodes ``i / (n - 1)`` (n = 2 trapezoid, 3 Simpson, 4 three eighths,
            5 Boole), False for ``(i + 1) / (n + 1)`` (n = 1 midpoint).

    Raises:
        TypeError: n is no integer, or closed no bool.
        ValueError: n is out of range.

    Warns:
        NegativeWeightsWarning: on every call, for a rule with negative weights (closed n = 9 and
            n >= 11, open n = 3 and n >= 5).
    """
    check_booleans(closed=closed)
    return newton_cotes_closed(n) if closed else newton_cotes_open(n)


def midpoint_rule() -> QuadratureRule:
    """Midpoint rule: node 1/2; degree 1. The open Newton-Cotes rule with one node."""
    return newton_cotes_open(1)


def trapezoid() -> QuadratureRule:
    """Trapezoid: nodes 0, 1, weights 1/2, 1/2; degree 1."""
    return newton_cotes_closed(2)


def simpson() -> QuadratureRule:
    """Simpson's rule: nodes 0, 1/2, 1, weights (1, 4, 1) / 6; degree 3."""
    return newton_cotes_closed(3)


def three_eighths() -> QuadratureRule:
    """Three-eighths rule: nodes 0, 1/3, 2/3, 1, weights (1, 3, 3, 1) / 8; degree 3."""
    return newton_cotes_closed(4)


def boole() -> QuadratureRule:
    """Boole's rule: nodes 0, 1/4, 1/2, 3/4, 1, weights (7, 32, 12, 32, 7) / 90; degree 5."""
    return newton_cotes_closed(5)
