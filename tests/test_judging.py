"""`evaluate`: every figure recomputed by hand, nothing lost when it is interrupted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_oracle_and_rivals import MODEL
from test_sidenet import CLASSES, SMALL, random_sidenet
from torch import Tensor

import quadflow as qf
from quadflow.adapters import FlowField, Guidance, initial_noise, sample
from quadflow.adapters.named import NamedBackbone
from quadflow.analysis.distribution import frechet_distance
from quadflow.analysis.evaluation import (
    TUNING_SEED,
    Evaluation,
    Subject,
    add_budget,
    evaluate,
    evaluation_length,
    psnr,
    table,
)
from quadflow.analysis.judged import judgement

SHAPE = (SMALL.in_channels, 4, 4)
NET = random_sidenet(1, dtype=torch.float32)
SUBJECT = Subject(NamedBackbone("toy", MODEL, SHAPE, CLASSES), NET)
ARGUMENTS = {"methods": ("euler", "bianchor"), "nfes": (2, 4), "euler_nfes": (6,),
             "shifts": (0.7, 1.0, 2.0), "images": 6, "tuning_images": 3,
             "reference_steps": 20}  # fmt: skip


def features(images: Tensor) -> Tensor:
    return images.flatten(1)[:, :3]


def tight(noise: Tensor, labels: Tensor, guidance: Guidance) -> Tensor:
    field = FlowField(MODEL, "repa", labels, guidance)
    with torch.no_grad():
        return qf.solve(field, noise, (1.0, 0.0), method="rk4", step_size=1 / 40).y[-1]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_every_figure_is_what_it_says(scale: float, tmp_path: Path) -> None:
    guidance, ticks = Guidance(scale, CLASSES), []
    out, npz = tmp_path / "e.json", tmp_path / "npz"
    npz.mkdir()
    result = evaluate(
        SUBJECT, guidance=guidance, features=features, features_name="pixels", out=out, npz=npz,
        progress=lambda: ticks.append(1), **ARGUMENTS,
    )  # fmt: skip
    assert len(ticks) == evaluation_length(
        ARGUMENTS["methods"], ARGUMENTS["nfes"], ARGUMENTS["euler_nfes"], ARGUMENTS["shifts"],
        features=True,
    )  # fmt: skip
    assert json.loads(out.read_text()) == json.loads(json.dumps(result.to_dict()))
    labels = torch.arange(6) % CLASSES
    noise = initial_noise(0, 6, SHAPE)
    wanted = tight(noise, labels, guidance)
    assert result.data_range == pytest.approx(float(wanted.max() - wanted.min()), rel=1e-5)
    keys = [(r.method, r.nfe, r.tuned) for r in result.rows]
    assert keys == [
        (m, n, t) for m in ("euler", "bianchor") for n in (2, 4) for t in (False, True)
    ] + [("euler", 6, False)]

    def error(row, noise: Tensor, labels: Tensor, wanted: Tensor, shift: float) -> float:
        got = sample(
            MODEL, noise, labels, method=row.method, nfe=row.nfe, sidenet=NET, guidance=guidance,
            shift=shift,
        ).x  # fmt: skip
        return float((got - wanted).double().square().mean().sqrt())

    tuning_noise, tuning_labels = initial_noise(TUNING_SEED, 3, SHAPE), torch.arange(3)
    tuning = tight(tuning_noise, tuning_labels, guidance)
    for row in result.rows:
        assert row.rmse == pytest.approx(error(row, noise, labels, wanted, row.shift), rel=1e-4)
        assert row.psnr == pytest.approx(20 * math.log10(result.data_range / row.rmse))
        assert row.rows == row.nfe * 6 * (2 if scale != 1 else 1)
        assert (row.sidenet_share > 0) == (row.method == "bianchor")
        got = sample(
            MODEL, noise, labels, method=row.method, nfe=row.nfe, sidenet=NET, guidance=guidance,
            shift=row.shift,
        ).x.clamp(-1, 1)  # fmt: skip
        own = frechet_distance(features(got), features(wanted.clamp(-1, 1)))
        assert row.frechet == pytest.approx(own, rel=1e-2, abs=1e-6)
        if row.tuned:
            tried = {s: error(row, tuning_noise, tuning_labels, tuning, s) for s in (0.7, 1.0, 2.0)}
            assert row.shift == min(tried, key=tried.__getitem__)
        else:
            assert row.shift == 1
    kept = np.load(npz / "toy-euler-2-uniform.npz")["arr_0"]
    assert kept.shape == (6, 4, 4, 3) and kept.dtype == np.uint8


def test_an_interruption_loses_no_finished_row(tmp_path: Path) -> None:
    out, ticks = tmp_path / "e.json", []

    def stop() -> None:
        ticks.append(1)
        if len(ticks) == 5:  # reference, tuning reference, three rows
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(SUBJECT, out=out, progress=stop, **ARGUMENTS)
    rows = json.loads(out.read_text())["rows"]
    assert [(r["method"], r["nfe"], r["tuned"]) for r in rows] == [
        ("euler", 2, False), ("euler", 2, True), ("euler", 4, False),
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["e.json"]


def test_tables_and_budget() -> None:
    result = evaluate(SUBJECT, features=features, **ARGUMENTS)
    add_budget(SUBJECT, result, (2, 4))
    text = table(result.to_dict(), tuned=False)
    best = {n: min(r.rmse for r in result.rows if r.nfe == n and not r.tuned) for n in (2, 4)}
    assert text.count("*") == 2
    for row in result.rows:
        if not row.tuned and row.nfe in best:
            line = next(x for x in text.splitlines() if x.startswith(row.method))
            assert (f"{row.rmse:.4f}*" in line) == (row.rmse == best[row.nfe])
    tables = judgement(json.loads(json.dumps(result.to_dict())))
    assert set(tables) == {"uniform", "tuned", "frechet", "budget", "ablation", "against"}
    assert result.budget is not None and result.budget["images"] == 6
    entry = result.budget["error budget"]["4"]["as it is"]
    row = next(r for r in result.rows if (r.method, r.nfe, r.tuned) == ("bianchor", 4, False))
    assert entry["rmse"] == pytest.approx(row.rmse, rel=1e-3)
    assert f"{entry['rmse']:.4f}" in tables["budget"]
    assert result.budget["ablation"]["4"]["bi-anchor"] == entry["rmse"]


def test_psnr() -> None:
    assert psnr(0.2, 2.0) == pytest.approx(20.0)
    assert psnr(0.0, 2.0) == math.inf


def test_refusals() -> None:
    with pytest.raises(ValueError, match="images must be >= 2, got 1"):
        evaluate(SUBJECT, images=1)
    bare = Subject(SUBJECT.backbone, None)
    with pytest.raises(ValueError, match="needs sidenet="):
        evaluate(bare, **(ARGUMENTS | {"methods": ("bianchor",)}))
    with pytest.raises(ValueError, match="needs a SideNet"):
        add_budget(bare, Evaluation("x", 1.0, 2, 0, 0.0, 0, 1.0), (2,))
