"""Two wrong methods that linear or autonomous problems take for fourth order."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from quadflow.analysis.orders.convergence import OrderMeasurement
from quadflow.analysis.proofs.blind_spots import SCHEMES, BlindSpots, blind_spots, study_problems
from quadflow.analysis.solvers.solver import as_solver

EXPECTED = {
    "classical RK4": (4, 4, 4, 4),
    "tall trees only": (4, 2, 2, 2),
    "wrong node": (4, 1, 4, 1),
}
"""Orders on the linear autonomous, linear non-autonomous, nonlinear autonomous and full problem."""


@pytest.fixture(scope="module")
def study() -> BlindSpots:
    return blind_spots()


@pytest.mark.parametrize("scheme", EXPECTED)
def test_measured_orders(study: BlindSpots, scheme: str) -> None:
    row = study.measurements[scheme].values()
    for m, expected in zip(row, EXPECTED[scheme], strict=True):
        assert expected - 0.1 < m.order < expected + 0.1, str(m)
        assert m.agrees == (expected == 4)


def test_only_the_full_problem_tells_every_scheme_its_true_order(study: BlindSpots) -> None:
    true = {s.name: s.true for s in SCHEMES}
    for i, problem in enumerate(study_problems()):
        seen = {s: round(study.measurements[s][problem.name].order) for s in true}
        # linear, non-autonomous problems happen to see these two as well
        assert (seen == true) == (i in (1, 3))


def test_the_conditions_that_fail() -> None:
    """In fractions: the two broken schemes meet what their blind problems ask, and no more."""
    _, tall, node = SCHEMES

    def exact(row):
        return [Fraction(x).limit_denominator(100) for x in row]

    b, c = exact(tall.b), exact(tall.c)
    a = [exact(row) + [Fraction(0)] * (4 - len(row)) for row in tall.a]
    vector = [Fraction(1)] * 4
    for k in range(4):
        assert sum(x * y for x, y in zip(b, vector, strict=True)) == Fraction(1, [1, 2, 6, 24][k])
        vector = [sum(x * y for x, y in zip(row, vector, strict=True)) for row in a]
    assert [sum(row) for row in a] == c
    assert sum(x * y * y for x, y in zip(b, c, strict=True)) == Fraction(1, 4) != Fraction(1, 3)
    b, c = exact(node.b), exact(node.c)
    assert sum(x * y for x, y in zip(b, c, strict=True)) == Fraction(7, 15) != Fraction(1, 2)


@pytest.mark.parametrize("problem", study_problems(), ids=lambda p: p.name)
def test_the_problems_have_the_solutions_they_state(problem) -> None:
    run = as_solver("scipy:DOP853").adaptive(problem, 1e-12, 1e-13)
    assert float((run.end - problem.end).abs().max()) < 1e-10


def test_table_figure_and_json(study: BlindSpots, tmp_path: Path) -> None:
    lines = str(study).splitlines()
    assert len(lines) == 4 and lines[0].split()[:2] == ["scheme", "order"]
    assert [round(float(x)) for x in lines[3].split()[-4:]] == [4, 1, 4, 1]
    for suffix, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        study.plot(tmp_path / f"b.{suffix}")
        assert (tmp_path / f"b.{suffix}").read_bytes().startswith(start)
    figures = study.to_dict()["wrong node"]["nonlinear autonomous"]
    assert OrderMeasurement.from_dict(figures).agrees


def test_progress_is_told() -> None:
    ticks: list[int] = []
    blind_spots((8, 16, 32), progress=lambda: ticks.append(1))
    assert len(ticks) == 3 * 4 * 3
