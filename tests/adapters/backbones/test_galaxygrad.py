"""Pretrained galaxy models: the reader of equinox files, the network's numbers, the flow."""

from __future__ import annotations

import importlib.util
import io
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toyflow import seeded

import quadflow
from quadflow.adapters import FlowField
from quadflow.adapters.backbones import galaxygrad
from quadflow.adapters.backbones.checkpoints import CheckpointError
from quadflow.adapters.backbones.equinox_files import name_leaves, read_leaves
from quadflow.adapters.backbones.galaxygrad import (
    GalaxyField,
    ScoreNet,
    ScoreNetConfig,
    load_galaxygrad,
    load_scorenet,
    pixels,
)
from quadflow.extras import MissingExtraError

SMALL = ScoreNetConfig(size=8, width=6, hidden=10, blocks=2)


@pytest.fixture(scope="module")
def model() -> GalaxyField:
    """hsc-32 in float64."""
    if importlib.util.find_spec("galaxygrad") is None:
        pytest.fail("these tests need: pip install --no-deps galaxygrad==0.2.0")
    return load_galaxygrad("hsc-32").double()


def small_records() -> list[np.ndarray]:
    """Random leaves of a SMALL network, in the order of a file."""
    rng = np.random.default_rng(0)
    shapes = list(galaxygrad._leaf_shapes(SMALL).values())[:-1]
    return [*(rng.standard_normal(s).astype(np.float32) for s in shapes), np.array(10.0)]


def write(path: Path, records: list[np.ndarray]) -> Path:
    stream = io.BytesIO()
    for record in records:
        np.save(stream, record)
    path.write_bytes(stream.getvalue())
    return path


def wave(size: int) -> Tensor:
    """The fixed input of the reference numbers: (3, 1, size, size) float64."""
    k = torch.arange(3 * size**2, dtype=torch.float64).reshape(3, 1, size, size)
    return 2 * (0.37 * k).sin() + (0.011 * k).cos()


# -- files -----------------------------------------------------------------------------------------


def test_leaves_are_read_in_order(tmp_path: Path) -> None:
    records = small_records()
    leaves = read_leaves(write(tmp_path / "small.eqx", records))
    assert len(leaves) == len(records)
    for leaf, record in zip(leaves, records, strict=True):
        assert leaf.shape == record.shape
        assert np.array_equal(leaf.numpy(), record)
    assert leaves[-1].dtype == torch.float64  # a Python float is a 0-dimensional record


def test_byte_order_is_turned_round(tmp_path: Path) -> None:
    leaves = read_leaves(write(tmp_path / "a.eqx", [np.arange(3, dtype=">f4")]))
    assert leaves[0].tolist() == [0, 1, 2]


def test_weights_reach_the_network(tmp_path: Path) -> None:
    records = small_records()
    net = load_scorenet(write(tmp_path / "small.eqx", records), SMALL)
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert np.array_equal(net.conv_in.weight.numpy(), records[0])
    assert np.array_equal(net.norm.bias.numpy(), records[-2])
    # the stored kernel is mirrored, and its channels are the other way round
    flipped = net.conv_out.weight.flip(2, 3).transpose(0, 1)
    assert np.array_equal(flipped.numpy(), records[2])


@pytest.mark.parametrize("keep", [0, 1, 5, 100, 1000, -1, -140])
def test_cut_files_are_refused(keep: int, tmp_path: Path) -> None:
    path = write(tmp_path / "small.eqx", small_records())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"small\.eqx is (empty|no readable equinox file)"):
        load_scorenet(path, SMALL)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 an archive",
        b"some text, longer than the beginning of a record",
        pickle.dumps({"weights": 1}),
        b"\x93NUMPY\x01\x00\x06\x00{'a'(\n",
    ],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.eqx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="record 0, at byte 0"):
        load_scorenet(path, SMALL)


def test_bytes_after_the_last_record_are_refused(tmp_path: Path) -> None:
    records = small_records()
    path = write(tmp_path / "small.eqx", records)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=f"record {len(records)}, at byte"):
        load_scorenet(path, SMALL)


def test_pickled_records_are_refused_unread(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return pytest.fail, ("the pickle was loaded",)

    path = tmp_path / "trap.eqx"
    with path.open("wb") as file:
        np.save(file, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="allow_pickle"):
        read_leaves(path)


@pytest.mark.parametrize("array", [np.array([1j]), np.array(["a"]), np.zeros(2, dtype="V2")])
def test_records_that_are_no_real_numbers_are_refused(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no real number"):
        read_leaves(write(tmp_path / "a.eqx", [array]))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no readable weight file at"):
        load_galaxygrad(path=tmp_path / "none.eqx")


def test_all_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    records = small_records()
    records[1] = records[1][:2]
    records[3] = records[3] * np.nan
    records[5] = np.zeros(10, dtype=np.int64)
    path = write(tmp_path / "small.eqx", records[:-1])
    with pytest.raises(CheckpointError) as error:
        load_scorenet(path, SMALL)
    for text in (
        "conv_in.bias: shape (2, 1, 1), should be (6, 1, 1)",
        "conv_out.bias: not finite",
        "blocks.0.patch_mixer.0.bias: torch.int64, should be floating point",
        "missing t_max",
    ):
        assert text in str(error.value)
    with pytest.raises(CheckpointError, match="2 records, should be 1"):
        name_leaves([torch.zeros(1), torch.zeros(1)], {"a": (1,)}, "file")


def test_another_longest_time_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "small.eqx", [*small_records()[:-1], np.array(1.0)])
    with pytest.raises(CheckpointError, match=r"t_max: 1\.0, should be 10\.0"):
        load_scorenet(path, SMALL)


def test_another_network_is_refused(model: GalaxyField) -> None:
    path = galaxygrad.galaxygrad_file("hsc-32")
    with pytest.raises(CheckpointError, match=r"blocks\.3\.norm2\.weight: shape \(64, 64\)"):
        load_galaxygrad("hsc-64", path=path)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(galaxygrad, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps galaxygrad==0\.2\.0"):
        load_galaxygrad()


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'hsc-32'"):
        load_galaxygrad("hsc-23")


def test_package_is_not_imported() -> None:
    code = (
        "import sys; from quadflow.adapters.backbones.galaxygrad import load_galaxygrad as load; "
        "load('hsc-32'); print([m for m in ('galaxygrad', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_named_file_fits(model: GalaxyField) -> None:
    for name in galaxygrad.GALAXYGRAD:
        assert load_galaxygrad(name).net.config.size == int(name[-3:].lstrip("-"))


# -- the network -----------------------------------------------------------------------------------

# computed by galaxygrad 0.2.0 with jax 0.10.2 and equinox 0.13.8 in float64 on wave(size): the
# values at (sample, row, column) (0, 0, 0), (1, 5, S-2), (2, S/2, S/2+1), (2, S-1, 3), and the RMS
REFERENCE = {
    ("hsc-32", 0.02): (-2.088984446, 1.013514271, 22.8386841, -3.632623376, 8.673063773),
    ("hsc-32", 1.0): (-1.503088, -0.676928697, 5.161864082, -1.889275129, 2.097002292),
    ("hsc-32", 9.5): (-1.00355001, -0.819560638, 2.904853746, -1.403680752, 1.549840491),
    ("hsc-64", 0.02): (-5.426478303, 5.830607512, -0.5138265616, 2.933954605, 6.48920748),
    ("hsc-64", 1.0): (-2.012188574, 2.168832333, 0.1945813649, 1.056223751, 2.416116736),
    ("hsc-64", 9.5): (-1.023195434, 1.35137451, -0.3326675508, 0.6472123892, 1.584678719),
}


@pytest.mark.parametrize(("name", "t"), REFERENCE)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_scores_are_those_of_the_original(
    name: str, t: float, dtype: torch.dtype, rtol: float, model: GalaxyField
) -> None:
    net = model.net if name == "hsc-32" else load_galaxygrad(name).net.double()
    if dtype == torch.float32:
        net = load_galaxygrad(name).net
    size = net.config.size
    out = net(wave(size).to(dtype), torch.full((3,), t, dtype=dtype))
    assert out.dtype == dtype
    found = torch.stack(
        [
            out[0, 0, 0, 0], out[1, 0, 5, size - 2], out[2, 0, size // 2, size // 2 + 1],
            out[2, 0, size - 1, 3], out.square().mean().sqrt(),
        ]
    ).double()  # fmt: skip
    expected = torch.tensor(REFERENCE[name, t], dtype=torch.float64)
    # relative to the largest score: the small ones are differences of large numbers
    assert float((found - expected).abs().max() / expected.abs().max()) < rtol


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 3, 32, 32), (1, 32, 32)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x must be \(B, 1, 32, 32\), got"):
        ScoreNet()(torch.zeros(shape), torch.zeros(shape[0]))


@pytest.mark.parametrize("changes", [{"size": 30}, {"width": 0}])
def test_bad_config(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        ScoreNetConfig(**changes)


# -- the flow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("t_vp", [1e-4, 0.02, 0.5, 2.0, 4.9])
def test_velocity_is_noise_minus_data(t_vp: float, model: GalaxyField) -> None:
    alpha, sigma = math.exp(-t_vp / 2), math.sqrt(-math.expm1(-t_vp))
    s, x_vp = sigma / (alpha + sigma), seeded(3, 1, 32, 32)
    score = model.net(x_vp, torch.full((3,), t_vp, dtype=torch.float64))
    noise = -sigma * score
    data = (x_vp - sigma * noise) / alpha
    x = x_vp / (alpha + sigma)
    assert torch.allclose((1 - s) * data + s * noise, x, rtol=1e-10, atol=1e-12)
    v = model(x, torch.full((3,), s, dtype=torch.float64))
    assert torch.allclose(v, noise - data, rtol=1e-8, atol=1e-9)


def test_velocity_is_the_originals_ode(model: GalaxyField) -> None:
    """dx/ds by the chain rule from dx_vp/dt = -(x_vp + score)/2."""
    s, x = 0.6, seeded(2, 1, 32, 32)
    norm, slope = math.hypot(1 - s, s), (2 * s - 1) / math.hypot(1 - s, s)
    t_vp = math.log1p((s / (1 - s)) ** 2)
    dt_ds = (2 * s / (1 - s) ** 3) / (1 + (s / (1 - s)) ** 2)
    score = model.net(x / norm, torch.full((2,), t_vp, dtype=torch.float64))
    expected = slope * x / norm + norm * dt_ds * -0.5 * (x / norm + score)
    v = model(x, torch.full((2,), s, dtype=torch.float64))
    assert torch.allclose(v, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("longest", [5.0, 10.0])
def test_finite_on_all_of_the_path(dtype: torch.dtype, longest: float, model: GalaxyField) -> None:
    field = GalaxyField(load_galaxygrad().net.to(dtype), longest)
    top = field.s_max
    times = [0.0, 1e-30, 1e-12, 1e-6, 1e-3, 0.5, top - 1e-6, top, top + 1e-6, 0.999999, 1.0]
    t = torch.tensor(times, dtype=dtype)
    v = field(seeded(len(t), 1, 32, 32, dtype=dtype), t)
    assert v.dtype == dtype
    assert bool(torch.isfinite(v).all())
    assert float(v.abs().max()) < 50


def test_ends(model: GalaxyField) -> None:
    x, top = seeded(2, 1, 32, 32), model.s_max

    def v(s: float) -> Tensor:
        return model(x, torch.full((2,), s, dtype=torch.float64))

    assert torch.equal(v(0.0), -x)
    assert torch.allclose(v(1e-7), -x, rtol=0, atol=1e-4)
    # nearer the noise the data estimate x - s v stays what it is at s_max
    data = x - top * v(top)
    for s in (top + 1e-12, 0.97, 1.0):
        assert torch.allclose(x - s * v(s), data, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("longest", [0.0, -1.0, 10.1, math.nan])
def test_longest_out_of_range(longest: float) -> None:
    with pytest.raises(ValueError, match="longest must be in"):
        GalaxyField(ScoreNet(SMALL), longest)


def test_samples_do_not_see_each_other(model: GalaxyField) -> None:
    x = seeded(4, 1, 32, 32)
    t = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    together = model(x, t)
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(model(x, t, torch.zeros(4, dtype=torch.int64)), together)


def test_float32_is_float64_rounded(model: GalaxyField) -> None:
    single, t = load_galaxygrad(), torch.tensor([0.01, 0.5, 0.9, 1.0])
    x = seeded(4, 1, 32, 32, dtype=torch.float32)
    exact = model(x.double(), t.double())
    assert float((single(x, t) - exact).abs().max() / exact.abs().max()) < 1e-5


def test_solve_gives_galaxies(model: GalaxyField) -> None:
    """A bright centre on a dark sky, and steps halved bring the solution nearer its limit."""
    field, noise = FlowField(model, "repa"), seeded(3, 1, 32, 32)
    assert field.num_classes == 0
    ends = [
        quadflow.solve(field, noise, (1.0, 0.0), method="rk4", step_size=1 / n).y[-1]
        for n in (5, 10, 40)
    ]
    assert field.evaluations == 4 * 55
    coarse, fine = [float((end - ends[-1]).square().mean().sqrt()) for end in ends[:2]]
    assert fine < min(coarse / 2, 0.05)
    sky, peak = pixels(ends[-1])[..., :4, :4], pixels(ends[-1])[..., 10:22, 10:22].amax((2, 3))
    assert float(sky.abs().max()) < 0.05
    assert float(peak.min()) > 0.5
    assert float(peak.max()) < 1.1
