"""Reference quadrature rules in mpmath, independent of `quadflow.rules.quadrature`.

Nothing is shared with the code under test: roots come from a secant iteration in mpmath, weights
and integration matrices from coefficients in the monomial basis, with the digits that basis costs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
from mpmath import mp, mpf

Rule = tuple[list[mpf], list[mpf], list[list[mpf]]]


def _legendre(n: int, x: mpf) -> list[mpf]:
    values = [mpf(1), x]
    for k in range(1, n):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
    return values


def _roots(function: Callable[[mpf], mpf], starts: list[float]) -> list[mpf]:
    roots = []
    for start in starts:
        old, new = mpf(start), mpf(start) + mpf("1e-13")
        f_old, f_new = function(old), function(new)
        for _ in range(50):
            if f_new == f_old:
                break
            old, new, f_old = new, new - f_new * (new - old) / (f_new - f_old), f_new
            f_new = function(new)
            # The digits grow by 1.6 a step, so at least 0.8 dps of them are right.
            if abs(new - old) < mpf(10) ** (-(mp.dps // 2)):
                break
        roots.append(new)
    assert all(a < b for a, b in pairwise(roots)), "roots must be distinct"
    return roots


def _series_roots(series: list[float]) -> list[float]:
    """Approximate roots of a float64 Legendre series, ascending."""
    return sorted(np.polynomial.legendre.legroots(series).real.tolist())


def _gauss_legendre(n: int) -> list[mpf]:
    return _roots(lambda x: _legendre(n, x)[n], _series_roots([0.0] * n + [1.0]))


def _gauss_lobatto(n: int) -> list[mpf]:
    def derivative(x: mpf) -> mpf:
        values = _legendre(n - 1, x)
        return (n - 1) * (values[n - 2] - x * values[n - 1]) / (1 - x * x)

    series = np.polynomial.legendre.legder([0.0] * (n - 1) + [1.0]).tolist()
    inner = _roots(derivative, _series_roots(series)) if n > 2 else []
    return [mpf(-1), *inner, mpf(1)]


def _radau_left(n: int) -> list[mpf]:
    def quotient(x: mpf) -> mpf:
        values = _legendre(n, x)
        return (values[n - 1] + values[n]) / (1 + x)

    inner = _roots(quotient, _series_roots([0.0] * (n - 1) + [1.0, 1.0])[1:]) if n > 1 else []
    return [mpf(-1), *inner]


NODES: dict[str, Callable[[int], list[mpf]]] = {
    "gauss-legendre": _gauss_legendre,
    "gauss-lobatto": _gauss_lobatto,
    "radau-left": _radau_left,
    "clenshaw-curtis": lambda n: [-mp.cos(mp.pi * i / (n - 1)) for i in range(n)],
    "fejer-1": lambda n: [-mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)],
    "fejer-2": lambda n: [-mp.cos(mp.pi * (i + 1) / (n + 1)) for i in range(n)],
    "newton-cotes-closed": lambda n: [mpf(2 * i) / (n - 1) - 1 for i in range(n)],
    "newton-cotes-open": lambda n: [mpf(2 * (i + 1)) / (n + 1) - 1 for i in range(n)],
}
"""Nodes on [-1, 1] by family; radau-right is the mirror image of radau-left."""


def _integrals(nodes: list[mpf]) -> tuple[list[mpf], list[list[mpf]]]:
    """Weights and matrix, both for [0, 1], of nodes on [-1, 1], by polynomial coefficients."""
    n = len(nodes)
    product = [mpf(1)]  # coefficients of prod (x - c_j), highest first
    for c in nodes:
        shifted = [*product, mpf(0)]
        for i, value in enumerate(product):
            shifted[i + 1] -= c * value
        product = shifted
    powers = []  # integrals of x**k from -1 to every node and to 1, halved: [0, 1] is half as long
    for x in [*nodes, mpf(1)]:
        power, row = mpf(1), []
        for k in range(1, n + 1):
            power *= x
            row.append((power - (-1) ** k) / (2 * k))
        powers.append(row)
    columns = []
    for c in nodes:
        quotient = [product[0]]  # synthetic division by x - c, then scaled to 1 at c
        for value in product[1:-1]:
            quotient.append(value + c * quotient[-1])
        at_node = mp.polyval(quotient, c)
        ascending = [value / at_node for value in reversed(quotient)]
        columns.append([mp.fdot(ascending, row) for row in powers])
    rows = [[column[i] for column in columns] for i in range(n + 1)]
    return rows[n], rows[:n]


@cache
def reference_rule(family: str, n: int) -> Rule:
    """Nodes on [0, 1], weights and integration matrix of a family, good to 50 digits.

    Parameters
    ----------
    family : str
        A name in `quadflow.rules.quadrature.FAMILIES`.
    n : int
        Number of nodes.

    Returns
    -------
    tuple
        Lists of mpmath numbers: nodes (n), weights (n), matrix (n rows of n).
    """
    with mp.workdps(60 + n + 10):  # the monomial basis on [-1, 1] loses less than one digit a node
        if family == "radau-right":  # the mirror image
            nodes, weights, matrix = reference_rule("radau-left", n)
            mirrored = [
                [b - a for b, a in zip(weights[::-1], row[::-1], strict=True)]
                for row in matrix[::-1]
            ]
            return [1 - c for c in nodes[::-1]], weights[::-1], mirrored
        nodes = NODES[family](n)
        weights, matrix = _integrals(nodes)
        return [(1 + x) / 2 for x in nodes], weights, matrix
