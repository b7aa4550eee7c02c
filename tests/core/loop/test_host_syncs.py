"""How often a solve waits for the device: never inside fixed steps, once an adaptive step."""

from __future__ import annotations

import pytest
import torch
from host_waits import CountWaits
from manufactured import Manufactured

import quadflow as qf

PROBLEM = Manufactured()


def waits(**arguments) -> tuple[int, qf.Statistics]:
    with CountWaits() as counter:
        solution = qf.solve(
            PROBLEM.f, PROBLEM.solution(0.0), arguments.pop("t", (0.0, 1.5)),
            node_evaluation="broadcast", **arguments,
        )  # fmt: skip
    return counter.waits, solution.stats


@pytest.mark.parametrize("name", sorted(set(qf.methods()) - {"adams"}))  # adaptive alone
def test_fixed_steps_do_not_wait(name: str) -> None:
    """Twice the steps, with times between them wanted, and not one more wait."""
    few, _ = waits(method=name, step_size=0.15)
    many, stats = waits(method=name, step_size=0.075, t=(0.0, 0.1, 1.0, 1.5))
    assert stats.accepted == 20
    assert many == few


@pytest.mark.parametrize(
    "name", sorted(n for n, m in qf.methods().items() if m.error_order is not None)
)
def test_adaptive_steps_wait_once(name: str) -> None:
    loose, first = waits(method=name, rtol=1e-2, atol=1e-2)
    tight, second = waits(method=name, rtol=1e-6, atol=1e-6)
    # a further sweep of a step is an attempt of its own
    attempts = [s.accepted + s.rejected + s.refined for s in (first, second)]
    assert attempts[1] > attempts[0]
    assert tight - loose == attempts[1] - attempts[0]


def test_the_counter_counts() -> None:
    with CountWaits() as counter:
        float(torch.ones(()))
        bool(torch.ones(2).sum() > 0)
    assert counter.waits == 2
