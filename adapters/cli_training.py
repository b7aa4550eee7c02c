"""`quadflow train`."""

from __future__ import annotations

import argparse
from typing import Any

from .cli_arguments import output_file
from .optimisation import FitConfig


def _fit_config(arguments: argparse.Namespace) -> FitConfig:
    return FitConfig(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        ema_decay=arguments.ema_decay,
        seed=arguments.seed,
    )


def _train_unet(arguments: argparse.Namespace) -> None:
    from .backbones.training import train_backbone
    from .backbones.unet import UNetConfig
    from .datasets import load_idx_folder

    data, out = load_idx_folder(arguments.data), output_file(arguments.out)
    shape = UNetConfig(in_channels=data.images.shape[1], num_classes=data.num_classes)
    train_backbone(data, out, config=_fit_config(arguments), shape=shape, log=arguments.log)


def _train_sidenet(arguments: argparse.Namespace) -> None:
    from .datasets import load_idx_folder
    from .pretrained import load_unet
    from .sidenet import SideNetConfig
    from .training import ChainConfig, train_sidenet

    model = load_unet(arguments.backbone)
    shape = SideNetConfig(
        in_channels=model.config.in_channels,
        patch=arguments.patch,
        width=arguments.width,
        emb_dim=96,
        num_classes=model.num_classes,
        time_scale=1000.0,
    )
    train_sidenet(
        model,
        load_idx_folder(arguments.data),
        output_file(arguments.out),
        config=_fit_config(arguments),
        sidenet=shape,
        chain=ChainConfig(length=arguments.chain, offset_rate=arguments.offset_rate),
        log=arguments.log,
    )


def add_train(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    train = commands.add_parser("train", help="train a backbone or a SideNet")
    networks = train.add_subparsers(dest="network", required=True)
    unet = networks.add_parser("unet", help="the class-conditional U-Net, by flow matching")
    side = networks.add_parser("sidenet", help="a SideNet for a U-Net, by chain training")
    for network, steps, batch, rate, ema in (
        (unet, 2600, 128, 2e-3, 0.999),
        (side, 1600, 32, 1e-3, 0.995),
    ):
        network.add_argument("--data", required=True, help="folder of IDX files (MNIST layout)")
        network.add_argument("--out", required=True, help="safetensors file to write")
        network.add_argument("--steps", type=int, default=steps)
        network.add_argument("--batch-size", type=int, default=batch)
        network.add_argument("--learning-rate", type=float, default=rate)
        network.add_argument("--ema-decay", type=float, default=ema)
        network.add_argument("--seed", type=int, default=0)
        network.add_argument("--log", help="JSON-lines file of the loss")
    unet.set_defaults(run=_train_unet)
    side.add_argument("--backbone", help="U-Net weights; default: shipped")
    side.add_argument("--chain", type=int, default=8, help="links of a chain (%(default)s)")
    side.add_argument("--offset-rate", type=float, default=8.0, help="rate of |h| (%(default)s)")
    side.add_argument("--patch", type=int, default=4)
    side.add_argument("--width", type=int, default=128)
    side.set_defaults(run=_train_sidenet)
