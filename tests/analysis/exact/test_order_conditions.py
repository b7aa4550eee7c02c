"""Rooted trees, and every tableau certified by them: step, embedded weights and interpolant."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from quadflow.analysis.exact.methods import full_matrix
from quadflow.analysis.exact.order_conditions import (
    order_conditions,
    rule_assumptions,
    simplifying_assumptions,
)
from quadflow.analysis.exact.trees import (
    all_trees,
    bushy_tree,
    density,
    rooted_trees,
    size,
    symmetry,
    tree_problem,
    tree_text,
)
from quadflow.rules.classical import HEUN, RK4
from quadflow.rules.dop853 import DOPRI8
from quadflow.rules.pairs import DOPRI5, TSIT5
from quadflow.rules.quadrature import FAMILIES

TABLEAUS = {"heun": HEUN, "dopri5": DOPRI5, "tsit5": TSIT5, "dopri8": DOPRI8}


def test_rooted_trees_are_counted_and_measured() -> None:
    """Numbers of trees (OEIS A000081) and the densities of the order-4 conditions."""
    assert [len(rooted_trees(p)) for p in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]
    assert all(size(tree) == 7 for tree in rooted_trees(7))
    assert sorted(density(tree) for tree in rooted_trees(4)) == [4, 8, 12, 24]
    # Cayley: the labellings of all trees of order n, n!/σ each, are n^(n-1) rooted labelled trees
    for n in range(1, 9):
        assert sum(Fraction(math.factorial(n), symmetry(t)) for t in rooted_trees(n)) == n ** (
            n - 1
        )
    assert len(all_trees(10).trees) == 1 + 1 + 2 + 4 + 9 + 20 + 48 + 115 + 286 + 719
    assert bushy_tree(4) == ((), (), ())
    assert tree_text(((), ((),))) == "[*[*]]"


def test_every_tree_comes_after_its_parts() -> None:
    table = all_trees(8)
    for i, tree in enumerate(table.trees):
        if tree:
            assert table.prefix[i] < i and table.last[i] < i
            assert table.trees[table.prefix[i]] == tree[:-1]
            assert table.trees[table.last[i]] == tree[-1]


def test_the_tree_problem_has_the_solution_that_is_claimed() -> None:
    """d/ds of s^ρ/γ is the product over the children, at several times, one state or many."""
    problem = tree_problem(7)
    trees = all_trees(7).trees
    times = torch.tensor([0.3, 1.0, 1.7], dtype=torch.float64)
    states = torch.stack(
        [torch.tensor([float(s) ** size(t) / density(t) for t in trees]).double() for s in times]
    )
    slopes = torch.stack(
        [
            torch.tensor([size(t) * float(s) ** (size(t) - 1) / density(t) for t in trees]).double()
            for s in times
        ]
    )
    assert torch.allclose(problem.f(times[:, None], states), slopes, rtol=1e-6, atol=0)
    for s, y, slope in zip(times, states, slopes, strict=True):
        assert torch.allclose(problem.f(s, y), slope, rtol=1e-6, atol=0)
        generic = problem.rhs(float(s), y.tolist(), math)
        assert torch.allclose(torch.tensor(generic).double(), slope, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "orders"),
    [("heun", [1]), ("dopri5", [4]), ("tsit5", [4]), ("dopri8", [5, 3])],
)
def test_embedded_orders(name: str, orders: list[int]) -> None:
    """In float64, apart from the certificates: the step and the methods embedded in it."""
    tableau = TABLEAUS[name]
    step = order_conditions(full_matrix(tableau), tableau.b, highest=tableau.order + 1)
    assert step.order == tableau.order
    for weights, order in zip(tableau.errors, orders, strict=True):
        embedded = tableau.b - weights[: len(tableau.b)]
        assert order_conditions(full_matrix(tableau), embedded, highest=order + 1).order == order


def test_two_broken_rk4_schemes_do_not_pass() -> None:
    """What linear or autonomous test problems let through is refused by the conditions."""
    wrong_node = np.zeros((4, 4))
    wrong_node[1, 0], wrong_node[2, 1], wrong_node[3, 2] = 0.5, 0.4, 1.0
    assert order_conditions(wrong_node, RK4.b).order < 4
    # right on every linear problem (the tall trees hold), of order 2 on nonlinear ones
    tall_only = np.zeros((4, 4))
    tall_only[1, 0], tall_only[2, 1], tall_only[3, 2] = 1 / 4, 1 / 3, 1 / 2
    weights = np.array([0.0, 0.0, 0.0, 1.0])
    assert order_conditions(tall_only, weights).order == 2
    heights = [weights @ np.linalg.matrix_power(tall_only, k) @ np.ones(4) for k in range(4)]
    assert np.allclose(heights, [1, 1 / 2, 1 / 6, 1 / 24], atol=1e-15)


def test_exact_numbers_stay_exact() -> None:
    """Gauss-2 with sqrt(3) in sympy, and Kutta's method in Fractions: defects are exactly zero."""
    root = sympy.sqrt(3) / 6
    quarter = sympy.Rational(1, 4)
    a = np.array([[quarter, quarter - root], [quarter + root, quarter]], dtype=object)
    b = np.array([sympy.Rational(1, 2)] * 2, dtype=object)
    result = order_conditions(
        np.vectorize(sympy.nsimplify, otypes=[object])(a), b, highest=4, tolerance=1e-40
    )
    assert result.order == 4 and result.failing is None
    third, sixth, half = Fraction(1, 3), Fraction(1, 6), Fraction(1, 2)
    zero, one = Fraction(0), Fraction(1)
    kutta = np.array([[zero] * 4, [half, zero, zero, zero], [zero, half, zero, zero],
                      [zero, zero, one, zero]], dtype=object)  # fmt: skip
    found = order_conditions(kutta, np.array([sixth, third, third, sixth]), highest=5)
    assert found.order == 4 and isinstance(found.defect, Fraction)
    assert found.principal_error == pytest.approx(0.014504, abs=1e-6)  # Hairer, Nørsett & Wanner


@pytest.mark.parametrize(
    ("a", "b", "highest", "message"),
    [
        ([[0.0, 0.0]], [1.0], 4, "a must be a square matrix"),
        ([[0.0]], [1.0, 0.0], 4, r"b must have shape \(1,\)"),
        ([[0.0]], [1.0], 0, "highest must be an order >= 1, got 0"),
    ],
)
def test_order_conditions_refuse(a: object, b: object, highest: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        order_conditions(a, b, highest=highest)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.filterwarnings("ignore::quadflow.NegativeWeightsWarning")
def test_simplifying_assumptions_of_every_family(family: str) -> None:
    """B(d+1), C(n), D(d+1-n), by exact test; the float64 arrays of the rule say the same."""
    info = FAMILIES[family]
    for n in range(info.minimum, 9):
        rule = info.function(n)
        found = rule_assumptions(rule)
        if rule.nodes.any():
            assert (found.b, found.c, found.d) == (rule.degree + 1, n, rule.degree + 1 - n), n
        else:  # with 0 as its only node C(q) says 0 = 0
            assert found.b == 1 and found.c > 1
        assert found.order == rule.degree + 1
        if 1 < n <= 5:
            assert simplifying_assumptions(rule.integration_matrix, rule.weights) == found
