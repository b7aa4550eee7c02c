"""Score networks of galaxy images, trained by the authors of the package galaxygrad, as a flow.

Neither weights nor code of that package are here: the weights are read from the user's own copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ...checks import check_choice, integer_from
from ...extras import MissingExtraError
from .checkpoints import CheckpointError, load_into
from .embedding import check_states
from .equinox_files import name_leaves, read_leaves

STRETCH = 0.1
"""The networks see x with pixel = exp(STRETCH · x) - 1."""

LONGEST = 5.0
"""Default of `GalaxyField.longest`."""

GALAXYGRAD = {
    "hsc-32": "eqx_hsc_ScoreNet32.eqx",
    "hsc-64": "eqx_hsc_ScoreNet64.eqx",
    "ztf-32": "eqx_ZTF_ScoreNet32.eqx",
    "ztf-64": "eqx_ZTF_ScoreNet64.eqx",
    "lsst-60": "eqx_lsst_ScoreNet60.eqx",
    "quasar-72": "eqx_quasar_lens72.eqx",
    "roman-120": "eqx_roman_Scorenet120.eqx",
}
"""Files of galaxygrad 0.2.0 by name: survey and pixels a side."""


@dataclass(frozen=True)
class ScoreNetConfig:
    """Shape of a `ScoreNet`; all networks of galaxygrad 0.2.0 have these numbers but for `size`.

    size: pixels a side. patch: pixels a token side. width: channels of a token. hidden: inner width
    of the MLPs over tokens and over channels. blocks: mixer blocks. t_max: the longest VP time,
    which the network sees as 1.
    """

    size: int = 32
    patch: int = 4
    in_channels: int = 1
    width: int = 64
    hidden: int = 512
    blocks: int = 4
    t_max: float = 10.0

    def __post_init__(self) -> None:
        for name in ("size", "patch", "in_channels", "width", "hidden"):
            integer_from(1, getattr(self, name), name)
        if self.size % self.patch:
            raise ValueError(f"patch={self.patch} does not divide size={self.size}")

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return (self.size // self.patch) ** 2


def _mlp(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


class MixerBlock(nn.Module):
    """An MLP over tokens, then one over channels, each after a norm and added: (B, width, N).

    The norms are over tokens and channels together.
    """

    def __init__(self, width: int, tokens: int, hidden: int) -> None:
        super().__init__()
        self.patch_mixer = _mlp(tokens, hidden)
        self.hidden_mixer = _mlp(width, hidden)
        self.norm1 = nn.LayerNorm((width, tokens))
        self.norm2 = nn.LayerNorm((tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.patch_mixer(self.norm1(x))).transpose(1, 2)
        return (x + self.hidden_mixer(self.norm2(x))).transpose(1, 2)


class ScoreNet(nn.Module):
    """Score ∇ log p_t(x) of a variance-preserving diffusion, by an MLP-Mixer.

    `forward(x, t)`: x (B, C, S, S) with S = config.size; t (B,) in [0, t_max]. Returns
    (B, C, S, S). The diffusion is x_t = α data + σ noise, α = exp(-t/2), σ² = 1 - exp(-t). Time
    enters as one more channel, t/t_max at every pixel.

    Source: Tolstikhin et al. 2021 (MLP-Mixer); the shapes are those of galaxygrad 0.2.0.
    """

    def __init__(self, config: ScoreNetConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or ScoreNetConfig()
        self.conv_in = nn.Conv2d(c.in_channels + 1, c.width, c.patch, stride=c.patch)
        self.conv_out = nn.ConvTranspose2d(c.width, c.in_channels, c.patch, stride=c.patch)
        self.blocks = nn.ModuleList(
            MixerBlock(c.width, c.tokens, c.hidden) for _ in range(c.blocks)
        )
        self.norm = nn.LayerNorm((c.width, c.tokens))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        c = self.config
        check_states(x, c.in_channels, c.size)
        plane = (t / c.t_max)[:, None, None, None].expand(-1, 1, c.size, c.size)
        h = self.conv_in(torch.cat((x, plane.to(x.dtype)), dim=1))
        tokens = h.flatten(2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.conv_out(self.norm(tokens).reshape(h.shape))


def _leaf_shapes(config: ScoreNetConfig) -> dict[str, tuple[int, ...]]:
    """The file's leaves in order: those of `ScoreNet` but for jax's convolutions, and t_max."""
    c, kernel = config, (config.patch, config.patch)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in ScoreNet(c).state_dict().items()}
    return shapes | {
        "conv_in.bias": (c.width, 1, 1),
        "conv_out.weight": (c.in_channels, c.width, *kernel),
        "conv_out.bias": (c.in_channels, 1, 1),
        "t_max": (),
    }


def load_scorenet(path: str | Path, config: ScoreNetConfig | None = None) -> ScoreNet:
    """A `ScoreNet` in float32 and evaluation mode, its weights from the .eqx file at `path`.

    Raises:
        CheckpointError: missing or damaged file, or weights that do not fit `config`.
    """
    config = config or ScoreNetConfig()
    tensors = name_leaves(read_leaves(path), _leaf_shapes(config), path)
    t_max = float(tensors.pop("t_max"))
    if t_max != config.t_max:
        raise CheckpointError(f"{path} does not fit: t_max: {t_max}, should be {config.t_max}")
    for name in ("conv_in.bias", "conv_out.bias"):
        tensors[name] = tensors[name].flatten()
    # jax lays a transposed convolution out as the convolution that it is of the spread-out input
    tensors["conv_out.weight"] = tensors["conv_out.weight"].flip(2, 3).transpose(0, 1)
    net = ScoreNet(config)
    load_into(net, tensors, path)
    return net.eval().requires_grad_(False)


class GalaxyField(nn.Module):
    """A `ScoreNet` as the velocity of a flow with noise at t = 1, data at t = 0: v = noise - data.

    `forward(x, t, y)`: x (B, C, S, S), float32 or float64 as the weights are; t (B,) in [0, 1]; y
    is ignored, there are no classes. Returns (B, C, S, S). The convention is "repa".

    The flow's state x at time s is the diffusion's x_vp at time t_vp with σ/(α + σ) = s, that is
    t_vp = log(1 + s²/(1-s)²), and x = x_vp/(α + σ), where α + σ = 1/sqrt((1-s)² + s²). With the
    noise ε = -σ · score(x_vp, t_vp), x = (1-s) data + s ε gives v = (ε - x)/(1-s).

    That holds up to s_max, where t_vp = `longest`. Nearer the noise the network is asked at s_max
    and its data estimate is kept: v(x, s) = v(x, s_max) · s_max/s, or (x - data)/s. Nothing is
    clipped at the data's end: ε vanishes there with σ, so that v(x, 0) = -x exactly.

    v is continuous, but has kinks where a ReLU turns and at s_max: fixed steps converge, at second
    order in the end whatever the method (with a smooth activation rk4 keeps its fourth).

    Args:
        net: the score network.
        longest: t_vp beyond which the network is not asked, within (0, net.config.t_max].

    Raises:
        ValueError: longest out of range, x of another shape.

    Source: Song et al. 2021 (diffusion as an ODE); Lipman et al. 2023 (flow matching).
    """

    num_classes = 0

    def __init__(self, net: ScoreNet, longest: float = LONGEST) -> None:
        super().__init__()
        if not 0 < longest <= net.config.t_max:
            raise ValueError(f"longest must be in (0, {net.config.t_max}], got {longest}")
        self.net, self.config = net, net.config
        self.longest = longest

    @property
    def s_max(self) -> float:
        """The flow time of `longest`."""
        ratio = math.sqrt(math.expm1(self.longest))  # σ/α
        return ratio / (1 + ratio)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        # Near the noise an error of ε reaches the data estimate 1/α times: 12 times at t_vp = 5,
        # 148 times at 10. For hsc-32 the estimate is off by the data's own deviation at 5.5 and by
        # 2.7 times that at 10, where data = mean would do better; so the default stops at 5.
        s = t.reshape(-1, 1, 1, 1)
        asked = s.clamp(0.0, self.s_max)
        alpha_over_sum, sigma_over_sum = 1 - asked, asked
        norm = torch.hypot(alpha_over_sum, sigma_over_sum)  # 1/(α + σ)
        t_vp = torch.log1p((sigma_over_sum / alpha_over_sum).square()).flatten()
        noise = -sigma_over_sum / norm * self.net(x / norm, t_vp)
        v = (noise - x) / alpha_over_sum
        return v * torch.where(s > asked, asked / s, 1.0)


def pixels(x: Tensor) -> Tensor:
    """Brightness of states x at t = 0, exp(STRETCH · x) - 1: sky 0, a galaxy's peak about 1."""
    return torch.expm1(STRETCH * x)


def galaxygrad_file(name: str) -> Path:
    """Path of the weight file `name` in the installed package galaxygrad, which is not imported.

    Raises:
        ValueError: unknown name.
        MissingExtraError: the package is not installed.
    """
    check_choice(name, GALAXYGRAD, "name")
    spec = find_spec("galaxygrad")
    folders = None if spec is None else spec.submodule_search_locations
    if not folders:
        raise MissingExtraError(
            "this needs the weights in the package 'galaxygrad': "
            "pip install --no-deps galaxygrad==0.2.0"
        )
    return Path(next(iter(folders))) / GALAXYGRAD[name]


def load_galaxygrad(
    name: str = "hsc-32",
    path: str | Path | None = None,
    device: torch.device | str | None = None,
    *,
    longest: float = LONGEST,
) -> GalaxyField:
    """A pretrained galaxy model as a flow: float32, evaluation mode, no gradients of its weights.

    Args:
        name: a key of `GALAXYGRAD`; it says how many pixels a side.
        path: the .eqx file; by default the one in the installed package.
        device: of the weights; default CPU.
        longest: see `GalaxyField`.

    Raises:
        ValueError: unknown name, longest out of range.
        MissingExtraError: no path given and the package is not installed.
        CheckpointError: missing or damaged file, or weights of another network.
    """
    check_choice(name, GALAXYGRAD, "name")
    config = ScoreNetConfig(size=int(name.rpartition("-")[2]))
    net = load_scorenet(path or galaxygrad_file(name), config)
    return GalaxyField(net, longest).to(device).eval()
