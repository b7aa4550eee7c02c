"""The solution inside an interval: y(t0 + θh) = y0 + h Σ_j w_j(θ) v_j, for θ in [0, 1]."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..rules.decimals import gauss_arrays
from ..rules.lagrange import lagrange_integrals, lagrange_matrix
from .sums import add_scaled, combine

WeightFunction = Callable[[Any], Sequence[Any]]
"""θ -> the m weights: numbers for a float, tensors of θ's shape for a tensor."""


FORMULAS = ("Segment.__call__", "LagrangeWeights.__call__", "PolynomialWeights.__call__")
"""Functions with formulas of a step, in which the laboratory plants faults."""


@dataclass(frozen=True)
class Segment:
    """One solved interval.

    t0, t1: its ends (per-sample times: tensors that broadcast against the state). y0: the state at
    t0. velocities: the m velocities that the polynomial is made of, a sequence of m tensors or one
    tensor (m, *shape). weights: θ -> m numbers, the integrals from 0 to θ of the basis functions;
    weights(1) gives the step itself. end: the state at t1, given where the weights are so large
    that their rounding shows: what the polynomial misses it by is then taken off in proportion to
    θ, which keeps the solution continuous (float ends alone). degree: of the polynomial in θ; None
    stands for m, as of an integrated interpolation polynomial.
    """

    t0: float
    t1: float
    y0: Tensor
    velocities: Sequence[Tensor] | Tensor
    weights: WeightFunction
    end: Tensor | None = None
    degree: int | None = None

    def __call__(self, t: float | Tensor) -> Tensor:
        """The state at time t, of the state's shape; t a float, or float64 times, one a sample."""
        h: Any = self.t1 - self.t0
        if isinstance(t, Tensor) or isinstance(h, Tensor):
            width: Any = torch.as_tensor(h, dtype=torch.float64)
            return self.part((t - self.t0) / torch.where(width == 0, 1.0, width))
        return self.part((t - self.t0) / h)

    def part(self, theta: Any) -> Tensor:
        """The state at t0 + θ(t1 - t0); θ a float, or a float64 tensor, one a sample."""
        h: Any = self.t1 - self.t0
        y = add_scaled(self.y0, combine(self.weights(theta), tuple(self.velocities)), h)
        if self.end is None:
            return y
        at_end = add_scaled(self.y0, combine(self.weights(1.0), tuple(self.velocities)), h)
        return torch.add(y, self.end - at_end, alpha=theta)

    def at(self, times: Sequence[float]) -> Tensor:
        """The states at several times (floats) of an interval with float ends: (T, *shape).

        Each is the same to the last bit whatever the other times are.
        """
        h = self.t1 - self.t0
        thetas = (np.array(times) - self.t0) / h
        if self.end is not None:
            thetas = np.append(thetas, 1.0)
        like, numel = self.y0.real, self.y0.numel()
        # elementwise, not by a matrix product, whose rounding depends on the number of rows; along
        # the times where they are many, which is faster
        by_time = len(thetas) > numel
        shape, row = ((numel, 1), (1, -1)) if by_time else ((1, numel), (-1, 1))
        table = torch.from_numpy(_columns(self.weights, thetas)).to(like)
        mean = combine(
            [column.reshape(row) for column in table],
            [v.reshape(shape) for v in self.velocities],
        )
        states = add_scaled(self.y0.reshape(shape), mean, h)
        states = states.T if by_time else states
        if self.end is not None:
            parts = torch.from_numpy(thetas[:-1]).to(like).reshape(-1, 1)
            states = states[:-1] + parts * (self.end.reshape(1, -1) - states[-1:])
        return states.reshape(-1, *self.y0.shape)

    def parts(self, thetas: tuple[float, ...]) -> Tensor:
        """The states at several θ, the same for all samples where these have ends of their own:
        (len(thetas), *shape). In few operations, of m len(thetas) states' memory."""
        h: Any = self.t1 - self.t0
        velocities, like = self.velocities, self.y0.real
        if not isinstance(velocities, Tensor):
            velocities = torch.stack(tuple(velocities))
        asked = thetas if self.end is None else (*thetas, 1.0)
        table = torch.tensor(_weight_table(self.weights, asked))
        table = table.to(like.device, like.dtype, non_blocking=True)[..., None]
        mean = (table * velocities.reshape(1, len(velocities), -1)).sum(1)
        states = add_scaled(self.y0, mean.reshape(len(asked), *self.y0.shape), h)
        if self.end is None:
            return states
        missed = self.end - states[-1]
        return torch.stack(
            [torch.add(y, missed, alpha=theta) for theta, y in zip(thetas, states, strict=False)]
        )


@functools.lru_cache(maxsize=64)
def _legendre_fold(nodes: tuple[float, ...]) -> np.ndarray:
    """Legendre coefficients of the Lagrange basis of nodes in [0, 1]: (n, n), row j for l_j."""
    n = len(nodes)
    points, weights = gauss_arrays(n)
    basis = lagrange_matrix(nodes, points)  # (q, j)
    legendre = np.polynomial.legendre.legvander(2 * points - 1, n - 1)  # (q, k)
    return np.asarray((basis * weights[:, None]).T @ legendre * (2 * np.arange(n) + 1))


def _legendre_integrals(theta: Any, n: int) -> list[Any]:
    """∫_0^θ P_k(2s - 1) ds for k = 0 … n-1, by the recurrence: floats or tensors like θ."""
    x = 2 * theta - 1
    values = [1.0 + 0 * x, x]
    for k in range(1, n):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
    return [theta] + [(values[k + 1] - values[k - 1]) / (2 * (2 * k + 1)) for k in range(1, n)]


def _combined(matrix: np.ndarray, values: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """matrix (m, n) times n rows (T,), elementwise: (m, T)."""
    total: np.ndarray = matrix[:, :1] * values[0]
    for column, value in zip(matrix.T[1:], values[1:], strict=True):
        total += column[:, None] * value
    return total


class LagrangeWeights:
    """θ -> weights of the velocity polynomial through nodes, see `lagrange_weights`."""

    def __init__(self, nodes: ArrayLike, fold: np.ndarray | None) -> None:
        self._nodes, self._fold = nodes, fold  # made in every step, read in few

    def __call__(self, theta: Any) -> Sequence[Any]:
        points, fold = np.asarray(self._nodes, dtype=np.float64), self._fold
        if points.min() < 0 or points.max() > 1:
            if isinstance(theta, Tensor):
                raise ValueError("per-sample times need nodes inside the interval")
            outside: list[float] = self._outside(np.array([theta]))[0].tolist()
            return outside
        matrix = _legendre_fold(tuple(points.tolist()))
        if fold is not None:
            matrix = fold.T @ matrix
        integrals = _legendre_integrals(theta, len(points))
        if isinstance(theta, Tensor):
            on_device = torch.tensor(matrix).to(theta, non_blocking=True)
            return torch.tensordot(on_device, torch.stack(integrals), 1).unbind(0)
        values: list[float] = (matrix @ np.array(integrals)).tolist()
        return values

    def _outside(self, thetas: np.ndarray) -> np.ndarray:
        rows = lagrange_integrals(self._nodes, thetas)
        return rows if self._fold is None else rows @ self._fold

    def columns(self, thetas: np.ndarray) -> np.ndarray:
        """The weights (m, T) at θ (T,); each column is the same whatever the others are."""
        points = np.asarray(self._nodes, dtype=np.float64)
        if points.min() < 0 or points.max() > 1:
            rows = lagrange_integrals(points, thetas)
            return rows.T if self._fold is None else _combined(self._fold.T, rows.T)
        matrix = _legendre_fold(tuple(points.tolist()))
        if self._fold is not None:
            matrix = self._fold.T @ matrix
        return _combined(matrix, _legendre_integrals(thetas, len(points)))

    def table(self, thetas: Sequence[float]) -> np.ndarray:
        """The weights at several θ: (len(thetas), m)."""
        points = np.asarray(self._nodes, dtype=np.float64)
        if points.min() < 0 or points.max() > 1:
            return self._outside(np.array(thetas))
        return np.array([self(theta) for theta in thetas])


def lagrange_weights(nodes: ArrayLike, fold: np.ndarray | None = None) -> WeightFunction:
    """Weights of the velocity polynomial through `nodes` (θ of each); on L v when `fold` is L.

    Nodes inside the interval are summed in Legendre's basis, which is stable there; nodes that lie
    outside (anchors of earlier intervals) in Lagrange's own.
    """
    return LagrangeWeights(nodes, fold)


@dataclass(frozen=True, eq=False)
class PolynomialWeights:
    """θ -> weights by their coefficients (m, n) in θ^k (1-θ)^(n-k), see `polynomial_weights`."""

    table: np.ndarray

    def __call__(self, theta: Any) -> Sequence[Any]:
        n = self.table.shape[1]
        powers = np.arange(1, n + 1)
        rest = 1 - theta
        if isinstance(theta, Tensor):
            matrix = torch.tensor(self.table).to(theta)
            stacked = torch.stack([theta**p * rest ** (n - p) for p in powers.tolist()])
            return torch.tensordot(matrix, stacked, 1).unbind(0)
        values: list[float] = (self.table @ (theta**powers * rest ** (n - powers))).tolist()
        return values

    def columns(self, thetas: np.ndarray) -> np.ndarray:
        """The weights (m, T) at θ (T,); each column is the same whatever the others are."""
        n, rest = self.table.shape[1], 1 - thetas
        ahead, back = [thetas], [np.ones_like(rest)]
        for _ in range(n - 1):
            ahead.append(ahead[-1] * thetas)
            back.append(back[-1] * rest)
        return _combined(self.table, [a * b for a, b in zip(ahead, back[::-1], strict=True)])


def polynomial_weights(coefficients: np.ndarray) -> WeightFunction:
    """Weights w_j(θ) = Σ_m coefficients[j, m] θ^(m+1), as interpolants are tabulated.

    They are evaluated as Σ_k c_jk θ^k (1-θ)^(n-k): powers of θ alone have coefficients in the
    hundreds in high-order interpolants, which cancel and leave rounding of 1e-13.
    """
    n = coefficients.shape[1]
    return _bernstein(coefficients.astype(np.float64).tobytes(), n)


def _columns(weights: WeightFunction, thetas: np.ndarray) -> np.ndarray:
    """The weights at several θ: (m, T)."""
    if isinstance(weights, (LagrangeWeights, PolynomialWeights)):
        return weights.columns(thetas)
    return np.array([weights(theta) for theta in thetas.tolist()]).T


@functools.lru_cache(maxsize=64)
def _weight_table(weights: WeightFunction, thetas: tuple[float, ...]) -> np.ndarray:
    """The weights at several θ: (len(thetas), m)."""
    if isinstance(weights, LagrangeWeights):
        return weights.table(thetas)
    return np.array([weights(theta) for theta in thetas])


@functools.lru_cache(maxsize=64)
def _bernstein(powers: bytes, n: int) -> PolynomialWeights:
    """The weights of polynomials given by their coefficients in θ^m, m = 1…n: float64 (j, n) as
    bytes. Those in θ^k (1-θ)^(n-k), k = 1…n, are exact but for one rounding."""
    rows = [[Fraction(a) for a in row] for row in np.frombuffer(powers).reshape(-1, n).tolist()]
    table = [
        [
            float(sum(math.comb(n - m, k - m) * row[m - 1] for m in range(1, k + 1)))
            for k in range(1, n + 1)
        ]
        for row in rows
    ]
    return PolynomialWeights(np.array(table))
