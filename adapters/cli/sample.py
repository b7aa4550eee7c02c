"""`quadflow sample`."""

from __future__ import annotations

import argparse

from ..sampling.samplers import SAMPLERS
from .arguments import output_file, parse_labels
from .samplers import FORMS, read_sampler, sampler_name


def _sample(arguments: argparse.Namespace) -> None:
    import torch

    from ..backbones.registry import check_pictures, load_named, load_named_sidenet
    from ..data.images import save_png, tile
    from ..flow.field import Guidance, check_labels
    from ..sampling.sample import initial_noise, sample

    out = output_file(arguments.out)
    method = read_sampler(arguments.method, "--method")
    backbone = load_named(arguments.backbone, image_size=arguments.image_size)
    check_pictures(backbone)
    sidenet = load_named_sidenet(backbone, arguments.sidenet, method)
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
        method=method,
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("--method", type=sampler_name, default="bianchor", metavar="METHOD",
        help=f"{', '.join(SAMPLERS)} (default: %(default)s); or {FORMS}")  # fmt: skip
    add("--nfe", type=int, default=7, help="backbone evaluations (%(default)s)")
    add("--labels", type=parse_labels, default=list(range(10)),
        help="such as 0..9; of a backbone without classes, their number counts")  # fmt: skip
    add("--shift", type=float, default=1.0, help="of the time grid; 1 is uniform")
    add("--guidance", type=float, default=1.0, help="scale; 1 is none")
    add("--seed", type=int, default=0, help="of the noises (%(default)s)")
    add("--out", default="samples.png", help="picture to write (%(default)s)")
    add("--backbone", help="fashion-unet (default), mnist-sit, galaxygrad:hsc-32, or a weight file")
    add("--sidenet", help="SideNet weights; default: the backbone's shipped one")
    add("--image-size", type=int, help="pixels a side, where a file does not say")
    parser.set_defaults(run=_sample)
