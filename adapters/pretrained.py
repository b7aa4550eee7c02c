"""Networks from weight files: those that are shipped, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import torch

from .backbones.unet import UNet, UNetConfig
from .checkpoints import CheckpointError, load_into, read_weights
from .sidenet import SideNet, SideNetConfig

Network = TypeVar("Network", UNet, SideNet)


def shipped(name: str) -> Path:
    """Path of a weight file that comes with the package."""
    return Path(str(files("quadflow.adapters.backbones") / "weights" / name))


def _load(make: Callable[[dict[str, object]], Network], kind: str, path: str | Path) -> Network:
    """The network that `make` builds from the config in a weight file, with its weights."""
    tensors, config = read_weights(path)
    try:
        model = make(config)
    except (TypeError, ValueError, KeyError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{path} holds no {kind}: its config is {config}") from error
    load_into(model, tensors, path)
    # channels last is what makes these convolutions fast on a CPU
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval().requires_grad_(False)


def load_unet(path: str | Path | None = None) -> UNet:
    """A `UNet` in float32 and evaluation mode; without a path the shipped Fashion-MNIST one.

    Raises:
        CheckpointError: missing or damaged file, or weights that do not fit.
    """
    return _load(
        lambda config: UNet(UNetConfig.from_dict(config)),
        "U-Net",
        path or shipped("fashion_unet.safetensors"),
    )


def load_sidenet(path: str | Path | None = None) -> SideNet:
    """A `SideNet` in float32 and evaluation mode; without a path the one of the shipped U-Net.

    Raises:
        CheckpointError: missing or damaged file, or weights that do not fit.
    """
    return _load(
        lambda config: SideNet(SideNetConfig(**config)),  # type: ignore[arg-type]
        "SideNet",
        path or shipped("fashion_sidenet.safetensors"),
    )
