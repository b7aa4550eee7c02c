"""Order conditions of Runge-Kutta methods by rooted trees."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from quadflow.tableaus import Tableau

Tree = tuple["Tree", ...]
"""A rooted tree: the (sorted) tuple of the trees that hang from its root; () is one vertex."""


@functools.cache
def rooted_trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with `order` vertices (1, 1, 2, 4, 9, 20, 48, 115 of order 1 to 8)."""

    def forests(vertices: int, largest: int) -> Iterator[tuple[Tree, ...]]:
        if vertices == 0:
            yield ()
        for size in range(min(vertices, largest), 0, -1):
            for count in range(1, vertices // size + 1):
                for group in combinations_with_replacement(rooted_trees(size), count):
                    for rest in forests(vertices - size * count, size - 1):
                        yield group + rest

    return ((),) if order == 1 else tuple(forests(order - 1, order - 1))


def size(tree: Tree) -> int:
    """Number of vertices."""
    return 1 + sum(size(child) for child in tree)


def density(tree: Tree) -> int:
    """γ(t): the product of the sizes of all subtrees."""
    product = size(tree)
    for child in tree:
        product *= density(child)
    return product


def stage_weights(tree: Tree, a: np.ndarray) -> np.ndarray:
    """The vector whose product with b is the elementary weight of the tree: (s,)."""
    product = np.ones(len(a))
    for child in tree:
        product = product * (a @ stage_weights(child, a))
    return product


@dataclass(frozen=True)
class OrderConditions:
    """order: the largest p up to which all conditions hold. failing: the first tree that does not,
    with its defect b·Φ(t) - θ^ρ/γ(t)."""

    order: int
    failing: Tree | None
    defect: float


def full_matrix(tableau: Tableau, *, interpolant: bool = False) -> np.ndarray:
    """The matrix A of a tableau; with the rows of its interpolant's stages if asked."""
    rows: list[tuple[float, ...]] = list(tableau.a)
    if interpolant:
        if not tableau.first_same_as_last:
            rows.append(tuple(tableau.b.tolist()))
        rows += [row for _, row in tableau.extra]
    matrix = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        matrix[i, : len(row)] = row
    return matrix


def order_conditions(
    a: np.ndarray,
    b: np.ndarray,
    *,
    theta: float = 1.0,
    highest: int = 8,
    tolerance: float = 1e-12,
) -> OrderConditions:
    """Check Σ_i b_i Φ_i(t) = θ^ρ(t) / γ(t) over all trees of order 1, 2, ... up to `highest`.

    Args:
        a: (s, s) matrix, its row sums being the nodes. b: (s,) weights, or the weights of an
            interpolant at theta.
        tolerance: what a defect may be; the conditions are evaluated in float64.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, section II.2, theorem 2.13.
    """
    for order in range(1, highest + 1):
        for tree in rooted_trees(order):
            defect = float(b @ stage_weights(tree, a)) - theta**order / density(tree)
            if abs(defect) > tolerance:
                return OrderConditions(order - 1, tree, defect)
    return OrderConditions(highest, None, 0.0)
