"""What is left of a solve that an exception, Ctrl-C or a limit ends: state, statistics, output."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import quadflow as qf

Y0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
SAMPLES = Y0.reshape(2, 1)
WAYS: list[dict[str, Any]] = [
    {},
    {"method": "dopri5"},
    {"method": "gauss", "dense_output": True},
    {"method": "rk4", "step_size": 0.125},
    {"method": "ab3", "step_size": 0.125, "dense_output": True},
    {"record_steps": False},
]


class Fuse:
    """y' = -y that raises after so many calls."""

    def __init__(self, calls: int, error: BaseException) -> None:
        self.left, self.error = calls, error

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return -y


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [ZeroDivisionError("func"), KeyboardInterrupt()])
def test_an_exception_carries_what_was_reached(way: dict[str, Any], error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        qf.solve(Fuse(80, error), Y0, (0.0, 0.1, 0.2, 50.0), node_evaluation="loop", **way)
    assert caught.value is error
    partial = error.solution  # type: ignore[attr-defined]
    assert partial.status is qf.Status.INTERRUPTED and not partial.success
    assert type(error).__name__ in partial.message
    # nodes that are evaluated together are counted together
    assert 81 <= partial.stats.nfe < 100 and partial.stats.accepted > 0
    assert 0.2 <= partial.t_reached < 50 and partial.t.tolist() == [0.0, 0.1, 0.2]
    assert partial.t_reached == partial.steps[-1]
    exact = Y0 * math.exp(-partial.t_reached)
    torch.testing.assert_close(partial.y_reached, exact, rtol=5e-3, atol=1e-6)
    if way.get("dense_output"):
        torch.testing.assert_close(partial(partial.t_reached), partial.y_reached)
        assert len(partial._segments) == len(partial.steps) - 1
    again = pickle.loads(pickle.dumps(partial))
    assert torch.equal(again.y_reached, partial.y_reached)


def test_an_exception_of_a_callback_comes_after_the_step() -> None:
    def stop(t: float, y: Tensor) -> None:
        if t > 1:
            raise InterruptedError(t)

    with pytest.raises(InterruptedError) as caught:
        qf.solve(lambda t, y: -y, Y0, (0.0, 9.0), callback=stop)
    assert caught.value.solution.t_reached == caught.value.args[0]  # type: ignore[attr-defined]


def test_every_sample_says_how_far_it_came() -> None:
    rates = torch.tensor([[1.0], [8.0]], dtype=torch.float64)

    def func(t: Tensor, y: Tensor) -> Tensor:
        if (t[0] > 2).any():
            raise ZeroDivisionError
        return -rates * y

    with pytest.raises(ZeroDivisionError) as caught:
        qf.solve(func, SAMPLES, (0.0, 0.1, 5.0), batch_dims=1)
    partial = caught.value.solution  # type: ignore[attr-defined]
    assert partial.status is qf.Status.INTERRUPTED
    assert partial.statuses == [qf.Status.INTERRUPTED] * 2
    assert partial.t_reached.shape == (2,) and (partial.t_reached > 0.1).all()
    exact = SAMPLES * torch.exp(-rates * partial.t_reached.reshape(2, 1))
    torch.testing.assert_close(partial.y_reached, exact, rtol=1e-5, atol=1e-6)
    assert partial.stats.accepted > 2
    assert not partial.y[1].isnan().any() and partial.y[2].isnan().all()


@pytest.mark.parametrize("way", WAYS)
def test_the_end_is_what_was_reached(way: dict[str, Any]) -> None:
    sol = qf.solve(lambda t, y: -y, Y0, (0.0, 1.0), **way)
    assert sol.t_reached == 1.0 and torch.equal(sol.y_reached, sol.y[-1])


def test_after_a_limit_the_last_state_is_there() -> None:
    with pytest.raises(qf.SolveError) as caught:
        qf.solve(lambda t, y: {"a": -y["a"]}, {"a": Y0}, (0.0, 100.0), max_steps=9)
    left = caught.value.solution
    assert len(left.t) == 1 and 0 < left.t_reached < 100 and left.stats.accepted > 0
    exact = Y0 * math.exp(-left.t_reached)
    torch.testing.assert_close(left.y_reached["a"], exact, rtol=1e-5, atol=1e-7)


def test_a_terminal_event_is_what_was_reached() -> None:
    event = qf.Event(lambda t, y: y[..., 0] - 0.25, terminal=True)
    sol = qf.solve(lambda t, y: -y, Y0, (0.0, 9.0), events=event)
    assert sol.t_reached == pytest.approx(math.log(4)) and torch.equal(sol.y_reached, sol.y[-1])
    rates = torch.tensor([[1.0], [0.01]], dtype=torch.float64)
    sol = qf.solve(lambda t, y: -rates * y, SAMPLES, (0.0, 9.0), batch_dims=1, events=event)
    assert sol.t_reached.tolist() == pytest.approx([math.log(4), 9.0])
    torch.testing.assert_close(sol.y_reached, torch.stack((SAMPLES[0] / 4, sol.y[-1, 1])))


def test_the_solve_within_func_is_the_one_that_is_told() -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        return qf.solve(Fuse(30, ZeroDivisionError("inner")), y, (0.0, 40.0)).y[-1]

    with pytest.raises(ZeroDivisionError, match="inner") as caught:
        qf.solve(func, Y0, (0.0, 1.0))
    assert caught.value.solution.stats.nfe == 31  # type: ignore[attr-defined]


def test_an_exception_without_room_is_left_alone() -> None:
    class Bare(Exception):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "solution":
                raise AttributeError(name)
            super().__setattr__(name, value)

    with pytest.raises(Bare):
        qf.solve(Fuse(9, Bare()), Y0, (0.0, 1.0))
