"""Steps look out for what is short: leaps where nothing happens, and after breaks of f."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import quadflow as qf
from quadflow.analysis.reliability.short_inputs.pieces import relaxed, square_wave
from quadflow.control.lookout import LOOKS, MEMORY, Lookout, SamplesLookout

ADAPTIVE = sorted(n for n, m in qf.methods().items() if m.error_order is not None)
CHEAP = ["adams", "dopri5", "tsit5", "dopri8", "gauss", "lobatto"]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape or (1,), dtype=torch.float64)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.0, -1e9), (5.0, 5.0 + 1e-6)])
def test_a_rest_is_looked_at_a_hundred_times(name: str, span: tuple[float, float]) -> None:
    """No gap between two evaluations is longer than a hundredth of the span, and little more is
    spent: what a step costs times the steps of that length, and the way up from a first step."""
    seen: list[float] = []

    def f(t: Tensor, y: Tensor) -> Tensor:
        seen.extend(t.reshape(-1).tolist())
        return torch.zeros_like(y)

    solution = qf.solve(f, zeros(), span, method=name, node_evaluation="loop")
    times = np.unique([*seen, *span])
    assert np.diff(times).max() <= abs(span[1] - span[0]) / LOOKS * 1.02
    steps = LOOKS * qf.get_method(name).widest_gap
    assert solution.stats.accepted <= steps + 50


def test_steps_that_the_error_asks_for_are_left_alone() -> None:
    """Counts of calls on smooth problems at loose tolerances, where steps are a tenth of the span:
    those there were without any lookout."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.stack((y[..., 1], -y[..., 0]), -1)

    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for name, rtol in (("dopri5", 1e-3), ("tsit5", 1e-3), ("dopri8", 1e-5), ("adams", 1e-3)):
        with pytest.MonkeyPatch.context() as patch:
            free = qf.solve(f, y0, (0.0, 3.0), method=name, rtol=rtol, atol=rtol)
            patch.setattr("quadflow.control.lookout.LOOKS", 1e-9)
            patch.setattr("quadflow.control.lookout.MEMORY", 1e-9)
            assert qf.solve(f, y0, (0.0, 3.0), method=name, rtol=rtol, atol=rtol).stats.calls == (
                free.stats.calls
            )


# -- late and short inputs, whatever their place ---------------------------------------------------


def bump(middle: float, width: float):  # type: ignore[no-untyped-def]
    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-(((t - middle) / width) ** 2)) / (width * math.sqrt(math.pi)) + 0 * y

    return f


@settings(derandomize=True, deadline=None, phases=(Phase.generate,), max_examples=25)
@given(
    middle=st.floats(0.15, 0.85),
    width=st.floats(0.006, 0.04),
    scale=st.sampled_from([1e-9, 1.0, 1e6]),
    sign=st.sampled_from([1.0, -1.0]),
    method=st.sampled_from([None, *CHEAP]),
)
def test_a_kick_after_a_rest_is_found(
    middle: float, width: float, scale: float, sign: float, method: str | None
) -> None:
    """Gauss's bell in a span that is a rest else: the state at the end is 1 (in either direction of
    time, for every length of the span)."""
    span, at, wide = sign * scale, sign * scale * middle, scale * width
    solution = qf.solve(
        bump(at, wide), zeros(), (0.0, span), method=method, node_evaluation="broadcast"
    )
    risen = (math.erf(abs(span - at) / wide) + math.erf(abs(at) / wide)) / 2
    assert abs(float(solution.y[-1]) - sign * risen) < 1e-5


@settings(derandomize=True, deadline=None, phases=(Phase.generate,), max_examples=20)
@given(
    begin=st.floats(0.05, 0.9),
    width=st.floats(0.011, 0.05),
    start=st.sampled_from([0.0, 1.0]),
    rate=st.sampled_from([0.0, 30.0]),
    method=st.sampled_from([None, "dopri5", "tsit5", "dopri8"]),
)
def test_a_pulse_of_a_hundredth_of_the_span_is_found(
    begin: float, width: float, start: float, rate: float, method: str | None
) -> None:
    """y' = u - rate y with u = 1/width while begin < t < begin + width: after a rest at zero, at
    one, and after a decay to nothing."""
    end = begin + width

    def f(t: Tensor, y: Tensor) -> Tensor:
        on = (t >= begin) & (t < end)
        return on.to(y) / width - rate * y

    solution = qf.solve(f, zeros() + start, (0.0, 1.0), method=method)
    if rate:
        gained = (1 - math.exp(-rate * width)) / (rate * width) * math.exp(-rate * (1 - end))
        exact = start * math.exp(-rate) + gained
    else:
        exact = start + 1.0
    assert abs(float(solution.y[-1]) - exact) < 100 * (1e-9 + 1e-7 * 10)


@settings(derandomize=True, deadline=None, phases=(Phase.generate,), max_examples=8)
@given(
    period=st.floats(1.0, 30.0),
    duty=st.floats(1 / 40, 0.6),
    rate=st.floats(0.05, 1.0),
    start=st.sampled_from([0.0, 2.0]),
)
def test_pulse_trains_are_followed(period: float, duty: float, rate: float, start: float) -> None:
    """Doses that begin with the span: having met one, the default misses none of the others."""
    width, end = duty * period, 5.9 * period
    edges, levels = square_wave(period, width, 1.0, 0.0, end)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return (t % period < width).to(y) - rate / period * y

    times = np.linspace(0.0, end, 24)
    exact = relaxed(rate / period, start, edges, levels, times)
    solution = qf.solve(f, zeros() + start, times)
    error = np.abs(solution.y.numpy() - exact).max()
    assert error < 100 * (1e-9 + 1e-7 * np.abs(exact).max())


# -- the rule itself -------------------------------------------------------------------------------


def test_memory_of_breaks() -> None:
    """Two breaks within some time: looks of half of it, until as much as 48 of them has passed."""
    lookout = Lookout(1.0, 0.0, math.inf, 1e-7)
    t = 0.0

    def go(size: float, planned: float) -> float:
        nonlocal t
        t += size
        return lookout.bound(t, size, planned, 0.5, 5)

    assert go(1e-3, 9.0) == 9.0 and go(0.4, 9.0) == 9.0  # nothing has broken but the start
    assert go(1e-6, 9.0) == pytest.approx(t / 2)  # the steps fell: a break
    between = size = t
    while t < 30 * between:
        size = go(size, 9.0)
        assert size == pytest.approx(max(between / 2, (t - between) / MEMORY))
    lookout.restart(t)  # a breakpoint: what came before is forgotten
    assert go(1e-3, 9.0) == 9.0


@settings(derandomize=True, deadline=None, phases=(Phase.generate,), max_examples=60)
@given(
    steps=st.lists(
        st.tuples(st.floats(1e-9, 1.0), st.floats(0.1, 10.0), st.floats(0.0, 1.0),
                  st.floats(0.0, 100.0)), min_size=1, max_size=30,
    ),
    gap=st.floats(0.1, 1.0),
    end=st.sampled_from([3.0, 50.0, 1e4, math.inf]),
    order=st.integers(1, 9),
)  # fmt: skip
def test_samples_follow_the_same_formula(
    steps: list[tuple[float, float, float, float]], gap: float, end: float, order: int
) -> None:
    one = Lookout(gap, 0.0, end, 1e-4)
    many = SamplesLookout(gap, np.zeros(2), np.full(2, end), 1e-4)
    t = 0.0
    for size, factor, ratio, moved in steps:
        t += size
        one.moved, many.moved = moved, np.full(2, moved)
        alone = one.bound(t, size, size * factor, ratio, order)
        both = np.full((4, 2), [[t], [size], [size * factor], [ratio]])
        together = many.bound(*both, order, np.array([True, False]))
        assert together[0] == alone
        assert together[1] == size * factor  # whose step it was not is left alone
    assert (many._falls[1], many._extreme[1], many._broke[1]) == (True, math.inf, 0.0)


def test_every_sample_finds_its_own_kick() -> None:
    middle = torch.tensor([[0.2], [0.5], [0.8]], dtype=torch.float64)

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-(((t - middle) / 0.01) ** 2)) / (0.01 * math.sqrt(math.pi)) + 0 * y

    for name in ("dopri5", "tsit5", "dopri8", "gauss"):
        solution = qf.solve(f, zeros(3, 1), (0.0, 1.0), method=name, batch_dims=1)
        assert float((solution.y[-1] - 1).abs().max()) < 1e-5


@pytest.mark.parametrize("height", [1e-3, 1.0, 1e6])
def test_a_break_that_high_orders_underestimate(height: float) -> None:
    """A jump of f on a smooth solution, at orders up to 12: its error stays near the tolerance."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return torch.cos(t) + height * (t > 7.3).to(y) + 0 * y

    solution = qf.solve(f, zeros(), (0.0, 10.0), method="adams")
    exact = math.sin(10.0) + height * 2.7
    assert abs(float(solution.y[-1]) - exact) < 10 * (1e-9 + 1e-7 * max(1.0, abs(exact)))


def test_breakpoints_make_memory_needless() -> None:
    """The times at which f jumps are known: no step is spent on looking for more."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        return 10.0 * (t % 24.0 < 0.5).to(y) - 0.2 * y

    edges = [24.0 * k + x for k in range(10) for x in (0.0, 0.5)]
    known = qf.solve(f, zeros(), (0.0, 240.0), breakpoints=edges)
    found = qf.solve(f, zeros(), (0.0, 240.0))
    assert known.stats.calls < 0.6 * found.stats.calls and known.stats.rejected < 20
    assert float((known.y[-1] - found.y[-1]).abs()) < 1e-5
