"""Weight files: written whole or not at all, read strictly, never unpickled."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from quadflow.adapters import SideNet, SideNetConfig, load_sidenet, load_unet
from quadflow.adapters.backbones.checkpoints import (
    CheckpointError,
    load_into,
    read_weights,
    save_weights,
)
from quadflow.adapters.backbones.pretrained import load_backbone, shipped
from quadflow.adapters.backbones.sit_checkpoints import load_sit

SMALL = SideNetConfig(in_channels=1, patch=4, width=8, emb_dim=8, heads=2, num_classes=3)


def test_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = SideNet(SMALL)
    path = tmp_path / "net.safetensors"
    save_weights(path, net, SMALL.to_dict(), dtype=torch.float32)
    again = load_sidenet(path)
    assert again.config == SMALL
    for (name, mine), theirs in zip(net.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_all_that_does_not_fit_is_listed() -> None:
    net = nn.Linear(2, 3)
    tensors = {"weight": torch.zeros(3, 3), "scale": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_into(net, tensors, "file.safetensors")
    message = str(caught.value)
    for part in ("file.safetensors does not fit", "missing bias", "unexpected scale",
                 "weight: shape (3, 3), should be (3, 2)"):  # fmt: skip
        assert part in message
    with pytest.raises(CheckpointError, match="bias: not finite"):
        load_into(net, {"weight": torch.zeros(3, 2), "bias": torch.full((3,), torch.nan)}, "x")
    assert torch.isfinite(net.bias).all()


def bad_files(folder: Path) -> dict[str, Path]:
    good = shipped("fashion_unet.safetensors").read_bytes()
    files = {name: folder / name for name in ("cut", "noise", "pickle", "empty", "plain")}
    files["cut"].write_bytes(good[: len(good) // 2])
    files["noise"].write_bytes(np.random.default_rng(0).bytes(5000))
    torch.save({"weight": torch.zeros(2)}, files["pickle"])
    files["empty"].write_bytes(b"")
    save_file({"weight": torch.zeros(2)}, files["plain"])
    return files | {"missing": folder / "missing"}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cut", "cut is no readable safetensors file"),
        ("noise", "noise is no readable safetensors file"),
        ("pickle", "pickle is no readable safetensors file"),
        ("empty", "empty is no readable safetensors file"),
        ("plain", "plain has no 'config' in its metadata"),
        ("missing", "no weight file at .*missing"),
    ],
)
@pytest.mark.parametrize("load", [load_unet, load_backbone, load_sidenet, read_weights])
def test_bad_files_are_refused(tmp_path: Path, load, name: str, match: str) -> None:
    if load is load_sidenet and name == "pickle":  # torch files may be published SideNets
        match = "pickle holds no SideNet: missing output_conv.weight"
    with pytest.raises(CheckpointError, match=match):
        load(bad_files(tmp_path)[name])


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Trap:
        def __reduce__(self):
            return (marker.write_text, ("yes",))

    torch.save(Trap(), tmp_path / "trap")
    for load in (load_unet, load_backbone, load_sidenet, load_sit):
        with pytest.raises(CheckpointError):
            load(tmp_path / "trap")
    assert not marker.exists()


def test_the_other_network_is_refused() -> None:
    with pytest.raises(CheckpointError, match="holds no SideNet: its config is"):
        load_sidenet(shipped("fashion_unet.safetensors"))
    with pytest.raises(CheckpointError, match="holds no U-Net: its config is"):
        load_unet(shipped("fashion_sidenet.safetensors"))


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(path, nn.Linear(1, 1), {}, dtype=torch.float32)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(path, nn.Linear(2, 2), {}, dtype=torch.float32)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "load", "megabytes", "parameters"),
    [("fashion_unet", load_unet, 5, 1_336_196), ("fashion_sidenet", load_sidenet, 2, 431_856)],
)
def test_shipped_weights(name: str, load, megabytes: float, parameters: int) -> None:
    """float16 in the file, float32 in use, within the size that the repository allows."""
    path = shipped(f"{name}.safetensors")
    assert path.stat().st_size <= megabytes * 1e6
    assert {t.dtype for t in load_file(path).values()} == {torch.float16}
    net = load()
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.num_classes == 10
