"""A small class-conditional U-Net velocity field for 28x28 images: the backbone that is shipped."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import LabelEmbedder, ScalarEmbedder, zeroed


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a `UNet`.

    in_channels: of the images. patch: pixels a side that are folded into channels first. widths:
    channels of every level, from fine to coarse. blocks: residual blocks a level. emb_dim: width of
    the embeddings of time and label. num_classes: labels 0..num_classes-1 and the null label
    num_classes. groups: of the group norms. head_dim: channels of an attention head.
    """

    in_channels: int = 1
    patch: int = 2
    widths: tuple[int, ...] = (32, 96)
    blocks: int = 1
    emb_dim: int = 128
    num_classes: int = 10
    groups: int = 8
    head_dim: int = 32

    def to_dict(self) -> dict[str, object]:
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> UNetConfig:
        given = dict(values)
        given["widths"] = tuple(given["widths"])  # type: ignore[arg-type]
        return cls(**given)  # type: ignore[arg-type]


class ResBlock(nn.Module):
    """GroupNorm-SiLU-conv twice, the second norm scaled and shifted by the embedding (FiLM)."""

    def __init__(self, c_in: int, c_out: int, emb_dim: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = nn.Linear(emb_dim, 2 * c_out)
        self.norm2 = nn.GroupNorm(groups, c_out)
        self.conv2 = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class Attention(nn.Module):
    """Self-attention over all pixels, added to its input."""

    def __init__(self, channels: int, groups: int, head_dim: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_dim)
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, -1).unbind(1)
        out = F.scaled_dot_product_attention(*(a.transpose(-1, -2).contiguous() for a in (q, k, v)))
        return x + self.proj(out.transpose(-1, -2).reshape(b, c, height, width))


class UNet(nn.Module):
    """Velocity v(x, t, y) of a flow with noise at t = 1, data at t = 0: v = noise - data.

    `forward(x, t, y)`: x (B, C, H, W) with H and W divisible by patch * 2**(levels-1); t (B,) in
    [0, 1]; y (B,) int64 in 0..num_classes, num_classes being the null label. Returns (B, C, H, W).

    Works on patches (space to depth), which halves the resolution at no loss of information: that
    is what makes it fast on a CPU. After Ronneberger et al. 2015 and Dhariwal & Nichol 2021, at a
    size that a CPU trains in an hour.
    """

    def __init__(self, config: UNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        emb, groups = config.emb_dim, config.groups
        self.num_classes = config.num_classes
        self.t_embedder = ScalarEmbedder(emb, frequencies=128, scale=1000.0)
        self.y_embedder = LabelEmbedder(config.num_classes, emb)
        self.input_conv = nn.Conv2d(
            config.in_channels * config.patch**2, config.widths[0], 3, padding=1
        )
        last = len(config.widths) - 1
        channels, skips = config.widths[0], [config.widths[0]]
        self.down = nn.ModuleList()
        for level, width in enumerate(config.widths):
            for _ in range(config.blocks):
                self.down.append(ResBlock(channels, width, emb, groups))
                channels = width
                skips.append(channels)
            if level < last:
                self.down.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
                skips.append(channels)
        self.mid_in = ResBlock(channels, channels, emb, groups)
        self.mid_attention = Attention(channels, groups, config.head_dim)
        self.mid_out = ResBlock(channels, channels, emb, groups)
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(config.widths))):
            for _ in range(config.blocks + 1):
                self.up.append(ResBlock(channels + skips.pop(), width, emb, groups))
                channels = width
            if level > 0:
                self.up.append(nn.Conv2d(channels, channels, 3, padding=1))
        self.output_norm = nn.GroupNorm(groups, channels)
        outputs = config.in_channels * config.patch**2
        self.output_conv = zeroed(nn.Conv2d(channels, outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        multiple = self.config.patch * 2 ** (len(self.config.widths) - 1)
        if x.shape[-2] % multiple or x.shape[-1] % multiple:
            raise ValueError(
                f"the sides of x, {tuple(x.shape[-2:])}, are no multiples of {multiple}"
            )
        emb = F.silu(self.t_embedder(t) + self.y_embedder(y))
        h = self.input_conv(F.pixel_unshuffle(x, self.config.patch))
        skips = [h]
        for layer in self.down:
            h = layer(h, emb) if isinstance(layer, ResBlock) else layer(h)
            skips.append(h)
        h = self.mid_out(self.mid_attention(self.mid_in(h, emb)), emb)
        for layer in self.up:
            if isinstance(layer, ResBlock):
                h = layer(torch.cat((h, skips.pop()), dim=1), emb)
            else:
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.output_conv(F.silu(self.output_norm(h))), self.config.patch)
