"""Inversion and regeneration: the way back is the way forth, and labels change what comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sidenets import CLASSES, LABELS, STATE, Backbone, random_sidenet, relative
from toyflow import Calls, Toy, seeded

from quadflow.adapters import SAMPLERS, Guidance, edit, invert, sample, time_grid
from quadflow.adapters.cli.main import main
from quadflow.adapters.data.images import load_image, save_png

TOY = Toy(gap=0.0)
BACK = sorted(set(SAMPLERS) - {"dpmpp-2m"})


def toy_model(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return TOY.velocity(x, t, y)


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_inversion_finds_the_noise(strength: float) -> None:
    """A Gaussian flow in closed form: the state at σ belongs to the noise, and the data too."""
    noise = seeded(*STATE)
    data = TOY.flow(noise, 0.0, LABELS)
    got = invert(toy_model, data, LABELS, strength=strength, method="pec2", nfe=200)
    assert got.stats.nfe == 200
    assert relative(got.x, TOY.flow(noise, strength, LABELS)) < 1e-3
    coarse = invert(toy_model, data, LABELS, strength=strength, method="pec2", nfe=50)
    wanted = TOY.flow(noise, strength, LABELS)
    assert relative(coarse.x, wanted) > 6 * relative(got.x, wanted)


@pytest.mark.parametrize("convention", ["repa", "sit"])
@pytest.mark.parametrize("method", BACK)
def test_the_anchors_lie_at_the_same_times(method: str, convention: str) -> None:
    def forward(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if convention == "repa":
            return toy_model(x, t, y)
        return -toy_model(x, 1 - t, y)

    calls = Calls(forward)
    result = edit(
        calls, seeded(*STATE), LABELS, LABELS, method=method, nfe=5, shift=2.0, strength=0.8,
        sidenet=random_sidenet(1), convention=convention,
    )  # fmt: skip
    assert (result.inversion.stats.nfe, result.regeneration.stats.nfe) == (5, 5)
    intervals = 3 if method == "heun" else 5
    grid = time_grid(intervals, convention, shift=2.0, sigmas=(0.8, 0.0))
    times = [float(t[0]) for _, t, _ in calls]
    expected = {round(float(t), 12) for t in grid}
    assert {round(t, 12) for t in times} <= expected
    # the way back begins at the data, the way forth at the strength
    assert times[0] == grid[-1] and times[5] == grid[0]
    assert torch.equal(result.noise, result.inversion.x)


def test_the_round_trip_closes_with_the_budget() -> None:
    model, net, data = Backbone(0, torch.float64), random_sidenet(1), seeded(*STATE)
    for method in ("euler", "ab2", "pec2", "bianchor"):
        errors = [
            relative(edit(model, data, LABELS, LABELS, method=method, nfe=n, sidenet=net).x, data)
            for n in (8, 32, 128)
        ]
        assert errors[0] > 2.5 * errors[1] > 6 * errors[2], method


def test_another_label_moves_the_data_where_the_flow_says() -> None:
    """The Gaussian toy's edit is known: the noise is the same, the centre another."""
    noise, target = seeded(*STATE), (LABELS + 1) % CLASSES
    data = TOY.flow(noise, 0.0, LABELS)
    got = edit(toy_model, data, LABELS, target, method="pec2", nfe=100)
    assert relative(got.x, TOY.flow(noise, 0.0, target)) < 2e-3
    # a little strength keeps more of the data
    little = edit(toy_model, data, LABELS, target, method="pec2", nfe=50, strength=0.3)
    assert (little.x - data).norm() < (got.x - data).norm()


def test_only_the_way_forth_is_guided() -> None:
    calls = Calls(Backbone(0, torch.float64))
    guidance = Guidance(2.0, CLASSES)
    result = edit(calls, seeded(*STATE), LABELS, LABELS, nfe=3, method="pec2", guidance=guidance)
    assert [len(x) for x, *_ in calls] == [3] * 3 + [6] * 3
    assert (result.inversion.rows, result.regeneration.rows) == (9, 18)


def test_refusals() -> None:
    data, model = seeded(*STATE), Backbone(0, torch.float64)
    for strength in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"strength must be in \(0, 1\]"):
            edit(model, data, LABELS, LABELS, strength=strength)
        with pytest.raises(ValueError, match=r"strength must be in \(0, 1\]"):
            invert(model, data, LABELS, strength=strength)
    with pytest.raises(ValueError, match="cannot start at σ = 0"):
        invert(model, data, LABELS, method="dpmpp-2m", nfe=3)
    with pytest.raises(ValueError, match="labels contains 9"):
        edit(model, data, LABELS, torch.tensor([0, 9, 1]), nfe=2)
    broken = data.clone()
    broken[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="x is not finite in sample 1"):
        invert(model, broken, LABELS)
    for sigmas in ((0.5, 0.5), (1.2, 0.0), (0.3, -0.1)):
        with pytest.raises(ValueError, match="sigmas must be two different numbers"):
            sample(model, data, LABELS, sigmas=sigmas, method="euler", nfe=2)


# -- the command -----------------------------------------------------------------------------------


def picture(path: Path, size: int = 28, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    save_png(path, pixels)
    return path


def test_pictures_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 5)
    image = load_image(path, (1, 5, 5))
    assert image.shape == (1, 5, 5) and image.dtype == torch.float32
    pixels = np.asarray(Image.open(path))
    assert np.array_equal(((image[0].numpy() + 1) * 127.5).round().astype(np.uint8), pixels)
    colour = load_image(path, (3, 5, 5))
    assert torch.equal(colour, image.expand(3, 5, 5))
    with pytest.raises(ValueError, match="has 5x5 pixels, must have 28x28"):
        load_image(path, (1, 28, 28))
    with pytest.raises(FileNotFoundError, match="no picture at"):
        load_image(tmp_path / "b.png", (1, 5, 5))
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no readable picture"):
        load_image(tmp_path / "c.png", (1, 5, 5))


def test_the_command(tmp_path: Path, capsys) -> None:
    paths = [str(picture(tmp_path / f"{i}.png", seed=i)) for i in range(2)]
    out = tmp_path / "edited.png"
    common = ["edit", *paths, "--from", "7", "--to", "9", "--out", str(out)]
    assert main([*common, "--nfe", "2", "--compare"]) == 0
    assert "2 + 2 evaluations" in capsys.readouterr().out
    shown = np.asarray(Image.open(out))
    assert shown.shape == (56, 56)
    assert np.array_equal(shown[:28, :28], np.asarray(Image.open(paths[0])))
    out.unlink()
    for extra, message in (
        (["--to", "10"], "--to 10: the classes are 0..9"),
        (["--from", "-1"], "--from -1: the classes are 0..9"),
        (["--strength", "0"], "strength must be in (0, 1], got 0.0"),
        (["--nfe", "0"], "nfe must be an integer >= 1"),
        (["--method", "dpmpp-2m"], "cannot start at σ = 0"),
        (["--backbone", "galaxygrad:hsc-32"], "has no classes to edit between"),
        (["--out", str(tmp_path / "no" / "x.png")], "does not exist"),
    ):
        assert main([*common, *extra]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
