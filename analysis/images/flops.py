"""Floating-point operations of samplers, counted: what the backbone needs, and what is on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...adapters import Guidance, SideNet, SideNetConfig
from ...adapters.backbones.sit import SiT, sit_config
from .evaluation import JudgedBackbone
from .peers import run_sampler
from .rivals import Rival, as_rival


def counted(run: Callable[[], Any]) -> int:
    """FLOPs of a call: two for each multiplication with addition in products of matrices and
    convolutions, which is what `torch.utils.flop_counter` sees."""
    # attention as two products of matrices: its fused forms on a CPU are not counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def flops_per_evaluation(
    subject: JudgedBackbone,
    methods: Sequence[str | Rival],
    *,
    nfe: int = 7,
    guidance: Guidance | None = None,
) -> dict[str, dict[str, float]]:
    """FLOPs that samplers spend an evaluation and a sample, on average over one sampling.

    Args:
        subject: backbone and SideNet. methods: names of samplers, or rivals.
        nfe: evaluations of the sampling. guidance: as for `sample`; a pair is one evaluation.

    Returns:
        By name: "all"; "backbone", what Euler spends, which calls nothing else; "extra", the rest;
        "share", extra as a part of the backbone's.
    """
    noise, labels = subject.noise_and_labels(0, 1)
    backbone = subject.backbone

    def spent(rival: Rival) -> float:
        def run() -> None:
            run_sampler(
                rival.sampler, backbone.model, noise, labels, nfe=nfe, sidenet=subject.sidenet,
                guidance=guidance, convention=backbone.convention,
            )  # fmt: skip

        return counted(run) / nfe

    alone = spent(as_rival("euler"))
    found = {}
    for rival in map(as_rival, methods):
        whole = spent(rival)
        found[rival.name] = {
            "all": whole, "backbone": alone, "extra": whole - alone, "share": whole / alone - 1,
        }  # fmt: skip
    return found


def flops_table(record: Mapping[str, Any]) -> str:
    """FLOPs an evaluation and a sample, from the contents of flops.json, as text."""
    lines = [f"{'MFLOP':<24}{'method':<16}{'backbone':>12}{'on top':>12}{'share':>8}"]
    for name, entry in record.items():
        result = entry["result"]
        rows = (
            result
            if "share" not in result
            else {"one call": {**result, "extra": result["sidenet"]}}
        )
        lines += [
            f"{name:<24}{method:<16}{row['backbone'] / 1e6:>12.1f}{row['extra'] / 1e6:>12.1f}"
            f"{row['share']:>8.1%}"
            for method, row in rows.items()
        ]
    return "\n".join(lines)


def published_size_flops(
    size: str = "SiT-XL/2", sidenet: SideNet | None = None
) -> dict[str, float]:
    """FLOPs of one call of a SiT of a published size and of a SideNet, for one sample.

    Nothing is computed: both networks are made without memory, on torch's meta device.

    Args:
        size: see `sit_config`. sidenet: default: of the published size.

    Returns:
        "backbone", "sidenet", "share": the SideNet's call as a part of the backbone's.
    """
    config = sit_config(size)
    with torch.device("meta"):
        model = SiT(config)
        net = SideNet(SideNetConfig()) if sidenet is None else sidenet.to("meta")
        x = torch.empty(1, config.in_channels, config.input_size, config.input_size)
        t: Tensor = torch.empty(1)
        y = torch.empty(1, dtype=torch.int64)
        own, side = counted(lambda: model(x, t, y)), counted(lambda: net(x, x, t, t, y))
    return {"backbone": own, "sidenet": side, "share": side / own}
