"""`quadflow fit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import (
    from_options,
    interval,
    output_file,
    real_numbers,
    separated_names,
    whole_numbers,
)
from .own import load_own


def _shape(text: str) -> tuple[int, ...]:
    return whole_numbers(text, "1,28,28")


def _backbone(arguments: argparse.Namespace) -> tuple[Any, tuple[int, ...], Any, Any]:
    """The model, the shape of a state, its classes (None: the model's own) and convention."""
    from ..backbones.registry import load_named

    name = arguments.backbone or "fashion-unet"
    if ":" in name and not name.startswith("galaxygrad:") and not Path(name).exists():
        if arguments.shape is None:
            raise ValueError(f"--backbone {name} does not say its shape: give --shape, as 3,32,32")
        model = load_own(name, "--backbone")
        return model, arguments.shape, arguments.num_classes, arguments.convention or "repa"
    backbone = load_named(name, image_size=arguments.image_size)
    if arguments.shape not in (None, backbone.shape):
        raise ValueError(f"--shape {arguments.shape}: the states of {name} are {backbone.shape}")
    convention = arguments.convention or backbone.convention
    return backbone.model, backbone.shape, backbone.num_classes, convention


def _fit(arguments: argparse.Namespace) -> None:
    from ...extras import require
    from ..fitted.fit_sampler import Effort, fit_sampler
    from ..fitted.report import table
    from ..flow.field import Guidance

    require("matplotlib", "analysis")  # before the work, not after it
    out = output_file(arguments.out, suffixes=(".safetensors",))
    model, shape, classes, convention = _backbone(arguments)
    guided = Guidance(interval=arguments.interval) if arguments.interval else None
    fitted = fit_sampler(
        model, shape=shape, convention=convention, num_classes=classes, nfe=arguments.nfe,
        guidance=arguments.guidance, guided=guided, minutes=arguments.minutes,
        updates=arguments.updates, pairs=arguments.pairs, out=out, folder=arguments.folder,
        resume=arguments.resume,
        form=arguments.form, parts=arguments.parts, network=not arguments.no_network,
        features=arguments.features, batch_size=arguments.batch_size, steps=arguments.steps,
        seed=arguments.seed,
    )  # fmt: skip
    effort = from_options(Effort, argparse.Namespace(**fitted.figures["effort"]))
    print(table(fitted))
    if fitted.features is not None:
        print(f"features: the input of {fitted.features.module}")
    print(
        f"{effort.updates} updates, {effort.pairs} pairs a guidance scale, "
        f"{fitted.figures['minutes']:g} minutes -> {out}, {out.with_suffix('.json')}, "
        f"{out.with_suffix('.png')}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add(
        "--backbone",
        help="fashion-unet (default), mnist-sit, galaxygrad:hsc-32, a weight file, the .pt of a "
        "published SiT, or MODULE:NAME, a model of your own (with --shape)",
    )
    add("--nfe", type=lambda text: whole_numbers(text, "5,7,10"), default=(5, 7, 10),
        help="budgets to fit (5,7,10)")  # fmt: skip
    add("--guidance", type=real_numbers, default=(1.0,),
        help="scales to fit, such as 1,2; 1 is none")  # fmt: skip
    add("--interval", type=interval, metavar="LOW,HIGH",
        help="guide where LOW < t <= HIGH alone; t is the backbone's own time")  # fmt: skip
    add("--minutes", type=float, help="about how long it may take (20); sets --updates and --pairs")
    add("--updates", type=int, help="optimiser updates, instead of --minutes")
    add("--pairs", type=int, help="pairs (noise, end) a guidance scale")
    add("--out", default="sampler.safetensors",
        help="file to write; a report OUT.json, OUT.png goes beside it (%(default)s)")  # fmt: skip
    add("--folder", help="keeps pairs and training state, for --resume and for other fits")
    add("--resume", action="store_true", help="go on with a stopped fit in --folder")
    add("--no-network", action="store_true", help="times and coefficients alone")
    add("--parts", type=separated_names, default=("times", "coefficients", "shift", "network"),
        help="what is learned (times,coefficients,shift,network)")  # fmt: skip
    add("--form", choices=("ordered", "free"), default="ordered",
        help="keep the classical method's order, or claim none (%(default)s)")  # fmt: skip
    add("--features", metavar="MODULE", help="whose input the network gets; default: last layer")
    add("--batch-size", type=int, default=16, help="samples an update (%(default)s)")
    add("--steps", type=int, default=192, help="of the converged solves (%(default)s)")
    add("--seed", type=int, default=0, help="of everything (%(default)s)")
    add("--shape", type=_shape, help="of a state, where the backbone does not say: 1,28,28")
    add("--num-classes", type=int, help="of a model of your own; default: its num_classes")
    add("--convention", help="of the backbone's time and call; default: its own")
    add("--image-size", type=int, help="pixels a side, where a file does not say")
    parser.set_defaults(run=_fit)
