"""`odeint` against torchdiffeq: the same contract, the same answers."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq

import quadflow as qf
from quadflow.torchdiffeq_api.odeint import odeint_dense

Y0 = torch.tensor([[1.0, 0.5], [0.2, -0.3]], dtype=torch.float64)
T = torch.tensor([0.0, 0.4, 1.0, 2.5], dtype=torch.float64)


def f(t, y):
    return torch.stack((-(y[0] ** 2) * torch.cos(t), y[0] * y[1] + torch.sin(3 * t)))


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
@pytest.mark.parametrize("times", [T, T.flip(0)], ids=["forward", "reversed"])
def test_adaptive_methods_agree(method: str, times: torch.Tensor) -> None:
    ours = qf.odeint(f, Y0, times, rtol=1e-9, atol=1e-10, method=method)
    theirs = torchdiffeq.odeint(f, Y0, times, rtol=1e-9, atol=1e-10, method=method)
    assert ours.shape == theirs.shape == (4, 2, 2)
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours[0], Y0)
    exact = qf.odeint(f, Y0, times, rtol=1e-13, atol=1e-14, method="dopri8")
    assert (ours - exact).abs().max() < 3e-8
    # torchdiffeq's dopri8 reads requested times off a quartic interpolant: 3e-6 off here
    assert (ours - theirs).abs().max() < (1e-7 if method == "dopri5" else 1e-5)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_fixed_steps_between_the_times(method: str) -> None:
    """Without step_size the times are the grid, in both libraries."""
    ours = qf.odeint(f, Y0, T, method=method)
    theirs = torchdiffeq.odeint(f, Y0, T, method=method)
    assert (ours - theirs).abs().max() < 1e-13


@pytest.mark.parametrize("method", ["euler", "midpoint"])
@pytest.mark.parametrize("sign", [1, -1])
def test_fixed_steps_of_a_size(method: str, sign: int) -> None:
    times = sign * torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
    ours = qf.odeint(f, Y0, times, method=method, options={"step_size": 0.125})
    theirs = torchdiffeq.odeint(f, Y0, times, method=method, options={"step_size": 0.125})
    assert (ours - theirs).abs().max() < 1e-13


def test_grid_constructor() -> None:
    def grid(func, y0, t):
        return torch.linspace(t[0], t[-1], 26, dtype=torch.float64)

    times = torch.tensor([0.0, 1.0, 2.5], dtype=torch.float64)
    ours = qf.odeint(f, Y0, times, method="midpoint", options={"grid_constructor": grid})
    theirs = torchdiffeq.odeint(f, Y0, times, method="midpoint", options={"grid_constructor": grid})
    assert (ours - theirs).abs().max() < 1e-13


def test_rk4_is_the_three_eighths_rule() -> None:
    """As in torchdiffeq; the registry's "rk4", which `solve` takes, is Kutta's classical method."""
    options = {"step_size": 0.05}
    ours = qf.odeint(f, Y0, T, method="rk4", options=options)
    theirs = torchdiffeq.odeint(f, Y0, T, method="rk4", options=options)
    assert (ours - theirs).abs().max() < 1e-13
    by_name = qf.solve(f, Y0, T, method="rk4_38", step_size=0.05).y
    assert torch.equal(ours, by_name)
    classical = qf.solve(f, Y0, T, method="rk4", step_size=0.05).y
    by_object = qf.odeint(f, Y0, T, method=qf.get_method("rk4"), options=options)
    assert torch.equal(by_object, classical)
    assert 1e-9 < (ours - classical).abs().max() < 5e-6


def test_tuple_states() -> None:
    def g(t, y):
        a, b = y
        return -a * torch.cos(t), a.sum() * b - b**2

    y0 = (Y0, torch.tensor(0.7, dtype=torch.float64))
    ours = qf.odeint(g, y0, T, method="dopri5", rtol=1e-9, atol=1e-10)
    theirs = torchdiffeq.odeint(g, y0, T, method="dopri5", rtol=1e-9, atol=1e-10)
    assert isinstance(ours, tuple)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() < 1e-7


def test_options_of_adaptive_steps_arrive() -> None:
    options = {"first_step": 0.01, "max_num_steps": 10_000, "safety": 0.8, "ifactor": 5.0,
               "dfactor": 0.3, "norm": qf.max_norm, "max_step": 0.2}  # fmt: skip
    exact = qf.odeint(f, Y0, T, method="dopri8", rtol=1e-12, atol=1e-13)
    got = qf.odeint(f, Y0, T, rtol=1e-8, atol=1e-9, options=options)
    assert (got - exact).abs().max() < 1e-6
    with pytest.raises(qf.SolveError, match="max_steps=3"):
        qf.odeint(f, Y0, T, options={"max_num_steps": 3})


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("dopri5", {"firststep": 0.1}, r"options\['firststep'\] is unknown: .*'first_step'"),
        ("euler", {"step_size": 0.1, "first_step": 0.1}, "first_step.*belong to adaptive steps"),
        ("euler", {"max_num_steps": 5}, "max_num_steps.*belong to adaptive steps"),
        ("heun2", {"norm": qf.max_norm}, "norm.*'heun2'.*belong to adaptive steps"),
        ("dopri5", {"step_size": 0.1}, "step_size.*'dopri5'.*belong to fixed steps"),
        ("bosh3", {"interp": "cubic", "perturb": True}, "interp.*perturb.*belong to fixed steps"),
        ("rk4", {"max_order": 4}, "max_order belongs to the Adams methods"),
        ("explicit_adams", {"max_iters": 2}, "max_iters to the implicit one"),
        ("dopri5", {"solver": "RK45"}, "solver belongs to 'scipy_solver'"),
        ("scipy_solver", {"first_step": 0.1}, "it takes solver, min_step, max_step"),
        ("scipy_solver", {"solver": "RK45", "min_step": 0.1}, "min_step.*only in 'LSODA'"),
        ("implicit_adams", {"max_order": 13}, r"max_order'\] must be at most 12, got 13"),
        ("implicit_adams", {"max_order": 0}, r"max_order'\] must be an integer >= 1, got 0"),
        ("implicit_adams", {"max_iters": 1.5}, r"max_iters'\] must be an integer >= 1, got 1.5"),
        ("rk4", {"interp": "quintic"}, "interp.* must be 'linear' or 'cubic', got 'quintic'"),
        ("dopri5", {"eps": 1e-3}, "eps.*distance from grid_points, of which there are none"),
        ("euler", {"eps": 0.1, "perturb": True}, "eps is the older name of perturb"),
        ("dopri5", {"jump_t": [0.3, 0.5], "step_t": [0.5]}, r"given twice .*\[0.5\]"),
        ("dopri5", {"jump_t": [[0.3]]}, "jump_t.* must be a 1-d tensor"),
        ("dopry5", {}, "method='dopry5' is unknown: did you mean 'dopri"),
        ("euler", {"step_size": 0.1, "grid_constructor": lambda f, y, t: t},
         "step_size or grid_constructor, not both"),
    ],
)  # fmt: skip
def test_options_that_do_nothing_are_refused(method: str, options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        qf.odeint(f, Y0, T, method=method, options=options)


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        ("dopri5", "safety", "big"), ("dopri5", "ifactor", 1j), ("dopri5", "norm", "rms"),
        ("dopri5", "jump_t", "noon"), ("rk4", "step_size", "x"), ("rk4", "eps", "x"),
        ("rk4", "grid_constructor", 3), ("scipy_solver", "min_step", "x"),
    ],
)  # fmt: skip
def test_options_of_another_type_are_named(method: str, option: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"options\['{option}'\] must be "):
        qf.odeint(f, Y0, T, method=method, options={option: value})


@pytest.mark.parametrize("method", ["dopri5", "rk4", "scipy_solver"])
def test_an_option_that_is_none_is_not_there(method: str) -> None:
    nothing = {"first_step": None, "step_size": None, "jump_t": None, "max_order": None}
    got = qf.odeint(f, Y0, T, method=method, options=nothing)
    assert torch.equal(got, qf.odeint(f, Y0, T, method=method))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_time_is_float64_whatever_the_dtype_asked_for(dtype: torch.dtype) -> None:
    got = qf.odeint(f, Y0, T, method="dopri5", options={"dtype": dtype})
    assert torch.equal(got, qf.odeint(f, Y0, T, method="dopri5"))
    with pytest.raises(TypeError, match=r"dtype.*real floating dtype, got torch.int64"):
        qf.odeint(f, Y0, T, method="dopri5", options={"dtype": torch.int64})


@pytest.mark.parametrize(
    ("t", "error", "match"),
    [
        (torch.arange(3), TypeError, "t must be a floating tensor, got torch.int64"),
        (torch.zeros(2, 2), ValueError, r"one-dimensional and not empty, got shape \(2, 2\)"),
        (torch.zeros(0), ValueError, r"not empty, got shape \(0,\)"),
        (3.0, TypeError, "t must be a floating tensor or numbers, got 3.0"),
        (torch.tensor([0.0, 1.0, 0.5]), ValueError, "t must be strictly"),
    ],
)
def test_times(t: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        qf.odeint(f, Y0, t)  # type: ignore[arg-type]


def test_one_time_is_the_start() -> None:
    for library in (qf, torchdiffeq):
        assert torch.equal(library.odeint(f, Y0, T[:1]), Y0[None])
    pair = qf.odeint(f, (Y0, Y0[0]), T[:1])
    assert torch.equal(pair[0], Y0[None]) and torch.equal(pair[1], Y0[:1])


def test_gradients_that_there_are_not_are_refused() -> None:
    wanting = Y0.clone().requires_grad_()
    with pytest.raises(ValueError, match="gives no gradients and y0 requires grad"):
        qf.odeint(f, wanting, T, method="scipy_solver")
    with pytest.raises(ValueError, match="gives no gradients and t requires grad"):
        qf.odeint(f, Y0, T.clone().requires_grad_(), method="scipy_solver")
    net = torch.nn.Linear(2, 2).double()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return self.net(y)

    with pytest.raises(ValueError, match="a parameter of func requires grad"):
        qf.odeint(Model(), Y0, T, method="scipy_solver")
    with torch.no_grad():
        got = qf.odeint(Model(), wanting, T, method="scipy_solver")
        assert (got - qf.odeint(Model(), Y0, T)).abs().max() < 1e-5
    with pytest.raises(ValueError, match="rtol requires grad"):
        qf.odeint(f, Y0, T, rtol=torch.tensor(1e-6, requires_grad=True))
    with pytest.raises(ValueError, match=r"interp.*gradients in t"):
        qf.odeint(f, Y0, T.clone().requires_grad_(), method="rk4",
                  options={"step_size": 0.2, "interp": "linear"})  # fmt: skip


def test_scipy_says_why_it_stopped() -> None:
    with pytest.raises(RuntimeError, match="solver='RK45': Required step size"):
        qf.odeint(lambda t, y: y**2, Y0[:1, :1], torch.tensor([0.0, 2.0]), method="scipy_solver",
                  options={"solver": "RK45"})  # fmt: skip


def test_dense_output() -> None:
    sol = odeint_dense(f, Y0, T[0], T[-1], rtol=1e-9, atol=1e-10)
    theirs = torchdiffeq.odeint_dense(f, Y0, T[0], T[-1], rtol=1e-9, atol=1e-10)
    for when in (0.3, 1.1, 2.2):
        assert (sol(when) - theirs(torch.tensor(when, dtype=torch.float64))).abs().max() < 1e-7
    assert sol([0.3, 1.1]).shape == (2, 2, 2)
    with pytest.raises(ValueError, match="interp"):
        odeint_dense(f, Y0, 0.0, 1.0, method="rk4", options={"interp": "linear"})


def test_a_module_with_parameters_gets_gradients() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    net.double()
    grads = []
    for library in (qf, torchdiffeq):
        net.zero_grad()
        library.odeint(lambda t, y: net(y), Y0, T, method="midpoint")[-1].square().sum().backward()
        grads.append([p.grad.clone() for p in net.parameters()])
    for mine, theirs in zip(*grads, strict=True):
        assert theirs.abs().max() > 0
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14)
