"""Parts of networks that the backbones and SideNet share: embeddings of time and class label,
layers that start at zero, the check of a state's shape."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", bound="nn.Linear | nn.Conv2d")


def zeroed(layer: Layer) -> Layer:
    """A new layer with its weights and its bias set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def check_states(x: Tensor, channels: int, side: int) -> None:
    """Raise ValueError unless x is a batch of square states, (B, channels, side, side)."""
    if x.dim() != 4 or x.shape[1:] != (channels, side, side):
        raise ValueError(f"x must be (B, {channels}, {side}, {side}), got {tuple(x.shape)}")


def sinusoidal_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Cosines then sines of `t` at `dim/2` geometric frequencies from 1 down to 1/max_period.

    Args:
        t: times, shape (B,), floating point.
        dim: even width of the embedding.
        max_period: the longest period over 2π.

    Returns:
        float32 tensor (B, dim), or float64 when `t` is float64.

    Source: Vaswani et al. 2017, section 3.5, in the ordering of Peebles & Xie 2023 (DiT).
    """
    if dim % 2:
        raise ValueError(f"dim must be even, got {dim}")
    dtype = torch.float64 if t.dtype == torch.float64 else torch.float32
    half = dim // 2
    exponents = torch.arange(half, dtype=dtype, device=t.device) / half
    phases = t.to(dtype)[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat((phases.cos(), phases.sin()), dim=-1)


class ScalarEmbedder(nn.Module):
    """A scalar (time or time offset) through sinusoids and a two-layer MLP: (B,) -> (B, dim).

    `scale` multiplies the scalar first: 1 is what SiT and the published SideNet do, 1000 spreads
    t in [0, 1] over all frequencies, which a small network needs.
    """

    def __init__(self, dim: int, frequencies: int = 256, scale: float = 1.0) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.scale = scale
        self.mlp = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        dtype = next(self.mlp.parameters()).dtype
        return self.mlp(sinusoidal_embedding(t * self.scale, self.frequencies).to(dtype))


class LabelEmbedder(nn.Module):
    """Class labels (B,) int64 in 0..num_classes to (B, dim); index num_classes is "no class"."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding_table = nn.Embedding(num_classes + 1, dim)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)
