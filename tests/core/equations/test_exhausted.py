"""A StopIteration that func raises is func's own, and never the end of the steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import quadflow as qf

Y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize(
    "how",
    [{}, {"method": "dopri5"}, {"method": "gauss"}, {"method": "heun", "step_size": 0.01},
     {"method": "dopri5", "batch_dims": 1}, {"method": "gauss", "batch_dims": 1},
     {"events": lambda t, y: y[0] - 0.1}, {"callback": lambda t, y: None}, {"dense_output": True}],
)  # fmt: skip
def test_stop_iteration_comes_out_as_it_is(how: dict[str, Any]) -> None:
    for calls in (0, 1, 5, 17):
        left = iter(range(calls))

        def func(t: Tensor, y: Tensor, left: Any = left) -> Tensor:
            next(left)
            return -y

        y0 = Y0[:, None] if "batch_dims" in how else Y0
        with pytest.raises(StopIteration):
            qf.solve(func, y0, (0.0, 50.0), **how)


def test_through_other_interfaces() -> None:
    times = torch.tensor([0.0, 50.0])
    for solve in (
        lambda f: qf.odeint(f, Y0, times),
        lambda f: qf.odeint_adjoint(f, Y0, times, adjoint_params=()),
        lambda f: qf.odeint_event(f, Y0, 0.0, event_fn=lambda t, y: y[0] - 1e-9),
    ):
        left = iter(range(9))
        with pytest.raises(StopIteration):
            solve(lambda t, y, left=left: (next(left), -y)[1])
