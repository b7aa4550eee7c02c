"""The command line `quadflow`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import quadflow

from .extras import MissingExtraError
from .flow import Guidance, check_labels
from .optimisation import FitConfig
from .sampling import SAMPLERS


def parse_labels(text: str) -> list[int]:
    """ "0..9", "7" or "1,3,5..7" as a list of labels.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    labels: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        try:
            low = int(first)
            high = int(last) if dots else low
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"labels must look like 0..9, 7 or 1,3,5..7, got {text!r}"
            ) from None
        if high < low:
            raise argparse.ArgumentTypeError(f"labels run backwards in {part!r}")
        labels += range(low, high + 1)
    return labels


def _sample(arguments: argparse.Namespace) -> None:
    from .images import save_png, tile
    from .pretrained import load_sidenet, load_unet
    from .sampling import initial_noise, sample

    out = _output_file(arguments.out)
    model = load_unet(arguments.backbone)
    sidenet = load_sidenet(arguments.sidenet) if arguments.method == "bianchor" else None
    labels = torch.tensor(arguments.labels)
    check_labels(labels, model.num_classes)
    shape = (model.config.in_channels, 28, 28)
    samples = sample(
        model,
        initial_noise(arguments.seed, len(labels), shape),
        labels,
        method=arguments.method,
        nfe=arguments.nfe,
        sidenet=sidenet,
        guidance=Guidance(arguments.guidance, model.num_classes),
    )
    save_png(out, tile(samples.x, columns=min(10, len(labels))), scale=4)
    stats = samples.stats
    pair = ", each a guided pair" if arguments.guidance != 1 else ""
    print(
        f"{len(labels)} images by {arguments.method}: {stats.nfe} backbone evaluations{pair} "
        f"({samples.rows} rows through the network), {stats.wall_time:.2f} s -> {out}"
    )


def _fit_config(arguments: argparse.Namespace) -> FitConfig:
    return FitConfig(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        ema_decay=arguments.ema_decay,
        seed=arguments.seed,
    )


def _train_unet(arguments: argparse.Namespace) -> None:
    from .backbones.training import train_unet
    from .datasets import load_idx_folder

    train_unet(
        load_idx_folder(arguments.data), _output_file(arguments.out),
        config=_fit_config(arguments),
        log=arguments.log,
    )  # fmt: skip


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
        _output_file(arguments.out),
        config=_fit_config(arguments),
        sidenet=shape,
        chain=ChainConfig(length=arguments.chain, offset_rate=arguments.offset_rate),
        log=arguments.log,
    )


def _demo(arguments: argparse.Namespace) -> None:
    from quadflow.analysis.demo import run_demo

    run_demo(Path(arguments.out), seed=arguments.seed, quick=arguments.quick)


def _methods(arguments: argparse.Namespace) -> None:
    print(f"{'name':<10} {'plan':<8} {'order':>5} {'dense':>5}  steps")
    for name, method in quadflow.methods().items():
        plan = type(method).__name__.removesuffix("Method").lower()
        steps = "fixed" if method.error_order is None else "fixed or adaptive"
        print(f"{name:<10} {plan:<8} {method.order!s:>5} {method.dense_order!s:>5}  {steps}")


def _output_file(path: str) -> Path:
    out = Path(path)
    if out.is_dir():
        raise ValueError(f"--out {path} is a folder, must be a file")
    if not out.parent.is_dir():
        raise ValueError(f"--out {path}: the folder {out.parent} does not exist")
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quadflow", description=quadflow.__doc__)
    parser.add_argument("--version", action="version", version=f"quadflow {quadflow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="measured orders and few-evaluation images, in minutes")
    demo.add_argument("--out", default="demo", help="folder for pictures and figures (%(default)s)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--quick", action="store_true", help="fewer images and steps, for a try")
    demo.set_defaults(run=_demo)

    sample = commands.add_parser("sample", help="images from the shipped model, or from your own")
    sample.add_argument("--method", choices=sorted(SAMPLERS), default="bianchor")
    sample.add_argument("--nfe", type=int, default=7, help="backbone evaluations (%(default)s)")
    sample.add_argument("--labels", type=parse_labels, default=list(range(10)), help="such as 0..9")
    sample.add_argument("--guidance", type=float, default=1.0, help="scale; 1 is none")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--out", default="samples.png")
    sample.add_argument("--backbone", help="U-Net weights (safetensors); default: shipped")
    sample.add_argument("--sidenet", help="SideNet weights (safetensors); default: shipped")
    sample.set_defaults(run=_sample)

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

    methods = commands.add_parser("methods", help="every registered method with its order")
    methods.set_defaults(run=_methods)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors that a user can mend go to standard error, exit code 2."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, a pager) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (
        ValueError, TypeError, OSError, FloatingPointError, MissingExtraError, quadflow.SolveError,
    ) as error:  # fmt: skip
        print(f"quadflow {arguments.command}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
