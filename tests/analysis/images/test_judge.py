"""The judge's parts on toys: equal time by counts, FLOPs by hand, roughness, and going on."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sidenets import CLASSES, SMALL, random_sidenet
from torch import Tensor, nn
from toyflow import Toy

from quadflow.adapters import FlowField, Guidance
from quadflow.adapters.backbones.flops import counted
from quadflow.adapters.backbones.registry import NamedBackbone
from quadflow.analysis.images import equal_time as timing
from quadflow.analysis.images import roughness as rough
from quadflow.analysis.images.equal_time import equal_time, equal_time_table
from quadflow.analysis.images.evaluation import JudgedBackbone, Terms, evaluate
from quadflow.analysis.images.fits import FitSize
from quadflow.analysis.images.flops import flops_per_evaluation, published_size_flops
from quadflow.analysis.images.judged import beside_the_best
from quadflow.analysis.images.rivals import Rival
from quadflow.analysis.report.site import judge as judging
from quadflow.analysis.report.site.pages import judged_blocks

TOY = Toy(gap=0.0)
SHAPE = (SMALL.in_channels, 4, 4)
SIZE = math.prod(SHAPE)


class ToyBackbone(nn.Module):
    """The toy's flow, and one product with a matrix that changes nothing, so that FLOPs show."""

    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Linear(SIZE, SIZE, bias=False)
        nn.init.zeros_(self.idle.weight)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return TOY.velocity(x, t, y) + self.idle(x.flatten(1).float()).view_as(x)


BACKBONE = NamedBackbone("toy", ToyBackbone().requires_grad_(False), SHAPE, CLASSES)
SUBJECT = JudgedBackbone(BACKBONE, random_sidenet(1, dtype=torch.float32))
TERMS = Terms(images=4, tuning_images=2, reference_steps=16, nfes=(3, 4), euler_nfes=(),
              methods=("euler", "ab2"), shifts=(0.9, 1.0), uniform=False)  # fmt: skip


# -- equal time ------------------------------------------------------------------------------------


def test_rivals_get_as_many_evaluations_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says that bianchor takes 2.5 times as long an evaluation as the others."""
    asked: list[dict[str, int]] = []

    def seconds(subject: Any, terms: Any, counts: dict[Rival, int], *_: Any) -> dict[str, float]:
        asked.append({rival.name: nfe for rival, nfe in counts.items()})
        return {n: nfe * (2.5 if n == "bianchor" else 1.0) for n, nfe in asked[-1].items()}

    monkeypatch.setattr(timing, "_seconds", seconds)
    rows = equal_time(SUBJECT, "bianchor", ("euler", "ab2"), TERMS)
    assert [r["nfe"] for r in rows] == [3, 4]
    assert [r["rivals"]["ab2"]["nfe"] for r in rows] == [7, 10]
    assert asked[1] == {"bianchor": 3, "euler": 7, "ab2": 7}
    for row in rows:
        assert all(r["seconds"] <= row["seconds"] for r in row["rivals"].values())
    alone = evaluate(SUBJECT, Terms(**(vars(TERMS) | {"methods": ("ab2",), "nfes": (7,)}))).rows
    assert rows[0]["rivals"]["ab2"]["rmse"] == alone[-1].rmse
    text = equal_time_table(rows, "bianchor")
    assert text.count("*") == 2 and "( 10)" in text


def test_the_clock_is_of_real_runs() -> None:
    one, two = Rival("euler", "euler"), Rival("mine", "bianchor")
    found = timing._seconds(SUBJECT, TERMS, {one: 2, two: 2}, 2, 1)
    assert set(found) == {"euler", "mine"} and min(found.values()) > 0


# -- FLOPs -----------------------------------------------------------------------------------------


def test_flops_of_known_products() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert counted(lambda: a @ b) == 2 * 3 * 5 * 7
    q = torch.ones(1, 2, 6, 4)  # attention: queries by keys, weights by values
    attention = nn.functional.scaled_dot_product_attention
    assert counted(lambda: attention(q, q, q)) == 2 * 2 * (2 * 6 * 6 * 4)


@pytest.mark.parametrize(("guidance", "pair"), [(None, 1), (Guidance(2.0, CLASSES), 2)])
def test_flops_an_evaluation(guidance: Guidance | None, pair: int) -> None:
    found = flops_per_evaluation(SUBJECT, ("ab2", "bianchor"), nfe=4, guidance=guidance)
    assert found["ab2"]["backbone"] == pair * 2 * SIZE * SIZE
    assert found["ab2"]["extra"] == found["ab2"]["share"] == 0
    side = found["bianchor"]
    assert side["extra"] > 0 and side["all"] == side["backbone"] + side["extra"]


def test_flops_of_a_published_size_without_memory() -> None:
    found = published_size_flops("SiT-S/2")
    for name in ("SideNet", "fitted"):
        row = found[name]
        assert row["backbone"] == pytest.approx(2 * 6.06e9, rel=0.05)  # 6.06 Gflop, as published
        assert row["share"] == row["extra"] / row["backbone"] > 0


def test_beside_the_published_network_the_fitted_one_is_small() -> None:
    row = published_size_flops("SiT-XL/2")["fitted"]
    assert row["backbone"] == pytest.approx(2 * 118.64e9, rel=0.05)  # 118.64 Gflop, as published
    assert 0 < row["share"] <= 0.03


# -- roughness -------------------------------------------------------------------------------------


def waving(height: float) -> FlowField:
    def model(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        wave = height * torch.cos(2 * math.pi * 40 * t)
        return TOY.velocity(x, t, None) + wave.view(-1, 1, 1, 1)

    return FlowField(model, "repa")


def test_second_differences_tell_rough_from_smooth() -> None:
    noise = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smooth, wavy = (
        np.array(rough.second_differences(waving(a), noise, 160)).T for a in (0.0, 0.05)
    )
    near = smooth[0] < 0.1
    slopes = np.diff(np.log(smooth[1][near])) / np.diff(np.log(smooth[0][near]))
    assert np.all(np.abs(slopes - 2) < 0.2)
    assert wavy[1][0] > 20 * smooth[1][0] and wavy[1][-1] < 1.5 * smooth[1][-1]


def test_the_study_shows_full_orders_where_nothing_is_rough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rough, "STEPS", {"rk4": (1, 2, 3, 4, 5), "ab2": (60, 80, 113, 160)})
    monkeypatch.setattr(rough, "TOLERANCES", (1e-1, 1e-2))
    ticks: list[int] = []
    study = rough.roughness(
        BACKBONE, count=2, finest=40, reference_steps=512, progress=lambda: ticks.append(1)
    )
    assert len(ticks) == 2 + 1 + 1
    assert study["orders"]["ab2"]["over 60"] == pytest.approx(2, abs=0.2)
    assert study["orders"]["rk4"]["5 to 20"] > 2.5
    assert study["orders"]["rk4"]["over 60"] is None
    assert study["orders"]["ab2"]["5 to 20"] is None
    assert [n for n, _ in study["errors"]["rk4"]] == [4, 8, 12, 16, 20]
    rough.draw_roughness(tmp_path / "x.svg", {"toy": study}, "command")
    assert (tmp_path / "x.svg").stat().st_size > 1000
    assert "–" in rough.seen_orders({"toy": study})


# -- the whole judge -------------------------------------------------------------------------------


def judged_pages(folder: Path) -> dict[str, str]:
    """What the pages get of a judge's folder, where nothing but these studies is there."""
    rows = {"ab2": {"3": 1.0}}
    (folder / "editing.json").write_text(json.dumps({"round_trip": rows, "overhead": {}}))
    (folder / "sources.json").write_text(json.dumps({"images": 1, "rmse": rows}))
    return judged_blocks(folder)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "RUNS", {"toy": ("toy", 1.0), "toy-guided": ("toy", 2.0)})
    monkeypatch.setattr(judging, "load_named", lambda name: BACKBONE)
    monkeypatch.setattr(judging, "load_named_sidenet", lambda *_: SUBJECT.sidenet)
    monkeypatch.setattr(judging, "PICTURED", ("toy",))


def test_all_parts_of_the_judge_and_going_on(tmp_path: Path, toys: None, capsys: Any) -> None:
    grids = tmp_path / "grids.json"
    grids.write_text(json.dumps({"toy": {"3": [1.0, 0.8, 0.3, 0.0]}}))
    out = tmp_path / "out"
    how = ["--quick", "--table", "toy", "--out", str(out), "--references", str(tmp_path / "ends")]
    how += ["--grids", str(grids), "--sets", "2"]
    judging.main(["references", *how])
    ends = set((tmp_path / "ends").iterdir())
    judging.main(["tables", *how])
    assert set((tmp_path / "ends").iterdir()) == ends  # all that tables need
    parts = ["tables", "times", "flops", "roughness"]
    judging.main([*parts, *how])
    names = {"evaluate-toy.json", "evaluate-toy.png",
             "equal-time.json", "flops.json", "roughness.json", "roughness.png"}  # fmt: skip
    assert {p.name for p in out.iterdir()} == names
    result = json.loads((out / "evaluate-toy.json").read_text())
    assert {(r["nfe"], r["grid"]) for r in result["rows"]} == {
        (3, "best"), (5, "best"), (3, "calibrated"), (50, "uniform"),
    }  # fmt: skip
    assert all(len(r["rmse_sets"]) == 2 for r in result["rows"])
    assert set(json.loads((out / "flops.json").read_text())) == {"toy", "SiT-XL/2"}
    before = {p: p.read_bytes() for p in out.glob("*.json")}
    judging.main([*parts, *how])
    assert {p: p.read_bytes() for p in out.glob("*.json")} == before


def test_a_further_rival_is_judged_beside_the_others(tmp_path: Path, toys: None) -> None:
    def more(name: str) -> list[Rival]:
        return [Rival("fitted", "ab2", own_grid=True, mark=name)]

    judge = judging.Judge(("toy",), judging.QUICK, tmp_path, tmp_path / "ends", more=more)
    judge.tables()
    judge.times()
    rows = json.loads((tmp_path / "evaluate-toy.json").read_text())["rows"]
    assert {r["method"] for r in rows} == {"euler", "pec2", "bianchor", "fitted"}
    assert {r["mark"] for r in rows} == {"", "toy"}
    times = json.loads((tmp_path / "equal-time.json").read_text())["toy"]["result"]
    assert set(times) == {"bianchor", "fitted"} and set(times["fitted"][0]["rivals"]) == {
        "euler", "pec2",
    }  # fmt: skip


def test_fits_are_made_once_and_judged(
    tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ["--quick", "--table", "toy", "--out", str(tmp_path / "out")]
    how += ["--references", str(tmp_path / "ends")]
    with warnings.catch_warnings():  # two updates need not be better than none
        warnings.simplefilter("ignore")
        judging.main(["fits", *how])
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "ends").rglob("*.safetensors")}
    assert len(files) == 3
    judging.main(["fits", "tables", *how])
    assert all(p.stat().st_mtime_ns == made for p, made in files.items())
    rows = json.loads((tmp_path / "out/evaluate-toy.json").read_text())["rows"]
    found = {(r["method"], r["nfe"], r["mark"] != "") for r in rows}
    # in the budget that they were fitted to, and in no other
    wanted = {(n, 3, True) for n in ("coefficients", "coefficients+times", "bianchor-ends")}
    assert wanted == {row for row in found if row[2]}

    # where no fit was made, there is none in the tables
    other = judging.Judge(("toy",), judging.QUICK, tmp_path, tmp_path / "elsewhere")
    assert other.fitted("toy", SUBJECT) == []


def test_studies_of_effort_and_of_the_parts(
    tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = FitSize((2,), updates=2, pairs=64, steps=4)
    few = replace(judging.QUICK, studied=size, pairs=(1, 65))
    judge = judging.Judge(("toy", "toy-guided"), few, tmp_path, tmp_path / "ends")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge.budget()
        judge.effort()
    (entry,) = json.loads((tmp_path / "fitted-budget.json").read_text()).values()
    study = entry["result"]
    assert {tuple(row) for row in study["rmse"].values()} == {("2",)}
    assert study["rmse"].keys() - {"classical"} == study["evaluations"].keys()
    known = study["parameters"]
    assert known["coefficients alone"] == known["no network"] == 0
    assert known["half width"] < known["as it is"] < known["double width"]
    assert known["no features"] < known["as it is"]
    # held-out pairs are solved for both; of the others half
    assert study["evaluations"]["half the pairs"] <= study["evaluations"]["as it is"]
    (entry,) = json.loads((tmp_path / "effort.json").read_text()).values()
    study = entry["result"]
    assert [len(w["updates"]) for w in study["widths"].values()] == [1, 1]
    assert [[n for n, _ in w["pairs"]] for w in study["widths"].values()] == [[1, 65], [1, 65]]
    for found in study["widths"].values():  # 65 pairs are a block more than 1
        more = found["evaluations"][1] - found["evaluations"][0]
        assert more == 64 * (size.steps + 10)
    assert (tmp_path / "effort.png").stat().st_size > 10_000

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it is there")

    monkeypatch.setattr(judging, "effort_study", refuse)
    monkeypatch.setattr(judging, "fitted_budget", refuse)
    judge.budget()
    judge.effort()
    blocks = judged_pages(tmp_path)
    assert "best classical: " in blocks["fitted-effort"]
    assert "double width" in blocks["fitted-budget"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"other": {}}', "table 'other' is unknown: must be one of toy, toy-guided"),
        ('{"toy": {"3.5": []}}', "toy: NFE must be whole numbers"),
        ("[]", "is no file of grids but a list"),
    ],
)
def test_bad_files_of_grids(content: str, message: str, tmp_path: Path, toys: None) -> None:
    path = tmp_path / "grids.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        judging.read_grids(path)


def test_an_unknown_part(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        judging.main(["tabels"])
    assert "PART 'tabels' is unknown" in capsys.readouterr().err


def test_the_fitted_sampler_beside_the_best_of_the_others() -> None:
    def row(method: str, grid: str, rmse: float, frechet: float | None, nfe: int = 5) -> Any:
        return {"method": method, "grid": grid, "nfe": nfe, "rmse": rmse, "frechet": frechet}

    rows = [
        row("fitted", "best", 0.1, 1.0), row("pec2", "best", 0.2, 8.0),
        row("ab2", "best", 0.3, 4.0), row("fitted", "calibrated", 0.1, None),
        row("pec2", "calibrated", 0.4, None), row("euler", "uniform", 0.01, None, nfe=100),
    ]  # fmt: skip
    text = beside_the_best(
        [{"backbone": "x", "guidance": 2.0, "rows": rows}, {"backbone": "y", "guidance": 1.0,
          "rows": rows[1:3]}]
    )  # fmt: skip
    told = "guidance 2 (a pair is one evaluation):"
    assert text.splitlines() == [
        f"x, rmse, its own best shift, {told}", "   5: 0.50 of pec2",
        f"x, rmse, the calibrated grid, {told}", "   5: 0.25 of pec2",
        f"x, frechet, its own best shift, {told}", "   5: 0.25 of ab2",
    ]  # fmt: skip
