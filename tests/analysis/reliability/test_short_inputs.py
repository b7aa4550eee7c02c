"""The default is right wherever SciPy's and diffrax's are: the study's problems, and its record."""

from __future__ import annotations

import json

import numpy as np
import pytest
from paths import ROOT

import quadflow as qf
from quadflow.analysis.reliability.short_inputs.pieces import relaxed, solved_tightly, square_wave
from quadflow.analysis.reliability.short_inputs.problem_set import ShortInput, short_inputs
from quadflow.analysis.reliability.short_inputs.study import (
    OURS,
    RIGHT,
    SCIPY,
    short_inputs_study,
)

CASES = short_inputs()
RECORD = ROOT / "docs" / "figures" / "laboratory" / "short-inputs.json"
AMPLIFIED = {"logistic from 1e-10", "unstable rest", "epidemic of few"}
"""What multiplies an error of one atol at the start by more than `RIGHT`: take-offs from below it,
or from little above. No control of steps can promise anything there; SciPy is right on the last one
(34 of its tolerances, which are 3 % there)."""


def error(case: ShortInput) -> float:
    """The error of `solve` with nothing but the problem, in its default tolerances."""
    problem = case.problem
    states = qf.solve(problem.f, problem.y0, case.times.tolist()).y.numpy()
    tolerance = OURS.atol + OURS.rtol * np.abs(case.exact).max(1)
    return float((np.abs(states - case.exact).max(1) / tolerance).max())


def test_the_set() -> None:
    assert len(CASES) >= 30 and len({case.problem.name for case in CASES}) == len(CASES)
    assert len({case.kind for case in CASES}) >= 8


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.problem.name)
def test_the_default_is_right(case: ShortInput) -> None:
    if case.problem.name not in AMPLIFIED:
        assert error(case) <= RIGHT


@pytest.mark.parametrize("name", sorted(AMPLIFIED))
def test_the_exceptions_amplify_one_atol(name: str) -> None:
    (case,) = (case for case in CASES if case.problem.name == name)
    problem, times = case.problem, case.times.tolist()
    ends = [
        qf.solve(problem.f, y0, times, method="dopri8", rtol=1e-12, atol=1e-16).y
        for y0 in (problem.y0, problem.y0 + OURS.atol)
    ]
    tolerance = OURS.atol + OURS.rtol * ends[0].abs().amax(1)
    assert ((ends[1] - ends[0]).abs().amax(1) / tolerance).max() > RIGHT


def test_the_record_of_all_libraries() -> None:
    """What the docs show: wherever SciPy or diffrax is right, so is the default."""
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    assert {row["name"] for row in rows} == {case.problem.name for case in CASES}
    for row in rows:
        right = {name: found["error"] <= RIGHT for name, found in row["outcomes"].items()}
        others = right["scipy"] or right["diffrax"] or right["diffrax Tsit5"]
        assert right["quadflow"] or not others or row["name"] in AMPLIFIED, row["name"]


def test_solutions_by_pieces() -> None:
    """The closed form and the tight solve agree, of a wave and of one with a first rest."""
    wave, heights = square_wave(2.0, 0.5, 3.0, -1.0, 6.0)
    edges, levels = [0.0, *(1 + edge for edge in wave)], [-1.0, *heights]
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
