"""Velocities that are small networks, and the data that a neural ODE is trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NetworkVelocity(nn.Module):
    """f(t, y) = MLP(y), tanh between the layers; t is not used, so any leading axes broadcast.

    widths: from the state's size over the hidden ones back to the state's size. The weights come
    from the seed, small enough that the flow stays in the region of its start.
    """

    def __init__(
        self, widths: Sequence[int], *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for i in range(len(widths) - 1):
                layers += [nn.Linear(widths[i], widths[i + 1], dtype=dtype), nn.Tanh()]
            self.net = nn.Sequential(*layers[:-1])

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt, of y's shape (..., widths[0])."""
        return self.net(y)


def start_states(batch: int, size: int, *, seed: int = 1, dtype: torch.dtype) -> Tensor:
    """(batch, size) standard normal states from the seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, size, generator=generator, dtype=torch.float64).to(dtype)
