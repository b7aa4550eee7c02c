"""Chain training of a SideNet, training of the U-Net, and the loop under both."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toyflow import Toy, seeded

from quadflow.adapters import ChainConfig, SideNet, SideNetConfig, load_sidenet, load_unet
from quadflow.adapters import train_sidenet as train_side
from quadflow.adapters.backbones.checkpoints import read_weights
from quadflow.adapters.backbones.unet import UNet, UNetConfig
from quadflow.adapters.data.datasets import LabelledImages
from quadflow.adapters.training.backbone import train_backbone
from quadflow.adapters.training.chains import DataChains
from quadflow.adapters.training.fit import FitConfig, Recording, Writers, fit
from quadflow.adapters.training.random import StepRandom
from quadflow.adapters.training.sidenet import chain_loss, random_offsets

SIDE = SideNetConfig(
    in_channels=1, width=16, emb_dim=16, layers=3, heads=2, num_classes=4, time_scale=100.0
)
UNET = UNetConfig(widths=(8, 8), emb_dim=16, num_classes=4, groups=4, head_dim=8)
CHAIN = ChainConfig(length=3, offset_rate=8.0)


class ToyBackbone(nn.Module):
    """The flow of the toy, with a parameter that a gradient could reach, and a count of calls."""

    num_classes = 4

    def __init__(self, *, constant: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.constant = constant
        self.calls = 0
        self.rows: list[int] = []
        self.labels: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        self.rows.append(len(x))
        self.labels.append(y)
        if self.constant:
            return self.gain * torch.ones_like(x) * y[:, None, None, None]
        return self.gain * Toy().velocity(x, t, y)


def of_batch(batch: int, seed: int = 0) -> StepRandom:
    return StepRandom(seed, 0, batch)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 32, size: int = 4) -> LabelledImages:
    """One grey a class, and a little noise: there is something to learn."""
    labels = torch.arange(count) % 4
    pixels = 0.1 * seeded(count, 1, size, size, dtype=torch.float32)
    pixels = pixels + (0.4 * labels - 0.6)[:, None, None, None]
    return LabelledImages(pixels, labels, 4)


def weights(path: Path) -> dict[str, Tensor]:
    return read_weights(path)[0]


# -- offsets ---------------------------------------------------------------------------------------


def test_published_chain_is_the_default() -> None:
    chain, config = ChainConfig(), FitConfig(steps=1, batch_size=1)
    assert (chain.length, chain.offset_rate, chain.towards_data, chain.label_dropout) == (
        8, 50.0, 0.5, 0.1,
    )  # fmt: skip
    assert chain.nodes == 3
    assert (config.learning_rate, config.ema_decay, config.clip_norm) == (1e-4, 0.9996, 1.0)


@pytest.mark.parametrize("rate", [50.0, 8.0, 1.0])
def test_offsets_are_truncated_exponentials(rate: float) -> None:
    config = ChainConfig(offset_rate=rate)
    n = 200_000
    for t in (0.03, 0.5, 0.9):
        h = random_offsets(torch.full((n,), t), config, of_batch(n))
        forward = h > 0
        assert abs(float(forward.float().mean()) - 0.5) < 4 * 0.5 / n**0.5
        for room, size in ((t, h[forward]), (1 - t, -h[~forward])):
            assert float(size.min()) >= 0
            assert float(size.max()) <= room * (1 + 1e-6)
            mean = 1 / rate - room / math.expm1(rate * room)
            assert float(size.mean()) == pytest.approx(mean, abs=5 * min(1 / rate, room) / 300)
            # the whole distribution, not its mean alone
            for x in (0.2 * room, 0.6 * room):
                below = math.expm1(-rate * x) / math.expm1(-rate * room)
                assert abs(float((size <= x).float().mean()) - below) < 0.008


def test_offsets_stay_on_the_path() -> None:
    t = torch.cat((torch.rand(100_000, generator=generator(1)), torch.tensor([0.0, 1.0] * 500)))
    h = random_offsets(t, ChainConfig(offset_rate=0.5), of_batch(len(t)))
    assert float((t - h).min()) >= 0
    assert float((t - h).max()) <= 1
    assert (h[:100_000] > 0).any()
    assert (h[:100_000] < 0).any()
    assert (h[t == 0] <= 0).all()
    assert (h[t == 1] >= 0).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_direction_of_the_offsets(share: float) -> None:
    config = ChainConfig(towards_data=share)
    h = random_offsets(torch.full((40_000,), 0.5), config, of_batch(40_000))
    assert abs(float((h > 0).float().mean()) - share) < 0.01


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 0}, "length must be an integer >= 1, got 0"),
        ({"offset_rate": 0.0}, r"offset_rate must be positive, got 0\.0"),
        ({"offset_rate": math.nan}, "offset_rate must be positive, got nan"),
        ({"towards_data": 1.5}, r"towards_data must be in \[0, 1\], got 1\.5"),
        ({"label_dropout": -0.1}, r"label_dropout must be in \[0, 1\], got -0\.1"),
    ],
)
def test_bad_chains(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChainConfig(**values)  # type: ignore[arg-type]


def test_dropped_labels() -> None:
    labels = torch.arange(40_000) % 4
    assert torch.equal(of_batch(40_000).dropped(labels, 4, 0.0), labels)
    dropped = of_batch(40_000).dropped(labels, 4, 0.1)
    assert abs(float((dropped == 4).float().mean()) - 0.1) < 0.006
    assert torch.equal(dropped[dropped != 4], labels[dropped != 4])


# -- the loss --------------------------------------------------------------------------------------


def loss_of(model: nn.Module, net: nn.Module, chain: ChainConfig = CHAIN, seed: int = 0) -> Tensor:
    step = of_batch(16, seed)
    start = DataChains(images(16), 4, chain.label_dropout).states(step)
    return chain_loss(model, net, start, chain, step)


def number(*arguments: object, **named: object) -> float:
    return loss_of(*arguments, **named).item()  # type: ignore[arg-type]


def random_side(seed: int = 0) -> SideNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SideNet(SIDE)
        nn.init.normal_(net.output_conv.weight, std=0.1)
    return net


def test_the_loss_is_reproducible() -> None:
    model, net = ToyBackbone(), random_side()
    torch.manual_seed(1)
    first = loss_of(model, net)
    torch.manual_seed(2)
    assert torch.equal(loss_of(model, net), first)
    assert not torch.equal(loss_of(model, net, seed=1), first)
    assert first > 0


def test_the_gradient_is_the_sidenets_alone() -> None:
    model, net = ToyBackbone(), random_side()
    loss_of(model, net).backward()
    assert model.gain.grad is None
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("length", [1, 3, 8])
def test_a_chain_costs_one_evaluation_more_than_its_links(length: int) -> None:
    model = ToyBackbone()
    loss_of(model, random_side(), replace(CHAIN, length=length))
    assert model.calls == length + 1
    assert set(model.rows) == {16}
    # one condition all along the chain
    assert all(torch.equal(y, model.labels[0]) for y in model.labels)


def test_labels_are_dropped_in_the_chain() -> None:
    model = ToyBackbone()
    loss_of(model, random_side(), replace(CHAIN, label_dropout=1.0))
    assert set(model.labels[0].tolist()) == {4}
    model = ToyBackbone()
    loss_of(model, random_side(), replace(CHAIN, label_dropout=0.0))
    assert set(model.labels[0].tolist()) <= {0, 1, 2, 3}


def test_a_constant_field_needs_no_sidenet() -> None:
    model = ToyBackbone(constant=True)
    assert number(model, SideNet(SIDE)) == 0.0
    assert number(model, random_side()) > 0
    assert number(ToyBackbone(), SideNet(SIDE)) > 1e-3


def test_the_links_are_those_of_the_published_chain() -> None:
    """Restated with a network that knows the answer: the links are rolled out with 3-point
    Gauss-Legendre from one anchor, and the target is the backbone at the place of arrival."""

    class Quadratic(nn.Module):
        """v = 1 + 3 t² in every pixel, whatever the state."""

        num_classes = 4

        def __init__(self) -> None:
            super().__init__()
            self.places: list[tuple[Tensor, Tensor]] = []

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            self.places.append((x, t))
            return (1 + 3 * t**2)[:, None, None, None].expand_as(x)

    class Knows(nn.Module):
        num_classes = 4

        def __init__(self) -> None:
            super().__init__()
            self.error = nn.Parameter(torch.zeros(()))
            self.rows: list[int] = []

        def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
            self.rows.append(len(x))
            change = 3 * (t - h) ** 2 - 3 * t**2 + self.error
            return change[:, None, None, None].expand_as(x)

    model, net = Quadratic(), Knows()
    assert number(model, net) < 1e-12
    assert net.rows == [3 * 16] * 3 + [3 * 16]  # the roll-outs, then all links in one call
    (x0, t0), *rest = model.places
    for x, t in rest:  # Gauss-Legendre with three nodes is exact for it
        column = (t - t0 + t**3 - t0**3)[:, None, None, None]
        assert float((x - x0 - column).abs().max()) < 1e-5
    assert all(float((a[1] - b[1]).abs().min()) > 0 for a, b in itertools.pairwise(rest))
    net = Knows()
    nn.init.constant_(net.error, 0.5)
    assert number(Quadratic(), net) == pytest.approx(0.25, rel=1e-4)


# -- the loop --------------------------------------------------------------------------------------


FIT = FitConfig(steps=20, batch_size=4, learning_rate=0.01, warmup=5, decay="cosine", ema_decay=0.9)


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros((), dtype=torch.float64))


def descend(config: FitConfig, **arguments: object) -> tuple[nn.Module, nn.Module, list[float]]:
    """A loss with gradient 1: AdamW then moves by the learning rate itself in every step."""
    module, trace = Scalar(), []

    def loss(_: StepRandom) -> Tensor:
        trace.append(module.value.item())
        return module.value * 1.0

    ema = fit(module, loss, config, **arguments)  # type: ignore[arg-type]
    trace.append(module.value.item())
    return module, ema, trace


@pytest.mark.parametrize("decay", ["cosine", "none"])
def test_learning_rate_rises_and_falls(decay: str) -> None:
    _, _, trace = descend(replace(FIT, decay=decay))
    rates = [a - b for a, b in itertools.pairwise(trace)]
    wanted = [
        0.01 * min(1, (k + 1) / 5)
        * (0.5 + 0.5 * math.cos(math.pi * k / 20) if decay == "cosine" else 1)
        for k in range(20)
    ]  # fmt: skip
    assert rates == pytest.approx(wanted, rel=1e-6)
    _, _, trace = descend(replace(FIT, decay=decay, warmup=0))
    assert trace[0] - trace[1] == pytest.approx(0.01, rel=1e-6)


def test_the_average_follows_behind() -> None:
    module, ema, trace = descend(FIT)
    average = 0.0
    for k, value in enumerate(trace[1:]):
        rate = min(0.9, (1 + k) / (10 + k))
        average = rate * average + (1 - rate) * value
    assert ema.value.item() == pytest.approx(average, rel=1e-12)
    assert ema.value.item() > module.value.item() + 1e-3
    assert not ema.training
    assert not ema.value.requires_grad


def test_the_gradient_is_clipped() -> None:
    """AdamW forgets a common factor of all gradients, so one large one must stand among small."""

    def moved(clip: float) -> float:
        module, step = Scalar(), iter(range(20))

        def loss(_: StepRandom) -> Tensor:
            return module.value * (1000.0 if next(step) == 3 else 1.0)

        fit(module, loss, replace(FIT, decay="none", warmup=0, clip_norm=clip))
        return module.value.item()

    assert moved(1.0) == pytest.approx(-0.2, rel=1e-6)
    assert moved(1e6) > -0.19


def test_log_and_checkpoints(tmp_path: Path) -> None:
    log, saved = tmp_path / "log.jsonl", []
    recording = Recording(log=log, log_every=8, checkpoint_every=8)
    writers = Writers(lambda m: saved.append(m.value.item()))
    _, ema, trace = descend(FIT, recording=recording, writers=writers)
    first, *lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    assert FitConfig(**first["config"]) == FIT
    assert [line["step"] for line in lines] == [8, 16, 20]
    means = [sum(trace[a:b]) / (b - a) for a, b in ((0, 8), (8, 16), (16, 20))]
    assert [line["loss"] for line in lines] == pytest.approx(means, rel=1e-12)
    assert all(line["seconds"] >= 0 and line["samples_per_second"] > 0 for line in lines)
    assert all(line["gradient_norm"] == 1 for line in lines)
    assert lines[-1]["learning_rate"] == pytest.approx(0.005 * (1 + math.cos(math.pi * 19 / 20)))
    assert len(saved) == 3
    assert saved[-1] == ema.value.item()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops(bad: float, tmp_path: Path) -> None:
    module, calls, saved = Scalar(), [], []

    def loss(_: StepRandom) -> Tensor:
        calls.append(1)
        return module.value + (bad if len(calls) == 4 else 0.0)

    log = tmp_path / "log.jsonl"
    with pytest.raises(FloatingPointError, match=rf"the loss is {bad} at step 3"):
        fit(
            module, loss, FIT, recording=Recording(log=log, log_every=2, checkpoint_every=2),
            writers=Writers(lambda m: saved.append(m.value.item())),
        )  # fmt: skip
    assert len(calls) == 4
    assert math.isfinite(module.value.item())  # no step was made with it
    assert len(saved) == 1
    assert math.isfinite(saved[0])
    assert len(log.read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be positive, got 0"),
        ({"batch_size": -1}, "batch_size must be positive, got -1"),
        ({"learning_rate": 0.0}, r"learning_rate must be positive, got 0\.0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive, got nan"),
        ({"clip_norm": 0.0}, r"clip_norm must be positive, got 0\.0"),
        ({"decay": "linear"}, "decay must be 'none' or 'cosine', got 'linear'"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\), got 1\.0"),
        ({"ema_decay": -0.5}, r"ema_decay must be in \[0, 1\), got -0\.5"),
    ],
)
def test_bad_constants(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FIT, **values)  # type: ignore[arg-type]


# -- both trainings --------------------------------------------------------------------------------


SIDE_FIT = FitConfig(
    steps=60, batch_size=16, learning_rate=5e-3, warmup=5, decay="cosine", ema_decay=0.9
)


def test_train_sidenet_learns_and_saves(tmp_path: Path) -> None:
    model, path = ToyBackbone(), tmp_path / "side.safetensors"
    log = tmp_path / "side.jsonl"
    trained = train_side(
        model, images(), path, config=SIDE_FIT, sidenet=SIDE, chain=CHAIN,
        recording=Recording(log=log),
    )  # fmt: skip
    before = number(model, SideNet(SIDE), seed=99)
    assert number(model, trained, seed=99) < 0.7 * before
    # the backbone is as it was: not trained, not frozen, not switched to evaluation
    assert model.gain.item() == 1
    assert model.gain.requires_grad
    assert model.training
    loaded = load_sidenet(path)
    assert loaded.config == SIDE
    assert number(model, loaded, seed=99) < 0.7 * before
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    assert {value.dtype for value in weights(path).values()} == {torch.float16}
    assert json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"] == 60
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["side.jsonl", "side.safetensors"]


def test_train_backbone_learns_and_saves(tmp_path: Path) -> None:
    data, path = images(64, size=8), tmp_path / "unet.safetensors"
    config = FitConfig(steps=60, batch_size=32, learning_rate=1e-2, warmup=5, ema_decay=0.9)
    trained = train_backbone(data, path, config=config, shape=UNET)

    def loss(model: nn.Module) -> float:
        t = torch.rand(64, generator=generator(5))
        noise = torch.randn(data.images.shape, generator=generator(6))
        s = t[:, None, None, None]
        with torch.no_grad():
            v = model((1 - s) * data.images + s * noise, t, data.labels)
        return float((v - (noise - data.images)).square().mean())

    assert loss(trained) < 0.5 * loss(UNet(UNET))
    loaded = load_unet(path)
    assert loaded.config == UNET
    for name, value in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    short = replace(SIDE_FIT, steps=4)
    unet_config = FitConfig(steps=4, batch_size=8, learning_rate=1e-3)

    def both(name: str, seed: int, noise: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(noise)  # what was drawn before must not matter
        side, unet = tmp_path / f"{name}-side", tmp_path / f"{name}-unet"
        train_side(
            ToyBackbone(), images(), side, config=replace(short, seed=seed), sidenet=SIDE,
            chain=CHAIN,
        )  # fmt: skip
        train_backbone(images(size=8), unet, config=replace(unet_config, seed=seed), shape=UNET)
        return weights(side), weights(unet)

    one, two, other = both("one", 0, 1), both("two", 0, 2), both("other", 1, 1)
    for a, b, c in zip(one, two, other, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert not all(torch.equal(a[name], c[name]) for name in a)


def test_networks_of_another_shape_than_the_data(tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match="sidenet has 1 channels and 10 classes; the data have 1 "):
        train_side(
            ToyBackbone(), images(), path, config=SIDE_FIT, sidenet=replace(SIDE, num_classes=10)
        )
    with pytest.raises(ValueError, match="shape has 3 channels and 4 classes; the data have 1 and"):
        train_backbone(images(), path, config=SIDE_FIT, shape=replace(UNET, in_channels=3))
    with pytest.raises(ValueError, match=r"sides of x, \(6, 6\), are no multiples of 4"):
        train_backbone(images(size=6), path, config=SIDE_FIT, shape=UNET)
    with pytest.raises(ValueError, match=r"patch=4 does not divide the size \(6, 6\)"):
        train_side(
            ToyBackbone(), images(size=6), path, config=SIDE_FIT, sidenet=replace(SIDE, patch=4)
        )
    assert not path.exists()
