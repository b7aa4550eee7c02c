"""SiT and diffusers' DiT: the same function both ways, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from quadflow.adapters import FlowField
from quadflow.adapters.backbones.diffusers_dit import (
    from_diffusers,
    set_time_projection,
    to_diffusers,
)
from quadflow.adapters.backbones.sit import SiT, SiTConfig

TINY = SiTConfig(8, width=48, depth=3, heads=4, num_classes=5)


def new(config: SiTConfig) -> SiT:
    torch.manual_seed(0)
    net = SiT(config)
    for parameter in net.parameters():  # adaLN and the last layer too: all zero says nothing
        torch.nn.init.normal_(parameter, std=0.2)
    return net.eval().requires_grad_(False)


def inputs(config: SiTConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    size, classes = config.input_size, config.num_classes
    torch.manual_seed(1)
    x = torch.randn(4, config.in_channels, size, size)
    return x, torch.tensor([0.0, 0.3, 0.77, 1.0]), torch.tensor([0, 2, classes - 1, classes])


def run(model: Any, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(hidden_states=x, timestep=t, class_labels=y).sample


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("sigma", [False, True])
@pytest.mark.parametrize("timesteps", [1.0, 1000.0])
def test_both_ways(patch: int, sigma: bool, timesteps: float) -> None:
    config = replace(TINY, patch=patch, learn_sigma=sigma)
    net, (x, t, y) = new(config), inputs(config)
    model = to_diffusers(net, timesteps=timesteps)
    assert isinstance(model, diffusers.DiTTransformer2DModel) and not model.training
    ours, theirs = net(x, t, y), run(model, x, t * timesteps, y)
    assert theirs.shape[1] == (8 if sigma else 4)
    assert ours.abs().max() > 0.5
    off = (theirs[:, :4] - ours).abs().max() / ours.abs().max()
    # t * 1000 / 1000 rounds, and these random networks amplify it
    assert off <= (1e-6 if timesteps == 1 else 5e-6)
    back = from_diffusers(model, timesteps=timesteps)
    assert back.config == config
    own = net.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in back.state_dict().items())
    assert torch.equal(back(x, t, y), ours)
    model.proj_out_2.bias.zero_()  # all copies
    assert torch.equal(back(x, t, y), ours) and torch.equal(net(x, t, y), ours)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    net = new(TINY).to(dtype)
    model = to_diffusers(net)
    assert model.dtype == dtype
    assert {v.dtype for v in from_diffusers(model).state_dict().values()} == {dtype}


def test_time_scale() -> None:
    config = replace(TINY, time_scale=1000.0)
    net, (x, t, y) = new(config), inputs(config)
    model = to_diffusers(net, timesteps=1000.0)
    assert (run(model, x, t * 1000, y) - net(x, t, y)).abs().max() <= 1e-6 * 10
    assert from_diffusers(model, timesteps=1000.0).config == config
    with pytest.raises(ValueError, match=r"time_scale=1000.0 needs timesteps of at least as much"):
        to_diffusers(net)


def test_as_a_flow_field() -> None:
    net, (x, _, y) = new(TINY), inputs(TINY)
    field = FlowField(to_diffusers(net, timesteps=1000.0), "diffusers", labels=y.clamp(max=4))
    mine = FlowField(net, "repa", labels=y.clamp(max=4))
    with torch.no_grad():
        torch.testing.assert_close(field.evaluate(0.4, x)[0], mine.evaluate(0.4, x)[0],
                                   rtol=1e-5, atol=1e-5)  # fmt: skip


def test_files_lose_the_sinusoids(tmp_path: Path) -> None:
    net, (x, t, y) = new(TINY), inputs(TINY)
    to_diffusers(net).save_pretrained(tmp_path)
    model = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path)
    assert (run(model, x, t, y) - net(x, t, y)).abs().max() > 1e-4
    with pytest.raises(ValueError, match="time_proj of block 0 has downscale_freq_shift=1"):
        from_diffusers(model)
    set_time_projection(model)
    torch.testing.assert_close(run(model, x, t, y), net(x, t, y), rtol=1e-5, atol=1e-5)
    assert from_diffusers(model).config == TINY


@pytest.mark.parametrize(
    ("change", "match"),
    [({"z_dims": (3,), "encoder_depth": 1}, "diffusers has no projectors"),
     ({"mlp_ratio": 2.0}, "diffusers has mlp_ratio=4, this SiT 2.0")],
)  # fmt: skip
def test_sits_that_are_no_dit(change: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        to_diffusers(SiT(replace(TINY, **change)))


def test_another_position_table() -> None:
    net = new(TINY)
    model = to_diffusers(net)
    model.pos_embed.pos_embed.mul_(0.5)
    with pytest.raises(ValueError, match="this model: pos_embed is not the position table"):
        from_diffusers(model)
    net.pos_embed.mul_(0.5)
    with pytest.raises(ValueError, match="this SiT: pos_embed is not the position table"):
        to_diffusers(net)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"norm_eps": 1e-5}, "a SiT has norm_eps=1e-06, this model 1e-05"),
        ({"activation_fn": "gelu"}, "a SiT has activation_fn=gelu-approximate"),
        ({"attention_bias": False}, "a SiT has attention_bias=True"),
        ({"norm_elementwise_affine": True}, "a SiT has norm_elementwise_affine=False"),
        ({"dropout": 0.1}, "a SiT has dropout=0.0"),
        ({"out_channels": 5}, r"as many output channels as input channels \(4\) or twice"),
        ({"sample_size": 9}, "patch=2 does not divide input_size=9"),
    ],
)
def test_dits_that_are_no_sit(change: dict, match: str) -> None:
    given = dict(num_attention_heads=4, attention_head_dim=12, num_layers=2, sample_size=8,
                 num_embeds_ada_norm=5, norm_eps=1e-6)  # fmt: skip
    model = diffusers.DiTTransformer2DModel(**given | change)
    set_time_projection(model)
    with pytest.raises(ValueError, match=match):
        from_diffusers(model)


@pytest.mark.parametrize("part", ["timestep_embedder.linear_2.weight", "class_embedder.embedding"])
def test_blocks_with_embeddings_of_their_own(part: str) -> None:
    model = to_diffusers(new(TINY))
    emb = model.transformer_blocks[2].norm1.emb
    next(p for name, p in emb.named_parameters() if name.startswith(part)).view(-1)[0] += 1.0
    with pytest.raises(ValueError, match=rf"blocks\.2\..*{part}.* differs from that of block 0"):
        from_diffusers(model)


def test_blocks_with_times_of_their_own() -> None:
    model = to_diffusers(new(TINY))
    model.transformer_blocks[1].norm1.emb.time_proj.scale = 2.0
    with pytest.raises(ValueError, match=r"differ in scale: \[1.0, 2.0\]"):
        from_diffusers(model)
    with pytest.raises(TypeError, match="must be a DiTTransformer2DModel, got SiT"):
        from_diffusers(new(TINY))
