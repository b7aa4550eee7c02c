"""Distances between sets of features: closed forms, other formulas, and constructed sets."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toyflow import seeded

from quadflow.analysis.images.distribution import (
    NoiseFloor,
    PairedDistance,
    frechet_distance,
    noise_floor,
    paired_distance,
    precision_recall,
    save_adm_npz,
)


def with_moments(n: int, mean: Tensor, root: Tensor, seed: int = 0) -> Tensor:
    """n rows whose sample mean is `mean` and whose sample covariance is root rootᵀ, exactly."""
    x = seeded(n, len(mean), seed=seed)
    white = torch.linalg.qr(x - x.mean(0)).Q * math.sqrt(n - 1)
    return mean + white @ root.T


def by_covariances(a: Tensor, b: Tensor) -> float:
    """The textbook's formula."""
    s, t = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float(shift + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real))


sizes = st.integers(1, 6)
seeds = st.integers(0, 10**6)
fixed = settings(max_examples=40, deadline=None, derandomize=True)


@fixed
@given(sizes, seeds)
def test_commuting_covariances(d: int, seed: int) -> None:
    basis = torch.linalg.qr(seeded(d, d, seed=seed)).Q
    s, t = seeded(d, seed=seed + 1).abs(), seeded(d, seed=seed + 2).abs()
    m = seeded(d, seed=seed + 3)
    a = with_moments(20, torch.zeros(d).double(), basis * s, seed + 4)
    b = with_moments(33, m, basis * t, seed + 5)
    expected = float(m.square().sum() + (s - t).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@fixed
@given(st.integers(2, 6), seeds)
def test_textbook_formula(d: int, seed: int) -> None:
    a = seeded(40, d, seed=seed) @ seeded(d, d, seed=seed + 1)
    b = seeded(25, d, seed=seed + 2) @ seeded(d, d, seed=seed + 3) + seeded(d, seed=seed + 4)
    assert frechet_distance(a, b) == pytest.approx(by_covariances(a, b), rel=1e-6, abs=1e-7)


@fixed
@given(st.integers(2, 12), sizes, seeds)
def test_a_shift_costs_its_square(n: int, d: int, seed: int) -> None:
    # with fewer rows than dimensions too
    a, shift = seeded(n, d, seed=seed), seeded(d, seed=seed + 1)
    expected = float(shift.square().sum())
    assert frechet_distance(a, a + shift) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert frechet_distance(a, a) <= 1e-13 * float(a.square().sum())


@fixed
@given(st.integers(2, 12), st.integers(2, 12), sizes, seeds)
def test_symmetry_rotation_and_scale(n: int, m: int, d: int, seed: int) -> None:
    a, b = seeded(n, d, seed=seed), 1 + 2 * seeded(m, d, seed=seed + 1)
    value = frechet_distance(a, b)
    turn = torch.linalg.qr(seeded(d, d, seed=seed + 2)).Q
    assert value > 0
    for other in (
        frechet_distance(b, a),
        frechet_distance(a @ turn, b @ turn),
        frechet_distance(3 * a, 3 * b) / 9,
        frechet_distance(a[torch.randperm(n)], b),
    ):
        assert other == pytest.approx(value, rel=1e-9)


def test_one_dimension() -> None:
    a = with_moments(9, torch.tensor([1.0]).double(), torch.tensor([[2.0]]).double())
    b = with_moments(5, torch.tensor([4.0]).double(), torch.tensor([[0.5]]).double())
    assert frechet_distance(a, b) == pytest.approx(9 + 1.5**2, rel=1e-12)


def test_more_dimensions_than_images() -> None:
    # the roots of singular covariances with ranges at right angles: no overlap at all
    a, b = torch.zeros(6, 200).double(), torch.zeros(6, 200).double()
    a[:, :100], b[:, 100:] = seeded(6, 100), seeded(6, 100, seed=1)
    shift = (a.mean(0) - b.mean(0)).square().sum()
    expected = float(shift + a.var(0).sum() + b.var(0).sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_single_precision_is_computed_in_double() -> None:
    a = 1000 + seeded(50, 4, dtype=torch.float32)
    b = 1000 + seeded(50, 4, seed=1, dtype=torch.float32)
    assert frechet_distance(a, b) == frechet_distance(a.double(), b.double())


GOOD = seeded(8, 3)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        (GOOD[:1], GOOD, "a has 1 rows; a covariance needs at least 2"),
        (GOOD, GOOD[:0], "b has 0 rows"),
        (GOOD[0], GOOD, r"a must be features \(N, D\), one row an image, got shape \(3,\)"),
        (GOOD, seeded(8, 3, 2), r"b must be features .* got shape \(8, 3, 2\)"),
        (GOOD, seeded(8, 4), "a and b must come from the same features, got dimensions 3 and 4"),
        (GOOD, GOOD / 0, "b must be finite"),
        (GOOD * torch.nan, GOOD, "a must be finite"),
    ],
)
def test_bad_sets(a: Tensor, b: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        frechet_distance(a, b)


def test_noise_floor_falls_with_n() -> None:
    floors = [noise_floor([seeded(n, 5, seed=s) for s in range(4)]) for n in (50, 200, 800)]
    for coarse, fine in pairwise(floors):
        assert 2.5 < coarse.mean / fine.mean < 6  # about c/n
        assert fine.std < coarse.std
    first = floors[0]
    assert first.n == 50 and len(first.distances) == 6
    assert first.mean == pytest.approx(np.mean(first.distances))
    assert first.std == pytest.approx(np.std(first.distances, ddof=1))


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        ([GOOD, GOOD + 1], "sets must be at least 3, .* got 2"),
        ([GOOD, GOOD + 1, GOOD[1:]], r"same shape \(n, D\), got \[\(8, 3\), \(8, 3\), \(7, 3\)\]"),
        ([GOOD, GOOD + 1, GOOD], "sets 0 and 2 are equal"),
    ],
)
def test_bad_floors(sets: list[Tensor], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        noise_floor(sets)


def test_paired_distance() -> None:
    sets = [seeded(60, 5, seed=s) for s in range(4)]
    floor = noise_floor(sets[1:])
    close = paired_distance(sets[0] + 1e-3 * seeded(60, 5, seed=9), sets[0], floor)
    assert close.value < 1e-4 < floor.std and not close.distinguishable and close.ratio < 1
    assert (close.floor_mean, close.floor_std, close.n) == (floor.mean, floor.std, 60)
    far = paired_distance(1.5 * sets[0], sets[0], floor)
    assert far.distinguishable and far.ratio > 2
    assert far.value == frechet_distance(1.5 * sets[0], sets[0])
    assert paired_distance(sets[0], sets[0], floor).value < 1e-12
    assert PairedDistance(1.0, 0.0, 0.0, 2).ratio == math.inf


def test_below_the_floor_is_not_indistinguishable() -> None:
    # the floor is mostly bias: sets of other seeds show a shift that costs a fraction of it
    sets = [seeded(60, 50, seed=s) for s in range(5)]
    floor, shifted = noise_floor(sets[1:]), sets[0] + 0.3
    paired = paired_distance(shifted, sets[0], floor)
    assert paired.value == pytest.approx(50 * 0.3**2) and paired.ratio < 0.5
    unpaired = [frechet_distance(shifted, other) for other in sets[1:]]
    assert paired.distinguishable and min(unpaired) > floor.mean + 2 * floor.std


def test_paired_distance_wants_pairs() -> None:
    floor = NoiseFloor(0.1, 0.01, 8, (0.1,))
    with pytest.raises(ValueError, match=r"must be paired, .* got shapes \(8, 3\) and \(7, 3\)"):
        paired_distance(GOOD, GOOD[1:], floor)
    with pytest.raises(ValueError, match="floor is of 8 images, the sets have 7"):
        paired_distance(GOOD[1:], GOOD[1:], floor)
    with pytest.raises(ValueError, match="b must be finite"):
        paired_distance(GOOD, GOOD * torch.nan, floor)


def test_precision_recall_of_equal_and_of_disjoint_sets() -> None:
    real = seeded(50, 6)
    same = precision_recall(real, real[torch.randperm(50)])
    assert (same.precision, same.recall, same.k) == (1, 1, 3)
    apart = precision_recall(real, real + 100, k=5)
    assert (apart.precision, apart.recall, apart.k) == (0, 0, 5)


def test_dropped_modes_cost_recall_and_strays_cost_precision() -> None:
    modes = 50 * torch.eye(4).double().repeat_interleave(30, 0)
    real = modes + seeded(120, 4)
    some = modes[:30] + seeded(30, 4, seed=1)
    dropped = precision_recall(real, some)
    assert dropped.precision > 0.7 and dropped.recall < 0.26
    stray = precision_recall(real, torch.cat([real, real - 500]))
    assert stray.precision == 0.5 and stray.recall == 1
    assert precision_recall(some, real).precision == pytest.approx(dropped.recall)


def test_precision_recall_by_hand() -> None:
    # on a line: radii of `real` with k = 1 are 1, 1, 3; of `fake` 0.5, 0.5, 10
    real = torch.tensor([[0.0], [1.0], [4.0]])
    fake = torch.tensor([[-0.5], [-1.0], [9.5]])
    found = precision_recall(real, fake, k=1)
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), 1.0)
    found = precision_recall(real, fake[:2], k=1)
    assert (found.precision, found.recall) == (1.0, pytest.approx(1 / 3))


def test_repeated_images_have_radius_nought() -> None:
    real = torch.full((5, 3), 1000.1).double()
    assert precision_recall(real, real.clone()).precision == 1
    assert precision_recall(real, real + 1e-9).precision == 0


@fixed
@given(st.integers(1, 4), st.integers(1, 30), seeds)
def test_precision_recall_plainly(k: int, chunk: int, seed: int) -> None:
    real, fake = seeded(17, 3, seed=seed), 0.7 * seeded(23, 3, seed=seed + 1)

    def share(points: Tensor, of: Tensor) -> float:
        radii = (of[:, None] - of).norm(dim=2).sort(1).values[:, k]
        return float(((points[:, None] - of).norm(dim=2) <= radii).any(1).double().mean())

    found = precision_recall(real, fake, k, chunk)
    assert found.precision == pytest.approx(share(fake, real))
    assert found.recall == pytest.approx(share(real, fake))


@pytest.mark.parametrize(
    ("real", "fake", "kwargs", "match"),
    [
        (GOOD[:3], GOOD, {}, "real has 3 rows; a 3-th neighbour besides itself needs at least 4"),
        (GOOD, GOOD[:5], {"k": 5}, "fake has 5 rows"),
        (GOOD, GOOD, {"k": 0}, "k must be an integer >= 1, got 0"),
        (GOOD, GOOD, {"chunk": 0}, "chunk must be an integer >= 1, got 0"),
        (GOOD, seeded(8, 2), {}, "real and fake must come from the same features"),
        (GOOD, GOOD / 0, {}, "fake must be finite"),
    ],
)
def test_bad_precision_recall(real: Tensor, fake: Tensor, kwargs, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        precision_recall(real, fake, **kwargs)


@pytest.mark.parametrize("channels", [1, 3])
def test_adm_npz_round_trip(tmp_path: Path, channels: int) -> None:
    pixels = torch.arange(2 * channels * 5 * 7).reshape(2, channels, 5, 7) % 256
    pixels[0, 0, 0, :2] = torch.tensor([0, 255])
    path = tmp_path / "samples_2x5x7x3.npz"
    path.write_bytes(b"of an earlier run")
    save_adm_npz(path, pixels.float() / 127.5 - 1)
    with np.load(path) as file:
        assert file.files == ["arr_0"]
        array = file["arr_0"]
    assert array.dtype == np.uint8 and array.shape == (2, 5, 7, 3)
    expected = pixels.expand(2, 3, 5, 7).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(array, expected)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("images", "error", "match"),
    [
        (torch.full((1, 3, 2, 2), 1.01), ValueError, r"in \[-1, 1\], got 1.01 to 1.01"),
        (torch.full((1, 3, 2, 2), -3.0), ValueError, r"images.clamp\(-1, 1\)"),
        (torch.full((1, 3, 2, 2), torch.nan), ValueError, "images must be finite"),
        (torch.zeros(1, 4, 2, 2), ValueError, r"\(N, 1 or 3, H, W\), N > 0, got \(1, 4, 2, 2\)"),
        (torch.zeros(0, 3, 2, 2), ValueError, "N > 0"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), TypeError, "got torch.uint8"),
    ],
)
def test_adm_npz_refuses(
    tmp_path: Path, images: Tensor, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        save_adm_npz(tmp_path / "x.npz", images)
    assert not list(tmp_path.iterdir())


def test_adm_npz_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"before")

    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        save_adm_npz(path, torch.zeros(1, 3, 2, 2))
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == ["x.npz"]
