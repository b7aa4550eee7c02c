"""Velocities that are small networks, and the data that a neural ODE is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NetworkVelocity(nn.Module):
    """f(t, y) = MLP(y), tanh between the layers; t is not used, so any leading axes broadcast.

    widths: from the state's size over the hidden ones back to the state's size. The weights are
    the same every time, small enough that the flow stays in the region of its start.
    """

    def __init__(self, widths: Sequence[int], *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers: list[nn.Module] = []
            for i in range(len(widths) - 1):
                layers += [nn.Linear(widths[i], widths[i + 1], dtype=dtype), nn.Tanh()]
            self.net = nn.Sequential(*layers[:-1])

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt, of y's shape (..., widths[0])."""
        return self.net(y)


def start_states(batch: int, size: int, *, dtype: torch.dtype) -> Tensor:
    """(batch, size) standard normal states, the same every time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, size, generator=generator, dtype=torch.float64).to(dtype)
