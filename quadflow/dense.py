"""The solution inside an interval: y(t0 + θh) = y0 + h Σ_j w_j(θ) v_j, for θ in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .lagrange import lagrange_integrals

WeightFunction = Callable[[float], Sequence[float]]


def combine(weights: Sequence[float | Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Σ_j weights[j] tensors[j] for Python weights, of which zeros are skipped, or weights that
    broadcast against the tensors (one a sample); nothing is stacked."""
    total: Tensor | None = None
    for weight, tensor in zip(weights, tensors, strict=True):
        if isinstance(weight, Tensor):
            scaled = tensor * weight.to(tensor.real.dtype)
            total = scaled if total is None else total + scaled
        elif weight != 0.0:
            total = tensor * weight if total is None else torch.add(total, tensor, alpha=weight)
    return torch.zeros_like(tensors[0]) if total is None else total


def along(y0: Tensor, v: Tensor, h: float | Tensor) -> Tensor:
    """y0 + h v, for one step size or for one a sample (a tensor that broadcasts against v)."""
    return torch.addcmul(y0, v, h) if isinstance(h, Tensor) else torch.add(y0, v, alpha=h)


@dataclass(frozen=True)
class Segment:
    """One solved interval.

    t0, t1: its ends. y0: the state at t0. velocities: the m velocities that the polynomial is made
    of, a sequence of m tensors or one tensor (m, *shape). weights: θ -> m numbers, the integrals
    from 0 to θ of the basis functions; weights(1) gives the step itself.
    """

    t0: float
    t1: float
    y0: Tensor
    velocities: Sequence[Tensor] | Tensor
    weights: WeightFunction

    def __call__(self, t: float) -> Tensor:
        """The state at time t, of the state's shape."""
        theta = (t - self.t0) / (self.t1 - self.t0)
        mean = combine(self.weights(theta), tuple(self.velocities))
        return along(self.y0, mean, self.t1 - self.t0)


def lagrange_weights(nodes: ArrayLike, fold: np.ndarray | None = None) -> WeightFunction:
    """Weights of the velocity polynomial through `nodes` (θ of each); on L v when `fold` is L."""

    def weights(theta: float) -> Sequence[float]:
        row = lagrange_integrals(nodes, np.array([theta]))[0]
        values: list[float] = (row if fold is None else row @ fold).tolist()
        return values

    return weights


def polynomial_weights(coefficients: np.ndarray) -> WeightFunction:
    """Weights w_j(θ) = Σ_m coefficients[j, m] θ^(m+1), as interpolants are tabulated."""
    powers = np.arange(1, coefficients.shape[1] + 1)

    def weights(theta: float) -> Sequence[float]:
        values: list[float] = (coefficients @ theta**powers).tolist()
        return values

    return weights
