"""Networks from weight files: those that are shipped, or the user's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import torch

from .backbones.unet import UNet, UNetConfig
from .checkpoints import CheckpointError, load_into, read_weights
from .sidenet import SideNet, SideNetConfig

Network = TypeVar("Network", UNet, SideNet)

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
"""What the labels 0 to 9 of Fashion-MNIST mean."""


def shipped(name: str) -> Path:
    """Path of a weight file that comes with the package."""
    return Path(str(files("quadflow.adapters.backbones") / "weights" / name))


def _ready(model: Network) -> Network:
    # channels last is what makes these convolutions fast on a CPU
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)


def load_unet(path: str | Path | None = None) -> UNet:
    """A `UNet` in float32 and evaluation mode; without a path the shipped Fashion-MNIST one.

    Raises:
        CheckpointError: missing or damaged file, or weights that do not fit.
    """
    path = path or shipped("fashion_unet.safetensors")
    tensors, config = read_weights(path)
    try:
        model = UNet(UNetConfig.from_dict(config))
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} holds no U-Net: its config is {config}") from error
    load_into(model, tensors, path)
    return _ready(model)


def load_sidenet(path: str | Path | None = None) -> SideNet:
    """A `SideNet` in float32 and evaluation mode; without a path the one of the shipped U-Net.

    Raises:
        CheckpointError: missing or damaged file, or weights that do not fit.
    """
    path = path or shipped("fashion_sidenet.safetensors")
    tensors, config = read_weights(path)
    try:
        model = SideNet(SideNetConfig(**config))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no SideNet: its config is {config}") from error
    load_into(model, tensors, path)
    return _ready(model)
