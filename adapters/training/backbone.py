"""Flow-matching training of a small backbone."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from ..backbones.checkpoints import save_weights
from ..backbones.sit import SiT, SiTConfig
from ..backbones.unet import UNet, UNetConfig
from ..data.datasets import Images
from .fit import FitConfig, Hooks, Recording, fit, make_accelerator
from .previews import sample_grids
from .random import Draws


def train_backbone(
    data: Images,
    out: str | Path,
    *,
    config: FitConfig,
    shape: UNetConfig | SiTConfig,
    label_dropout: float = 0.1,
    recording: Recording | None = None,
) -> UNet | SiT:
    """Train a network on the linear path x_t = (1-t) x + t noise, velocity noise - x; save its EMA.

    Under `accelerate launch` every process calls it with the same arguments.

    Args:
        data: images with labels.
        out: the safetensors file, float16, renewed at every checkpoint.
        config: optimisation constants.
        shape: of the network (channels, size and classes must be the data's).
        label_dropout: probability with which a label becomes the null label, for guidance.
        recording: log, checkpoints, resuming and pictures, see `Recording`.

    Raises:
        ValueError: a network of another number of channels or classes than the data, data without
            labels; what `fit` raises.
        FloatingPointError: see `fit`.

    Source: Lipman et al. 2023 (flow matching), Ho & Salimans 2022 (label dropout).
    """
    if (shape.in_channels, shape.num_classes) != (data.shape[0], data.num_classes):
        raise ValueError(
            f"shape has {shape.in_channels} channels and {shape.num_classes} classes; the data "
            f"have {data.shape[0]} and {data.num_classes}"
        )
    if not 0 <= label_dropout <= 1:
        raise ValueError(f"label_dropout must be in [0, 1], got {label_dropout}")
    recording = recording or Recording()
    accelerator = make_accelerator(config.mixed_precision)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = SiT(shape) if isinstance(shape, SiTConfig) else UNet(shape)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    null = shape.num_classes

    def loss(draws: Draws) -> torch.Tensor:
        images, labels = data.batch(draws.integers(len(data)).cpu())
        x = images.to(draws.device)
        if labels is None:
            labels = torch.full((len(x),), null)
        y = draws.dropped(labels.to(draws.device), null, label_dropout)
        t = draws.uniform()
        noise = draws.normal(data.shape)
        s = t[:, None, None, None]
        return F.mse_loss(model((1 - s) * x + s * noise, t, y).float(), noise - x)

    def checkpoint(ema: torch.nn.Module) -> None:
        save_weights(out, ema, shape.to_dict(), dtype=torch.float16)

    name = "SiT" if isinstance(shape, SiTConfig) else "U-Net"
    ema = fit(
        model,
        loss,
        config,
        recording=recording,
        hooks=Hooks(
            checkpoint, sample_grids(recording.samples, data.shape, null, seed=config.seed)
        ),
        fingerprint={
            "network": name,
            **{f"shape.{k}": v for k, v in shape.to_dict().items()},
            "label_dropout": label_dropout,
            "data": data.identity(),
        },
        accelerator=accelerator,
        description=name,
    )
    assert isinstance(ema, (UNet, SiT))
    return ema
