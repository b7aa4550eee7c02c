"""More of weight files: precisions, every kind of damage, saves that fail half-way."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from quadflow.adapters import SideNet, SideNetConfig, load_sidenet, load_unet
from quadflow.adapters.backbones import UNet, UNetConfig
from quadflow.adapters.backbones.checkpoints import (
    LISTED,
    CheckpointError,
    is_torch_file,
    load_into,
    read_torch,
    read_weights,
    save_weights,
    state_dict_of,
)
from quadflow.adapters.backbones.sit_checkpoints import load_sit
from quadflow.adapters.data.images import save_png, tile

SIDE = SideNetConfig(in_channels=1, width=8, emb_dim=8, layers=3, heads=2, num_classes=4)
UNET = UNetConfig(widths=(8, 16), emb_dim=16, num_classes=4, groups=4, head_dim=8)


@pytest.fixture
def side() -> SideNet:
    torch.manual_seed(0)
    net = SideNet(SIDE)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net


@pytest.fixture
def saved(side: SideNet, tmp_path: Path) -> Path:
    path = tmp_path / "side.safetensors"
    save_weights(path, side, SIDE.to_dict(), dtype=torch.float32)
    return path


def rewrite(path: Path, change: dict[str, Tensor | None]) -> None:
    """Replace, add or (None) remove tensors of a weight file."""
    tensors, config = read_weights(path)
    for name, value in change.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    safetensors.torch.save_file(tensors, path, metadata={"config": json.dumps(config)})


# -- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sidenet_round_trip(side: SideNet, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "side.safetensors"
    save_weights(path, side, SIDE.to_dict(), dtype=dtype)
    tensors, config = read_weights(path)
    assert config == SIDE.to_dict()
    assert {value.dtype for value in tensors.values()} == {dtype}
    loaded = load_sidenet(path)
    assert loaded.config == SIDE
    assert not loaded.training
    for name, value in side.state_dict().items():
        own = loaded.state_dict()[name]
        assert own.dtype == torch.float32
        assert torch.equal(own, value.to(dtype).float()), name
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    # saving takes nothing from the network itself
    assert {value.dtype for value in side.state_dict().values()} == {torch.float32}


def test_unet_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = UNet(UNET), str(tmp_path / "unet.safetensors")
    save_weights(path, model, UNET.to_dict(), dtype=torch.float32)
    loaded = load_unet(path)
    assert loaded.config == UNET
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_saving_again_replaces_the_file(side: SideNet, saved: Path) -> None:
    with torch.no_grad():
        side.output_conv.bias.fill_(3.0)
    save_weights(saved, side, SIDE.to_dict(), dtype=torch.float32)
    assert load_sidenet(saved).output_conv.bias.tolist() == [3.0]
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


# -- strictness ------------------------------------------------------------------------------------


def test_everything_wrong_is_listed_in_one_error(saved: Path) -> None:
    bad = torch.zeros(1)
    bad[0] = float("nan")
    rewrite(
        saved,
        {
            "emb_fusion.0.bias": None,
            "emb_fusion.9.bias": torch.zeros(3),
            "input_conv.weight": torch.zeros(8, 2, 1, 1),
            "output_conv.bias": bad,
        },
    )
    with pytest.raises(CheckpointError) as caught:
        load_sidenet(saved)
    message = str(caught.value)
    assert str(saved) in message
    assert "missing emb_fusion.0.bias" in message
    assert "unexpected emb_fusion.9.bias" in message
    assert "input_conv.weight: shape (8, 2, 1, 1), should be (8, 2, 3, 3)" in message
    assert "output_conv.bias: not finite" in message
    assert message.count(";") == 3


def test_a_refused_file_changes_nothing(side: SideNet) -> None:
    before = {name: value.clone() for name, value in side.state_dict().items()}
    wrong = {name: torch.zeros_like(value) for name, value in before.items()}
    wrong.pop("output_conv.bias")
    with pytest.raises(CheckpointError, match=r"here does not fit: missing output_conv\.bias"):
        load_into(side, wrong, "here")
    assert all(torch.equal(value, before[name]) for name, value in side.state_dict().items())


def test_weights_that_overflow_the_files_precision(side: SideNet, tmp_path: Path) -> None:
    """1e6 is infinite in float16: said when it is saved, not when somebody loads it."""
    with torch.no_grad():
        side.output_conv.bias.fill_(1e6)
    path = tmp_path / "side.safetensors"
    with pytest.raises(CheckpointError, match=r"output_conv\.bias.*not finite in torch\.float16"):
        save_weights(path, side, SIDE.to_dict(), dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


# -- damaged files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_truncated_file(keep: float, saved: Path) -> None:
    raw = saved.read_bytes()
    size = int(len(raw) * keep) if isinstance(keep, float) else keep
    saved.write_bytes(raw[:size])
    with pytest.raises(CheckpointError, match="is no readable safetensors file") as caught:
        load_sidenet(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "noise.safetensors"
    generator = torch.Generator().manual_seed(seed)
    path.write_bytes(bytes(torch.randint(256, (10_000,), generator=generator).tolist()))
    for load in (load_unet, load_sidenet):
        with pytest.raises(CheckpointError, match="is no readable safetensors file"):
            load(path)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "legacy torch.save"])
def test_pickles_are_refused_unopened(kind: str, tmp_path: Path) -> None:
    path, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Trap(sprung)))
    else:
        zipped = kind == "torch.save"
        torch.save({"model": Trap(sprung)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="is no readable safetensors file"):
        load_unet(path)
    for read in (load_sidenet, load_sit, read_torch):
        with pytest.raises(CheckpointError, match="is no readable torch file of weights") as caught:
            read(path)
        assert str(path) in str(caught.value)
    assert not sprung.exists()
    with path.open("rb") as file:  # the trap would have worked
        torch.load(file, weights_only=False) if kind != "pickle" else pickle.load(file)
    assert sprung.exists()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="no weight file at") as caught:
            load_unet(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"config": "null"}, {"config": "[1, 2]"}]
)
def test_no_config(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="has no 'config' in its metadata"):
        load_sidenet(path)


def test_config_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, path, metadata={"config": "{width: 8"})
    with pytest.raises(CheckpointError, match="config"):
        load_sidenet(path)


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 3}, {"heads": 0}, {"width": -8}, {"width": "eight"}, {"layers": None},
        {"emb_dim": 2.5}, {"patches": 2},
    ],
)  # fmt: skip
def test_config_of_no_network(change: dict[str, object], saved: Path) -> None:
    tensors, config = read_weights(saved)
    safetensors.torch.save_file(tensors, saved, metadata={"config": json.dumps(config | change)})
    with pytest.raises(CheckpointError, match="holds no SideNet: its config is"):
        load_sidenet(saved)


@pytest.mark.parametrize(
    "change", [{"groups": 0}, {"groups": 3}, {"widths": 8}, {"widths": [-8]}, {"head_dim": 0}]
)
def test_config_of_no_unet(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    config = UNET.to_dict() | change
    save_weights(path, UNet(UNET), config, dtype=torch.float32)
    with pytest.raises(CheckpointError, match="holds no U-Net: its config is"):
        load_unet(path)


def test_weights_of_another_size(side: SideNet, saved: Path) -> None:
    save_weights(saved, side, replace(SIDE, num_classes=7).to_dict(), dtype=torch.float32)
    with pytest.raises(CheckpointError, match=r"embedding_table\.weight: shape \(5, 8\), should"):
        load_sidenet(saved)


def test_long_lists_are_cut_and_counted() -> None:
    net = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(20))
    with pytest.raises(CheckpointError) as caught:
        load_into(net, {"foreign": torch.zeros(1), "0.bias": torch.zeros(2)}, "here")
    message = str(caught.value)
    assert message.count("missing ") == LISTED
    assert f"; and {39 - LISTED} more missing; unexpected foreign; 0.bias: shape (2,)" in message


def test_numbers_that_are_no_weights() -> None:
    tensors = {"weight": torch.zeros(1, 1, dtype=torch.int64), "bias": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"weight: torch.int64, should be floating point"):
        load_into(torch.nn.Linear(1, 1), tensors, "here")


# -- torch files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    value = {"a": torch.arange(5.0), "args": argparse.Namespace(x=[1, "y"]), "step": 3}
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    assert is_torch_file(path)
    found = read_torch(path)
    assert isinstance(found, dict)
    assert torch.equal(found["a"], value["a"])
    assert (found["args"], found["step"]) == (value["args"], 3)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
    raw = path.read_bytes()
    places = {0, 1, 3, 8, 9, 64, 200, len(raw) // 2, len(raw) - 100, len(raw) - 23, len(raw) - 1}
    for size in places:
        path.write_bytes(raw[:size])
        with pytest.raises(CheckpointError, match="is no readable torch file of weights"):
            read_torch(path)


def test_safetensors_are_no_torch_files(tmp_path: Path) -> None:
    """Also where the length of the header begins like a pickle."""
    path = tmp_path / "w.safetensors"
    for length in range(32):
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, metadata={"x": "y" * 8 * length})
        assert not is_torch_file(path)
    assert not is_torch_file(tmp_path) and not is_torch_file(tmp_path / "none")


def test_ddp_prefix_is_all_or_nothing() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert set(state_dict_of({"module.a": one, "module.b": two}, "x")) == {"a", "b"}
    assert set(state_dict_of({"module.a": one, "b": two}, "x")) == {"module.a", "b"}


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (torch.zeros(1), "x holds no state dict but a Tensor"),
        ({}, "an empty mapping"),
        ({"a": 1, "b": torch.zeros(1)}, "'a' is a int"),
        ({1: torch.zeros(1)}, "1 is a Tensor"),
        ({"a": torch.zeros(1, device="meta")}, "'a' is no dense tensor with data"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is no dense tensor with data"),
    ],
)
def test_what_is_no_state_dict(value: object, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        state_dict_of(value, "x")


# -- atomic writes ---------------------------------------------------------------------------------


def fail(*arguments: object, **named: object) -> None:
    raise OSError("no space left on device")


def half_written(tensors: object, path: str, metadata: object) -> None:
    Path(path).write_bytes(b"half a file")
    fail()


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("broken", ["save_file", "save_file before", "replace"])
def test_a_failed_save_leaves_what_was_there(
    broken: str, existing: bool, side: SideNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "side.safetensors"
    if existing:
        path.write_bytes(b"the old one")
    if broken == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(
            safetensors.torch, "save_file", half_written if broken == "save_file" else fail
        )
    with pytest.raises(OSError, match="no space left"):
        save_weights(path, side, SIDE.to_dict(), dtype=torch.float32)
    assert [p.name for p in tmp_path.iterdir()] == ([path.name] if existing else [])
    assert not existing or path.read_bytes() == b"the old one"


def test_a_failed_picture_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        save_png(tmp_path / "x.png", tile(torch.zeros(1, 1, 2, 2), 1))
    assert list(tmp_path.iterdir()) == []


# -- what is shipped -------------------------------------------------------------------------------
