"""Multistep methods on y' = λy with equal steps: the state moves by a matrix polynomial in z = hλ.

Every plan is written a second time on purpose, with rational numbers, so that it can be compared
with the code that runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...plans.anchors.method import AnchorsMethod
from ...plans.interpolants import PolynomialInterpolant
from ...plans.method import Method
from ...plans.sweeps.method import SweepsMethod
from ...rules.lagrange import lagrange_matrix
from .rational_functions import RationalFunction, trimmed
from .rules import Poly, exact_rule, poly_add, poly_mul, poly_scale, unit

Form = tuple[Poly, ...]
"""A linear form on the state whose coefficients are polynomials in z."""


@dataclass(frozen=True, eq=False)
class Recurrence:
    """state_(n+1) = C(z) state_n; the state's first component is y.

    rows: C, m rows of m polynomials in z (lowest power first), exact. numeric: the same map as
    float64 coefficients (degree + 1, m, m), in a basis in which it is well conditioned. exact: see
    `ExactRule.exact`. state: what the components are.
    """

    name: str
    rows: tuple[Form, ...]
    numeric: np.ndarray
    exact: bool
    state: str

    @property
    def size(self) -> int:
        """m, the number of roots."""
        return len(self.rows)

    def roots(self, z: np.ndarray) -> np.ndarray:
        """The m roots of the stability polynomial at every z: complex128, (*z.shape, m)."""
        points = np.asarray(z, dtype=np.complex128)
        matrix = np.zeros((*points.shape, self.size, self.size), dtype=np.complex128)
        for coefficient in self.numeric[::-1]:
            matrix = matrix * points[..., None, None] + coefficient
        return np.linalg.eigvals(matrix)

    def principal_series(self, length: int) -> Poly:
        """The first `length` Taylor coefficients of the root that is 1 at z = 0, exact.

        The eigenvector (1, w) is found with it, by fixed-point iteration on power series: C(0) is
        nilpotent on w, so every few rounds settle one more power.
        """
        eigenvector: list[Poly] = [_series((Fraction(1),), length)]
        eigenvector += [_series((), length)] * (self.size - 1)
        root = _series((), length)
        for _ in range(length * self.size + 1):
            images = [_image(row, eigenvector, length) for row in self.rows]
            inverse = RationalFunction((Fraction(1),), images[0]).series(length)
            new = [eigenvector[0], *(_times(v, inverse) for v in images[1:])]
            if new == eigenvector and images[0] == root:
                return root
            eigenvector, root = new, images[0]
        raise AssertionError("the principal root did not settle")  # pragma: no cover


def recurrence(method: Method) -> Recurrence:
    """The recurrence of a multistep method on a uniform grid, after its start-up.

    Args:
        method: an anchors method with a `PolynomialInterpolant`, or sweeps from an extrapolated
            guess.

    Raises:
        TypeError: another kind of method, or an interpolant that is not the polynomial one.
    """
    if isinstance(method, SweepsMethod) and method.guess == "extrapolated":
        return _extrapolated_sweeps(method)
    if isinstance(method, AnchorsMethod):
        if type(method.interpolant) is not PolynomialInterpolant:
            raise TypeError(
                f"method {method.name}: its interpolant is {method.interpolant!r}, which has no "
                "known recurrence; a PolynomialInterpolant has"
            )
        return _anchors(method)
    raise TypeError(
        f"method must be an anchors method or sweeps from an extrapolated guess, got {method!r}"
    )


# -- the plans ---------------------------------------------------------------------------------


def _anchors(method: AnchorsMethod) -> Recurrence:
    k, rule = method.interpolant.anchors, exact_rule(method.rule)
    past = [Fraction(-j) for j in range(k)]  # positions of the anchors, the newest first
    predictor = rule.interpolant_weights(past)
    corrector = rule.interpolant_weights([Fraction(1), *past])
    reuses = method.correction == "PEC"
    # PEC starts from the velocity at the predicted state, which y does not determine
    size = k + 1 if reuses else k
    y = _component(0, size)
    start = _component(1, size) if reuses else _scaled(y, (Fraction(0), Fraction(1)))
    older = [_component(i, size) for i in range(2 if reuses else 1, size)]
    known = [start, *older]  # h v at the anchors, newest first
    predicted = _combined(y, predictor, known)
    end = _scaled(predicted, (Fraction(0), Fraction(1)))
    corrected = _combined(y, corrector, [end, *known])
    reached = predicted if method.correction is None else corrected
    rows = [reached, *(([end, *known]) if reuses else known)][:size]
    text = ["y_n", *(f"h f_{{n-{j}}}" if j else "h f_n" for j in range(0 if reuses else 1, k))]
    return Recurrence(method.name, tuple(rows), _as_array(rows), rule.exact, ", ".join(text))


def _extrapolated_sweeps(method: SweepsMethod) -> Recurrence:
    rule, n, sweeps = exact_rule(method.rule), method.rule.n, method.sweeps
    units = [unit(k, n) for k in range(n)]
    # node velocities after K sweeps: z Σ_{j<K} (zA)^j 1 y + (zA)^K S u
    from_state, carried = [units[0]], [rule.shift(u) for u in units]
    for _ in range(sweeps):
        from_state.append(rule.integrate(from_state[-1]))
        carried = [rule.integrate(u) for u in carried]
    zeros = (Fraction(0),) * sweeps
    rows: list[Form] = []
    for i in range(n):
        own = (Fraction(0), *(vector[i] for vector in from_state[:sweeps]))
        rows.append((own, *((*zeros, vector[i]) for vector in carried)))
    weights = tuple(rule.weigh(u) for u in units)
    reached = _combined(_component(0, n + 1), weights, rows)
    rows = [reached, *rows]

    a, b, c = method.rule.integration_matrix, method.rule.weights, method.rule.nodes
    numeric = np.zeros((sweeps + 1, n + 1, n + 1))
    vector, moved = np.ones(n), lagrange_matrix(c, 1 + c)
    numeric[0, 0, 0] = 1
    for j in range(sweeps):
        numeric[j + 1, 1:, 0] += vector
        vector, moved = a @ vector, a @ moved
    numeric[sweeps, 1:, 1:] += moved
    numeric[:, 0, :] += np.einsum("i,kij->kj", b, numeric[:, 1:, :])
    state = "y_n, h times the velocities at the last interval's nodes"
    return Recurrence(method.name, tuple(rows), numeric, rule.exact, state)


# -- linear forms and power series ---------------------------------------------------------------


def _component(i: int, size: int) -> Form:
    return tuple((Fraction(1),) if j == i else () for j in range(size))


def _scaled(form: Form, factor: Poly) -> Form:
    return tuple(trimmed(poly_mul(p, factor)) if p else () for p in form)


def _combined(start: Form, weights: Sequence[Fraction], forms: Sequence[Form]) -> Form:
    for weight, form in zip(weights, forms, strict=True):
        start = tuple(
            trimmed(poly_add(p, poly_scale(q, weight))) for p, q in zip(start, form, strict=True)
        )
    return start


def _as_array(rows: Sequence[Form]) -> np.ndarray:
    degree = max(len(p) for row in rows for p in row)
    array = np.zeros((degree, len(rows), len(rows)))
    for i, row in enumerate(rows):
        for j, p in enumerate(row):
            array[: len(p), i, j] = [float(a) for a in p]
    return array


def _series(p: Sequence[Fraction], length: int) -> Poly:
    return tuple(p[i] if i < len(p) else Fraction(0) for i in range(length))


def _times(p: Poly, q: Poly) -> Poly:
    """The product of two series, cut to the length of the second."""
    return poly_mul(p, q)[: len(q)]


def _image(row: Form, vector: Sequence[Poly], length: int) -> Poly:
    total = _series((), length)
    for p, v in zip(row, vector, strict=True):
        if p:
            total = poly_add(total, _times(p[:length], v))
    return total
