"""Gauss's rules: of the highest degree with no end, one end or both ends among the nodes.

Sources:

P. J. Davis, P. Rabinowitz, *Methods of Numerical Integration*, 2nd ed., 1984, chapter 2.

E. Hairer, S. P. Nørsett, G. Wanner, *Solving Ordinary Differential Equations I*, section II.7.

E. Hairer, G. Wanner, *Solving Ordinary Differential Equations II*, section IV.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from .decimals import gauss_decimals, jacobi_roots, legendre_pair, mirrored, newton
from .families import family


@family("gauss-legendre", minimum=1, degree=lambda n: 2 * n - 1)
def gauss_legendre(n: int) -> Sequence[Decimal]:
    """Gauss-Legendre rule with n nodes, 1 to 128, none at an end; degree 2n - 1, the highest.

    The nodes are the zeros of the shifted Legendre polynomial P_n.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    Sources: Davis & Rabinowitz, chapter 2; Hairer, Nørsett & Wanner, section II.7 (the collocation
    method of order 2n).
    """
    return gauss_decimals(n)[0]


@family(
    "gauss-lobatto",
    minimum=2,
    degree=lambda n: 2 * n - 3,
    too_few="it contains both end points; use gauss_legendre(1) for a one-point rule",
)
def gauss_lobatto(n: int) -> Sequence[Decimal]:
    """Gauss-Lobatto rule with n nodes, 2 to 128, both end points among them; degree 2n - 3.

    The inner nodes are the zeros of P'_{n-1}.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    Sources: Davis & Rabinowitz, chapter 2; Hairer & Wanner, section IV.5 (Lobatto IIIA).
    """

    def step(x: Decimal) -> Decimal:
        # f = P_n - P_{n-2} has all n nodes as simple zeros; f' = (2n - 1) P_{n-1} is never 0 there.
        before, here = legendre_pair(n - 1, x)
        return (x - before / here) / n

    starts = jacobi_roots(n - 2, 1.0, 1.0) if n > 2 else []
    inner = [newton(x, step) for x in starts[: (n - 2) // 2]]
    return mirrored([Decimal(0), *((1 + x) / 2 for x in inner)], n)


def _radau(n: int) -> list[Decimal]:
    """Nodes of the Radau rule that contains 1."""

    def step(x: Decimal) -> Decimal:
        # f = P_n - P_{n-1}; its derivative is n (P_n + P_{n-1}) / (1 + x).
        before, here = legendre_pair(n, x)
        return (1 + x) * (here - before) / (n * (here + before))

    starts = jacobi_roots(n - 1, 1.0, 0.0) if n > 1 else []
    return [*((1 + newton(x, step)) / 2 for x in starts), Decimal(1)]


@family("radau-left", minimum=1, degree=lambda n: 2 * n - 2)
def radau_left(n: int) -> Sequence[Decimal]:
    """Radau rule with n nodes, 1 to 128, the end point 0 among them (Radau I); degree 2n - 2.

    It is the mirror image of `radau_right`.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    Sources: Davis & Rabinowitz, chapter 2; Hairer & Wanner, section IV.5.
    """
    return [1 - c for c in reversed(_radau(n))]


@family("radau-right", minimum=1, degree=lambda n: 2 * n - 2)
def radau_right(n: int) -> Sequence[Decimal]:
    """Radau rule with n nodes, 1 to 128, the end point 1 among them (Radau II); degree 2n - 2.

    The nodes are the zeros of P_n - P_{n-1}. The integration matrix is the tableau of Radau IIA.

    Raises:
        TypeError: n is no integer.
        ValueError: n is out of range.

    Source: Hairer & Wanner, section IV.5.
    """
    return _radau(n)
