"""`check`: what it says of problems whose faults are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import quadflow as qf

ONE = torch.ones(1, dtype=torch.float64)
PAIR = torch.tensor([1.0, 2.0], dtype=torch.float64)


def prey(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[0] * (1 - y[1]), y[1] * (y[0] - 1)))


def van_der_pol(t: Tensor, y: Tensor, mu: float) -> Tensor:
    return torch.stack((y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]))


def test_a_calm_problem_is_ok_and_its_digits_are_true() -> None:
    found = qf.check(prey, PAIR, (0.0, 4.0, 10.0))
    assert found.ok and not found.jumps and found.stiff_at is None and found.warnings == []
    assert [(r.method, r.rtol) for r in found.runs] == [
        ("adams", 1e-7), ("adams", pytest.approx(1e-9)),
        ("dopri8", 1e-7), ("dopri8", pytest.approx(1e-9)),
    ]  # fmt: skip
    truth = qf.solve(prey, PAIR, (0.0, 4.0, 10.0), method="dopri8", rtol=1e-13, atol=1e-14).y
    for run in found.runs:
        own = qf.solve(prey, PAIR, (0.0, 4.0, 10.0), method=run.method, rtol=run.rtol,
                       atol=run.rtol / 100)  # fmt: skip
        true = float((own.y - truth).abs().max() / truth.abs().max())
        # what it says is measured against the other method's tighter run, no better than 1e-9
        assert run.error == pytest.approx(true, rel=0.3, abs=2e-9)
        assert own.stats.nfe == run.nfe and own.stats.accepted == run.accepted
    assert found.suggestion is not None and found.solution is not None
    suggested = qf.solve(prey, PAIR, (0.0, 4.0, 10.0), **found.suggestion)
    assert float((suggested.y - truth).abs().max() / truth.abs().max()) < 3e-7
    page = str(found)
    assert "agree to 9" in page and "suggested: solve(func, y0, t, method='adams'" in page


@pytest.mark.parametrize("backward", [False, True])
def test_jumps_in_time_become_breakpoints(backward: bool) -> None:
    places = (0.4, 1.2345)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return -y + sum(math.copysign(2.0, float(t) - place) for place in places)

    span = (3.0, 0.0) if backward else (0.0, 3.0)
    found = qf.check(func, ONE, span)
    assert not found.ok and all(jump.in_time for jump in found.jumps)
    assert sorted(j.t for j in found.jumps) == pytest.approx(sorted(places), abs=1e-12)
    assert found.suggestion is not None
    told = found.suggestion["breakpoints"]
    with_them = qf.solve(func, ONE, span, **found.suggestion)
    without = qf.solve(func, ONE, span, **{**found.suggestion, "breakpoints": ()})
    assert len(told) == 2 and with_them.stats.rejected < without.stats.rejected
    assert "give breakpoints=" in str(found)


def test_jumps_of_the_state_are_told_from_those_of_time() -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(y > 0.5, -1.0, -0.1) * torch.ones_like(y)

    found = qf.check(func, ONE, (0.0, 3.0))
    assert [jump.in_time for jump in found.jumps] == [False]
    assert found.jumps[0].t == pytest.approx(0.5, abs=1e-9)
    assert found.jumps[0].size == pytest.approx(0.9, rel=1e-6)
    assert found.suggestion is not None and "breakpoints" not in found.suggestion
    assert "Event" in str(found)


def test_fast_but_smooth_turns_are_no_jumps() -> None:
    found = qf.check(van_der_pol, torch.tensor([2.0, 0.0], dtype=torch.float64), (0.0, 20.0),
                     args=(8.0,))  # fmt: skip
    assert found.jumps == [] and found.ok


def test_a_stiff_problem_gets_no_explicit_method() -> None:
    found = qf.check(van_der_pol, torch.tensor([2.0, 0.0], dtype=torch.float64), (0.0, 2000.0),
                     args=(1000.0,))  # fmt: skip
    assert found.stiff_at is not None and found.stiff_at < 1 and found.suggestion is None
    assert {run.status for run in found.runs} == {qf.Status.STIFF}
    assert "stiff from t=" in str(found) and not found.ok


def test_noise_is_found_before_anything_is_solved() -> None:
    calls = []

    def func(t: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return -y + 0.01 * torch.randn_like(y)

    found = qf.check(func, ONE, (0.0, 3.0))
    assert not found.deterministic and not found.ok and found.runs == [] and len(calls) == 2
    assert "another velocity for the same time and state" in str(found)


def test_noise_that_comes_later_is_found_too() -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        return -y if t < 0.5 else -y * (1 + 1e-9 * torch.randn_like(y))

    found = qf.check(func, ONE, (0.0, 1.0), rtol=1e-3, atol=1e-5)
    assert not found.deterministic and found.suggestion is None


def test_something_overlooked_is_seen_between_the_steps() -> None:
    def pulse(t: Tensor, y: Tensor) -> Tensor:
        return 0 * y + 100 * torch.exp(-(((t - 5.03) / 0.002) ** 2))

    found = qf.check(pulse, ONE, (0.0, 10.0))
    assert found.defect > 0.5 and not found.ok
    assert "overlooked" in str(found)
    careful = qf.solve(pulse, ONE, (0.0, 10.0), max_step=0.002)
    assert float(careful.y[-1] - 1) == pytest.approx(0.2 * math.sqrt(math.pi), rel=1e-5)


def test_what_fails_says_where() -> None:
    found = qf.check(lambda t, y: y * y, ONE, (0.0, 3.0))
    assert not found.ok and math.isnan(found.digits) and found.suggestion is None
    assert found.solution is not None and found.solution.t_reached == pytest.approx(1.0)
    assert str(found).count("the step size fell to") == 4


def test_chaos_is_told() -> None:
    def lorenz(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = y
        return torch.stack((10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c))

    found = qf.check(lorenz, torch.ones(3, dtype=torch.float64), (0.0, 25.0), rtol=1e-5)
    assert found.digits < 4 and not found.ok and "chaotic" in str(found)


@pytest.mark.parametrize(
    "y0",
    [
        torch.tensor(1.0, dtype=torch.float64), torch.ones(2), {"a": ONE, "b": PAIR},
        (PAIR, ONE), torch.ones(2, dtype=torch.complex128),
    ],
    ids=["0-d", "float32", "dict", "tuple", "complex"],
)  # fmt: skip
def test_states_of_every_kind(y0: Any) -> None:
    def func(t: Tensor, y: Any) -> Any:
        if isinstance(y, dict):
            return {name: -part for name, part in y.items()}
        return tuple(-part for part in y) if isinstance(y, tuple) else -y

    found = qf.check(func, y0, (0.0, 1.0))
    assert found.ok and found.digits > 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": "adams"}, "methods must be two methods, got 'adams'"),
        ({"methods": ("adams", "adams")}, "two different ones, got 'adams' twice"),
        ({"methods": ("adams", "rk4")}, "'rk4' has no error estimate"),
        ({"rtol": -1.0}, "rtol must be positive"),
        ({"t": (0.0, math.inf)}, r"t\[1\]=inf is not finite"),
    ],
)
def test_bad_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        qf.check(prey, PAIR, **({"t": (0.0, 1.0)} | given))
