"""solve(compile=...): the same numbers and counts, one graph a kind of try, none a step."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quadflow as qf
from quadflow.compiled.step import _KERNELS
from quadflow.rules.tableau import Tableau

Y0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
AOT = {"backend": "aot_eager"}


class Graphs:
    """A backend that runs graphs as they are, and counts those that it was given."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.made += 1
        return graph.forward


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    torch._dynamo.reset()
    yield


def f(t: Tensor, y: Tensor) -> Tensor:
    first, second = y.unbind(-1)
    return torch.stack((1.5 * first - first * second, first * second - 3 * second), -1)


def driven(t: Tensor, y: Tensor) -> Tensor:
    return -y * y.flip(-1) * torch.cos(t)


def van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    first, second = y.unbind(-1)
    return torch.stack((second, 5 * (1 - first**2) * second - first), -1)


def solve(*arguments: Any, **named: Any) -> qf.Solution:
    """By dopri5 where no method is named; the default method has no compiled step."""
    return qf.solve(*arguments, **{"method": "dopri5", **named})


def counted(stats: qf.Statistics) -> tuple[int, ...]:
    return stats.nfe, stats.calls, stats.accepted, stats.rejected, stats.refined


@pytest.mark.parametrize("method, graphs", [("dopri5", 1), ("gauss", 2), ("lobatto", 2)])
def test_adaptive_steps_compile_once_and_never_again(method: str, graphs: int) -> None:
    """Hundreds of steps, rejected and refined ones among them, and more solves at other tolerances
    and times: as many graphs as there are kinds of tries."""
    backend = Graphs()
    for rtol, end in ((1e-5, 20.0), (1e-5, 20.0), (3e-6, 13.0)):
        arguments = {"method": method, "rtol": rtol, "atol": rtol, "node_evaluation": "broadcast"}
        plain = qf.solve(van_der_pol, Y0, (0.0, end), **arguments)
        got = qf.solve(van_der_pol, Y0, (0.0, end), compile={"backend": backend}, **arguments)
        assert got.stats.accepted > 100
        assert got.stats.rejected + got.stats.refined > 5
        torch.testing.assert_close(got.y, plain.y, rtol=rtol, atol=rtol)
    assert backend.made == graphs


def test_a_start_that_is_not_known_is_a_graph_of_its_own() -> None:
    """Heun with an estimate: the start's velocity is known after a rejected step alone."""
    tableau = Tableau(
        a=((), (1.0,)), b=np.array([0.5, 0.5]), order=2,
        dense=np.array([[1.0, -0.5], [0.0, 0.5]]), dense_order=2,
        errors=(np.array([-0.5, 0.5]),), error_order=2,
    )  # fmt: skip

    def jumps(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(torch.sin(8 * t) > 0, y, -y)

    backend = Graphs()
    arguments = {"method": qf.stages(tableau), "rtol": 1e-4, "atol": 1e-4}
    plain = qf.solve(jumps, Y0, (0.0, 2.0), **arguments)
    got = qf.solve(jumps, Y0, (0.0, 2.0), compile={"backend": backend}, **arguments)
    assert plain.stats.rejected > 5
    assert counted(got.stats) == counted(plain.stats)
    assert backend.made == 2


def test_dynamo_compiles_no_more_than_the_first_steps() -> None:
    from torch._dynamo.utils import counters

    def solve(end: float) -> None:
        qf.solve(f, Y0, (0.0, end), method="dopri5", step_size=0.01, compile={"backend": "eager"})

    counters.clear()
    solve(2.0)
    assert counters["stats"]["unique_graphs"] == 1
    for _ in range(3):  # a first step, whose start's velocity is not known, is another graph
        solve(5.0)
        assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


CASES: dict[str, tuple[Callable[..., Any], Any, dict[str, Any]]] = {
    "dopri8": (driven, Y0, {"method": "dopri8"}),
    "a tableau of one's own": (driven, Y0, {"method": qf.stages(Tableau(
        [[], [1.0]], [0.5, 0.5], 2, [[1, -0.5], [0, 0.5]], 2, [-0.5, 0.5], 2
    )), "rtol": 1e-4, "atol": 1e-4}),
    "rk4, fixed": (driven, Y0, {"method": "rk4", "step_size": 0.1}),
    "gauss4, fixed": (driven, Y0, {"method": "gauss4", "step_size": 0.1}),
    "constant guess": (
        driven, Y0, {"method": qf.collocation(qf.radau_right(3), 2), "step_size": 0.1}
    ),
    "lobatto, looped nodes": (driven, Y0, {"method": "lobatto4", "step_size": 0.1,
                                           "node_evaluation": "loop"}),
    "float32": (driven, Y0.float(), {"rtol": 1e-4, "atol": 1e-4, "max_step": 0.1}),
    "complex": (lambda t, y: 1j * y * torch.cos(t), Y0 + 1j, {}),
    "tuple": (lambda t, s: (s[1] * t, -s[0]), (Y0, Y0.clone()), {}),
    "dict": (lambda t, s: {"a": s["b"], "b": -s["a"]}, {"a": Y0, "b": Y0.clone()}, {}),
    "args": (lambda t, y, k, p: -k * y**p, Y0, {"args": (torch.tensor(2.0), 2)}),
    "per sample": (lambda t, y: -y * t, torch.rand(5, 3) + 0.5, {"batch_dims": 1}),
    "tolerance tensors": (driven, Y0, {"rtol": torch.tensor([1e-5, 1e-8])}),
    "norm": (driven, Y0, {"norm": lambda x: x.abs().amax()}),
    "breakpoint": (lambda t, y: torch.where(t < 0.5, y, -y), Y0, {"breakpoints": [0.5]}),
    "dense output": (driven, Y0, {"t": (0.0, 0.3, 0.7, 1.0), "method": "dopri8"}),
    "backward in time": (driven, Y0 / 4, {"t": (1.0, 0.0)}),
    "half": (driven, Y0.half(), {"accumulation_dtype": torch.float32, "step_size": 0.1}),
    "event": (driven, Y0, {"events": lambda t, y: y[0] - 0.8}),
    "not contiguous": (driven, torch.stack((Y0, Y0), 1)[:, 0], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers_and_counts(name: str) -> None:
    """Twice: the second solve finds its kernels, and runs no try uncompiled."""
    func, y0, arguments = CASES[name]
    arguments = {"t": (0.0, 1.0), "method": "dopri5", **arguments}
    plain = qf.solve(func, y0, **arguments)
    for _ in range(2):
        got = qf.solve(func, y0, compile=AOT, **arguments)
        assert counted(got.stats) == counted(plain.stats)
        torch.testing.assert_close(
            got.y, plain.y, rtol=1e-12 if name != "float32" else 1e-6, atol=0
        )
        assert len(got.t_events) == len(plain.t_events)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(y) * torch.cos(t)


@pytest.mark.parametrize("method", ["dopri5", "gauss"])
def test_gradients_pass_through(method: str) -> None:
    torch.manual_seed(0)
    net = Net()

    def gradients(**arguments: Any) -> list[Tensor]:
        y0 = Y0.clone().requires_grad_()
        y = qf.solve(net, y0, (0.0, 3.0), method=method, rtol=1e-6, atol=1e-6, **arguments).y
        return list(torch.autograd.grad(y[-1].square().sum(), [y0, *net.parameters()]))

    plain = gradients()
    for _ in range(2):
        # what the backward pass wants is computed again from the inputs, as with inductor
        found = gradients(compile={"backend": "aot_eager_decomp_partition"})
        torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)


def test_weights_that_change_are_seen() -> None:
    """Between solves, in place and as new tensors, and within a solve by a callback."""
    net = Net()
    with torch.no_grad():
        solve(net, Y0, (0.0, 1.0), compile=AOT)
        for parameter in net.parameters():
            parameter.mul_(0.5)
        net.net[0].bias = nn.Parameter(torch.ones(8, dtype=torch.float64))
        got = solve(net, Y0, (0.0, 1.0), compile=AOT).y
        torch.testing.assert_close(got, solve(net, Y0, (0.0, 1.0)).y)

    switch = {"sign": 1.0}

    def switched(t: Tensor, y: Tensor) -> Tensor:
        return switch["sign"] * y

    def flip(t: float, y: Tensor) -> None:
        switch["sign"] = 1.0 if t < 0.5 else -1.0

    def end(**arguments: Any) -> Tensor:
        switch["sign"] = 1.0
        return solve(
            switched, Y0, (0.0, 1.0), method="rk4", step_size=0.05, callback=flip, **arguments
        ).y

    torch.testing.assert_close(end(compile=AOT), end())


def test_kernels_live_as_long_as_func() -> None:
    def inner() -> Any:
        def local(t: Tensor, y: Tensor) -> Tensor:
            return -y

        solve(local, Y0, (0.0, 1.0), compile={"backend": "eager"})
        assert local in _KERNELS
        return weakref.ref(local)

    kept = inner()
    gc.collect()
    assert kept() is None

    class Model:
        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return -y

    model, backend = Model(), Graphs()
    for _ in range(2):
        solve(model.f, Y0, (0.0, 1.0), compile={"backend": backend})
    assert backend.made == 1


def decides(t: Tensor, y: Tensor) -> Tensor:
    return -y if y.norm() > 1 else y


def remembers(t: Tensor, y: Tensor) -> Tensor:
    remembers.calls += 1  # type: ignore[attr-defined]
    return -y


remembers.calls = 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("func", [decides, remembers])
def test_what_is_not_one_graph_is_refused(func: Callable[..., Any]) -> None:
    with pytest.raises(qf.CompileError, match=rf"compile=.*func={func.__name__}"):
        qf.solve(func, Y0, (0.0, 1.0), step_size=0.05, compile={"backend": "eager"})


def test_errors_of_func_stay_themselves() -> None:
    """Its output is checked in a first try, uncompiled."""
    with pytest.raises(qf.VelocityError, match="shape"):
        solve(lambda t, y: y[:1], Y0, (0.0, 1.0), compile=AOT)
    singular = solve(lambda t, y: y**2, Y0, (0.0, 2.0), compile=AOT, throw=False)
    assert singular.status in (qf.Status.STEP_COLLAPSE, qf.Status.NON_FINITE)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"compile": "inductor"}, TypeError, "compile must be True, False or a dict"),
        ({"compile": {"dynamic": True}}, ValueError, "fixed shapes"),
        ({"compile": {"fullgraph": False}}, ValueError, "one graph"),
        ({"compile": True, "method": "adams"}, ValueError, "method 'adams'"),
        ({"compile": True, "method": None}, ValueError, "take a .* such as method='dopri8'"),
        (
            {"compile": True, "method": qf.collocation(qf.gauss_legendre(2), "converged"),
             "step_size": 0.1},
            ValueError, "converged",
        ),
        ({"compile": True, "method": "gauss", "batch_dims": 1}, ValueError, "batch_dims=1"),
        (
            {"compile": True, "t": torch.tensor([0.0, 1.0], requires_grad=True)},
            ValueError, "t requires grad",
        ),
    ],
)  # fmt: skip
def test_bad_requests(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        solve(driven, Y0, **{"t": (0.0, 1.0), **arguments})


def test_transforms_of_torch_func_are_refused() -> None:
    def end(y0: Tensor) -> Tensor:
        return solve(driven, y0, (0.0, 1.0), compile=AOT).y[-1]

    with pytest.raises(ValueError, match=r"torch\.func"):
        torch.func.vmap(end)(torch.stack((Y0, Y0)))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor wants a C++ compiler")
@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "dopri5", "rtol": 1e-6, "atol": 1e-6},
        {"method": "gauss4", "step_size": 0.05, "node_evaluation": "broadcast"},
    ],
)
def test_inductor(arguments: dict[str, Any]) -> None:
    """The real compiler, to rounding."""
    plain = qf.solve(f, Y0, (0.0, 5.0), **arguments)
    for _ in range(2):
        got = qf.solve(f, Y0, (0.0, 5.0), compile=True, **arguments)
        assert counted(got.stats) == counted(plain.stats)
        torch.testing.assert_close(got.y, plain.y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "gauss", "lobatto", "gauss4"])
def test_compiled_steps_notice_stiffness_as_others_do(method: str) -> None:
    """From stages, twins and pairs of sweeps that a graph does not bring unless they are wanted."""

    def relaxation(t: Tensor, y: Tensor) -> Tensor:
        return -1e4 * (y - torch.cos(t))

    start = torch.ones(2, dtype=torch.float64)
    arguments = {"method": method, "rtol": 1e-4, "atol": 1e-4, "node_evaluation": "broadcast"}
    plain, got = (
        qf.solve(
            relaxation,
            start,
            (0.0, 10.0),
            on_stiff="stop",
            throw=False,
            compile=compile,
            **arguments,
        )
        for compile in (False, AOT)
    )
    assert plain.status is got.status is qf.Status.STIFF
    # the noise of steps at the limit of stability is not the same to the last bit
    assert abs(got.stats.accepted - plain.stats.accepted) <= 50
    assert got.stats.accepted <= 150
