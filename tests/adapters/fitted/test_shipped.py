"""The fitted samplers that come with the shipped backbones."""

from __future__ import annotations

import pytest
import torch

from quadflow.adapters import FittedSampler, FlowField, initial_noise, sample, shipped_fitted
from quadflow.adapters.backbones.flops import counted
from quadflow.adapters.backbones.pretrained import shipped
from quadflow.adapters.backbones.registry import NamedBackbone, load_named
from quadflow.adapters.fitted.shipped import FILES
from quadflow.adapters.fitted.sizing import network_flops
from quadflow.adapters.sampling.converged import rmse, tight_solve
from quadflow.adapters.sampling.sample import default_labels, own_time

BACKBONES = {
    "fashion_fitted": "fashion-unet", "mnist_fitted": "mnist-sit",
    "galaxy_hsc32_fitted": "galaxygrad:hsc-32",
}  # fmt: skip


def pair(file: str) -> tuple[NamedBackbone, FittedSampler]:
    backbone = load_named(BACKBONES[file])
    return backbone, shipped_fitted(backbone.model)


def test_every_file_is_here() -> None:
    assert set(FILES) == set(BACKBONES)
    assert all(shipped(f"{file}.safetensors").exists() for file in FILES)


@pytest.mark.parametrize("file", FILES)
def test_recorded_errors_are_below_the_classical_ones(file: str) -> None:
    _, fitted = pair(file)
    plans = fitted.figures["plans"]
    assert [(p["nfe"], p["guidance"]) for p in plans] == fitted.budgets
    assert {p["nfe"] for p in plans} == {3, 5, 7, 10}
    assert all(p["fitted"] < p["classical"] and not p["fell_back"] for p in plans)


@pytest.mark.parametrize("file", FILES)
def test_nearer_than_the_classical_start_on_other_noises(file: str) -> None:
    backbone, fitted = pair(file)
    count, nfe = 16, 5
    noise, labels = (
        initial_noise(77, count, backbone.shape),
        default_labels(count, backbone.num_classes),
    )
    flow = FlowField(backbone.model, backbone.convention, labels)
    ends = tight_solve(flow, noise, 64)
    start = fitted.learned.plan(nfe, 1.0).start
    errors = {}
    for name, method, grid in (
        ("fitted", fitted, None),
        ("classical", start.name, [own_time(flow.resolved, s) for s in start.sigmas]),
    ):
        made = sample(
            backbone.model, noise, labels, method=method, nfe=nfe, grid=grid,
            convention=backbone.convention,
        )  # fmt: skip
        assert made.stats.nfe == nfe
        errors[name] = rmse(made.x, ends)
    assert errors["fitted"] < 0.9 * errors["classical"]


def test_a_backbone_for_which_none_is_shipped() -> None:
    with pytest.raises(ValueError, match="none is shipped for this backbone; fit one with"):
        shipped_fitted(lambda x, t, y: x)


@pytest.mark.parametrize("file", FILES)
def test_the_network_is_small_beside_the_backbone(file: str) -> None:
    backbone, fitted = pair(file)
    network = fitted.learned.network
    assert network is not None
    x, t = torch.zeros(1, *backbone.shape), torch.full((1,), 0.5)
    labels = default_labels(1, backbone.num_classes)
    flow = FlowField(backbone.model, backbone.convention, labels)
    whole = counted(lambda: flow.evaluate(float(t), x))
    assert network_flops(network.config) < 0.3 * whole
