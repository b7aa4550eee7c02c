"""SiT, the transformer backbone of REPA and of the published BA-solver."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import integer_from
from .embedding import LabelEmbedder, ScalarEmbedder, check_states, zeroed


@dataclass(frozen=True)
class SiTConfig:
    """Shape of a `SiT`; the defaults are SiT-XL/2 of REPA at 256² pixels (32² latents).

    input_size: pixels (of the latent) a side. patch: pixels a token side. in_channels: of the
    state. width: channels of a token. depth: blocks. heads: of the attention. mlp_ratio: hidden
    width of a block's MLP over `width`. num_classes: labels 0..num_classes-1 and the null label
    num_classes. learn_sigma: the last layer has twice the channels, of which the second half is not
    used (original SiT). z_dims: output widths of the projectors that REPA trains on the tokens
    after `encoder_depth` blocks, none by default; projector_dim: their inner width. time_scale:
    factor on t before the sinusoids.
    """

    input_size: int = 32
    patch: int = 2
    in_channels: int = 4
    width: int = 1152
    depth: int = 28
    heads: int = 16
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    learn_sigma: bool = False
    z_dims: tuple[int, ...] = ()
    encoder_depth: int = 8
    projector_dim: int = 2048
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("input_size", "patch", "in_channels", "width", "depth", "heads"):
            integer_from(1, getattr(self, name), name)
        if self.input_size % self.patch:
            raise ValueError(f"patch={self.patch} does not divide input_size={self.input_size}")
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        if self.width % 4:
            raise ValueError(f"width={self.width} must be a multiple of 4 (2-D positions)")
        if self.z_dims and not 1 <= self.encoder_depth <= self.depth:
            raise ValueError(
                f"encoder_depth must be in [1, depth={self.depth}], got {self.encoder_depth}"
            )

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {"z_dims": list(self.z_dims)}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> SiTConfig:
        given = dict(values)
        given["z_dims"] = tuple(given.get("z_dims", ()))  # type: ignore[arg-type]
        return cls(**given)  # type: ignore[arg-type]


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}
SIT_CONFIGS = {
    f"SiT-{size}/{patch}": SiTConfig(patch=patch, width=width, depth=depth, heads=heads)
    for size, (width, depth, heads) in _SIZES.items()
    for patch in (2, 4, 8)
}
"""The twelve published shapes, by name ("SiT-XL/2"), for 32² latents of 4 channels.

Source: Peebles & Xie 2023, table 1; Ma et al. 2024 (SiT).
"""


def sit_config(name: str, **changes: object) -> SiTConfig:
    """The published shape `name` (a key of `SIT_CONFIGS`) with some fields changed.

    Raises:
        ValueError: unknown name, or a field that does not fit.
    """
    if name not in SIT_CONFIGS:
        raise ValueError(f"name={name!r} is unknown: one of {', '.join(SIT_CONFIGS)}")
    return replace(SIT_CONFIGS[name], **changes)  # type: ignore[arg-type]


def position_table(tokens: int, width: int) -> Tensor:
    """Fixed 2-D positions of tokens x tokens places: (1, tokens², width) float32.

    The first half of the channels encodes the column, the second the row; in each half sines come
    before cosines, at frequencies 10000^(-4i/width).

    Source: Peebles & Xie 2023 (DiT), after He et al. 2022 (MAE).
    """
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    phases = torch.arange(tokens, dtype=torch.float64)[:, None] * omega
    line = torch.cat((phases.sin(), phases.cos()), dim=1)
    column = line[None].expand(tokens, -1, -1)
    row = line[:, None].expand(-1, tokens, -1)
    return torch.cat((column, row), dim=-1).reshape(1, tokens**2, width).float()


class PatchEmbedder(nn.Module):
    """Square patches of the input as tokens: (B, C, H, W) -> (B, HW/patch², width)."""

    def __init__(self, in_channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens (B, N, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        split = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, n, width))


class Mlp(nn.Module):
    """Linear, GELU (tanh form), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale[:, None]) + shift[:, None]


class SiTBlock(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the embedding; the identity when new."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.attn = SelfAttention(width, heads)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, 6 * width)))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(emb).chunk(6, dim=1)
        x = x + gate1[:, None] * self.attn(_modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.mlp(_modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Tokens to patches, after a norm that the embedding shifts and scales."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = _norm(width)
        self.linear = zeroed(nn.Linear(width, out))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), zeroed(nn.Linear(width, 2 * width)))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(emb).chunk(2, dim=1)
        return self.linear(_modulate(self.norm_final(x), shift, scale))


class SiT(nn.Module):
    """Velocity v(x, t, y) of a flow-matching transformer.

    `forward(x, t, y)`: x (B, C, S, S) with S = input_size; t (B,); y (B,) int64 in
    0..num_classes. Returns (B, C, S, S). Which end of t is noise, and the sign of v, are those of
    the training: "repa" for REPA checkpoints, "sit" for the original ones (see `CONVENTIONS`).

    Source: Ma et al. 2024 (SiT), Yu et al. 2025 (REPA); tensor names and shapes are REPA's.
    """

    pos_embed: Tensor

    def __init__(self, config: SiTConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or SiTConfig()
        self.num_classes = c.num_classes
        self.x_embedder = PatchEmbedder(c.in_channels, c.patch, c.width)
        self.t_embedder = ScalarEmbedder(c.width, scale=c.time_scale)
        self.y_embedder = LabelEmbedder(c.num_classes, c.width)
        self.register_buffer("pos_embed", position_table(c.input_size // c.patch, c.width))
        self.blocks = nn.ModuleList(SiTBlock(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        if c.z_dims:
            self.projectors = nn.ModuleList(_projector(c, z) for z in c.z_dims)
        out = c.in_channels * (2 if c.learn_sigma else 1)
        self.final_layer = FinalLayer(c.width, c.patch**2 * out)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self._run(x, t, y, False)[0]

    def features(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The projectors' outputs for the tokens after `encoder_depth` blocks: (B, N, z) each.

        Raises:
            ValueError: the network was made without projectors.
        """
        if not self.config.z_dims:
            raise ValueError("z_dims is empty: this SiT has no projectors")
        return self._run(x, t, y, True)[1]

    def _run(
        self, x: Tensor, t: Tensor, y: Tensor, project: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        c = self.config
        check_states(x, c.in_channels, c.input_size)
        tokens = self.x_embedder(x) + self.pos_embed
        emb = self.t_embedder(t) + self.y_embedder(y)
        projected: tuple[Tensor, ...] = ()
        for i, block in enumerate(self.blocks, 1):
            tokens = block(tokens, emb)
            if project and i == c.encoder_depth:
                projected = tuple(p(tokens) for p in self.projectors)
        out = self._unpatchify(self.final_layer(tokens, emb))
        return out[:, : c.in_channels], projected

    def _unpatchify(self, tokens: Tensor) -> Tensor:
        patch, side = self.config.patch, self.config.input_size // self.config.patch
        b = len(tokens)
        # a token holds (row, column, channel) of its patch
        grid = tokens.reshape(b, side, side, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(b, -1, side * patch, side * patch)


def _projector(config: SiTConfig, z_dim: int) -> nn.Sequential:
    inner = config.projector_dim
    return nn.Sequential(
        nn.Linear(config.width, inner), nn.SiLU(),
        nn.Linear(inner, inner), nn.SiLU(),
        nn.Linear(inner, z_dim),
    )  # fmt: skip
