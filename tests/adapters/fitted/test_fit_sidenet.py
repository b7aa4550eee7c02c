"""fit_sidenet: the published form better at the ends, its start untouched, its file read by all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quadflow.adapters import (
    FittedSideNet,
    SideNet,
    SideNetConfig,
    fit_sidenet,
    initial_noise,
    load_sidenet,
    sample,
)
from quadflow.adapters.backbones.checkpoints import CheckpointError
from quadflow.adapters.fitted.fit_sidenet import sidenet_plan
from quadflow.adapters.flow.field import FlowField, Guidance
from quadflow.adapters.sampling.sample import run_plan, time_grid
from quadflow.adapters.training import fit as loop

SHAPE = (1, 4, 4)
SMALL = SideNetConfig(1, 2, 16, 16, 3, 2, num_classes=2, time_scale=100.0, input_size=4)


class Bent(nn.Module):
    """A velocity of pictures with two labels and a null label, bent enough to be worth learning."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.label = nn.Embedding(3, 8)
            self.hidden, self.output = nn.Linear(16 + 1 + 8, 32), nn.Linear(32, 16)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        told = torch.cat((x.flatten(1), t[:, None], self.label(y)), 1)
        return (2 * self.output(torch.sin(2 * self.hidden(told)))).view_as(x) + x


def random_start() -> SideNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = SideNet(SMALL)
        nn.init.normal_(net.output_conv.weight, std=0.05)
    return net.eval().requires_grad_(False)


FIT: dict[str, Any] = {"shape": SHAPE, "nfe": (3,), "updates": 24, "pairs": 64, "steps": 32}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit") / "net.safetensors"


@pytest.fixture(scope="module")
def fitted(out: Path) -> FittedSideNet:
    return fit_sidenet(Bent(), SMALL, guidance=(1.0, 2.0), **FIT, out=out)


def bytes_of(net: nn.Module) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in net.state_dict().items()}


def test_better_on_unseen_noises(fitted: FittedSideNet) -> None:
    model, noise, labels = Bent(), initial_noise(5, 64, SHAPE), torch.arange(64) % 2
    new = SideNet(SMALL).eval()
    for scale in (1.0, 2.0):
        guidance = Guidance(scale, 2)
        true = sample(model, noise, labels, method="ab3", nfe=200, guidance=guidance).x
        own = sample(model, noise, labels, method=fitted, nfe=3, guidance=guidance)
        shift = fitted.shifts[3, scale]
        before, named = (
            sample(model, noise, labels, method="bianchor", nfe=3, guidance=guidance, sidenet=net,
                   shift=shift).x
            for net in (new, fitted.sidenet)
        )  # fmt: skip
        assert own.stats.nfe == 3 and torch.equal(own.x, named)
        assert float((own.x - true).square().mean()) < 0.95 * float((before - true).square().mean())


def test_training_takes_the_way_of_the_sampler() -> None:
    """In training, the backbone checkpointed, a SideNet ends where `sample` takes it; every weight
    learns, and none of the backbone's."""
    model, net = Bent(), random_start().requires_grad_(True)
    noise, labels = initial_noise(0, 3, SHAPE), torch.tensor([0, 1, 0])
    for scale in (1.0, 2.0):
        guidance = Guidance(scale, 2)
        flow = FlowField(model, "repa", labels, guidance)
        net.zero_grad()
        x = run_plan(sidenet_plan(net, flow, 4, 1.5, training=True), noise, (1.0, 0.0)).x
        wanted = sample(model, noise, labels, method="bianchor", nfe=4, sidenet=net, shift=1.5,
                        guidance=guidance).x  # fmt: skip
        assert torch.equal(x, wanted)
        x.square().sum().backward()
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.abs().max() > 0), name


def test_figures_and_file(fitted: FittedSideNet, out: Path) -> None:
    assert [(p["nfe"], p["guidance"]) for p in fitted.figures["plans"]] == [(3, 1.0), (3, 2.0)]
    assert all(p["trained"] < p["before"] and not p["fell_back"] for p in fitted.figures["plans"])
    assert json.loads(out.with_suffix(".json").read_text()) == fitted.figures
    assert out.with_suffix(".png").stat().st_size > 10_000
    # 12 updates of 16 at each scale, a guided sample being two
    assert fitted.figures["evaluations"]["updates"] == 12 * 16 * 3 * (1 + 2)
    again, plain = FittedSideNet.load(out), load_sidenet(out)
    assert again.figures == fitted.figures and again.shifts == fitted.shifts
    assert bytes_of(plain) == bytes_of(fitted.sidenet) == bytes_of(again.sidenet)
    with pytest.raises(ValueError, match=r"nfe=5 at guidance 1 was not trained; .*nfe=3 at guid"):
        sample(Bent(), initial_noise(0, 2, SHAPE), torch.tensor([0, 1]), method=again, nfe=5)


def test_same_bytes_even_when_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**FIT, "updates": 4}
    start = random_start()
    kept = bytes_of(start)
    whole = fit_sidenet(Bent(), start, **options, folder=tmp_path / "a")
    assert bytes_of(start) == kept  # what was given is not changed
    assert bytes_of(whole.sidenet) != kept
    steps, real = [0], loop._Training.step

    def dies(self: Any, *args: Any) -> Any:
        steps[0] += 1
        if steps[0] == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            fit_sidenet(Bent(), start, **options, folder=tmp_path / "b")
    with pytest.raises(ValueError, match=r"belongs to another training: .*sidenet"):
        fit_sidenet(Bent(), SMALL, **options, folder=tmp_path / "b", resume=True)
    resumed = fit_sidenet(Bent(), start, **options, folder=tmp_path / "b", resume=True)
    assert bytes_of(resumed.sidenet) == bytes_of(whole.sidenet)
    assert resumed.figures["plans"] == whole.figures["plans"]
    assert resumed.figures["evaluations"] == whole.figures["evaluations"]


class Straight(nn.Module):
    """A constant velocity, on which BA-solver with a new SideNet is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.ones(SHAPE), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.v.expand_as(x)


def test_falls_back_where_nothing_is_better() -> None:
    new = SideNetConfig(1, 2, 16, 16, 3, 2, num_classes=0, input_size=4)
    with pytest.warns(UserWarning, match="nothing learned is better than the start"):
        found = fit_sidenet(Straight(), new, **{**FIT, "updates": 2})
    (plan,) = found.figures["plans"]
    assert plan["fell_back"] and plan["trained"] == plan["before"]
    assert not any(p.abs().max() > 0 for p in found.sidenet.output_conv.parameters())
    noise = initial_noise(0, 2, SHAPE)
    grid = time_grid(3, shift=plan["shift"])
    own = sample(Straight(), noise, method=found, nfe=3).x
    assert torch.equal(own, sample(Straight(), noise, method="bianchor", nfe=3, grid=grid,
                                   sidenet=found.sidenet).x)  # fmt: skip


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape=\(16,\): the SideNet is made for states \(C, H"):
        fit_sidenet(Bent(), SMALL, **{**FIT, "shape": (16,)})
    with pytest.raises(TypeError, match="sidenet must be a SideNet, a SideNetConfig or None"):
        fit_sidenet(Bent(), nn.Linear(2, 2), **FIT)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="made for 3 classes, the backbone has 2"):
        fit_sidenet(Bent(), SideNetConfig(1, 2, 16, 16, 3, 2, num_classes=3), **FIT)
    with pytest.raises(ValueError, match="give at least one of each"):
        fit_sidenet(Bent(), SMALL, **{**FIT, "guidance": ()})
    from quadflow.adapters.backbones.pretrained import shipped

    with pytest.raises(CheckpointError, match="was trained to the ends"):
        FittedSideNet.load(shipped("mnist_sidenet.safetensors"))
