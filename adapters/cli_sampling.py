"""`quadflow sample`."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from .cli_arguments import output_file, parse_labels
from .flow import Guidance, check_labels
from .sampling import SAMPLERS


def _sample(arguments: argparse.Namespace) -> None:
    from .images import save_png, tile
    from .pretrained import load_sidenet, load_unet
    from .sampling import initial_noise, sample

    out = output_file(arguments.out)
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


def add_sample(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
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
