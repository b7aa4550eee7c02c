"""Floating-point operations of samplers, counted: what the backbone needs, and what is on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...adapters import Guidance, SideNet, SideNetConfig
from ...adapters.backbones.flops import counted
from ...adapters.backbones.sit import SiT, sit_config
from ...adapters.fitted.features import find_features
from ...adapters.fitted.network import ResidualConfig
from ...adapters.fitted.sizing import network_flops, sized
from .evaluation import JudgedBackbone
from .peers import run_sampler
from .rivals import Rival, as_rival


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
        lines += [
            f"{name:<24}{method:<16}{row['backbone'] / 1e6:>12.1f}{row['extra'] / 1e6:>12.1f}"
            f"{row['share']:>8.1%}"
            for method, row in entry["result"].items()
        ]
    return "\n".join(lines)


def published_size_flops(
    size: str = "SiT-XL/2", sidenet: SideNetConfig | None = None
) -> dict[str, dict[str, float]]:
    """FLOPs of one call of a SiT of a published size, and of the networks that samplers put beside
    it, for one sample.

    Nothing is computed: all networks are made without memory, on torch's meta device.

    Args:
        size: see `sit_config`. sidenet: its shape; default the published one.

    Returns:
        For "SideNet" and for "fitted", the network that `fit_sampler` makes for guided pairs:
        "backbone"; "extra", one call of the network; "share", that as a part of the backbone's.
    """
    with torch.device("meta"):
        model, net = SiT(sit_config(size)), SideNet(sidenet or SideNetConfig())
    config = fitted_network(model)
    shape = config.state
    with torch.device("meta"):
        x, t, y = torch.empty(1, *shape), torch.empty(1), torch.empty(1, dtype=torch.int64)
    backbone = counted(lambda: model(x, t, y))
    extras = {"SideNet": counted(lambda: net(x, x, t, t, y)), "fitted": network_flops(config)}
    return {
        name: {"backbone": backbone, "extra": extra, "share": extra / backbone}
        for name, extra in extras.items()
    }


def fitted_network(model: SiT) -> ResidualConfig:
    """The shape of the network that `fit_sampler` makes for guided pairs of a SiT on any device,
    the meta one included."""
    c, device = model.config, model.pos_embed.device
    shape = (c.in_channels, c.input_size, c.input_size)
    x, t = torch.zeros(1, *shape, device=device), torch.zeros(1, device=device)
    y = torch.zeros(1, dtype=torch.int64, device=device)
    layout = find_features(model, lambda: model(x, t, y), shape)
    return sized(shape, layout, 2, c.num_classes, counted(lambda: model(x, t, y)))
