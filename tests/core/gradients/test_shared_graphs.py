"""Gradients by the adjoint of functions that share a graph between their evaluations: weights that
are computed before the solve, or at the first evaluation and kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import quadflow as qf

F64 = torch.float64
T = torch.tensor([0.0, 0.6, 1.5], dtype=F64)
Y0 = torch.tensor([0.5, -0.8], dtype=F64)
Function = Callable[[Tensor, Any], Any]


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64, requires_grad=True)


def square(seed: int, n: int = 2, m: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, m, generator=generator, dtype=F64) / 2).requires_grad_()


def rate() -> tuple[Function, list[Tensor]]:
    w = leaf(-0.3, 0.2)
    shared = torch.exp(w)
    return lambda t, y: -shared * y * torch.cos(t), [w]


def low_rank() -> tuple[Function, list[Tensor]]:
    u, v = square(1, 2, 1), square(2, 1, 2)
    matrix = torch.tanh(u @ v)
    return lambda t, y: torch.tanh(matrix @ y) - y, [u, v]


def skew() -> tuple[Function, list[Tensor]]:
    a = square(3)
    generator = torch.linalg.matrix_exp(a) - torch.linalg.matrix_exp(a).T
    return lambda t, y: generator @ y, [a]


def inverse() -> tuple[Function, list[Tensor]]:
    a = square(4)
    mass = torch.linalg.inv(2 * torch.eye(2, dtype=F64) + a @ a.T)
    return lambda t, y: -mass @ torch.sin(y), [a]


def mixture() -> tuple[Function, list[Tensor]]:
    logits = leaf(0.1, -0.4, 0.7)
    p = torch.softmax(logits, 0)
    return lambda t, y: p[0] * y - p[1] * y**3 + p[2] * torch.sin(t), [logits]


def labels() -> tuple[Function, list[Tensor]]:
    """A class-conditional flow, whose embedding is looked up before the solve."""
    torch.manual_seed(5)
    embedding, net = nn.Embedding(3, 2).double(), nn.Linear(4, 2).double()
    label = torch.tanh(embedding(torch.tensor(2)))
    params = [*embedding.parameters(), *net.parameters()]
    return lambda t, y: torch.tanh(net(torch.cat((y, label)))), params


def hypernetwork() -> tuple[Function, list[Tensor]]:
    torch.manual_seed(6)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6)).double()
    made = net(torch.tensor([0.3, -0.2, 0.9], dtype=F64))
    weight, bias = made[:4].reshape(2, 2), made[4:]
    return lambda t, y: torch.tanh(weight @ y + bias * t), list(net.parameters())


def controlled() -> tuple[Function, list[Tensor]]:
    """A neural CDE: cubic coefficients of a path through learned data, by a linear solve."""
    data, field = square(7, 4, 2), square(8)
    knots = torch.linspace(0, 1.5, 4, dtype=F64)
    powers = torch.linalg.solve(knots[:, None] ** torch.arange(4), torch.tanh(data))

    def func(t: Tensor, y: Tensor) -> Tensor:
        speed = powers[1] + 2 * t * powers[2] + 3 * t**2 * powers[3]
        return torch.tanh(field @ y) * speed

    return func, [data, field]


def recurrent() -> tuple[Function, list[Tensor]]:
    torch.manual_seed(9)
    encoder = nn.GRU(1, 2).double()
    _, context = encoder(torch.linspace(-1, 1, 5, dtype=F64).reshape(5, 1))
    context = context.reshape(2)
    return lambda t, y: context * y - y**3, list(encoder.parameters())


def spectrum() -> tuple[Function, list[Tensor]]:
    kernel = leaf(0.6, -0.2)
    symbol = torch.fft.fft(torch.sinh(kernel))
    return lambda t, y: -torch.fft.ifft(symbol * torch.fft.fft(y)).real, [kernel]


def pieces() -> tuple[Function, list[Tensor]]:
    """A table of weights: one of them is used for the first time late in the backward solve."""
    w = leaf(0.3, -0.5, 0.4)
    table = torch.cumsum(torch.exp(w), 0).unbind()

    def func(t: Tensor, y: Tensor) -> Tensor:
        bumps = [torch.exp(-4 * (t - c) ** 2) for c in (0.0, 0.7, 1.4)]
        near = table[0] * bumps[0] if t < 0.35 else table[0].detach() * bumps[0]
        return -(near + table[1] * bumps[1] + table[2] * bumps[2]) * y

    return func, [w]


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * gradient


def custom() -> tuple[Function, list[Tensor]]:
    w = leaf(0.9, -0.7)
    shared: Tensor = Cube.apply(w)
    return lambda t, y: Cube.apply(y) * -0.2 + shared, [w]


def checkpointed() -> tuple[Function, list[Tensor]]:
    torch.manual_seed(14)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 4)).double()
    weight = checkpoint(net, torch.ones(2, dtype=F64), use_reentrant=False).reshape(2, 2)
    return lambda t, y: torch.tanh(weight @ y), list(net.parameters())


class Kept(nn.Module):
    """Makes its weight at the first evaluation and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(square(10).detach())
        self.weight: Tensor | None = None

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if self.weight is None:
            self.weight = torch.tanh(self.raw)
        return self.weight @ y


def lazy() -> tuple[Function, list[Tensor]]:
    func = Kept()
    return func, list(func.parameters())


CASES = [rate, low_rank, skew, inverse, mixture, labels, hypernetwork, controlled, recurrent,
         spectrum, custom, checkpointed, lazy]  # fmt: skip


def loss(y: Any) -> Tensor:
    weights = torch.arange(1, y.numel() + 1, dtype=F64).reshape(y.shape)
    return (torch.sin(weights) * (y * y.conj()).real).sum()


def gradients(library: Any, case: Any, **keywords: Any) -> list[Tensor]:
    func, params = case()
    y0 = Y0.clone().requires_grad_()
    if library is not qf.odeint:
        keywords["adjoint_params"] = params
    y = library(func, y0, T, **keywords)
    return list(torch.autograd.grad(loss(y), [y0, *params], allow_unused=True))


def close(mine: Sequence[Tensor], theirs: Sequence[Tensor], bound: float) -> None:
    for a, b in zip(mine, theirs, strict=True):
        assert float((a - b).abs().max()) <= bound * float(b.abs().max())


EXACT = {
    "method": qf.collocation(qf.gauss_legendre(3), "converged"), "options": {"step_size": 0.3},
    "rtol": 1e-7, "atol": 1e-9,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_is_made_before_the_solve(case: Any) -> None:
    """The exact adjoint is the gradient of the same discrete solution by backprop, and the
    continuous one differs from it by the errors of both."""
    exact = gradients(qf.odeint, case, **EXACT)
    close(gradients(qf.odeint_adjoint, case, **EXACT), exact, 1e-11)
    continuous = {"method": "dopri5", "rtol": 1e-7, "atol": 1e-8}
    close(gradients(qf.odeint_adjoint, case, **continuous), exact, 3e-5)


@pytest.mark.parametrize("method", ["rk4", "adams", "gauss", "pec2"])
def test_every_plan(method: str) -> None:
    fixed = {"options": {"step_size": 0.02}} if method in ("rk4", "pec2") else {}
    tight = {"rtol": 1e-7, "atol": 1e-8}
    truth = gradients(qf.odeint, controlled, method="dopri8", **tight)
    mine = gradients(qf.odeint_adjoint, controlled, method=method, **tight, **fixed)
    close(mine, truth, 2e-4)


def test_as_torchdiffeq() -> None:
    settings = {"method": "dopri5", "rtol": 1e-8, "atol": 1e-9}
    theirs = gradients(torchdiffeq.odeint_adjoint, hypernetwork, **settings)
    close(gradients(qf.odeint_adjoint, hypernetwork, **settings), theirs, 1e-6)


def test_a_piece_that_is_first_met_late() -> None:
    settings = {"method": "rk4", "options": {"step_size": 0.05}}
    truth = gradients(qf.odeint, pieces, **settings)
    close(gradients(qf.odeint_adjoint, pieces, **settings), truth, 3e-3)


@pytest.mark.parametrize("exact", [False, True], ids=["continuous", "exact"])
def test_complex_and_tuple_states(exact: bool) -> None:
    """y' = -exp(w) y of two parts: the gradient is that of the formula."""

    def run(library: Any, **more: Any) -> list[Tensor]:
        size, angle = leaf(-0.4), leaf(1.1)
        shared = torch.polar(torch.exp(size), angle)
        y0 = (torch.tensor([1.0 + 0.5j], dtype=torch.complex128), 1j * Y0)
        arguments = {"adjoint_params": (size, angle)} if library is not qf.odeint else {}
        a, b = library(
            lambda t, y: (-shared * y[0], shared * y[1] - y[0]), y0, T, **arguments, **more
        )
        return list(torch.autograd.grad(loss(a) + loss(b), (size, angle)))

    settings = EXACT if exact else {"method": "dopri5", "rtol": 1e-9, "atol": 1e-10}
    close(run(qf.odeint_adjoint, **settings), run(qf.odeint, **settings), 1e-11 if exact else 1e-6)


def test_the_state_and_the_times_may_come_of_it_as_well() -> None:
    """A latent ODE: one encoding makes the first state, the field and the last time."""

    def run(library: Any) -> Tensor:
        w = leaf(0.2, 0.6)
        code = torch.exp(w)
        t = torch.stack((torch.zeros((), dtype=F64), code[0], code.sum()))
        arguments = {"adjoint_params": (w,)} if library is qf.odeint_adjoint else {}
        y = library(lambda t, y: -code * y, torch.tanh(code), t, **EXACT, **arguments)
        (loss(y) + code.square().sum()).backward()
        assert w.grad is not None
        return w.grad

    close([run(qf.odeint_adjoint)], [run(qf.odeint)], 1e-11)


# -- what adjoint_params may be ------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True], ids=["continuous", "exact"])
@pytest.mark.parametrize(
    "chosen",
    ["the source", "what is made", "both", "both, turned", "twice", "a view too", "a chain",
     "parts and whole", "one too many"],
)  # fmt: skip
def test_the_shared_tensor_or_what_it_is_made_of(chosen: str, exact: bool) -> None:
    """Each counts once, whatever the choice."""

    def run(library: Any, **more: Any) -> Tensor:
        w = leaf(-0.3, 0.2)
        rates = torch.exp(w)
        doubled = 2 * torch.sin(rates)
        parts = rates.unbind()
        params = {
            "the source": (w,), "what is made": (rates, doubled), "both": (rates, doubled, w),
            "both, turned": (w, doubled, rates), "twice": (w, w), "a view too": (w, w.view(2)),
            "a chain": (doubled, w, rates), "parts and whole": (*parts, rates, w),
            "one too many": (w, leaf(1.0).exp(), rates),
        }[chosen]  # fmt: skip
        arguments = {"adjoint_params": params} if library is qf.odeint_adjoint else {}

        def func(t: Tensor, y: Tensor) -> Tensor:
            return -rates * y + doubled * torch.sin(t) * w + parts[0] * y**2 / 5

        y = library(func, Y0, T, **more, **arguments)
        (loss(y) + rates.square().sum()).backward()
        assert w.grad is not None
        return w.grad

    settings = EXACT if exact else {"method": "dopri5", "rtol": 1e-8, "atol": 1e-9}
    found = run(qf.odeint_adjoint, **settings)
    if chosen == "what is made":  # w itself, which func uses as well, is not among them
        assert not torch.allclose(found, run(qf.odeint, **settings), rtol=1e-3)
        return
    close([found], [run(qf.odeint, **settings)], 1e-11 if exact else 1e-5)


@pytest.mark.parametrize("exact", [False, True], ids=["continuous", "exact"])
def test_cached_parametrizations(exact: bool) -> None:
    """torch computes the weight at the first evaluation, which the forward solve makes."""

    class Exponential(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.exp(x)

    def run(library: Any, **more: Any) -> list[Tensor]:
        torch.manual_seed(11)
        layer = nn.Linear(2, 2).double()
        parametrize.register_parametrization(layer, "weight", Exponential())

        class Field(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = layer

            def forward(self, t: Tensor, y: Tensor) -> Tensor:
                return torch.tanh(self.layer(y))

        func = Field()
        with parametrize.cached():
            loss(library(func, Y0, T, **more)).backward()
        return [p.grad for p in func.parameters() if p.grad is not None]

    settings = EXACT if exact else {"method": "dopri5", "rtol": 1e-8, "atol": 1e-9}
    truth = run(qf.odeint, **settings)
    assert len(truth) == 2
    close(run(qf.odeint_adjoint, **settings), truth, 1e-11 if exact else 1e-5)


# -- several backward passes ---------------------------------------------------------------------


def test_a_second_backward_of_a_retained_graph() -> None:
    func, (w,) = rate()
    y = qf.odeint_adjoint(func, Y0, T, method="dopri5", adjoint_params=(w,))
    first = torch.autograd.grad(loss(y), w, retain_graph=True)
    close(torch.autograd.grad(loss(y), w, retain_graph=True), first, 0)
    close(torch.autograd.grad(2 * loss(y), w), [2 * first[0]], 1e-6)


def test_two_solves_of_one_function() -> None:
    def run(library: Any) -> list[Tensor]:
        func, params = hypernetwork()
        arguments = {"adjoint_params": params} if library is qf.odeint_adjoint else {}
        a = library(func, Y0, T, **EXACT, **arguments)
        b = library(func, a[-1], T, **EXACT, **arguments)
        return list(torch.autograd.grad(loss(a) + loss(b), params))

    close(run(qf.odeint_adjoint), run(qf.odeint), 1e-11)


def test_the_time_of_an_event() -> None:
    """A ball falls to the ground: T = sqrt(2 h / g) with g = exp(w), h = 1 + exp(v)."""
    w, v = leaf(2.2), leaf(0.4)
    gravity, height = torch.exp(w)[0], 1 + torch.exp(v)[0]
    start = torch.stack((height, torch.zeros((), dtype=F64)))
    when, states = qf.odeint_event(
        lambda t, y: torch.stack((y[1], -gravity)), start, torch.tensor(0.0, dtype=F64),
        event_fn=lambda t, y: y[0], odeint_interface=qf.odeint_adjoint, method="dopri5",
        adjoint_params=(w,),
    )  # fmt: skip
    speed = states[-1, 1]
    by = torch.autograd.grad(when, (w, v), retain_graph=True)
    g, h = gravity.detach(), height.detach()
    close(by, [-0.5 * torch.sqrt(2 * h / g)[None], ((h - 1) / torch.sqrt(2 * h * g))[None]], 1e-6)
    # its speed there is -sqrt(2 h g)
    by = torch.autograd.grad(speed, (w, v))
    close(by, [-0.5 * torch.sqrt(2 * h * g)[None], (-(h - 1) * torch.sqrt(g / (2 * h)))[None]],
          1e-6)  # fmt: skip


# -- what it costs -------------------------------------------------------------------------------


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # the output of an operation would hold its own graph


def saved(case: Any, steps: int, **keywords: Any) -> int:
    """The most tensors that autograd keeps at a time in the backward pass, none of them after."""
    alive, peak = weakref.WeakSet[_Saved](), 0

    def pack(tensor: Tensor) -> _Saved:
        nonlocal peak
        kept = _Saved(tensor)
        alive.add(kept)
        peak = max(peak, len(alive))
        return kept

    func, params = case()
    y0 = Y0.clone().requires_grad_()
    gc.disable()  # nothing may wait for it
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            y = qf.odeint_adjoint(
                func, y0, T[:2], adjoint_params=params, options={"step_size": 0.7 / steps},
                **keywords,
            )  # fmt: skip
            torch.autograd.grad(loss(y), [y0, *params])
        del y
        assert not alive
    finally:
        gc.enable()
    return peak


@pytest.mark.parametrize("case", [rate, hypernetwork, controlled])
@pytest.mark.parametrize("method", ["rk4", "gauss3", EXACT["method"]], ids=str)
def test_the_graph_of_an_evaluation_goes_with_it(case: Any, method: Any) -> None:
    few, many = (saved(case, steps, method=method) for steps in (2, 8))
    assert few == many < 60


def test_the_first_evaluation_is_no_further_one() -> None:
    calls = 0

    def counted(library: Any) -> int:
        nonlocal calls
        calls, (func, (w,)) = 0, rate()

        def counting(t: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return func(t, y)

        arguments = {"adjoint_params": (w,)} if library is qf.odeint_adjoint else {}
        y = library(counting, Y0, T, method="dopri5", **arguments)
        assert y.requires_grad
        return calls

    assert counted(qf.odeint) == counted(qf.odeint_adjoint)


# -- compiled functions --------------------------------------------------------------------------


def _donating(shared: bool) -> tuple[Function, list[Tensor]]:
    """A func whose graph refuses to be kept, as those of torch.compile do with what they donate."""
    w = leaf(-0.3, 0.2)
    weights = torch.exp(w)

    class Donating(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor, rates: Tensor) -> Tensor:
            ctx.save_for_backward(y, rates)
            return -y * rates

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
            if torch._C._autograd._get_current_graph_task_keep_graph():
                raise RuntimeError("compiled with non-empty donated buffers which requires ...")
            y, rates = ctx.saved_tensors
            return -gradient * rates, -gradient * y

    return lambda t, y: Donating.apply(y, weights if shared else torch.exp(w)), [w]


def test_a_compiled_function_whose_graph_cannot_be_kept() -> None:
    settings = {"method": "dopri5", "rtol": 1e-8, "atol": 1e-9}
    truth = gradients(qf.odeint, lambda: _donating(False), **settings)
    close(gradients(qf.odeint_adjoint, lambda: _donating(False), **settings), truth, 1e-6)
    with pytest.raises(RuntimeError, match="give adjoint_params these tensors themselves"):
        gradients(qf.odeint_adjoint, lambda: _donating(True), **settings)


def test_parameters_apart_are_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that one node made, as replicas have them, are no sources of one another: their graph
    is walked once, not once for each."""
    from quadflow.gradients import adjoint as module

    walks = 0

    def counting(tensors: Sequence[Tensor], walk: Any = module._edges_behind) -> Any:
        nonlocal walks
        walks += 1
        return walk(tensors)

    monkeypatch.setattr(module, "_edges_behind", counting)
    w = leaf(*[0.1 * i for i in range(8)])
    parts = torch.sinh(w).unbind()
    y = qf.odeint_adjoint(
        lambda t, y: -sum(parts) * y, Y0, T, method="rk4", options={"step_size": 0.1},
        adjoint_params=parts,
    )  # fmt: skip
    torch.autograd.grad(loss(y), w)
    assert walks == 1


@pytest.mark.slow
def test_torch_compile() -> None:
    def compiled() -> tuple[Function, list[Tensor]]:
        torch.manual_seed(12)
        net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        run = torch.compile(net)
        return lambda t, y: run(y), list(net.parameters())

    def of_compiled_weights(library: Any) -> list[Tensor]:
        torch.manual_seed(13)
        net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double()
        weight = torch.compile(net)(torch.ones(3, dtype=F64)).reshape(2, 2)
        arguments = {"adjoint_params": (weight,)} if library is qf.odeint_adjoint else {}
        y = library(lambda t, y: torch.tanh(weight @ y), Y0, T, **settings, **arguments)
        return list(torch.autograd.grad(loss(y), list(net.parameters())))

    settings = {"method": "dopri5", "rtol": 1e-8, "atol": 1e-9}
    truth = gradients(qf.odeint, compiled, **settings)
    close(gradients(qf.odeint_adjoint, compiled, **settings), truth, 1e-6)
    close(of_compiled_weights(qf.odeint_adjoint), of_compiled_weights(qf.odeint), 1e-6)
