"""Orders of every method on nonlinear, non-autonomous problems, with bounds on both sides."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manufactured import Manufactured
from mp_sweeps import error_mp, solve_mp
from orders import measured, slope, uniform

import quadflow as qf
from quadflow.rules.quadrature import FAMILIES
from quadflow.rules.rule import QuadratureRule

# Strong coupling: errors of sweeps and of multistep formulas lead. Fast and weakly coupled: errors
# of the quadrature lead. The order is the same; which term feasible steps show is not.
COUPLED = Manufactured()
FAST = Manufactured(0.25, 0.25, 0.25, rate=3.0)
MIDDLE = Manufactured(0.6, 0.6, 0.6, rate=2.0)

# numbers of steps at which an error of order p is asymptotic and above rounding
STEPS_COUPLED = {
    1: (64, 128, 256), 2: (32, 64, 128), 3: (16, 32, 64), 4: (12, 24, 48), 5: (8, 16, 32),
    6: (8, 12, 18), 7: (6, 9, 13),
}  # fmt: skip
STEPS_FAST = STEPS_COUPLED | {4: (24, 48, 96), 5: (24, 36, 54), 6: (20, 30, 45), 7: (16, 24, 36)}
HIGHEST_IN_FLOAT64 = 7


def rule_of(family: str, n: int) -> QuadratureRule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", qf.NegativeWeightsWarning)
        return FAMILIES[family].function(n)


def smooth_grid(span: float, n: int) -> np.ndarray:
    """Steps that vary smoothly by a factor of three."""
    widths = 1 + 0.5 * np.sin(1 + 6 * np.pi * np.arange(n) / n)
    points = np.concatenate(([0.0], np.cumsum(widths))) * span / widths.sum()
    points[-1] = span
    return points


def random_grid(seed: int):
    """Steps drawn independently within a factor of 2.3 of each other."""

    def grid(span: float, n: int) -> np.ndarray:
        widths = np.random.default_rng(seed).uniform(0.6, 1.4, n)
        points = np.concatenate(([0.0], np.cumsum(widths))) * span / widths.sum()
        points[-1] = span
        return points

    return grid


@pytest.mark.parametrize(
    ("family", "n"),
    [(f, n) for f, info in FAMILIES.items() for n in range(max(2, info.minimum), 7)],
)
def test_sweeps_from_a_constant_guess(family: str, n: int) -> None:
    """Global order min(K+1, d+1) for K = 0 ... d+1 and 2n: more sweeps than the rule is worth add
    nothing; d = n for odd n where symmetry adds one."""
    rule = rule_of(family, n)
    d = rule.degree
    for sweeps in sorted({*range(min(d + 2, 2 * n)), 2 * n}):
        p = min(sweeps + 1, d + 1)
        method = qf.collocation(rule, sweeps)
        assert method.order == p
        problem, steps = (COUPLED, STEPS_COUPLED) if sweeps < d else (FAST, STEPS_FAST)
        if p <= HIGHEST_IN_FLOAT64:
            got = measured(method, problem, steps[p])
        else:
            # in float64 such an order has no room between long steps and rounding: measure it in
            # 40 digits, and tie the solver to that computation to its last digits
            counts = (6, 12, 24) if sweeps < d else (16, 24, 36)
            errors = [
                error_mp(problem, family, n, sweeps, uniform(problem.span, m)) for m in counts
            ]
            got = slope([1 / m for m in counts], errors, floor=1e-35)
            assert_equal_to_mp(method, problem, family, n, uniform(problem.span, 5))
        assert p - 0.3 < got < p + 0.4, f"{family}, n={n}, K={sweeps}: {got:.2f}, promised {p}"


def assert_equal_to_mp(
    method: qf.SweepsMethod, problem: Manufactured, family: str, n: int, grid: np.ndarray
) -> None:
    """The solver's float64 result is that of the 40-digit reference."""
    assert method.order is not None
    first = method.order - 1 if method.guess == "extrapolated" else None
    expected = solve_mp(problem, family, n, method.sweeps, grid, first)
    solution = qf.solve(
        problem.f, problem.solution(0.0), (0.0, problem.span), method=method, grid=grid
    )
    for got, want in zip(solution.y[-1].tolist(), expected, strict=True):
        assert abs(got - want) < 5e-14 * max(1, abs(want))


@pytest.mark.parametrize("family", ["gauss-legendre", "gauss-lobatto", "radau-right", "radau-left",
                                    "clenshaw-curtis"])  # fmt: skip
@pytest.mark.parametrize("n", [2, 3, 4, pytest.param(5, marks=pytest.mark.slow)])
def test_sweeps_from_an_extrapolated_guess(family: str, n: int) -> None:
    """Global order min(K+n, d+1), on uniform and on varying steps."""
    rule = rule_of(family, n)
    for sweeps in range(1, n + 2):
        p = min(sweeps + n, rule.degree + 1)
        method = qf.collocation(rule, sweeps, guess="extrapolated")
        assert method.order == p
        assert method.dense_order == min(p, n + 1)
        saturated = sweeps + n > rule.degree
        problem = FAST if saturated else COUPLED
        for grid in (uniform, smooth_grid):
            where = f"K={sweeps}, {grid.__name__}"
            if p <= 5:
                # the start guess spoils long steps: these are finer than for a constant guess
                got = measured(
                    method, problem, (64, 128, 256) if p < 4 else (40, 60, 90), grid=grid
                )
            else:
                counts = (32, 64, 128) if n < 5 else (128, 256, 512)
                errors = [
                    error_mp(problem, family, n, sweeps, grid(problem.span, m), max(p - 1, sweeps))
                    for m in counts
                ]
                got = slope([1 / m for m in counts], errors, floor=1e-35)
                # short steps: on long ones extrapolation amplifies rounding from step to step
                assert_equal_to_mp(method, problem, family, n, grid(problem.span, 64))
            assert p - 0.5 < got < p + 0.6, f"{where}: {got:.2f}, not {p}"


@pytest.mark.parametrize("name, family, n, counts", [
    ("gauss4", "gauss-legendre", 4, (24, 48, 96)),
    ("gauss6", "gauss-legendre", 6, (24, 48, 96)),
    ("gauss8", "gauss-legendre", 8, (24, 48)),
    ("lobatto5", "gauss-lobatto", 5, (24, 48, 96)),
    ("lobatto6", "gauss-lobatto", 6, (24, 48, 96)),
    ("radau5", "radau-right", 5, (24, 48, 96)),
])  # fmt: skip
def test_registered_collocation_of_high_order(
    name: str, family: str, n: int, counts: tuple[int, ...]
) -> None:
    """The extrapolated guess at orders that float64 cannot show: in 40 digits, tied to solve."""
    method = qf.methods()[name]
    assert isinstance(method, qf.SweepsMethod) and method.order is not None
    first = method.order - 1
    errors = [error_mp(COUPLED, family, n, method.sweeps, uniform(1.5, m), first) for m in counts]
    steepest = np.log(errors[-2] / errors[-1]) / np.log(counts[-1] / counts[-2])
    assert method.order - 0.5 < steepest < method.order + 0.7, steepest
    assert_equal_to_mp(method, COUPLED, family, n, uniform(1.5, 12))


MULTISTEP = [(k, c) for k in (1, 2, 3, 4) for c in (None, "PEC", "PECE")]


@pytest.mark.parametrize(("k", "correction"), MULTISTEP)
def test_adams_on_uniform_grids(k: int, correction: str | None) -> None:
    """Order k predicted, k+1 corrected (PEC with one evaluation an interval as well as PECE)."""
    method = qf.adams(k, correction)
    p = k + (correction is not None)
    assert (method.order, method.dense_order) == (p, p)
    steps = {1: (64, 128, 256), 5: (24, 48, 96)}.get(p, (32, 64, 128))
    assert p - 0.3 < measured(method, COUPLED, steps) < p + 0.4
    assert p - 0.4 < measured(method, COUPLED, steps, between=True) < p + 0.5


@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**20))
@pytest.mark.parametrize(("k", "correction"), MULTISTEP)
def test_adams_on_random_grids(k: int, correction: str | None, seed: int) -> None:
    """The orders do not need equal steps: the interpolant knows where its anchors are."""
    p = k + (correction is not None)
    steps = (48, 96, 192) if p == 5 else (64, 128, 256)
    got = measured(qf.adams(k, correction), COUPLED, steps, grid=random_grid(seed), gate=0.5)
    assert p - 0.6 < got < p + 0.7


@pytest.mark.parametrize(("k", "correction"), [(3, None), (4, None), (3, "PEC"), (4, "PECE")])
def test_rising_start_limits_the_order(k: int, correction: str | None) -> None:
    """Starting with fewer anchors costs what the declared order says: at most 2, corrected 3."""
    method = qf.adams(k, correction, startup="rising")
    p = 2 if correction is None else 3
    assert method.order == p
    assert p - 0.4 < measured(method, COUPLED, (64, 128, 256)) < p + 0.7


@pytest.mark.parametrize("n", [1, 2])
def test_a_rule_of_low_degree_limits_adams(n: int) -> None:
    """Newton-Cotes open with n = 1, 2 (degree 1) under four anchors: order d+1 = 2."""
    method = qf.adams(4, rule=rule_of("newton-cotes-open", n))
    assert method.order == 2
    assert 1.7 < measured(method, COUPLED, (32, 64, 128)) < 2.3


TABLEAUS = {
    "midpoint": (COUPLED, (32, 64, 128), COUPLED, (32, 64, 128)),
    "heun": (COUPLED, (32, 64, 128), COUPLED, (32, 64, 128)),
    "rk4": (COUPLED, (32, 64, 128), COUPLED, (32, 64, 128)),
    "dopri5": (FAST, (24, 48, 96), FAST, (24, 48, 96)),
    "tsit5": (FAST, (24, 48, 96), FAST, (24, 48, 96)),
    "dopri8": (MIDDLE, (8, 12, 18), FAST, (18, 27, 40)),
}


@pytest.mark.parametrize("name", TABLEAUS)
def test_tableaus(name: str) -> None:
    """Endpoint and dense output have their declared orders."""
    method = qf.methods()[name]
    assert method.order is not None and method.dense_order is not None
    problem, steps, dense_problem, dense_steps = TABLEAUS[name]
    got = measured(method, problem, steps)
    assert method.order - 0.4 < got < method.order + 0.5
    between = measured(method, dense_problem, dense_steps, between=True)
    assert method.dense_order - 0.4 < between < method.dense_order + 0.5


@pytest.mark.parametrize("name", ["gauss2", "gauss3", "gauss4", "lobatto3", "lobatto4", "lobatto5",
                                  "radau2", "radau3", "radau5"])  # fmt: skip
def test_dense_output_of_collocation(name: str) -> None:
    method = qf.methods()[name]
    assert method.dense_order is not None
    steps = {3: (32, 64, 128), 4: (32, 64, 128), 5: (24, 48, 96), 6: (18, 27, 40)}
    got = measured(method, FAST, steps[method.dense_order], between=True)
    assert method.dense_order - 0.35 < got < method.dense_order + 0.45


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    a=st.floats(0.5, 1.5),
    b=st.floats(0.5, 1.5),
    c=st.floats(0.5, 1.5),
    family=st.sampled_from(sorted(FAMILIES)),
    n=st.integers(2, 6),
    sweeps=st.integers(0, 3),
)
def test_sweeps_on_random_problems(
    a: float, b: float, c: float, family: str, n: int, sweeps: int
) -> None:
    """No problem of the family has a lower order than min(K+1, d+1)."""
    problem = Manufactured(a, b, c)
    rule = rule_of(family, n)
    p = min(sweeps + 1, rule.degree + 1)
    assert measured(qf.collocation(rule, sweeps), problem, STEPS_COUPLED[p], gate=0.6) > p - 0.5


@pytest.mark.parametrize(
    ("family", "n"),
    [("gauss-lobatto", n) for n in (2, 3, 4, 5)]
    + [("gauss-legendre", n) for n in (1, 2, 3)]
    + [("radau-right", n) for n in (2, 3)]
    + [("clenshaw-curtis", 4), ("newton-cotes-closed", 5)],
)
def test_oracle_interpolant_shows_the_rule_alone(family: str, n: int) -> None:
    """With exact node velocities one step has the local error O(h^(d+2)) of the pure quadrature.

    For Gauss-Lobatto that is 2n-1: local order 7 for four points. The method solved without an
    oracle has global order 6; nothing here is a seventh-order solver.
    """
    rule = rule_of(family, n)
    oracle = qf.anchors(qf.OracleInterpolant(FAST.velocity), rule)
    sizes = (0.2, 0.14, 0.1) if rule.degree < 7 else (0.25, 0.18, 0.13)
    # over many starts, so that the leading term is not at a zero of its derivative
    starts = np.linspace(0.1, 1.4, 14).tolist()
    errors = []
    for h in sizes:
        squares = 0.0
        for t0 in starts:
            solution = qf.solve(
                FAST.f, FAST.solution(t0), (t0, t0 + h), method=oracle, grid=[t0, t0 + h]
            )
            squares += float((solution.y[-1] - FAST.solution(t0 + h)).square().sum())
        errors.append((squares / len(starts)) ** 0.5)
    local = slope(sizes, errors)
    assert rule.degree + 2 - 0.35 < local < rule.degree + 2 + 0.35
    if (family, n) == ("gauss-lobatto", 4):
        assert rule.degree + 2 == 7


def test_untrained_pec_of_one_anchor_is_adams_bashforth_2() -> None:
    """PEC with the constant interpolant and reused end anchors is AB2 in its predicted states."""
    grid = uniform(1.5, 24)
    pec = qf.adams(1, "PEC", forward_last=True)
    ab2 = qf.adams(2, startup="rising")
    ends = [
        qf.solve(COUPLED.f, COUPLED.solution(0.0), (0.0, 1.5), method=m, grid=grid).y[-1]
        for m in (pec, ab2)
    ]
    assert float((ends[0] - ends[1]).abs().max()) < 1e-14
