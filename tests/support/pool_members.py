"""What the processes of pools run: a module of its own, which a spawned one imports quickly."""

from __future__ import annotations

import torch
from torch import Tensor

import quadflow as qf


def blows_up(t: Tensor, y: Tensor) -> Tensor:
    """y' = y², which ends at t = 1/y0."""
    return y * y


def member(start: float) -> qf.Solution:
    """From `start` to t = 0.5; with gradients where it is negative."""
    y0 = torch.tensor([start], dtype=torch.float64, requires_grad=start < 0)
    return qf.solve(blows_up, y0, (0.0, 0.5), dense_output=True)


def asked(solution: qf.Solution) -> list[float]:
    """The solution between its steps."""
    return solution([0.1, 0.3]).flatten().tolist()
