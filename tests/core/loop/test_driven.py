"""A solve that is driven from outside is `solve`, to the bit."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import quadflow as qf

METHODS = {
    "euler": qf.adams(1),
    "ab3": qf.adams(3, startup="rising"),
    "pec2": qf.adams(2, "PEC", startup="rising", forward_last=True),
    "pec3": qf.adams(3, "PEC", startup="rising"),
    "pece2": qf.adams(2, "PECE", startup="rising"),
}
GRID = [0.0, 0.1, 0.35, 0.5, 0.8, 1.0]


def f(t: Tensor, y: Tensor) -> Tensor:
    return torch.sin(3 * y) - t.to(y.dtype) * y


def driven(solving: qf.Driven, func: Any, dtype: torch.dtype) -> qf.Driven:
    while (wanted := solving.ask()) is not None:
        t, y = wanted
        solving = solving.tell(func(torch.tensor(t, dtype=dtype), y))
    return solving


def state(dtype: torch.dtype) -> Tensor:
    return torch.linspace(-1, 2, 7, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("dtype", "accumulation"),
    [
        (torch.float64, None),
        (torch.float32, None),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float64),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_driven_from_outside_copied_in_the_middle(
    name: str, dtype: torch.dtype, accumulation: torch.dtype | None, sign: int
) -> None:
    method, grid, y0 = METHODS[name], [sign * t for t in GRID], state(dtype)
    kept = y0.clone()
    expected = qf.solve(
        f, y0, (grid[0], grid[-1]), method=method, grid=grid, accumulation_dtype=accumulation
    )
    solving = qf.drive(method, y0, grid, accumulation_dtype=accumulation)
    times = accumulation or dtype
    for _ in range(3):
        wanted = solving.ask()
        assert wanted is not None
        assert wanted[1].dtype is dtype
        v = f(torch.tensor(wanted[0], dtype=times), wanted[1])
        wanted[1].zero_()  # theirs to change
        solving = solving.tell(v)
        v.zero_()
    other = copy.deepcopy(solving)
    ends = [driven(one, f, times) for one in (solving, other, solving)]
    for end in ends:
        assert end.done and end.ask() is None and end.t == grid[-1]
        assert torch.equal(end.y, expected.y[-1]) and end.y.dtype is dtype
        assert end.told == expected.stats.nfe
    assert torch.equal(y0, kept)
    assert not solving.done and solving.told == 3  # as it was


def test_of_one_evaluation_an_interval() -> None:
    """As many velocities as intervals, with forward_last for the corrected ones too."""
    for name, count in (("euler", 5), ("ab3", 5), ("pec2", 5), ("pec3", 6), ("pece2", 10)):
        assert driven(qf.drive(METHODS[name], state(torch.float64), GRID), f, torch.float64).told
        end = driven(qf.drive(METHODS[name], state(torch.float64), GRID), f, torch.float64)
        assert end.told == count, name


def test_where_it_stands() -> None:
    solving = qf.drive(METHODS["ab3"], state(torch.float64), np.array(GRID))
    assert solving.t == 0.0 and torch.equal(solving.y, state(torch.float64))
    assert solving.grid == tuple(GRID)
    wanted = solving.ask()
    assert wanted is not None and wanted[0] == 0.0
    after = solving.tell(f(torch.tensor(0.0), wanted[1]))
    # what is predicted is the end of the step where nothing corrects it
    assert after.t == 0.1 and (after.ask() or (0,))[0] == 0.1


def test_states_of_several_tensors_and_gradients() -> None:
    y0 = {"a": torch.ones(2, dtype=torch.float64), "b": torch.zeros(1, dtype=torch.float64)}
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def func(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": -rate * y["a"], "b": y["a"].sum(0, keepdim=True)}

    solving = qf.drive(METHODS["pec2"], y0, GRID)
    end = driven(solving, func, torch.float64)
    solved = qf.solve(func, y0, (0.0, 1.0), method=METHODS["pec2"], grid=GRID)
    assert torch.equal(end.y["b"], solved.y["b"][-1])
    (here,) = torch.autograd.grad(end.y["b"].sum(), rate)
    (there,) = torch.autograd.grad(solved.y["b"][-1].sum(), rate)
    assert here == there and math.isfinite(here)


@pytest.mark.parametrize("method", ["dopri5", "adams", "gauss", "ab3", qf.adams(3, "PECE")])
def test_methods_that_cannot(method: Any) -> None:
    with pytest.raises(ValueError, match="cannot be driven from outside: take one of the anchors"):
        qf.drive(method, state(torch.float64), GRID)


def test_bad_arguments() -> None:
    y0 = state(torch.float64)
    with pytest.raises(ValueError, match="grid"):
        qf.drive(METHODS["euler"], y0, [0.0, 0.5, 0.2])
    with pytest.raises(TypeError, match="accumulation_dtype"):
        qf.drive(METHODS["euler"], y0.half(), GRID)
    with pytest.raises(ValueError, match="y0 is not finite"):
        qf.drive(METHODS["euler"], y0 * math.nan, GRID)
    solving = qf.drive(METHODS["euler"], y0, GRID)
    with pytest.raises(qf.VelocityError, match="shape"):
        solving.tell(y0[:3])
    with pytest.raises(qf.VelocityError, match="float32"):
        solving.tell(y0.float())
    end = driven(solving, f, torch.float64)
    with pytest.raises(ValueError, match="tell: the solve has reached its end, t=1"):
        end.tell(y0)
