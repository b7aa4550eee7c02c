"""Published files: SideNet and SiT checkpoints, names and shapes, round trips, refusals."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paths import DATA
from torch import Tensor, nn

from quadflow.adapters import SideNet, SideNetConfig, load_sidenet
from quadflow.adapters.backbones import UNet, UNetConfig
from quadflow.adapters.backbones.checkpoints import CheckpointError, save_weights
from quadflow.adapters.backbones.pretrained import load_backbone
from quadflow.adapters.backbones.sit import SiT, SiTConfig, sit_config
from quadflow.adapters.backbones.sit_checkpoints import load_sit, sit_config_of
from quadflow.adapters.sidenet.published import save_published_sidenet, sidenet_config

LISTINGS = json.loads((DATA / "published_shapes.json").read_text())
SIDE = SideNetConfig(in_channels=3, width=8, emb_dim=12, layers=3, num_classes=4)
SIT = SiTConfig(8, width=48, depth=3, heads=4, num_classes=5)


def shapes_of(listing: dict) -> dict[str, tuple[int, ...]]:
    """A listing's names and shapes; "blocks.*" stands for all blocks."""
    return {
        key.replace("*", str(i)): tuple(shape)
        for key, shape in listing["shapes"].items()
        for i in range(listing["blocks"] if "*" in key else 1)
    }


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return net


def same(first: nn.Module, second: nn.Module) -> bool:
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


# -- names and shapes of the published networks ----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sidenet", lambda: SideNet(SideNetConfig())),
        ("repa", lambda: SiT(sit_config("SiT-XL/2", z_dims=(768,)))),
        ("original", lambda: SiT(sit_config("SiT-XL/2", learn_sigma=True))),
    ],
)
def test_published_names_and_shapes(name: str, make) -> None:
    with torch.device("meta"):
        net = make()
    listing = LISTINGS[name]
    own = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert own == shapes_of(listing)
    sizes = {"sidenet": (41, 2_006_020), "repa": (298, 683_242_512), "original": (292, 675_129_632)}
    assert (len(own), sum(map(math.prod, own.values()))) == sizes[name]
    assert (listing["tensors"], listing["elements"]) == sizes[name]


def meta(name: str) -> dict[str, Tensor]:
    return {k: torch.empty(s, device="meta") for k, s in shapes_of(LISTINGS[name]).items()}


def test_shapes_tell_the_published_configs() -> None:
    assert sidenet_config(meta("sidenet"), "x") == SideNetConfig()
    assert sit_config_of(meta("repa"), "x") == sit_config("SiT-XL/2", z_dims=(768,))
    assert sit_config_of(meta("original"), "x") == sit_config("SiT-XL/2", learn_sigma=True)
    large = meta("repa") | {"pos_embed": torch.empty(1, 1024, 1152, device="meta")}
    assert sit_config_of(large, "x").input_size == 64


@pytest.mark.parametrize("size", ["S", "B", "L", "XL"])
@pytest.mark.parametrize("patch", [2, 4, 8])
def test_heads_of_the_published_sizes(size: str, patch: int) -> None:
    config = sit_config(f"SiT-{size}/{patch}")
    with torch.device("meta"):
        assert sit_config_of(SiT(config).state_dict(), "x") == config


# -- SideNet ---------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, SideNet, SideNet]:
    raw, averaged = randomised(SideNet(SIDE), 1), randomised(SideNet(SIDE), 2)
    path = tmp_path / "side.pt"
    save_published_sidenet(path, raw, averaged, step=7)
    return path, raw, averaged


def test_sidenet_round_trip(published: tuple[Path, SideNet, SideNet]) -> None:
    path, raw, averaged = published
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    found = load_sidenet(path)
    assert found.config == SIDE
    assert same(found, averaged) and same(load_sidenet(path, ema=False), raw)
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert found.input_conv.weight.is_contiguous(memory_format=torch.channels_last)
    value = torch.load(path, weights_only=True)
    assert list(value) == ["side_model", "ema_side_model", "optimizer", "step"]
    assert value["step"] == 7
    torch.optim.AdamW(SideNet(SIDE).parameters()).load_state_dict(value["optimizer"])
    save_published_sidenet(path, raw)
    assert same(load_sidenet(path), raw)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_bare_sidenet(prefix: str, zipped: bool, tmp_path: Path) -> None:
    net, path = randomised(SideNet(SIDE)), tmp_path / "bare.pth"
    tensors = {prefix + k: v for k, v in net.state_dict().items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    assert same(load_sidenet(path), net)
    with pytest.raises(CheckpointError, match="no 'side_model' to take with ema=False"):
        load_sidenet(path, ema=False)


def test_ema_that_is_not_there(published: tuple[Path, SideNet, SideNet]) -> None:
    path = published[0]
    value = torch.load(path, weights_only=True)
    del value["ema_side_model"]
    torch.save(value, path)
    with pytest.raises(CheckpointError, match=r"has no 'ema_side_model' but .*take ema=False"):
        load_sidenet(path)
    assert same(load_sidenet(path, ema=False), published[1])
    with pytest.raises(CheckpointError, match="holds one set of weights"):
        load_sidenet(ema=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"output_conv.weight": None}, "holds no SideNet: missing output_conv.weight"),
        ({"emb_fusion.2.weight": torch.zeros(3)}, r"fusion.2.weight: shape \(3,\), should have 2"),
        ({"emb_fusion.0.bias": None, "new": torch.zeros(1)}, "missing emb_fusion.0.bias; .* new"),
        ({"input_conv.bias": torch.zeros(8)}, "unexpected input_conv.bias"),
        ({"output_conv.bias": torch.full((3,), torch.nan)}, "output_conv.bias: not finite"),
        ({"blocks.9.qkv.weight": torch.zeros(1)}, "does not fit: missing blocks.3"),
        ({"output_conv.weight": torch.zeros(3, 6, 3, 3)}, "holds no SideNet"),
    ],
)  # fmt: skip
def test_wrong_sidenets(
    change: dict[str, Tensor | None], match: str, published: tuple[Path, SideNet, SideNet]
) -> None:
    path = published[0]
    value = torch.load(path, weights_only=True)
    value["ema_side_model"].update(change)
    value["ema_side_model"] = {k: v for k, v in value["ema_side_model"].items() if v is not None}
    torch.save(value, path)
    with pytest.raises(CheckpointError, match=match):
        load_sidenet(path)
    assert same(load_sidenet(path, ema=False), published[1])


@pytest.mark.parametrize("change", [{"patch": 2}, {"heads": 2}, {"time_scale": 1000.0}])
def test_sidenets_that_the_format_has_not(change: dict, tmp_path: Path) -> None:
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"the published format has {name}=.*save_weights"):
        save_published_sidenet(tmp_path / "x", SideNet(replace(SIDE, **change)))
    with pytest.raises(ValueError, match="ema has the shape"):
        save_published_sidenet(tmp_path / "x", SideNet(SIDE), SideNet(replace(SIDE, num_classes=9)))
    assert list(tmp_path.iterdir()) == []


def test_truncated_published_sidenet(published: tuple[Path, SideNet, SideNet]) -> None:
    path = published[0]
    raw = path.read_bytes()
    for size in [*range(0, len(raw), len(raw) // 25), len(raw) - 1]:
        path.write_bytes(raw[:size])
        with pytest.raises(CheckpointError, match="is no readable"):
            load_sidenet(path)


# -- SiT -------------------------------------------------------------------------------------------


def sit_file(path: Path, config: SiTConfig, **told: object) -> dict[str, SiT]:
    """A training checkpoint as REPA writes it, with a Namespace."""
    nets = {"model": randomised(SiT(config), 1), "ema": randomised(SiT(config), 2)}
    value = {k: net.state_dict() for k, net in nets.items()}
    arguments = argparse.Namespace(**{"path_type": "linear", "prediction": "v", **told})
    torch.save(value | {"opt": {"state": {}}, "args": arguments, "steps": 10}, path)
    return nets


@pytest.mark.parametrize("sigma", [False, True])
def test_sit_round_trip(sigma: bool, tmp_path: Path) -> None:
    config, path = replace(SIT, learn_sigma=sigma), tmp_path / "sit.pt"
    nets = sit_file(path, config)
    for prefer in ("ema", "model"):
        found = load_sit(path, prefer=prefer, heads=4)
        assert found.model.config == config
        assert (found.convention, found.weights) == ("sit" if sigma else "repa", prefer)
        assert same(found.model, nets[prefer])
        assert not found.model.training
        assert not any(p.requires_grad or p.is_meta for p in found.model.parameters())
    x, t, y = torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([0, 5])
    assert torch.equal(found.model(x, t, y), nets["model"](x, t, y))
    assert load_sit(path, heads=4, convention="sit").convention == "sit"
    # the weights are copies: the file may change under them
    path.write_bytes(b"\0" * path.stat().st_size)
    assert same(found.model, nets["model"])


def test_bare_sit_in_half_precision(tmp_path: Path) -> None:
    net, path = randomised(SiT(SIT)), tmp_path / "sit.pt"
    torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, path)
    found = load_sit(path, config=SIT, dtype=torch.bfloat16)
    assert found.weights == "state dict"
    assert {v.dtype for v in found.model.state_dict().values()} == {torch.bfloat16}
    assert same(found.model, net.to(torch.bfloat16))
    torch.save(net.state_dict(), path)  # a table that is rounded to bfloat16 is still the table
    assert same(load_sit(path, heads=4).model, net.float())


def test_only_one_set_of_weights(tmp_path: Path) -> None:
    net, path = randomised(SiT(SIT)), tmp_path / "sit.pt"
    torch.save({"model": net.state_dict()}, path)
    assert load_sit(path, heads=4).weights == "model"


def test_projectors(tmp_path: Path) -> None:
    config = replace(SIT, z_dims=(6, 7), projector_dim=10, encoder_depth=2)
    path = tmp_path / "repa.pt"
    nets = sit_file(path, config, encoder_depth=2)
    plain = load_sit(path, heads=4)
    assert plain.model.config == SIT and plain.convention == "repa"
    whole = load_sit(path, heads=4, projectors=True).model
    assert whole.config == config and same(whole, nets["ema"])
    assert same(load_sit(path, config=config).model, whole)
    x, t, y = torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([0, 5])
    assert torch.equal(plain.model(x, t, y), whole(x, t, y))
    assert [f.shape for f in whole.features(x, t, y)] == [(2, 16, 6), (2, 16, 7)]
    sit_file(path, config, encoder_depth=5)
    with pytest.raises(CheckpointError, match="encoder_depth must be in"):
        load_sit(path, heads=4, projectors=True)
    sit_file(path, SIT)
    with pytest.raises(CheckpointError, match="has no projectors"):
        load_sit(path, heads=4, projectors=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"pos_embed": None}, "holds no SiT: missing pos_embed"),
        ({"pos_embed": torch.zeros(1, 15, 48)}, "pos_embed has 15 places, not a square"),
        ({"pos_embed": torch.zeros(1, 16, 48)}, "pos_embed is not the position table of 8x8"),
        ({"pos_embed": torch.zeros(1, 16, 40)}, r"pos_embed: shape \(1, 16, 40\), should be"),
        ({"final_layer.linear.weight": torch.zeros(48, 48)}, "has 48 rows, should be 16 or twice"),
        ({"blocks.1.mlp.fc1.bias": None, "q": torch.zeros(1)}, "missing blocks.1.mlp.fc1.bias; un"),
        ({"blocks.0.attn.q_norm.weight": torch.ones(12)}, "unexpected blocks.0.attn.q_norm.weight"),
        ({"blocks.99999999.x": torch.ones(1)}, "does not fit: missing blocks.3"),
        ({"t_embedder.mlp.0.bias": torch.full((48,), torch.inf)}, "mlp.0.bias: not finite"),
        ({"final_layer.linear.bias": torch.zeros(16).long()}, "int64, should be floating point"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_wrong_sits(change: dict[str, Tensor | None], match: str, tmp_path: Path) -> None:
    tensors: dict = dict(randomised(SiT(SIT)).state_dict()) | change
    path = tmp_path / "sit.pt"
    torch.save({"ema": {k: v for k, v in tensors.items() if v is not None}}, path)
    with pytest.raises(CheckpointError, match=match):
        load_sit(path, heads=4)


def test_refusals_of_load_sit(tmp_path: Path) -> None:
    path = tmp_path / "sit.pt"
    sit_file(path, SIT)
    with pytest.raises(CheckpointError, match="width 48 and depth 3 is of no published size"):
        load_sit(path)
    with pytest.raises(CheckpointError, match="holds no SiT that can be made: width=48"):
        load_sit(path, heads=5)
    with pytest.raises(CheckpointError, match=r"x_embedder.proj.weight: shape \(48, 4, 2, 2\)"):
        load_sit(path, config=replace(SIT, in_channels=3))
    with pytest.raises(ValueError, match="prefer must be"):
        load_sit(path, prefer="raw", heads=4)
    with pytest.raises(ValueError, match="dtype must be floating"):
        load_sit(path, dtype=torch.int8, heads=4)
    with pytest.raises(ValueError, match="convention='reap' is unknown"):
        load_sit(path, convention="reap", heads=4)
    for told in ({"path_type": "cosine"}, {"path_type": "line"}, {"prediction": "score"}):
        sit_file(path, SIT, **told)
        with pytest.raises(CheckpointError, match="was trained with " + next(iter(told))):
            load_sit(path, heads=4)
    save_published_sidenet(path, SideNet(SIDE))
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_sit(path)
    torch.save(SideNet(SIDE).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"holds no SiT: missing x_embedder\.proj\.weight"):
        load_sit(path)
    torch.save(randomised(SiT(SIT)).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"holds no SideNet: missing output_conv\.weight"):
        load_sidenet(path)
    with torch.no_grad():
        big = SiT(SIT)
        big.final_layer.linear.bias.fill_(1e6)
    torch.save(big.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"linear.bias: not finite in torch.float16"):
        load_sit(path, heads=4, dtype=torch.float16)


def test_truncated_sit(tmp_path: Path) -> None:
    path = tmp_path / "sit.pt"
    sit_file(path, SIT)
    raw = path.read_bytes()
    for size in [*range(0, len(raw), len(raw) // 25), len(raw) - 1]:
        path.write_bytes(raw[:size])
        with pytest.raises(CheckpointError, match="is no readable torch file"):
            load_sit(path, heads=4)


# -- load_backbone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_backbones_of_either_kind(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    unet = UNetConfig(widths=(8, 16), emb_dim=16, num_classes=4, groups=4, head_dim=8)
    for net in (UNet(unet), SiT(replace(SIT, time_scale=3.0))):
        save_weights(path, net, net.config.to_dict(), dtype=dtype)
        found = load_backbone(path)
        assert type(found) is type(net) and found.config == net.config
        assert same(found, net.to(dtype).float())
        assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert load_backbone().config == UNetConfig()


def test_backbones_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for config in (SIDE.to_dict(), SIT.to_dict() | {"heads": 5}, {"depth": 3, "wide": 1}):
        save_weights(path, SideNet(SIDE), config, dtype=torch.float32)
        with pytest.raises(CheckpointError, match=r"holds no backbone \(U-Net or SiT\)"):
            load_backbone(path)
    net = SiT(SIT)
    net.pos_embed.copy_(net.pos_embed.roll(1, 1))
    save_weights(path, net, SIT.to_dict(), dtype=torch.float32)
    with pytest.raises(CheckpointError, match="pos_embed is not the position table"):
        load_backbone(path)
