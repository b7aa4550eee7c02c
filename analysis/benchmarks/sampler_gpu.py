"""Time and memory of samplers at the published size: on one GPU, in a few minutes.

Euler, pec2, BA-solver and a fitted sampler (its network fed by the backbone's features) take turns.
The weights are random ones of the published shapes, on whose values no time depends.

`python -m quadflow.analysis.benchmarks.sampler_gpu --out sampler.json`, and to try it on a small
machine `--device cpu --size SiT-S/2 --batches 1 --dtypes float32 --repeats 1`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters import FittedSampler, Guidance, SideNet, SideNetConfig, sample
from ...adapters.backbones.sit import SIT_CONFIGS, SiT, SiTConfig, sit_config
from ...adapters.fitted.calibrate import grid_of
from ...adapters.fitted.network import Residual
from ...adapters.fitted.plan import LearnedPlan, PlanStart
from ...adapters.fitted.sampler import Learned, plan_key
from ...adapters.sampling.sample import default_labels
from ...adapters.sampling.samplers import Sampler
from ...storage import write_json
from ..cost.timing import interleaved, timed
from ..images.flops import fitted_network, published_size_flops
from ..images.peers import TimedSideNet, finish
from ..report.machine import machine
from .report import say, table

NFE, REPEATS = 7, 5
BATCHES = (1, 16, 64)
DTYPES = ("bfloat16", "float32")
SECONDS = 420.0
"""After which no further batch size or dtype is begun, so that the whole ends within 8 minutes."""


@dataclass(frozen=True)
class Networks:
    """What is timed: a backbone for states of a shape, its SideNet, and a fitted sampler."""

    model: nn.Module
    sidenet: nn.Module
    shape: tuple[int, ...]
    num_classes: int
    fitted: FittedSampler | None = None

    def to(self, device: str, dtype: torch.dtype) -> Networks:
        """The same on a device; backbone and SideNet in a dtype, the fitted network as it is."""
        for net in (self.model, self.sidenet):
            net.to(device, dtype).eval().requires_grad_(False)
        if self.fitted is not None:
            self.fitted.to(device)
        return self


def random_networks(
    config: SiTConfig,
    guidance: float = 1.0,
    nfes: Sequence[int] = (NFE,),
    interval: tuple[float, float] = (-math.inf, math.inf),
) -> Networks:
    """Networks with random weights: a SiT, a SideNet of the published shape for its states, and the
    network that `fit_sampler` would make for it, with a plan for each budget, near to pec2."""
    model = SiT(config)
    for parameter in model.parameters():
        if not bool(parameter.any()):  # what is zero when new, the last layer among it
            nn.init.normal_(parameter, std=0.02)
    shape = (config.in_channels, config.input_size, config.input_size)
    sidenet = SideNet(SideNetConfig(in_channels=config.in_channels, num_classes=config.num_classes))
    nn.init.normal_(sidenet.output_conv.weight, std=1e-3)
    network = Residual(fitted_network(model))
    nn.init.normal_(network.leave.weight, std=1e-3)  # type: ignore[arg-type]
    plans = {}
    for nfe in nfes:
        plan = LearnedPlan(PlanStart(nfe, 2, True, grid_of(nfe, 1.5), guidance))
        for parameter in plan.parameters():
            nn.init.normal_(parameter, std=1e-2)
        plans[plan_key(nfe, guidance)] = plan
    learned = Learned(plans, network).eval().requires_grad_(False)
    fitted = FittedSampler(
        learned, network.config.features, "repa", guidance=Guidance(interval=interval)
    )
    return Networks(model, sidenet, shape, config.num_classes, fitted)


def sampler_times(
    networks: Networks,
    methods: Mapping[str, str | Sampler],
    *,
    batch: int,
    device: str = "cpu",
    guidance: float = 1.0,
    nfe: int = NFE,
    repeats: int = REPEATS,
) -> list[dict[str, Any]]:
    """Times of samplings by some methods, which take turns, after one each to warm up.

    Args:
        networks: on the device. methods: name -> what is sampled by. batch: samples.
        guidance: scale, 1 for none. nfe: evaluations. repeats: timed samplings of each.

    Returns:
        A row a method: "method", "batch"; "ms", median milliseconds an evaluation, the device being
        waited for at both ends; "ratio", over the first method's; "share", the part of the time
        that is spent in the SideNet, from one further sampling; "memory_mib": peak of a sampling
        with all networks in memory on a GPU, None elsewhere.
    """
    place = torch.device(device)
    noise = torch.randn(batch, *networks.shape, device=place)
    labels: Tensor | None = default_labels(batch, networks.num_classes)
    labels = None if labels is None else labels.to(place)
    guided = Guidance(guidance, networks.num_classes or None)

    def run(name: str, sidenet: nn.Module) -> Tensor:
        return sample(
            networks.model, noise, labels, method=methods[name], nfe=nfe, sidenet=sidenet,
            guidance=guided,
        ).x  # fmt: skip

    def clock(name: str, sidenet: nn.Module = networks.sidenet) -> float:
        finish(noise)
        return timed(lambda: finish(run(name, sidenet)))[1]

    times = interleaved(
        {name: name for name in methods}, repeats=repeats, seconds=float("inf"), clock=clock
    )
    first = next(iter(times.values())).median
    rows = []
    for name, timing in times.items():
        side, memory = TimedSideNet(networks.sidenet), None
        if place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(place)
        whole = clock(name, side)
        if place.type == "cuda":
            memory = torch.cuda.max_memory_allocated(place) / 2**20
        rows.append({
            "method": name, "batch": batch, "ms": 1e3 * timing.median / nfe,
            "ratio": timing.median / first, "share": side.seconds / whole, "memory_mib": memory,
        })  # fmt: skip
    return rows


def overhead(
    model: nn.Module,
    sidenet: nn.Module,
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    batch: int,
) -> dict[str, float]:
    """Times of an evaluation by Euler and by BA-solver on the CPU, as the page of the judge has it.

    Returns:
        batch; euler_ms, bianchor_ms: median milliseconds; ratio of the two; share: part of
        BA-solver's time that is spent in the SideNet.
    """
    both: dict[str, str | Sampler] = {"euler": "euler", "bianchor": "bianchor"}
    euler, bianchor = sampler_times(Networks(model, sidenet, shape, num_classes), both, batch=batch)
    return {
        "batch": batch, "euler_ms": euler["ms"], "bianchor_ms": bianchor["ms"],
        "ratio": bianchor["ratio"], "share": bianchor["share"],
    }  # fmt: skip


def measure(
    config: SiTConfig,
    *,
    device: str,
    dtypes: Sequence[str] = DTYPES,
    batches: Sequence[int] = BATCHES,
    guidance: float = 1.0,
    nfe: int = NFE,
    repeats: int = REPEATS,
    seconds: float = SECONDS,
) -> list[dict[str, Any]]:
    """The rows of `sampler_times` for every dtype and batch size, each with its "dtype".

    seconds: after which no further ones are begun. What is left out for that, or for want of
    memory, is named on standard error.
    """
    began, rows = time.perf_counter(), []
    networks = random_networks(config, guidance, (nfe,))
    assert networks.fitted is not None
    methods: dict[str, str | Sampler] = {
        "euler": "euler", "pec2": "pec2", "bianchor": "bianchor", "fitted": networks.fitted,
    }  # fmt: skip
    for dtype in dtypes:
        networks.to(device, getattr(torch, dtype))
        for batch in batches:
            if time.perf_counter() - began > seconds:
                say(f"left out, since {seconds:g} s are over: {dtype}, batch {batch}")
                continue
            try:
                found = sampler_times(
                    networks, methods, batch=batch, device=device, guidance=guidance, nfe=nfe,
                    repeats=repeats,
                )  # fmt: skip
            except torch.OutOfMemoryError:
                say(f"left out, does not fit into memory: {dtype}, batch {batch}")
                continue
            rows += [{"dtype": dtype, **row} for row in found]
            say(f"{dtype}, batch {batch}: done after {time.perf_counter() - began:.0f} s")
    return rows


def times_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `measure` as text."""
    heads = ["method", "dtype", "batch", "ms/NFE", "over Euler", "SideNet share", "peak MiB"]
    lines = [
        [
            r["method"], r["dtype"], str(r["batch"]), f"{r['ms']:.3g}", f"{r['ratio']:.3f}",
            f"{r['share']:.1%}" if r["share"] else "–",
            "–" if r["memory_mib"] is None else f"{r['memory_mib']:.0f}",
        ]
        for r in rows
    ]  # fmt: skip
    return table(heads, lines)


def flops_lines(size: str, flops: Mapping[str, Mapping[str, float]]) -> str:
    """What `published_size_flops` gave, a line a network."""
    return "\n".join(
        f"{name}: {row['extra'] / 1e9:.2f} GFLOP a call, {row['share']:.2%} of the "
        f"{row['backbone'] / 1e9:.1f} of {size}"
        for name, row in flops.items()
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m quadflow.analysis.benchmarks.sampler_gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--size", choices=tuple(SIT_CONFIGS), default="SiT-XL/2", help="(%(default)s)")
    add("--device", default="cuda", help="(%(default)s)")
    add("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="of the backbone")
    add("--batches", type=int, nargs="+", default=BATCHES, help="samples at once (1 16 64)")
    add("--nfe", type=int, default=NFE, help="evaluations of a sampling (%(default)s)")
    add("--guidance", type=float, default=1.0, help="scale; 1 is none")
    add("--repeats", type=int, default=REPEATS, help="of every sampling (%(default)s)")
    add("--out", help="JSON file")
    arguments = parser.parse_args(argv)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {arguments.device}: torch sees no GPU here; try --device cpu")
    if arguments.out and not Path(arguments.out).resolve().parent.is_dir():
        parser.error(f"--out {arguments.out}: there is no such folder")
    flops = published_size_flops(arguments.size)
    print(flops_lines(arguments.size, flops), flush=True)
    rows = measure(
        sit_config(arguments.size), device=arguments.device, dtypes=arguments.dtypes,
        batches=arguments.batches, guidance=arguments.guidance, nfe=arguments.nfe,
        repeats=arguments.repeats,
    )  # fmt: skip
    print(times_table(rows))
    if arguments.out:
        gpu = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else None
        write_json(
            arguments.out,
            {
                "size": arguments.size, "nfe": arguments.nfe, "guidance": arguments.guidance,
                "device": gpu or arguments.device, "machine": machine(), "flops": flops,
                "rows": rows,
            },
        )  # fmt: skip


if __name__ == "__main__":
    main()
