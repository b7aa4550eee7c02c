"""`quadflow fit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import interval, output_file, real_numbers, separated_names, whole_numbers
from .own import load_own


def _shape(text: str) -> tuple[int, ...]:
    return whole_numbers(text, "1,28,28")


def _backbone(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path | None]:
    """Model, shape of a state, classes (None: the model's own) and convention, as a fit takes
    them, and the file of its SideNet where one is shipped."""
    from ..backbones.registry import load_named

    name = arguments.backbone or "fashion-unet"
    if ":" in name and not name.startswith("galaxygrad:") and not Path(name).exists():
        if arguments.shape is None:
            raise ValueError(f"--backbone {name} does not say its shape: give --shape, as 3,32,32")
        model = load_own(name, "--backbone")
        own = {"shape": arguments.shape, "num_classes": arguments.num_classes}
        return own | {"model": model, "convention": arguments.convention or "repa"}, None
    backbone = load_named(name, image_size=arguments.image_size)
    if arguments.shape not in (None, backbone.shape):
        raise ValueError(f"--shape {arguments.shape}: the states of {name} are {backbone.shape}")
    return {
        "model": backbone.model, "shape": backbone.shape, "num_classes": backbone.num_classes,
        "convention": arguments.convention or backbone.convention,
    }, backbone.sidenet  # fmt: skip


def _fit(arguments: argparse.Namespace) -> None:
    from ...extras import require
    from ..fitted.report import effort_line, table

    require("matplotlib", "analysis")  # before the work, not after it
    out = output_file(arguments.out, suffixes=(".safetensors",))
    fit = _fit_published if arguments.published else _fit_learned
    figures, names, said = fit(arguments, out)
    print(table(figures, names))
    if said:
        print(said)
    files = ", ".join(str(out.with_suffix(s)) for s in (".safetensors", ".json", ".png"))
    print(f"{effort_line(figures)} -> {files}")


def _common(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """What both kinds of fits are given."""
    from ..flow.field import Guidance

    names = ("nfe", "guidance", "minutes", "updates", "pairs", "folder", "resume", "batch_size",
             "held_out", "steps", "seed")  # fmt: skip
    guided = Guidance(interval=arguments.interval) if arguments.interval else None
    given = {name: getattr(arguments, name) for name in names}
    return {k: v for k, v in given.items() if v is not None} | {"out": out, "guided": guided}


def _fit_learned(
    arguments: argparse.Namespace, out: Path
) -> tuple[dict[str, Any], tuple[str, str], str]:
    """Figures of a `fit_sampler`, names of its errors, and what is to be said besides."""
    from ..fitted.fit_sampler import fit_sampler
    from ..fitted.plan import PARTS
    from ..fitted.report import NAMES

    if arguments.sidenet is not None:
        raise ValueError(f"--sidenet {arguments.sidenet}: is trained on with --published alone")
    backbone, _ = _backbone(arguments)
    fitted = fit_sampler(
        **backbone, **_common(arguments, out), form=arguments.form or "free",
        parts=arguments.parts or PARTS, network=not arguments.no_network,
        features=arguments.features, start=arguments.start,
    )  # fmt: skip
    layout = fitted.features
    said = "" if layout is None else f"features: the input of {layout.module}"
    return fitted.figures, NAMES, said


def _fit_published(
    arguments: argparse.Namespace, out: Path
) -> tuple[dict[str, Any], tuple[str, str], str]:
    """The same of a `fit_sidenet`."""
    from ..backbones.pretrained import load_sidenet
    from ..fitted.fit_sidenet import NAMES, fit_sidenet

    for option in ("form", "parts", "no_network", "features", "start"):
        if getattr(arguments, option):
            word = option.replace("_", "-")
            raise ValueError(
                f"--{word} with --published: that form has no such parts; leave it out"
            )
    backbone, shipped = _backbone(arguments)
    path = arguments.sidenet or shipped
    sidenet = None if path is None else load_sidenet(path)
    fitted = fit_sidenet(**backbone, **_common(arguments, out), sidenet=sidenet)
    return fitted.figures, NAMES, f"start: {path or 'a new SideNet'}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add(
        "--backbone",
        help="fashion-unet (default), mnist-sit, galaxygrad:hsc-32, a weight file, the .pt of a "
        "published SiT, or MODULE:NAME, a model of your own (with --shape)",
    )
    add("--nfe", type=lambda text: whole_numbers(text, "5,7,10"),
        help="budgets to fit (5,7,10)")  # fmt: skip
    add("--guidance", type=real_numbers, help="scales to fit, 1 is none (1)")  # fmt: skip
    add("--interval", type=interval, metavar="LOW,HIGH",
        help="guide where LOW < t <= HIGH alone; t is the backbone's own time")  # fmt: skip
    add(
        "--minutes",
        type=float,
        help="about how long it may take (20; 1 with --no-network); sets the other numbers",
    )
    add("--updates", type=int, help="optimiser updates, instead of --minutes")
    add("--pairs", type=int, help="pairs (noise, end) a guidance scale")
    add("--out", default="sampler.safetensors",
        help="file to write; a report OUT.json, OUT.png goes beside it (%(default)s)")  # fmt: skip
    add("--folder", help="keeps pairs and training state, for --resume and for other fits")
    add("--resume", action="store_true", help="go on with a stopped fit in --folder")
    add("--no-network", action="store_true", help="times and coefficients alone")
    add("--parts", type=separated_names,
        help="what is learned (times,coefficients,shift,network)")  # fmt: skip
    add("--form", choices=("ordered", "free"),
        help="claim no order (free, the default), or keep one (ordered)")  # fmt: skip
    add("--published", action="store_true",
        help="train the SideNet of BA-solver as published instead, for bianchor")  # fmt: skip
    add("--sidenet", metavar="FILE",
        help="where --published starts; default: the backbone's own, else a new one")  # fmt: skip
    add("--start", metavar="FILE", help="a sampler of this backbone to train on, with its budgets")
    add("--features", metavar="MODULE", help="whose input the network gets; default: last layer")
    add("--batch-size", type=int, default=16, help="samples an update (%(default)s)")
    add("--held-out", type=lambda text: whole_numbers(text, "64,128"), metavar="A,B",
        help="samples that choose, and reported ones (64,128; in brief fits 32,32)")  # fmt: skip
    add("--steps", type=int, help="of the converged solves (192; in brief fits 64)")
    add("--seed", type=int, default=0, help="of everything (%(default)s)")
    add("--shape", type=_shape, help="of a state, where the backbone does not say: 1,28,28")
    add("--num-classes", type=int, help="of a model of your own; default: its num_classes")
    add("--convention", help="of the backbone's time and call; default: its own")
    add("--image-size", type=int, help="pixels a side, where a file does not say")
    parser.set_defaults(run=_fit)
