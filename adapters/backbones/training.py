"""Flow-matching training of a small backbone."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from ..checkpoints import save_weights
from ..datasets import LabelledImages
from ..embedding import drop_labels
from ..optimisation import FitConfig, fit
from .sit import SiT, SiTConfig
from .unet import UNet, UNetConfig


def train_backbone(
    data: LabelledImages,
    out: str | Path,
    *,
    config: FitConfig,
    shape: UNetConfig | SiTConfig,
    label_dropout: float = 0.1,
    log: str | Path | None = None,
) -> UNet | SiT:
    """Train a network on the linear path x_t = (1-t) x + t noise, velocity noise - x; save its EMA.

    Args:
        data: images and labels.
        out: the safetensors file, float16, renewed at every checkpoint.
        config: optimisation constants.
        shape: of the network (channels, size and classes must be the data's).
        label_dropout: probability with which a label becomes the null label, for guidance.
        log: JSON-lines file of the loss.

    Source: Lipman et al. 2023 (flow matching), Ho & Salimans 2022 (label dropout).
    """
    if (shape.in_channels, shape.num_classes) != (data.images.shape[1], data.num_classes):
        raise ValueError(
            f"shape has {shape.in_channels} channels and {shape.num_classes} classes; the data "
            f"have {data.images.shape[1]} and {data.num_classes}"
        )
    torch.manual_seed(config.seed)
    model = SiT(shape) if isinstance(shape, SiTConfig) else UNet(shape)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(data.labels), (config.batch_size,), generator=generator)
        x, y = (
            data.images[index],
            drop_labels(data.labels[index], shape.num_classes, label_dropout, generator),
        )
        t = torch.rand(config.batch_size, generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        s = t[:, None, None, None]
        return F.mse_loss(model((1 - s) * x + s * noise, t, y), noise - x)

    def checkpoint(ema: torch.nn.Module) -> None:
        save_weights(out, ema, shape.to_dict(), dtype=torch.float16)

    name = "SiT" if isinstance(shape, SiTConfig) else "U-Net"
    ema = fit(model, loss, config, log=log, checkpoint=checkpoint, description=name)
    assert isinstance(ema, (UNet, SiT))
    return ema
