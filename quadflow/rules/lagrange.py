"""The Lagrange basis on any nodes, in float64: what one step of a multistep method calls.

Sources:

J.-P. Berrut, L. N. Trefethen, "Barycentric Lagrange interpolation", SIAM Review 46 (2004).

N. J. Higham, "The numerical stability of barycentric Lagrange interpolation", IMA Journal of
Numerical Analysis 24 (2004).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .decimals import gauss_arrays
from .families import MAX_NODES
from .rule import Array

FORMULAS = ("_basis_values", "lagrange_integrals")
"""Functions with formulas of a step, in which the laboratory plants faults."""


def _scaled_weights(nodes: Array) -> tuple[float, Array]:
    """The factor s = 4 / (max - min), and the barycentric weights of s times the nodes."""
    n = nodes.size
    if n == 1:
        if not np.isfinite(nodes[0]):
            raise ValueError(f"nodes must be finite, node 0 is {nodes[0].item()!r}")
        return 1.0, np.ones(1)
    span = float(nodes.max() - nodes.min())
    # `not (0 < span < inf)` is also true of NaN, so one comparison keeps the common case lean.
    if not 0.0 < span < np.inf:
        _refuse(nodes)
    scale = 4.0 / span
    if scale == np.inf:
        _refuse(nodes)
    differences = (nodes[:, None] - nodes) * scale
    differences.flat[:: n + 1] = 1.0
    products = differences.prod(axis=1)
    if not products.all():
        _refuse(nodes)
    return scale, 1.0 / products


def _refuse(nodes: Array) -> None:
    """Raise the error that says what is wrong with the nodes."""
    if not np.isfinite(nodes).all():
        i = int(np.argmin(np.isfinite(nodes)))
        raise ValueError(f"nodes must be finite, node {i} is {nodes[i].item()!r}")
    order = np.argsort(nodes, kind="stable")
    gap = int(np.argmin(np.diff(nodes[order])))
    i, j = sorted((int(order[gap]), int(order[gap + 1])))
    raise ValueError(
        f"nodes must be distinct, nodes {i} and {j} are {nodes[i].item()!r} and "
        f"{nodes[j].item()!r}: duplicate, or too close for {nodes.size} nodes in float64"
    )


def _vector(values: ArrayLike, what: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or (what == "nodes" and array.size == 0):
        raise ValueError(
            f"{what} must be one-dimensional{' and not empty' * (what == 'nodes')}, "
            f"got shape {array.shape}"
        )
    return array


def barycentric_weights(nodes: ArrayLike) -> Array:
    """Barycentric weights (n,) of distinct nodes anywhere on the real line.

    They are ``1 / prod_{k != j} s (x_j - x_k)`` with s = 4 / (max - min), which leaves the
    barycentric formula unchanged and keeps the products from over- or underflowing.

    Args:
        nodes: (n,), distinct and finite, in any order.

    Raises:
        ValueError: nodes are not finite or not distinct.

    Source: Berrut & Trefethen 2004.
    """
    return _scaled_weights(_vector(nodes, "nodes"))[1]


def lagrange_matrix(nodes: ArrayLike, points: ArrayLike) -> Array:
    """Values (m, n) of the Lagrange basis polynomials of the nodes at the points.

    Row i times the values at the nodes is the interpolant at point i. At a node the row is exactly
    0 and 1.

    Args:
        nodes: (n,), distinct and finite, in any order, anywhere on the real line.
        points: (m,), where to evaluate; outside the nodes as well.

    Raises:
        ValueError: nodes are not finite or not distinct.

    This is the first barycentric form with the node polynomial divided out in advance: weight times
    the product of the differences to the left and to the right. Every entry is accurate to a few n
    roundings relative to itself. The second form is not, once a point lies outside the nodes
    (Higham 2004), and multistep methods extrapolate.
    """
    x = _vector(nodes, "nodes")
    scale, weights = _scaled_weights(x)
    return _basis_values(x, scale, weights, _vector(points, "points"))


def lagrange_taylor(nodes: ArrayLike, centre: float) -> Array:
    """Taylor coefficients (n, n) of the Lagrange basis polynomials of the nodes.

    Row m times the values at the nodes is the coefficient of ``(x - centre)**m`` in the
    interpolant. With all nodes on one side of the centre the coefficients of a basis polynomial
    have one sign on the other side: the sum over m there is as accurate as `lagrange_matrix`.

    Args:
        nodes: (n,), distinct and finite, in any order, anywhere on the real line.
        centre: where the polynomials are expanded.

    Raises:
        ValueError: nodes are not finite or not distinct.
    """
    x = _vector(nodes, "nodes")
    scale, weights = _scaled_weights(x)
    factors = scale * (centre - x)
    rows = [
        weight * np.atleast_1d(np.poly(-np.delete(factors, j)))[::-1]
        for j, weight in enumerate(weights.tolist())
    ]
    return np.array(rows).T * scale ** np.arange(x.size)[:, None]


def lagrange_derivatives(nodes: ArrayLike) -> Array:
    """The differentiation matrix (n, n) of the nodes.

    Row i times the values at the nodes is the interpolant's derivative at node i. Rows sum to 0, so
    that constants have none.

    Args:
        nodes: (n,), distinct and finite, in any order, anywhere on the real line.

    Raises:
        ValueError: nodes are not finite or not distinct.

    Source: Berrut & Trefethen 2004, section 9.3.
    """
    x = _vector(nodes, "nodes")
    _, weights = _scaled_weights(x)
    differences = x[:, None] - x
    np.fill_diagonal(differences, 1.0)
    matrix: Array = weights / weights[:, None] / differences
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def _basis_values(nodes: Array, scale: float, weights: Array, points: Array) -> Array:
    n = nodes.size
    factors = (points[:, None] - nodes) * scale
    values = np.empty_like(factors)
    values[:] = weights
    if n > 1:
        values[:, 1:] *= factors[:, :-1].cumprod(axis=1)
        values[:, -2::-1] *= factors[:, :0:-1].cumprod(axis=1)
        hit = factors == 0.0
        if hit.any():
            rows = hit.any(axis=1)
            values[rows] = hit[rows]
    return values


def lagrange_integrals(nodes: ArrayLike, uppers: ArrayLike, lower: float = 0.0) -> Array:
    """Integrals (m, n) of the Lagrange basis polynomials from `lower` to each of `uppers`.

    Row i times the values at the nodes is the interpolant's integral from `lower` to ``uppers[i]``.

    Args:
        nodes: (n,), distinct and finite, in any order, anywhere on the real line; n <= 256.
        uppers: (m,), upper limits, on either side of `lower`.
        lower: the lower limit they share.

    Raises:
        ValueError: nodes are not finite, not distinct or more than 256.

    Gauss's rule with n/2 points on each interval is exact for degree n - 1; what remains is
    rounding. All is computed relative to `lower`, so nodes that are times far from 0 lose nothing.
    """
    x = _vector(nodes, "nodes") - lower
    if x.size > 2 * MAX_NODES:
        raise ValueError(f"lagrange_integrals takes at most {2 * MAX_NODES} nodes, got {x.size}")
    scale, weights = _scaled_weights(x)
    widths = _vector(uppers, "uppers") - lower
    points, point_weights = gauss_arrays((x.size + 1) // 2)
    values = _basis_values(x, scale, weights, (widths[:, None] * points).ravel())
    summed = point_weights @ values.reshape(widths.size, points.size, x.size)
    return widths[:, None] * summed
