"""Backbones by name: what is shipped loads and fits together, what is unknown is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toyflow import seeded

from quadflow.adapters import (
    FlowField,
    SideNet,
    SideNetConfig,
    initial_noise,
    sample,
    save_published_sidenet,
)
from quadflow.adapters.backbones.checkpoints import CheckpointError, save_weights
from quadflow.adapters.backbones.pretrained import shipped
from quadflow.adapters.backbones.registry import (
    SHIPPED,
    NamedBackbone,
    check_pictures,
    load_named,
    load_named_sidenet,
)
from quadflow.adapters.backbones.sit import SiT, SiTConfig
from quadflow.adapters.backbones.sit_checkpoints import HEADS
from quadflow.adapters.sampling.converged import tight_solve
from quadflow.adapters.sampling.sample import default_labels

NAMES = [*SHIPPED, "galaxygrad:hsc-32"]  # `make test` installs galaxygrad


def mid_flow(backbone: NamedBackbone) -> torch.Tensor:
    labels = default_labels(2, backbone.num_classes)
    noise = seeded(2, *backbone.shape, dtype=torch.float32)
    with torch.no_grad():
        return FlowField(backbone.model, backbone.convention, labels)(torch.tensor(0.5), noise)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_velocity(name: str) -> None:
    backbone = load_named(name)
    assert backbone.name == name
    v = mid_flow(backbone)
    assert v.shape == (2, *backbone.shape) and bool(torch.isfinite(v).all())
    assert float(v.std()) > 0.1
    again = load_named(name, image_size=backbone.shape[1])
    assert again.shape == backbone.shape


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_sidenet_that_fits(name: str) -> None:
    backbone = load_named(name)
    labels = default_labels(2, backbone.num_classes)
    noise = seeded(2, *backbone.shape, dtype=torch.float32)
    for method in ("bianchor", "single-anchor"):
        net = load_named_sidenet(backbone, None, method)
        assert net is not None and net.num_classes == backbone.num_classes
        got = sample(
            backbone.model, noise, labels, method=method, nfe=2, sidenet=net,
            convention=backbone.convention,
        )  # fmt: skip
        assert got.stats.nfe == 2 and got.x.shape == noise.shape
        shown = backbone.to_images(got.x)
        assert shown.shape == noise.shape and -1 <= shown.min() < shown.max() <= 1
    for method in ("euler", "pec2", "unipc"):
        assert load_named_sidenet(backbone, None, method) is None


@pytest.mark.parametrize("size", [0, -28, 14, 56])
@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_are_not_the_backbones(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=rf"image_size={size}, but this backbone's is (28|32)"):
        load_named(name, image_size=size)


def test_the_default() -> None:
    backbone = load_named()
    assert (backbone.name, backbone.shape, backbone.num_classes) == (
        "fashion-unet",
        (1, 28, 28),
        10,
    )


@pytest.mark.parametrize(
    ("name", "near"), [("mnist-sitt", "mnist-sit"), ("fashion_unet", "fashion-unet")]
)
def test_unknown_names(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"neither a file nor a known.*did you mean '{near}'"):
        load_named(name)


def test_unknown_names_of_galaxies() -> None:
    with pytest.raises(ValueError, match=r"'hsc-33' is unknown: did you mean 'hsc-32'"):
        load_named("galaxygrad:hsc-33")


def test_a_missing_file_is_no_misspelt_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weight file at"):
        load_named(str(tmp_path / "gone.safetensors"))


def test_a_file_of_a_network_for_any_size(tmp_path: Path) -> None:
    unet = load_named("fashion-unet")
    path = tmp_path / "own.safetensors"
    save_weights(path, unet.model, unet.model.config.to_dict(), dtype=torch.float16)
    with pytest.raises(
        ValueError, match=r"own\.safetensors is a network for any size: give --imag"
    ):
        load_named(str(path))
    for size in (0, -28):
        with pytest.raises(ValueError, match=rf"image_size must be an integer >= 1, got {size}"):
            load_named(str(path), image_size=size)
    own = load_named(str(path), image_size=28)
    assert (own.name, own.shape, own.num_classes, own.sidenet) == ("own", (1, 28, 28), 10, None)
    assert torch.equal(mid_flow(own), mid_flow(unet))  # shipped in half precision too
    assert mid_flow(load_named(str(path), image_size=16)).shape == (2, 1, 16, 16)
    for method in ("bianchor", "single-anchor"):
        with pytest.raises(ValueError, match=f"method {method} on own needs --sidenet"):
            load_named_sidenet(own, None, method)
    assert load_named_sidenet(own, None, "euler") is None
    given = load_named_sidenet(own, shipped("fashion_sidenet.safetensors"), "bianchor")
    assert given is not None and given.num_classes == 10


def test_a_file_that_says_its_size() -> None:
    path = str(shipped("mnist_sit.safetensors"))
    own = load_named(path)
    assert (own.name, own.shape) == ("mnist_sit", (1, 28, 28))
    assert load_named(path, image_size=28).shape == own.shape
    with pytest.raises(ValueError, match="image_size=32, but this backbone's is 28"):
        load_named(path, image_size=32)


def test_files_of_published_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REPA's and the original SiT's, each with the convention that it was trained in."""
    monkeypatch.setitem(HEADS, (48, 3), 4)
    path = tmp_path / "published.pt"
    for sigma, convention in ((False, "repa"), (True, "sit")):
        net = SiT(SiTConfig(8, width=48, depth=3, heads=4, num_classes=5, learn_sigma=sigma))
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        torch.save({"ema": net.state_dict(), "steps": 1}, path)
        own = load_named(str(path))
        assert (own.name, own.shape, own.num_classes) == ("published", (4, 8, 8), 5)
        assert own.convention == convention
        x, t, y = seeded(2, 4, 8, 8, dtype=torch.float32), torch.rand(2), torch.tensor([0, 5])
        assert torch.equal(own.model(x, t, y), net(x, t, y))
        with pytest.raises(ValueError, match="are no pictures but latents"):
            check_pictures(own)
    with pytest.raises(ValueError, match="image_size=9, but this backbone's is 8"):
        load_named(str(path), image_size=9)


def test_files_that_are_no_backbones(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    save_published_sidenet(path, SideNet(SideNetConfig(in_channels=1, width=8, num_classes=2)))
    with pytest.raises(CheckpointError, match=r"other\.pt holds no state dict: 'side_model' is"):
        load_named(str(path))
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="holds no SiT: missing x_embedder"):
        load_named(str(path))
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(CheckpointError, match="is no readable torch file"):
        load_named(str(path))
    path.write_bytes(b"text")
    with pytest.raises(CheckpointError, match="is no readable safetensors file"):
        load_named(str(path))
    with pytest.raises(CheckpointError, match="holds no backbone"):
        load_named(str(shipped("fashion_sidenet.safetensors")))


def test_default_labels_go_round() -> None:
    labels = default_labels(5, 3)
    assert labels is not None and labels.tolist() == [0, 1, 2, 0, 1]
    assert default_labels(5, 0) is None


@pytest.mark.parametrize("name", NAMES)
def test_training_has_brought_the_samples_nearer(name: str) -> None:
    """BA-solver with the shipped SideNet against the untrained one, which is ab2 on this grid."""
    backbone = load_named(name)
    net = load_named_sidenet(backbone, None, "bianchor")
    noise = initial_noise(5, 16, backbone.shape)
    labels = default_labels(16, backbone.num_classes)
    wanted = tight_solve(FlowField(backbone.model, "repa", labels), noise, 40)
    trained = sample(backbone.model, noise, labels, nfe=3, sidenet=net).x
    untrained = sample(backbone.model, noise, labels, method="ab2", nfe=3).x
    assert (trained - wanted).norm() < (untrained - wanted).norm()
