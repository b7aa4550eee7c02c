"""Bad input is refused with an error that names the argument and its value."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import quadflow as qf
from quadflow.rules.classical import RK4
from quadflow.rules.pairs import DOPRI5

Y0 = torch.tensor([1.0, 2.0], dtype=torch.float64)


def f(t, y):
    return -y * torch.cos(t)


def solve(**changes):
    arguments = {"func": f, "y0": Y0, "t": (0.0, 1.0)} | changes
    return qf.solve(**arguments)


@pytest.mark.parametrize(
    ("y0", "error", "match"),
    [
        ([1.0, 2.0], TypeError, "y0 must be a torch.Tensor, got list"),
        (torch.tensor([1, 2]), TypeError, "y0 has dtype torch.int64; it must be float32, float64"),
        (Y0.half(), TypeError, "y0 has dtype torch.float16"),
        (Y0.bfloat16(), TypeError, "integrate half-precision models in a float32 state"),
        (torch.zeros(0), ValueError, r"y0 is empty \(shape \(0,\)\)"),
        ((), ValueError, "y0 is an empty tuple"),
        (Y0 / 0, ValueError, "y0 is not finite"),
        ((Y0, Y0.float()), ValueError, r"y0\[1\] is torch.float32 .* y0\[0\] is torch.float64"),
        ((Y0, 1.0), TypeError, r"y0\[1\] must be a torch.Tensor, got float"),
        ((Y0, Y0 * math.nan), ValueError, r"y0\[1\] is not finite"),
    ],
)
def test_states(y0, error, match) -> None:
    with pytest.raises(error, match=match):
        solve(y0=y0)


@pytest.mark.parametrize(
    ("t", "error", "match"),
    [
        ((0.0,), ValueError, "t must hold at least two times"),
        (0.0, ValueError, "t must hold at least two times"),
        ([[0.0, 1.0]], ValueError, r"at least two times, got shape \(1, 2\)"),
        ((0.0, 1.0, 1.0), ValueError, r"strictly .* t\[1\]=1.0 is followed by 1.0"),
        ((0.0, 2.0, 1.0), ValueError, r"t\[1\]=2.0 is followed by 1.0"),
        ((0.0, math.nan), ValueError, r"t\[1\]=nan is not finite"),
        ((0.0, math.inf), ValueError, r"t\[1\]=inf is not finite"),
        ("ab", TypeError, "t must be a sequence of real times, got 'ab'"),
        (torch.tensor([0.0, 1j]), TypeError, "t must be real"),
    ],
)
def test_times(t, error, match) -> None:
    with pytest.raises(error, match=match):
        solve(t=t)


@pytest.mark.parametrize(
    ("func", "error", "match"),
    [
        (3, TypeError, r"func must be callable as func\(t, y\), got int"),
        (lambda t, y: y[:1], qf.VelocityError, r"shape \(1,\), the state has \(2,\)"),
        (lambda t, y: y.float(), qf.VelocityError, "torch.float32, the state is torch.float64"),
        (lambda t, y: y + 1j, qf.VelocityError, "torch.complex128, the state is torch.float64"),
        (lambda t, y: y.to("meta"), qf.VelocityError, "on meta, the state on cpu"),
        (lambda t, y: 1.0, qf.VelocityError, "must be a torch.Tensor, got float"),
        (lambda t, y: (y,), qf.VelocityError, "must be a torch.Tensor, got tuple"),
        (lambda t, y: None, qf.VelocityError, "got NoneType"),
    ],
)
def test_functions(func, error, match) -> None:
    with pytest.raises(error, match=match):
        solve(func=func)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    with pytest.raises(error, match=match):  # through the clock of differentiable times as well
        solve(func=func, t=times)


@pytest.mark.parametrize(
    ("func", "match"),
    [
        (lambda t, y: y[0], "tuple of 2 tensors like y0, got Tensor"),
        (lambda t, y: (y[0],), "tuple of 2 tensors like y0, got tuple of 1"),
        (lambda t, y: (y[0], y[0]), r"output\[1\] has shape \(2,\), the state has \(1,\)"),
    ],
)
def test_functions_of_tuples(func, match) -> None:
    with pytest.raises(qf.VelocityError, match=match):
        solve(func=func, y0=(Y0, Y0[:1]))


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"method": "dopri6"}, ValueError, "method='dopri6' is unknown: did you mean 'dopri"),
        ({"method": 5}, TypeError, "method must be a name or a Method, got int"),
        ({"node_evaluation": "brodcast"}, ValueError, "did you mean 'broadcast'"),
        ({"step_size": 0.0}, ValueError, "step_size must be finite and not zero, got 0"),
        ({"step_size": math.nan}, ValueError, "step_size must be finite and not zero, got nan"),
        ({"step_size": -0.1}, ValueError, "step_size=-0.1 is negative but t runs forward"),
        ({"step_size": 1e-18, "t": (1.0, 2.0)}, ValueError, "step_size=1e-18 is lost to rounding"),
        ({"grid": [0.0, 0.5]}, ValueError, r"grid runs from 0.0 to 0.5; .* t\[-1\]=1.0"),
        ({"grid": [0.1, 1.0]}, ValueError, "grid runs from 0.1"),
        ({"grid": [0.0, 0.7, 0.5, 1.0]}, ValueError, r"grid\[1\]=0.7 is followed by 0.5"),
        ({"grid": [0.0, 1.0], "step_size": 0.1}, ValueError, "step_size=0.1 or grid, not both"),
        ({"rtol": 0.0}, ValueError, "rtol must be positive and finite, got 0"),
        ({"rtol": -1e-3}, ValueError, "rtol must be positive and finite, got -0.001"),
        ({"atol": math.nan}, ValueError, "atol must be positive and finite, got nan"),
        ({"atol": torch.tensor([1e-3, 0.0])}, ValueError, "atol must be positive"),
        ({"rtol": "tight"}, TypeError, "rtol must be a float or a tensor, got 'tight'"),
        ({"atol": (1e-3, 1e-4)}, TypeError, r"atol must be a float or a tensor, got \(0\.001"),
        ({"initial_step": math.nan}, ValueError, "initial_step must be positive, got nan"),
        ({"max_step": math.nan}, ValueError, "max_step must be positive, got nan"),
        ({"min_step": math.nan}, ValueError, r"min_step must be in \[0, .* got nan"),
        ({"max_steps": 1.5}, ValueError, r"max_steps must be an integer >= 1, got 1\.5"),
        ({"initial_step": 0.0}, ValueError, "initial_step must be positive, got 0"),
        ({"max_step": -1.0}, ValueError, "max_step must be positive, got -1"),
        ({"min_step": -1.0}, ValueError, r"min_step must be in \[0, max_step=inf\], got -1"),
        ({"min_step": 1.0, "max_step": 0.5}, ValueError, "min_step must be in"),
        ({"max_steps": 0}, ValueError, "max_steps must be an integer >= 1, got 0"),
        ({"max_steps": True}, ValueError, "max_steps must be an integer >= 1, got True"),
        ({"step_size": 1e-300}, ValueError, r"step_size=1e-300 is lost to rounding at t=1\.0"),
        ({"step_size": "small"}, TypeError, "step_size must be a real number, got 'small'"),
        ({"initial_step": "x"}, TypeError, "initial_step must be a real number, got 'x'"),
        ({"min_step": None}, TypeError, "min_step must be a real number, got None"),
        ({"max_step": 1j}, TypeError, "max_step must be a real number, got 1j"),
        ({"rtol": torch.tensor(1j)}, TypeError, "rtol must be a float or a tensor, got tensor"),
        ({"rtol": torch.zeros(0)}, TypeError, "rtol must be a float or a tensor, got tensor"),
        ({"atol": torch.ones(3)}, ValueError, r"atol has shape \(3,\), which does not broadcast"),
        ({"norm": "rms"}, TypeError, "norm must be callable, got 'rms'"),
        ({"norm": torch.abs}, TypeError, r"norm must return a real 0-dim.*got one of shape \(2,\)"),
        ({"norm": lambda x: 1.0}, TypeError, "norm must return .* got float"),
        ({"controller": 0.9}, TypeError, "controller must be a StepController, got 0.9"),
        ({"callback": 3}, TypeError, "callback must be callable, got 3"),
        ({"reject_callback": []}, TypeError, r"reject_callback must be callable, got \[\]"),
        (
            {"breakpoints": "noon"},
            TypeError,
            "breakpoints must be .* times, got 'noon'",
        ),
        ({"land_on": (1j,)}, TypeError, "land_on must be a one-dimensional sequence of times"),
        ({"breakpoints": 0.5, "batch_dims": 1}, ValueError, "breakpoints must be a one-dimens"),
        ({"t": torch.tensor([0.0, 1 + 1j]), "batch_dims": 1}, TypeError, "t must be real"),
        ({"y0": Y0.to_sparse()}, TypeError, "y0 is stored as torch.sparse_coo; it must be a dense"),
        ({"method": "rk4"}, ValueError, "method 'rk4' has no error estimate.*step_size or grid"),
        ({"method": "ab3"}, ValueError, "method 'ab3' has no error estimate"),
    ],
)
def test_options(changes, error, match) -> None:
    with pytest.raises(error, match=match):
        solve(**changes)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: qf.adams(0), ValueError, "k, the number of anchors.* got 0"),
        (lambda: qf.adams(True), ValueError, "got True"),
        (lambda: qf.adams(2.0), ValueError, r"got 2\.0"),
        (lambda: qf.adams(2, "PCE"), ValueError, "correction must be .* got 'PCE'"),
        (lambda: qf.adams(2, startup="euler"), ValueError, "startup must be .* got 'euler'"),
        (lambda: qf.adams(2, forward_last=True), ValueError, "forward_last=True needs"),
        (lambda: qf.collocation(qf.gauss_legendre(2), -1), ValueError, "sweeps .* >= 0 .* got -1"),
        (lambda: qf.collocation(qf.gauss_legendre(2), 1.5), ValueError, r"sweeps .* got 1\.5"),
        (
            lambda: qf.collocation(qf.gauss_legendre(2), 0, guess="extrapolated"),
            ValueError,
            "sweeps must be an integer >= 1 with guess='extrapolated', or 'converged', got 0",
        ),
        (lambda: qf.collocation(qf.gauss_legendre(2), guess="last"), ValueError, "got 'last'"),
        (lambda: qf.register("rk4", lambda: qf.adams(1)), ValueError, "'rk4' is registered"),
        (lambda: qf.StepController(safety=0.0), ValueError, "safety must be in .* got 0"),
        (lambda: qf.StepController(min_factor=1.5), ValueError, "min_factor=1.5"),
    ],
)
def test_methods(make, error, match) -> None:
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"a": ((), (0.5, 0.5), (0, 0.5), (0, 0, 1))}, "row 1 of a has 2 entries"),
        ({"b": np.array([0.5, 0.5])}, r"b has shape \(2,\) for 4 stages"),
        ({"b": RK4.b * 1.01}, "weights b sum to 1.01"),
        ({"dense": RK4.dense * 1.01}, "interpolant at θ = 1 is not the step"),
        ({"errors": (np.array([0.1, 0, 0, 0]),)}, "error weights sum to .*0.1.*, must be 0"),
        ({"first_same_as_last": True}, "first_same_as_last needs"),
    ],
)
def test_tableaus_check_themselves(changes, match) -> None:
    dataclasses.replace(DOPRI5)  # the sound one passes
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(RK4, **changes)


def test_dense_output_misused() -> None:
    with pytest.raises(ValueError, match="dense_output=True"):
        solve()(0.5)
    solution = solve(dense_output=True)
    with pytest.raises(ValueError, match=r"t=1.5 lies outside the solved span \[0.0, 1.0\]"):
        solution(1.5)
    with pytest.raises(ValueError, match="outside"):
        solution([0.5, math.nan])
    with pytest.raises(ValueError, match="one-dimensional"):
        solution([[0.5]])
    with pytest.raises(ValueError, match="t is empty"):
        solution([])
