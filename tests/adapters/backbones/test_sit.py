"""The SiT network itself: positions, patches, identity when new, errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from quadflow.adapters.backbones.sit import (
    SIT_CONFIGS,
    SiT,
    SiTConfig,
    position_table,
    sit_config,
)

TINY = SiTConfig(8, width=48, depth=3, heads=4, num_classes=5)


def new(config: SiTConfig, random: bool = True) -> SiT:
    torch.manual_seed(0)
    net = SiT(config)
    if random:
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return net.eval().requires_grad_(False)


def inputs(config: SiTConfig, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(
        batch, config.in_channels, config.input_size, config.input_size, generator=generator
    )
    labels = torch.randint(config.num_classes + 1, (batch,), generator=generator)
    return x, torch.rand(batch, generator=generator), labels


@pytest.mark.parametrize(("tokens", "width"), [(1, 4), (4, 48), (16, 1152), (32, 384)])
def test_positions_entry_by_entry(tokens: int, width: int) -> None:
    """Restated from the definition, one number at a time."""
    table = position_table(tokens, width)
    assert table.shape == (1, tokens**2, width) and table.dtype == torch.float32
    quarter = width // 4
    expected = np.zeros((tokens * tokens, width))
    for place in range(tokens * tokens):
        row, column = divmod(place, tokens)
        for c in range(width):
            at = column if c < 2 * quarter else row
            angle = at / 10000 ** ((c % quarter) / quarter)
            expected[place, c] = np.sin(angle) if (c // quarter) % 2 == 0 else np.cos(angle)
    assert np.abs(table[0].numpy() - expected).max() < 1e-6


def test_a_new_network_is_zero_and_its_blocks_the_identity() -> None:
    net = new(TINY, random=False)
    x, t, y = inputs(TINY)
    assert torch.equal(net(x, t, y), torch.zeros_like(x))
    tokens, emb = torch.randn(2, 16, 48), torch.randn(2, 48)
    for block in net.blocks:
        assert torch.equal(block(tokens, emb), tokens)


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_samples_do_not_mix(learn_sigma: bool) -> None:
    config = replace(TINY, learn_sigma=learn_sigma)
    net, (x, t, y) = new(config).double(), inputs(config)
    x, t = x.double(), t.double()
    together = net(x, t, y)
    assert together.shape == x.shape
    for i in range(len(x)):
        alone = net(x[i : i + 1], t[i : i + 1], y[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)
    for a, b, c in ((x + 0.1, t, y), (x, t + 0.1, y), (x, t, (y + 1) % 6)):  # all inputs count
        assert not torch.allclose(net(a, b, c), together, atol=1e-4)


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("learn_sigma", [False, True])
def test_patches_come_back_where_they_were(patch: int, learn_sigma: bool) -> None:
    """Patch pixels copied into tokens by the convolution, out by the last layer: x, normed."""
    channels = 3
    width = 4 * (-(-channels * patch**2 // 4) + 1)
    config = SiTConfig(8, patch, channels, width=width, depth=1, heads=1, num_classes=2,
                       learn_sigma=learn_sigma)  # fmt: skip
    net, (x, t, y) = new(config, random=False), inputs(config)
    net.pos_embed.zero_()
    weight = net.x_embedder.proj.weight.zero_()
    net.x_embedder.proj.bias.zero_()
    last = net.final_layer.linear.weight
    outs = channels * (2 if learn_sigma else 1)
    for k, (c, row, column) in enumerate(np.ndindex(channels, patch, patch)):
        weight[k, c, row, column] = 1.0
        # a token holds rows, then columns, then channels
        last[(row * patch + column) * outs + c, k] = 1.0
    tokens = torch.nn.functional.unfold(x, patch, stride=patch)
    padded = torch.nn.functional.pad(tokens, (0, 0, 0, width - tokens.shape[1]))
    scale = (padded.var(1, unbiased=False) + 1e-6).sqrt()
    normed = (tokens - padded.mean(1, keepdim=True)) / scale[:, None]
    expected = torch.nn.functional.fold(normed, 8, patch, stride=patch)
    torch.testing.assert_close(net(x, t, y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 8, 9), (2, 4, 16, 16), (2, 3, 8, 8), (4, 8, 8)])
def test_inputs_of_another_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must be \(B, 4, 8, 8\), got"):
        new(TINY)(torch.zeros(shape), torch.zeros(2), torch.zeros(2, dtype=torch.int64))


def test_time_scale_multiplies_t() -> None:
    net, scaled = new(TINY), new(replace(TINY, time_scale=5.0))
    x, t, y = inputs(TINY)
    torch.testing.assert_close(scaled(x, t / 5, y), net(x, t, y), rtol=1e-4, atol=1e-4)


def test_no_projectors_no_features() -> None:
    with pytest.raises(ValueError, match="this SiT has no projectors"):
        new(TINY).features(*inputs(TINY))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"patch": 3}, "patch=3 does not divide input_size=8"),
        ({"heads": 5}, "must be a multiple of heads=5"),
        ({"width": 6, "heads": 1}, "must be a multiple of 4"),
        ({"depth": 0}, "depth must be an integer >= 1"),
        ({"z_dims": (3,), "encoder_depth": 4}, r"encoder_depth must be in \[1, depth=3\]"),
    ],
)
def test_configs_that_fit_not(change: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(TINY, **change)


def test_configs_by_name_and_as_json() -> None:
    assert len(SIT_CONFIGS) == 12
    assert sit_config("SiT-XL/2") == SiTConfig()
    with pytest.raises(ValueError, match="name='SiT-M/2' is unknown"):
        sit_config("SiT-M/2")
    config = replace(TINY, z_dims=(3, 4), encoder_depth=1)
    assert SiTConfig.from_dict(config.to_dict()) == config
