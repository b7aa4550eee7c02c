"""Every registered problem: one formula in three arithmetics, true invariants, true end digits."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from scipy.integrate import solve_ivp

from quadflow.adapters.cli.main import main
from quadflow.analysis.problems.problem import (
    Problem,
    get_problem,
    parse_problem,
    problem_names,
    problems,
    register_problem,
    vector,
)
from quadflow.analysis.problems.tables import describe, problem_table
from quadflow.analysis.references.reference import radau_solution

NAMES = problem_names()
EXACT = [name for name, p in problems().items() if p.exact is not None]
CONSERVED = [(name, q) for name, p in problems().items() for q in p.invariants]
VARIANTS = [
    ("kepler", {"eccentricity": 0.0}),
    ("kepler", {"eccentricity": 0.95}),
    ("euler-body", {"m": 0.0}),
    ("euler-body", {"m": 0.999}),
    ("prothero-robinson", {"lam": -1.0}),
    *(("manufactured", {"seed": k, "dimension": d}) for k, d in ((1, 1), (2, 3), (3, 5))),
]


_MADE = {name: get_problem(name) for name in NAMES}


@functools.cache
def _solved(name: str) -> tuple[np.ndarray, np.ndarray]:
    return trajectory(_MADE[name])


def trajectory(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) and states (n, d) of a loose implicit solve."""
    size = max(float(problem.y0.abs().max()), 1e-3)
    # the species of e5 are down to 1e-20 of the first
    atol = 1e-24 if problem.name == "e5" else 1e-7 * size
    with np.errstate(all="ignore"):
        solved = solve_ivp(
            problem.f_numpy, problem.span, problem.y0.numpy(), "Radau", rtol=1e-4, atol=atol
        )
    assert solved.success, solved.message
    return solved.t, solved.y.T


def states(problem: Problem, count: int = 3) -> list[tuple[float, torch.Tensor]]:
    """Times and states a few per cent off the trajectory; components that are 0 become small."""
    t, y = _solved(problem.name)
    random = np.random.default_rng(sum(map(ord, problem.name)))
    found = []
    for k in random.choice(len(t), count, replace=len(t) < count):
        floor = 1e-3 * np.abs(y).max(0).clip(1e-6 * np.abs(y).max())
        factor = 1 + 0.05 * random.uniform(-1, 1, problem.dimension)
        found.append(
            (float(t[k]), torch.from_numpy(y[k] * factor + floor * random.uniform(0.5, 1)))
        )
    return found


def rounding(problem: Problem, t: float, y: torch.Tensor) -> torch.Tensor:
    """What rounding may do to f at (t, y), component by component: (d,)."""
    f = problem.f(torch.tensor(t, dtype=torch.float64), y)
    terms = problem.jacobian(t, y).abs() @ y.abs() + f.abs() + f.abs().max()
    return 1e-14 * terms


@pytest.mark.parametrize("name", NAMES)
def test_torch_numpy_and_mpmath_agree(name: str) -> None:
    problem = _MADE[name]
    for t, y in states(problem):
        here = problem.f(torch.tensor(t, dtype=torch.float64), y)
        bound = rounding(problem, t, y)
        with mp.workdps(30):
            exact = problem.rhs(mpf(t), [mpf(v) for v in y.tolist()], mp)
            there = vector(*(float(v) for v in exact))
        assert here.shape == (problem.dimension,)
        assert ((here - torch.from_numpy(problem.f_numpy(t, y.numpy()))).abs() <= bound).all()
        assert ((here - there).abs() <= bound).all()
        assert here.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_many_states_at_once_equal_one_by_one(name: str) -> None:
    problem = _MADE[name]
    points = states(problem)
    times = torch.tensor([t for t, _ in points], dtype=torch.float64)
    batch = torch.stack([y for _, y in points])
    alone = torch.stack([problem.f(t, y) for t, y in zip(times, batch, strict=True)])
    bounds = torch.stack([rounding(problem, t, y) for t, y in points])
    for when in (times, times[:, None]):
        assert ((problem.f(when, batch) - alone).abs() <= bounds).all()
    nodes = problem.f(times[:, None], torch.stack((batch, batch), 1))
    assert ((nodes - alone[:, None]).abs() <= bounds[:, None]).all()
    one_time = problem.f(times[0], batch)
    expected = torch.stack([problem.f(times[0], y) for y in batch])
    assert ((one_time - expected).abs() <= bounds + 1e-13 * expected.abs().max()).all()


@pytest.mark.parametrize("name", NAMES)
def test_jacobian_is_the_derivative(name: str) -> None:
    problem = _MADE[name]
    t, y = states(problem, 1)[0]
    jacobian = problem.jacobian(t, y)
    with mp.workdps(40):
        centre = [mpf(v) for v in y.tolist()]
        for k in range(problem.dimension):
            h = centre[k] * mpf(10) ** -12
            sides = []
            for sign in (1, -1):
                moved = [*centre[:k], centre[k] + sign * h, *centre[k + 1 :]]
                sides.append(problem.rhs(mpf(t), moved, mp))
            slope = vector(*(float((a - b) / (2 * h)) for a, b in zip(*sides, strict=True)))
            # rounding of one entry: of the terms it is a sum of, no larger than those of its row
            scale = jacobian.abs().amax(1) + jacobian[:, k].abs()
            assert ((jacobian[:, k] - slope).abs() <= 1e-12 * scale).all()


def _check_exact(problem: Problem) -> None:
    assert problem.exact is not None
    start, end = problem.span
    with mp.workdps(50):
        for rounded, true in zip(problem.y0.tolist(), problem.exact(mpf(start)), strict=True):
            assert abs(true - rounded) <= mpf(2) ** -53 * abs(true) + mpf(10) ** -45
        h = mpf(10) ** -14
        for part in (0.07, 0.51, 0.93):
            t = mpf(start + part * (end - start))
            before, here, after = (problem.exact(s) for s in (t - h, t, t + h))
            f = problem.rhs(t, here, mp)
            size = max(map(abs, f))
            for a, b, v in zip(before, after, f, strict=True):
                assert abs((b - a) / (2 * h) - v) < mpf(10) ** -24 * (1 + size) ** 3
    assert problem.end is not None
    assert torch.equal(problem.end, problem.solution(end))


@pytest.mark.parametrize("name", EXACT)
def test_exact_solutions_solve_the_equation(name: str) -> None:
    _check_exact(_MADE[name])


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_exact_solutions_for_other_parameters(name: str, parameters: dict[str, float]) -> None:
    problem = get_problem(name, **parameters)
    assert dict(problem.parameters) == parameters
    _check_exact(problem)


@pytest.mark.parametrize(("name", "conserved"), CONSERVED)
def test_invariants_do_not_change(name: str, conserved: str) -> None:
    problem = _MADE[name]
    q = problem.invariants[conserved]
    for t, y in states(problem):
        gradient = torch.autograd.functional.jacobian(lambda u: q(u.unbind(), torch), y)
        f = problem.f(torch.tensor(t, dtype=torch.float64), y)
        assert gradient.abs().max() > 0
        assert abs(float(gradient @ f)) <= float(gradient.abs() @ rounding(problem, t, y))
    if problem.exact is not None:
        with mp.workdps(30):
            values = [q(problem.exact(mpf(t)), mp) for t in (0.3, 7.1, 19.9)]
            assert max(values) - min(values) < mpf(10) ** -27 * (1 + abs(values[0]))


@pytest.mark.parametrize("name", NAMES)
def test_end_digits_by_an_unrelated_solver(name: str) -> None:
    problem = _MADE[name]
    assert problem.end is not None
    how, rtol, bound = ("Radau", 1e-7, 1e-4) if problem.stiff else ("DOP853", 1e-11, 1e-8)
    atol = 1e-3 * rtol * float(problem.end.abs().max())
    if name.startswith("arenstorf"):  # errors grow by 1e5 along the orbit
        bound = 1e-6
    with np.errstate(all="ignore"):
        solved = solve_ivp(
            problem.f_numpy, problem.span, problem.y0.numpy(), how, rtol=rtol, atol=atol
        )
    assert solved.success, solved.message
    error = torch.from_numpy(solved.y[:, -1]) - problem.end
    assert error.abs().max() <= bound * problem.end.abs().max()


PUBLISHED = {
    "robertson": ((0.7158270687193941, 9.185534764557318e-6, 0.2841637457458413), 1e-13),
    "hires": (
        (
            *(0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4),
            *(0.1175651343283149e-2, 0.2386356198831331e-2, 0.6238968252742796e-2),
            *(0.2849998395185769e-2, 0.2850001604814231e-2),
        ),
        3e-13,
    ),
    "oregonator": ((1.000814870318523, 1228.178521549917, 132.0554942846706), 1e-13),
    "van-der-pol-stiff": ((1.706167732170469, -0.8928097010248125e-3), 1e-14),
    "pleiades": (
        (
            *(0.3706139143970502, 3.237284092057233, -3.222559032418324, 0.6597091455775310),
            *(0.3425581707156584, 1.562172101400631, -0.7003092922212495),
        ),
        1e-14,
    ),
    "pollution": (
        (0.5646255480022769e-1, 0.1342484130422339, 0.4139734331099427e-8, 0.5523140207484359e-2),
        1e-15,
    ),
    "euler-body": ((-0.939657079872920396, -0.342117775400074906, 0.741412659619995300), 1e-15),
    "lotka-volterra": ((1.02634476757508931914, 0.909691078136041617548), 1e-15),
    "van-der-pol": ((2.00814976217494859201, -0.0425088752732021469859), 1e-15),
    "kepler": (
        (-0.770075578411240449, 0.788344816994424389, -0.894183731988691497, -0.123461764158440958),
        3e-14,
    ),
}
"""End states as published, and how far the rounding of constants and y0 moves ours from them."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_end_digits_as_published(name: str) -> None:
    published, bound = PUBLISHED[name]
    end = _MADE[name].end
    assert end is not None
    difference = (vector(*published) - end[: len(published)]).abs().max()
    assert difference <= bound * end.abs().max()


def test_robertson_as_published_at_the_far_end() -> None:
    end = get_problem("robertson", end=1e11).end
    assert end is not None
    published = vector(0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050)
    assert ((published - end).abs() <= 3e-14 * end).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if n != "detest-c4"])
def test_end_digits_in_extended_precision(name: str) -> None:
    _check_end(_MADE[name], stages=14 if _MADE[name].dimension < 50 else 12)


@pytest.mark.slow
def test_end_digits_in_extended_precision_of_the_far_end() -> None:
    _check_end(get_problem("robertson", end=1e11), stages=14)


def _check_end(problem: Problem, stages: int) -> None:
    # fewer stages and shorter steps than the solve that the stored digits come from
    tail = 1e-19 if problem.stiff else 1e-12
    reached = radau_solution(problem, [problem.span[1]], digits=20, stages=stages, tail=tail)[0]
    with mp.workdps(30):
        assert problem.end is not None
        size = max(map(abs, reached))
        worst = max(abs(a - b) for a, b in zip(reached, problem.end.tolist(), strict=True))
        assert worst <= problem.end_error * size
        # float64 digits of the largest component are the nearest there are, or next to them
        assert problem.end_error <= 1e-15


@pytest.mark.parametrize("name", ["arenstorf", "arenstorf-short"])
def test_arenstorf_orbits_close(name: str) -> None:
    problem = _MADE[name]
    assert problem.end is not None
    gap = float((problem.end - problem.y0).abs().max())
    # float64's rounding of the initial state, grown along the orbit, keeps it from closing
    assert 1e-12 < gap < 1e-9


def stability_steps(problem: Problem) -> tuple[float, int]:
    """Steps that stability asks of an explicit method, and steps an implicit one takes at 1e-4.

    The real stability interval of an explicit method of order 5 is about 3.3.
    """
    t, y = _solved(problem.name) if problem is _MADE[problem.name] else trajectory(problem)
    middle = range(0, len(t) - 1, max(1, len(t) // 25))
    edges = [*middle, len(t) - 1]
    total = 0.0
    for a, b in pairwise(edges):
        k = (a + b + 1) // 2
        matrix = problem.jacobian(float(t[k]), torch.from_numpy(y[k])).numpy()
        total += max(0.0, -np.linalg.eigvals(matrix).real.min()) * (t[b] - t[a])
    return total / 3.3, len(t) - 1


@pytest.mark.parametrize("name", NAMES)
def test_stiff_flags_are_honest(name: str) -> None:
    problem = _MADE[name]
    explicit, implicit = stability_steps(problem)
    assert problem.stiff == (explicit > 10 * implicit)
    assert ("stiff" in problem.sets) == problem.stiff
    assert ("nonstiff" in problem.sets) != problem.stiff


@pytest.mark.parametrize(
    ("name", "parameters", "stiff"),
    [
        ("van-der-pol", {"mu": 10.0}, False),
        ("van-der-pol", {"mu": 50.0}, True),
        ("prothero-robinson", {"lam": -10.0}, False),
        ("prothero-robinson", {"lam": -100.0}, True),
        ("brusselator", {"points": 10}, False),
        ("brusselator", {"points": 60}, True),
    ],
)
def test_stiff_flags_follow_the_parameters(
    name: str, parameters: dict[str, float], stiff: bool
) -> None:
    problem = get_problem(name, **parameters)
    explicit, implicit = stability_steps(problem)
    assert problem.stiff == stiff == (explicit > 10 * implicit)
    assert ("stiff" in problem.sets) == stiff


@pytest.mark.parametrize("points", [2, 7, 40])
def test_brusselator_on_whole_arrays(points: int) -> None:
    problem = get_problem("brusselator", points=points)
    by_component = dataclasses.replace(problem, vector=None)
    y = problem.y0 + torch.rand(2, 3, 2 * points, generator=torch.manual_seed(0)).double()
    t = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(problem.f(t, y), by_component.f(t, y), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(
        problem.f_numpy(0.5, y[0, 0].numpy()),
        by_component.f_numpy(0.5, y[0, 0].numpy()),
        rtol=1e-13,
        atol=1e-13,
    )


@pytest.mark.parametrize("name", [n for n, p in _MADE.items() if p.event is not None])
def test_events_are_where_they_are_said_to_be(name: str) -> None:
    problem = _MADE[name]
    event = problem.event
    assert event is not None and problem.exact is not None
    with mp.workdps(40):

        def g(t: float | mpf) -> mpf:
            assert problem.exact is not None and event is not None
            return event.g(mpf(t), problem.exact(mpf(t)), mp)

        slope = (g(mpf(event.time) + mpf("1e-12")) - g(mpf(event.time) - mpf("1e-12"))) / mpf(
            "2e-12"
        )
        assert abs(g(event.time) / slope) <= math.ulp(event.time)
        values = [g(t) for t in np.linspace(event.after, event.before, 41)]
        signs = [v > 0 for v in values]
        assert sum(a != b for a, b in pairwise(signs)) == 1


# -- manufactured ------------------------------------------------------------------------------


def test_manufactured_problems_are_reproducible() -> None:
    one, again = get_problem("manufactured", seed=7), get_problem("manufactured", seed=7)
    other = get_problem("manufactured", seed=8)
    assert one.statement == again.statement and one.statement != other.statement
    # pinned: the same on every machine and Python
    assert _MADE["manufactured"].y0.tolist() == [0.125, -0.125]
    assert torch.equal(_MADE["manufactured"].end, vector(-1.4282663717787587, 1.299234933864429))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dimension", [1, 3])
def test_manufactured_problems_have_no_dead_terms(seed: int, dimension: int) -> None:
    """First to third derivatives in u, and mixed ones with t, vanish for no component."""
    problem = get_problem("manufactured", seed=seed, dimension=dimension)
    t = torch.tensor(0.7, dtype=torch.float64)
    y = problem.solution(0.7)
    jac = torch.func.jacfwd
    first = jac(problem.f, 1)
    for derivative in (first, jac(first, 1), jac(jac(first, 1), 1), jac(first, 0), jac(problem.f)):
        value = derivative(t, y).reshape(dimension, -1)
        assert (value.abs().amax(1) > 1e-3).all()
    if dimension > 1:  # coupled: every component feels another
        off = first(t, y) * (1 - torch.eye(dimension, dtype=torch.float64))
        assert (off.abs().amax(1) > 1e-3).all()
    path = torch.stack([problem.solution(s) for s in np.linspace(0, 2, 9)])
    assert path.abs().max() < 4


@pytest.mark.parametrize("seed", range(6))
def test_manufactured_problems_forgive_rounding(seed: int) -> None:
    """Growth of a small difference over the whole span stays moderate."""
    problem = get_problem("manufactured", seed=seed, dimension=3)
    ends = []
    for change in (0.0, 1e-6):
        start = problem.y0.numpy() + change
        solved = solve_ivp(problem.f_numpy, problem.span, start, "DOP853", rtol=1e-10, atol=1e-12)
        assert solved.success
        ends.append(solved.y[:, -1])
    assert np.abs(ends[1] - ends[0]).max() < 1e-6 * 200


# -- registry ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "error", "message"),
    [
        ("kepler", {"eccentricity": 1.0}, ValueError, r"eccentricity must be .*below 1.*got 1\.0"),
        ("kepler", {"eccentricity": -0.1}, ValueError, "eccentricity must be .*at least 0"),
        ("kepler", {"eccentricity": "half"}, TypeError, "eccentricity must be a real number"),
        ("kepler", {"eccentricity": math.nan}, ValueError, "finite"),
        ("euler-body", {"m": 1}, ValueError, "m must be"),
        ("van-der-pol", {"mu": -1.0}, ValueError, "mu must be .*at least 0"),
        ("prothero-robinson", {"lam": 0.0}, ValueError, "lam must be .*below 0"),
        ("robertson", {"end": 0}, ValueError, "end must be .*above 0"),
        ("e5", {"end": math.inf}, ValueError, "end must be finite"),
        ("brusselator", {"points": 1}, ValueError, "points must be from 2 to"),
        ("brusselator", {"points": 4.0}, TypeError, "points must be an int"),
        ("manufactured", {"dimension": 0}, ValueError, "dimension must be from 1"),
        ("manufactured", {"seed": True}, TypeError, "seed must be an int"),
        ("manufactured", {"seeds": 1}, ValueError, "no parameter 'seeds': did you mean 'seed'"),
        ("lorenz", {"rho": 1}, ValueError, "no parameter 'rho': it has none"),
        ("lorentz", {}, ValueError, "problem='lorentz' is unknown: did you mean 'lorenz'"),
    ],
)
def test_bad_names_and_parameters_are_refused(
    name: str, parameters: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        get_problem(name, **parameters)


def test_sets() -> None:
    assert len(problems("detest")) == 25
    assert set(problems("stiff")) | set(problems("nonstiff")) == set(NAMES)
    assert set(problems("manufactured")) == {"manufactured"}
    assert "lorenz" in problems("chaotic") and "pleiades" in problems("mechanics")
    assert {"robertson", "hires", "pollution"} <= set(problems("chemistry"))
    with pytest.raises(ValueError, match="set='stif' is unknown: did you mean 'stiff'"):
        problems("stif")


def test_a_problem_of_ones_own_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = importlib.import_module("quadflow.analysis.problems.problem")
    monkeypatch.setattr(registry, "_PROBLEMS", dict(registry._PROBLEMS))

    @register_problem("circle")
    def circle(rate: float = 1.0) -> Problem:
        return Problem(
            "circle",
            "x' = -rate y, y' = rate x",
            "school",
            lambda t, y, m: (-rate * y[1], rate * y[0]),
            vector(1.0, 0.0),
            (0.0, 1.0),
            exact=lambda t: (mp.cos(rate * t), mp.sin(rate * t)),
            parameters={"rate": rate},
            sets=("school",),
        )

    assert set(problems("school")) == {"circle"}
    made = get_problem("circle", rate=2.0)
    assert torch.allclose(made.end, vector(math.cos(2), math.sin(2)), rtol=0, atol=1e-15)
    assert "circle" in problem_table() and "rate=2.0" in describe("circle", rate=2.0)
    with pytest.raises(ValueError, match="'circle' is registered already"):
        register_problem("circle")(circle)


def test_table_and_descriptions() -> None:
    lines = problem_table().splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(NAMES)
    assert lines[0].split() == ["name", "d", "span", "stiff", "exact", "error", "sets"]
    only = problem_table(["hires"]).splitlines()
    assert len(only) == 2 and only[1].split()[:2] == ["hires", "8"] and "stiff" in only[1]
    for name, problem in _MADE.items():
        text = " ".join(describe(name).split())
        assert problem.source in text
        for conserved in problem.invariants:
            assert conserved in text
        for key in problem.parameters:
            assert f"{key}=" in text
        assert repr(problem.end.tolist()[0]) in text
    with pytest.raises(ValueError, match="did you mean 'hires'"):
        problem_table(["hirse"])


def test_problems_with_parameters_on_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse_problem("kepler:eccentricity=0.9").parameters["eccentricity"] == 0.9
    assert parse_problem("manufactured:seed=3:dimension=1").dimension == 1
    assert parse_problem("driven").name == "driven"
    for text, why in (
        ("kepler:eccentricity=high", "'eccentricity=high' must be KEY=NUMBER"),
        ("kepler:eccentricty=0.5", "kepler has no parameter 'eccentricty': did you mean"),
        ("keppler", "problem='keppler' is unknown: did you mean 'kepler'"),
    ):
        with pytest.raises(ValueError, match=why):
            parse_problem(text)
    assert main(["problems", "kepler:eccentricity=0.9"]) == 0
    assert "0.9" in capsys.readouterr().out
    assert main(["problems", "--set", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
