"""`quadflow edit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ..flow.field import Guidance
from ..sampling.sample import SAMPLERS
from .arguments import output_file


def _edit(arguments: argparse.Namespace) -> None:
    from ..backbones.registry import load_named, load_named_sidenet
    from ..data.images import load_image, save_png, tile
    from ..sampling.editing import edit

    out = output_file(arguments.out)
    backbone = load_named(arguments.backbone, image_size=arguments.image_size)
    if not backbone.num_classes:
        raise ValueError(f"{backbone.name} has no classes to edit between")
    for option in ("from", "to"):
        label = getattr(arguments, f"label_{option}")
        if not 0 <= label < backbone.num_classes:
            raise ValueError(f"--{option} {label}: the classes are 0..{backbone.num_classes - 1}")
    data = torch.stack([load_image(path, backbone.shape) for path in arguments.images])
    sidenet = load_named_sidenet(backbone, arguments.sidenet, arguments.method)
    count = len(data)
    result = edit(
        backbone.model,
        data,
        torch.full((count,), arguments.label_from),
        torch.full((count,), arguments.label_to),
        strength=arguments.strength,
        method=arguments.method,
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


def add_edit(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    text = "images of one class turned into another, by inversion and regeneration"
    edit = commands.add_parser("edit", help=text, description=text)
    add = edit.add_argument
    add("images", nargs="+", type=Path, help="pictures of the backbone's size (shipped: 28x28)")
    add("--from", dest="label_from", type=int, required=True, help="class of the pictures")
    add("--to", dest="label_to", type=int, required=True, help="class that they shall have")
    add("--strength", type=float, default=0.9, help="how far back to the noise, 0 to 1 (0.9)")
    add("--guidance", type=float, default=2.0, help="scale on the way forth; 1 is none (2)")
    add("--method", choices=sorted(SAMPLERS), default="bianchor")
    add("--nfe", type=int, default=10, help="evaluations of each way (%(default)s)")
    add("--compare", action="store_true", help="show the pictures above their edits")
    add("--backbone", help="fashion-unet (default), mnist-sit, or a weight file")
    add("--sidenet", help="SideNet weights; default: the backbone's shipped one")
    add("--image-size", type=int, help="pixels a side, for a weight file that does not say")
    add("--out", default="edited.png", help="(%(default)s)")
    edit.set_defaults(run=_edit)
