"""Default tolerances follow the dtype; what it does not hold is raised, and said once."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quadflow as qf
from quadflow.adapters.scipy_solver import Dopri5
from quadflow.control.tolerances import (
    default_atol,
    default_rtol,
    held_rtol,
    least_atol,
    least_rtol,
)
from quadflow.equations.velocity import StateLayout

ADAPTIVE = sorted(name for name, method in qf.methods().items() if method.error_order is not None)
SINGLE, DOUBLE = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
TIMES = torch.linspace(0, 2, 3)
RK45 = {"solver": "RK45"}  # LSODA takes no complex states


def relaxing(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(t) - 0.5 * y


def turning(t: Tensor, y: Tensor) -> Tensor:
    return torch.stack((y[..., 1], -y[..., 0]), -1)


def logistic(t: Tensor, y: Tensor) -> Tensor:
    return y * (1 - y)


def growing(t: Tensor, y: Tensor) -> Tensor:
    return 0.7 * y


def told(run: Callable[[], Any]) -> tuple[Any, list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run()
    return result, [one for one in caught if issubclass(one.category, qf.ToleranceWarning)]


class Decay(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5, dtype=dtype.to_real()))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return -self.rate * y


# -- defaults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, accumulation, rtol, least",
    [
        (torch.float64, None, 1e-7, 100 * DOUBLE),
        (torch.complex128, None, 1e-7, 100 * DOUBLE),
        (torch.float32, None, 1e-4, 100 * SINGLE),
        (torch.complex64, None, 1e-4, 100 * SINGLE),
        (torch.float32, torch.float64, 1e-4, SINGLE),
        (torch.complex64, torch.complex128, 1e-4, SINGLE),
        (torch.float16, torch.float32, 1e-2, torch.finfo(torch.float16).eps),
        (torch.bfloat16, torch.float32, 1e-2, torch.finfo(torch.bfloat16).eps),
        (torch.bfloat16, torch.float64, 1e-2, torch.finfo(torch.bfloat16).eps),
    ],
)
def test_what_a_dtype_holds(
    dtype: torch.dtype, accumulation: torch.dtype | None, rtol: float, least: float
) -> None:
    layout = StateLayout(torch.ones(2, dtype=dtype), accumulation)
    assert default_rtol(layout) == rtol and default_atol(layout) == rtol / 100
    assert least_rtol(layout) == least < rtol
    assert least_atol(layout) == torch.finfo(accumulation or dtype).tiny


@pytest.mark.parametrize(
    "dtype, rtol", [(torch.float32, 1e-4), (torch.complex64, 1e-4), (torch.float64, 1e-7),
                    (torch.complex128, 1e-7)],
)  # fmt: skip
def test_no_tolerances_are_those_of_the_dtype(dtype: torch.dtype, rtol: float) -> None:
    """In every call that takes tolerances, for tensors and tuples, without a warning."""
    y0 = torch.tensor([1.0, 0.5], dtype=dtype)
    given = {"rtol": rtol, "atol": rtol / 100}
    module = Decay(dtype)
    alike: list[Callable[..., Any]] = [
        lambda **how: qf.solve(relaxing, y0, (0.0, 2.0), **how).y,
        lambda **how: qf.solve(relaxing, y0[:, None], (0.0, 2.0), batch_dims=1, **how).y,
        lambda **how: qf.solve(
            relaxing, y0, (0.0, 2.0), method="dopri8", compile={"backend": "eager"}, **how
        ).y,
        lambda **how: qf.solve(lambda t, y: {"a": -y["a"]}, {"a": y0}, (0.0, 2.0), **how).y["a"],
        lambda **how: qf.odeint(relaxing, y0, TIMES, **how),
        lambda **how: qf.odeint(lambda t, y: (-y[0],), (y0,), TIMES, **how)[0],
        lambda **how: qf.odeint(relaxing, y0, TIMES, method="scipy_solver", options=RK45, **how),
        lambda **how: qf.odeint_dense(relaxing, y0, 0.0, 2.0, **how)(1.0),
        lambda **how: qf.odeint_event(
            logistic, y0.real * 0.1, 0.0, event_fn=lambda t, y: y[0] - 0.4, **how
        )[1],
        lambda **how: torch.autograd.grad(
            qf.odeint_adjoint(module, y0, TIMES, **how)[-1].real.sum(), module.rate
        )[0],
    ]  # fmt: skip
    half = dtype in (torch.complex64, torch.float64)
    for solve in alike[:: 2 if half else 1]:
        solve(**given)  # what is compiled runs first as it is
        bare, said = told(solve)
        assert not said
        assert torch.equal(bare, solve(**given))
        assert torch.equal(solve(rtol=rtol), bare) and torch.equal(solve(atol=rtol / 100), bare)


def test_signatures_say_none() -> None:
    for call in (qf.solve, qf.odeint, qf.odeint_dense, qf.odeint_adjoint):
        parameters = inspect.signature(call).parameters
        assert parameters["rtol"].default is None and parameters["atol"].default is None
        assert "1e-4" in (inspect.getdoc(call) or "") or call is not qf.solve


# -- tolerances below ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_ends_in_as_many_calls_as_it_can_use(
    name: str, dtype: torch.dtype
) -> None:
    """Where rtol = 1e-9 took half a million calls."""
    span = 0.2 if name in ("heun", "pec1", "pece1", "pec2", "pece2", "bosh3", "radau2") else 2.0
    y0 = torch.tensor([1.0, 0.3], dtype=dtype)
    how = {"method": name, "throw": False, "max_steps": 2000, "node_evaluation": "broadcast"}
    for func in (relaxing, turning) if dtype is torch.float32 else (growing,):
        found, said = told(
            lambda func=func: qf.solve(func, y0, (0.0, span), rtol=1e-9, atol=1e-11, **how)
        )
        assert len(said) == 1 and found.success, found.message
        assert found.stats.calls < 1500
        with_what_it_holds = qf.solve(
            func, y0, (0.0, span), rtol=100 * SINGLE, atol=1e-11, **how
        )  # fmt: skip
        assert torch.equal(found.y, with_what_it_holds.y)


@pytest.mark.parametrize("name", ["adams", "dopri8", "gauss", "lobatto", "gauss8", "lobatto6"])
@pytest.mark.parametrize("rtol", [1e-20, 1e-15])
def test_double_precision_reaches_the_end(name: str, rtol: float) -> None:
    """Where 1e-20 ran to the step cap."""
    y0 = torch.tensor([1.0, 0.3], dtype=torch.float64)
    for func in (relaxing, turning, logistic):
        found, said = told(
            lambda func=func: qf.solve(
                func,
                y0,
                (0.0, 3.0),
                method=name,
                rtol=rtol,
                atol=1e-16,
                max_steps=2000,
                node_evaluation="broadcast",
                throw=False,
            )
        )
        assert len(said) == 1 and found.success, found.message
        exact = qf.solve(func, y0, (0.0, 3.0), method="dopri8", rtol=1e-13, atol=1e-15)
        assert (found.y[-1] - exact.y[-1]).abs().max() < 1e-11


@pytest.mark.parametrize("samples", [0, 1])
def test_tensors_are_raised_entry_by_entry(samples: int) -> None:
    layout = StateLayout(torch.ones(3))
    rtol = torch.tensor([1e-9, 1e-3, 1e-6])
    raised, said = told(lambda: held_rtol(rtol, layout))
    assert raised.tolist() == torch.tensor([100 * SINGLE, 1e-3, 100 * SINGLE]).tolist()
    assert rtol.tolist() == torch.tensor([1e-9, 1e-3, 1e-6]).tolist()
    (one,) = said
    assert "rtol=1e-09" in str(one.message) and "rtol=1.19e-05" in str(one.message)
    y0 = torch.ones(3, 1) if samples else torch.ones(3)
    results = [
        told(lambda rtol=rtol: qf.solve(
            relaxing, y0, (0.0, 2.0), rtol=rtol, batch_dims=samples, method="dopri5"
        ))
        for rtol in (rtol, raised)
    ]  # fmt: skip
    assert torch.equal(results[0][0].y, results[1][0].y)
    assert [len(said) for _, said in results] == [1, 0]


@pytest.mark.parametrize("name, value", [("rtol", 1e-9), ("rtol", 1e-12), ("atol", 1e-60)])
@pytest.mark.parametrize(
    "call",
    [
        lambda **how: qf.solve(relaxing, torch.ones(2), (0.0, 1.0), **how),
        lambda **how: qf.solve(
            relaxing, torch.ones(2), (0.0, 1.0), method="gauss", compile={"backend": "eager"}, **how
        ),
        lambda **how: qf.solve(relaxing, torch.ones(2, 1), (0.0, 1.0), batch_dims=1, **how),
        lambda **how: qf.odeint(relaxing, torch.ones(2), TIMES, **how),
        lambda **how: qf.odeint(relaxing, torch.ones(2), TIMES, method="scipy_solver", **how),
        lambda **how: qf.odeint(lambda t, y: (-y[0], -y[1]), (torch.ones(2),) * 2, TIMES,
                                **{key: (x, 1e-3) for key, x in how.items()}),
        lambda **how: qf.odeint_dense(relaxing, torch.ones(2), 0.0, 1.0, **how),
        lambda **how: qf.odeint_event(
            growing, torch.ones(1), 0.0, event_fn=lambda t, y: y[0] - 2, **how),
        lambda **how: qf.odeint_adjoint(Decay(torch.float32), torch.ones(2), TIMES, **how)
        .sum().backward(),
        lambda **how: qf.odeint_adjoint(
            Decay(torch.float32), torch.ones(2), TIMES,
            **{"adjoint_" + key: x for key, x in how.items()}).sum().backward(),
    ],
    ids=["solve", "compiled", "samples", "odeint", "scipy", "tuple", "dense", "event", "adjoint",
         "backward"],
)  # fmt: skip
def test_one_warning_names_argument_value_dtype_and_what_is_used(
    call: Callable[..., Any], name: str, value: float
) -> None:
    _, said = told(lambda: call(**{name: value}))
    (one,) = said
    message = str(one.message)
    least = f"{100 * SINGLE if name == 'rtol' else torch.finfo(torch.float32).tiny:.3g}"
    for needle in (f"{name}={value:.3g}", "torch.float32", f"{name}={least}", "float64"):
        assert needle in message, message
    assert one.filename == __file__


def test_fixed_steps_have_no_tolerance() -> None:
    for call in (
        lambda: qf.solve(relaxing, torch.ones(2), (0.0, 1.0), step_size=0.1, rtol=1e-12),
        lambda: qf.odeint(relaxing, torch.ones(2), TIMES, method="rk4", rtol=1e-12),
        lambda: qf.odeint_adjoint(
            Decay(torch.float32), torch.ones(2), TIMES, method="rk4", rtol=1e-12, atol=1e-60
        ).sum().backward(),
    ):  # fmt: skip
        assert not told(call)[1]


def test_bad_tolerances_are_refused_as_before() -> None:
    for bad in (0.0, -1.0, float("nan"), float("inf"), "tight", torch.tensor(-1e-9)):
        for name in ("rtol", "atol"):
            with pytest.raises((TypeError, ValueError), match=name):
                qf.solve(relaxing, torch.ones(2), (0.0, 1.0), **{name: bad})
            with pytest.raises((TypeError, ValueError), match=name):
                qf.odeint_adjoint(Decay(torch.float32), torch.ones(2), TIMES, **{name: bad})


def test_an_atol_below_every_number_of_the_dtype() -> None:
    """A component that is 0, and stays so, has neither an error nor a size."""
    for dtype in (torch.float32, torch.complex64):
        y0 = torch.tensor([0.0, 1.0], dtype=dtype)
        for name in ("dopri5", "gauss", "adams", "tsit5", "lobatto"):
            found, said = told(
                lambda y0=y0, name=name: qf.solve(
                    lambda t, y: -y, y0, (0.0, 1.0), method=name, atol=1e-60, throw=False
                )
            )
            assert found.success and len(said) == 1


def test_scipys_adapter_raises_alike() -> None:
    with pytest.warns(qf.ToleranceWarning, match="rtol=1e-20 is more than float64 holds"):
        Dopri5(lambda t, y: -y, 0.0, [1.0], 1.0, rtol=1e-20)
