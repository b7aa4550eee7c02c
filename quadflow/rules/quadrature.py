"""Quadrature rules on [0, 1]: nodes, weights and the matrix of integrals between the nodes.

Every solver here is a quadrature of the velocity, so the rule is the object all of them start
from. A rule is generated once, in decimal arithmetic of 60 digits, and rounded to float64 at the
end: the numbers are correct to the last digit for every family and every n, on any machine, with
nothing depending on the width of ``long double``.

Adding a family is one function: it returns the nodes (as `decimal.Decimal`, ascending on [0, 1])
and carries the `family` decorator, which checks n, builds the interpolatory rule, caches it and
enters it in `FAMILIES`.

References
----------
P. J. Davis, P. Rabinowitz, *Methods of Numerical Integration*, 2nd ed., 1984.

E. Hairer, S. P. Nørsett, G. Wanner, *Solving Ordinary Differential Equations I*, section II.7.

E. Hairer, G. Wanner, *Solving Ordinary Differential Equations II*, section IV.5.
"""

from __future__ import annotations

import decimal
import operator
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FAMILIES",
    "FamilyInfo",
    "NegativeWeightsWarning",
    "QuadratureRule",
    "boole",
    "clenshaw_curtis",
    "family",
    "fejer",
    "fejer_first",
    "fejer_second",
    "gauss_legendre",
    "gauss_lobatto",
    "midpoint_rule",
    "newton_cotes",
    "newton_cotes_closed",
    "newton_cotes_open",
    "radau_left",
    "radau_right",
    "rule_from_nodes",
    "simpson",
    "symmetric_four",
    "three_eighths",
    "trapezoid",
]

Array = NDArray[np.float64]

MAX_NODES = 128
"""The largest n of any rule: above it one takes seconds to generate, and no step needs it."""

MAX_NEWTON_COTES = 24
"""The largest n of a Newton-Cotes rule: the weights grow like 2**n with alternating signs."""

_MAX_MAGNITUDE = 1e8  # sum of |weights| above which half of float64's digits cancel
_EPS = float(np.finfo(np.float64).eps)
_HALF = Decimal("0.5")
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640629")


class NegativeWeightsWarning(UserWarning):
    """A rule with negative weights was asked for: it amplifies errors of the integrand."""


# --------------------------------------------------------------------------------------------------
# The rule
# --------------------------------------------------------------------------------------------------


def _legendre_table(points: Array, degree: int) -> Array:
    """Shifted Legendre polynomials P_k(2x - 1) at the m points: shape (m, degree + 1)."""
    x = 2.0 * points - 1.0
    table = np.ones((degree + 1, points.size))
    if degree:
        table[1] = x
    for k in range(1, degree):
        table[k + 1] = ((2 * k + 1) * x * table[k] - k * table[k - 1]) / (k + 1)
    transposed: Array = table.T
    return transposed


def _moment_tolerance(weights: Array, degree: int) -> float:
    """More than rounding of nodes and weights can do to a Legendre moment of this degree."""
    return 8.0 * _EPS * (weights.size + degree) * max(1.0, float(np.abs(weights).sum()))


def _read_only(values: ArrayLike, what: str) -> Array:
    array = (
        np.array(values, dtype=np.float64) + 0.0
    )  # the sum turns -0.0 into 0.0, so equal rules have equal bytes
    if not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"QuadratureRule: {what} has a non-finite entry at index {where}")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False, repr=False)
class QuadratureRule:
    """A quadrature rule on [0, 1] with the integrals of its Lagrange basis up to every node.

    The rule checks itself when it is made, so a rule that exists is right: the weights integrate
    every polynomial up to `degree` and fail at ``degree + 1``, and the matrix integrates every
    polynomial of degree below n.

    Parameters
    ----------
    family : str
        Name of the family, for messages.
    nodes : float64, shape (n,)
        Nodes c on [0, 1], strictly ascending.
    weights : float64, shape (n,)
        Weights b: the integral over [0, 1] is ``weights @ f(nodes)``.
    integration_matrix : float64, shape (n, n)
        A[i, j] is the integral of the j-th Lagrange basis polynomial from 0 to c_i.
    degree : int
        Degree of exactness: the largest d such that all polynomials of degree <= d are integrated
        exactly.

    Raises
    ------
    ValueError
        Where shapes, order, range, weights, matrix or degree do not fit together; the message
        names which.

    Notes
    -----
    The arrays are copies, and read-only. Rules are equal, and hash alike, when all
    their numbers agree to the bit.
    """

    family: str
    nodes: Array
    weights: Array
    integration_matrix: Array
    degree: int

    def __post_init__(self) -> None:
        for name in ("nodes", "weights", "integration_matrix"):
            object.__setattr__(self, name, _read_only(getattr(self, name), name))
        object.__setattr__(self, "degree", _as_int(self.degree, "QuadratureRule", "degree"))
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
        _check_nodes(c, f"QuadratureRule {self.family}")
        if not 0 <= self.degree <= 2 * c.size - 1:
            raise ValueError(
                f"QuadratureRule {self.family}: degree {self.degree} is not in "
                f"0..{2 * c.size - 1}, all that {c.size} nodes can have"
            )

    def _check_weights(self) -> None:
        moments = self.weights @ _legendre_table(self.nodes, self.degree + 1)
        moments[0] -= 1.0  # the other Legendre polynomials have integral 0
        for k in range(self.degree + 1):
            if abs(moments[k]) > _moment_tolerance(self.weights, k):
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
        if abs(last) <= _moment_tolerance(self.weights, self.degree + 1):
            raise ValueError(
                f"QuadratureRule {self.family}: weights are exact beyond the declared degree "
                f"{self.degree} (error {last:.3e} at degree {self.degree + 1})"
            )

    def _check_matrix(self) -> None:
        n = self.n
        table = _legendre_table(self.nodes, n)
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

    def _key(self) -> tuple[str, int, bytes, bytes, bytes]:
        return (
            self.family,
            self.degree,
            self.nodes.tobytes(),
            self.weights.tobytes(),
            self.integration_matrix.tobytes(),
        )

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
        return (
            type(self),
            (self.family, self.nodes, self.weights, self.integration_matrix, self.degree),
        )


def _as_int(value: SupportsIndex, owner: str, argument: str) -> int:
    """The value as an int; bool and float are refused, numpy integers are not."""
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{owner}: {argument} must be an int, got {value!r} ({type(value).__name__})")


def _check_nodes(nodes: Array, owner: str) -> None:
    """Finite, strictly ascending and in [0, 1]; the message names the first offender."""
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


# --------------------------------------------------------------------------------------------------
# Generation, in decimal arithmetic
# --------------------------------------------------------------------------------------------------


def _digits() -> AbstractContextManager[decimal.Context]:
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


def _legendre_pair(n: int, x: Decimal) -> tuple[Decimal, Decimal]:
    """P_{n-1}(x) and P_n(x) on [-1, 1], for n >= 1."""
    before, here = Decimal(1), x
    for k in range(1, n):
        before, here = here, ((2 * k + 1) * x * here - k * before) / (k + 1)
    return before, here


def _newton(start: float, step: Callable[[Decimal], Decimal]) -> Decimal:
    """Polish a float64 root with steps f/f'; each doubles the digits, so two or three suffice."""
    x = Decimal(start)
    for _ in range(20):
        correction = step(x)
        x -= correction
        if abs(correction) < Decimal("1e-25"):  # what is left is the square of it
            return x
    raise RuntimeError(f"quadrature node near {start!r} did not converge")  # pragma: no cover


def _mirror(lower: Sequence[Decimal], n: int) -> list[Decimal]:
    """Complete the nodes below 1/2 to the n symmetric ones, with 1/2 itself exact."""
    half = list(lower)[: n // 2]
    return half + [_HALF] * (n % 2) + [1 - c for c in reversed(half)]


def _jacobi_roots(n: int, alpha: float, beta: float) -> list[float]:
    """Float64 zeros of a Jacobi polynomial, ascending: where Newton's iteration starts."""
    from scipy.special import roots_jacobi  # here, since it triples the time of `import quadflow`

    return sorted(roots_jacobi(n, alpha, beta)[0].tolist())


def _gauss_decimal(n: int) -> tuple[list[Decimal], list[Decimal]]:
    """Gauss-Legendre nodes and weights on [0, 1]; needs the context of `_digits`."""

    def step(x: Decimal) -> Decimal:
        before, here = _legendre_pair(n, x)
        return here * (1 - x * x) / (n * (before - x * here))

    starts = _jacobi_roots(n, 0.0, 0.0)[: (n + 1) // 2]
    roots = [
        Decimal(0) if n % 2 and i == n // 2 else _newton(x, step) for i, x in enumerate(starts)
    ]
    weights = []
    for x in roots:
        before, here = _legendre_pair(n, x)
        slope = n * (before - x * here) / (1 - x * x)
        weights.append(1 / ((1 - x * x) * slope * slope))
    return _mirror([(1 + x) / 2 for x in roots], n), weights + weights[: n // 2][::-1]


@cache
def _gauss_cached(n: int) -> tuple[tuple[Decimal, ...], tuple[Decimal, ...]]:
    with _digits():
        nodes, weights = _gauss_decimal(n)
    return tuple(nodes), tuple(weights)


@cache
def gauss_arrays(n: int) -> tuple[Array, Array]:
    """The n-point Gauss-Legendre rule on [0, 1] as float64 arrays, cached."""
    nodes, weights = _gauss_cached(n)
    return (
        _read_only([float(c) for c in nodes], "nodes"),
        _read_only([float(b) for b in weights], "weights"),
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
    points, point_weights = _gauss_cached((n + 1) // 2)
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


def _weights_and_matrix(
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


def _interpolatory(name: str, nodes: Sequence[Decimal], degree: int | None) -> QuadratureRule:
    """The rule that integrates the interpolant through the nodes; degree None: find it."""
    weights, matrix = _weights_and_matrix(nodes)
    c = np.array([float(x) for x in nodes])
    b = np.array([float(x) for x in weights])
    a = np.array([[float(x) for x in row] for row in matrix])
    if degree is None:
        size = max(float(np.abs(b).sum()), float(np.abs(a).sum(axis=1).max()))
        if not size < _MAX_MAGNITUDE:
            i = int(np.argmin(np.diff(c)))
            raise ValueError(
                f"{name}: the weights reach {size:.1e} in size and leave too few digits. The "
                f"closest nodes are {i} and {i + 1} ({c[i].item()!r}, {c[i + 1].item()!r}); use "
                "fewer nodes, or nodes that thin out towards the middle"
            )
        moments = b @ _legendre_table(c, 2 * c.size)
        degree = c.size - 1  # interpolation gives this much
        for k in range(c.size, 2 * c.size):
            if abs(moments[k]) > _moment_tolerance(b, k):
                break
            degree = k
    return QuadratureRule(name, c, b, a, degree)


# --------------------------------------------------------------------------------------------------
# The registry of families
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FamilyInfo:
    """One entry of `FAMILIES`.

    Attributes
    ----------
    name : str
        The name, as in `QuadratureRule.family`.
    function : callable
        ``function(n)`` gives the rule with n nodes.
    minimum, maximum : int, int or None
        The range of n.
    degree : callable
        ``degree(n)`` is the degree of exactness.
    takes_only_n : bool
        Whether n is the only argument (true of every registered family today).
    """

    name: str
    function: Callable[[int], QuadratureRule]
    minimum: int
    maximum: int | None
    degree: Callable[[int], int]
    takes_only_n: bool = True


FAMILIES: dict[str, FamilyInfo] = {}
"""Every family that takes n alone, by name."""


def family(
    name: str,
    *,
    minimum: int,
    degree: Callable[[int], int],
    maximum: int | None = MAX_NODES,
    too_few: str = "use n >= 1",
    too_many: str = "use more intervals with fewer nodes each",
) -> Callable[[Callable[[int], Sequence[Decimal]]], Callable[[int], QuadratureRule]]:
    """Register a family: the decorated function returns the n nodes and becomes the constructor.

    Parameters
    ----------
    name : str
        Name in `FAMILIES`.
    minimum, maximum : int, int or None
        The range of n; outside it a ValueError names the family, n and the bound.
    degree : callable
        ``degree(n)``, the degree of exactness; checked on every rule made.
    too_few, too_many : str
        The remedy that closes the message of those errors.

    Returns
    -------
    callable
        Decorator from ``nodes(n) -> sequence of Decimal`` (called in a context of 60 digits) to
        ``rule(n) -> QuadratureRule``, cached by n.
    """

    def register(build: Callable[[int], Sequence[Decimal]]) -> Callable[[int], QuadratureRule]:
        @cache
        def made(n: int) -> QuadratureRule:
            with _digits():
                return _interpolatory(name, build(n), degree(n))

        def constructor(n: int) -> QuadratureRule:
            n = _as_int(n, name, "n")
            if n < minimum:
                raise ValueError(f"{name} needs n >= {minimum}, got {n}: {too_few}")
            if maximum is not None and n > maximum:
                raise ValueError(f"{name} is limited to n <= {maximum}, got {n}: {too_many}")
            rule = made(n)
            _warn_if_negative(
                rule, "use clenshaw_curtis or gauss_legendre, whose weights are positive"
            )
            return rule

        constructor.__name__ = build.__name__
        constructor.__qualname__ = build.__qualname__
        constructor.__doc__ = build.__doc__
        constructor.cache_clear = made.cache_clear  # type: ignore[attr-defined]
        FAMILIES[name] = FamilyInfo(name, constructor, minimum, maximum, degree)
        return constructor

    return register


def _warn_if_negative(rule: QuadratureRule, remedy: str) -> None:
    """Warn on every call, cached rule or not, at the first caller outside this module."""
    least = float(rule.weights.min())
    if least >= 0.0:
        return
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals is globals():
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"{rule.family} with n={rule.n} has negative weights (minimum {least:.3g}), which "
        f"amplify errors of the integrand: {remedy}",
        NegativeWeightsWarning,
        stacklevel=level,
    )


def _even_or_odd(n: int) -> int:
    """Degree of an interpolatory rule on symmetric nodes: odd n gains one by symmetry."""
    return n if n % 2 else n - 1


# --------------------------------------------------------------------------------------------------
# Gauss families
# --------------------------------------------------------------------------------------------------


@family("gauss-legendre", minimum=1, degree=lambda n: 2 * n - 1)
def gauss_legendre(n: int) -> Sequence[Decimal]:
    """Gauss-Legendre rule with n >= 1 nodes, none at an end; degree 2n - 1, the highest.

    Parameters
    ----------
    n : int
        Number of nodes, 1..128.

    Returns
    -------
    QuadratureRule
        On [0, 1]; the nodes are the zeros of the shifted Legendre polynomial P_n.

    Raises
    ------
    TypeError
        If n is not an int.
    ValueError
        If n is out of range.

    References
    ----------
    Davis & Rabinowitz, chapter 2; Hairer, Nørsett & Wanner, section II.7
    (the collocation method of order 2n).
    """
    return _gauss_cached(n)[0]


@family(
    "gauss-lobatto",
    minimum=2,
    degree=lambda n: 2 * n - 3,
    too_few="it contains both end points; use gauss_legendre(1) for a one-point rule",
)
def gauss_lobatto(n: int) -> Sequence[Decimal]:
    """Gauss-Lobatto rule with n >= 2 nodes, both end points among them; degree 2n - 3.

    Parameters
    ----------
    n : int
        Number of nodes, 2..128.

    Returns
    -------
    QuadratureRule
        On [0, 1]; the inner nodes are the zeros of P'_{n-1}.

    Raises
    ------
    TypeError
        If n is not an int.
    ValueError
        If n is out of range.

    References
    ----------
    Davis & Rabinowitz, chapter 2; Hairer & Wanner, section IV.5 (Lobatto IIIA).
    """

    def step(x: Decimal) -> Decimal:
        # f = P_n - P_{n-2} has all n nodes as simple zeros; f' = (2n - 1) P_{n-1} is never 0 there.
        before, here = _legendre_pair(n - 1, x)
        return (x - before / here) / n

    starts = _jacobi_roots(n - 2, 1.0, 1.0) if n > 2 else []
    inner = [_newton(x, step) for x in starts[: (n - 2) // 2]]
    return _mirror([Decimal(0), *((1 + x) / 2 for x in inner)], n)


def _radau(n: int) -> list[Decimal]:
    """Nodes of the Radau rule that contains 1."""

    def step(x: Decimal) -> Decimal:
        # f = P_n - P_{n-1}; its derivative is n (P_n + P_{n-1}) / (1 + x).
        before, here = _legendre_pair(n, x)
        return (1 + x) * (here - before) / (n * (here + before))

    starts = _jacobi_roots(n - 1, 1.0, 0.0) if n > 1 else []
    return [*((1 + _newton(x, step)) / 2 for x in starts), Decimal(1)]


@family("radau-left", minimum=1, degree=lambda n: 2 * n - 2)
def radau_left(n: int) -> Sequence[Decimal]:
    """Radau rule with n >= 1 nodes that contains 0 (Radau I); degree 2n - 2.

    Parameters
    ----------
    n : int
        Number of nodes, 1..128.

    Returns
    -------
    QuadratureRule
        On [0, 1]; the mirror image of `radau_right`.

    Raises
    ------
    TypeError
        If n is not an int.
    ValueError
        If n is out of range.

    References
    ----------
    Davis & Rabinowitz, chapter 2; Hairer & Wanner, section IV.5.
    """
    return [1 - c for c in reversed(_radau(n))]


@family("radau-right", minimum=1, degree=lambda n: 2 * n - 2)
def radau_right(n: int) -> Sequence[Decimal]:
    """Radau rule with n >= 1 nodes that contains 1 (Radau II); degree 2n - 2.

    Parameters
    ----------
    n : int
        Number of nodes, 1..128.

    Returns
    -------
    QuadratureRule
        On [0, 1]; the nodes are the zeros of P_n - P_{n-1}. Its matrix is the tableau of Radau IIA.

    Raises
    ------
    TypeError
        If n is not an int.
    ValueError
        If n is out of range.

    References
    ----------
    Hairer & Wanner, section IV.5.
    """
    return _radau(n)


# --------------------------------------------------------------------------------------------------
# Chebyshev families
# --------------------------------------------------------------------------------------------------


def _cosine_node(numerator: int, denominator: int) -> Decimal:
    """(1 - cos(pi numerator / denominator)) / 2 as a squared sine: small nodes stay accurate."""
    angle = _PI * numerator / (2 * denominator)
    square = angle * angle
    term = total = angle
    k = 1
    while abs(term) > Decimal("1e-65"):
        term *= -square / ((k + 1) * (k + 2))
        total += term
        k += 2
    return total * total


@family(
    "clenshaw-curtis",
    minimum=2,
    degree=_even_or_odd,
    too_few="it contains both end points; use midpoint_rule() for a one-point rule",
)
def clenshaw_curtis(n: int) -> Sequence[Decimal]:
    """Clenshaw-Curtis: n >= 2 Chebyshev extreme points; degree n - 1, or n for odd n.

    Parameters
    ----------
    n : int
        Number of nodes, 2..128, both end points among them.

    Returns
    -------
    QuadratureRule
        On [0, 1], nodes ``(1 - cos(pi i / (n - 1))) / 2``; all weights positive.

    Raises
    ------
    TypeError
        If n is not an int.
    ValueError
        If n is out of range.

    References
    ----------
    Davis & Rabinowitz, chapter 2; L. N. Trefethen, "Is Gauss
    quadrature better than Clenshaw-Curtis?", SIAM Review 50 (2008).
    """
    return _mirror([_cosine_node(i, n - 1) for i in range(n // 2)], n)


@family("fejer-1", minimum=1, degree=_even_or_odd)
def fejer_first(n: int) -> Sequence[Decimal]:
    """Fejér's first: n >= 1 Chebyshev zeros; degree n - 1, or n for odd n.

    Parameters
    ----------
    n : int
        Number of nodes, 1..128, none of them an end point.

    Returns
    -------
    QuadratureRule
        On [0, 1], nodes ``(1 - cos(pi (2i + 1) / (2n))) / 2``; all weights positive.

    Raises
    ------
    TypeError
        If n is not an int.
    ValueError
        If n is out of range.

    References
    ----------
    J. Waldvogel, "Fast construction of the Fejér and Clenshaw-Curtis
    quadrature rules", BIT 46 (2006).
    """
    return _mirror([_cosine_node(2 * i + 1, 2 * n) for i in range(n // 2)], n)


@family("fejer-2", minimum=1, degree=_even_or_odd)
def fejer_second(n: int) -> Sequence[Decimal]:
    """Fejér's second: n >= 1 inner Chebyshev extreme points; degree n - 1, or n for odd n.

    Parameters
    ----------
    n : int
        Number of nodes, 1..128, none of them an end point.

    Returns
    -------
    QuadratureRule
        On [0, 1], nodes ``(1 - cos(pi i / (n + 1))) / 2`` for i = 1..n; all weights positive.

    Raises
    ------
    TypeError
        If n is not an int.
    ValueError
        If n is out of range.

    References
    ----------
    J. Waldvogel, "Fast construction of the Fejér and Clenshaw-Curtis
    quadrature rules", BIT 46 (2006).
    """
    return _mirror([_cosine_node(i + 1, n + 1) for i in range(n // 2)], n)


def fejer(n: int, kind: int = 1) -> QuadratureRule:
    """Fejér's first (Chebyshev zeros) or second (inner extreme points) rule, n >= 1 nodes.

    Parameters
    ----------
    n : int
        Number of nodes, 1..128.
    kind : {1, 2}
        Which of the two.

    Returns
    -------
    QuadratureRule
        That of `fejer_first` or `fejer_second`; degree n - 1, or n for odd n.

    Raises
    ------
    TypeError
        If n or kind is not an int.
    ValueError
        If n is out of range or kind is neither 1 nor 2.
    """
    kind = _as_int(kind, "fejer", "kind")
    if kind not in (1, 2):
        raise ValueError(
            f"fejer: kind must be 1 (Chebyshev zeros) or 2 (inner extreme points), got {kind}"
        )
    return fejer_first(n) if kind == 1 else fejer_second(n)


# --------------------------------------------------------------------------------------------------
# Newton-Cotes and its classical members
# --------------------------------------------------------------------------------------------------

_NO_DIGITS = (
    "the weights grow like 2**n with alternating signs and leave no digits; "
    "use clenshaw_curtis or gauss_legendre"
)


@family(
    "newton-cotes-closed",
    minimum=2,
    maximum=MAX_NEWTON_COTES,
    degree=_even_or_odd,
    too_few="it contains both end points; use newton_cotes(1, closed=False) for a one-point rule",
    too_many=_NO_DIGITS,
)
def newton_cotes_closed(n: int) -> Sequence[Decimal]:
    """Closed Newton-Cotes rule: n >= 2 equidistant nodes ``i / (n - 1)``; see `newton_cotes`."""
    return _mirror([Decimal(i) / (n - 1) for i in range(n // 2)], n)


@family(
    "newton-cotes-open",
    minimum=1,
    maximum=MAX_NEWTON_COTES,
    degree=_even_or_odd,
    too_many=_NO_DIGITS,
)
def newton_cotes_open(n: int) -> Sequence[Decimal]:
    """Open Newton-Cotes: n >= 1 equidistant nodes ``(i + 1) / (n + 1)``; see `newton_cotes`."""
    return _mirror([Decimal(i + 1) / (n + 1) for i in range(n // 2)], n)


def newton_cotes(n: int, closed: bool = True) -> QuadratureRule:
    """Newton-Cotes rule on n equidistant nodes; degree n - 1, or n for odd n.

    Parameters
    ----------
    n : int
        Number of nodes, 2..24 closed, 1..24 open.
    closed : bool
        True: nodes ``i / (n - 1)`` (n = 2 trapezoid, 3 Simpson, 4 three eighths, 5 Boole).
        False: nodes ``(i + 1) / (n + 1)`` (n = 1 midpoint).

    Returns
    -------
    QuadratureRule
        On [0, 1].

    Raises
    ------
    TypeError
        If n is not an int or closed is not a bool.
    ValueError
        If n is out of range.

    Warns
    -----
    NegativeWeightsWarning
        On every call for a rule with negative weights: closed n = 9 and n >= 11, open n = 3 and n
        >= 5.

    References
    ----------
    Davis & Rabinowitz, chapter 2.
    """
    if not isinstance(closed, (bool, np.bool_)):
        raise TypeError(
            f"newton_cotes: closed must be a bool, got {closed!r} ({type(closed).__name__})"
        )
    return newton_cotes_closed(n) if closed else newton_cotes_open(n)


def midpoint_rule() -> QuadratureRule:
    """Midpoint rule: node 1/2; degree 1. The open Newton-Cotes rule with one node."""
    return newton_cotes_open(1)


def trapezoid() -> QuadratureRule:
    """Trapezoid: nodes 0, 1, weights 1/2, 1/2; degree 1."""
    return newton_cotes_closed(2)


def simpson() -> QuadratureRule:
    """Simpson's rule: nodes 0, 1/2, 1, weights (1, 4, 1) / 6; degree 3."""
    return newton_cotes_closed(3)


def three_eighths() -> QuadratureRule:
    """Three-eighths rule: nodes 0, 1/3, 2/3, 1, weights (1, 3, 3, 1) / 8; degree 3."""
    return newton_cotes_closed(4)


def boole() -> QuadratureRule:
    """Boole's rule: nodes 0, 1/4, 1/2, 3/4, 1, weights (7, 32, 12, 32, 7) / 90; degree 5."""
    return newton_cotes_closed(5)


# --------------------------------------------------------------------------------------------------
# Rules from nodes
# --------------------------------------------------------------------------------------------------


def symmetric_four(alpha: float) -> QuadratureRule:
    """Rule on the nodes 0, alpha, 1 - alpha, 1.

    Parameters
    ----------
    alpha : float
        The inner node, 0 < alpha < 1/2.

    Returns
    -------
    QuadratureRule
        Inner weights ``1 / (12 alpha (1 - alpha))``, outer weights the rest of 1/2. Degree 3, and
        5 where alpha is (1 - 1/sqrt(5)) / 2 to rounding, which is the four-point Gauss-Lobatto
        rule; 1/3 is the three-eighths rule.

    Raises
    ------
    TypeError
        If alpha is not a real number.
    ValueError
        If alpha is not in (0, 1/2), or so near an end of it that the weights have lost their
        digits.

    Warns
    -----
    NegativeWeightsWarning
        If alpha < (1 - 1/sqrt(3)) / 2, about 0.2113, where the outer weights are negative.
    """
    if isinstance(alpha, (bool, np.bool_)) or not isinstance(
        alpha, (int, float, np.floating, np.integer)
    ):
        raise TypeError(
            f"symmetric_four: alpha must be a real number, got {alpha!r} ({type(alpha).__name__})"
        )
    alpha = float(alpha)
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"symmetric_four: alpha must be in (0, 1/2), got {alpha!r}")
    rule = _symmetric_four(alpha)
    _warn_if_negative(rule, "use alpha >= 0.2114")
    return rule


@lru_cache(maxsize=256)
def _symmetric_four(alpha: float) -> QuadratureRule:
    with _digits():
        return _interpolatory("symmetric-four", _mirror([Decimal(0), Decimal(alpha)], 4), None)


def rule_from_nodes(nodes: ArrayLike, family: str = "custom") -> QuadratureRule:
    """The interpolatory rule on given nodes.

    Parameters
    ----------
    nodes : array_like, shape (n,)
        Strictly ascending, in [0, 1], 1 <= n <= 128.
    family : str
        The name the rule is to carry.

    Returns
    -------
    QuadratureRule
        Degree n - 1 or more: the degree is found by testing the Legendre moments against
        rounding, so Gauss nodes given to full precision have 2n - 1, and Gauss nodes given to ten
        digits do not. Negative weights bring no warning here; see
        `QuadratureRule.has_positive_weights`.

    Raises
    ------
    TypeError
        If the nodes are not real numbers.
    ValueError
        If the nodes are empty, too many, not finite, outside [0, 1], duplicate or unsorted (the
        message says which), or so placed that the weights exceed 1e8 and leave too few digits.
    """
    values = np.asarray(nodes)
    if values.dtype.kind not in "iuf" and values.size:
        raise TypeError(f"rule_from_nodes: nodes must be real numbers, got dtype {values.dtype}")
    if values.ndim != 1 or not 1 <= values.size <= MAX_NODES:
        raise ValueError(
            f"rule_from_nodes: nodes need shape (n,) with 1 <= n <= {MAX_NODES}, got {values.shape}"
        )
    floats = values.astype(np.float64)
    _check_nodes(floats, "rule_from_nodes")
    return _from_nodes(tuple((floats + 0.0).tolist()), family)


@lru_cache(maxsize=256)
def _from_nodes(nodes: tuple[float, ...], name: str) -> QuadratureRule:
    with _digits():
        return _interpolatory(name, [Decimal(c) for c in nodes], None)
