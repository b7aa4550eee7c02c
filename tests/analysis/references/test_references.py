"""Reference solutions tell the truth about their own error, or say that they failed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from mpmath import mp, mpf

import quadflow as qf
from quadflow.analysis.problems.problem import Problem, get_problem, vector
from quadflow.analysis.references.radau import _radau
from quadflow.analysis.references.reference import (
    ReferenceFailed,
    radau_solution,
    reference_end,
    reference_solution,
)


def unknown(name: str, **parameters: float) -> Problem:
    """The problem without what is known of its solution."""
    return dataclasses.replace(get_problem(name, **parameters), exact=None, end=None)


def exploding() -> Problem:
    """y' = y^2 from 1 has its pole at t = 1, inside the span."""
    return Problem(
        "exploding", "y' = y^2", "", lambda t, y, m: (y[0] * y[0],), vector(1.0), (0.0, 2.0)
    )


def draining() -> Problem:
    """y' = -sqrt(y) from 1 is empty at t = 2; Newton's iterates may cross into y < 0 before."""
    return Problem(
        "draining",
        "y' = -sqrt(y)",
        "",
        lambda t, y, m: (-m.sqrt(y[0]),),
        vector(1.0),
        (0.0, 1.9),
    )


def error(y: torch.Tensor, true: torch.Tensor) -> float:
    return float(((y - true).abs().amax(-1) / true.abs().amax(-1)).max())


def test_closed_form_is_taken_where_there_is_one() -> None:
    problem = get_problem("kepler")
    found = reference_solution(problem, [0.0, 1.5, 30.0])
    assert found.how == "closed form" and found.error == 2.0**-53
    assert torch.equal(found.y[1], problem.solution(1.5))
    assert error(found.y[:1], problem.y0[None]) <= 2.0**-53


@pytest.mark.parametrize("name", ["kepler", "driven", "euler-body", "detest-b3", "detest-e1"])
def test_the_error_of_a_tight_solve_is_no_lie(name: str) -> None:
    problem = get_problem(name)
    times = [t for t in (0.0, 1.0, 2.5, 2.5, 20.0) if t <= problem.span[1]]
    found = reference_solution(unknown(name), times)
    true = torch.stack([problem.solution(t) for t in times])
    assert "DOP853" in found.how and found.y.shape == (len(times), problem.dimension)
    assert error(found.y, true) <= found.error < 1e-10


def test_the_error_of_an_extended_solve_is_no_lie() -> None:
    problem = get_problem("kepler", eccentricity=0.3)
    found = reference_solution(unknown("kepler", eccentricity=0.3), [0.5, 2.0], digits=20)
    assert "Radau IIA" in found.how
    assert found.error == 2.0**-53  # y is float64, the digits behind it are not shown
    assert error(found.y, torch.stack([problem.solution(t) for t in (0.5, 2.0)])) <= 2.0**-52


def test_extended_digits_against_a_closed_form() -> None:
    problem = get_problem("kepler")
    with mp.workdps(45):
        for t, state in zip(
            (2.0, 5.0), radau_solution(problem, [2.0, 5.0], digits=30), strict=True
        ):
            exact = problem.exact(mpf(t))
            assert max(abs(a - b) for a, b in zip(state, exact, strict=True)) < mpf(10) ** -29


def test_extended_digits_as_published() -> None:
    with mp.workdps(40):
        (state,) = radau_solution(get_problem("lotka-volterra"), [10.0])
        published = (mpf("1.02634476757508931914"), mpf("0.909691078136041617548"))
        assert max(abs(a - b) for a, b in zip(state, published, strict=True)) < mpf(10) ** -20


def test_stiff_problems_take_the_implicit_solver() -> None:
    found = reference_solution(unknown("prothero-robinson"), [2.5, 10.0])
    true = torch.stack([get_problem("prothero-robinson").solution(t) for t in (2.5, 10.0)])
    assert "Radau IIA" in found.how and found.error < 1e-15
    assert error(found.y, true) <= 2.0**-52


def test_backward_in_time() -> None:
    problem = dataclasses.replace(unknown("detest-a4"), span=(0.0, -3.0))
    true = get_problem("detest-a4").solution(-3.0)
    assert error(reference_solution(problem, [-1.0, -3.0]).y[1], true) < 1e-13
    assert error(reference_solution(problem, [-3.0], digits=16).y[0], true) < 2.0**-52


def test_reference_end_three_ways() -> None:
    end, size, how = reference_end(get_problem("kepler"))
    assert how == "closed form" and size <= 2e-16 and torch.equal(end, get_problem("kepler").end)
    end, size, how = reference_end(get_problem("hires"))
    assert "given" in how and torch.equal(end, get_problem("hires").end)
    end, size, how = reference_end(get_problem("van-der-pol", mu=2.0))
    assert "DOP853" in how and 0 < size < 1e-10 and end.shape == (2,)
    assert get_problem("van-der-pol", mu=2.0).end is None


def test_failure_is_reported() -> None:
    pole = r"exploding: .* at t = (1|0\.99)"
    with pytest.raises(ReferenceFailed, match=pole):
        reference_solution(exploding(), [2.0])
    with pytest.raises(ReferenceFailed, match=pole):
        radau_solution(exploding(), [2.0], digits=6, stages=5, tail=1e-3)


def test_stages_outside_the_domain_shorten_the_step() -> None:
    with mp.workdps(30):
        (state,) = radau_solution(draining(), [1.9], digits=18)
        assert abs(state[0] - (1 - mpf(1.9) / 2) ** 2) < mpf(10) ** -18


def test_too_few_steps_are_reported() -> None:
    with pytest.raises(ReferenceFailed, match="lorenz: 3 steps were not enough at t = "):
        radau_solution(get_problem("lorenz"), [5.0], max_steps=3)


@pytest.mark.parametrize("times", [[], [1.0, 0.5], [-0.5], [math.nan], [1.0, math.inf]])
def test_bad_times_are_refused(times: list[float]) -> None:
    for name in ("kepler", "lorenz"):
        with pytest.raises(ValueError, match="times"):
            reference_solution(get_problem(name), times)


@pytest.mark.parametrize("digits", [0, 61, -3])
def test_bad_digits_are_refused(digits: int) -> None:
    with pytest.raises(ValueError, match="digits must be from 1 to 60"):
        reference_solution(get_problem("lorenz"), [1.0], digits=digits)


@pytest.mark.parametrize("stages", [2, 3, 9, 20])
def test_radau_rule_is_the_library_s_own(stages: int) -> None:
    """Worked out twice, independently: here from Legendre polynomials in mpmath."""
    rule, ours = _radau(stages, 120), qf.radau_right(stages)
    np.testing.assert_allclose(np.array(rule.nodes, float), ours.nodes, rtol=0, atol=2e-16)
    np.testing.assert_allclose(
        rule.matrix.astype(float), ours.integration_matrix, rtol=0, atol=1e-15
    )
    with mp.workprec(120):  # the last row is the quadrature rule, of degree 2s - 2
        for k in (stages, 2 * stages - 2, 2 * stages - 1):
            total = mp.fdot(rule.matrix[-1], [c**k for c in rule.nodes])
            assert (abs(total - mpf(1) / (k + 1)) < mpf(10) ** -30) == (k <= 2 * stages - 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["hires", "oregonator", "van-der-pol-stiff", "e5", "pollution", "pleiades"]
)
def test_twenty_digits_of_hard_problems(name: str) -> None:
    problem = get_problem(name)
    found = reference_solution(unknown(name), [problem.span[1]], digits=20)
    assert problem.end is not None and error(found.y[0], problem.end) <= 2.0**-52
