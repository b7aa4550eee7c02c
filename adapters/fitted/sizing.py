"""How large the network of a fitted sampler is, beside the backbone that it is fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..backbones.flops import counted
from .features import FeatureLayout
from .network import Residual, ResidualConfig, fold_for

SHARE = 0.25
"""Of a backbone's operations that the network's width is chosen for."""

WIDTHS = range(16, 257, 16)
"""Widths that are tried. The largest is what holds at SiT-XL/2, far below its `SHARE`."""


def sized(
    state: Sequence[int],
    features: FeatureLayout | None,
    halves: int,
    num_classes: int,
    backbone: int,
) -> ResidualConfig:
    """The widest network that takes no more than `SHARE` of the backbone's operations.

    Args:
        state, features, halves, num_classes: see `ResidualConfig`.
        backbone: FLOPs of an evaluation of one sample, see `counted`. The narrowest network is
            given where even that takes more.
    """
    fold = fold_for(state, features)
    best = None
    for width in WIDTHS:
        config = ResidualConfig(tuple(state), features, halves, num_classes, fold, width)
        if best is not None and network_flops(config) > SHARE * backbone:
            break
        best = config
    assert best is not None
    return best


def network_flops(config: ResidualConfig) -> int:
    """FLOPs of a call of a network of this shape for one sample; nothing is computed."""
    with torch.device("meta"):
        network = Residual(config)
        x = torch.empty(1, *config.state)
        features = []
        if config.features is not None:
            layout = config.features
            seen = torch.empty(1, layout.channels, *layout.positions)
            features = [seen.flatten(2).transpose(1, 2) if layout.kind == "tokens" else seen]
        numbers, y = torch.empty(1, 4), torch.empty(1, dtype=torch.int64)
        return counted(lambda: network(x, x, x, features * config.halves, numbers, y))
