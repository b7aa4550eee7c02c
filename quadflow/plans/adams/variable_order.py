"""Variable-order Adams predictor-corrector: the weights of one interval, the next order and step.

Everything here is float64 arithmetic on the host, on a dozen numbers. The formulas are written in
Newton's form on the anchors' own times, newest first, so nothing assumes equal steps.

References
----------
L. F. Shampine, M. K. Gordon, Computer Solution of Ordinary Differential Equations: The Initial
Value Problem, Freeman 1975 (order selection, local extrapolation, the start at order 1).

E. Hairer, S. P. Nørsett, G. Wanner, Solving Ordinary Differential Equations I, sections III.5 and
III.7.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...checks import is_integer
from ...rules.decimals import gauss_arrays
from ...rules.rule import Array

MAX_ORDER = 12
"""Beyond, float64 rounding in the differences and the small stability region undo the gain."""


_ONE = np.ones(1)


SUDDEN = 16.0
"""What cannot be foreseen of f at the end of a step has come suddenly, by a jump or a kink of f,
where it is so many times that of the step before. Where stability holds the steps, nothing can be
foreseen either, but nothing is sudden."""


@functools.cache
def _lower(n: int) -> Array:
    return np.tril(np.ones((n, n)))


@functools.cache
def _points(degree: int) -> tuple[Array, Array]:
    return gauss_arrays(degree // 2 + 1)


@functools.cache
def _two_weights(degree: int) -> Array:
    """Gauss's weights, and those times x - 1: (2, points)."""
    points, weights = _points(degree)
    return np.stack((weights, weights * (points - 1.0)))


def newton_integral(nodes: Array) -> float:
    """The integral over [0, 1] of Newton's basis polynomial (x - z_0)(x - z_1) … of all nodes (n,).
    Source: Gauss's rule, exact for degree n."""
    points, weights = _points(nodes.size)
    return float(weights.dot((points[:, None] - nodes).prod(axis=1)))


def adams_integrals(nodes: Array) -> tuple[Array, Array]:
    """Integrals over [0, 1] of Newton's basis 1, x - z_0, (x - z_0)(x - z_1), …, and of the same
    with 1 put in front of the nodes.

    nodes: (n,) float64. Returns (n + 1,), (n + 2,) float64. The second basis is the first one times
    x - 1, a degree higher.
    """
    degree = nodes.size + 1
    points, _ = _points(degree)
    products = np.empty((points.size, degree))
    products[:, 0] = 1.0
    (points[:, None] - nodes).cumprod(axis=1, out=products[:, 1:])
    both = np.empty((2, degree + 1))
    both[:, 1:] = _two_weights(degree).dot(products)
    both[1, 0] = 1.0
    return both[0, 1:], both[1]


def divided_differences(nodes: Array) -> Array:
    """Row q times the values at the nodes is their divided difference over z_0 ... z_q.

    nodes: (n,) float64, distinct. Returns (n, n) float64, lower triangular.
    """
    differences = nodes[:, None] - nodes
    differences.flat[:: nodes.size + 1] = 1.0
    lower: Array = _lower(nodes.size) / differences.cumprod(axis=1).T
    return lower


def with_one_before(known: Array, nodes: Array, first: int) -> Array:
    """`divided_differences` of the nodes with 1 put in front, from those (n, n) of the nodes: the
    rows from `first` >= 1 on, (n + 1 - first, n + 1). Every weight has one factor more."""
    gaps = 1.0 - nodes
    rows = np.empty((nodes.size + 1 - first, nodes.size + 1))
    rows[:, 0] = 1.0 / gaps.cumprod()[first - 1 :]
    np.divide(known[first - 1 :], -gaps, out=rows[:, 1:])
    return rows


@dataclass(frozen=True)
class IntervalWeights:
    """What one predictor-corrector interval of order k needs, velocities newest first.

    order: k. orders: the orders whose error is estimated: of k+1, k-2, k-1 those there are anchors
    for, and k, which comes last. table: (2 + len(orders), 1 + m), weights of the velocity at the
    predicted end and of the m known ones. Row 0 is the predictor (0 at the end), row 1 the
    corrector of order k+1, the others the differences between the correctors of orders q+1 and q,
    which estimate the error of order q. All are means over the interval: multiplied by h they are
    changes of the state. positions: (m,) the anchors' times, 0 the start and 1 the end of the
    interval. integrals: of Newton's basis polynomial of degree q, for every q in orders.
    """

    order: int
    orders: tuple[int, ...]
    table: Array
    positions: Array
    integrals: Mapping[int, float]

    def unforeseen(self, errors: Mapping[int, float]) -> tuple[float, bool]:
        """What the error may be, over the tolerance, if f has broken within the interval; and
        whether f looks so.

        errors: by order, over the tolerance. Each is a weight times the difference of the velocity
        at the end from the one that its order's anchors foresee. More anchors foresee a smooth
        velocity better. One that has jumped none of them does; the state is then off by up to the
        whole difference, times what the corrector takes of it or what it leaves: many times the
        estimate, whose weight falls with the order.
        """
        differences = {
            q: errors[q] / abs(weight)
            for q, weight in zip(self.orders, self.table[2:, 0].tolist(), strict=True)
            if weight
        }
        taken = float(self.table[1, 0])
        here = differences[self.order]
        return here * max(taken, 1.0 - taken), here > 0.5 * differences[min(self.orders)]

    def model(self, order: int, ratio: float) -> float:
        """The error of `order` in the next interval, `ratio` times as long, over the one in this.

        For a solution whose velocity has the same `order`-th divided difference in both. The
        spacing of the anchors is the true one: unlike ratio^(order+1) this knows that only one
        step has changed.
        """
        nodes = np.empty(order + 1)
        nodes[:2] = 1.0, 0.0
        nodes[2:] = (self.positions[: order - 1] - 1.0) / ratio
        ahead = newton_integral(nodes[:order])
        return abs(ahead / self.integrals[order]) * ratio ** (order + 1)


def interval_weights(
    times: Sequence[float], t0: float, t1: float, order: int, max_order: int = MAX_ORDER
) -> IntervalWeights:
    """The weights of the interval [t0, t1] at order k.

    Args:
        times: of the known anchors, newest (t0 itself) first, at least k of them. Those beyond
            k + 2 are not used.
        t0, t1: the interval, in either direction.
        order: k >= 1. max_order: no error of a higher order is estimated.

    Raises:
        ValueError: fewer anchors than k.

    Order k+1 is estimated from known velocities alone (that at the predicted end is not accurate
    enough for it), where there are k + 2.
    """
    if len(times) < order:
        raise ValueError(f"order {order} needs {order} anchors, got {len(times)}")
    m = min(len(times), order + 2)
    positions = (np.array(times[:m]) - t0) / (t1 - t0)
    known = divided_differences(positions)
    own = positions[:order]
    # positions[0] is 0: the products of the corrector's basis start (x - 1) x ...
    explicit, implicit = adams_integrals(own)
    orders = tuple(range(max(1, order - 2), order + 1))
    ahead = with_one_before(known[:order, :order], own, orders[0])
    above = order + 1 <= max_order and m == order + 2
    if above:
        orders = (order + 1, *orders)
    table = np.zeros((2 + len(orders), m + 1))
    table[0, 1 : order + 1] = explicit[:order].dot(known[:order, :order])
    # Adams-Moulton of order k+1: the predictor, and the divided difference it left out
    table[1, : order + 1] = table[0, : order + 1] + explicit[order] * ahead[-1]
    if above:
        table[2, 1:] = implicit[order + 1] * known[order + 1]
    scales = implicit[order + 1 - len(ahead) : order + 1]
    table[2 + above :, : order + 1] = scales[:, None] * ahead
    values = implicit.tolist()
    return IntervalWeights(order, orders, table, positions, {q: values[q] for q in orders})


@dataclass(frozen=True)
class OrderControl:
    """Chooses order and step size after every interval, from the errors of up to four orders.

    Shampine & Gordon's rule: the order falls where the errors of lower orders are no larger, and
    rises where the next one's is half as large, so that it settles where the estimates stop
    decreasing.
    The step aims at an error of `aim` times the tolerance. The factor is the classical
    (aim/error)^(1/(k+1)), corrected once for the true spacing of the anchors
    (`IntervalWeights.model`), and `damping` of it (in the logarithm) is carried out, which keeps
    the steps from zigzagging. The first interval has order 1 and leads to one of order 2, of which
    nothing is known yet, twice as long.

    Attributes:
        aim: error aimed at in a step, over the tolerance. A rejected step costs an evaluation and
            spoils the spacing of the anchors; 1/32 keeps rejections below one in a hundred, and the
            error at the end of a solve near the tolerance where the problem itself does not
            amplify errors.
        min_factor, max_factor: of one step over the one before. Larger ones make the weights of
            high orders large, and rounding with them.
        low_factor: largest factor at orders up to 3, whose weights stay small on any spacing: the
            way from a tiny first step is short.
        damping: 0 < damping <= 1.
        max_order: highest order k of the predictor.
    """

    aim: float = 1 / 32
    min_factor: float = 0.5
    max_factor: float = 2.0
    low_factor: float = 8.0
    damping: float = 2 / 3
    max_order: int = MAX_ORDER

    def __post_init__(self) -> None:
        for name, value, least in (("aim", self.aim, 0), ("damping", self.damping, 0)):
            if not least < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {value!r}")
        if not 0 < self.min_factor < 1 < self.max_factor <= self.low_factor:
            raise ValueError(
                "steps must be able to shrink and to grow: 0 < min_factor < 1 < max_factor <= "
                f"low_factor, got min_factor={self.min_factor!r}, max_factor={self.max_factor!r}, "
                f"low_factor={self.low_factor!r}"
            )
        k = self.max_order
        if not is_integer(k, 1) or k > MAX_ORDER:
            raise ValueError(f"max_order must be an integer from 1 to {MAX_ORDER}, got {k!r}")

    def factor(self, weights: IntervalWeights, order: int, error: float) -> float:
        """Step-size factor for an interval of `order` whose error this time was `error`."""
        if error < 1e-200:  # or what is expected may underflow
            return self._largest(order)
        power = 1 / (order + 1)
        factor = self._limited((self.aim / error) ** power, order)
        expected = error * weights.model(order, factor)
        return self._limited(factor * (self.aim / expected) ** power, order)

    def _limited(self, factor: float, order: int) -> float:
        return min(self._largest(order), max(self.min_factor, factor))

    def _largest(self, order: int) -> float:
        return self.low_factor if order <= 3 else self.max_factor

    def accept(self, weights: IntervalWeights, errors: Mapping[int, float]) -> tuple[int, float]:
        """Order of the next interval, and its size over this one's.

        Args:
            weights: of the interval that was accepted.
            errors: by order, over the tolerance.
        """
        k = weights.order
        if k == 1 and 2 not in errors and self.max_order > 1:
            return 2, self.max_factor
        order = self._order(k, errors)
        factor = self.factor(weights, order, errors[order])
        if self.min_factor < factor < self._largest(order):
            factor **= self.damping
        return order, factor

    def _order(self, k: int, errors: Mapping[int, float]) -> int:
        here = errors[k]
        below, above = errors.get(k - 1, math.inf), errors.get(k + 1, math.inf)
        if k > 2 and max(below, errors[k - 2]) <= here:
            return k - 1
        if k == 2 and below <= 0.5 * here:
            return 1
        if k > 1 and k + 1 in errors and below <= min(here, above):
            return k - 1
        # a rise must pay, or the order flaps between two that are as good
        return k + 1 if above < 0.5 * here else k

    def reject(
        self, weights: IntervalWeights, errors: Mapping[int, float], failures: int
    ) -> tuple[int, float]:
        """Order and size, over this one's, of another trial.

        Args:
            weights: of the interval that was rejected.
            errors: by order, over the tolerance; not finite where f was not.
            failures: rejections in a row, this one included. From the third on the anchors are not
                trusted any more: the order goes back to 1.

        At order 1 there is no spacing to be kept smooth, and the step may fall tenfold.
        """
        k = weights.order
        here = errors[k]
        least = self.min_factor / 2 if k > 1 else 0.1
        if not math.isfinite(here):
            return (1 if failures > 2 else k), self.min_factor / 2
        if failures > 2 and k > 1:
            return 1, least
        order = k - 1 if k > 1 and errors[k - 1] <= here else k
        return order, min(0.9, max(least, (self.aim / here) ** (1 / (k + 1))))
