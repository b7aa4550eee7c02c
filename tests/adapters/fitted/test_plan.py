"""What is learned starts as nothing, and may keep the order of what it starts from."""

from __future__ import annotations

import pytest
import torch

from quadflow.adapters.backbones.unet import UNet, UNetConfig
from quadflow.adapters.fitted.features import find_features
from quadflow.adapters.fitted.network import Residual, ResidualConfig, fold_for
from quadflow.adapters.fitted.plan import FORMS, PARTS, LearnedPlan, PlanStart
from quadflow.adapters.fitted.sampler import Learned, learned_plan, plan_key
from quadflow.adapters.flow.field import FlowField, Guidance
from quadflow.adapters.sampling.sample import initial_noise, run_plan, sample, time_grid
from quadflow.analysis.images.fitted_order import SmoothFlow, conditions_missed, measured_order

STARTS = [("ab2", 2, False), ("ab3", 3, False), ("pec2", 2, True), ("pec3", 3, True)]


def tiny_unet() -> UNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UNet(UNetConfig(in_channels=1, widths=(8, 16), blocks=1, num_classes=3, patch=1))
        for parameter in model.output_conv.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "k", "corrected"), STARTS)
def test_untrained_is_classical_to_the_bit(name: str, k: int, corrected: bool, form: str) -> None:
    model = tiny_unet()
    noise, labels = initial_noise(0, 2, (1, 8, 8)), torch.tensor([0, 2])
    features = find_features(model, lambda: sample(model, noise, labels, method="euler", nfe=1),
                             (1, 8, 8))  # fmt: skip
    network = Residual(
        ResidualConfig((1, 8, 8), features, 2, 3, fold_for((1, 8, 8), features), 16, 1, 16)
    )
    for scale in (1.0, 2.0):
        guidance = Guidance(scale, 3)
        grid = time_grid(5, shift=1.7)
        start = PlanStart(5, k, corrected, tuple(grid.tolist()), scale, form)
        learned = Learned({plan_key(5, scale): LearnedPlan(start)}, network)
        own = sample(
            model, noise, labels, nfe=5, guidance=guidance,
            method=lambda flow, nfe, _, learned=learned: learned_plan(learned, flow, nfe, features),
        )  # fmt: skip
        classical = sample(model, noise, labels, nfe=5, guidance=guidance, method=name, grid=grid)
        assert torch.equal(own.x, classical.x)
        assert (own.stats.nfe, own.rows) == (classical.stats.nfe, classical.rows)


def test_vectors_untrained_are_classical_to_the_bit() -> None:
    model = SmoothFlow()
    noise = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = find_features(model, lambda: FlowField(model).evaluate(1.0, noise), (2,))
    assert features is not None and (features.module, features.kind) == ("output", "vector")
    network = Residual(ResidualConfig((2,), features, width=16, blocks=1)).double()
    start = PlanStart(6, 2, True, tuple(time_grid(6).tolist()))
    learned = Learned({plan_key(6, 1.0): LearnedPlan(start)}, network)
    plan = learned_plan(learned, FlowField(model), 6, features)
    with torch.no_grad():
        own = run_plan(plan, noise, (1.0, 0.0)).x
    assert torch.equal(own, sample(model, noise, method="pec2", nfe=6).x)


def test_training_and_sampling_take_the_same_way() -> None:
    """Times as tensors with gradients give what floats give, to rounding; every part learns."""
    model = SmoothFlow()
    noise = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = find_features(model, lambda: FlowField(model).evaluate(1.0, noise), (2,))
    for form in FORMS:
        network = Residual(ResidualConfig((2,), features, width=16, blocks=1)).double()
        torch.nn.init.normal_(network.leave.weight)  # type: ignore[arg-type]
        start = PlanStart(6, 2, True, tuple(time_grid(6).tolist()), form=form)
        plan = LearnedPlan(start)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in plan.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        learned = Learned({plan_key(6, 1.0): plan}, network)
        with torch.no_grad():
            floats = learned_plan(learned, FlowField(model), 6, features)
            wanted = run_plan(floats, noise, (1.0, 0.0)).x
        tensors = learned_plan(learned, FlowField(model), 6, features, training=True)
        times = tensors.times.reshape(-1, 1, 1).expand(-1, len(noise), 1)
        found = run_plan(tensors._replace(times=times), noise, (1.0, 0.0)).x
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
        found.square().sum().backward()
        for name, parameter in learned.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.abs().max() > 0), name


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_switched_one_by_one(part: str) -> None:
    start = PlanStart(4, 2, True, tuple(time_grid(4).tolist()))
    on = {n for n, p in LearnedPlan(start, (part,)).named_parameters() if p.requires_grad}
    assert on == {
        "times": {"increments"}, "coefficients": {"predict", "correct"}, "shift": {"delay"},
        "network": {"gains"},
    }[part]  # fmt: skip


@pytest.mark.parametrize(("k", "corrected"), [(2, False), (3, False), (2, True), (3, True)])
def test_ordered_form_keeps_the_order_with_random_values(k: int, corrected: bool) -> None:
    found = measured_order(k, corrected, "ordered")
    assert found.declared is not None
    assert found.slope > found.declared - 0.15
    assert not any(conditions_missed(k, corrected, "ordered", 6))


def test_free_form_claims_and_keeps_none() -> None:
    found = measured_order(2, True, "free")
    assert found.declared is None
    assert found.slope < 1.5
    assert any(conditions_missed(2, True, "free", 6))


def test_bad_starts() -> None:
    with pytest.raises(ValueError, match="sigmas must fall from 1 to 0"):
        PlanStart(2, 2, True, (1.0, 1.2, 0.0))
    with pytest.raises(ValueError, match="sigmas must be 3 numbers from 1 to 0"):
        PlanStart(2, 2, True, (1.0, 0.0))
    with pytest.raises(ValueError, match="form"):
        PlanStart(1, 1, False, (1.0, 0.0), form="loose")
    with pytest.raises(ValueError, match="parts"):
        LearnedPlan(PlanStart(1, 1, False, (1.0, 0.0)), ("grid",))
