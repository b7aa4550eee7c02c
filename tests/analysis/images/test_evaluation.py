"""Several nodes in one call: `node_evaluation="auto"` never changes the numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quadflow as qf

F64 = torch.float64
METHODS = {
    "lobatto4": qf.collocation(qf.gauss_lobatto(4), 3),  # three nodes a call
    "gauss3": qf.collocation(qf.gauss_legendre(3), guess="extrapolated"),
    "gauss1": qf.collocation(qf.gauss_legendre(1), 2),  # one node a call
    "lobatto2": qf.collocation(qf.gauss_lobatto(2), 2),
}
torch.manual_seed(0)
W2, W3 = torch.randn(2, 2, dtype=F64), 0.3 * torch.randn(3, 3, dtype=F64)
Y3 = torch.tensor([1.0, 0.5, -0.7], dtype=F64)


def solved(func: Callable, y0: Any, mode: str, method: str = "lobatto4") -> qf.Solution:
    torch.manual_seed(7)
    return qf.solve(func, y0, (0.0, 0.4, 1.0), method=METHODS[method], step_size=0.125,
                    node_evaluation=mode)  # fmt: skip


def flat(y: Any) -> Tensor:
    return torch.cat([p.reshape(len(p), -1) for p in y], dim=1) if isinstance(y, tuple) else y


def difference(a: qf.Solution, b: qf.Solution) -> float:
    """Relative to the largest entry; a solution that stays zero must be zero in both."""
    x, y = flat(a.y).detach(), flat(b.y).detach()
    return float((x - y).abs().max() / y.abs().max().clamp(min=1e-300))


def assert_auto_is_loop(func: Callable, y0: Any, mode: str | None, method: str) -> None:
    auto, loop = (solved(func, y0, m, method) for m in ("auto", "loop"))
    assert loop.stats.node_evaluation == "loop" and loop.stats.probe_nfe == 0
    if mode is not None:
        assert auto.stats.node_evaluation == mode
    assert difference(auto, loop) <= 1e-12
    assert auto.stats.nfe - auto.stats.probe_nfe == loop.stats.nfe


def branching(t: Tensor, y: Tensor) -> Tensor:
    return -y if y[0] > 0.6 else 1.0 - y


def quiet_branching(t: Tensor, y: Tensor) -> Tensor:
    """Runs on several nodes without an error, on their common norm: the branch is wrong there."""
    return -2.0 * y if y.norm() > 0.9 else torch.cos(t) - y


def on_python_time(t: Tensor, y: Tensor) -> Tensor:
    return -y * (1.0 if float(t) < 0.5 else 2.0)


def filled_in_place(t: Tensor, y: Tensor) -> Tensor:
    v = torch.empty_like(y)
    v[0] = -y[1]
    v[1] = y[0] * torch.cos(t)
    v[2] = -y[2]
    return v


# name -> (func of a state of shape (3,), the mode that auto must choose)
FUNCTIONS: dict[str, tuple[Callable, str]] = {
    "elementwise": (lambda t, y: torch.sin(y) * torch.cos(t) - y * y, "broadcast"),
    "matmul from the right": (lambda t, y: torch.tanh(y @ W3) + t, "broadcast"),
    "sum over the last axis": (lambda t, y: y - y.sum(-1, keepdim=True), "broadcast"),
    "ignores y": (lambda t, y: torch.cos(t) + torch.zeros_like(y), "broadcast"),
    "ignores t": (lambda t, y: -y, "broadcast"),
    "ignores both": (lambda t, y: torch.ones_like(y), "broadcast"),
    "indexing": (lambda t, y: torch.stack((y[1], -y[0], y[2] * torch.cos(t))), "vmap"),
    "whole sum": (lambda t, y: y * torch.cos(t) - y.sum(), "vmap"),
    "whole mean": (lambda t, y: y.mean() - y, "vmap"),
    "whole norm": (lambda t, y: y / y.norm(), "vmap"),
    "whole maximum": (lambda t, y: y / (1 + y.abs().max()), "vmap"),
    "softmax over axis 0": (lambda t, y: torch.softmax(y, 0) * torch.cos(t), "vmap"),
    "matmul of a vector": (lambda t, y: W3 @ y + t, "vmap"),
    "cumulated": (lambda t, y: torch.cumsum(y, 0) - 2 * y, "vmap"),
    "flipped": (lambda t, y: -y.flip(0), "vmap"),
    "scalar made a vector": (lambda t, y: torch.cos(t) * y + torch.stack((t, t, t)), "vmap"),
    # nothing is mixed at the start: the thresholds are crossed on the way, or by several nodes
    "hidden threshold": (lambda t, y: torch.relu(y.square().sum() - 5.0) - y, "vmap"),
    "hidden switch": (lambda t, y: torch.where(y.norm() > 2.0, -3.0, 0.5) * y, "vmap"),
    "hidden negative switch": (lambda t, y: torch.where(y.sum() < -9.0, 3.0, -0.5) * y, "vmap"),
    "hidden time switch": (lambda t, y: torch.where(t.max() > 0.5, -2.0, 1.0) * y, "vmap"),
    "branch on a component": (branching, "loop"),
    "branch on the norm": (quiet_branching, "loop"),
    "float(t)": (on_python_time, "loop"),
    "t.item()": (lambda t, y: -y * math.cos(t.item()), "loop"),
    "numpy": (lambda t, y: torch.from_numpy(-y.numpy()) * torch.cos(t), "loop"),
    "in place": (filled_in_place, "vmap"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_mode_that_auto_finds(name: str) -> None:
    func, mode = FUNCTIONS[name]
    assert_auto_is_loop(func, Y3, mode, "lobatto4")  # three nodes: d == n, nothing tells them apart


@pytest.mark.parametrize("method", ["gauss3", "gauss1", "lobatto2"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_auto_is_the_loop_for_any_number_of_nodes(name: str, method: str) -> None:
    func, mode = FUNCTIONS[name]
    # where one node alone is evaluated, mixing the nodes is no mistake
    assert_auto_is_loop(func, Y3, mode if method == "gauss3" else None, method)


@pytest.mark.parametrize("start", [torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_uniform_states_hide_nothing(name: str, start: Tensor) -> None:
    """At zero, and where all entries agree, a sum over nodes looks like one over components."""
    if name == "whole norm" and not start.any():
        pytest.skip("undefined at zero")
    assert_auto_is_loop(FUNCTIONS[name][0], start, FUNCTIONS[name][1], "gauss3")


@pytest.mark.parametrize("mode", ["vmap", "loop"])
def test_zero_states_with_a_driven_sum(mode: str) -> None:
    """At t = 0 velocity and state are zero: only later does the sum over the nodes show."""
    assert_auto_is_loop(
        (lambda t, y: t - y.sum() + 0 * y) if mode == "vmap" else on_python_time,
        torch.zeros(3, dtype=F64), mode, "lobatto4",
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
def test_small_components_are_not_judged_by_large_ones(dtype: torch.dtype) -> None:
    """The mixed component is 1e-7 of the other, below float32's rounding of it."""
    y0 = torch.tensor([1e5, 1e-2, 2e-2], dtype=dtype)

    def func(t, y):
        small = y[..., 1:]
        return torch.cat((-y[..., :1], small * torch.cos(100 * small.sum())), dim=-1)

    auto, loop = solved(func, y0, "auto"), solved(func, y0, "loop")
    assert auto.stats.node_evaluation == "vmap"
    small = (auto.y - loop.y)[:, 1:].abs().max() / loop.y[:, 1:].abs().max()
    assert small < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("name", "func", "mode"),
    [
        ("batched", lambda t, y: torch.tanh(y @ W3) * torch.cos(t), "broadcast"),
        ("from the left", lambda t, y: W2 @ y * torch.cos(t), "broadcast"),
        ("over samples", lambda t, y: y - y.mean(0, keepdim=True), "vmap"),
        ("negative axes", lambda t, y: y - y.mean(-2, keepdim=True), "broadcast"),
        ("transposed", lambda t, y: -y.T.reshape(y.shape), "vmap"),
        ("flattened", lambda t, y: (y.reshape(-1) * torch.cos(t)).reshape(2, 3), "vmap"),
        ("scalar", lambda t, y: y * y.sum(), "vmap"),
    ],
)
def test_matrix_states(name: str, func: Callable, mode: str) -> None:
    y0 = torch.linspace(-0.5, 0.7, 6, dtype=F64).reshape(2, 3)
    for method in ("lobatto4", "gauss3"):
        assert_auto_is_loop(func, y0, mode, method)


def test_square_states_as_large_as_the_nodes_are_many() -> None:
    y0 = torch.linspace(-0.5, 0.7, 9, dtype=F64).reshape(3, 3)
    y0 = y0 + y0.T
    for func in (lambda t, y: -y.T.reshape(3, 3) @ y, lambda t, y: -torch.einsum("ij,jk->ik", y, y),
                 lambda t, y: y - y.sum(0)):  # fmt: skip
        assert_auto_is_loop(func, y0, "vmap", "lobatto4")
    assert_auto_is_loop(lambda t, y: -y.mT @ y, y0, "broadcast", "lobatto4")


def test_scalar_states() -> None:
    y0 = torch.tensor(0.5, dtype=F64)
    assert_auto_is_loop(lambda t, y: -y * y + torch.cos(t), y0, "broadcast", "lobatto4")
    assert_auto_is_loop(lambda t, y: -y.sum(), y0, "vmap", "lobatto4")
    assert_auto_is_loop(lambda t, y: -y if y > 0.4 else -2 * y, y0, "loop", "lobatto4")


@pytest.mark.parametrize(
    ("func", "shapes", "mode"),
    [
        (lambda t, y: (-y[1], y[0] * torch.cos(t)), ((3,), (3,)), "broadcast"),
        (lambda t, y: (-y[0] * y[1].sum(), -y[1]), ((3,), (3,)), "vmap"),
        (lambda t, y: (-y[0].sum(0), -y[1] * t), ((), (2,)), "vmap"),
        # t of shape (n, 1, 1) fits the matrix, not the vector beside it
        (lambda t, y: (-y[0] * torch.cos(t), -y[1] * torch.cos(t)), ((3,), (2, 3)), "vmap"),
        (lambda t, y: (-y[0], -y[1]), ((3,), (2, 3)), "broadcast"),
        (lambda t, y: (y[1] @ y[0], -y[1] * t), ((3,), (3, 3)), "vmap"),
        (lambda t, y: (-y[0], -y[1]) if y[0].sum() > 1 else (y[0], y[1]), ((3,), (2,)), "loop"),
    ],
)
def test_tuples(func: Callable, shapes: tuple[tuple[int, ...], ...], mode: str) -> None:
    y0 = tuple(
        torch.linspace(0.2, 0.9, math.prod(shape), dtype=F64).reshape(shape) for shape in shapes
    )
    assert_auto_is_loop(func, y0, mode, "lobatto4")
    assert_auto_is_loop(func, y0, mode, "gauss3")


def test_a_random_function_draws_as_in_the_loop() -> None:
    def func(t, y):
        return -y + 0.1 * torch.randn_like(y)

    assert_auto_is_loop(func, Y3, "loop", "lobatto4")


def test_a_function_with_a_dice_of_its_own_is_looped() -> None:
    dice = random.Random(3)
    solution = solved(lambda t, y: -y * dice.random(), Y3, "auto")
    assert solution.stats.node_evaluation == "loop"


def test_a_function_that_counts_is_looped() -> None:
    calls = [0]

    def func(t, y):
        calls[0] += 1
        return -y * (1 + 1e-3 * calls[0])

    solution = solved(func, Y3, "auto")
    assert solution.stats.node_evaluation == "loop"
    # the loop, and vmap once: then it is known
    assert calls[0] == solution.stats.calls


def test_a_dropout_network_is_looped_and_a_still_one_is_not() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
    net = net.double()
    assert_auto_is_loop(lambda t, y: net(y), Y3, "loop", "lobatto4")
    net.eval()
    assert_auto_is_loop(lambda t, y: net(y), Y3, "broadcast", "lobatto4")


def test_float32_networks() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.SiLU(), torch.nn.Linear(64, 16))
    y0 = torch.randn(5, 16)
    auto, loop = (solved(lambda t, y: net(y) * torch.cos(t), y0, m) for m in ("auto", "loop"))
    assert auto.stats.node_evaluation == "broadcast" and auto.y.dtype == torch.float32
    assert difference(auto, loop) < 1e-5


def test_a_function_that_refuses_perturbed_states_is_looped() -> None:
    """A state at the edge of the domain: the probe leaves it, the trajectory does not."""

    def func(t, y):
        assert bool((y <= 1.0).all()), "a share is at most 1"
        return -1e-3 * y

    assert_auto_is_loop(func, torch.ones(3, dtype=F64), "loop", "lobatto4")


def test_times_at_which_the_function_is_undefined_are_not_insisted_on() -> None:
    """At the first states the root is not real up to the end of the span; later ones mend it."""

    def func(t, y):
        return -torch.sqrt(1.3 - t - 0.5 * y)

    assert bool(func(torch.tensor(1.0), 0.9 + 0 * Y3).isnan().all())
    assert_auto_is_loop(func, 0.9 + 0 * Y3, "broadcast", "lobatto4")
    assert_auto_is_loop(lambda t, y: func(t, y) + 0 * y.sum(), 0.9 + 0 * Y3, None, "lobatto4")


def test_roots_and_logarithms_from_zero() -> None:
    assert_auto_is_loop(lambda t, y: torch.sqrt(y) + 1, 0 * Y3, "broadcast", "lobatto4")


@pytest.mark.parametrize("method", METHODS)
def test_named_modes_agree(method: str) -> None:
    func = FUNCTIONS["matmul from the right"][0]
    modes = {m: solved(func, Y3, m, method) for m in ("broadcast", "vmap", "loop")}
    for mode, solution in modes.items():
        assert solution.stats.node_evaluation == mode and solution.stats.probe_nfe == 0
        assert difference(solution, modes["loop"]) < 1e-14
        assert solution.stats.nfe == modes["loop"].stats.nfe


def test_a_named_mode_that_does_not_fit_says_so() -> None:
    with pytest.raises(
        qf.VelocityError, match=r"output has shape \(3, 2\), the state has \(3, 3\)"
    ):
        solved(lambda t, y: y if y.ndim == 1 else y[:, :2], Y3, "broadcast")
    func = FUNCTIONS["whole sum"][0]
    wrong = solved(func, Y3, "broadcast")  # a mode that is named is taken at its word
    assert difference(wrong, solved(func, Y3, "loop")) > 1e-3


def test_gradients_are_those_of_the_loop() -> None:
    for name in ("matmul from the right", "whole norm", "branch on the norm"):
        gradients = []
        for mode in ("auto", "loop"):
            y0 = Y3.clone().requires_grad_()
            solved(FUNCTIONS[name][0], y0, mode).y[-1].square().sum().backward()
            gradients.append(y0.grad)
        assert (gradients[0] - gradients[1]).abs().max() < 1e-12


class OnlyDetailed:
    """Brings a detail, and cannot be called."""

    def evaluate(self, t: Any, y: Tensor) -> tuple[Tensor, str]:
        return -y * (t.cos() if isinstance(t, Tensor) else math.cos(t)), "detail"


def test_detailed_velocities_in_sweeps() -> None:
    assert_auto_is_loop(OnlyDetailed(), Y3, "broadcast", "lobatto4")
    plain = solved(lambda t, y: -y * torch.cos(t), Y3, "loop")
    assert difference(solved(OnlyDetailed(), Y3, "auto"), plain) < 1e-14


@pytest.mark.parametrize("name", ["elementwise", "indexing", "t.item()"])
def test_the_probe_is_counted(name: str) -> None:
    func, mode = FUNCTIONS[name]
    calls = [0]

    def counted(t: Tensor, y: Tensor) -> Tensor:
        calls[0] += 1
        return func(t, y)

    stats = solved(counted, Y3, "auto").stats
    assert calls[0] == stats.calls
    named = solved(func, Y3, mode).stats
    # states of three nodes: vmap; the loop; then broadcast, and twice more with a node thrown off
    tried, calls_made = {"broadcast": (5, 7), "vmap": (3, 5), "loop": (1, 1)}[mode]
    assert stats.probe_nfe == 3 * tried
    assert stats.nfe == named.nfe + stats.probe_nfe
    assert stats.calls == named.calls + calls_made


PIECES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": lambda t, y: y,
    "sine": lambda t, y: torch.sin(y),
    "time": lambda t, y: y * torch.cos(t),
    "drive": lambda t, y: y + t,
    "right": lambda t, y: y @ W3,
    "left": lambda t, y: W3 @ y,
    "sum": lambda t, y: y - 0.3 * y.sum(),
    "last": lambda t, y: y - 0.3 * y.sum(-1, keepdim=True),
    "norm": lambda t, y: y / (1 + y.norm()),
    "softmax": lambda t, y: torch.softmax(y, 0),
    "softmax last": lambda t, y: torch.softmax(y, -1),
    "index": lambda t, y: torch.stack((y[2], y[0], y[1])),
    "roll": lambda t, y: torch.roll(y, 1, 0),
    "relu": lambda t, y: torch.relu(y.sum() - 0.5) + y,
    "switch": lambda t, y: torch.where(y.norm() > 1.0, 0.5, -0.5) * y,
    "clamp": lambda t, y: y.clamp(max=float("inf")) - y.max().clamp(min=2.0),
    "branch": lambda t, y: y if y.sum() > 0.2 else -y,
    "item": lambda t, y: y * math.cos(t.item()),
    "constant": lambda t, y: torch.ones_like(y),
}


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=4),
    start=st.sampled_from([Y3, 0 * Y3, torch.ones(3, dtype=F64), 1e-3 * Y3, 10 * Y3]),
    method=st.sampled_from(sorted(METHODS)),
)
def test_compositions(names: list[str], start: Tensor, method: str) -> None:
    def func(t: Tensor, y: Tensor) -> Tensor:
        for name in names:
            y = PIECES[name](t, y)
        return torch.tanh(y)  # bounded, so that every composition has a solution

    assert_auto_is_loop(func, start, None, method)


@pytest.mark.parametrize("end", [math.inf, -math.inf])
def test_the_probe_stays_within_a_span_without_end(end: float) -> None:
    """Its spread-out times lie ahead of the start, and an event ends the solve."""
    sign = math.copysign(1.0, end)
    seen: list[float] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        seen.extend((sign * t).flatten().tolist())
        return sign * torch.ones_like(y) * t.abs()

    reached = qf.Event(lambda t, y: y.sum() - 2.0, terminal=True)
    solution = qf.solve(f, torch.zeros(1, dtype=F64), (0.0, end), method="gauss3", rtol=1e-6,
                        atol=1e-6, events=reached, node_evaluation="auto")  # fmt: skip
    assert solution.status is qf.Status.EVENT and abs(float(solution.t[-1]) - 2 * sign) < 1e-5
    assert min(seen) >= 0
    mixing = qf.solve(lambda t, y: sign * (1 + (t.abs() > 0.9).any() + 0 * y), Y3, (0.0, end),
                      method="gauss3", events=reached, rtol=1e-3, atol=1e-3)  # fmt: skip
    assert mixing.stats.node_evaluation == "vmap"
