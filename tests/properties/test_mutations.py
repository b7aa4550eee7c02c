"""Faults are planted in nodes, weights, matrices, tableaus and interpolants: all must be caught.

Every fault is one number changed by a little over 1e-6. A fault is caught when the certificate that
CI runs on the sound object (exactness, order conditions, or the object's own check) refuses it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_order_conditions import (
    EMBEDDED_ORDERS,
    TABLEAUS,
    certify,
    certify_embedded,
    certify_interpolant,
)

import quadflow as qf
from quadflow import interpolation
from quadflow.quadrature import FAMILIES
from quadflow.tableaus import Tableau

FAULT = 1.5e-6
RNG = np.random.default_rng(20261124)
LOCAL_DENSE = {"midpoint": 2, "heun": 2, "rk4": 3, "dopri5": 4, "tsit5": 4, "dopri8": 7}


def unchecked(rule: qf.QuadratureRule, **arrays: np.ndarray) -> qf.QuadratureRule:
    """A copy of the rule that has skipped its own checks."""
    copy = object.__new__(qf.QuadratureRule)
    for field in dataclasses.fields(rule):
        object.__setattr__(copy, field.name, arrays.get(field.name, getattr(rule, field.name)))
    return copy


def certify_rule(rule: qf.QuadratureRule) -> None:
    """Through the solver: y' = P_k(t) is integrated exactly for k <= d, and so is every node.

    The integration matrix is seen by one sweep of y1' = y2, y2' = P_k(t): its y1 at the end is the
    double integral, which b A P_k gives exactly while the degree allows; and, entry by entry, by
    the node states of the segment.
    """
    method = qf.collocation(rule, 1)
    shift = np.polynomial.Legendre.basis
    for k in range(rule.degree + 1):
        poly = shift(k, domain=[0, 1])

        def f(t: torch.Tensor, y: torch.Tensor, poly=poly) -> torch.Tensor:
            values = torch.as_tensor(poly(t.numpy())).reshape(t.shape)
            return values.expand(y.shape) + 0 * y

        y0 = torch.zeros(1, dtype=torch.float64)
        solution = qf.solve(f, y0, (0.0, 1.0), method=method, grid=[0.0, 1.0],
                            node_evaluation="broadcast")  # fmt: skip
        assert abs(float(solution.y[-1, 0]) - (k == 0)) < 1e-12
    # the matrix: a state per node, each integrating its own Lagrange polynomial up to that node
    for k in range(rule.n):
        poly = shift(k, domain=[0, 1])
        got = rule.integration_matrix @ poly(rule.nodes)
        assert np.abs(got - poly.integ(lbnd=0)(rule.nodes)).max() < 1e-12


RULES = [("gauss-legendre", 4), ("gauss-lobatto", 4), ("radau-right", 3), ("clenshaw-curtis", 5),
         ("fejer-1", 3), ("newton-cotes-closed", 4)]  # fmt: skip


@pytest.mark.parametrize(("family", "n"), RULES)
def test_every_entry_of_a_rule_matters(family: str, n: int) -> None:
    """All nodes, all weights and all matrix entries, one by one, both certificates."""
    rule = FAMILIES[family].function(n)
    certify_rule(rule)
    missed = []
    for name in ("nodes", "weights", "integration_matrix"):
        array = getattr(rule, name)
        for index in np.ndindex(array.shape):
            wrong = array.copy()
            wrong[index] += FAULT if wrong[index] < 0.5 else -FAULT
            corrupt = unchecked(rule, **{name: wrong})
            if not caught(lambda corrupt=corrupt: certify_rule(corrupt)):
                missed.append((name, index))
            with pytest.raises(ValueError):  # and the rule itself refuses to be made
                dataclasses.replace(rule, **{name: wrong})
    assert missed == []


def caught(certificate: Callable[[], None]) -> bool:
    try:
        certificate()
    except AssertionError:
        return True
    return False


def with_fault(tableau: Tableau, field: str, index: tuple[int, ...]) -> Tableau:
    """A copy with one number changed that has skipped its own checks."""
    copy = object.__new__(Tableau)
    for entry in dataclasses.fields(tableau):
        object.__setattr__(copy, entry.name, getattr(tableau, entry.name))
    if field in ("b", "dense"):
        wrong = getattr(tableau, field).copy()
        wrong[index] += FAULT
        object.__setattr__(copy, field, wrong)
    elif field == "errors":
        rows = [row.copy() for row in tableau.errors]
        rows[index[0]][index[1]] += FAULT
        object.__setattr__(copy, "errors", tuple(rows))
    else:
        rows_a = [list(row) for row in tableau.a]
        rows_a[index[0]][index[1]] += FAULT
        object.__setattr__(copy, "a", tuple(tuple(row) for row in rows_a))
    return copy


def certify_all(name: str, tableau: Tableau) -> None:
    certify(tableau, TABLEAUS[name].order)
    if name in EMBEDDED_ORDERS:
        certify_embedded(tableau, EMBEDDED_ORDERS[name])
    certify_interpolant(tableau, LOCAL_DENSE[name])


@pytest.mark.parametrize("name", TABLEAUS)
def test_faults_in_tableaus_are_caught(name: str) -> None:
    """A sample over a, b, error weights and interpolant of every tableau."""
    tableau = TABLEAUS[name]
    certify_all(name, tableau)
    places: list[tuple[str, tuple[int, ...]]] = []
    places += [("a", (i, j)) for i, row in enumerate(tableau.a) for j in range(len(row))]
    places += [("b", (i,)) for i in range(len(tableau.b))]
    places += [("dense", i) for i in np.ndindex(tableau.dense.shape)]
    places += [("errors", (r, i)) for r, row in enumerate(tableau.errors) for i in range(len(row))]
    sample = RNG.permutation(len(places))[:12]
    missed = [
        places[i]
        for i in sample
        if not caught(lambda i=i: certify_all(name, with_fault(tableau, *places[i])))
    ]
    assert missed == []


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("correction", [None, "PEC", "PECE"])
def test_faults_in_the_interpolant_are_caught(
    k: int, correction: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adams methods integrate polynomials of degree < k (corrected: <= k) exactly; a wrong entry of
    the interpolation matrix does not."""
    degree = k - (correction is None)
    method = qf.adams(k, correction, startup="dopri5")

    def certificate() -> None:
        for power in range(1, degree + 1):

            def f(t: torch.Tensor, y: torch.Tensor, power=power) -> torch.Tensor:
                return (power + 1) * t**power + 0 * y

            grid = np.concatenate((np.linspace(0, 0.5, 6), [0.63, 0.7, 0.85, 1.0]))
            y0 = torch.zeros(1, dtype=torch.float64)
            end = qf.solve(f, y0, (0.0, 1.0), method=method, grid=grid).y[-1]
            assert abs(float(end) - 1) < 1e-12

    certificate()
    sound = interpolation.lagrange_matrix
    for _ in range(4):
        row, column = RNG.integers(0, len(method.rule.nodes)), RNG.integers(0, k)

        def corrupt(nodes, points, row=row, column=column):
            matrix = sound(nodes, points).copy()
            matrix[row, min(column, matrix.shape[1] - 1)] += FAULT
            return matrix

        monkeypatch.setattr(interpolation, "lagrange_matrix", corrupt)
        assert caught(certificate), (row, column)
