"""The times at which sweeps evaluate func, as func sees them: rounded to the dtype of time.

A node at t0 + c_i h is seen δ_i beside it, by up to half a rounding of t, so that a velocity which
depends on t comes with an error of f_t δ_i; extrapolating a guess over the next interval amplifies
it by 3 + 2√2 a node. But δ_i is known. With the node's state put on the trajectory at the time that
is seen, y(t_i) + δ_i v_i, its value is the velocity of the trajectory at that time, and the
polynomial through all of them brings it back to the node, as v_i - δ_i v'(t_i). What is left is of
second order in δ/h.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...rules.lagrange import lagrange_derivatives
from ...rules.rule import QuadratureRule

Array = np.ndarray

FARTHEST_SHIFT = 1 / 64
"""The farthest that a node may be moved by rounding, in step sizes. Beyond, in steps of few
roundings of t, the polynomial through the nodes says nothing of their surroundings any more, and
nothing is brought back."""


class SeenTimes(NamedTuple):
    """The times at which func is evaluated, as it sees them, and what they miss the nodes by.

    times: (n,), or (n, B, 1, …, 1) with one a sample: float64 numbers of the time's dtype. shifts:
    their distances from the rule's nodes over the step size, (n, …) against node states. matrix:
    (n, n), differentiates at the nodes (per step size).
    """

    times: Tensor
    shifts: Tensor
    matrix: Tensor


@functools.lru_cache(maxsize=64)
def _derivatives(nodes: bytes) -> Array:
    return lagrange_derivatives(np.frombuffer(nodes))


def derivative_matrix(rule: QuadratureRule, like: Tensor) -> Tensor:
    """The derivatives of the Lagrange basis at the nodes (n, n), for a state `like` this one."""
    return torch.tensor(_derivatives(rule.nodes.tobytes())).to(like.device, like.dtype)


def seen_numbers(
    nodes: Array, t0: float, h: float, dtype: torch.dtype, window: tuple[float, float] | None
) -> tuple[Array, Array]:
    """Times (n,) of nodes (n,) on [0, 1] as func sees them, and their shifts (n,), see `SeenTimes`.

    window: times outside are moved to its nearer end.
    """
    offsets = nodes * h
    times = _rounded(offsets + t0, dtype)
    if window is not None:
        times = times.clip(*window)
    # the difference is exact wherever t0 is large enough for its rounding to matter
    shifts = ((times - t0) - offsets) / h
    return times, shifts if np.abs(shifts).max() <= FARTHEST_SHIFT else np.zeros_like(shifts)


def seen_by_samples(
    nodes: Tensor, t0: Tensor, h: Tensor, dtype: torch.dtype, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """`seen_numbers` for every sample: t0, h of shape (B, 1, …, 1), the result (n, B, 1, …, 1).

    wanted: bool, like h; the others have shifts of 0.
    """
    offsets = nodes.reshape(-1, *(1,) * h.dim()) * h
    times = (offsets + t0).to(dtype).to(torch.float64)
    moved = wanted & (h != 0)
    shifts = ((times - t0) - offsets) / torch.where(moved, h, 1.0)
    moved = moved & (shifts.abs().amax(0) <= FARTHEST_SHIFT)
    return times, torch.where(moved, shifts, 0.0)


def _rounded(times: Any, dtype: torch.dtype) -> Any:
    """Times as numbers of this dtype, in float64."""
    return times if dtype is torch.float64 else np.float64(np.float32(times))
