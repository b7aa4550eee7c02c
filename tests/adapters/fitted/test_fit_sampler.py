"""fit_sampler: better than the classical methods on unseen noises, made again to the byte, and
refused where it does not belong."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quadflow.adapters.backbones.checkpoints import CheckpointError
from quadflow.adapters.fitted.fit_sampler import fit_sampler
from quadflow.adapters.fitted.fitted import FittedSampler
from quadflow.adapters.fitted.pairs import Pairs, Task
from quadflow.adapters.flow.field import Guidance
from quadflow.adapters.sampling.sample import initial_noise, sample


class Swirl(nn.Module):
    """A velocity (B, 2) with two labels and a null label, bent enough to be worth learning."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.label = nn.Embedding(3, 4)
            self.hidden = nn.Linear(2 + 1 + 4, 24)
            self.output = nn.Linear(24, 2)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        told = torch.cat((x, t[:, None], self.label(y)), 1)
        return 2 * self.output(torch.sin(2 * self.hidden(told))) + x


FIT: dict[str, Any] = {"shape": (2,), "nfe": (4, 6), "updates": 80, "pairs": 64, "steps": 64}


@pytest.fixture(scope="module")
def fitted() -> FittedSampler:
    return fit_sampler(Swirl(), guidance=(1.0, 2.0), **FIT)


def test_better_on_unseen_noises(fitted: FittedSampler) -> None:
    model, noise = Swirl(), initial_noise(5, 64, (2,))
    labels = torch.arange(64) % 2
    for scale in (1.0, 2.0):
        guidance = Guidance(scale, 2)
        true = sample(model, noise, labels, method="ab3", nfe=400, guidance=guidance).x
        for nfe in (4, 6):
            own = sample(model, noise, labels, method=fitted, nfe=nfe, guidance=guidance)
            assert own.stats.nfe == nfe
            errors = [
                float((sample(model, noise, labels, method=name, nfe=nfe, guidance=guidance).x
                       - true).square().mean())
                for name in ("ab2", "ab3", "pec2", "pec3")
            ]  # fmt: skip
            assert float((own.x - true).square().mean()) < 0.8 * min(errors)


def test_figures_say_what_was_done(fitted: FittedSampler) -> None:
    figures = fitted.figures
    assert figures["effort"] == {
        "updates": 80, "pairs": 64, "batch_size": 16, "held_out": [64, 128], "steps": 64
    }  # fmt: skip
    assert [(p["nfe"], p["guidance"]) for p in figures["plans"]] == fitted.budgets
    assert all(p["fitted"] < p["classical"] and not p["fell_back"] for p in figures["plans"])
    assert figures["looks"][-1]["step"] <= 80
    assert fitted.features is not None and fitted.features.module == "output"


def test_file_holds_everything(fitted: FittedSampler, tmp_path: Path) -> None:
    path = tmp_path / "swirl.safetensors"
    fitted.save(path)
    again = FittedSampler.load(path)
    noise, labels = initial_noise(1, 3, (2,)), torch.tensor([0, 1, 1])
    for nfe, scale in fitted.budgets:
        guidance = Guidance(scale, 2)
        first, second = (
            sample(Swirl(), noise, labels, method=m, nfe=nfe, guidance=guidance).x
            for m in (fitted, again)
        )
        assert torch.equal(first, second)
    assert again.figures == fitted.figures and again.budgets == fitted.budgets


def test_a_fit_goes_on_from_a_sampler(fitted: FittedSampler, tmp_path: Path) -> None:
    fitted.save(tmp_path / "first.safetensors")
    more = {"shape": (2,), "updates": 80, "pairs": 256, "steps": 64, "seed": 1}
    second = fit_sampler(Swirl(), **more, start=tmp_path / "first.safetensors")
    assert second.budgets == fitted.budgets
    assert [p["start"] for p in second.figures["plans"]] == [
        p["start"] for p in fitted.figures["plans"]
    ]
    seen = second.figures["looks"]
    # the first look is at what it starts as, on noises of the new seed
    assert seen[0]["step"] == 0 and seen[0]["ratio"] < 0.9
    assert min(look["ratio"] for look in seen) < seen[0]["ratio"]
    for given, message in (
        ({"nfe": (5,)}, r"nfe=\(5,\): the sampler to start from has \(4, 6\)"),
        ({"guidance": (1.0,)}, r"guidance=\(1.0,\): the sampler to start from has \(1.0, 2.0\)"),
        ({"network": False}, "network: that of the sampler to start from is kept"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_sampler(Swirl(), **more, **given, start=fitted)
    other = Swirl()
    nn.init.ones_(other.output.bias)
    with pytest.raises(ValueError, match="fitted to another backbone"):
        fit_sampler(other, **more, start=fitted)


def test_same_numbers_same_bytes_even_when_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**FIT, "updates": 24, "nfe": (4,)}

    def bytes_of(found: FittedSampler) -> dict[str, bytes]:
        return {k: v.numpy().tobytes() for k, v in found.learned.state_dict().items()}

    whole = bytes_of(fit_sampler(Swirl(), **options, folder=tmp_path / "a"))
    from quadflow.adapters.training import fit as loop

    steps, real = [0], loop._Training.step

    def dies(self: Any, *args: Any) -> Any:
        steps[0] += 1
        if steps[0] == 14:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            fit_sampler(Swirl(), **options, folder=tmp_path / "b")
    resumed = fit_sampler(Swirl(), **options, folder=tmp_path / "b", resume=True)
    assert bytes_of(resumed) == whole


def test_refused_where_it_does_not_belong(fitted: FittedSampler) -> None:
    noise, labels = initial_noise(1, 2, (2,)), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"nfe=5 at guidance 1 was not fitted; .*nfe=4 at guid"):
        sample(Swirl(), noise, labels, method=fitted, nfe=5)
    with pytest.raises(ValueError, match="nfe=4 at guidance 3 was not fitted"):
        sample(Swirl(), noise, labels, method=fitted, nfe=4, guidance=Guidance(3.0, 2))
    with pytest.raises(ValueError, match="fitted to a backbone of convention 'repa'"):
        sample(Swirl(), noise, labels, method=fitted, nfe=4, convention="sit")
    other = Swirl()
    with torch.no_grad():
        other.output.weight.mul_(1.1)
    with pytest.raises(ValueError, match="fitted to another backbone"):
        sample(other, noise, labels, method=fitted, nfe=4)
    with pytest.raises(ValueError, match="times of its own"):
        sample(Swirl(), noise, labels, method=fitted, nfe=4, shift=2.0)
    half = copy.deepcopy(Swirl()).to(torch.bfloat16)
    assert bool(sample(half, noise, labels, method=fitted, nfe=4).x.isfinite().all())


class Straight(nn.Module):
    """A constant velocity, which every method integrates exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.tensor([0.5, -1.0]), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.v.expand_as(x) if x.shape[-1] == 2 else x


def test_falls_back_where_nothing_is_better() -> None:
    with pytest.warns(UserWarning, match="nothing learned is better than"):
        found = fit_sampler(Straight(), **{**FIT, "nfe": (4,), "updates": 16}, dtype=torch.float64)
    assert found.figures["plans"][0]["fell_back"]
    noise = initial_noise(0, 2, (2,), dtype=torch.float64)
    name = found.starts[0].name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = sample(Straight(), noise, method=found, nfe=4).x
    grid = found.sigmas(4)
    assert torch.equal(own, sample(Straight(), noise, method=name, nfe=4, grid=grid).x)


class Noisy(Swirl):
    """Random in eval mode."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(x, t, y) + torch.randn_like(x)


@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        (Noisy(), {}, "two evaluations of the same states gave different velocities"),
        (Swirl(), {"features": "nothing"}, "features='nothing': the model has no such module"),
        (Swirl(), {"nfe": (1,)}, "nfe"),
        (Swirl(), {"nfe": ()}, "give at least one of each"),
        (Swirl(), {"minutes": 1.0}, "give a positive number, or updates, not both"),
        (Swirl(), {"form": "loose"}, "form"),
        (Swirl(), {"parts": ("grid",)}, "parts"),
        (Swirl(), {"guidance": (-1.0,)}, "scale must be finite and >= 0"),
        (Straight(), {"shape": (2, 3)}, "no network is made for such states"),
        (Swirl(), {"updates": 0}, "updates"),
        (Swirl(), {"pairs": 0}, "pairs"),
        (Swirl(), {"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments(model: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_sampler(model, **{**FIT, **changed})


def test_pairs_of_another_model_are_refused(tmp_path: Path) -> None:
    Pairs(Task(Swirl(), (2,), 2), 1.0, 64, steps=16, folder=tmp_path).make()
    with pytest.raises(ValueError, match="holds pairs of another solve: steps 16, not 32"):
        Pairs(Task(Swirl(), (2,), 2), 1.0, 64, steps=32, folder=tmp_path)
    other = Swirl()
    other.output.weight.mul_(2)
    with pytest.raises(ValueError, match="holds pairs of another solve: backbone"):
        Pairs(Task(other, (2,), 2), 1.0, 64, steps=16, folder=tmp_path)
    with pytest.raises(ValueError, match="holds pairs of another solve: seed 0, not 1"):
        Pairs(Task(Swirl(), (2,), 2, seed=1), 1.0, 64, steps=16, folder=tmp_path)


def test_damaged_files(fitted: FittedSampler, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="no weight file"):
        FittedSampler.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="no readable safetensors"):
        FittedSampler.load(path)
    from quadflow.adapters.backbones.pretrained import shipped

    with pytest.raises(CheckpointError, match="holds no fitted sampler"):
        FittedSampler.load(shipped("mnist_sit.safetensors"))


def test_without_a_network(tmp_path: Path) -> None:
    found = fit_sampler(Swirl(), **{**FIT, "nfe": (4,)}, network=False)
    assert found.learned.network is None and found.features is None
    found.save(tmp_path / "x.safetensors")
    again = FittedSampler.load(tmp_path / "x.safetensors")
    noise, labels = initial_noise(1, 2, (2,)), torch.tensor([0, 1])
    assert torch.equal(*(sample(Swirl(), noise, labels, method=m, nfe=4).x for m in (found, again)))
