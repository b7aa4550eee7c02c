"""Reliability diagrams: on estimates that are known to be wrong by known factors, and real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from quadflow.analysis.problems.problem import Problem, get_problem
from quadflow.analysis.reliability.diagram import reliability_text
from quadflow.analysis.reliability.estimates import (
    local_solution,
    reliabilities,
    reliability,
)
from quadflow.analysis.solvers.run import Run, Solver

DECAY = Problem(
    "decay", "y' = -y", "textbook", lambda t, y, m: (-y[0],),
    torch.tensor([1.0], dtype=torch.float64), (0.0, 2.0),
)  # fmt: skip


def euler_that_says(factors: tuple[float, ...], steps: int = 20, *, exact: bool = False) -> Solver:
    """Euler on y' = -y, whose local error |y|·(e^-h - 1 + h) it states, times the factors in turn.

    exact: it makes the exact step, and states 1e-3.
    """
    times = np.linspace(0.0, 2.0, steps + 1)
    h = 2.0 / steps
    y = np.exp(-times) if exact else (1 - h) ** np.arange(steps + 1)
    wrong = y[:-1] * (math.exp(-h) - 1 + h)
    said = [1e-3 if exact else w * factors[i % len(factors)] for i, w in enumerate(wrong)]

    def dense(t: float) -> Tensor:
        return torch.tensor([y[int(np.abs(times - t).argmin())]], dtype=torch.float64)

    def run(problem: Problem, rtol: float, atol: float) -> Run:
        end = dense(2.0)
        return Run(end, steps, steps, 0.1, None, dense, tuple(times.tolist()), tuple(said))

    return Solver("told", 1, None, run)


def test_ratios_of_estimates_that_are_wrong_by_known_factors() -> None:
    found = reliability(euler_that_says((2.0, 0.5, 8.0, 4.0)), DECAY)
    assert (found.accepted, len(found.errors), found.failure) == (20, 20, None)
    assert found.judged.all()
    assert found.ratios == pytest.approx([2.0, 0.5, 8.0, 4.0] * 5, rel=1e-9)
    assert found.underestimates == 0.25
    assert found.quantiles[0.5] == pytest.approx(3.0)
    assert found.quantiles[0.05] == pytest.approx(0.5)
    assert found.sizes == pytest.approx([0.1] * 20) and found.starts[:2] == (0.0, 0.1)
    assert "25 %" in str(found) and "told" in str(found)


def test_steps_without_error_are_rounding_and_are_not_judged() -> None:
    found = reliability(euler_that_says((1.0,), exact=True), DECAY)
    assert max(found.errors) < 1e-15 and not found.judged.any()
    assert math.isnan(found.underestimates) and math.isnan(found.quantiles[0.5])
    assert found.to_dict()["quantiles"]["0.5"] is None
    assert str(found).rstrip().endswith("-")


def test_long_solves_are_sampled_evenly() -> None:
    found = reliability(euler_that_says((1.0,), 100), DECAY, most_steps=5)
    assert found.accepted == 100 and found.starts == pytest.approx([0.0, 0.5, 1.0, 1.48, 1.98])
    assert found.ratios == pytest.approx([1.0] * 5, rel=1e-8) and "5 of 100 steps" in str(found)


def test_the_local_solution_is_exact_and_knows_its_error() -> None:
    problem = get_problem("driven")
    start, end = 0.4, 1.3
    got, doubt = local_solution(problem, start, end, problem.solution(start).numpy())
    error = float(np.abs(got - problem.solution(end).numpy()).max())
    assert error < 2e-13 and doubt < 2e-12 and error <= 10 * doubt + 1e-15


def test_estimates_of_dopri5_are_safe_and_of_the_right_size() -> None:
    # the embedded formula has order 4: it errs on the safe side, by about one order
    found = reliability("dopri5", "driven", 1e-6)
    assert found.accepted > 10 and found.judged.sum() > 10
    assert 1 < found.quantiles[0.5] < 100
    assert found.underestimates < 0.2
    # accepted steps are estimated at the tolerance or below: atol + rtol |y|, root of 2 components
    size = max(float(get_problem("driven").solution(t).abs().max()) for t in found.starts)
    assert max(found.estimates) < math.sqrt(2) * 1e-6 * (size + 0.01) * 2


def test_what_cannot_be_judged_says_why() -> None:
    for method, problem, why in (
        ("rk4", "driven", "no error control"),
        ("scipy:RK45", "driven", "does not tell its estimates"),
        ("dopri5", "prothero-robinson", "over the budget of 300 calls of f"),
    ):
        found = reliability(method, problem, 1e-4, budget=300)
        assert found.failure is not None and why in found.failure and not found.errors
        assert why in str(found)

    def fails(problem: Problem, rtol: float, atol: float) -> Run:
        return Run(None, 1, 1, 0.0, "collapsed")

    assert reliability(Solver("frail", 1, None, fails), DECAY).failure == "collapsed"


def test_steps_over_which_nothing_goes_are_counted() -> None:
    wall = Problem(
        "wall", "y' = y^2", "textbook", lambda t, y, m: (y[0] * y[0],),
        torch.tensor([1.0], dtype=torch.float64), (0.0, 2.0),
    )  # fmt: skip

    def leaps(problem: Problem, rtol: float, atol: float) -> Run:
        """Jumps over the pole at t = 1."""
        states = {0.0: 1.0, 0.5: 2.1, 2.0: 3.0}
        return Run(
            torch.tensor([3.0], dtype=torch.float64), 2, 2, 0.1, None,
            lambda t: torch.tensor([states[t]], dtype=torch.float64), tuple(states), (0.2, 0.1),
        )  # fmt: skip

    found = reliability(Solver("leaps", 1, None, leaps), wall)
    assert found.ratios == pytest.approx([2.0], rel=1e-9)  # 2.1 against 1/(1 - 0.5)
    assert found.remark == "1 steps had no local reference"


def test_several_are_saved_one_by_one_and_survive_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    good = euler_that_says((2.0,))

    def interrupted(problem: Problem, rtol: float, atol: float) -> Run:
        raise KeyboardInterrupt

    ticks: list[int] = []
    done = reliabilities(
        [good, Solver("late", 1, None, interrupted)], [DECAY], 1e-3, save=path,
        progress=lambda: ticks.append(1), command="quadflow bench",
    )  # fmt: skip
    assert [m.solver for m in done] == ["told"] and len(ticks) == 1
    saved = json.loads(path.read_text())
    assert saved["diagrams"] == [done[0].to_dict()]
    assert (saved["kind"], saved["command"]) == ("reliability", "quadflow bench")
    assert reliability_text(done).count("told") == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tolerance": -1.0}, "tolerance must be positive, got -1.0"),
        ({"atol_ratio": math.inf}, "atol_ratio must be positive, got inf"),
        ({"most_steps": 0}, "most_steps must be an integer >= 1, got 0"),
        ({"method": "dopri"}, "did you mean"),
        ({"problem": "decai"}, "problem='decai' is unknown"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        reliability(**{"method": "dopri5", "problem": "driven", **options})  # type: ignore[arg-type]


def test_figure_holds_the_diagonal_the_legend_and_the_command(tmp_path: Path) -> None:
    found = reliability(euler_that_says((2.0, 0.5)), DECAY)
    found.plot(tmp_path / "r.svg", command="quadflow bench driven --reliability r.svg")
    text = (tmp_path / "r.svg").read_text()
    for needle in ("estimate = true", "underestimates", "told", "units of y", "driven --relia"):
        assert needle in text, needle
    none = reliability("rk4", "driven")
    with pytest.raises(ValueError, match="nothing to draw: rk4: it has no error control"):
        none.plot(tmp_path / "n.svg")
    assert not (tmp_path / "n.svg").exists()
