"""How far apart two sets of images are as distributions, by the features of every image.

All functions take features (N, D), one row an image (`quadflow.analysis.images.features.extract`).
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...checks import integer_from
from ...storage import whole_file
from .features import check_images


def _check(features: Tensor, name: str, least: int, why: str) -> Tensor:
    """The features in float64 on the CPU, or an error that names the argument."""
    if features.dim() != 2 or features.shape[1] == 0:
        raise ValueError(
            f"{name} must be features (N, D), one row an image, got shape {tuple(features.shape)}"
        )
    if len(features) < least:
        raise ValueError(f"{name} has {len(features)} rows; {why} needs at least {least}")
    if features.is_complex():
        raise TypeError(f"{name} must be real numbers, got {features.dtype}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"{name} must be finite: it has NaN or infinite entries")
    return features.detach().to("cpu", torch.float64)


def _check_dimensions(a: Tensor, b: Tensor, names: tuple[str, str]) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must come from the same features, got dimensions "
            f"{a.shape[1]} and {b.shape[1]}"
        )


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The (squared) Fréchet distance of two Gaussians with the means and covariances of two sets.

    |m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), with unbiased covariances: the "FID" of Heusel
    et al. 2017 (arXiv 1706.08500), in units of the features squared.

    With S = A Aᵀ, A the centred features over sqrt(n - 1), the root's trace is the sum of the
    singular values of Aᵀ B. So no covariance is formed and none needs to be regular: fewer images
    than dimensions are no difficulty for the arithmetic. They are one for the meaning. The distance
    of two finite sets from one and the same distribution is not 0: about c/n
    for n far above D, less steep below, where it may exceed half the spread tr(S_a + S_b). Compare
    only at equal n, and know the `noise_floor`.

    Args:
        a, b: features (N, D) and (M, D), at least two rows each. Computed in float64.

    Raises:
        ValueError: wrong shapes, fewer than two rows, different D, or numbers that are not finite.
    """
    why = "a covariance"
    a, b = _check(a, "a", 2, why), _check(b, "b", 2, why)
    _check_dimensions(a, b, ("a", "b"))
    shift = a.mean(0) - b.mean(0)
    rows = []
    for x in (a, b):
        x = (x - x.mean(0)) / math.sqrt(len(x) - 1)
        # R of QR has the same Rᵀ R, and fewer rows
        rows.append(torch.linalg.qr(x, mode="r").R if len(x) > x.shape[1] else x)
    overlap = torch.linalg.svdvals(rows[0] @ rows[1].T).sum()
    distance = shift.square().sum() + sum(x.square().sum() for x in rows) - 2 * overlap
    return max(float(distance), 0.0)  # rounding may leave -1e-13 for equal sets


@dataclass(frozen=True)
class NoiseFloor:
    """Fréchet distances between sets that differ by their seed only.

    mean, std: over all pairs of sets (the pairs share sets, so std is a guide, not an independent
    sample's). n: images a set. distances: one a pair.
    """

    mean: float
    std: float
    n: int
    distances: tuple[float, ...]


def noise_floor(sets: Sequence[Tensor]) -> NoiseFloor:
    """The Fréchet distance that chance alone makes between sets of n images.

    Args:
        sets: features (n, D) of at least three sets, the same sampler and labels, different seeds.

    Raises:
        ValueError: fewer than three sets, different shapes, equal sets (a seed was used twice), and
            as `frechet_distance`.
    """
    if len(sets) < 3:
        raise ValueError(f"sets must be at least 3, for a mean and a deviation, got {len(sets)}")
    shapes = [tuple(x.shape) for x in sets]
    if len(set(shapes)) > 1:
        raise ValueError(f"sets must all have the same shape (n, D), got {shapes}")
    distances: list[float] = []
    for (i, a), (j, b) in combinations(enumerate(sets), 2):
        if torch.equal(a, b):
            raise ValueError(f"sets {i} and {j} are equal: every set needs a seed of its own")
        distances.append(frechet_distance(a, b))
    values = np.array(distances)
    return NoiseFloor(
        float(values.mean()), float(values.std(ddof=1)), len(sets[0]), tuple(distances)
    )


@dataclass(frozen=True)
class PairedDistance:
    """Fréchet distance of a sampler's images to the converged ones of the same noises and labels.

    value: that distance. floor_mean, floor_std: the distance of converged sets of different seeds.
    n: images a set.

    The noises being the same, chance cancels and value goes to 0 with the sampler's error. A value
    below floor_mean does *not* mean that the sampler is as good as converged: floor_mean is mostly
    bias, which sets of different seeds have in common, and against sets of other seeds a sampler's
    distance rises above it by up to about its value. What hides such a rise is floor_std.
    """

    value: float
    floor_mean: float
    floor_std: float
    n: int

    @property
    def distinguishable(self) -> bool:
        """Whether value exceeds two of the floor's deviations: a rule of thumb for whether sets of
        n images from unrelated seeds would show the sampler's error at all."""
        return self.value > 2 * self.floor_std

    @property
    def ratio(self) -> float:
        """value over the floor's mean."""
        return self.value / self.floor_mean if self.floor_mean > 0 else math.inf


def paired_distance(sampled: Tensor, converged: Tensor, floor: NoiseFloor) -> PairedDistance:
    """`frechet_distance` of sets with the same noises and labels, beside the floor of chance.

    Args:
        sampled: features (n, D) of the sampler's images.
        converged: features (n, D) of the converged solve from the same noises and labels.
        floor: of converged sets with as many images; see `noise_floor`.

    Raises:
        ValueError: sets of different shapes, a floor of another n, and as `frechet_distance`.
    """
    if sampled.shape != converged.shape:
        raise ValueError(
            f"sampled and converged must be paired, image by image, got shapes "
            f"{tuple(sampled.shape)} and {tuple(converged.shape)}"
        )
    value = frechet_distance(sampled, converged)
    if floor.n != len(sampled):
        raise ValueError(
            f"floor is of {floor.n} images, the sets have {len(sampled)}: the distance depends on "
            f"the number, so the floor must be measured with {len(sampled)}"
        )
    return PairedDistance(value, floor.mean, floor.std, floor.n)


@dataclass(frozen=True)
class PrecisionRecall:
    """How two sets of images overlap.

    precision: share of fake images within the real manifold. recall: the reverse. k: neighbour
    whose distance is the radius around every image."""

    precision: float
    recall: float
    k: int


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # by differences: the shortcut by a matrix product leaves equal points apart
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def precision_recall(real: Tensor, fake: Tensor, k: int = 3, chunk: int = 1024) -> PrecisionRecall:
    """Improved precision and recall of Kynkäänniemi et al. 2019 (arXiv 1904.06991).

    A set's manifold is the union of balls around its points, each reaching to the point's k-th
    nearest neighbour in the set (itself not counted). Both depend on the number of images and on k.

    Args:
        real, fake: features (N, D) and (M, D), more than k rows each. Computed in float64.
        k: which neighbour.
        chunk: rows whose distances are held at once; memory is chunk * max(N, M) numbers.

    Raises:
        ValueError: k or chunk below 1, no more than k rows, different D, or not finite.
    """
    integer_from(1, k, "k")
    integer_from(1, chunk, "chunk")
    why = f"a {k}-th neighbour besides itself"
    real, fake = _check(real, "real", k + 1, why), _check(fake, "fake", k + 1, why)
    _check_dimensions(real, fake, ("real", "fake"))

    def radii(points: Tensor) -> Tensor:
        # the nearest is the point itself, at distance 0
        return torch.cat(
            [_distances(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(chunk)]
        )

    real_radii = radii(real)
    inside = 0
    covered = torch.zeros(len(real), dtype=torch.bool)
    for rows, reach in zip(fake.split(chunk), radii(fake).split(chunk), strict=True):
        distances = _distances(rows, real)
        inside += int((distances <= real_radii).any(1).sum())
        covered |= (distances <= reach[:, None]).any(0)
    return PrecisionRecall(inside / len(fake), float(covered.double().mean()), k)


def adm_pixels(images: Tensor) -> np.ndarray:
    """Images as the evaluation suite of ADM has them: uint8 (N, H, W, 3), RGB; grey is repeated,
    and [-1, 1] becomes 0..255, rounded.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1], which samplers may overshoot: clamp them knowingly.

    Raises:
        TypeError: integer images.
        ValueError: another shape, not finite, or outside [-1, 1].
    """
    check_images(images, "images")
    low, high = float(images.min()), float(images.max())
    if low < -1 or high > 1:
        raise ValueError(
            f"images must be in [-1, 1], got {low:.4g} to {high:.4g}; if they overshoot, pass "
            "images.clamp(-1, 1), otherwise rescale them"
        )
    pixels = ((images.detach().cpu().double() + 1) * 127.5).round().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()


def write_adm_npz(path: str | Path, parts: Sequence[np.ndarray]) -> None:
    """Write pixels for the evaluation suite of ADM (Dhariwal & Nichol 2021, arXiv 2105.05233).

    An uncompressed npz whose only array `arr_0` is uint8 (N, H, W, 3). The file appears whole or
    not at all; an existing one is replaced.

    Args:
        path: where to.
        parts: uint8 (n, H, W, 3) each, of `adm_pixels`, one after the other; never all of them in
            memory where they are mapped files.
    """
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        whole_file(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def save_adm_npz(path: str | Path, images: Tensor) -> None:
    """Write images for the evaluation suite of ADM: `write_adm_npz` of their `adm_pixels`, whose
    errors it raises.

    Args:
        path: where to; an existing file is replaced.
        images: (N, 1 or 3, H, W) in [-1, 1].
    """
    write_adm_npz(path, [adm_pixels(images)])
