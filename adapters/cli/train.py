"""`quadflow train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import from_options, output_file

if TYPE_CHECKING:
    from ..data.datasets import Images
    from ..training.fit import FitConfig, Recording

PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "steps": 20_000, "batch_size": 32, "learning_rate": 1e-4, "warmup": 0, "decay": "none",
        "ema_decay": 0.9996, "offset_rate": 50.0, "patch": 1, "width": 256, "emb_dim": 256,
        "time_scale": 1.0,
    },
    "small": {
        "steps": 1600, "batch_size": 32, "learning_rate": 1e-3, "warmup": 100, "decay": "cosine",
        "ema_decay": 0.995, "offset_rate": 8.0, "patch": 4, "width": 128, "emb_dim": 96,
        "time_scale": 1000.0,
    },
}  # fmt: skip
"""Defaults of `train sidenet`. published: arXiv 2601.21542 (but steps and batch, which are ours);
small: what the shipped SideNet for 28x28 pixels was trained with."""

BACKBONES: dict[str, dict[str, Any]] = {
    "unet": {"steps": 2600, "batch_size": 128, "learning_rate": 2e-3},
    "sit": {"steps": 3000, "batch_size": 128, "learning_rate": 1.5e-3},
}


def _fit_config(arguments: argparse.Namespace) -> FitConfig:
    from ..training.fit import FitConfig

    return from_options(FitConfig, arguments)


def _recording(arguments: argparse.Namespace, out: Path) -> Recording:
    from ..training.fit import Recording

    if arguments.log and not Path(arguments.log).parent.is_dir():
        raise ValueError(f"--log {arguments.log}: the folder of it does not exist")
    return from_options(Recording, arguments, state=out.with_name(out.name + ".state"))


def _images(arguments: argparse.Namespace, *, labelled: bool = True) -> Images:
    from ..data.sources import load_images

    return load_images(
        arguments.data,
        channels=arguments.channels,
        size=arguments.image_size,
        labelled=labelled and not arguments.unlabelled,
    )


def _train_backbone(arguments: argparse.Namespace) -> None:
    from ..backbones.sit import SiTConfig
    from ..backbones.unet import UNetConfig
    from ..training.backbone import train_backbone

    config, out = _fit_config(arguments), output_file(arguments.out)
    recording = _recording(arguments, out)
    if arguments.data == "none":
        raise ValueError(
            "--data none: a backbone is trained on images: give a folder of IDX files "
            "(train-images-idx3-ubyte and so on), a folder of pictures, or a tensor file"
        )
    data = _images(arguments)
    channels, height, width = data.shape
    shape: UNetConfig | SiTConfig
    if arguments.network == "unet":
        shape = UNetConfig(in_channels=channels, num_classes=data.num_classes)
    elif height != width:
        raise ValueError(f"SiT needs square images, {arguments.data} has {height}x{width}")
    else:
        shape = from_options(
            SiTConfig, arguments, input_size=height, in_channels=channels,
            num_classes=data.num_classes,
        )  # fmt: skip
    train_backbone(
        data,
        out,
        config=config,
        shape=shape,
        label_dropout=arguments.label_dropout,
        recording=recording,
    )


def _state_shape(
    arguments: argparse.Namespace, model: Any, known: int | None
) -> tuple[int, int, int]:
    """(C, H, W) of the backbone's states, where no data say it."""
    size = arguments.image_size or known
    if size is None:
        raise ValueError("--data none: the backbone does not say its shape: give --image-size")
    return model.config.in_channels, size, size


def _train_sidenet(arguments: argparse.Namespace) -> None:
    from ..backbones.registry import load_network
    from ..sidenet.network import SideNetConfig
    from ..training.sidenet import ChainConfig, train_sidenet

    for name, value in PRESETS[arguments.preset].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    config, out = _fit_config(arguments), output_file(arguments.out)
    recording = _recording(arguments, out)
    chain = from_options(ChainConfig, arguments, length=arguments.chain)
    without = arguments.data == "none"
    if not without and (arguments.backbone or "").startswith("galaxygrad:"):
        raise ValueError(
            f"--backbone {arguments.backbone} is trained without data: give --data none, not "
            f"{arguments.data}"
        )
    model, known, convention = load_network(arguments.backbone)
    classes = model.num_classes
    data = None if without else _images(arguments, labelled=classes > 0)
    shape = _state_shape(arguments, model, known) if data is None else data.shape
    sidenet = from_options(
        SideNetConfig, arguments, in_channels=model.config.in_channels, num_classes=classes,
        input_size=shape[1] if shape[1] == shape[2] else None,
    )  # fmt: skip
    train_sidenet(
        model,
        data,
        out,
        config=config,
        sidenet=sidenet,
        chain=chain,
        convention=arguments.convention or convention,
        shape=shape,
        recording=recording,
    )


def _add_common(network: argparse.ArgumentParser, data: str) -> None:
    add = network.add_argument
    add("--data", required=True, help=data)
    add("--channels", type=int, choices=(1, 3), help="of pictures: 1 grey, 3 RGB")
    add("--image-size", type=int, help="resize and crop pictures to so many pixels a side")
    add("--unlabelled", action="store_true", help="do not use the labels of the data")
    add("--out", required=True, help="safetensors file to write; FILE.state is kept beside it")
    add("--weight-decay", type=float, default=0.0, help="AdamW's (%(default)s)")
    add("--clip-norm", type=float, default=1.0, help="largest gradient norm (%(default)s)")
    add("--label-dropout", type=float, default=0.1, help="probability of no label (%(default)s)")
    add("--seed", type=int, default=0, help="of every random draw (%(default)s)")
    add("--mixed-precision", choices=("no", "bf16", "fp16"), default="no",
        help="of autocast: no, bf16 or fp16 (%(default)s)")  # fmt: skip
    add("--checkpoint-every", type=int, default=200, help="steps (%(default)s)")
    add("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    add("--overwrite", action="store_true", help="start anew, dropping an unfinished training")
    add("--log", help="JSON-lines file of the loss")
    add("--log-every", type=int, default=200, help="steps (%(default)s)")
    add("--samples", metavar="FOLDER", help="write a picture of samples now and then")
    add("--samples-every", type=int, default=1000, help="steps (%(default)s)")


_SIT = (
    ("patch", 4, "pixels a token side"),
    ("width", 128, "channels of a token"),
    ("depth", 4, "blocks"),
    ("heads", 4, "of the attention"),
    ("time_scale", 1000.0, "factor on time before the sinusoids"),
)

_OPTIMISER: tuple[tuple[str, Any, str], ...] = (
    ("steps", int, "optimiser steps"),
    ("batch_size", int, "samples a step, of all processes together"),
    ("learning_rate", float, "AdamW's"),
    ("warmup", int, "steps until the learning rate is reached"),
    ("decay", str, "of the learning rate afterwards: none or cosine"),
    ("ema_decay", float, "of the average of the weights"),
)
_SIDENET: tuple[tuple[str, Any, str], ...] = (
    ("offset_rate", float, "rate of the truncated exponential |h|"),
    ("patch", int, "pixels a side that are folded into channels"),
    ("width", int, "channels inside"),
    ("emb_dim", int, "width of the embeddings"),
    ("time_scale", float, "factor on time before the sinusoids"),
)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    networks = parser.add_subparsers(dest="network", required=True)
    images = "folder of IDX files (MNIST layout) or of pictures, or a .pt/.safetensors/.npz file"

    for name, text in (("unet", "a U-Net by flow matching"), ("sit", "a SiT by flow matching")):
        network = networks.add_parser(name, help=text, description=text)
        _add_common(network, images)
        defaults = {"warmup": 100, "decay": "cosine", "ema_decay": 0.999, **BACKBONES[name]}
        for field, kind, what in _OPTIMISER:
            network.add_argument(
                _option(field), type=kind, default=defaults[field], help=f"{what} (%(default)s)"
            )
        if name == "sit":
            for field, value, what in _SIT:
                network.add_argument(
                    _option(field), type=type(value), default=value, help=f"{what} (%(default)s)"
                )
        network.set_defaults(run=_train_backbone)

    text = "a SideNet for a frozen backbone, by chain training"
    side = networks.add_parser("sidenet", help=text, description=text)
    _add_common(side, f"{images}, or none: chains then start on the backbone's own trajectories")
    side.add_argument(
        "--backbone", help="weight file, mnist-sit or galaxygrad:NAME; default: fashion-unet"
    )
    side.add_argument("--convention", help="of the backbone's time and call; default: its own")
    side.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="published",
        help="what the other options default to; small: a network for 28x28 pixels (%(default)s)",
    )
    for field, kind, what in (*_OPTIMISER, *_SIDENET):
        published, small = (PRESETS[preset][field] for preset in ("published", "small"))
        side.add_argument(
            _option(field), type=kind, help=f"{what} (published: {published}, small: {small})"
        )
    side.add_argument("--chain", type=int, default=8, help="links of a chain (%(default)s)")
    side.add_argument(
        "--towards-data", type=float, default=0.5, help="probability of the direction (%(default)s)"
    )
    side.add_argument(
        "--nodes", type=int, default=3, help="Gauss-Legendre nodes of a link (%(default)s)"
    )
    side.add_argument("--layers", type=int, default=4, help="blocks (%(default)s)")
    side.add_argument("--heads", type=int, default=4, help="of the attention (%(default)s)")
    side.set_defaults(run=_train_sidenet)
