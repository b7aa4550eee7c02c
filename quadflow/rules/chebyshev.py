"""Rules on Chebyshev points: Clenshaw-Curtis and Fejér, all of whose weights are positive.

Sources:

P. J. Davis, P. Rabinowitz, *Methods of Numerical Integration*, 2nd ed., 1984, chapter 2.

L. N. Trefethen, "Is Gauss quadrature better than Clenshaw-Curtis?", SIAM Review 50 (2008).

J. Waldvogel, "Fast construction of the Fejér and Clenshaw-Curtis quadrature rules", BIT 46 (2006).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from ..checks import as_integer
from .decimals import mirrored
from .families import even_or_odd, family
from .rule import QuadratureRule

_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640629")


def _cosine_node(numerator: int, denominator: int) -> Decimal:
    """(1 - cos(pi numerator / denominator)) / 2 as a squared sine: small nodes stay accurate."""
    angle = _PI * numerator / (2 * denominator)
    square = angle * angle
    term = total = angle
    k = 1
    while abs(term) > Decimal("1e-65"):
        term *= -square / ((k + 1) * (k + 2))
        total += term
        k += 2
    return total * total


@family(
    "clenshaw-curtis",
    minimum=2,
    degree=even_or_odd,
    too_few="it contains both end points; use midpoint_rule() for a one-point rule",
)
def clenshaw_curtis(n: int) -> Sequence[Decimal]:
    """Clenshaw-Curtis rule on n Chebyshev extreme points, 2 to 128; degree n - 1, or n for odd n.

    The nodes are ``(1 - cos(pi i / (n - 1))) / 2``, both end points among them.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    Sources: Davis & Rabinowitz, chapter 2; Trefethen 2008.
    """
    return mirrored([_cosine_node(i, n - 1) for i in range(n // 2)], n)


@family("fejer-1", minimum=1, degree=even_or_odd)
def fejer_first(n: int) -> Sequence[Decimal]:
    """Fejér's first rule, on n Chebyshev zeros, 1 to 128; degree n - 1, or n for odd n.

    The nodes are ``(1 - cos(pi (2i + 1) / (2n))) / 2``, none of them an end point.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    Source: Waldvogel 2006.
    """
    return mirrored([_cosine_node(2 * i + 1, 2 * n) for i in range(n // 2)], n)


@family("fejer-2", minimum=1, degree=even_or_odd)
def fejer_second(n: int) -> Sequence[Decimal]:
    """Fejér's second rule, on n inner Chebyshev extreme points, 1 to 128; degree n - 1, or n for
    odd n.

    The nodes are ``(1 - cos(pi i / (n + 1))) / 2`` for i = 1..n, none of them an end point.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    Source: Waldvogel 2006.
    """
    return mirrored([_cosine_node(i + 1, n + 1) for i in range(n // 2)], n)


def fejer(n: int, kind: int = 1) -> QuadratureRule:
    """Fejér's first (Chebyshev zeros) or second (inner extreme points) rule with n nodes.

    Args:
        n: number of nodes, 1 to 128.
        kind: 1 for `fejer_first`, 2 for `fejer_second`.

    Raises:
        TypeError: n or kind is no integer.
        ValueError: n is out of range, or kind neither 1 nor 2.
    """
    kind = as_integer(kind, "fejer: kind")
    if kind not in (1, 2):
        raise ValueError(
            f"fejer: kind must be 1 (Chebyshev zeros) or 2 (inner extreme points), got {kind}"
        )
    return fejer_first(n) if kind == 1 else fejer_second(n)
