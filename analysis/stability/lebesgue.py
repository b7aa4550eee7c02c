"""Lebesgue constants: how much polynomial interpolation on some nodes can amplify."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar


def lebesgue_function(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Σ_i |ℓ_i(x)|, ℓ_i being the Lagrange basis on the nodes.

    Args:
        nodes: (n,) float64, different. x: any shape, float64.

    Returns:
        An array of the shape of x, with a relative error of about n rounding errors (products, no
        differences of large numbers).
    """
    points = np.asarray(x, dtype=np.float64)
    total = np.zeros_like(points)
    for i, c in enumerate(nodes):
        others = np.delete(nodes, i)
        total += np.abs(np.prod((points[..., None] - others) / (c - others), axis=-1))
    return total


def lebesgue_constant(nodes: np.ndarray) -> float:
    """The maximum of `lebesgue_function` over [0, 1], to at least 10 digits.

    Between two neighbouring nodes the function is a polynomial with one maximum; outside them it
    grows towards the end of the interval.

    Args:
        nodes: (n,) float64, ascending, in [0, 1].
    """
    best = float(lebesgue_function(nodes, np.array([0.0, 1.0])).max())
    for low, high in zip(nodes[:-1].tolist(), nodes[1:].tolist(), strict=True):
        found = minimize_scalar(
            lambda x: -float(lebesgue_function(nodes, np.asarray(x))),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-10 * (high - low)},
        )
        best = max(best, -float(found.fun))
    return best
