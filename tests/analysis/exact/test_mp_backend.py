"""The mpmath back end against the torch implementation and against an older independent one."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from manufactured import Manufactured
from mp_rules import reference_rule
from mp_sweeps import solve_mp
from mpmath import mp, mpf

import quadflow as qf
from quadflow.analysis import get_problem
from quadflow.analysis.exact.mp_backend import (
    ImplicitCollocation,
    coefficients_limit,
    exact_states,
    mp_solve,
    rule_numbers,
)
from quadflow.analysis.problems.problem import Problem, vector
from quadflow.rules.quadrature import FAMILIES

DRIVEN = get_problem("driven")
UNEVEN = np.array([0.0, 0.25, 0.375, 0.75, 1.25, 1.5])


def uniform(n: int, end: int = 3) -> list[Fraction]:
    return [Fraction(end * i, n) for i in range(n + 1)]


@pytest.mark.filterwarnings("ignore:newton-cotes")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rules_agree_with_independent_ones_to_forty_digits(family: str) -> None:
    rule = FAMILIES[family].function(5)
    nodes, weights, matrix = reference_rule(family, 5)
    with mp.workdps(50):
        ours = rule_numbers(rule)
        for a, b in zip(ours[0], nodes, strict=True):
            assert abs(a - b) < mpf(10) ** -40
        for a, b in zip(ours[1], weights, strict=True):
            assert abs(a - b) < mpf(10) ** -40
        for p, q in zip(ours[2], matrix, strict=True):
            assert max(abs(a - b) for a, b in zip(p, q, strict=True)) < mpf(10) ** -40


@pytest.mark.parametrize("guess", ["constant", "extrapolated"])
def test_sweeps_agree_with_an_independent_implementation(guess: str) -> None:
    other = Manufactured()
    problem = Problem(
        "manufactured", "", "", lambda t, y, m: other._rhs(t, y[0], y[1], m), vector(0.0, 1 / 3),
        (0.0, 1.5), exact=lambda t: other.solution_mp(t),
    )  # fmt: skip
    method = qf.collocation(qf.gauss_lobatto(4), 2, guess=guess)
    first = None if guess == "constant" else method.order - 1
    theirs = solve_mp(other, "gauss-lobatto", 4, 2, UNEVEN, first_sweeps=first)
    ours = mp_solve(problem, method, UNEVEN, 40)
    with mp.workdps(40):
        assert max(abs(a - b) for a, b in zip(ours.end, theirs, strict=True)) < mpf(10) ** -36


PLANS = {
    "rk4": "rk4",
    "dopri5": "dopri5",
    "dopri8": "dopri8",
    "tsit5": "tsit5",
    "ab3": "ab3",
    "pec3": "pec3",
    "pece4": "pece4",
    "rising": qf.adams(3, "PEC", startup="rising"),
    "forward last": qf.adams(2, "PEC", forward_last=True),
    "coarse rule": qf.adams(4, "PECE", rule=qf.gauss_legendre(1)),
    "sweeps": qf.collocation(qf.radau_right(3), 3),
    "extrapolated": qf.collocation(qf.gauss_legendre(3), 2, guess="extrapolated"),
}


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_agrees_with_torch_on_uneven_steps(plan: str) -> None:
    method = qf.get_method(PLANS[plan])
    grid = np.concatenate((UNEVEN, [1.75, 2.0, 2.125, 2.5, 3.0]))
    torch_end = qf.solve(
        DRIVEN.f, DRIVEN.y0, (0.0, 3.0), method=method, grid=grid, node_evaluation="broadcast"
    ).y[-1]
    run = mp_solve(DRIVEN, method, grid, 30, start="own")
    # the coefficients of dopri8 reach 43: its sums alone round by 4e-14
    rows = method.tableau.a if isinstance(method, qf.StagesMethod) else ()
    largest = max((sum(map(abs, row)) for row in rows), default=0.0)
    rounding = max(2e-14, 2**-51 * largest)
    ends = torch_end.tolist()
    assert [float(x) for x in run.end] == pytest.approx(ends, rel=rounding, abs=rounding)


def test_dense_output_agrees_with_torch() -> None:
    grid = np.linspace(0, 3, 13)
    for method in (PLANS["sweeps"], qf.adams(3, "PECE", startup="rising"), PLANS["rising"]):
        solution = qf.solve(DRIVEN.f, DRIVEN.y0, (0.0, 3.0), method=method, grid=grid,
                            node_evaluation="broadcast", dense_output=True)  # fmt: skip
        run = mp_solve(DRIVEN, method, grid, 30, start="own")
        for i, x in ((2, 0.3), (7, 0.6)):
            t = float(grid[i] + x * 0.25)
            got = [float(v) for v in run.segments[i](mpf(t))]
            assert got == pytest.approx(solution(t).tolist(), rel=1e-14)


@pytest.mark.parametrize(
    ("rule", "order"), [(qf.gauss_legendre(4), 8), (qf.radau_right(3), 5), (qf.gauss_lobatto(4), 6)]
)
def test_implicit_collocation_has_order_d_plus_one(rule, order: int) -> None:
    method = ImplicitCollocation(rule)
    assert method.order == order
    errors = []
    for n in (24, 34):
        run = mp_solve(DRIVEN, method, uniform(n), 40)
        with mp.workdps(50):
            errors.append(max(abs(a - b) for a, b in zip(run.end, DRIVEN.exact(3), strict=True)))
    slope = float(mp.log(errors[0] / errors[1])) / math.log(34 / 24)
    assert order - 0.1 < slope < order + 0.1


def test_implicit_collocation_on_a_stiff_linear_problem_is_its_stability_function() -> None:
    """y' = λy with one Radau IIA step of two stages: R(z) = (1 + z/3) / (1 - 2z/3 + z²/6)."""
    problem = Problem("decay", "", "", lambda t, y, m: (-1000 * y[0],), vector(1.0), (0.0, 1.0))
    run = mp_solve(problem, ImplicitCollocation(qf.radau_right(2)), [0, 1], 40)
    with mp.workdps(45):
        z = mpf(-1000)
        expected = (1 + z / 3) / (1 - 2 * z / 3 + z**2 / 6)
        assert abs(run.end[0] - expected) < mpf(10) ** -40


def test_equations_without_a_solution_are_no_number() -> None:
    """Implicit midpoint for y' = y² + 1 over h = 4: y = 2h k, k = k²h²/4 + 1 has no real root."""
    problem = Problem("tangent", "", "", lambda t, y, m: (y[0] * y[0] + 1,), vector(0.0), (0, 4.0))
    with pytest.raises(ArithmeticError, match="did not converge"):
        mp_solve(problem, ImplicitCollocation(qf.gauss_legendre(1)), [0, 4], 20)


def test_what_more_digits_do_not_help() -> None:
    assert coefficients_limit(qf.get_method("dopri5")) is None
    assert "float64" in coefficients_limit(qf.get_method("dopri8"))
    assert coefficients_limit(ImplicitCollocation(qf.gauss_legendre(3))) is None
    gauss = qf.rule_from_nodes(qf.gauss_legendre(3).nodes)
    assert "degree above n - 1" in coefficients_limit(ImplicitCollocation(gauss))
    assert coefficients_limit(ImplicitCollocation(qf.rule_from_nodes([0.0, 0.3, 1.0]))) is None


def test_exact_starts_show_the_order_without_the_start_up() -> None:
    """PECE of order 9, whose own start (dopri5) makes errors that its steps soon fall below."""
    exact, own = (
        [mp_solve(DRIVEN, qf.adams(8, "PECE"), uniform(n), 30, start=s).end for n in (96, 136)]
        for s in ("exact", "own")
    )
    slopes = []
    with mp.workdps(40):
        for ends in (exact, own):
            a, b = (max(abs(x - y) for x, y in zip(e, DRIVEN.exact(3), strict=True)) for e in ends)
            slopes.append(float(mp.log(a / b)) / math.log(136 / 96))
    assert 8.6 < slopes[0] < 9.4
    assert slopes[1] < 7.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"digits": 8}, "digits must be an integer >= 16"),
        ({"start": "warm"}, "start must be 'exact' or 'own'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mp_solve(DRIVEN, qf.get_method("ab2"), uniform(4), **arguments)


def test_what_has_no_exact_solution_says_so() -> None:
    lotka = get_problem("lotka-volterra")
    with pytest.raises(ValueError, match="no exact solution to start from"):
        mp_solve(lotka, qf.get_method("ab2"), uniform(4))
    with pytest.raises(ValueError, match="extended precision"):
        exact_states(lotka)
    with pytest.raises(TypeError, match="must be a Method"):
        mp_solve(DRIVEN, "rk4", uniform(4))
