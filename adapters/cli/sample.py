"""`quadflow sample`."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from ..flow.field import Guidance, check_labels
from ..sampling.sample import SAMPLERS
from .arguments import output_file, parse_labels


def _sample(arguments: argparse.Namespace) -> None:
    from ..backbones.registry import load_named, load_named_sidenet
    from ..data.images import save_png, tile
    from ..sampling.sample import initial_noise, sample

    out = output_file(arguments.out)
    backbone = load_named(arguments.backbone, image_size=arguments.image_size)
    sidenet = load_named_sidenet(backbone, arguments.sidenet, arguments.method)
    labels = torch.tensor(arguments.labels) if backbone.num_classes else None
    if labels is not None:
        check_labels(labels, backbone.num_classes)
    elif arguments.guidance != 1:
        raise ValueError(
            f"--guidance {arguments.guidance}: {backbone.name} has no classes to be guided by"
        )
    count = len(arguments.labels)
    samples = sample(
        backbone.model,
        initial_noise(arguments.seed, count, backbone.shape),
        labels,
        method=arguments.method,
        nfe=arguments.nfe,
        sidenet=sidenet,
        guidance=Guidance(arguments.guidance, backbone.num_classes or None),
        convention=backbone.convention,
        shift=arguments.shift,
    )
    save_png(out, tile(backbone.to_images(samples.x), columns=min(10, count)), scale=4)
    stats = samples.stats
    pair = ", each a guided pair" if arguments.guidance != 1 else ""
    print(
        f"{count} images by {arguments.method}: {stats.nfe} backbone evaluations{pair} "
        f"({samples.rows} rows through the network), {stats.wall_time:.2f} s -> {out}"
    )


def add_sample(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    sample = commands.add_parser("sample", help="images from the shipped model, or from your own")
    sample.add_argument("--method", choices=sorted(SAMPLERS), default="bianchor")
    sample.add_argument("--nfe", type=int, default=7, help="backbone evaluations (%(default)s)")
    sample.add_argument(
        "--labels", type=parse_labels, default=list(range(10)),
        help="such as 0..9; of a backbone without classes, their number counts",
    )  # fmt: skip
    sample.add_argument("--shift", type=float, default=1.0, help="of the time grid; 1 is uniform")
    sample.add_argument("--guidance", type=float, default=1.0, help="scale; 1 is none")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--out", default="samples.png")
    sample.add_argument(
        "--backbone",
        help="fashion-unet (default), mnist-sit, galaxygrad:hsc-32, or a weight file",
    )
    sample.add_argument("--sidenet", help="SideNet weights; default: the backbone's shipped one")
    sample.add_argument("--image-size", type=int, help="pixels a side, where a file does not say")
    sample.set_defaults(run=_sample)
