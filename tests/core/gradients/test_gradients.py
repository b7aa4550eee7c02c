"""Gradients of a solve: the adjoint equation, backprop and torch.func, against one another, against
finite differences and against torchdiffeq."""

from __future__ import annotations

import warnings
import weakref

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

import quadflow as qf

F64 = torch.float64


def on_last_axis(t: Tensor) -> Tensor:
    """A time (0-dimensional or one a node) as it broadcasts against y[..., 0]."""
    return t.reshape(t.shape[:1] if t.dim() else ())


class Pendulum(nn.Module):
    """Driven pendulum with four parameters: nonlinear, non-autonomous, on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stiffness = nn.Parameter(torch.tensor([1.3, 0.4], dtype=F64))
        self.drive = nn.Parameter(torch.tensor([0.7, 1.9], dtype=F64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        drive = self.drive[0] * torch.sin(self.drive[1] * on_last_axis(t))
        force = -self.stiffness[0] * torch.sin(y[..., 0]) - self.stiffness[1] * y[..., 1]
        return torch.stack((y[..., 1], force + drive), -1)


class Network(nn.Module):
    """A small neural ODE that sees the time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 2)).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat((y, torch.sin(3 * t).expand(*y.shape[:-1], 1)), -1))


Y0 = torch.tensor([0.5, -0.3], dtype=F64)
T = torch.tensor([0.0, 0.8, 1.9, 2.5], dtype=F64)
BATCH = torch.linspace(-1, 1, 10, dtype=F64).reshape(5, 2)


def loss(y: Tensor) -> Tensor:
    """Depends on every state at every time, differently."""
    weights = torch.arange(1, y.numel() + 1, dtype=y.real.dtype).reshape(y.shape)
    return (torch.sin(weights) * (y * y.conj() if y.is_complex() else y**2 + y)).real.sum()


def gradients(library, func, y0, t, *, in_time: bool = True, **keywords) -> list[Tensor]:
    """Gradients in y0, t (where asked for) and func's parameters."""
    y0, t = y0.clone().requires_grad_(), t.clone().requires_grad_(in_time)
    wanted = [y0, *([t] if in_time else []), *func.parameters()]
    return list(torch.autograd.grad(loss(library(func, y0, t, **keywords)), wanted))


def worst(mine: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference, relative to the largest entry of its tensor."""
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(mine, theirs, strict=True)
    )


# -- every method --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact() -> list[Tensor]:
    return gradients(qf.odeint, Pendulum(), Y0, T[:2], method="dopri8", rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", sorted(n for n, m in qf.methods().items() if m.order))
def test_adjoint_and_backprop_agree_at_fixed_steps(name: str, exact: list[Tensor]) -> None:
    """Both have an error of the method's order p, (c h)^p; so they differ by no more."""
    method, h = qf.methods()[name], 0.1
    constant = 2.75 if isinstance(method, qf.AnchorsMethod) else 1.5
    bound = max((constant * h) ** (method.order or 0), 1e-12)
    for library in (qf.odeint, qf.odeint_adjoint):
        arguments = {"method": method, "options": {"step_size": h}}
        assert worst(gradients(library, Pendulum(), Y0, T[:2], **arguments), exact) < bound


ADAPTIVE = sorted(name for name, method in qf.methods().items() if method.error_order)
QUICK = {"heun", "bosh3", "dopri5", "dopri8", "pec3", "pece4", "gauss6", "lobatto4", "radau3",
         "adams"}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ADAPTIVE],
)
def test_adjoint_and_backprop_agree_at_adaptive_steps(name: str, exact: list[Tensor]) -> None:
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    for library in (qf.odeint, qf.odeint_adjoint):
        found = gradients(library, Pendulum(), Y0, T[:2], method=qf.methods()[name], **tolerance)
        assert worst(found, exact) < 1e-4


@pytest.mark.parametrize("method", ["dopri5", "rk4", "implicit_adams"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "reversed"])
def test_against_torchdiffeq(method: str, backward: bool) -> None:
    """A neural ODE on a batch, in y0, t and every parameter."""
    func, t = Network(), T.flip(0) if backward else T
    options = None if method == "dopri5" else {"step_size": 0.02}
    arguments = {"method": method, "rtol": 1e-9, "atol": 1e-10, "options": options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations of their corrector
        theirs = gradients(torchdiffeq.odeint_adjoint, func, BATCH, t, **arguments)
    mine = gradients(qf.odeint_adjoint, func, BATCH, t, **arguments)
    assert worst(mine, theirs) < 3e-7


# -- the exact adjoint of converged Gauss collocation --------------------------------------------

COARSE = (0.0, 0.7, 1.6)


def converged(n: int):
    return qf.collocation(qf.gauss_legendre(n), "converged")


@pytest.mark.parametrize(
    ("n", "backward"), [(1, False), (2, False), (2, True), (3, True)],
    ids=["1", "2", "2-reversed", "3-reversed"],
)  # fmt: skip
def test_discrete_gradient_is_exact(n: int, backward: bool) -> None:
    """One step between two times: no gradient but that of the discrete solution passes."""
    t = torch.tensor(COARSE[::-1] if backward else COARSE, dtype=F64)
    func = Pendulum()
    parameters = tuple(func.parameters())

    def run(y0: Tensor, t: Tensor, stiffness: Tensor, drive: Tensor) -> Tensor:
        # gradcheck moves copies of the parameters; the module reads them as attributes
        moved = Pendulum()
        del moved.stiffness, moved.drive
        moved.stiffness, moved.drive = stiffness, drive
        return qf.odeint_adjoint(
            moved, y0, t, method=converged(n), options={"grid_constructor": lambda f, y, t: t},
            adjoint_params=(stiffness, drive),
        )  # fmt: skip

    inputs = (Y0.clone().requires_grad_(), t.requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(run, inputs, atol=1e-8, rtol=1e-6)
    y0, when = inputs[:2]
    mine = torch.autograd.grad(loss(run(*inputs)), inputs)
    true = torch.autograd.grad(
        loss(qf.odeint(func, y0, when, method="dopri8", rtol=1e-11, atol=1e-12)), inputs
    )
    # the steps are coarse: the continuous gradient is far off, so the check means something
    assert worst(list(mine), list(true)) > {1: 1e-1, 2: 1e-3, 3: 1e-5}[n]


@pytest.mark.parametrize("steps", ["of a size", "between the times"])
@pytest.mark.parametrize("in_time", [False, True], ids=["", "in time"])
def test_exact_adjoint_equals_backprop(steps: str, in_time: bool) -> None:
    options = {"step_size": 0.3} if steps == "of a size" else None
    arguments = {"method": converged(3), "options": options}
    func = Network()
    adjoint = gradients(qf.odeint_adjoint, func, BATCH, T, in_time=True, **arguments)
    backprop = gradients(qf.odeint, func, BATCH, T, in_time=True, **arguments)
    if not in_time:
        # without gradients in time, backprop's steps need not land on the requested times
        del adjoint[1], backprop[1]
        again = gradients(qf.odeint_adjoint, func, BATCH, T, in_time=False, **arguments)
        assert worst(again, adjoint) < 1e-13
    assert worst(adjoint, backprop) < 1e-10


def test_size_of_the_loss_does_not_matter() -> None:
    """Sweeps converge for the state and its adjoint alike, however large the latter is."""
    func = Network()

    def gradient(factor: float) -> list[Tensor]:
        y0 = BATCH.clone().requires_grad_()
        y = qf.odeint_adjoint(func, y0, T, method=converged(3), options={"step_size": 0.3})
        return list(torch.autograd.grad(factor * loss(y), (y0, *func.parameters())))

    one = gradient(1.0)
    for factor in (1e12, 1e-12):
        assert worst([g / factor for g in gradient(factor)], one) < 1e-13
    assert all(bool((g == 0).all()) for g in gradient(0.0))


def test_adjoint_settings_ask_for_the_continuous_adjoint() -> None:
    arguments = {"method": converged(2), "options": {"step_size": 0.8}}
    t = torch.tensor([0.0, 1.6], dtype=F64)
    discrete = gradients(qf.odeint_adjoint, Pendulum(), Y0, t, **arguments)
    fine = gradients(
        qf.odeint_adjoint, Pendulum(), Y0, t, **arguments, adjoint_options={"step_size": 0.01}
    )
    assert 1e-4 < worst(fine, discrete) < 1e-1
    other = gradients(
        qf.odeint_adjoint, Pendulum(), Y0, t, **arguments,
        adjoint_method="dopri5", adjoint_options={},
    )  # fmt: skip
    assert worst(other, fine) < 1e-5


def test_exact_adjoint_needs_a_symplectic_rule() -> None:
    from quadflow.gradients.adjoint import has_exact_adjoint

    assert all(has_exact_adjoint(converged(n)) for n in (1, 2, 5, 8))
    assert not has_exact_adjoint(qf.collocation(qf.gauss_lobatto(4), "converged"))  # symmetric
    assert not has_exact_adjoint(qf.collocation(qf.radau_right(3), "converged"))
    assert not has_exact_adjoint(qf.collocation(qf.gauss_legendre(3), 4))
    assert not has_exact_adjoint(qf.get_method("dopri5"))


# -- memory --------------------------------------------------------------------------------------


class SavedTensors:
    """Counts the tensors that autograd keeps for a backward pass; `peak` is the most at a time."""

    def __init__(self) -> None:
        self.alive = self.peak = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)

    def _pack(self, tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        self.alive += 1
        self.peak = max(self.peak, self.alive)
        weakref.finalize(kept, self._drop)
        return kept

    def _drop(self) -> None:
        self.alive -= 1


class _Kept:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def saved(library, method, steps: int) -> int:
    counter = SavedTensors()
    with counter.hooks:
        gradients(
            library, Pendulum(), Y0, T[:2], in_time=False, method=method,
            options={"step_size": 0.8 / steps},
        )  # fmt: skip
    if library is qf.odeint_adjoint:
        assert counter.alive == 0
    return counter.peak


@pytest.mark.parametrize("method", ["dopri5", "gauss3", "pece3", "exact"])
def test_memory_of_the_adjoint_does_not_grow_with_the_steps(method: str) -> None:
    chosen = converged(2) if method == "exact" else qf.get_method(method)
    few, many = (saved(qf.odeint_adjoint, chosen, steps) for steps in (4, 24))
    assert few == many < 60
    assert saved(qf.odeint, chosen, 24) > 3 * saved(qf.odeint, chosen, 4) > 3 * few


# -- states --------------------------------------------------------------------------------------


def exactly() -> dict:
    """The exact adjoint, on steps fine enough that it is the continuous one as well."""
    return {"method": converged(6), "options": {"step_size": 0.4}}


class OfTuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([0.9, 1.4], dtype=F64))

    def forward(self, t: Tensor, y: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        a, b = y
        return -a * b.sum() * torch.cos(t), self.rate * b - a.mean() * b**2


@pytest.mark.parametrize("method", ["dopri5", "gauss6", "exact"])
def test_tuple_states(method: str) -> None:
    func = OfTuple()
    y0 = (BATCH.clone().requires_grad_(), Y0.clone().requires_grad_())
    t = T.clone().requires_grad_()
    wanted = (*y0, t, *func.parameters())
    chosen = exactly() if method == "exact" else {"method": method}
    found = []
    for library in (qf.odeint_adjoint, torchdiffeq.odeint_adjoint):
        own = chosen if library is qf.odeint_adjoint else {"method": "dopri5"}
        a, b = library(func, y0, t, rtol=1e-8, atol=1e-9, **own)
        assert a.shape == (4, 5, 2) and b.shape == (4, 2)
        found.append(list(torch.autograd.grad(loss(a) + loss(b), wanted)))
    assert worst(*found) < 2e-6


@pytest.mark.parametrize("method", ["dopri5", "gauss6", "exact"])
def test_complex_states_and_parameters(method: str) -> None:
    class Rotation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nn.Parameter(torch.tensor([1.2 + 0.3j, -0.4j], dtype=torch.complex128))
            self.bend = nn.Parameter(torch.tensor(0.3, dtype=F64))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return 1j * self.rate * y * torch.cos(t) - self.bend * y * y.abs() ** 2

    func, y0 = Rotation(), torch.tensor([0.5 + 0.2j, 1j], dtype=torch.complex128)
    chosen = exactly() if method == "exact" else {"method": method}
    arguments = {"rtol": 1e-8, "atol": 1e-9}
    adjoint = gradients(qf.odeint_adjoint, func, y0, T, **chosen, **arguments)
    backprop = gradients(qf.odeint, func, y0, T, method="dopri8", **arguments)
    assert adjoint[0].is_complex() and not adjoint[1].is_complex()
    assert worst(adjoint, backprop) < 1e-6


def test_float32_and_parameters_of_another_dtype() -> None:
    weight = torch.tensor([0.5, 0.8], dtype=F64, requires_grad=True)
    y0 = Y0.float().requires_grad_()

    def func(t: Tensor, y: Tensor) -> Tensor:
        return -weight.float() * y**3

    found = []
    for library, more in ((qf.odeint_adjoint, {"adjoint_params": (weight,)}), (qf.odeint, {})):
        y = library(func, y0, T, rtol=1.2e-5, atol=1e-6, **more)
        found.append(list(torch.autograd.grad(loss(y), (y0, weight))))
    assert [g.dtype for g in found[0]] == [torch.float32, F64]
    # no tighter tolerance is held; those of the discretisation are off by 50 times as much
    assert worst(*found) < 1e-3


# -- arguments -----------------------------------------------------------------------------------


def test_parameters_given_none_or_unused() -> None:
    func, y0 = Pendulum(), Y0.clone().requires_grad_()
    y = qf.odeint_adjoint(lambda t, y: func(t, y), y0, T, adjoint_params=())
    loss(y).backward()
    assert y0.grad is not None and all(p.grad is None for p in func.parameters())

    func.unused = nn.Parameter(torch.ones(3, dtype=F64))
    func.drive.requires_grad_(False)
    loss(qf.odeint_adjoint(func, y0, T)).backward()
    assert func.stiffness.grad is not None and func.drive.grad is None
    assert torch.equal(func.unused.grad, torch.zeros(3))

    only = (p for p in (func.stiffness,))  # a generator
    y = qf.odeint_adjoint(func, Y0, T, adjoint_params=only)
    (gradient,) = torch.autograd.grad(loss(y), func.stiffness)
    assert torch.allclose(gradient, func.stiffness.grad, rtol=1e-6)
    # nothing to differentiate, and a constant velocity
    assert not qf.odeint_adjoint(func, Y0, T, adjoint_params=()).requires_grad
    y = qf.odeint_adjoint(lambda t, y: torch.ones(2, dtype=F64), y0, T, adjoint_params=())
    assert torch.allclose(torch.autograd.grad(y[-1].sum(), y0)[0], torch.ones(2, dtype=F64))


def test_one_time_is_no_solve() -> None:
    y0 = Y0.clone().requires_grad_()
    y = qf.odeint_adjoint(Pendulum(), y0, T[:1])
    assert torch.equal(y, y0[None])
    assert torch.equal(torch.autograd.grad(y.sum(), y0)[0], torch.ones(2, dtype=F64))


def test_backward_settings_are_used() -> None:
    """Each of them alone changes the backward solve: its evaluations are counted."""
    func, count = Pendulum(), [0]

    def counted(t: Tensor, y: Tensor) -> Tensor:
        count[0] += 1
        return func(t, y)

    def evaluations(**keywords) -> int:
        y0 = Y0.clone().requires_grad_()
        y = qf.odeint_adjoint(
            counted, y0, T, adjoint_params=tuple(func.parameters()), method="dopri5",
            rtol=1e-6, atol=1e-7, **keywords,
        )  # fmt: skip
        count[0] = 0
        loss(y).backward()
        return count[0]

    default = evaluations()
    assert evaluations(adjoint_rtol=1e-6, adjoint_atol=1e-7, adjoint_method="dopri5",
                       adjoint_options={}) == default  # fmt: skip
    assert evaluations(adjoint_rtol=1e-10, adjoint_atol=1e-11) > 2 * default
    assert evaluations(adjoint_method="rk4", adjoint_options={"step_size": 0.01}) >= 1000
    assert evaluations(adjoint_options={"norm": "seminorm"}) <= default
    assert evaluations(adjoint_options={"first_step": 1e-5}) > default
    # options of the forward solve are the backward one's, but for the norm
    assert evaluations(options={"max_step": 0.01}) > 1000
    assert evaluations(options={"norm": lambda y: 1e3 * y.abs().amax()}) > default


def test_norms_see_the_augmented_state() -> None:
    func, seen = OfTuple(), []

    def norm(parts: tuple[Tensor, ...]) -> Tensor:
        seen.append([tuple(part.shape) for part in parts])
        return torch.stack([part.abs().amax() for part in parts]).amax()

    y0 = (BATCH.clone().requires_grad_(), Y0.clone())
    tuples = qf.odeint_adjoint(func, y0, T, adjoint_options={"norm": norm})
    loss(tuples[1]).backward()
    assert all(shapes == [(), (5, 2), (2,), (5, 2), (2,), (2,)] for shapes in seen)
    seen.clear()
    func = Pendulum()
    loss(qf.odeint_adjoint(func, Y0, T, adjoint_options={"norm": norm})).backward()
    assert seen and all(shapes == [(), (2,), (2,), (2,), (2,)] for shapes in seen)
    func.drive.requires_grad_(False)
    with pytest.warns(UserWarning, match="1 of adjoint_params do not require grad"):
        qf.odeint_adjoint(func, Y0, T, adjoint_options={"norm": norm})


def test_tolerances_of_every_component() -> None:
    """A tolerance for each component holds for the adjoint's components too."""
    rtol = torch.tensor([1e-9, 1e-10], dtype=F64)
    adjoint = gradients(qf.odeint_adjoint, Pendulum(), Y0, T, rtol=rtol, atol=rtol / 10)
    backprop = gradients(qf.odeint, Pendulum(), Y0, T, rtol=1e-11, atol=1e-12)
    assert worst(adjoint, backprop) < 1e-7


def test_callbacks_of_the_backward_solve() -> None:
    func, seen = Pendulum(), []
    func.callback_step_adjoint = lambda t0, y0, dt: seen.append((float(t0), len(y0)))
    y = qf.odeint_adjoint(func, Y0, T, method="rk4", options={"step_size": 0.1})
    assert not seen
    loss(y).backward()
    assert len(seen) == 25 and seen[0] == (2.5, 5)
    assert seen == sorted(seen, reverse=True)


def test_replicas_of_data_parallel_have_parameters() -> None:
    func = Pendulum()
    for name in ("stiffness", "drive"):
        value = getattr(func, name).detach().clone().requires_grad_()
        delattr(func, name)
        setattr(func, name, value)  # a plain attribute, as nn.DataParallel makes them
    func._is_replica = True
    y = qf.odeint_adjoint(func, Y0, T)
    gradient = torch.autograd.grad(loss(y), (func.stiffness, func.drive))
    assert all(bool(g.abs().min() > 0) for g in gradient)


@pytest.mark.parametrize(
    ("keywords", "error", "match"),
    [
        ({}, ValueError, "func is a function, no nn.Module.*give adjoint_params"),
        ({"adjoint_params": [1.0]}, TypeError, r"adjoint_params\[0\] must be a tensor, got float"),
        (
            {"adjoint_params": (), "method": "dopri5", "options": {"first_step": 0.1},
             "adjoint_method": "rk4"},
            ValueError, "adjoint_method='rk4' is not method='dopri5'.*give adjoint_options",
        ),
        (
            {"adjoint_params": (), "adjoint_options": {"norm": "semi"}},
            ValueError, "must be 'seminorm' or a function, got 'semi'",
        ),
        ({"adjoint_params": (), "adjoint_options": {"first": 1}}, ValueError, "'first'.*unknown"),
    ],
)  # fmt: skip
def test_bad_arguments(keywords: dict, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        qf.odeint_adjoint(lambda t, y: -y, Y0, T, **keywords)


def test_second_derivatives_of_the_adjoint_are_refused() -> None:
    y0 = Y0.clone().requires_grad_()
    y = qf.odeint_adjoint(Pendulum(), y0, T)
    (first,) = torch.autograd.grad(loss(y), y0, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_parameter_changed_between_the_passes_is_noticed() -> None:
    func = Pendulum()
    y = qf.odeint_adjoint(func, Y0, T)
    with torch.no_grad():
        func.drive += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(y).backward()


def test_an_unstable_backward_solve_says_what_to_do() -> None:
    """Contraction by e^-60 or more: the state cannot be had back, unless it is kept on the way."""
    rate = torch.ones(1, dtype=F64, requires_grad=True)

    def func(t: Tensor, y: Tensor) -> Tensor:
        return -2 * rate * (y + 0.1 * y**3 - torch.cos(t))

    def gradient(times: int) -> Tensor:
        t = torch.linspace(0, 30, times, dtype=F64)
        y = qf.odeint_adjoint(func, torch.ones(1, dtype=F64), t, adjoint_params=(rate,))
        return torch.autograd.grad(y[-1].sum(), rate)[0]

    with pytest.raises(
        qf.SolveError, match=r"backward solve from t=30 to t=0 failed: .*more times"
    ):
        gradient(2)
    y = qf.odeint(func, torch.ones(1, dtype=F64), torch.tensor([0.0, 30.0], dtype=F64))
    (expected,) = torch.autograd.grad(y[-1].sum(), rate)
    assert torch.allclose(gradient(21), expected, rtol=1e-4)


# -- events --------------------------------------------------------------------------------------


@pytest.mark.parametrize("t0_grad", [False, True], ids=["", "in t0"])
def test_event_times_are_differentiable(t0_grad: bool) -> None:
    """The time and the state at which the pendulum passes an angle, by the adjoint, by backprop
    and by finite differences."""
    func = Pendulum()
    start = torch.tensor(0.1, dtype=F64)
    tight = {"rtol": 1e-10, "atol": 1e-12, "method": "dopri5"}

    def crossing(t: Tensor, y: Tensor) -> Tensor:
        return y[..., 0] - 0.2

    def run(interface, y0: Tensor, start: Tensor) -> Tensor:
        when, states = qf.odeint_event(
            func, y0, start, event_fn=crossing, odeint_interface=interface, **tight
        )
        return torch.cat((when.reshape(1), states[-1]))

    found = []
    for interface in (qf.odeint_adjoint, qf.odeint):
        y0, t0 = Y0.clone().requires_grad_(), start.clone().requires_grad_(t0_grad)
        wanted = [y0, *([t0] if t0_grad else []), *func.parameters()]
        weights = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
        found.append(list(torch.autograd.grad((weights * run(interface, y0, t0)).sum(), wanted)))
    assert worst(*found) < 1e-6
    with torch.no_grad():
        for j in range(2):
            h = 2.5e-5 * torch.eye(2, dtype=F64)[j]  # of which the square counts
            difference = (run(qf.odeint, Y0 + h, start) - run(qf.odeint, Y0 - h, start)) / 5e-5
            assert abs(float((weights * difference).sum() - found[0][0][j])) < 1e-5
    # as torchdiffeq has it, the bare solve's gradient is the one at a fixed time
    y0 = Y0.clone().requires_grad_()
    when, _ = qf.odeint_adjoint(
        func, y0, torch.tensor([0.1, 1.0], dtype=F64), event_fn=crossing, **tight
    )
    assert not when.requires_grad


# -- backprop and torch.func ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rk4", "dopri8", "ab3", "pec3", "gauss3", "lobatto4"])
def test_gradgradcheck_of_backprop(method: str) -> None:
    def run(y0: Tensor) -> Tensor:
        return qf.solve(Pendulum(), y0, (0.0, 0.5), method=method, step_size=0.25).y[-1]

    y0 = Y0.clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (y0,))
    assert torch.autograd.gradgradcheck(run, (y0,))


@pytest.mark.parametrize("method", ["dopri5", "gauss4", "pece3"])
@pytest.mark.parametrize("steps", ["fixed", "adaptive"])
def test_torch_func_grad_and_jacobians(method: str, steps: str) -> None:
    func = Pendulum()
    size = 0.1 if steps == "fixed" else None

    def last(y0: Tensor) -> Tensor:
        return qf.solve(func, y0, (0.0, 1.0), method=method, step_size=size).y[-1]

    y0 = Y0.clone().requires_grad_()
    expected = torch.stack([torch.autograd.grad(last(y0)[i], y0)[0] for i in range(2)])
    assert torch.allclose(torch.func.grad(lambda y: last(y).sum())(Y0), expected.sum(0), rtol=1e-9)
    assert torch.allclose(torch.func.jacrev(last)(Y0), expected, rtol=1e-9)
    assert torch.allclose(torch.func.jacfwd(last)(Y0), expected, rtol=1e-9)


@pytest.mark.parametrize("method", ["rk4", "dopri8", "ab3", "pece3", "gauss3", "lobatto4"])
def test_vmap_through_fixed_steps(method: str) -> None:
    func = Pendulum()

    def last(y0: Tensor) -> Tensor:
        return qf.solve(func, y0, (0.0, 1.0), method=method, step_size=0.25).y[-1]

    together = torch.func.vmap(last)(BATCH)
    assert torch.allclose(together, torch.stack([last(y) for y in BATCH]), rtol=1e-12)
    per_sample = torch.func.vmap(torch.func.grad(lambda y: last(y).sum()))(BATCH)
    for y, gradient in zip(BATCH, per_sample, strict=True):
        y = y.clone().requires_grad_()
        assert torch.allclose(gradient, torch.autograd.grad(last(y).sum(), y)[0], rtol=1e-10)
