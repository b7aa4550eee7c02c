"""Every sample on steps of its own: the solves that each would have had alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from host_waits import CountWaits
from torch import Tensor

import quadflow as qf

MU = torch.tensor([0.5, 1.0, 20.0, 3.0], dtype=torch.float64)
Y0 = torch.tensor([[2.0, 0.0], [1.0, 0.3], [2.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
SINGLE = qf.collocation(qf.gauss_legendre(6), 1, guess="extrapolated", most_sweeps=3)
T = torch.tensor([0.0, 1.0, 2.5, 6.0], dtype=torch.float64)
METHODS = ["dopri5", "tsit5", "dopri8", "bosh3", "heun", "gauss4", "radau3", "gauss", "lobatto"]
MORE_METHODS = {
    "constant": qf.collocation(qf.gauss_legendre(4), 5),
    "constant and refined": qf.collocation(qf.gauss_lobatto(5), 3, most_sweeps=7),
    "without a start": qf.collocation(qf.gauss_lobatto(4), guess="extrapolated", most_sweeps=5),
}


def oscillator(mu: Tensor):
    def f(t: Tensor, y: Tensor) -> Tensor:
        x, v = y[..., :1], y[..., 1:]
        return torch.cat((v, mu[:, None] * (1 - x * x) * v - x + 0.1 * torch.sin(t)), -1)

    return f


def counts(solution: qf.Solution) -> np.ndarray:
    stats = solution.stats
    return np.array([stats.accepted, stats.rejected, stats.refined])


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", [*METHODS, *MORE_METHODS])
def test_equals_the_solves_alone(name: str, backward: bool) -> None:
    mu, times = (-MU, -T) if backward else (MU, T)
    tol = 1e-4 if name in ("bosh3", "heun", "radau3") else 1e-7
    # a rounding in y0 moves those on eight nodes by up to 4e-8 here: extrapolation amplifies it
    near = 1e-7 if name in ("gauss", "lobatto") else 1e-10
    method = MORE_METHODS.get(name, name)
    how = {"method": method, "rtol": tol, "atol": tol, "dense_output": True}
    together = qf.solve(oscillator(mu), Y0, times, batch_dims=1, **how)
    assert together.success and together.y.shape == (4, 4, 2) and together.t.shape == (4, 4)
    steps = np.zeros(3, int)
    for i in range(4):
        alone = qf.solve(oscillator(mu[i : i + 1]), Y0[i : i + 1], times, **how)
        steps += counts(alone)
        assert (together.y[:, i] - alone.y[:, 0]).abs().max() < near
        between = [float(times[0] + x * (times[-1] - times[0])) for x in (0.01, 0.4, 0.77, 1.0)]
        assert (together(between)[:, i] - alone(between)[:, 0]).abs().max() < near
    assert np.abs(counts(together) - steps).max() <= (2 if near > 1e-10 else 0)


@pytest.mark.parametrize("method", ["heun", "gauss", "lobatto", "gauss4", *MORE_METHODS.values()])
def test_a_first_interval_that_some_samples_repeat(method: str | qf.Method) -> None:
    """Collocation takes more sweeps there, and another estimate, than in later intervals."""
    how = {"method": method, "rtol": 1e-6, "atol": 1e-6, "initial_step": 0.3, "batch_dims": 1,
           "dense_output": True}  # fmt: skip
    times = (0.0, 0.1, 0.4)
    together = qf.solve(oscillator(MU), Y0, times, **how)
    steps, how = np.zeros(3, int), {**how, "batch_dims": 0}
    firsts = []
    for i in range(4):
        alone = qf.solve(oscillator(MU[i : i + 1]), Y0[i : i + 1], times, **how)
        steps += counts(alone)
        firsts.append(alone.steps[1])
        assert (together.y[:, i] - alone.y[:, 0]).abs().max() < 1e-9
    assert len(set(firsts)) > 1  # some rejected it, and some did not
    assert (counts(together) == steps).all()


@pytest.mark.parametrize("method", ["dopri5", "gauss", "lobatto"])
def test_a_batch_of_oscillators_keeps_its_tolerance(method: str) -> None:
    mu = torch.logspace(np.log10(0.5), np.log10(20.0), 24, dtype=torch.float64)
    y0 = torch.stack((2.0 - mu / 40, torch.linspace(-1, 1, 24).double()), -1)
    how = {"rtol": 1e-6, "atol": 1e-8, "batch_dims": 1}
    found = qf.solve(oscillator(mu), y0, (0.0, 2.0, 4.0), method=method, **how)
    exact = qf.solve(oscillator(mu), y0, (0.0, 2.0, 4.0), method="dopri8", rtol=1e-10, atol=1e-12)
    assert ((found.y - exact.y).abs() / (1e-6 * exact.y.abs() + 1e-8)).max() < 60


@pytest.mark.parametrize("method", ["dopri5", "gauss", "lobatto4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_other_dtypes(method: str, dtype: torch.dtype) -> None:
    """Rotations, each with a rate of its own; real ones in two components."""
    rates, times = torch.tensor([0.3, 2.0, 7.0]), (0.0, 1.0, 3.0)
    if dtype.is_complex:
        y0 = torch.ones(3, dtype=dtype)

        def f(t: Tensor, y: Tensor) -> Tensor:
            assert t.dtype is y.real.dtype and t.shape[-1:] == (3,)
            return 1j * rates.to(y.real.dtype) * y
    else:
        y0 = torch.tensor([[1.0, 0.0]] * 3, dtype=dtype)

        def f(t: Tensor, y: Tensor) -> Tensor:
            assert t.dtype is dtype and t.shape[-2:] == (3, 1)
            return rates[:, None] * torch.stack((-y[..., 1], y[..., 0]), -1)

    solution = qf.solve(f, y0, times, method=method, rtol=1e-4, atol=1e-4, batch_dims=1,
                        dense_output=True)  # fmt: skip
    assert solution.y.dtype is dtype
    asked = torch.tensor([*times, 0.7, 2.9], dtype=torch.float64)
    exact = torch.exp(1j * rates.double() * asked[:, None])
    got = torch.cat((solution.y, solution([0.7, 2.9])))
    got = got if dtype.is_complex else torch.view_as_complex(got)
    assert (got.to(torch.complex128) - exact).abs().max() < 2e-3


def test_lorenz() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        a, b, c = y.unbind(-1)
        return torch.stack((10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c), -1)

    y0 = torch.tensor([[1.0, 1.0, 1.0], [-8.0, 8.0, 27.0], [0.1, 0.0, 40.0]], dtype=torch.float64)
    times = torch.tensor([[0.0, 0.0, 1.0], [1.0, 2.0, 1.1], [4.0, 3.0, 1.2]], dtype=torch.float64)
    how = {"method": "gauss", "rtol": 1e-8, "atol": 1e-8}
    together = qf.solve(f, y0, times, batch_dims=1, **how)
    for i in range(3):
        alone = qf.solve(f, y0[i : i + 1], times[:, i], **how)
        assert (together.y[:, i] - alone.y[:, 0]).abs().max() < 1e-7


def test_one_synchronisation_a_try() -> None:
    """From the second interval on a sweep is a try, so waits grow as calls do."""
    found = []
    for tol in (1e-4, 1e-8):
        with CountWaits() as counter:
            solution = qf.solve(
                oscillator(MU / 8), Y0, T, method=SINGLE, rtol=tol, atol=tol, batch_dims=1,
                initial_step=1e-3, node_evaluation="broadcast",
            )  # fmt: skip
        found.append((counter.waits, solution.stats.calls))
        assert solution.stats.refined > 0
    assert found[1][1] > found[0][1] + 20
    assert found[1][0] - found[0][0] == found[1][1] - found[0][1]


@pytest.mark.parametrize("method", ["dopri5", "gauss"])
def test_own_times_and_tolerances(method: str) -> None:
    times = torch.stack([T, 0.5 * T, 0.1 + 0.3 * T, 2 * T], dim=1)
    rtol = torch.tensor([1e-3, 1e-6, 1e-9, 1e-5], dtype=torch.float64)
    if method == "gauss":  # the nodes are those of the least tolerance
        method = qf.get_method(method).for_tolerance(1e-9)
        method = dataclasses.replace(method, family=None)
    together = qf.solve(oscillator(MU), Y0, times, method=method, rtol=rtol, atol=rtol,
                        batch_dims=1, dense_output=True)  # fmt: skip
    near = 1e-10 if method == "dopri5" else 3e-8
    for i in range(4):
        alone = qf.solve(oscillator(MU[i : i + 1]), Y0[i : i + 1], times[:, i], method=method,
                         rtol=float(rtol[i]), atol=float(rtol[i]))  # fmt: skip
        assert (together.y[:, i] - alone.y[:, 0]).abs().max() < near
        assert (together(times)[:, i] - together.y[:, i]).abs().max() < 1e-12


@pytest.mark.parametrize("method", ["dopri5", "gauss", "lobatto5"])
def test_a_failing_sample_leaves_the_others_alone(method: str) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        return y * y

    y0 = torch.tensor([[0.1], [1.0], [0.2]], dtype=torch.float64)
    solution = qf.solve(f, y0, (0.0, 0.5, 2.0), method=method, batch_dims=1, throw=False)
    assert [s is qf.Status.SUCCESS for s in solution.statuses] == [True, False, True]
    assert "sample 1" in solution.message and "t=1" in solution.messages[1]
    exact = y0 / (1 - y0 * torch.tensor([[0.5, 2.0]], dtype=torch.float64))
    for i in (0, 2):
        assert (solution.y[1:, i, 0] - exact[i]).abs().max() < 1e-6
        alone = qf.solve(f, y0[i : i + 1], (0.0, 0.5, 2.0), method=method)
        assert (solution.y[:, i] - alone.y[:, 0]).abs().max() < 1e-10
    assert torch.isfinite(solution.y[1, 1]).all() and torch.isnan(solution.y[2, 1]).all()
    with pytest.raises(qf.SolveError, match="1 of 3 samples"):
        qf.solve(f, y0, (0.0, 2.0), method=method, batch_dims=1)


@pytest.mark.parametrize("method", ["dopri8", "gauss", "lobatto4", MORE_METHODS["constant"]])
@pytest.mark.parametrize("at", [0.0, 0.02, 1.3])
def test_a_sample_that_is_nan_from_some_time_on(method: str | qf.Method, at: float) -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        v = oscillator(MU)(t, y)
        bad = (torch.arange(4) == 1)[:, None] & (t >= at)
        return torch.where(bad, torch.nan, v)

    how = {"method": method, "rtol": 1e-6, "atol": 1e-6}
    solution = qf.solve(f, Y0, T, batch_dims=1, throw=False, **how)
    assert [s.name for s in solution.statuses] == [
        "SUCCESS", "NON_FINITE", "SUCCESS", "SUCCESS"
    ]  # fmt: skip
    assert f"t={at:.3g}"[:6] in solution.messages[1] and "sample 1" in solution.messages[1]
    reached = 1 + int(at)
    assert torch.isfinite(solution.y[:reached, 1]).all()
    assert torch.isnan(solution.y[reached:, 1]).all()
    undisturbed = qf.solve(oscillator(MU), Y0, T, batch_dims=1, **how)
    others = [0, 2, 3]
    assert torch.equal(solution.y[:, others], undisturbed.y[:, others])


@pytest.mark.parametrize("method", ["dopri5", "gauss", "gauss4", "lobatto4"])
def test_gradients(method: str) -> None:
    """Every sample has its gradient, also beside one whose trials were not finite on the way."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return -5 * y * torch.sqrt(y)  # NaN, and its derivative, where a long try makes y negative

    y0 = torch.tensor([[0.05], [0.8], [3.0]], dtype=torch.float64, requires_grad=True)
    solution = qf.solve(f, y0, (0.0, 1.0), method=method, batch_dims=1, initial_step=1.0)
    assert solution.stats.rejected > 0
    (gradient,) = torch.autograd.grad(solution.y[-1].sum(), y0)
    start = y0.detach()
    assert (gradient - (1 + 2.5 * start.sqrt()) ** -3).abs().max() < 1e-6


def test_times_for_tuples_of_many_axes() -> None:
    """They broadcast against the tensors, not against the joined state."""

    def f(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        assert t.shape == (4, 1, 1)
        return -y[0] * t, torch.cos(t).expand_as(y[1])

    y0 = (Y0[:, None, :], Y0[:, None, :1].abs())
    solution = qf.solve(f, y0, T, method="dopri5", batch_dims=1)
    times = T[:, None, None, None]
    assert (solution.y[0] - y0[0] * torch.exp(-(times**2) / 2)).abs().max() < 1e-6
    assert (solution.y[1] - y0[1] - torch.sin(times)).abs().max() < 1e-6


def test_tuple_states() -> None:
    def f(t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return y[1].sum(-1, keepdim=True) - y[0], -y[1] * t

    y0 = (Y0[:, :1], Y0.abs())
    solution = qf.solve(f, y0, T, method="dopri5", batch_dims=1)
    assert solution.y[0].shape == (4, 4, 1) and solution.y[1].shape == (4, 4, 2)
    exact = Y0.abs() * torch.exp(-(T[:, None, None] ** 2) / 2)
    assert (solution.y[1] - exact).abs().max() < 1e-6


@pytest.mark.parametrize("mode", ["broadcast", "vmap", "loop"])
@pytest.mark.parametrize("name", ["gauss3", "lobatto"])
def test_nodes_are_evaluated_alike_in_every_mode(name: str, mode: str) -> None:
    """Node times are one a sample, (4, 1) a node, and "auto" finds that they may be joined."""
    shapes: set[int] = set()

    def f(t: Tensor, y: Tensor) -> Tensor:
        assert t.shape == (*y.shape[:-1], 1)
        shapes.add(t.dim())
        return oscillator(MU)(t, y)

    how = {"method": name, "rtol": 1e-4, "atol": 1e-4, "batch_dims": 1}
    found = qf.solve(f, Y0, (0.0, 1.0), node_evaluation=mode, **how)
    assert shapes == ({2, 3} if mode == "broadcast" else {2})
    auto = qf.solve(f, Y0, (0.0, 1.0), **how)
    assert auto.stats.node_evaluation == "broadcast"
    assert (found.y - auto.y).abs().max() < 1e-8


def test_nodes_that_are_mixed_through_their_times_are_found_out() -> None:
    def f(t: Tensor, y: Tensor) -> Tensor:
        late = t > 1.5
        # of all nodes of a sample, not of all samples
        return -y * (late.any(0) if t.dim() > 2 else late).to(y.dtype)

    solution = qf.solve(f, Y0, (0.0, 1.0, 2.0), method="gauss3", batch_dims=1)
    assert solution.stats.node_evaluation == "vmap"


@pytest.mark.parametrize("method", ["dopri5", "lobatto"])
def test_times_have_the_axes_of_the_largest_of_several_tensors(method: str) -> None:
    def f(t: Tensor, y: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"flat": -y["flat"] * t.squeeze(-1), "square": y["square"] * torch.cos(t)}

    y0 = {"flat": Y0, "square": torch.arange(16.0).double().reshape(4, 2, 2)}
    times = torch.stack((torch.zeros(4), 1 + torch.arange(4)), 0).double()
    solution = qf.solve(f, y0, times, method=method, batch_dims=1)
    exact = Y0 * torch.exp(-(times[1][:, None] ** 2) / 2)
    assert (solution.y["flat"][-1] - exact).abs().max() < 1e-6
    exact = y0["square"] * torch.exp(torch.sin(times[1]))[:, None, None]
    assert (solution.y["square"][-1] - exact).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"method": "rk4"}, "no error estimate .* Take an adaptive Runge-Kutta method"),
        ({"method": qf.collocation(qf.gauss_legendre(3), "converged")}, "no error estimate"),
        ({"method": "adams"}, "looks back on the anchors .* adaptive collocation such as 'gauss'"),
        ({"method": "pece3"}, "looks back on the anchors"),
        ({"step_size": 0.1}, "step_size is not available with batch_dims=1"),
        ({"batch_dims": 2}, "batch_dims must be 0 or 1, got 2"),
        ({"t": torch.zeros(3, 5)}, r"it must be \(T,\) or \(T, 4\)"),
        ({"t": torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0]])}, "for all samples"),
        ({"t": [0.0, np.inf]}, "not finite"),
    ],
)
def test_bad_input(arguments: dict, match: str) -> None:
    given = {"t": T, "method": "dopri5", "batch_dims": 1, **arguments}
    with pytest.raises(ValueError, match=match):
        qf.solve(oscillator(MU), Y0, **given)
