"""Problems, measured order, trajectory errors, and the demo end to end."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import quadflow as qf
from quadflow.adapters import (
    FittedSampler,
    FlowField,
    Guidance,
    initial_noise,
    load_unet,
    time_grid,
)
from quadflow.adapters.cli.main import main
from quadflow.adapters.fitted import shipped
from quadflow.adapters.fitted.plan import LearnedPlan, PlanStart
from quadflow.adapters.fitted.sampler import Learned, plan_key
from quadflow.adapters.sampling.converged import converged, rmse, tight_solve
from quadflow.analysis import TrajectoryErrors, get_problem, measured_order
from quadflow.analysis.images import rivals
from quadflow.analysis.report import demo


def test_exact_solution_of_the_driven_problem() -> None:
    problem = get_problem("driven")
    assert problem.exact is not None
    for t in (0.0, 0.4, 2.2):
        eps = 1e-6
        slope = (problem.solution(t + eps) - problem.solution(t - eps)) / (2 * eps)
        time = torch.tensor(t, dtype=torch.float64)
        assert torch.allclose(problem.f(time, problem.solution(t)), slope, atol=1e-8)


def test_unknown_problem_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="problem='keppler' is unknown: did you mean 'kepler'"):
        get_problem("keppler")


def test_measured_order_of_rk4() -> None:
    result = measured_order("rk4", "driven", (40, 57, 80, 113))
    assert 3.8 < result.order < 4.2
    assert result.residual < 0.02
    assert len(result.slopes) == 3
    assert result.nfe == tuple(4 * n for n in result.steps)
    again = json.loads(json.dumps(result.to_dict()))
    assert again["promised_order"] == 4


def test_rounding_and_failure_are_reported_not_fitted() -> None:
    """Points at rounding are left out; with fewer than three left there is no order."""
    result = measured_order(qf.collocation(qf.gauss_legendre(8)), "driven", (64, 90, 128))
    assert result.used == (False, False, False)
    assert math.isnan(result.order) and math.isnan(result.residual)
    exploding = measured_order("euler", _stiff(), (10, 20, 30))
    assert exploding.errors == (math.inf,) * 3
    assert math.isnan(exploding.order)


def _stiff():
    problem = get_problem("driven")
    import dataclasses

    return dataclasses.replace(problem, rhs=lambda t, y, m: [1e120 * x for x in y])


@pytest.mark.parametrize("steps", [(10, 20), (10, 10, 20), (20, 10, 5)])
def test_too_few_or_unordered_step_numbers(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="three ascending"):
        measured_order("rk4", "driven", steps)


def test_the_reference_is_converged_and_knows_its_error() -> None:
    """Against a solve on three times as many times, none of them shared."""
    model = load_unet()
    noise, labels = initial_noise(3, 2, (1, 28, 28)), torch.arange(2)
    field = FlowField(model, labels=labels, guidance=Guidance(2.0, 10))
    reference = converged(field, noise, 64)
    assert reference.nfe == 74 + 43
    finer = tight_solve(field, noise, 193)
    assert rmse(finer, reference.x) < reference.error < 0.02


def untrained() -> FittedSampler:
    """A fitted sampler of 3 and 5 evaluations at guidance 2 that has learned nothing yet."""
    starts = [PlanStart(n, 2, True, tuple(time_grid(n).tolist()), 2.0) for n in (3, 5)]
    plans = {plan_key(start.nfe, start.scale): LearnedPlan(start) for start in starts}
    return FittedSampler(Learned(plans, None), None, "repa")


def test_demo_writes_pictures_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick form of the main job with fewer samplers and a coarser reference, through the
    command line."""
    genuine = demo.trajectory_errors

    def coarse(*given: Any, **how: Any) -> TrajectoryErrors:
        return genuine(*given, **how | {"reference_steps": 12})

    monkeypatch.setattr(demo, "trajectory_errors", coarse)
    monkeypatch.setattr(demo, "METHODS", ("euler", "dpmpp-2m", "pec2", "bianchor"))
    monkeypatch.setattr(demo, "NFES", (3, 5, 10))
    monkeypatch.setattr(rivals, "shipped_fitted", lambda model: untrained())
    out = tmp_path / "demo"
    assert main(["demo", "--quick", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["convergence.png", "demo.json", "samples.png"]
    for name in ("convergence.png", "samples.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    figures = json.loads((out / "demo.json").read_text(encoding="utf-8"))
    for entry in figures["orders"]:
        assert abs(entry["measured_order"] - entry["promised_order"]) < 0.35
    table = figures["sampling"][0]["rmse"]
    assert list(table) == ["euler", "dpmpp-2m", "pec2", "bianchor", "fitted"]
    # what has learned nothing is the method it starts as, at the budgets that it has
    assert table.pop("fitted") == {nfe: table["pec2"][nfe] for nfe in ("3", "5")}
    for method, row in table.items():
        assert row["10"] < row["5"] < row["3"], method
    printed = capsys.readouterr().out
    for value in (figures["orders"][0]["measured_order"],):
        assert f"{value:.2f}" in printed
    for row in table.values():
        assert f"{row['5']:.4f}" in printed
    assert re.search(r"^fitted +0\.\d{4}\*? +0\.\d{4}\*? +–$", printed, re.MULTILINE)


def test_demo_without_the_shipped_sampler_says_so_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_loaded", lambda: ())
    assert main(["demo", "--quick", "--out", str(tmp_path / "demo")]) == 2
    assert "method 'fitted': none is shipped for this backbone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
