"""Solves in several threads at once: each gives, to the last bit, what it gives alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

import quadflow as qf

PLANS: dict[str, dict[str, Any]] = {
    "stages": {"method": "dopri5"},
    "stages fixed": {"method": "rk4", "step_size": 0.02},
    "anchors": {"method": "pece3"},
    "anchors fixed": {"method": qf.adams(4), "step_size": 0.02},
    "variable order": {"method": "adams"},
    "sweeps": {"method": "gauss"},
    "sweeps by vmap": {"method": "lobatto4", "node_evaluation": "vmap"},
    "sweeps fixed": {"method": "gauss8", "step_size": 0.1},
    "converged": {"method": qf.collocation(qf.gauss_legendre(4), "converged"), "step_size": 0.1},
    "per sample": {"method": "tsit5", "batch_dims": 1},
    "breakpoints": {"method": "dopri8", "breakpoints": [0.7], "land_on": [1.1]},
}
THREADS = 8


def job(number: int, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """A solve of its own kind for every number, all of it that can be told apart."""
    generator = torch.Generator().manual_seed(number)
    y0 = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    rate = 1.0 + number / 3
    calls = 0

    def f(t: Tensor, y: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.sin(rate * t) - y * torch.cos(y)

    solution = qf.solve(
        f, y0, (0.0, 0.3, 2.0), rtol=10.0 ** -(4 + number % 5), dense_output=True, **arguments
    )
    stats = solution.stats
    between = solution(1.234)
    return (
        solution.y, between, calls, stats.nfe, stats.calls, stats.probe_nfe, stats.accepted,
        stats.rejected, stats.refined, stats.node_evaluation, solution.steps, solution.message,
    )  # fmt: skip


def at_once(work: Callable[[int], Any], count: int) -> list[Any]:
    """work(0), work(1), ... in as many threads, which start together."""
    gate = threading.Barrier(count)

    def begin(number: int) -> Any:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def assert_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("count", [2, THREADS])
def test_bit_identical_to_the_solves_alone(plan: str, count: int) -> None:
    alone = [job(number, PLANS[plan]) for number in range(count)]
    for _ in range(2):
        together = at_once(lambda number: job(number, PLANS[plan]), count)
        for one, other in zip(alone, together, strict=True):
            assert_same(one, other)


def test_every_plan_at_once() -> None:
    """One Method object serves all threads; different plans share nothing."""
    plans = list(PLANS.values())
    alone = [job(number, plan) for number, plan in enumerate(plans)]
    together = at_once(lambda number: job(number, plans[number]), len(plans))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("plan", ["stages", "sweeps", "variable order", "converged", "per sample"])
def test_gradients_beside_solves_without(plan: str) -> None:
    """Gradients in one thread, none in the next, each as it is alone."""

    def work(number: int) -> tuple[Any, ...]:
        rate = torch.tensor(1.0 + number / 3, dtype=torch.float64, requires_grad=True)
        y0 = torch.tensor([[0.3, -0.4]], dtype=torch.float64)

        def run() -> Tensor:
            f = lambda t, y: torch.sin(rate * t) - y * torch.cos(rate * y)  # noqa: E731
            return qf.solve(f, y0, (0.0, 2.0), **PLANS[plan]).y[-1]

        if number % 2:
            with torch.no_grad():
                end = run()
            assert not end.requires_grad
            return (end,)
        end = run()
        (gradient,) = torch.autograd.grad(end.sum(), rate)
        return end.detach(), gradient

    alone = [work(number) for number in range(4)]
    for one, other in zip(alone, at_once(work, 4), strict=True):
        assert_same(one, other)


def test_a_failure_in_one_thread_is_its_own() -> None:
    def work(number: int) -> Any:
        y0 = torch.tensor([1.0 if number % 2 else 0.1], dtype=torch.float64)
        solution = qf.solve(lambda t, y: y * y, y0, (0.0, 2.0), method="gauss", throw=False)
        return solution.status, solution.y, solution.message

    alone = [work(number) for number in range(4)]
    assert [status is qf.Status.SUCCESS for status, *_ in alone] == [True, False] * 2
    for one, other in zip(alone, at_once(work, 4), strict=True):
        assert_same(one, other)
