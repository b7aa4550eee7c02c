"""Sums of velocities and states, of tensors or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

FORMULAS = ("combine", "add_scaled", "product")
"""Functions with formulas of a step, in which the laboratory plants faults."""


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


def add_scaled(y0: Any, v: Any, h: Any) -> Any:
    """y0 + h v, of tensors or arrays, for one step size or for one a sample (a tensor that
    broadcasts against v)."""
    if isinstance(h, Tensor):
        return torch.addcmul(y0, v, h.to(y0.real.dtype))
    if isinstance(y0, Tensor):
        return torch.add(y0, v, alpha=h)
    return y0 + v * h


WRITTEN_OUT = 400
"""Most entries of a state for which a graph has sums in the place of matrix products: measured with
8 nodes, on one core."""


def product(matrix: Any, values: Any) -> Any:
    """matrix (m, n) times values (n, numel). In the graph of a small state it is written out as a
    sum, which is joined with what comes before and after, where a matrix product would be a call
    of its own."""
    if isinstance(matrix, np.ndarray):
        return matrix.dot(values)
    if torch.compiler.is_compiling() and values.shape[1] <= WRITTEN_OUT:
        return (matrix.unsqueeze(2) * values).sum(1)
    return torch.mm(matrix, values)
