"""The network of a fitted sampler: what the polynomial through the anchors misses, by one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import integer_from
from ..backbones.embedding import LabelEmbedder, sinusoidal_embedding
from ..sidenet.network import ConvBlock, channel_rms_norm
from .features import FeatureLayout

FREQUENCIES = 32
"""Of each of the four numbers that a call is told: noise fraction, the steps before and after it,
guidance scale."""


@dataclass(frozen=True)
class ResidualConfig:
    """Shape of a `Residual`.

    state: shape of one state: (C, H, W), or (D,) for vectors. features: what it gets of the
    backbone's, None for nothing. halves: 2 where it must serve guided pairs. num_classes: labels
    0..num_classes-1 and the null label num_classes; 0 without labels. fold: pixels a side that
    become one position; the features' own where there are any. width, blocks, emb_dim: sizes.
    """

    state: tuple[int, ...]
    features: FeatureLayout | None = None
    halves: int = 1
    num_classes: int = 0
    fold: int = 1
    width: int = 64
    blocks: int = 4
    emb_dim: int = 96

    def __post_init__(self) -> None:
        if len(self.state) not in (1, 3):
            raise ValueError(
                f"state must be (C, H, W) or (D,), got {self.state}: no network is made for such "
                "states; fit with network=False"
            )
        for name in ("halves", "fold", "width", "blocks", "emb_dim"):
            integer_from(1, getattr(self, name), name)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ResidualConfig:
        """What `to_dict` gave, after a way through JSON."""
        features = values.get("features")
        if features is not None:
            features = FeatureLayout(**{**features, "positions": tuple(features["positions"])})
        return cls(**{**values, "state": tuple(values["state"]), "features": features})


def fold_for(state: Sequence[int], features: FeatureLayout | None) -> int:
    """Pixels a side that become one position: as the features lie, else 2 where 2 divides."""
    if len(state) == 1:
        return 1
    if features is not None and features.positions:
        return state[1] // features.positions[0]
    return 2 if all(side % 2 == 0 for side in state[1:]) else 1


class _VectorBlock(nn.Module):
    """A perceptron with FiLM, added to the input: (B, width)."""

    def __init__(self, width: int, emb_dim: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.emb_proj = nn.Linear(emb_dim, 4 * width)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.emb_proj(emb).chunk(2, dim=1)
        return x + self.second(
            F.silu(self.first(F.layer_norm(x, x.shape[1:])) * (1 + scale) + shift)
        )


class Residual(nn.Module):
    """Two fields of the state's shape from one evaluation; both are zero when new.

    `forward`: x, v, change (B, *state): the state where the backbone was evaluated, the velocity
    there, the change of the velocity since the evaluation before over the time between (zeros at
    the first); features: one tensor a half as the backbone had them; numbers (B, 4): noise
    fraction, the step before, the step after, guidance scale; y (B,) int64.
    """

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.config = c = config
        self.vector = len(c.state) == 1
        folded = c.state[0] * c.fold ** (len(c.state) - 1)
        extra = 0 if c.features is None else c.features.channels * c.halves
        self.y_embedder = LabelEmbedder(c.num_classes, c.emb_dim)
        self.embed = nn.Sequential(
            nn.Linear(4 * FREQUENCIES + c.emb_dim, c.emb_dim), nn.SiLU(),
            nn.Linear(c.emb_dim, c.emb_dim), nn.SiLU(),
        )  # fmt: skip
        inputs = 3 * folded + extra
        block: Any = _VectorBlock if self.vector else ConvBlock
        self.enter = nn.Linear(inputs, c.width) if self.vector else nn.Conv2d(inputs, c.width, 1)
        self.blocks = nn.ModuleList(block(c.width, c.emb_dim) for _ in range(c.blocks))
        self.leave: nn.Module = (
            nn.Linear(c.width, 2 * folded) if self.vector else nn.Conv2d(c.width, 2 * folded, 1)
        )
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        v: Tensor,
        change: Tensor,
        features: Sequence[Tensor],
        numbers: Tensor,
        y: Tensor,
    ) -> tuple[Tensor, Tensor]:
        c = self.config
        parts = [self._folded(a) for a in (x, v, change)]
        if c.features is not None:
            parts += self._features(features, parts[0])
        told = sinusoidal_embedding(numbers.reshape(-1), FREQUENCIES).to(x.dtype)
        emb = self.embed(torch.cat((told.reshape(len(x), -1), self.y_embedder(y)), dim=1))
        h = self.enter(torch.cat(parts, dim=1))
        for block in self.blocks:
            h = block(h, emb)
        norm = (lambda a: F.layer_norm(a, a.shape[1:])) if self.vector else channel_rms_norm
        out = self.leave(F.silu(norm(h)))
        if c.fold > 1:
            out = F.pixel_shuffle(out, c.fold)
        first, second = out.chunk(2, dim=1)
        return first, second

    def _folded(self, x: Tensor) -> Tensor:
        if self.vector:
            return x
        return F.pixel_unshuffle(x, self.config.fold) if self.config.fold > 1 else x

    def _features(self, features: Sequence[Tensor], like: Tensor) -> list[Tensor]:
        """The features of every half, zeros for one that was not evaluated."""
        layout = self.config.features
        assert layout is not None
        found = []
        for raw in features:
            arranged = layout.arrange(raw.to(like.dtype))
            if not layout.positions:
                arranged = F.layer_norm(arranged, arranged.shape[1:])
                if not self.vector:
                    arranged = arranged[:, :, None, None].expand(-1, -1, *like.shape[2:])
            else:
                arranged = channel_rms_norm(arranged)
            found.append(arranged)
        return found + [torch.zeros_like(found[0])] * (self.config.halves - len(found))
