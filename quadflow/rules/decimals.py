"""Nodes, weights and integrals of Lagrange bases in decimal arithmetic of 60 digits.

Rules are generated here once and rounded to float64 at the end: their numbers are correct to the
last digit for every family and every n, on any machine, with nothing depending on the width of
``long double``.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import cache

from .rule import Array, read_only

_HALF = Decimal("0.5")


def digits() -> AbstractContextManager[decimal.Context]:
    """A decimal context of 60 digits that owes nothing to the caller's context."""
    return decimal.localcontext(
        decimal.Context(
            prec=60,
            rounding=decimal.ROUND_HALF_EVEN,
            Emin=-999_999,
            Emax=999_999,
            traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
        )
    )


def legendre_pair(n: int, x: Decimal) -> tuple[Decimal, Decimal]:
    """P_{n-1}(x) and P_n(x) on [-1, 1], for n >= 1."""
    before, here = Decimal(1), x
    for k in range(1, n):
        before, here = here, ((2 * k + 1) * x * here - k * before) / (k + 1)
    return before, here


def newton(start: float, step: Callable[[Decimal], Decimal]) -> Decimal:
    """Polish a float64 root with steps f/f'; each doubles the digits, so two or three suffice."""
    x = Decimal(start)
    for _ in range(20):
        correction = step(x)
        x -= correction
        if abs(correction) < Decimal("1e-25"):  # what is left is the square of it
            return x
    raise RuntimeError(f"quadrature node near {start!r} did not converge")  # pragma: no cover


def mirrored(lower: Sequence[Decimal], n: int) -> list[Decimal]:
    """Complete the nodes below 1/2 to the n symmetric ones, with 1/2 itself exact."""
    half = list(lower)[: n // 2]
    return half + [_HALF] * (n % 2) + [1 - c for c in reversed(half)]


def jacobi_roots(n: int, alpha: float, beta: float) -> list[float]:
    """Float64 zeros of a Jacobi polynomial, ascending: where Newton's iteration starts."""
    from scipy.special import roots_jacobi  # here, since it triples the time of `import quadflow`

    return sorted(roots_jacobi(n, alpha, beta)[0].tolist())


@cache
def gauss_decimals(n: int) -> tuple[tuple[Decimal, ...], tuple[Decimal, ...]]:
    """Gauss-Legendre nodes and weights on [0, 1]."""

    def step(x: Decimal) -> Decimal:
        before, here = legendre_pair(n, x)
        return here * (1 - x * x) / (n * (before - x * here))

    with digits():
        starts = jacobi_roots(n, 0.0, 0.0)[: (n + 1) // 2]
        roots = [
            Decimal(0) if n % 2 and i == n // 2 else newton(x, step) for i, x in enumerate(starts)
        ]
        weights = []
        for x in roots:
            before, here = legendre_pair(n, x)
            slope = n * (before - x * here) / (1 - x * x)
            weights.append(1 / ((1 - x * x) * slope * slope))
        nodes = mirrored([(1 + x) / 2 for x in roots], n)
    return tuple(nodes), (*weights, *weights[: n // 2][::-1])


@cache
def gauss_arrays(n: int) -> tuple[Array, Array]:
    """The n-point Gauss-Legendre rule on [0, 1] as float64 arrays, cached."""
    nodes, weights = gauss_decimals(n)
    return (
        read_only([float(c) for c in nodes], "nodes"),
        read_only([float(b) for b in weights], "weights"),
    )


def _basis_integrals(nodes: Sequence[Decimal], uppers: Sequence[Decimal]) -> list[list[Decimal]]:
    """Integrals of every Lagrange basis polynomial from 0 to each upper limit, as decimals.

    Gauss's rule with half as many points is exact for them. The basis is evaluated as barycentric
    weight times the products to the left and to the right of its node: no division, so no special
    case at a node.
    """
    n = len(nodes)
    scale = []
    for j, c in enumerate(nodes):
        product = Decimal(1)
        for k, other in enumerate(nodes):
            if k != j:
                product *= c - other
        scale.append(1 / product)
    points, point_weights = gauss_decimals((n + 1) // 2)
    rows = []
    for upper in uppers:
        row = [Decimal(0)] * n
        if upper:
            for point, weight in zip(points, point_weights, strict=True):
                x = upper * point
                factors = [x - c for c in nodes]
                left = weight * upper
                lefts = []
                for factor in factors:
                    lefts.append(left)
                    left *= factor
                right = Decimal(1)
                for j in range(n - 1, -1, -1):
                    row[j] += lefts[j] * right
                    right *= factors[j]
        rows.append([value * s for value, s in zip(row, scale, strict=True)])
    return rows


def weights_and_matrix(
    nodes: Sequence[Decimal],
) -> tuple[list[Decimal], list[list[Decimal]]]:
    """Interpolatory weights and integration matrix; exactly symmetric where the nodes are."""
    n = len(nodes)
    symmetric = all(
        abs(c + d - 1) < Decimal("1e-50") for c, d in zip(nodes, reversed(nodes), strict=True)
    )
    rows = (n + 1) // 2 if symmetric else n
    *matrix, weights = _basis_integrals(nodes, [*nodes[:rows], Decimal(1)])
    if symmetric:
        weights = weights[:rows] + weights[: n // 2][::-1]
        for row in reversed(matrix[: n // 2]):  # from c_i to 1 is from 0 to 1 - c_i in the mirror
            matrix.append([b - a for b, a in zip(weights, reversed(row), strict=True)])
    return weights, matrix
