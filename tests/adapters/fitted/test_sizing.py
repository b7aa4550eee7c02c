"""The network of a fitted sampler takes the part of the backbone that it may, and no more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quadflow.adapters.backbones.flops import counted
from quadflow.adapters.backbones.sit import SiT, SiTConfig
from quadflow.adapters.fitted.features import FeatureLayout, find_features
from quadflow.adapters.fitted.network import Residual, ResidualConfig
from quadflow.adapters.fitted.sizing import SHARE, WIDTHS, network_flops, sized

LAYOUTS = [
    None,
    FeatureLayout("a", 12, (4, 4), "map"),
    FeatureLayout("a", 12, (4, 4), "tokens"),
    FeatureLayout("a", 12, (), "vector"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_are_those_of_a_call(layout: FeatureLayout | None) -> None:
    """Counted on the meta device as where it is computed."""
    config = ResidualConfig((2, 8, 8), layout, 2, 3, 2, 16, 2, 16)
    x, features = torch.zeros(1, 2, 8, 8), []
    if layout is not None:
        shape = {"map": (1, 12, 4, 4), "tokens": (1, 16, 12), "vector": (1, 12)}[layout.kind]
        features = [torch.zeros(shape)] * 2
    network = Residual(config)
    numbers, y = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    found = counted(lambda: network(x, x, x, features, numbers, y))
    assert network_flops(config) == found > 0


def test_flops_of_a_small_network_by_hand() -> None:
    """Vectors, one block: all products of matrices, a multiplication with addition as two."""
    products = [
        (4 * 32 + 8, 8), (8, 8),  # what it is told, and the label
        (3 * 5, 16), (16, 32), (32, 16), (8, 64), (16, 10),
    ]  # fmt: skip
    config = ResidualConfig((5,), None, 1, 0, 1, 16, 1, 8)
    assert network_flops(config) == 2 * sum(a * b for a, b in products)


def test_attention_is_counted_where_it_is_fused() -> None:
    """The backbone's part of the rule: a SiT's attention is not left out on a CPU."""
    c = SiTConfig(8, width=48, depth=2, heads=4, num_classes=2)
    model, x, t = SiT(c), torch.zeros(1, 4, 8, 8), torch.zeros(1)
    y = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        for block in model.blocks:
            block.attn = nn.Identity()  # type: ignore[union-attr]
        without = counted(lambda: model(x, t, y))
    whole = counted(lambda: SiT(c)(x, t, y))
    tokens = 16
    assert whole - without == 2 * 2 * (4 * tokens * 48 * 48 + 2 * tokens * tokens * 48)


def test_the_widest_that_may_be() -> None:
    state, layout = (2, 8, 8), LAYOUTS[2]
    costs = [network_flops(ResidualConfig(state, layout, 1, 3, 2, w)) for w in (32, 48, 64)]
    for backbone, width in (
        (costs[1] / SHARE, 48), (costs[1] / SHARE - 1, 32), (costs[2] / SHARE - 1, 48),
    ):  # fmt: skip
        assert sized(state, layout, 1, 3, backbone).width == width  # type: ignore[arg-type]
    assert sized(state, layout, 1, 3, 1).width == WIDTHS[0]
    assert sized(state, layout, 1, 3, 10**15).width == WIDTHS[-1]


def test_nothing_is_computed_for_a_large_backbone() -> None:
    with torch.device("meta"):
        model = SiT(SiTConfig())
        x, t, y = torch.empty(1, 4, 32, 32), torch.empty(1), torch.empty(1, dtype=torch.int64)
    layout = find_features(model, lambda: model(x, t, y), (4, 32, 32))
    assert layout == FeatureLayout("final_layer.linear", 1152, (16, 16), "tokens")
    backbone = counted(lambda: model(x, t, y))
    config = sized((4, 32, 32), layout, 2, 1000, backbone)
    assert network_flops(config) <= 0.03 * backbone
