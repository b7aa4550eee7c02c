"""`quadflow evaluate`, and what of `evaluate` itself only a user's mistake or bad luck brings out.

The figures of `evaluate` are recomputed in test_judging.py.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_sidenets import CLASSES, SMALL, random_sidenet
from torch import Tensor, nn
from toyflow import Calls, Toy

from quadflow.adapters import Guidance, initial_noise, sample
from quadflow.adapters.backbones.pretrained import shipped
from quadflow.adapters.backbones.registry import NamedBackbone
from quadflow.adapters.cli.main import main
from quadflow.analysis.images.distribution import frechet_distance
from quadflow.analysis.images.evaluation import (
    TUNING_SEED,
    JudgedBackbone,
    Terms,
    add_budget,
    draw,
    evaluate,
)
from quadflow.analysis.images.scores import Evaluation, Score, psnr, table

TOY = Toy(gap=0.0)
SHAPE = (SMALL.in_channels, 4, 4)


class ToyBackbone(nn.Module):
    num_classes = CLASSES

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return TOY.velocity(x, t, y)


MODEL = ToyBackbone()
NET = random_sidenet(1, dtype=torch.float32)
SUBJECT = JudgedBackbone(NamedBackbone("toy", MODEL, SHAPE, CLASSES), NET)
BARE = JudgedBackbone(SUBJECT.backbone, None)
QUICK = {"methods": ("euler", "pec2"), "nfes": (2, 3), "euler_nfes": (5,), "images": 5,
         "tuning_images": 2, "reference_steps": 256, "shifts": (0.5, 1.0, 2.0)}  # fmt: skip


def eight(images: Tensor) -> Tensor:
    return images.flatten(1)[:, :8]


# -- evaluate --------------------------------------------------------------------------------------


def test_errors_are_those_to_the_closed_form() -> None:
    """Without a solver's help: the toy's flow is known."""
    result = evaluate(BARE, Terms(**QUICK))
    noise, labels = initial_noise(0, 5, SHAPE), torch.arange(5) % CLASSES
    wanted = TOY.flow(noise, 0.0, labels)
    assert result.reference_rmse < 1e-5
    assert result.data_range == pytest.approx(float(wanted.max() - wanted.min()), rel=1e-4)
    assert len(result.rows) == 2 * 2 * 2 + 1

    def error(row: Score, shift: float, noise: Tensor, labels: Tensor) -> float:
        got = sample(MODEL, noise, labels, method=row.method, nfe=row.nfe, shift=shift).x
        return float((got - TOY.flow(noise, 0.0, labels)).double().square().mean().sqrt())

    other, other_labels = initial_noise(TUNING_SEED, 2, SHAPE), torch.arange(2)
    for row in result.rows:
        assert row.rmse == pytest.approx(error(row, row.shift, noise, labels), rel=1e-3)
        tried = {s: error(row, s, other, other_labels) for s in QUICK["shifts"]}
        assert row.shift == (min(tried, key=tried.__getitem__) if row.grid == "best" else 1)
        assert 10 ** (-row.psnr / 20) * result.data_range == pytest.approx(row.rmse)


def test_shifts_are_chosen_on_other_noises_than_are_judged() -> None:
    calls = Calls(MODEL)
    watched = JudgedBackbone(NamedBackbone("toy", calls, SHAPE, CLASSES), None)
    evaluate(watched, Terms(seed=4, **QUICK))
    tuning = [x for x, t, _ in calls if len(x) == 2 and float(t[0]) == 1]
    judged = [x for x, t, _ in calls if len(x) == 5 and float(t[0]) == 1]
    assert (
        len(tuning) >= 2 * 2 * 3
        and len(judged) >= len(evaluate(BARE, Terms(seed=4, **QUICK)).rows) - 4
    )
    assert all(torch.equal(x, initial_noise(TUNING_SEED + 4, 2, SHAPE)) for x in tuning)
    assert all(torch.equal(x, initial_noise(4, 5, SHAPE)) for x in judged)


def finished(path: Path) -> list[tuple[str, int, str]]:
    """The rows of a file of strict JSON: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    result = json.loads(path.read_text(), parse_constant=refuse)
    return [(r["method"], r["nfe"], r["grid"]) for r in result["rows"]]


@pytest.mark.parametrize("shifts", [(0.5, 1.0, 2.0), (1.0, 1e-3), (1.0,)])
def test_wherever_it_is_interrupted_the_file_has_what_is_finished(
    shifts: tuple[float, ...], tmp_path: Path
) -> None:
    """Shift 1e-3 is never the best one: then the tuned row is a copy of the uniform one."""
    arguments = QUICK | {"shifts": shifts, "reference_steps": 4}
    whole = [(r.method, r.nfe, r.grid) for r in evaluate(BARE, Terms(**arguments)).rows]
    before = 1 + (len(shifts) > 1)  # ticks of the references
    for last in range(1, before + len(whole) + 1):
        out, ticks = tmp_path / f"{last}.json", []

        def stop(ticks: list[int] = ticks, last: int = last) -> None:
            ticks.append(1)
            if len(ticks) == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(BARE, Terms(**arguments), out=out, progress=stop)
        rows = max(0, last - before)
        assert out.exists() == (rows > 0)
        assert rows == 0 or finished(out) == whole[:rows]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("with_features", [False, True])
@pytest.mark.parametrize("shifts", [(), (1.0,), (0.5, 1.0)])
def test_progress_is_as_long_as_announced(shifts: tuple[float, ...], with_features: bool) -> None:
    ticks: list[int] = []
    terms = Terms(**(QUICK | {"shifts": shifts, "floor_seeds": 2}))
    evaluate(
        BARE, terms, features=eight if with_features else None, progress=lambda: ticks.append(1)
    )
    assert len(ticks) == terms.length(features=with_features)


def test_features(tmp_path: Path) -> None:
    """A sampler as good as the converged solve is at distance 0 of it, and holds its manifold."""
    arguments = QUICK | {"methods": ("euler", "ab4"), "nfes": (2, 400), "shifts": ()}
    result = evaluate(BARE, Terms(**arguments), features=eight, npz=tmp_path)
    noise, labels = initial_noise(0, 5, SHAPE), torch.arange(5) % CLASSES
    target = eight(TOY.flow(noise, 0.0, labels).clamp(-1, 1))
    assert frechet_distance(target, target) == pytest.approx(0, abs=1e-12)
    rows = {(r.method, r.nfe): r for r in result.rows}
    for (method, nfe), row in rows.items():
        got = sample(MODEL, noise, labels, method=method, nfe=nfe).x.clamp(-1, 1)
        wanted = frechet_distance(eight(got), target)
        assert row.frechet == pytest.approx(wanted, rel=1e-3, abs=1e-6)
    best = rows["ab4", 400]
    assert best.frechet is not None and best.frechet < 1e-6 < 1e-2 < rows["euler", 2].frechet
    assert (best.precision, best.recall) == (1, 1)
    assert result.features == "function" and result.floor["images"] == 5
    # the floor is of converged sets of other seeds
    others = [TOY.flow(initial_noise(s, 5, SHAPE), 0.0, labels).clamp(-1, 1) for s in range(4)]
    pairs = [frechet_distance(eight(a), eight(b)) for i, a in enumerate(others) for b in others[:i]]
    assert result.floor["mean"] == pytest.approx(np.mean(pairs), rel=1e-3)
    assert result.floor["std"] == pytest.approx(np.std(pairs, ddof=1), rel=1e-3)
    kept = np.load(tmp_path / "toy-ab4-400-uniform.npz")["arr_0"]
    converged = np.load(tmp_path / "toy-converged.npz")["arr_0"]
    assert kept.shape == (5, 4, 4, 3) and kept.dtype == np.uint8
    assert np.abs(kept.astype(int) - converged).max() <= 1
    assert len(list(tmp_path.iterdir())) == 1 + len(result.rows)


@pytest.mark.parametrize(
    ("subject", "arguments", "message"),
    [
        (SUBJECT, {"images": 1}, "images must be an integer >= 2, got 1"),
        (
            SUBJECT,
            {"images": 3, "features": eight},
            "images must be an integer >= 4 with features, got 3",
        ),
        (
            SUBJECT,
            {"features": eight, "floor_seeds": 1},
            "floor_seeds must be an integer >= 2, got 1",
        ),
        (SUBJECT, {"reference_steps": 0}, "reference_steps must be an integer >= 4, got 0"),
        (SUBJECT, {"reference_steps": -2}, "reference_steps must be an integer >= 4, got -2"),
    ],
)
def test_refused_before_any_work(subject: JudgedBackbone, arguments: dict, message: str) -> None:
    calls = Calls(MODEL)
    watched = JudgedBackbone(NamedBackbone("toy", calls, SHAPE, CLASSES), subject.sidenet)
    with pytest.raises(ValueError, match=message):
        features = arguments.pop("features", None)
        evaluate(watched, Terms(**(QUICK | arguments)), features=features)
    assert not calls


@pytest.mark.parametrize("method", ["bianchor", "single-anchor"])
def test_methods_that_need_a_sidenet(method: str) -> None:
    with pytest.raises(ValueError, match="needs sidenet="):
        evaluate(BARE, Terms(**(QUICK | {"methods": (method,)})))
    with pytest.raises(ValueError, match="needs a SideNet"):
        add_budget(BARE, Evaluation("toy", 1.0, 2, 1, 0, {}, 0.0, 0, 1.0), (2,))


def test_the_fewest_reference_steps_are_enough_to_tune() -> None:
    rows = evaluate(BARE, Terms(**(QUICK | {"reference_steps": 4}))).rows
    assert sum(r.grid == "best" for r in rows) == 4


def test_the_budget_is_guided_as_the_evaluation_was() -> None:
    result = evaluate(SUBJECT, Terms(guidance=Guidance(2.0, CLASSES), **(QUICK | {"shifts": ()})))
    ticks: list[int] = []
    add_budget(SUBJECT, result, (2, 3), lambda: ticks.append(1))
    assert result.budget is not None and len(ticks) == 2
    noise, labels = initial_noise(0, 5, SHAPE), torch.arange(5) % CLASSES
    guided = Guidance(2.0, CLASSES)
    wanted = sample(MODEL, noise, labels, method="ab4", nfe=400, guidance=guided).x
    for nfe in (2, 3):
        got = sample(MODEL, noise, labels, nfe=nfe, sidenet=NET, guidance=guided).x
        error = float((got - wanted).double().square().mean().sqrt())
        budget = result.budget["error budget"][str(nfe)]
        assert budget["as it is"]["rmse"] == pytest.approx(error, rel=1e-3)
        assert "exact guided SideNet" in budget
        assert result.budget["ablation"][str(nfe)]["bi-anchor"] == budget["as it is"]["rmse"]


def test_psnr() -> None:
    assert psnr(0.02, 2.0) == pytest.approx(40.0)
    assert psnr(2.0, 2.0) == 0
    assert psnr(0.0, 2.0) == math.inf


def row(method: str, nfe: int, rmse: float, grid: str = "uniform") -> dict:
    return {"method": method, "nfe": nfe, "grid": grid, "rmse": rmse}


def test_the_best_of_every_column_is_starred() -> None:
    rows = [row("euler", 3, 0.5), row("euler", 5, 0.25), row("pec2", 3, 0.125),
            row("pec2", 5, 0.25), row("euler", 50, 0.01),
            row("euler", 3, 0.0625, "best"), row("pec2", 3, 0.75, "best")]  # fmt: skip
    result = {"backbone": "toy", "guidance": 1.0, "rows": rows}
    lines = table(result, "uniform").splitlines()
    assert lines[0] == "toy: rmse to the converged solve, no guidance, the uniform grid"
    assert lines[1].split() == ["method", "NFE", "3", "NFE", "5"]  # the long run stands alone
    assert lines[2].split() == ["euler", "0.5000", "0.2500*"]
    assert lines[3].split() == ["pec2", "0.1250*", "0.2500*"]  # both are the best
    lines = table(result | {"guidance": 2.5}, "best").splitlines()
    assert "guidance 2.5 (a pair is one evaluation), its own best shift" in lines[0]
    assert [line.split() for line in lines[2:]] == [["euler", "0.0625*"], ["pec2", "0.7500"]]


@pytest.mark.parametrize("nfes", [(2, 3), (2, 50), (50,)])
def test_pictures_of_any_budgets(nfes: tuple[int, ...], tmp_path: Path) -> None:
    """Also of budgets that the default long runs of Euler have, where there are no others."""
    terms = Terms(**(QUICK | {"nfes": nfes, "euler_nfes": ()}))
    result = evaluate(BARE, terms)
    draw(tmp_path / "x.png", BARE, terms, result)
    assert Image.open(tmp_path / "x.png").size[0] > 100
    with pytest.raises(ValueError, match="no samples to draw"):
        draw(tmp_path / "y.png", BARE, replace(terms, nfes=(4,)), result)


# -- the command -----------------------------------------------------------------------------------

# its weights alone are read: it need not be importable
TINY = ["evaluate", "--images", "2", "--nfe", "2", "--methods", "euler,pec2", "--euler", "",
        "--reference-steps", "4"]  # fmt: skip
SHORT = [*TINY, "--uniform-only"]


def test_the_command(tmp_path: Path, capsys) -> None:
    out = tmp_path / "e.json"
    assert main([*SHORT, "--out", str(out)]) == 0
    assert finished(out) == [("euler", 2, "uniform"), ("pec2", 2, "uniform")]
    result = json.loads(out.read_text())
    assert (result["backbone"], result["images"], result["guidance"]) == ("fashion-unet", 2, 1)
    assert result["reference_nfe"] == (4 + 10) + (3 + 10)
    printed = capsys.readouterr().out
    assert table(result, "uniform") in printed and printed.endswith(f"-> {out}\n")
    assert "best shift" not in printed
    assert [p.name for p in tmp_path.iterdir()] == ["e.json"]


def test_the_command_tunes_guides_and_draws(tmp_path: Path, capsys) -> None:
    out, png = tmp_path / "e.json", tmp_path / "e.png"
    arguments = ["--guidance", "2", "--seed", "3", "--pictures", str(png), "--out", str(out)]
    assert main([*TINY, *arguments, "--euler", "3"]) == 0
    assert finished(out) == [("euler", 2, "uniform"), ("euler", 2, "best"), ("pec2", 2, "uniform"),
                             ("pec2", 2, "best"), ("euler", 3, "uniform")]  # fmt: skip
    result = json.loads(out.read_text())
    assert (result["guidance"], result["seed"]) == (2, 3)
    assert all(r["rows"] == r["nfe"] * 2 * 2 for r in result["rows"])
    printed = capsys.readouterr().out
    assert table(result, "best") in printed and table(result, "uniform") in printed
    assert Image.open(png).size[0] > 100


def test_the_command_on_a_backbone_without_classes(tmp_path: Path, capsys) -> None:
    """With its error budget, at NFE up to 10 only."""
    out = tmp_path / "e.json"
    arguments = ["--backbone", "galaxygrad:hsc-32", "--methods", "bianchor,unipc", "--budget"]
    assert main([*SHORT, *arguments, "--nfe", "2,11", "--out", str(out)]) == 0
    assert finished(out) == [(m, n, "uniform") for m in ("bianchor", "unipc") for n in (2, 11)]
    result = json.loads(out.read_text())
    assert list(result["budget"]["error budget"]) == ["2"] == list(result["budget"]["ablation"])
    assert "bianchor" in capsys.readouterr().out


def test_the_command_judges_fitted_samplers(tmp_path: Path, capsys) -> None:
    """By name and by file, at the evaluations that they were fitted to."""
    out, file = tmp_path / "e.json", str(shipped("galaxy_hsc32_fitted.safetensors"))
    methods = ["--backbone", "galaxygrad:hsc-32", "--methods", f"euler,fitted,{file}"]
    assert main([*SHORT, *methods, "--nfe", "3,4", "--out", str(out)]) == 0
    own = [(name, 3, "uniform") for name in ("fitted", "galaxy_hsc32_fitted")]
    assert finished(out) == [("euler", 3, "uniform"), ("euler", 4, "uniform"), *own]
    result = json.loads(out.read_text())
    by_name, by_file = (r for r in result["rows"] if r["method"] != "euler")
    assert by_name["rmse"] == by_file["rmse"] < result["rows"][0]["rmse"]
    printed = capsys.readouterr().out
    assert "galaxy_hsc32_fitted" in printed


OWN = ["--backbone", str(shipped("mnist_sit.safetensors"))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--methods", "euler,eulr"],
            "--methods 'eulr' is unknown: did you mean 'euler'",
        ),
        (["--images", "1"], "images must be an integer >= 2, got 1"),
        (["--reference-steps", "0"], "reference_steps must be an integer >= 4, got 0"),
        (["--reference-steps", "-1"], "reference_steps must be an integer >= 4, got -1"),
        (["--guidance", "-1"], "scale must be finite and >= 0, got -1.0"),
        (["--npz", "no-folder"], "--npz no-folder is no folder"),
        (["--out", "."], "--out . is a folder, must be a file"),
        (["--out", "no/e.json"], "the folder no does not exist"),
        (["--pictures", "."], "--pictures .: must be a file in a folder that exists"),
        (["--pictures", "no/e.png"], "--pictures no/e.png: must be a file in a folder that exists"),
        (["--backbone", "fashion"], "is neither a file nor a known name"),
        (["--image-size", "32"], "image_size=32, but this backbone's is 28"),
        (["--sidenet", "gone.safetensors"], "no weight file at gone.safetensors"),
        ([*OWN, "--methods", "euler,bianchor"], "--methods has bianchor, which needs --sidenet"),
        ([*OWN, "--methods", "single-anchor"], "--methods has single-anchor, which needs"),
        (
            ["--methods", "fitted", "--guidance", "3"],
            "fitted was fitted for guidance 1 and 2, not 3",
        ),
        ([*OWN, "--budget"], "--budget is of BA-solver, which needs --sidenet"),
    ],
)
def test_the_command_refuses_and_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SHORT, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.splitlines()[-1].startswith("quadflow evaluate: ")
    assert list(tmp_path.iterdir()) == []


def test_galaxies_have_no_classes_to_be_guided_by(capsys) -> None:
    assert main([*SHORT, "--backbone", "galaxygrad:hsc-32", "--guidance", "2"]) == 2
    assert "galaxygrad:hsc-32 has no classes to be guided by" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a", "3,,5", "0", "3,-1", "1.5"])
def test_budgets_that_are_none(text: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*SHORT, "--nfe", text])
    assert caught.value.code == 2
    assert f"got '{text}'" in capsys.readouterr().err


def test_features_of_ones_own(tmp_path: Path, capsys) -> None:
    out = tmp_path / "e.json"
    common = ["evaluate", "--images", "4", "--nfe", "2", "--methods", "euler", "--euler", "",
              "--uniform-only", "--reference-steps", "4", "--out", str(out)]  # fmt: skip
    assert main([*common, "--features", "test_cli_evaluation:eight"]) == 0
    result = json.loads(out.read_text())
    assert result["features"] == "test_cli_evaluation:eight"
    assert result["rows"][0]["frechet"] > 0
    out.unlink()
    for name, message in (
        ("inception", "must be none, efficientnet or MODULE:NAME"),
        ("no_such_module:f", "no module 'no_such_module' in this folder or installed"),
        ("math:nothing", "math has no 'nothing'"),
        ("math:pi", "math:pi is of type float: must be a callable"),
    ):
        assert main([*common, "--features", name]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
