"""The error budget's oracle against the true flow, UniPC against our solves, backbones by name."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_sidenet import CLASSES, LABELS, STATE, random_sidenet, relative
from torch import Tensor, nn
from toyflow import Toy, seeded

import quadflow as qf
from quadflow.adapters import FlowField, Guidance, sample
from quadflow.adapters.checkpoints import save_weights
from quadflow.adapters.cli import main
from quadflow.adapters.named import SHIPPED, default_labels, load_named, load_named_sidenet
from quadflow.adapters.pretrained import shipped
from quadflow.analysis.error_budget import OracleSideNet, ablation_plans, error_budget
from quadflow.analysis.rivals import TimedSideNet, run_sampler
from quadflow.analysis.sampling import converged

TOY = Toy(gap=0.3)


class ToyBackbone(nn.Module):
    num_classes = CLASSES

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return TOY.velocity(x, t, y)


MODEL = ToyBackbone()


def mirrored(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return -TOY.velocity(x, 1 - t, y)


# -- rivals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [None, Guidance(1.5, CLASSES)])
def test_unipc_converges_to_our_solution_at_order_two(guidance: Guidance | None) -> None:
    noise = seeded(*STATE)
    wanted = converged(FlowField(MODEL, "repa", LABELS, guidance or Guidance()), noise, 40).x
    errors = []
    for nfe in (20, 40, 80):
        run = run_sampler("unipc", MODEL, noise, LABELS, nfe=nfe, guidance=guidance)
        assert (run.nfe, run.rows) == (nfe, nfe * 3 * (2 if guidance else 1))
        errors.append(relative(run.x, wanted))
    ratios = [a / b for a, b in itertools.pairwise(errors)]
    assert all(2.5 < ratio < 9 for ratio in ratios), errors
    other = run_sampler(
        "unipc", mirrored, noise, LABELS, nfe=80, guidance=guidance, convention="sit"
    )
    assert relative(other.x, run.x) < 1e-12
    shifted = run_sampler("unipc", MODEL, noise, LABELS, nfe=20, guidance=guidance, shift=2.0)
    assert 1e-6 < relative(shifted.x, wanted) != errors[0]


def test_our_samplers_are_run_as_they_are() -> None:
    noise, net = seeded(*STATE), random_sidenet(1)
    run = run_sampler("bianchor", MODEL, noise, LABELS, nfe=4, sidenet=net, shift=1.5)
    wanted = sample(MODEL, noise, LABELS, nfe=4, sidenet=net, shift=1.5)
    assert torch.equal(run.x, wanted.x)
    assert 0 < run.sidenet_seconds < run.seconds
    euler = run_sampler("euler", MODEL, noise, LABELS, nfe=4)
    assert euler.sidenet_seconds == 0
    timed = TimedSideNet(net)
    assert timed.num_classes == CLASSES


# -- the oracle ------------------------------------------------------------------------------------


def rows(t: float, h: list[float]) -> tuple[Tensor, ...]:
    x = seeded(len(h), *STATE[1:])
    times = torch.full((len(h),), t, dtype=torch.float64)
    y = torch.arange(len(h)) % CLASSES
    return x, TOY.velocity(x, times, y), times, torch.tensor(h, dtype=torch.float64), y


def test_the_oracle_is_the_true_change_in_the_directions_asked_for() -> None:
    x, v, t, h, y = rows(0.5, [0.2, -0.2, 0.1, -0.1])
    net = random_sidenet(3)
    expected = []
    for i in range(4):
        label, step = y[i : i + 1], float(h[i])
        end = qf.solve(
            FlowField(MODEL, "repa", label), x[i : i + 1], (0.5, 0.5 - step), method="rk4",
            step_size=abs(step) / 16,
        ).y[-1]  # fmt: skip
        arrival = torch.full((1,), 0.5 - step, dtype=torch.float64)
        expected.append(TOY.velocity(end, arrival, label) - v[i : i + 1])
    true, guess = torch.cat(expected), net(x, v, t, h, y)
    forward = h > 0
    for options, exact in (
        ({}, forward | ~forward),
        ({"backward": False}, forward),
        ({"forward": False}, ~forward),
    ):
        oracle = OracleSideNet(MODEL, "repa", net, guidance=Guidance(), steps=8, **options)
        got = oracle(x, v, t, h, y)
        assert relative(got[exact], true[exact]) < 1e-6
        if not bool(exact.all()):
            assert torch.equal(got[~exact], guess[~exact])


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_budget_finds_what_is_wrong(scale: float) -> None:
    """With a random SideNet all of the error is the SideNet's; the exact one leaves the rule's."""
    noise, net = seeded(*STATE), random_sidenet(1)
    guidance = Guidance(scale, CLASSES)
    reference = converged(FlowField(MODEL, "repa", LABELS, guidance), noise, 40).x
    budget = error_budget(MODEL, net, noise, LABELS, reference, intervals=4, guidance=guidance)
    errors = {name: entry["rmse"] for name, entry in budget.items()}
    best = "exact SideNet" if scale == 1 else "exact guided SideNet"
    assert errors[best] < 0.1 * errors["as it is"]
    assert ("exact guided SideNet" in errors) == (scale != 1)
    if scale != 1:
        assert errors[best] < 0.5 * errors["exact SideNet"]
    still = sample(MODEL, noise, LABELS, method="ab2", nfe=4, guidance=guidance).x
    assert errors["no SideNet"] == pytest.approx(float((still - reference).square().mean() ** 0.5))
    assert errors["best grid"] <= errors["as it is"]
    assert budget["PECE"]["nfe"] == 7 and budget["last interval corrected"]["nfe"] == 5
    assert all(e["nfe"] == 4 for n, e in budget.items() if n not in ("PECE",
               "last interval corrected"))  # fmt: skip


def test_every_variant_of_the_ablation_costs_what_was_asked() -> None:
    noise, net = seeded(*STATE), random_sidenet(1)
    results = []
    for plan in ablation_plans().values():
        got = sample(MODEL, noise, LABELS, method=plan, nfe=3, sidenet=net)
        assert got.stats.nfe == 3
        results.append(got.x)
    for i, a in enumerate(results):
        assert all(relative(a, b) > 1e-6 for b in results[:i])


# -- names and the command -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SHIPPED, "galaxygrad:hsc-32"])
def test_shipped_backbones_have_sidenets_that_fit(name: str) -> None:
    backbone = load_named(name)
    net = load_named_sidenet(backbone, None, "bianchor")
    noise = seeded(2, *backbone.shape, dtype=torch.float32)
    labels = default_labels(2, backbone.num_classes)
    got = sample(backbone.model, noise, labels, nfe=2, sidenet=net)
    images = backbone.to_images(got.x)
    assert images.shape == noise.shape and float(images.abs().max()) <= 1
    # trained: nearer to the converged solution than without
    wanted = converged(FlowField(backbone.model, "repa", labels), noise, 8).x
    untrained = sample(backbone.model, noise, labels, method="ab2", nfe=2).x
    assert (got.x - wanted).norm() < (untrained - wanted).norm()
    assert load_named_sidenet(backbone, None, "euler") is None
    with pytest.raises(ValueError, match=r"image_size=5, but this backbone's is"):
        load_named(name, image_size=5)


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither a file nor a known name.*mnist-sit"):
        load_named("mnist-sitt")
    unet = load_named("fashion-unet").model
    path = tmp_path / "own.safetensors"
    save_weights(path, unet, unet.config.to_dict(), dtype=torch.float16)
    with pytest.raises(ValueError, match="a network for any size: give --image-size"):
        load_named(str(path))
    own = load_named(str(path), image_size=28)
    assert (own.name, own.shape, own.sidenet) == ("own", (1, 28, 28), None)
    with pytest.raises(ValueError, match="method bianchor on own needs --sidenet"):
        load_named_sidenet(own, None, "bianchor")


SHORT = ["evaluate", "--images", "2", "--nfe", "2", "--uniform-only", "--reference-steps", "2"]


def test_the_command_judges(tmp_path: Path, capsys) -> None:
    out, npz = tmp_path / "e.json", tmp_path / "npz"
    npz.mkdir()
    arguments = ["--methods", "euler,bianchor", "--euler", "3", "--out", str(out)]
    assert main([*SHORT, *arguments, "--npz", str(npz), "--guidance", "2"]) == 0
    shown = capsys.readouterr().out
    assert "NFE 2" in shown and "bianchor" in shown and "guidance 2" in shown
    result = json.loads(out.read_text())
    found = [(r["method"], r["nfe"]) for r in result["rows"]]
    assert found == [("euler", 2), ("bianchor", 2), ("euler", 3)]
    names = sorted(p.name for p in npz.iterdir())
    assert len(names) == 4
    assert np.load(npz / "fashion-unet-converged.npz")["arr_0"].shape == (2, 28, 28, 3)


def test_the_command_refuses(tmp_path: Path, capsys) -> None:
    own = shipped("mnist_sit.safetensors")
    out = tmp_path / "e.json"
    for arguments, message in (
        (["--methods", "euler,eulr"], "--methods has 'eulr'"),
        (["--images", "1"], "images must be >= 2, got 1"),
        (["--backbone", "galaxygrad:hsc-32", "--guidance", "2"], "no classes to be guided by"),
        (["--npz", str(tmp_path / "no")], "is no folder"),
        (["--backbone", str(own), "--methods", "bianchor"], "which needs --sidenet"),
        (["--out", str(tmp_path)], "is a folder, must be a file"),
        (["--guidance", "-1"], "scale must be finite and >= 0"),
    ):
        assert main([*SHORT, "--out", str(out), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
