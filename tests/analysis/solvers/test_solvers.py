"""Anybody's solver behind one interface: orders, counts, and grids that were really used."""

from __future__ import annotations

import dataclasses
import math
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

import quadflow as qf
from quadflow.analysis import get_problem
from quadflow.analysis.solvers.solver import (
    Solver,
    as_solver,
    callable_solver,
    quadflow_solver,
    scipy_solver,
    torchdiffeq_solver,
)
from quadflow.extras import MissingExtraError

DRIVEN = get_problem("driven")
UNEVEN = np.sort(np.append(np.linspace(0, 3, 31), [0.05, 0.33, 1.27, 2.96]))


def error(run, problem=DRIVEN) -> float:
    assert run.failure is None, run.failure
    return float((run.end - problem.solution(problem.span[1])).abs().max())


def midpoint(rhs, y0, grid):
    y = y0.numpy().copy()
    for t, t1 in pairwise(grid):
        h = t1 - t
        y = y + h * rhs(t + h / 2, y + h / 2 * rhs(t, y))
    return y


FIXED = {
    "rk4": (4, 4),
    "pec3": (4, None),
    "lobatto4": (6, None),
    "scipy:RK23": (3, 3),
    "scipy:RK45": (5, 6),
    "scipy:DOP853": (8, None),
    "scipy:Radau": (5, None),
    "torchdiffeq:euler": (1, 1),
    "torchdiffeq:midpoint": (2, 2),
    "torchdiffeq:rk4": (4, 4),
    "torchdiffeq:bosh3": (3, 3),
    "torchdiffeq:dopri5": (5, 6),
    "torchdiffeq:dopri8": (8, None),
}
"""Name -> declared order, evaluations a step where they are a fixed number (first same as last
taken off; one more in all, for the first)."""


@pytest.mark.parametrize("name", FIXED)
def test_fixed_steps_have_the_declared_order(name: str) -> None:
    solver, (order, stages) = as_solver(name), FIXED[name]
    assert solver.order == order and solver.fixed is not None
    sizes = (16, 24) if order >= 6 else (24, 48) if "Radau" in name else (64, 128)
    runs = [solver.fixed(DRIVEN, np.linspace(0, 3, n + 1)) for n in sizes]
    slope = math.log(error(runs[0]) / error(runs[1])) / math.log(sizes[1] / sizes[0])
    # fifth-order pairs have an unusually small leading error on this problem
    assert order - 0.45 < slope < order + (0.75 if order == 5 else 0.45)
    assert runs[0].steps == pytest.approx(np.linspace(0, 3, sizes[0] + 1), rel=1e-15, abs=1e-15)
    if stages is not None:
        extra = 1 if solver.name.startswith("scipy") or stages in (3, 6) else 0
        assert runs[0].nfe == runs[0].calls == stages * sizes[0] + extra


@pytest.mark.parametrize("name", ["rk4", "scipy:RK45", "torchdiffeq:rk4", "torchdiffeq:dopri5"])
def test_uneven_grids_and_dense_output(name: str) -> None:
    solver = as_solver(name)
    run = solver.fixed(DRIVEN, UNEVEN)
    assert error(run) < 3e-4
    assert np.abs(np.array(run.steps) - UNEVEN).max() < 1e-14
    for t in (0.0, 0.04, 1.3, 2.99, 3.0):
        # torchdiffeq's fixed-step solvers interpolate linearly
        assert float((run.dense(t) - DRIVEN.solution(t)).abs().max()) < 5e-3
    pair = run.dense.many(np.array([2.5, 0.7]))
    assert torch.equal(pair[1], run.dense(0.7))


def test_rk4_of_torchdiffeq_is_the_three_eighths_rule_and_scipy_agrees_with_dopri5() -> None:
    """Two implementations of one tableau on one grid agree to rounding: the grid was used."""
    ends = [as_solver(n).fixed(DRIVEN, UNEVEN).end
            for n in ("dopri5", "scipy:RK45", "torchdiffeq:dopri5")]  # fmt: skip
    assert float((ends[0] - ends[1]).abs().max()) < 1e-14
    assert float((ends[0] - ends[2]).abs().max()) < 1e-14
    scipy8, ours8 = (as_solver(n).fixed(DRIVEN, UNEVEN).end for n in ("scipy:DOP853", "dopri8"))
    # its coefficients reach 43, and rows of them add up to 96: sums alone round by 2^-51 times that
    assert float((scipy8 - ours8).abs().max()) < 2**-51 * 96


@pytest.mark.parametrize("name", ["dopri5", "scipy:RK45", "torchdiffeq:dopri5"])
def test_backwards_in_time(name: str) -> None:
    back = dataclasses.replace(DRIVEN, y0=DRIVEN.end, span=(3.0, 0.0), end=DRIVEN.y0)
    run = as_solver(name).fixed(back, np.linspace(3, 0, 121))
    assert run.failure is None
    assert float((run.end - DRIVEN.y0).abs().max()) < 1e-6


@pytest.mark.parametrize("name", ["dopri5", "gauss4", "scipy:RK45", "scipy:BDF", "scipy:LSODA",
                                  "torchdiffeq:dopri5"])  # fmt: skip
def test_adaptive(name: str) -> None:
    loose, tight = (as_solver(name).adaptive(DRIVEN, tol, tol) for tol in (1e-4, 1e-8))
    assert error(tight) < 1e-5 and error(tight) < error(loose)
    assert tight.nfe > loose.nfe and len(tight.steps) > len(loose.steps)
    assert tight.steps[0] == 0 and tight.steps[-1] == 3
    assert float((tight.dense(1.234) - DRIVEN.solution(1.234)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["dopri5", "gauss", "adams"])
def test_quadflow_gives_its_estimates_with_every_step(name: str) -> None:
    run = as_solver(name).adaptive(DRIVEN, 1e-6, 1e-6)
    assert len(run.estimates) == len(run.steps) - 1
    # each was accepted: its RMS over the scale is at most 1, and the scale at most 2.1e-6
    assert 1e-8 < max(run.estimates) < 2.1e-6 * math.sqrt(2)


def test_what_cannot_be_had_is_none() -> None:
    assert as_solver("rk4").adaptive is None
    assert as_solver("scipy:BDF").fixed is None
    assert as_solver("torchdiffeq:rk4").adaptive is None


def test_a_method_object_and_a_solver_pass_through() -> None:
    method = qf.adams(3)
    solver = as_solver(method)
    assert isinstance(solver, Solver) and solver.method is method and as_solver(solver) is solver
    assert quadflow_solver("rk4").name == "rk4"


def test_a_callable_with_numpy_and_with_torch() -> None:
    def with_torch(rhs, y0, grid):
        y = y0.clone()
        for t, t1 in pairwise(grid):
            h = t1 - t
            y = y + h * rhs(t + h / 2, y + h / 2 * rhs(t, y))
        return y

    grid = np.linspace(0, 3, 41)
    first, second = (as_solver(f).fixed(DRIVEN, grid) for f in (midpoint, with_torch))
    assert torch.allclose(first.end, second.end, rtol=1e-14)
    ours = as_solver("midpoint").fixed(DRIVEN, grid)
    assert torch.allclose(first.end, ours.end, rtol=1e-14)
    assert first.nfe == first.calls == 80 == ours.nfe
    assert as_solver(midpoint).name == "midpoint"


def test_a_callable_may_look_at_the_right_ends_only() -> None:
    def right(rhs, y0, grid):
        y = y0.numpy().copy()
        for t, t1 in pairwise(grid):
            y = y + (t1 - t) * rhs(t1, y)
        return y

    assert as_solver(right).fixed(DRIVEN, np.linspace(0, 3, 41)).failure is None


def test_a_callable_that_ignores_the_grid_is_found_out() -> None:
    def half(rhs, y0, grid):
        return midpoint(rhs, y0, grid[::4])

    run = as_solver(half).fixed(DRIVEN, np.linspace(0, 3, 41))
    assert run.end is None and "left the grid: no evaluation in [0.075, 0.15]" in run.failure


def test_a_peer_that_leaves_its_grid_is_found_out() -> None:
    """Radau at steps where its Newton iterations do not converge halves the step."""
    run = scipy_solver("Radau").fixed(get_problem("lotka-volterra"), np.linspace(0, 10, 9))
    assert run.end is None and "left the grid: took" in run.failure
    wild = torchdiffeq_solver("rk4", step_size=0.5).fixed(DRIVEN, np.linspace(0, 3, 41))
    assert wild.end is None and "mutually exclusive" in wild.failure


@pytest.mark.parametrize("name", ["rk4", "scipy:RK45", "torchdiffeq:rk4", "torchdiffeq:dopri5"])
def test_a_solve_that_blows_up_fails_and_says_so(name: str) -> None:
    blowing = dataclasses.replace(DRIVEN, rhs=lambda t, y, m: [1e200 * x * x * x for x in y])
    run = as_solver(name).fixed(blowing, np.linspace(0, 3, 11))
    assert run.end is None and run.failure
    assert run.nfe > 0


def test_a_callable_of_the_wrong_shape_or_that_raises() -> None:
    grid = np.linspace(0, 3, 5)
    run = callable_solver(lambda rhs, y0, grid: rhs(0.0, y0)[:1]).fixed(DRIVEN, grid)
    assert run.end is None and "shape (1,)" in run.failure

    def broken(rhs, y0, grid):
        raise RuntimeError("no luck")

    assert as_solver(broken).fixed(DRIVEN, grid).failure == "RuntimeError: no luck"


def test_an_interrupt_is_no_failure_of_the_solver() -> None:
    def stopped(rhs, y0, grid):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        as_solver(stopped).fixed(DRIVEN, np.linspace(0, 3, 5))


def test_gradients_go_through_torch_solvers() -> None:
    for name in ("rk4", "torchdiffeq:rk4"):
        y0 = DRIVEN.y0.clone().requires_grad_()
        run = as_solver(name).fixed(dataclasses.replace(DRIVEN, y0=y0), np.linspace(0, 3, 9))
        (gradient,) = torch.autograd.grad(run.end.sum(), y0)
        assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("rk5", "did you mean 'rk4'"),
        ("scypi:RK45", "did you mean 'scipy'"),
        ("scipy:RK54", "did you mean 'RK45'"),
        ("torchdiffeq:dopri55", "did you mean 'dopri5'"),
        ("torchdiffeq:scipy_solver", "take 'scipy:RK45'"),
    ],
)
def test_unknown_names(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_solver(wrong)


def test_what_is_no_solver() -> None:
    with pytest.raises(TypeError, match="a name, a Method, a Solver or a callable"):
        as_solver(3)


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(MissingExtraError, match="needs the package 'diffrax'"):
        as_solver("diffrax:Dopri5")


def test_diffrax() -> None:
    solver = as_solver("diffrax:Dopri5")
    run = solver.fixed(DRIVEN, UNEVEN)
    assert float((run.end - as_solver("dopri5").fixed(DRIVEN, UNEVEN).end).abs().max()) < 1e-13
    assert run.nfe == 6 * (len(UNEVEN) - 1) + 1
    assert float((run.dense(1.3) - DRIVEN.solution(1.3)).abs().max()) < 1e-5
    assert error(solver.adaptive(DRIVEN, 1e-8, 1e-8)) < 1e-6
    with pytest.raises(ValueError, match="did you mean 'Dopri5'"):
        as_solver("diffrax:Dopri55")
