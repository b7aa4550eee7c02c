"""Where chains start: on the paths of data, and on a backbone's own trajectories; conventions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_training import SIDE, Backbone, images
from toyflow import Toy, models

from quadflow.adapters import ChainConfig, SideNet, load_sidenet, train_sidenet
from quadflow.adapters.data.datasets import LabelledImages
from quadflow.adapters.flow.field import CONVENTIONS
from quadflow.adapters.training.chains import ChainSource, DataChains, TrajectoryChains
from quadflow.adapters.training.fit import FitConfig, Recording
from quadflow.adapters.training.random import StepRandom
from quadflow.adapters.training.sidenet import chain_loss, chain_source

CHAIN = ChainConfig(length=3, offset_rate=8.0)
STATE = (1, 4, 4)


def side(seed: int = 0, dtype: torch.dtype = torch.float32, classes: int = 4) -> SideNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SideNet(replace(SIDE, num_classes=classes))
        nn.init.normal_(net.output_conv.weight, std=0.1)
    return net.to(dtype)


def test_data_chains_lie_on_the_path() -> None:
    source = DataChains(images(), 4, 0.25)
    assert isinstance(source, ChainSource)
    x, sigma, labels = source.states(StepRandom(0, 3, 4000))
    assert x.shape == (4000, *STATE) and sigma.shape == labels.shape == (4000,)
    assert abs(float(sigma.mean()) - 0.5) < 0.02
    assert abs(float((labels == 4).float().mean()) - 0.25) < 0.03
    noisy = sigma > 0.99
    assert abs(float(x[noisy].std()) - 1) < 0.1
    clean = (sigma < 0.02) & (labels < 4)
    grey = (0.4 * labels[clean] - 0.6)[:, None, None, None]
    assert float((x[clean] - grey).abs().max()) < 0.6
    again = source.states(StepRandom(0, 3, 4000))
    assert all(torch.equal(a, b) for a, b in zip((x, sigma, labels), again, strict=True))


def test_data_without_labels_have_the_null_label() -> None:
    data = LabelledImages(images().images, images().labels, 0)
    _, _, labels = DataChains(data, 4).states(StepRandom(0, 0, 50))
    assert labels.tolist() == [4] * 50
    _, _, labels = DataChains(data, 0).states(StepRandom(0, 0, 50))
    assert labels.tolist() == [0] * 50


class Flow(nn.Module):
    """The toy with one Gaussian, whose trajectories are known in closed form."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.calls = num_classes, 0

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.calls += 1
        return Toy(gap=0.0).velocity(x, t, y)


@pytest.mark.parametrize("classes", [4, 0])
def test_trajectories_are_the_backbones(classes: int) -> None:
    model, n, batch = Flow(classes), 16, 12
    source = TrajectoryChains(model, STATE, classes, intervals=n, dtype=torch.float64)
    toy = Toy(gap=0.0)
    noise = StepRandom(5, 2, batch, stream=1).normal(STATE, torch.float64)  # of the third pool
    seen: list[Tensor] = []
    for turn in range(n):
        x, sigma, labels = source.states(StepRandom(5, 2 * n + turn, batch))
        y = labels if classes else None
        for i in range(batch):
            exact = toy.flow(noise[i : i + 1], float(sigma[i]), None if y is None else y[i : i + 1])
            assert float((x[i] - exact).abs().max()) < 0.03
        seen.append(sigma)
        if not classes:
            assert labels.tolist() == [0] * batch
    # one solve for all of them, and every part of [0, 1] once a trajectory
    assert model.calls == n + 1
    parts = torch.stack(seen).mul(n).floor().long().sort(dim=0).values
    assert torch.equal(parts, torch.arange(n)[:, None].expand(n, batch))


def test_trajectories_depend_on_seed_and_step_alone() -> None:
    model = Flow(4)
    straight, jumping = (TrajectoryChains(model, STATE, 4, intervals=4) for _ in range(2))
    wanted = [straight.states(StepRandom(0, step, 6)) for step in range(10)]
    for step in (9, 2, 5, 2):
        found = jumping.states(StepRandom(0, step, 6))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted[step], strict=True))
    part = TrajectoryChains(model, STATE, 4, intervals=4).states(StepRandom(0, 5, 6, slice(3, 6)))
    for a, b in zip(part, wanted[5], strict=True):
        assert torch.allclose(a, b[3:], atol=1e-6)
    assert not torch.equal(straight.states(StepRandom(1, 0, 6))[0], wanted[0][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"intervals": 1}, "intervals must be an integer >= 2, got 1"),
        ({"shape": (4, 4)}, r"shape must be \(channels, height, width\), got \(4, 4\)"),
        ({"convention": "repaa"}, "convention='repaa' is unknown"),
    ],
)
def test_bad_trajectories(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrajectoryChains(**({"model": Flow(4), "shape": STATE, "null_label": 4} | arguments))  # type: ignore[arg-type]


class Wrapped(nn.Module):
    """A model of any family, as a module."""

    def __init__(self, call: object) -> None:
        super().__init__()
        self.call, self.num_classes = call, 4

    def forward(self, *arguments: object, **named: object) -> object:
        return self.call(*arguments, **named)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["sit", "diffusers", "torchcfm", "k-diffusion"])
def test_every_convention_gives_the_same_loss(name: str) -> None:
    """The SideNet sees σ and dx/dσ, whatever the backbone counts."""
    convention, model = models(Toy())[name]
    net, step = side(dtype=torch.float64), StepRandom(0, 0, 16)
    start = DataChains(images(torch.float64), 4).states(step)
    values = []
    for path, own in (("repa", models(Toy())["repa"][1]), (convention, model)):
        random = step.fork(0, 3)
        values.append(chain_loss(Wrapped(own), net, start, CHAIN, random, convention=path).item())
    assert values[1] == pytest.approx(values[0], rel=1e-9)
    assert values[0] > 1e-3


def test_a_denoised_prediction_is_not_asked_at_the_data() -> None:
    convention, model = models(Toy())["k-diffusion"]
    net, random = side(), StepRandom(0, 0, 8)
    x, _, y = DataChains(images(), 4).states(random)
    start = (x, torch.zeros(8), y)
    towards = ChainConfig(length=3, offset_rate=8.0, towards_data=1.0)
    value = chain_loss(Wrapped(model), net, start, towards, random, convention=convention)
    assert torch.isfinite(value)
    source = TrajectoryChains(Wrapped(model), STATE, 4, convention="k-diffusion", intervals=4)
    assert all(float(source.states(StepRandom(0, k, 64))[1].min()) > 0 for k in range(4))


@pytest.mark.parametrize("convention", ["repa", "sit", "k-diffusion"])
def test_no_data_and_no_labels(convention: str, tmp_path: Path) -> None:
    """All that a user of an unlabelled backbone has to bring is the backbone."""
    model = Wrapped(models(Toy())[convention][1])
    model.num_classes = 0
    shape, out = replace(SIDE, num_classes=0), tmp_path / "side"
    config = FitConfig(steps=40, batch_size=16, learning_rate=5e-3, ema_decay=0.9)
    recording = Recording(samples=tmp_path / "samples", samples_every=20)
    trained = train_sidenet(
        model, None, out, config=config, sidenet=shape, chain=CHAIN, convention=convention,
        shape=STATE, recording=recording,
    )  # fmt: skip
    random = StepRandom(9, 0, 64)
    start = TrajectoryChains(model, STATE, 0, convention=convention).states(random)

    def loss(net: nn.Module) -> float:
        step = random.fork(0, 3)
        return chain_loss(model, net, start, CHAIN, step, convention=convention).item()

    assert loss(trained) < 0.8 * loss(SideNet(shape))
    assert load_sidenet(out).config == shape
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == ["step-000020.png", "step-000040.png"]


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    class Zeros:
        shape = STATE

        def states(self, random: StepRandom) -> tuple[Tensor, Tensor, Tensor]:
            labels = torch.zeros(random.count, dtype=torch.int64)
            return torch.zeros(random.count, *STATE), random.uniform(), labels

        def fingerprint(self) -> dict[str, object]:
            return {"data": "zeros"}

    config = FitConfig(steps=2, batch_size=4)
    train_sidenet(Backbone(), Zeros(), tmp_path / "out", config=config, sidenet=SIDE, chain=CHAIN)
    assert (tmp_path / "out").exists()


def test_what_does_not_fit(tmp_path: Path) -> None:
    model, latent = Backbone(), replace(SIDE, in_channels=4)
    with pytest.raises(ValueError, match="without data the shape of a state is needed"):
        chain_source(model, None, SIDE, CHAIN)
    with pytest.raises(ValueError, match=r"sidenet has 4 channels; shape is \(1, 4, 4\)"):
        chain_source(model, None, latent, CHAIN, shape=STATE)
    config = FitConfig(steps=2, batch_size=4)
    with pytest.raises(ValueError, match=r"samples must have 1 or 3 channels.*these have 4"):
        train_sidenet(
            model, None, tmp_path / "out", config=config, sidenet=latent, shape=(4, 4, 4),
            recording=Recording(samples=tmp_path / "samples"),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())
    assert set(CONVENTIONS) >= {"repa", "sit"}
