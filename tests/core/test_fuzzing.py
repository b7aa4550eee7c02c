"""Random calls of `solve` and `odeint`: each ends in a right answer or in an error that names why.

What is right: with N accepted steps, each of which may make an error of tol = atol + rtol max|y| in
the RMS norm, so sqrt(entries) tol in one entry, errors that the problem grows by at most G, and
rounding, the error is bounded by G (N sqrt(entries) tol + rounding): `fuzz_cases.bound`. For fixed
steps of size h the tolerance gives way to max|y| h^p times the span. The constant before that bound
would be 1 if estimates never fell short. Attained in 5,000 calls: 1.8 for fixed steps (six anchors
on 20 steps), 0.6 for adaptive ones; ten times the bound is taken for a bug.
"""

from __future__ import annotations

import collections
import math
import warnings
from typing import Any

import pytest
from fuzz_cases import BAD, Call, Verdict, calls, run
from fuzz_odeint import run_odeint
from hypothesis import given
from plain_draws import seeded

MOST = 10.0
"""Errors beyond so many times the bound are bugs."""


def fuzz(examples: int, seed: int, judge: Any = run) -> collections.Counter[str]:
    """Judge so many calls, the same for a seed; how often each outcome came."""
    outcomes: collections.Counter[str] = collections.Counter()

    @seeded(seed, examples)
    @given(calls())
    def check(call: Call) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict: Verdict = judge(call)
        assert verdict.ratio <= MOST, f"the error is {verdict.ratio:.3g} times its bound"
        outcomes[verdict.outcome] += 1

    check()
    return outcomes


@pytest.mark.parametrize("seed", range(2))
def test_solve(seed: int) -> None:
    outcomes = fuzz(300, seed)
    assert outcomes.total() >= 300
    # none of it is idle: answers are judged, calls refused, and solves end in every way
    assert outcomes["right"] >= 60 and outcomes["refused"] >= 20
    assert len(outcomes) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_solve_ten_thousand_times(seed: int) -> None:
    assert fuzz(500, seed).total() >= 500


def test_odeint() -> None:
    outcomes = fuzz(150, 7, run_odeint)
    assert outcomes["right"] >= 40 and outcomes["refused"] >= 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 204))
def test_odeint_thousands_of_times(seed: int) -> None:
    assert fuzz(500, seed, run_odeint).total() >= 500


@pytest.mark.parametrize("changes", [{}, {"batch_dims": 1}, {"steps": ("grid", 12)}], ids=str)
def test_every_bad_argument_is_refused(changes: dict[str, Any]) -> None:
    for bad in BAD:
        unused = bad[0] == "norm" and callable(bad[1]) and changes
        verdict = run(Call(bad=bad, inner=(0.5,), **changes))
        assert unused or verdict.outcome == "refused", bad


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (Call(rtol=1e-2, atol=1e-2, method=("name", "dopri8"), grad="y0", dense_output=True), ""),
        (Call(form="blow-up", end=3.0, shape=(1,)), "step collapse"),
        (Call(fault=("nan", 0.5)), "non-finite"),
        (Call(fault=("shape", 0.5)), "wrong velocity"),
        (Call(fault=("raise", 0.5)), "func failed"),
        (Call(max_steps=2), "step cap"),
        (Call(event=0.5), "right"),
    ],
)
def test_outcomes(call: Call, match: str) -> None:
    """The judge tells them apart."""
    verdict = run(call)
    assert match in verdict.outcome, verdict
    assert math.isfinite(verdict.ratio)


@pytest.mark.parametrize("factor", [1.0 + 1e-3, 1.0 - 1e-3])
def test_a_wrong_answer_is_found(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousandth of the velocity too much, and the judge says so."""
    from fuzz_cases import Function

    genuine = Function.__call__
    monkeypatch.setattr(
        Function, "__call__", lambda self, t, y, *a: genuine(self, t, y, *a) * factor
    )
    assert run(Call(method=("name", "dopri8"), rtol=1e-7, atol=1e-9)).ratio > MOST
