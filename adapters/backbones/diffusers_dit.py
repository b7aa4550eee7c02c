"""`SiT` to and from diffusers' `DiTTransformer2DModel`, which computes the same function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...extras import require
from .checkpoints import load_into
from .sit import SiT, SiTConfig
from .sit_checkpoints import check_positions

FREQUENCIES = 256
_SHARED = {
    "timestep_embedder.linear_1.weight": "t_embedder.mlp.0.weight",
    "timestep_embedder.linear_1.bias": "t_embedder.mlp.0.bias",
    "timestep_embedder.linear_2.weight": "t_embedder.mlp.2.weight",
    "timestep_embedder.linear_2.bias": "t_embedder.mlp.2.bias",
    "class_embedder.embedding_table.weight": "y_embedder.embedding_table.weight",
}
_BLOCK = {
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
_ENDS = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
_FIXED = {
    "norm_eps": 1e-6,
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "dropout": 0.0,
}
"""A SiT, in the words of diffusers' config; norm_eps is not the default there."""


def set_time_projection(model: Any, scale: float = 1.0) -> None:
    """Give every block of a `DiTTransformer2DModel` the sinusoids of SiT, of scale * timestep.

    To be done again after `from_pretrained`: diffusers' files do not hold it, and its own default
    takes other frequencies.
    """
    timesteps = require("diffusers.models.embeddings", "diffusers").Timesteps
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj = timesteps(
            FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0, scale=scale
        )


def to_diffusers(sit: SiT, *, timesteps: float = 1.0) -> Any:
    """A `DiTTransformer2DModel` that computes what `sit` computes; evaluation mode, frozen.

    Args:
        sit: without projectors, mlp_ratio = 4; its dtype and device are kept, its weights copied.
        timesteps: what the new model takes is timesteps * t: 1 for SiT's own t, 1000 for diffusers'
            flow schedulers and the "diffusers" convention.

    With learn_sigma it returns all 2C channels, of which SiT's are the first C. Time and sign stay
    those of the training: an original ("sit") network runs the other way than schedulers do. The
    time MLP and the label table are held once a block (750M parameters for XL instead of 675M).

    Raises:
        ValueError: projectors, another mlp_ratio, time_scale > timesteps, another position table.
        MissingExtraError: diffusers is not installed.
    """
    diffusers = require("diffusers", "diffusers")
    c = sit.config
    if c.z_dims:
        raise ValueError(f"diffusers has no projectors, this SiT has z_dims={c.z_dims}")
    if int(c.width * c.mlp_ratio) != 4 * c.width:
        raise ValueError(f"diffusers has mlp_ratio=4, this SiT {c.mlp_ratio}")
    if not 0 < c.time_scale <= timesteps:
        # diffusers scales after the frequencies: large phases would lose digits
        raise ValueError(
            f"time_scale={c.time_scale} needs timesteps of at least as much, got {timesteps}"
        )
    check_positions(sit.pos_embed.cpu(), c, "this SiT")
    like = sit.pos_embed
    with torch.device("meta"):
        model = diffusers.DiTTransformer2DModel(
            num_attention_heads=c.heads,
            attention_head_dim=c.width // c.heads,
            in_channels=c.in_channels,
            out_channels=c.in_channels * (2 if c.learn_sigma else 1),
            num_layers=c.depth,
            sample_size=c.input_size,
            patch_size=c.patch,
            num_embeds_ada_norm=c.num_classes,
            **_FIXED,
        )
    # not its own .to, which warns of layers to be kept in float32, and has none
    torch.nn.Module.to(model, like.dtype)
    model = model.to_empty(device=like.device)
    load_into(model, _to_names(sit), "this SiT")
    model.pos_embed.pos_embed.copy_(like)
    set_time_projection(model, c.time_scale / timesteps)
    return model.eval().requires_grad_(False)


def _names(depth: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """diffusers' names and ours of every tensor; three of its attentions' are one of ours."""
    for kind in ("weight", "bias"):
        yield from (((f"{theirs}.{kind}",), f"{ours}.{kind}") for theirs, ours in _ENDS.items())
    for i in range(depth):
        block, own = f"transformer_blocks.{i}", f"blocks.{i}"
        yield from (((f"{block}.norm1.emb.{theirs}",), ours) for theirs, ours in _SHARED.items())
        for kind in ("weight", "bias"):
            for theirs, ours in _BLOCK.items():
                yield (f"{block}.{theirs}.{kind}",), f"{own}.{ours}.{kind}"
            yield tuple(f"{block}.attn1.to_{n}.{kind}" for n in "qkv"), f"{own}.attn.qkv.{kind}"


def _to_names(sit: SiT) -> dict[str, Tensor]:
    own = sit.state_dict()
    tensors: dict[str, Tensor] = {}
    for theirs, ours in _names(sit.config.depth):
        tensors.update(zip(theirs, own[ours].chunk(len(theirs)), strict=True))
    return tensors


def from_diffusers(model: Any, *, timesteps: float = 1.0) -> SiT:
    """The `SiT` that computes what a `DiTTransformer2DModel` computes; evaluation mode, frozen.

    Args:
        model: its dtype and device are kept, its weights copied.
        timesteps: as for `to_diffusers`: the model takes timesteps * t, the SiT takes t.

    Raises:
        ValueError: what a SiT cannot be, by name: other sinusoids, norms, activations or channels;
            blocks whose time MLPs or label tables differ; another position table.
        TypeError: no `DiTTransformer2DModel`.
        MissingExtraError: diffusers is not installed.
    """
    diffusers = require("diffusers", "diffusers")
    if not isinstance(model, diffusers.DiTTransformer2DModel):
        raise TypeError(f"model must be a DiTTransformer2DModel, got {type(model).__name__}")
    config = _config(model, timesteps)
    with torch.device("meta"):
        sit = SiT(config)
    like = model.pos_embed.pos_embed
    check_positions(like.cpu(), config, "this model")
    sit = sit.to(model.dtype).to_empty(device=like.device)
    load_into(sit, _from_names(model, config), "this model")
    return sit.eval().requires_grad_(False)


def _config(model: Any, timesteps: float) -> SiTConfig:
    """The SiT that a DiT of diffusers is; refuses what it cannot be."""
    given = model.config
    for name, value in _FIXED.items():
        if given[name] != value:
            raise ValueError(f"a SiT has {name}={value}, this model {given[name]}")
    outputs = given.in_channels if given.out_channels is None else given.out_channels
    if outputs not in (given.in_channels, 2 * given.in_channels):
        raise ValueError(
            f"a SiT has as many output channels as input channels ({given.in_channels}) or twice "
            f"as many, this model {outputs}"
        )
    scales = set()
    for i, block in enumerate(model.transformer_blocks):
        time = block.norm1.emb.time_proj
        if (time.num_channels, time.flip_sin_to_cos) != (FREQUENCIES, True) or (
            time.downscale_freq_shift
        ):
            raise ValueError(
                f"the time_proj of block {i} has downscale_freq_shift={time.downscale_freq_shift}, "
                f"num_channels={time.num_channels}, flip_sin_to_cos={time.flip_sin_to_cos}; a SiT "
                f"has 0, {FREQUENCIES}, True (a file of a converted SiT does not hold this: "
                "set_time_projection restores it)"
            )
        scales.add(float(time.scale))
    if len(scales) > 1:
        raise ValueError(f"the time_proj of the blocks differ in scale: {sorted(scales)}")
    return SiTConfig(
        input_size=given.sample_size,
        patch=given.patch_size,
        in_channels=given.in_channels,
        width=given.num_attention_heads * given.attention_head_dim,
        depth=given.num_layers,
        heads=given.num_attention_heads,
        num_classes=given.num_embeds_ada_norm,
        learn_sigma=outputs != given.in_channels,
        time_scale=scales.pop() * timesteps,
    )


def _from_names(model: Any, config: SiTConfig) -> dict[str, Tensor]:
    theirs = model.state_dict()
    tensors: dict[str, Tensor] = {"pos_embed": model.pos_embed.pos_embed}
    for names, ours in _names(config.depth):
        parts = [theirs.pop(name) for name in names]
        value = torch.cat(parts) if parts[1:] else parts[0]
        if not torch.equal(tensors.setdefault(ours, value), value):
            raise ValueError(f"{names[0]} differs from that of block 0: a SiT has one for all")
    if theirs:
        raise ValueError(f"a SiT has nothing for {sorted(theirs)} of this model")
    return tensors
