"""A quadrature rule on [0, 1]: nodes, weights and the matrix of integrals between the nodes.

Every solver here is a quadrature of the velocity, so the rule is the object all of them start
from.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..checks import as_integer

Array = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)


def legendre_table(points: Array, degree: int) -> Array:
    """Shifted Legendre polynomials P_k(2x - 1) at the m points: shape (m, degree + 1)."""
    x = 2.0 * points - 1.0
    table = np.ones((degree + 1, points.size))
    if degree:
        table[1] = x
    for k in range(1, degree):
        table[k + 1] = ((2 * k + 1) * x * table[k] - k * table[k - 1]) / (k + 1)
    return table.T


def moment_tolerance(weights: Array, degree: int) -> float:
    """The error of a Legendre moment of this degree that rounding of nodes and weights stays
    below."""
    return 8.0 * _EPS * (weights.size + degree) * max(1.0, float(np.abs(weights).sum()))


def read_only(values: ArrayLike, what: str) -> Array:
    """A copy as float64 that cannot be written to; `what` names it where it is not finite."""
    # the sum turns -0.0 into 0.0, so that equal rules have equal bytes
    array = np.array(values, dtype=np.float64) + 0.0
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"QuadratureRule: {what} has a non-finite entry at index {where}")
    array.setflags(write=False)
    return array


def check_nodes(nodes: Array, owner: str) -> None:
    """Refuse nodes that are not finite, strictly ascending and in [0, 1], naming the first
    (ValueError)."""
    for i, value in enumerate(nodes.tolist()):
        if not np.isfinite(value):
            raise ValueError(f"{owner}: node {i} is {value!r}, not finite")
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"{owner}: node {i} is {value!r}, outside [0, 1]")
    for i, gap in enumerate(np.diff(nodes).tolist()):
        if gap == 0.0:
            raise ValueError(
                f"{owner}: nodes {i} and {i + 1} are duplicate, both {nodes[i].item()!r}"
            )
        if gap < 0.0:
            raise ValueError(
                f"{owner}: nodes are unsorted, node {i} is {nodes[i].item()!r} and node {i + 1} is "
                f"{nodes[i + 1].item()!r}: sort them in ascending order"
            )


@dataclass(frozen=True, eq=False, repr=False)
class QuadratureRule:
    """A quadrature rule on [0, 1] with the integrals of its Lagrange basis up to every node.

    The rule checks itself when it is made, so a rule that exists is right: the weights integrate
    every polynomial up to `degree` and fail at ``degree + 1``, and the matrix integrates every
    polynomial of degree below n. The arrays are copies, and read-only. Rules are equal, and hash
    alike, when all their numbers agree to the bit.

    Args:
        family: name of the family, for messages.
        nodes: c (n,), float64 on [0, 1], strictly ascending.
        weights: b (n,), float64; the integral over [0, 1] is ``weights @ f(nodes)``.
        integration_matrix: A (n, n), float64; A[i, j] is the integral of the j-th Lagrange basis
            polynomial from 0 to c_i.
        degree: degree of exactness, the largest d such that all polynomials of degree <= d are
            integrated exactly.

    Raises:
        ValueError: shapes, order, range, weights, matrix or degree do not fit together; the message
            names which.
    """

    family: str
    nodes: Array
    weights: Array
    integration_matrix: Array
    degree: int

    def __post_init__(self) -> None:
        for name in ("nodes", "weights", "integration_matrix"):
            object.__setattr__(self, name, read_only(getattr(self, name), name))
        object.__setattr__(self, "degree", as_integer(self.degree, "QuadratureRule: degree"))
        self._check_layout()
        self._check_weights()
        self._check_matrix()

    def _check_layout(self) -> None:
        c = self.nodes
        if c.ndim != 1 or c.size == 0:
            raise ValueError(
                f"QuadratureRule {self.family}: nodes need shape (n,) with n >= 1, got {c.shape}"
            )
        for name, shape in (("weights", (c.size,)), ("integration_matrix", (c.size, c.size))):
            got = getattr(self, name).shape
            if got != shape:
                raise ValueError(
                    f"QuadratureRule {self.family}: {name} need shape {shape}, got {got}"
                )
        check_nodes(c, f"QuadratureRule {self.family}")
        if not 0 <= self.degree <= 2 * c.size - 1:
            raise ValueError(
                f"QuadratureRule {self.family}: degree {self.degree} is not in "
                f"0..{2 * c.size - 1}, all that {c.size} nodes can have"
            )

    def _check_weights(self) -> None:
        moments = self.weights @ legendre_table(self.nodes, self.degree + 1)
        moments[0] -= 1.0  # the other Legendre polynomials have integral 0
        for k in range(self.degree + 1):
            if abs(moments[k]) > moment_tolerance(self.weights, k):
                what = (
                    "weights do not sum to 1" if k == 0 else f"weights are not exact at degree {k}"
                )
                raise ValueError(
                    f"QuadratureRule {self.family}: {what} (error {moments[k]:.3e}, "
                    f"declared degree {self.degree})"
                )
        # In the Legendre basis the first error stands clear of rounding: about sqrt(pi / (8 n)) for
        # Gauss, about n**-3.5 for the Chebyshev families.
        last = float(moments[-1])
        if abs(last) <= moment_tolerance(self.weights, self.degree + 1):
            raise ValueError(
                f"QuadratureRule {self.family}: weights are exact beyond the declared degree "
                f"{self.degree} (error {last:.3e} at degree {self.degree + 1})"
            )

    def _check_matrix(self) -> None:
        n = self.n
        table = legendre_table(self.nodes, n)
        # The integral of P_k from 0 to c is (P_{k+1} - P_{k-1}) / (2 (2k + 1)) at c: the two agree
        # at 0.
        exact = np.empty((n, n))
        exact[:, 0] = self.nodes
        k = np.arange(1, n)
        exact[:, 1:] = (table[:, 2:] - table[:, :-2]) / (2 * (2 * k + 1))
        error = np.abs(self.integration_matrix @ table[:, :n] - exact)
        size = np.maximum(1.0, np.abs(self.integration_matrix).sum(axis=1))
        bad = error > 8.0 * _EPS * (n + np.arange(n)) * size[:, None]
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            what = "does not sum to the node" if column == 0 else f"is not exact at degree {column}"
            raise ValueError(
                f"QuadratureRule {self.family}: row {row} of integration_matrix {what} "
                f"(error {error[row, column]:.3e}, node {self.nodes[row]!r})"
            )

    @property
    def n(self) -> int:
        """Number of nodes."""
        return int(self.nodes.size)

    @property
    def has_left(self) -> bool:
        """Whether the first node is exactly 0."""
        return bool(self.nodes[0] == 0.0)

    @property
    def has_right(self) -> bool:
        """Whether the last node is exactly 1."""
        return bool(self.nodes[-1] == 1.0)

    @property
    def is_symmetric(self) -> bool:
        """Whether nodes and weights are mirror images about 1/2, to rounding."""
        c, b = self.nodes, self.weights
        scale = max(1.0, float(np.abs(b).max()))
        return bool(
            np.abs(c + c[::-1] - 1.0).max() <= 2.0 * _EPS
            and np.abs(b - b[::-1]).max() <= 32.0 * _EPS * scale
        )

    @property
    def has_positive_weights(self) -> bool:
        """Whether every weight is above zero."""
        return bool((self.weights > 0.0).all())

    def _key(self) -> tuple[Any, ...]:
        arrays = (self.nodes, self.weights, self.integration_matrix)
        return (self.family, self.degree, *(array.tobytes() for array in arrays))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuadratureRule):
            return NotImplemented
        return self is other or self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.family, self.degree, self.nodes.tobytes()))

    def __repr__(self) -> str:
        return f"QuadratureRule({self.family!r}, n={self.n}, degree={self.degree})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor: unpickling and deepcopy would bring the arrays back writable.
        return type(self), tuple(getattr(self, one.name) for one in fields(self))
