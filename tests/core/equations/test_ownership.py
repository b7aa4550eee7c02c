"""Functions that return memory which they fill anew, or change the state they are given."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from sys import getrefcount
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import quadflow as qf
from quadflow.adapters import FlowField
from quadflow.equations.ownership import Outputs

F64 = torch.float64
Y0 = torch.tensor([1.0, 0.5], dtype=F64)


def rotation(t: Any, y: Tensor) -> Tensor:
    """A turning and slowly driven pair, in memory of its own."""
    return torch.cat((y[..., 1:] + 0.1 * torch.cos(t), -y[..., :1]), -1)


def fill(out: Any, t: Any, y: Tensor) -> None:
    v = rotation(t, y)
    out[...] = v if isinstance(out, Tensor) else v.numpy()


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("out", torch.zeros(2, dtype=F64))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        fill(self.out, t, y)
        return self.out


def reusing() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Functions that fill the same memory in every call (or in some)."""
    out, wide, pair = (
        torch.zeros(2, dtype=F64),
        torch.zeros(5, dtype=F64),
        torch.zeros(2, 2, dtype=F64),
    )
    array = np.zeros(2)
    kept, sibling, turn = torch.from_numpy(array), wide[1:3], [0]
    hidden = torch.zeros(2, 3, dtype=F64).t()[:2, 0]  # whose base nobody holds by name

    def filled(memory: Any, result: Callable[[], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def func(t: Tensor, y: Tensor) -> Tensor:
            fill(memory, t, y)
            return result()

        return func

    def by_out(t: Tensor, y: Tensor) -> Tensor:
        torch.add(rotation(t, y), 0.0, out=out)
        return out

    def in_turns(t: Tensor, y: Tensor) -> Tensor:
        turn[0] ^= 1
        fill(pair[turn[0]], t, y)
        return pair[turn[0]]

    def from_some_time_on(t: Tensor, y: Tensor) -> Tensor:
        if t < 0.7:
            return rotation(t, y)
        fill(out, t, y)
        return out

    def returned_by_an_operation(t: Tensor, y: Tensor) -> Tensor:
        fill(out, t, y)
        return out.neg_().neg_()

    return {
        "returned": filled(out, lambda: out),
        "a slice": filled(out, lambda: out[:]),
        "reshaped": filled(out, lambda: out.view(1, 2).view(2)),
        "detached": filled(out, lambda: out.detach()),
        ".data": filled(out.data, lambda: out),
        "NumPy's, wrapped in every call": filled(array, lambda: torch.from_numpy(array)),
        "NumPy's, wrapped once": filled(array, lambda: kept),
        "as_tensor": filled(array, lambda: torch.as_tensor(array)),
        "a part of a larger one": filled(sibling, lambda: wide[1:3]),
        "a view of one that nobody holds": filled(hidden, lambda: hidden[:]),
        "out=": by_out,
        "two in turns": in_turns,
        "from some time on": from_some_time_on,
        "returned by an operation in place": returned_by_an_operation,
        "a module's": Buffered(),
    }


ADAPTIVE = ("dopri5", "dopri8", "tsit5", "bosh3", "gauss", "lobatto", "gauss4", "radau3", "pece3")
FIXED = ("heun", "rk4", "ab3", "pec2", "lobatto4")
METHODS: dict[str, dict[str, Any]] = {
    "default": {},
    **{name: {"method": name} for name in ADAPTIVE},
    **{name: {"method": name, "step_size": 0.1} for name in FIXED},
    "converged": {"method": qf.collocation(qf.gauss_legendre(3), "converged"), "step_size": 0.5},
    "looped": {"method": "gauss", "node_evaluation": "loop"},
    "per sample": {"batch_dims": 1},
    "per sample, swept": {"batch_dims": 1, "method": "lobatto"},
}


@pytest.mark.parametrize("how", METHODS, ids=str)
def test_outputs_that_are_written_over(how: str) -> None:
    arguments = {"rtol": 1e-3, "atol": 1e-5, "dense_output": True, **METHODS[how]}
    y0 = Y0.expand(1, 2) if "batch_dims" in arguments else Y0
    wanted = qf.solve(rotation, y0, (0.0, 0.5, 2.0), **arguments)
    for name, func in reusing().items():
        if "batch_dims" in arguments:  # one sample, of which func fills the row
            inner = func

            def func(t: Tensor, y: Tensor, inner: Any = inner) -> Tensor:
                return inner(t.reshape(()), y[0])[None]

        found = qf.solve(func, y0, (0.0, 0.5, 2.0), **arguments)
        # to rounding: nodes are looped where the broadcast ones of the plain function are not
        assert (found.y - wanted.y).abs().max() < 1e-12, name
        assert (found(1.3) - wanted(1.3)).abs().max() < 1e-12, name


def test_compiled_steps_with_a_buffer() -> None:
    out = torch.zeros(2, dtype=F64)

    def func(t: Tensor, y: Tensor) -> Tensor:
        out[0] = y[1] + 0.1 * torch.cos(t)
        out[1] = -y[0]
        return out

    for method in ("dopri5", "gauss"):
        how = {"method": method, "rtol": 1e-6, "atol": 1e-8, "node_evaluation": "loop"}
        wanted = qf.solve(rotation, Y0, (0.0, 2.0), **how)
        found = qf.solve(func, Y0, (0.0, 2.0), compile={"backend": "eager"}, **how)
        # sums in another order, which the extrapolated guess of "gauss" amplifies
        assert (found.y - wanted.y).abs().max() < 1e-9
        assert found.stats.accepted == wanted.stats.accepted


@pytest.mark.parametrize("method", ["adams", "dopri5", "gauss"])
def test_gradients_through_a_buffer(method: str) -> None:
    rate = torch.tensor(0.3, dtype=F64, requires_grad=True)

    def plain(t: Tensor, y: Tensor) -> Tensor:
        return -rate * y

    def filled(t: Tensor, y: Tensor) -> Tensor:
        out = torch.zeros(2, dtype=F64)
        out[0], out[1] = -rate * y[0], -rate * y[1]
        return out[:]

    slopes = []
    for func in (plain, filled, lambda t, y: rate.expand(2)):
        y = qf.solve(func, Y0, (0.0, 1.0), method=method, node_evaluation="loop").y[-1]
        slopes.append(torch.autograd.grad(y[0], rate)[0])
    assert abs(slopes[0] + math.exp(-0.3)) < 1e-6
    assert abs(slopes[1] - slopes[0]) < 1e-12 and abs(slopes[2] - 1) < 1e-12


def test_a_network_that_returns_its_own_memory() -> None:
    memory = torch.zeros(2, 3)

    def network(x: Tensor, t: Tensor) -> Tensor:
        torch.mul(x, -t.reshape(-1, 1), out=memory)
        return memory

    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    for method in ("pec2", "heun", "ab3"):
        how = {"method": method, "step_size": 0.1}
        found = qf.solve(FlowField(network), noise, (1.0, 0.0), **how)
        wanted = qf.solve(FlowField(lambda x, t: -t.reshape(-1, 1) * x), noise, (1.0, 0.0), **how)
        assert torch.equal(found.y, wanted.y)


class CountCopies(TorchDispatchMode):
    """`copies`: clones made inside."""

    copies = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.copies += str(func).startswith("aten.clone")
        return func(*args, **(kwargs or {}))


def test_what_is_copied() -> None:
    constant, zeros = torch.tensor([0.3, -0.2], dtype=F64), torch.zeros(2, dtype=F64)
    constant[0] = 0.4  # made as many constants are
    array = torch.from_numpy(np.array([1.0, 2.0]))

    def copies(func: Any, method: str = "dopri5") -> tuple[int, int]:
        with CountCopies() as counted:
            sol = qf.solve(func, Y0, (0.0, 1.0), method=method, step_size=0.05)
        return counted.copies, sol.stats.calls

    # of y0, of the state of the first call, of constants, and of each step's end for func
    others = copies(rotation)[0]
    assert others <= 25
    free: dict[str, Any] = {
        "the state": lambda t, y: y, "a view of it": lambda t, y: y.view(2),
        "a slice": lambda t, y: y[:],
        "filled anew": lambda t, y: torch.zeros_like(y).add_(y),
        "a view of what is new": lambda t, y: (-y).view(1, 2)[0],
        "matmul": lambda t, y: (torch.eye(2, dtype=F64) @ y[:, None]).squeeze(-1),
        "linear": lambda t, y: nn.functional.linear(y, torch.eye(2, dtype=F64)),
    }  # fmt: skip
    for name, func in free.items():
        assert copies(func)[0] == others, name
    once: dict[str, Any] = {
        "a constant": lambda t, y: constant, "zeros": lambda t, y: zeros,
        "NumPy's": lambda t, y: array,
        "expanded": lambda t, y: constant[:1].expand(2), "a view": lambda t, y: constant.view(2),
    }  # fmt: skip
    for name, func in once.items():
        assert copies(func)[0] == others + 1, name
    out = torch.zeros(2, dtype=F64)

    def filled(t: Tensor, y: Tensor) -> Tensor:
        fill(out, t, y)
        return out

    made, calls = copies(filled)
    assert made == calls + others


def test_outputs_know_what_is_theirs() -> None:
    own = Outputs()
    assert not own.reused
    held = torch.zeros(3)
    memory = [held]  # two names
    copy = own.own(held, None, getrefcount(held))
    assert own.reused and copy is not held and torch.equal(copy, held)
    memory[0].numpy()[1] = 5.0  # which no count of writes shows
    assert own.own(held, None, getrefcount(held))[1] == 5.0


def test_a_conjugate_and_other_dtypes() -> None:
    z0 = torch.tensor([1.0 + 0.5j], dtype=torch.complex128)
    out = torch.zeros(1, dtype=torch.complex128)

    def filled(t: Tensor, z: Tensor) -> Tensor:
        out.copy_(z.conj() * 1j)
        return out.conj()

    wanted = qf.solve(lambda t, z: (z.conj() * 1j).conj().resolve_conj(), z0, (0.0, 1.0)).y
    assert (qf.solve(filled, z0, (0.0, 1.0)).y - wanted).abs().max() < 1e-12
    half = torch.tensor([1.0, 0.5], dtype=torch.float16)
    memory = torch.zeros(2, dtype=torch.float16)

    def in_half(t: Tensor, y: Tensor) -> Tensor:
        memory.copy_(-y)
        return memory

    how = {"method": "rk4", "step_size": 0.1, "accumulation_dtype": torch.float32}
    assert torch.equal(qf.solve(in_half, half, (0.0, 1.0), **how).y,
                       qf.solve(lambda t, y: -y, half, (0.0, 1.0), **how).y)  # fmt: skip


# -- the state, changed in place -----------------------------------------------------------------


def _numpy(t: Any, y: Tensor) -> Tensor:
    array = y.numpy()
    array *= -1
    return torch.from_numpy(array)


CHANGING: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "mul_": lambda: lambda t, y: y.mul_(-1),
    "sub_": lambda: lambda t, y: -y.sub_(0.5),
    "clamp_ that does nothing": lambda: lambda t, y: -y.clamp_(min=-1e9),
    "one entry": lambda: lambda t, y: -y.index_fill_(0, torch.tensor([0]), 0.0),
    "a view": lambda: lambda t, y: -y[:1].add_(1.0).expand(2),
    "relu_": lambda: lambda t, y: -torch.relu_(y),
    "NumPy": lambda: _numpy,
    "a module": lambda: lambda t, y: nn.ReLU(inplace=True)(y),
    "out=": lambda: lambda t, y: torch.neg(y, out=y),
}


@pytest.mark.parametrize("change", CHANGING, ids=str)
def test_a_func_that_changes_the_state_is_refused(change: str) -> None:
    for how in ({}, {"method": "dopri5"}, {"method": "gauss"}, {"method": "rk4", "step_size": 0.1},
                {"method": "pec2", "step_size": 0.1}):  # fmt: skip
        y0 = Y0.clone()
        with pytest.raises(qf.VelocityError, match="in place") as caught:
            qf.solve(CHANGING[change](), y0, (0.0, 1.0), **how)
        assert torch.equal(y0, Y0)
        pickle.loads(pickle.dumps(caught.value))


def test_where_else_states_are_given_out() -> None:
    def shrink(t: Any, y: Any, *others: float) -> None:
        (y[0] if isinstance(y, tuple) else y).mul_(0.5)

    def to_zero(t: Any, y: Any, *others: float) -> None:
        y.numpy()[:] = 0

    for name in ("callback", "attempt_callback", "reject_callback"):
        for told in (shrink, to_zero):
            y0 = Y0.clone()
            how = {"method": "dopri5", "initial_step": 4.0, name: told}
            with pytest.raises(ValueError, match=f"{name} changed the state y in place"):
                qf.solve(rotation, y0, (0.0, 9.0), **how)
            assert torch.equal(y0, Y0)
    for state in ((Y0.clone(),), {"a": Y0.clone(), "b": Y0.clone()}, Y0.expand(3, 2)):
        first = next(iter(state.values() if isinstance(state, dict) else state))

        def changing(t: Tensor, y: Any) -> Any:
            part = next(iter(y.values() if isinstance(y, dict) else y))
            part.mul_(0.9)
            return y

        with pytest.raises(qf.VelocityError, match="func changed the state y in place"):
            qf.solve(changing, state, (0.0, 1.0), batch_dims=1 if isinstance(state, Tensor) else 0)
        assert torch.equal(first, Y0)
    with torch.inference_mode(), pytest.raises(qf.VelocityError, match="in place"):
        qf.solve(lambda t, y: y.mul_(-1), Y0.clone(), (0.0, 1.0))
    half = Y0.to(torch.bfloat16)
    with pytest.raises(qf.VelocityError, match="in place"):
        qf.solve(lambda t, y: y.mul_(-1), half, (0.0, 1.0), method="rk4", step_size=0.1,
                 accumulation_dtype=torch.float32)  # fmt: skip
    with pytest.raises(qf.VelocityError, match="in place"):
        qf.odeint(lambda t, y: y.mul_(-1), Y0.clone(), torch.tensor([0.0, 1.0]))


def test_what_becomes_of_y0_later_does_not_reach_the_solution() -> None:
    y0 = Y0.clone()
    sol = qf.solve(rotation, y0, (0.0, 1.0), dense_output=True)
    before = sol(0.01), sol.y.clone()
    y0.zero_()
    assert torch.equal(sol(0.01), before[0]) and torch.equal(sol.y, before[1])


# -- events ---------------------------------------------------------------------------------------


def test_an_event_that_fills_one_number() -> None:
    out = torch.zeros((), dtype=F64)

    def height(t: Tensor, y: Tensor) -> Tensor:
        return out.copy_(y[0])

    for method in ("adams", "dopri5", "gauss", "dopri8"):
        found = qf.solve(
            rotation, Y0, (0.0, 9.0), method=method, events=[height, lambda t, y: y[1]]
        )
        wanted = qf.solve(rotation, Y0, (0.0, 9.0), method=method,
                          events=[lambda t, y: y[0] * 1, lambda t, y: y[1] * 1])  # fmt: skip
        assert len(wanted.t_events[0]) == 3
        for mine, theirs in zip(found.t_events, wanted.t_events, strict=True):
            assert torch.equal(mine, theirs)


def test_an_event_that_changes_the_state_is_refused() -> None:
    changing: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda t, y: y.sub_(0.5)[0],
        lambda t, y: y[:1].add_(1.0).sum(),
        lambda t, y: torch.from_numpy(_negated(y))[0],
        lambda t, y: y.clamp_(max=5.0)[1],
    ]
    for event in changing:
        y0 = Y0.clone()
        for method in ("adams", "dopri5", "gauss"):
            with pytest.raises(ValueError, match=r"events\[0\] changed the state y in place"):
                qf.solve(rotation, y0, (0.0, 1.0), method=method, events=event)
        with pytest.raises(ValueError, match="changed the state y in place"):
            qf.odeint_event(rotation, y0, 0.0, event_fn=event)
        assert torch.equal(y0, Y0)


def _negated(y: Tensor) -> np.ndarray:
    array = y.numpy()
    array *= -1
    return array


def test_a_norm_that_fills_one_number() -> None:
    out = torch.zeros((), dtype=F64)

    def filled(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, out=out)

    for method in ("adams", "dopri5", "gauss"):
        counts = []
        for norm in (filled, torch.linalg.vector_norm):
            sol = qf.solve(rotation, Y0, (0.0, 9.0), method=method, norm=norm)
            counts.append((sol.stats.calls, sol.stats.accepted, sol.y[-1].tolist()))
        assert counts[0] == counts[1]


# -- writes that nothing counts --------------------------------------------------------------------


def _clipped(y: Tensor) -> Tensor:
    array = y.detach().numpy()
    array[array < 0] = 0.0  # nothing in the first call
    return torch.from_numpy(np.array([array[1], -array[0]]))


@pytest.mark.parametrize("how", ["default", "dopri5", "dopri8", "gauss", "pece3", "rk4", "pec2"])
def test_what_numpy_writes_later_does_not_reach_the_state(how: str) -> None:
    """Unseen, it is func's own affair: it gets a copy of what the solver keeps."""
    arguments = METHODS[how]

    def clean(t: Tensor, y: Tensor) -> Tensor:
        y = y.clamp(min=0.0)
        return torch.stack((y[..., 1], -y[..., 0]), -1)

    y0 = torch.tensor([1.0, 0.5], dtype=F64)
    wanted = qf.solve(clean, y0, (0.0, 3.0), node_evaluation="loop",
                      **{**arguments, "max_steps": 10_000}).y  # fmt: skip
    found = qf.solve(
        lambda t, y: _clipped(y), y0, (0.0, 3.0), node_evaluation="loop", **arguments
    ).y
    assert (found - wanted).abs().max() < 1e-9 and wanted[-1, 1] < -2

    def in_place(t: Tensor, y: Tensor) -> Tensor:
        y = y.clamp_(min=0.0)
        return torch.stack((y[..., 1], -y[..., 0]), -1)

    with torch.inference_mode():
        found = qf.solve(in_place, y0.clone(), (0.0, 3.0), node_evaluation="loop", **arguments).y
    assert (found - wanted).abs().max() < 1e-9


def test_nor_do_events_callbacks_and_transforms() -> None:
    def event(t: Tensor, y: Tensor) -> Tensor:
        array = y.detach().numpy()
        if t > 0.3:
            array[0] -= 0.5
        return torch.tensor(5.0 - array[1])

    def callback(t: float, y: Tensor) -> None:
        if t > 0.3:
            y.numpy()[0] = 100.0

    wanted = qf.solve(rotation, Y0, (0.0, 2.0)).y
    assert torch.equal(qf.solve(rotation, Y0, (0.0, 2.0), events=event).y, wanted)
    assert torch.equal(qf.solve(rotation, Y0, (0.0, 2.0), callback=callback).y, wanted)

    def solved(y0: Tensor) -> Tensor:
        how = {"method": "dopri5", "node_evaluation": "loop"}
        return qf.solve(lambda t, y: -y.clamp_(min=0.9), y0, (0.0, 1.0), **how).y[-1]

    starts = torch.tensor([[1.0, 0.95], [2.0, 1.0]], dtype=F64)
    exact = torch.stack([
        qf.solve(lambda t, y: -y.clamp(min=0.9), one, (0.0, 1.0), method="dopri5").y[-1]
        for one in starts
    ])  # fmt: skip
    assert (torch.func.vmap(solved)(starts) - exact).abs().max() < 1e-4  # kinks


class Keeps:
    """Writes to the state of its first call in later ones."""

    def __init__(self) -> None:
        self.first: Tensor | None = None

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        if self.first is None:
            self.first = y
        else:
            self.first.copy_(y)
        return -y


def test_what_func_writes_to_a_state_of_an_earlier_call() -> None:
    for how in (
        {},
        {"method": "dopri5"},
        {"method": "gauss"},
        {"method": "pec2", "step_size": 0.1},
    ):
        wanted = qf.solve(lambda t, y: -y, Y0, (0.0, 1.0), node_evaluation="loop", **how).y
        assert torch.equal(
            qf.solve(Keeps(), Y0, (0.0, 1.0), node_evaluation="loop", **how).y, wanted
        )


def test_func_may_change_its_time() -> None:
    y0 = torch.tensor([[1.0], [0.5]], dtype=F64)
    for method in ("dopri5", "gauss", "lobatto"):
        for func in (
            lambda t, y: -y * (1 + 0 * t.sub_(0.25)), lambda t, y: -y * (1 + 0 * t.mul_(2.0)),
            lambda t, y: -y * (1 + 0 * t.clamp_(max=0.5)),
        ):  # fmt: skip
            for more in ({}, {"batch_dims": 1}):
                found = qf.solve(func, y0, (0.0, 1.0), method=method, **more).y[-1]
                assert (found - y0 * math.exp(-1)).abs().max() < 1e-6


def test_storage_that_is_held_by_itself() -> None:
    storage = torch.UntypedStorage(16)

    def func(t: Tensor, y: Tensor) -> Tensor:
        out = torch.empty(0, dtype=F64).set_(storage, 0, (2,), (1,))
        fill(out, t, y)
        return out

    for how in ({"method": "heun", "step_size": 0.1}, {"method": "ab3", "step_size": 0.1}, {}):
        wanted = qf.solve(rotation, Y0, (0.0, 1.0), **how).y
        assert (qf.solve(func, Y0, (0.0, 1.0), **how).y - wanted).abs().max() < 1e-12
