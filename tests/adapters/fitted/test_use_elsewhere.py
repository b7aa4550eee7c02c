"""A fitted sampler at other batch sizes, dtypes and guidance than it was fitted with: the same
where that is promised, refused where it is another flow."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_fit_sampler import FIT, Swirl
from torch import Tensor

from quadflow.adapters import FittedSampler, Guidance, fit_sampler, initial_noise, sample

INTERVAL = (0.2, 0.9)
NOISE, LABELS = initial_noise(5, 64, (2,)), torch.arange(64) % 2


@pytest.fixture(scope="module")
def fitted() -> FittedSampler:
    """Guided within an interval, at scale 2, and not at all."""
    guided = Guidance(interval=INTERVAL, channels=1)
    return fit_sampler(
        Swirl(), **{**FIT, "nfe": (4,), "updates": 40}, guidance=(1.0, 2.0), guided=guided
    )


def guidance(scale: float) -> Guidance:
    return Guidance(scale, 2, INTERVAL, 1)


def ends(model: Swirl, fitted: FittedSampler, scale: float, noise: Tensor = NOISE) -> Tensor:
    labels = LABELS[: len(noise)]
    return sample(model, noise, labels, method=fitted, nfe=4, guidance=guidance(scale)).x


def error(model: Swirl, x: Tensor, scale: float) -> float:
    """RMSE to the true ends of the flow of this model in float64."""
    exact = copy.deepcopy(model).double()
    true = sample(exact, NOISE.double(), LABELS, method="ab3", nfe=400, guidance=guidance(scale)).x
    return float((x - true).square().mean().sqrt())


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_any_batch_size(fitted: FittedSampler, scale: float) -> None:
    whole = ends(Swirl(), fitted, scale)
    for row in (0, 1, 63):
        alone = sample(
            Swirl(), NOISE[row : row + 1], LABELS[row : row + 1], method=fitted, nfe=4,
            guidance=guidance(scale),
        ).x  # fmt: skip
        torch.testing.assert_close(alone[0], whole[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_states_and_backbones_in_double(fitted: FittedSampler, scale: float) -> None:
    single = ends(Swirl(), fitted, scale)
    for model in (Swirl(), Swirl().double()):
        double = ends(model, fitted, scale, NOISE.double())
        assert double.dtype == torch.float64
        torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_backbones(fitted: FittedSampler, scale: float, dtype: torch.dtype) -> None:
    """They are known again, and what they add to the error is their own rounding: the distance to
    the float32 ends is no larger than that of a classical method whose backbone is rounded."""
    half = copy.deepcopy(Swirl()).to(dtype)
    moved = ends(half, fitted, scale) - ends(Swirl(), fitted, scale)
    classical = [
        sample(model, NOISE, LABELS, method="ab2", nfe=4, guidance=guidance(scale)).x
        for model in (half, Swirl())
    ]
    rounding = float((classical[0] - classical[1]).square().mean().sqrt())
    assert float(moved.square().mean().sqrt()) < 2 * rounding
    best = min(
        error(Swirl(), sample(half, NOISE, LABELS, method=m, nfe=4, guidance=guidance(scale)).x,
              scale)
        for m in ("ab2", "ab3", "pec2", "pec3")
    )  # fmt: skip
    assert error(Swirl(), ends(half, fitted, scale), scale) < 0.8 * best


def test_another_guidance_is_refused(fitted: FittedSampler, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    fitted.save(path)
    for known in (fitted, FittedSampler.load(path)):
        assert (known.guidance.interval, known.guidance.channels) == (INTERVAL, 1)
        for wrong, message in (
            (Guidance(2.0, 2, (0.2, 1.0), 1), r"guidance interval=\(0.2, 1.0\): .* fitted with"),
            (Guidance(2.0, 2, channels=1), r"guidance interval=\(-inf, inf\): .*=\(0.2, 0.9\)"),
            (Guidance(2.0, 2, INTERVAL), "guidance channels=None: .* fitted with channels=1"),
            (Guidance(2.5, 2, INTERVAL, 1), "nfe=4 at guidance 2.5 was not fitted"),
        ):
            with pytest.raises(ValueError, match=message):
                sample(Swirl(), NOISE, LABELS, method=known, nfe=4, guidance=wrong)
        # without guidance there is nothing to be limited
        plain = sample(Swirl(), NOISE, LABELS, method=known, nfe=4).x
        assert torch.equal(plain, ends(Swirl(), known, 1.0))


def test_files_that_do_not_say_their_guidance(fitted: FittedSampler, tmp_path: Path) -> None:
    """As the first ones were written: guided everywhere, on all channels."""
    path, older = tmp_path / "x.safetensors", tmp_path / "older.safetensors"
    fitted.save(path)
    with safe_open(str(path), framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del config["guidance"]
    save_file(tensors, str(older), metadata={"config": json.dumps(config)})
    assert FittedSampler.load(older).guidance == Guidance()
