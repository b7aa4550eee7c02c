"""Rooted trees: what order conditions are about."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, TypeVar

import numpy as np
import torch

from ..problems.problem import Problem

Tree = tuple["Tree", ...]
"""A rooted tree: the tuple of the trees that hang from its root; () is one vertex."""

Value = TypeVar("Value")


@functools.cache
def rooted_trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with `order` vertices: 1, 1, 2, 4, 9, 20, 48, 115, 286, 719, 1842, ...

    Source: OEIS A000081.
    """

    def forests(vertices: int, largest: int) -> Iterator[tuple[Tree, ...]]:
        if vertices == 0:
            yield ()
        for size in range(min(vertices, largest), 0, -1):
            for count in range(1, vertices // size + 1):
                for group in combinations_with_replacement(rooted_trees(size), count):
                    for rest in forests(vertices - size * count, size - 1):
                        yield group + rest

    return ((),) if order == 1 else tuple(forests(order - 1, order - 1))


@functools.cache
def size(tree: Tree) -> int:
    """Number of vertices, ρ(t)."""
    return 1 + sum(size(child) for child in tree)


@functools.cache
def density(tree: Tree) -> int:
    """γ(t): the product of the sizes of all subtrees."""
    return size(tree) * math.prod(density(child) for child in tree)


@functools.cache
def symmetry(tree: Tree) -> int:
    """σ(t): the number of ways to map the tree onto itself."""
    product = math.prod(symmetry(child) for child in tree)
    for child in set(tree):
        product *= math.factorial(tree.count(child))
    return product


def tree_text(tree: Tree) -> str:
    """The tree in brackets, * for a leaf: [*[*]] is a root with a leaf and a chain of two."""
    return "[" + "".join(tree_text(child) for child in tree) + "]" if tree else "*"


def bushy_tree(order: int) -> Tree:
    """A root with order - 1 leaves: what pure quadrature sees."""
    return ((),) * (order - 1)


@dataclass(frozen=True)
class TreeTable:
    """Trees listed so that each comes after its parts.

    trees: the first is (). prefix, last: tree i > 0 is tree prefix[i] with tree last[i] hung from
    its root once more.
    """

    trees: tuple[Tree, ...]
    prefix: tuple[int, ...]
    last: tuple[int, ...]

    def products(
        self, one: Value, integrated: Sequence[Value], multiply: Callable[[Value, Value], Value]
    ) -> list[Value]:
        """What f makes of B-series: Π over the children of integrated[child], for every tree."""
        values = [one]
        for i in range(1, len(self.trees)):
            values.append(multiply(values[self.prefix[i]], integrated[self.last[i]]))
        return values

    def elementary(
        self, one: Value, integrate: Callable[[Value], Value],
        multiply: Callable[[Value, Value], Value],
    ) -> list[Value]:  # fmt: skip
        """Φ(t) = Π over the children of A Φ(child), for every tree: the stages of an RK method."""
        values, integrated = [one], [integrate(one)]
        for i in range(1, len(self.trees)):
            values.append(multiply(values[self.prefix[i]], integrated[self.last[i]]))
            integrated.append(integrate(values[i]))
        return values


def _table(trees: Iterable[Tree]) -> TreeTable:
    ordered = tuple(trees)
    place = {tree: i for i, tree in enumerate(ordered)}
    prefix = tuple(place[tree[:-1]] if tree else 0 for tree in ordered)
    last = tuple(place[tree[-1]] if tree else 0 for tree in ordered)
    return TreeTable(ordered, prefix, last)


@functools.cache
def all_trees(highest: int) -> TreeTable:
    """Every tree of order 1, ..., highest."""
    return _table(tree for p in range(1, highest + 1) for tree in rooted_trees(p))


@functools.cache
def parts_of(*trees: Tree) -> TreeTable:
    """The given trees with all that they are built of."""
    found: set[Tree] = set()

    def collect(tree: Tree) -> None:
        if tree not in found:
            found.add(tree)
            if tree:
                collect(tree[:-1])
                collect(tree[-1])

    for tree in trees:
        collect(tree)
    return _table(sorted(found, key=lambda t: (size(t), len(t))))


def tree_problem(highest: int, span: float = 1.0) -> Problem:
    """The initial value problem that has every order condition as one component of its solution.

    y_t' = Π over the children c of t of y_c, y_t(0) = 0, one component for every tree t up to order
    `highest`; exact: y_t(s) = s^ρ(t) / γ(t). One step of size 1 of a Runge-Kutta method gives its
    elementary weight b·Φ(t), so a solver that is only known by what it returns has order p exactly
    if the first failing component belongs to a tree of order p+1. One leaf of every tree that has
    any reads the time instead of the component s = y_*(s), so that wrong nodes show as well.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, section II.2 (the elementary differentials are
    independent); Butcher, Numerical Methods for ODEs, section 31.
    """
    table = all_trees(highest)
    place = {tree: i for i, tree in enumerate(table.trees)}
    width = max(len(tree) for tree in table.trees)
    rows = []
    for tree in table.trees:  # index 0 is the number 1, 1 is the time
        row = [place[child] + 2 for child in tree]
        if () in tree:
            row[tree.index(())] = 1
        rows.append(row + [0] * (width - len(row)))
    indices = {True: torch.tensor(rows), False: np.array(rows)}

    def vector(t: Any, y: Any, m: Any) -> Any:  # torch, numpy or jax.numpy
        if getattr(t, "ndim", 0) and t.ndim < y.ndim:
            t = t[..., None]
        ones = m.ones_like(y[..., :1])
        return m.concatenate((ones, ones * t, y), -1)[..., indices[m is torch]].prod(-1)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        known = (1, t, *y)
        return [math.prod(known[i] for i in row) for row in rows]

    return Problem(
        f"trees-{highest}",
        "y_t' = product of y_c over the children c of the tree t",
        "Butcher, Numerical Methods for Ordinary Differential Equations, section 31",
        rhs,
        torch.zeros(len(table.trees), dtype=torch.float64),
        (0.0, span),
        torch.tensor([span ** size(t) / density(t) for t in table.trees], dtype=torch.float64),
        vector=vector,
    )
