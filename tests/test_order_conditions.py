"""Rooted trees, and every tableau certified by them: step, embedded weights and interpolant."""

from __future__ import annotations

import numpy as np
import pytest

import quadflow as qf
from quadflow.analysis.order_conditions import (
    density,
    full_matrix,
    order_conditions,
    rooted_trees,
    size,
)
from quadflow.tableaus import DOPRI5, DOPRI8, HEUN, MIDPOINT, RK4, TSIT5, Tableau

TABLEAUS = {"midpoint": MIDPOINT, "heun": HEUN, "rk4": RK4, "dopri5": DOPRI5, "tsit5": TSIT5,
            "dopri8": DOPRI8}  # fmt: skip
EMBEDDED_ORDERS = {"heun": [1], "dopri5": [4], "tsit5": [4], "dopri8": [5, 3]}


def test_rooted_trees_are_counted_and_measured() -> None:
    """Numbers of trees (OEIS A000081) and the densities of the order-4 conditions."""
    assert [len(rooted_trees(p)) for p in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]
    assert all(size(tree) == 7 for tree in rooted_trees(7))
    assert sorted(density(tree) for tree in rooted_trees(4)) == [4, 8, 12, 24]


def certify(tableau: Tableau, order: int) -> None:
    result = order_conditions(full_matrix(tableau), tableau.b, highest=order + 1)
    assert result.order == order, result


@pytest.mark.parametrize("name", TABLEAUS)
def test_the_declared_order_is_exact(name: str) -> None:
    certify(TABLEAUS[name], TABLEAUS[name].order)


def certify_embedded(tableau: Tableau, orders: list[int]) -> None:
    assert len(tableau.errors) == len(orders)
    for weights, order in zip(tableau.errors, orders, strict=True):
        embedded = tableau.b - weights[: len(tableau.b)]
        result = order_conditions(full_matrix(tableau), embedded, highest=order + 1)
        assert result.order == order, result


@pytest.mark.parametrize("name", EMBEDDED_ORDERS)
def test_embedded_orders(name: str) -> None:
    certify_embedded(TABLEAUS[name], EMBEDDED_ORDERS[name])


def certify_interpolant(tableau: Tableau, local: int) -> None:
    matrix = full_matrix(tableau, interpolant=True)
    powers = np.arange(1, tableau.dense.shape[1] + 1)
    for theta in (0.21, 0.5, 0.83):
        weights = tableau.dense @ theta**powers
        result = order_conditions(matrix, weights, theta=theta, highest=local + 1)
        assert result.order == local, result


@pytest.mark.parametrize(
    ("name", "local"),
    [("midpoint", 2), ("heun", 2), ("rk4", 3), ("dopri5", 4), ("tsit5", 4), ("dopri8", 7)],
)
def test_interpolants(name: str, local: int) -> None:
    """Order of the interpolant within a step; its error O(h^(local+1)) does not accumulate."""
    tableau = TABLEAUS[name]
    certify_interpolant(tableau, local)
    assert tableau.dense_order == min(tableau.order, local + 1)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("sweeps", [1, 2, 3, 5])
def test_sweeps_are_runge_kutta_methods_of_the_declared_order(n: int, sweeps: int) -> None:
    """K sweeps as the explicit tableau they are: order min(K+1, d+1), by the conditions."""
    rule = qf.gauss_legendre(n)
    stages = 1 + n * sweeps
    a = np.zeros((stages, stages))
    for k in range(sweeps):
        rows = slice(1 + n * k, 1 + n * (k + 1))
        if k == 0:
            a[rows, 0] = rule.nodes
        else:
            a[rows, 1 + n * (k - 1) : 1 + n * k] = rule.integration_matrix
    b = np.zeros(stages)
    b[-n:] = rule.weights
    declared = qf.collocation(rule, sweeps).order
    assert declared is not None
    assert order_conditions(a, b, highest=declared + 1).order == declared


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
