"""`quadflow reproduce`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import interval, whole_numbers

if TYPE_CHECKING:
    from ...analysis.benchmarks.sampler_gpu import Networks

SIZES = tuple(f"SiT-{size}/{patch}" for size in ("S", "B", "L", "XL") for patch in (2, 4, 8))
"""Names of the published shapes of a SiT, which cost no torch."""


def _reproduce(arguments: argparse.Namespace) -> None:
    import torch

    from ...analysis.images.published_table import Reproduction, load_decoder
    from ...extras import progress

    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {arguments.device}: torch sees no GPU here")
    given = (arguments.weights, arguments.sidenet, arguments.fitted)
    if arguments.dry_run and any(given):
        raise ValueError("--dry-run takes random weights: leave out --weights, --sidenet, --fitted")
    if not arguments.dry_run and not all(given[:2]):
        raise ValueError("give --weights and --sidenet, the published files, or --dry-run")
    networks, convention = _random(arguments) if arguments.dry_run else _published(arguments)
    networks.to(arguments.device, getattr(torch, arguments.dtype))
    decode = None
    if arguments.vae is not None:  # before the work, not after it
        decode = load_decoder(arguments.vae, networks.shape[0], arguments.device)
    samples = arguments.samples or (1 if arguments.dry_run else 50_000)
    work = Reproduction(
        networks.model, networks.sidenet, networks.shape, networks.num_classes,
        Path(arguments.out), networks.fitted, convention, arguments.guidance, arguments.interval,
        arguments.nfe, samples, arguments.seed, arguments.batch_size, arguments.device,
    )  # fmt: skip
    with progress(len(work.runs) * samples, "samples") as bar:
        work.make_latents(bar.update)
    if decode is not None:
        with progress(len(work.runs) * samples, "images") as bar:
            work.make_images(decode, arguments.vae, bar.update)
    print(work.table())
    if decode is None:
        print("latents alone: the same command with --vae decodes them")
    elif samples == 50_000 and not arguments.dry_run:
        print("FID: ADM's evaluator.py VIRTUAL_imagenet256_labeled.npz FILE")
    else:
        print(f"published figures are of 50000 samples and trained weights, not of these {samples}")


def _random(arguments: argparse.Namespace) -> tuple[Networks, str]:
    """Networks of the published shapes with random weights, a fitted one among them."""
    import torch

    from ...analysis.benchmarks.sampler_gpu import random_networks
    from ..backbones.sit import sit_config

    with torch.random.fork_rng():
        torch.manual_seed(arguments.seed)
        networks = random_networks(
            sit_config(arguments.size), arguments.guidance, arguments.nfe, arguments.interval
        )
    return networks, "repa"


def _published(arguments: argparse.Namespace) -> tuple[Networks, str]:
    """The networks of the files that are given, and the backbone's convention."""
    from ...analysis.benchmarks.sampler_gpu import Networks
    from ..backbones.pretrained import load_sidenet
    from ..backbones.sit import sit_config
    from ..backbones.sit_checkpoints import load_sit
    from ..fitted.fitted import FittedSampler

    loaded, wanted = load_sit(arguments.weights), sit_config(arguments.size)
    c = loaded.model.config
    if c != wanted:
        raise ValueError(f"--weights {arguments.weights}: must be {_told(wanted)}, is {_told(c)}")
    sidenet = load_sidenet(arguments.sidenet)
    s = sidenet.config
    if (s.in_channels, s.num_classes) != (c.in_channels, c.num_classes):
        raise ValueError(
            f"--sidenet {arguments.sidenet}: is for {s.in_channels} channels and {s.num_classes} "
            f"classes, the backbone has {c.in_channels} and {c.num_classes}"
        )
    fitted = FittedSampler.load(arguments.fitted) if arguments.fitted else None
    print(f"--weights: the {loaded.weights} weights, convention {loaded.convention}")
    shape = (c.in_channels, c.input_size, c.input_size)
    networks = Networks(loaded.model, sidenet, shape, c.num_classes, fitted)
    return networks, loaded.convention


def _told(config: Any) -> str:
    """A SiT's shape in words."""
    sigma = ", learn_sigma" if config.learn_sigma else ""
    return (
        f"a SiT of width {config.width}, depth {config.depth}, patch {config.patch}, input_size "
        f"{config.input_size}, {config.num_classes} classes{sigma}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("table", choices=("sit-xl2",), help="BA-solver's table on ImageNet 256 with SiT-XL/2")
    add("--weights", metavar="FILE", help="REPA's SiT-XL/2, a .pt file")
    add("--sidenet", metavar="FILE", help="BA-solver's published SideNet")
    add("--fitted", metavar="FILE", help="a sampler that `quadflow fit` made for these weights")
    add("--vae", metavar="NAME", help="diffusers' AutoencoderKL that decodes, a folder or a name "
        "such as stabilityai/sd-vae-ft-ema; default: latents alone")  # fmt: skip
    add("--out", default="reproduced", metavar="FOLDER",
        help="of samples and npz files; the same command goes on there (%(default)s)")  # fmt: skip
    add("--nfe", type=lambda text: whole_numbers(text, "5,7,8"), default=(5, 7, 8),
        help="budgets (5,7,8)")  # fmt: skip
    add("--samples", type=int, help="of every method and budget; default 50000, of a dry run 1")
    add("--batch-size", type=int, default=50, help="samples at once (%(default)s)")
    add("--guidance", type=float, default=1.8, help="scale; 1 is none (%(default)s)")
    add("--interval", type=interval, default=(0.0, 0.7), metavar="LOW,HIGH",
        help="of t where it is guided (0,0.7)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the noises (%(default)s)")
    add("--device", default="cpu", help="such as cuda (%(default)s)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32",
        help="of backbone and SideNet; states are float32 (%(default)s)")  # fmt: skip
    add("--dry-run", action="store_true", help="random weights of the same shapes, to try it")
    add("--size", choices=SIZES, default="SiT-XL/2", help="of the backbone (%(default)s)")
    parser.set_defaults(run=_reproduce)
