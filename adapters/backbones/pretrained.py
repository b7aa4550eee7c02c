"""Networks from weight files: those that are shipped, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..sidenet.network import SideNet, SideNetConfig
from ..sidenet.published import read_published_sidenet
from .checkpoints import CheckpointError, is_torch_file, load_into, read_weights
from .sit import SiT, SiTConfig
from .sit_checkpoints import check_positions
from .unet import UNet, UNetConfig

Network = TypeVar("Network", bound="UNet | SiT | SideNet")
Config = dict[str, object]


def shipped(name: str) -> Path:
    """Path of a weight file that comes with the package."""
    return Path(str(files("quadflow.adapters.backbones") / "weights" / name))


def _build(
    make: Callable[[Config], Network],
    kind: str,
    path: str | Path,
    tensors: dict[str, Tensor],
    config: Config,
) -> Network:
    """The network that `make` builds from a config, with these weights; ready for use."""
    try:
        model = make(config)
    except (TypeError, ValueError, KeyError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{path} holds no {kind}: its config is {config}") from error
    load_into(model, tensors, path)
    net: nn.Module = model
    if isinstance(net, SiT):
        check_positions(tensors["pos_embed"], net.config, path)
    else:
        # channels last is what makes these convolutions fast on a CPU
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.eval().requires_grad_(False)
    return model


def _unet(config: Config) -> UNet:
    return UNet(UNetConfig.from_dict(config))


def _backbone(config: Config) -> UNet | SiT:
    # each kind has a name in its config that the other has not
    if "depth" in config:
        return SiT(SiTConfig.from_dict(config))
    return _unet(config)


def load_backbone(path: str | Path | None = None) -> UNet | SiT:
    """A `UNet` or `SiT` that quadflow wrote, in float32 and evaluation mode.

    Args:
        path: a safetensors file of `save_weights`; its config says which network it is. Without a
            path the shipped Fashion-MNIST U-Net. Published SiT files: `load_sit`.

    Raises:
        CheckpointError: missing or damaged file, another network, or weights that do not fit.
    """
    path = path or shipped("fashion_unet.safetensors")
    return _build(_backbone, "backbone (U-Net or SiT)", path, *read_weights(path))


def load_unet(path: str | Path | None = None) -> UNet:
    """A `UNet` in float32 and evaluation mode; without a path the shipped Fashion-MNIST one.

    Raises:
        CheckpointError: missing or damaged file, or weights that do not fit.
    """
    path = path or shipped("fashion_unet.safetensors")
    return _build(_unet, "U-Net", path, *read_weights(path))


def load_sidenet(path: str | Path | None = None, *, ema: bool = True) -> SideNet:
    """A `SideNet` in float32 and evaluation mode; without a path the one of the shipped U-Net.

    Args:
        path: a safetensors file that quadflow wrote; or a torch file: the published checkpoint
            {side_model, ema_side_model, optimizer, step} or a bare state dict, whose shape is read
            off the tensors (patch = 1, 4 heads, time_scale = 1, as published).
        ema: the averaged weights of a published checkpoint; False: the raw ones. Other files hold
            one set of weights, and are refused for False.

    Raises:
        CheckpointError: missing or damaged file, or weights that do not fit.
    """
    path = path or shipped("fashion_sidenet.safetensors")
    if is_torch_file(path):
        tensors, shape = read_published_sidenet(path, ema=ema)
        config = shape.to_dict()
    else:
        tensors, config = read_weights(path)
        if not ema:
            raise CheckpointError(f"{path} holds one set of weights: ema=False has none to take")
    config.pop("figures", None)  # of its training, see `FittedSideNet`
    return _build(
        lambda config: SideNet(SideNetConfig(**config)),  # type: ignore[arg-type]
        "SideNet",
        path,
        tensors,
        config,
    )
