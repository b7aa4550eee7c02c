"""Which method `solve` takes where none is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import quadflow as qf

Y0 = torch.tensor([[1.0, 0.5]], dtype=torch.float64)


def f(t: Tensor, y: Tensor) -> Tensor:
    return -y * torch.cos(t)


@pytest.mark.parametrize(
    "asked, name",
    [
        ({}, "adams"),
        ({"breakpoints": [0.5], "land_on": [0.2], "dense_output": True}, "adams"),
        ({"step_size": 0.1}, "dopri5"),
        ({"grid": [k / 10 for k in range(11)]}, "dopri5"),
        ({"batch_dims": 1}, "dopri5"),
        ({"controller": qf.StepController(safety=0.8)}, "dopri5"),
    ],
)
def test_the_default(asked: dict[str, Any], name: str) -> None:
    """What cannot take adams gets dopri5, and the statistics say so; the answer is that of the
    method by its name."""
    found = qf.solve(f, Y0, (0.0, 1.0), rtol=1e-8, atol=1e-8, **asked)
    assert found.stats.method == name
    named = qf.solve(f, Y0, (0.0, 1.0), rtol=1e-8, atol=1e-8, method=name, **asked)
    assert torch.equal(found.y, named.y) and found.stats.nfe == named.stats.nfe
    exact = Y0 * torch.exp(-torch.sin(torch.ones((), dtype=torch.float64)))
    torch.testing.assert_close(found.y[-1], exact, rtol=1e-6, atol=0)


def test_odeint_keeps_the_default_of_its_contract() -> None:
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.equal(qf.odeint(f, Y0, times), qf.odeint(f, Y0, times, method="dopri5"))
