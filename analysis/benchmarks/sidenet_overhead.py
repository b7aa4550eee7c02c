"""What a SideNet adds to the time of an evaluation, by batch size.

`python -m quadflow.analysis.benchmarks.sidenet_overhead [--device cuda --size SiT-XL/2]`
"""

from __future__ import annotations

import argparse
from statistics import median

import torch
from torch import Tensor, nn

from ...adapters import SideNet, SideNetConfig
from ...adapters.backbones.registry import load_named, load_named_sidenet
from ...adapters.backbones.sit import SiT, sit_config
from ...adapters.sampling.sample import default_labels
from ...storage import write_json
from ..images.peers import Sampling, run_sampler

NFE, REPEATS = 7, 5


def overhead(
    model: nn.Module,
    sidenet: nn.Module,
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    batch: int,
    device: str = "cpu",
) -> dict[str, float]:
    """Times of `NFE` evaluations by Euler and by BA-solver in one run, interleaved by repetition.

    Returns:
        batch; euler_ms, bianchor_ms: median milliseconds an evaluation; ratio of the two; share:
        part of BA-solver's time that is spent in the SideNet; memory_mib: peak on a GPU, else 0.
    """
    place = torch.device(device)
    noise = torch.randn(batch, *shape, device=place)
    labels: Tensor | None = default_labels(batch, num_classes)
    labels = None if labels is None else labels.to(place)

    def run(method: str) -> Sampling:
        return run_sampler(method, model, noise, labels, nfe=NFE, sidenet=sidenet)

    for method in ("euler", "bianchor"):
        run(method)  # warm up
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    pairs = [(run("euler"), run("bianchor")) for _ in range(REPEATS)]
    euler, bianchor = (median(r.seconds for r in runs) for runs in zip(*pairs, strict=True))
    memory = torch.cuda.max_memory_allocated(place) / 2**20 if place.type == "cuda" else 0.0
    return {
        "batch": batch,
        "euler_ms": 1e3 * euler / NFE,
        "bianchor_ms": 1e3 * bianchor / NFE,
        "ratio": bianchor / euler,
        "share": sum(b.sidenet_seconds for _, b in pairs) / sum(b.seconds for _, b in pairs),
        "memory_mib": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="fashion-unet", help="a shipped one")
    parser.add_argument("--size", help="a random SiT of a published size instead, e.g. SiT-XL/2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--out", help="JSON file")
    arguments = parser.parse_args()
    model: nn.Module
    sidenet: nn.Module | None
    if arguments.size:
        config = sit_config(arguments.size)
        model, sidenet = SiT(config), SideNet(SideNetConfig())
        size, classes = config.input_size, config.num_classes
        shape = (config.in_channels, size, size)
    else:
        named = load_named(arguments.backbone)
        model, sidenet = named.model, load_named_sidenet(named, None, "bianchor")
        shape, classes = named.shape, named.num_classes
    assert sidenet is not None
    dtype = getattr(torch, arguments.dtype)
    model, sidenet = (
        net.to(arguments.device, dtype).eval().requires_grad_(False) for net in (model, sidenet)
    )
    rows = [
        overhead(model, sidenet, shape, classes, batch=batch, device=arguments.device)
        for batch in arguments.batches
    ]
    print(f"{'batch':>6}{'euler ms/NFE':>14}{'BA ms/NFE':>12}{'ratio':>8}{'SideNet share':>15}")
    for r in rows:
        print(
            f"{r['batch']:>6}{r['euler_ms']:>14.2f}{r['bianchor_ms']:>12.2f}{r['ratio']:>8.2f}"
            f"{r['share']:>15.2f}"
        )
    if arguments.out:
        write_json(arguments.out, {"backbone": arguments.size or arguments.backbone, "rows": rows})


if __name__ == "__main__":
    main()
