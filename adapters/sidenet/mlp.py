"""SideNet for vector states: two-dimensional toy flows and small systems of ODEs."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from ...checks import integer_from
from ..backbones.embedding import LabelEmbedder, ScalarEmbedder


@dataclass(frozen=True)
class MLPSideNetConfig:
    """Shape of an `MLPSideNet`.

    features: length D of the state vector. width: of the hidden layers. layers: hidden layers.
    emb_dim: width of the embeddings of time, offset and label. num_classes: labels
    0..num_classes-1 and the null label num_classes; 0 for fields without labels. time_scale: factor
    on time and offset before the sinusoids.
    """

    features: int
    width: int = 128
    layers: int = 3
    emb_dim: int = 64
    num_classes: int = 0
    time_scale: float = 100.0

    def __post_init__(self) -> None:
        for name in ("features", "width", "layers", "emb_dim"):
            integer_from(1, getattr(self, name), name)
        integer_from(0, self.num_classes, "num_classes")

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


class MLPSideNet(nn.Module):
    """δ(x, v, t, h, y) of `SideNet` for states x, v of shape (B, D): a perceptron on all of them.

    `forward`: x, v (B, D); t, h (B,); y (B,) int64. Returns δ = h S(x, v, t, h, y), (B, D). S is
    zero when new. config: sizes of the network.
    """

    def __init__(self, config: MLPSideNetConfig) -> None:
        super().__init__()
        self.config = c = config
        self.num_classes = c.num_classes
        self.t_embedder = ScalarEmbedder(c.emb_dim, frequencies=64, scale=c.time_scale)
        self.h_embedder = ScalarEmbedder(c.emb_dim, frequencies=64, scale=c.time_scale)
        self.y_embedder = LabelEmbedder(c.num_classes, c.emb_dim)
        layers: list[nn.Module] = []
        # t and h themselves besides their embeddings: what is smooth in them stays easy
        width = 2 * c.features + 2 + 3 * c.emb_dim
        for _ in range(c.layers):
            layers += [nn.Linear(width, c.width), nn.SiLU()]
            width = c.width
        self.hidden = nn.Sequential(*layers)
        self.output = nn.Linear(width, c.features)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.config.features:
            raise ValueError(
                f"this SideNet was made for states (B, {self.config.features}), got "
                f"{tuple(x.shape)}: it belongs to another field"
            )
        parts = (x, v, t[:, None].to(x.dtype), h[:, None].to(x.dtype),
                 self.t_embedder(t), self.h_embedder(h), self.y_embedder(y))  # fmt: skip
        return self.output(self.hidden(torch.cat(parts, dim=-1))) * h[:, None].to(x.dtype)
