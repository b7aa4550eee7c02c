"""The default is right wherever SciPy's and diffrax's are: the study's problems, and its record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import quadflow as qf
from quadflow.analysis.short_inputs.pieces import relaxed, solved_tightly, square_wave
from quadflow.analysis.short_inputs.problem_set import ShortInput, short_inputs
from quadflow.analysis.short_inputs.study import OURS, RIGHT, SCIPY, outcome, short_inputs_study

CASES = short_inputs()
RECORD = Path(__file__).parents[1] / "docs" / "figures" / "short-inputs.json"
BELOW_ATOL = {"logistic from 1e-10", "unstable rest"}
"""What grows from where atol lets it be anything: nobody is right there."""


def error(case: ShortInput) -> float:
    """Of `solve` with nothing but the problem, in its default tolerances."""
    problem = case.problem
    states = qf.solve(problem.f, problem.y0, case.times.tolist()).y.numpy()
    tolerance = OURS.atol + OURS.rtol * np.abs(case.exact).max(1)
    return float((np.abs(states - case.exact).max(1) / tolerance).max())


def test_the_set() -> None:
    assert len(CASES) >= 30 and len({case.problem.name for case in CASES}) == len(CASES)
    assert len({case.kind for case in CASES}) >= 8


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.problem.name)
def test_the_default_is_right(case: ShortInput) -> None:
    """Everywhere, but for two whose start lies below atol: there nobody is."""
    if case.problem.name in BELOW_ATOL:
        assert not outcome(case, SCIPY).right
    else:
        assert error(case) <= RIGHT


def test_the_record_of_all_libraries() -> None:
    """What the docs show: wherever SciPy or diffrax is right, so is the default."""
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    assert {row["name"] for row in rows} == {case.problem.name for case in CASES}
    for row in rows:
        right = {name: found["error"] <= RIGHT for name, found in row["outcomes"].items()}
        others = right["scipy"] or right["diffrax"] or right["diffrax Tsit5"]
        assert right["quadflow"] or not others, row["name"]


def test_solutions_by_pieces() -> None:
    """The closed form and the tight solve agree, of a wave and of one with a first rest."""
    edges, levels = square_wave(2.0, 0.5, 3.0, -1.0, 7.0, first=1.0)
    times = np.linspace(0.0, 7.0, 15)
    exact = relaxed(0.7, 2.0, edges, levels, times)

    def f(t: float, y: np.ndarray) -> np.ndarray:
        return np.array([3.0 if t >= 1 and (t - 1) % 2 < 0.5 else -1.0]) - 0.7 * y

    tight = solved_tightly(f, np.array([2.0]), times, edges, 1.0)
    assert np.abs(tight - exact).max() < 1e-12


def test_the_study_shows_what_is_wrong() -> None:
    study = short_inputs_study((OURS, SCIPY), ("late kick", "constant"))
    text = str(study)
    assert "2 of 2" in text and "1 of 2" in text and "1e+03 *" in text
    assert study.to_dict()["rows"][0]["outcomes"]["scipy"]["error"] > RIGHT
