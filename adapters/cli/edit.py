"""`quadflow edit`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..sampling.samplers import SAMPLERS
from .arguments import output_file
from .samplers import FORMS, read_sampler, sampler_name


def _edit(arguments: argparse.Namespace) -> None:
    import torch

    from ..backbones.registry import check_pictures, load_named, load_named_sidenet
    from ..data.images import load_image, save_png, tile
    from ..flow.field import Guidance
    from ..sampling.editing import edit

    out = output_file(arguments.out)
    method = read_sampler(arguments.method, "--method")
    backbone = load_named(arguments.backbone, image_size=arguments.image_size)
    check_pictures(backbone)
    if not backbone.num_classes:
        raise ValueError(f"{backbone.name} has no classes to edit between")
    for option in ("from", "to"):
        label = getattr(arguments, f"label_{option}")
        if not 0 <= label < backbone.num_classes:
            raise ValueError(f"--{option} {label}: the classes are 0..{backbone.num_classes - 1}")
    data = torch.stack([load_image(path, backbone.shape) for path in arguments.images])
    sidenet = load_named_sidenet(backbone, arguments.sidenet, method)
    count = len(data)
    result = edit(
        backbone.model,
        data,
        torch.full((count,), arguments.label_from),
        torch.full((count,), arguments.label_to),
        strength=arguments.strength,
        method=method,
        nfe=arguments.nfe,
        sidenet=sidenet,
        guidance=Guidance(arguments.guidance, backbone.num_classes),
        convention=backbone.convention,
    )
    shown = torch.cat((data, result.x)) if arguments.compare else result.x
    save_png(out, tile(shown, columns=count))
    print(
        f"{count} image(s) from class {arguments.label_from} to {arguments.label_to} by "
        f"{arguments.method}: {result.inversion.stats.nfe} + {result.regeneration.stats.nfe} "
        f"evaluations -> {out}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("images", nargs="+", type=Path, help="pictures of the backbone's size (shipped: 28x28)")
    add("--from", dest="label_from", type=int, required=True, help="class of the pictures")
    add("--to", dest="label_to", type=int, required=True, help="class that they shall have")
    add("--strength", type=float, default=0.9, help="how far back to the noise, 0 to 1 (0.9)")
    add("--guidance", type=float, default=2.0, help="scale on the way forth; 1 is none (2)")
    add("--method", type=sampler_name, default="bianchor", metavar="METHOD",
        help=f"{', '.join(SAMPLERS)} (default: %(default)s); or {FORMS}")  # fmt: skip
    add("--nfe", type=int, default=10, help="evaluations of each way (%(default)s)")
    add("--compare", action="store_true", help="show the pictures above their edits")
    add("--backbone", help="fashion-unet (default), mnist-sit, or a weight file")
    add("--sidenet", help="SideNet weights; default: the backbone's shipped one")
    add("--image-size", type=int, help="pixels a side, for a weight file that does not say")
    add("--out", default="edited.png", help="picture to write (%(default)s)")
    parser.set_defaults(run=_edit)
