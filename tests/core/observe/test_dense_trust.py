"""Dense output that is made of stages of its own stays with the step, or the step is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from host_waits import CountWaits
from torch import Tensor

import quadflow as qf
from quadflow.plans.stages.method import StagesMethod
from quadflow.rules.classical import HEUN
from quadflow.rules.dop853 import DOPRI8
from quadflow.rules.pairs import BOSH3, DOPRI5, TSIT5
from quadflow.rules.tableau import Tableau

HOURS = np.arange(0.0, 241.0)
LOOSE = {"rtol": 1e-3, "atol": 1e-6}


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that leap as far as errors allow, over pulses as well."""
    monkeypatch.setattr("quadflow.control.lookout.LOOKS", 1e-9)
    monkeypatch.setattr("quadflow.control.lookout.MEMORY", 1e-9)


def with_extra(tableau: Tableau, node: float) -> Tableau:
    """The tableau with an interpolant of degree 4 that takes f inside the step: at `node`, at the
    state that its own interpolant has there."""
    width = len(tableau.dense)
    powers = np.arange(1, tableau.dense.shape[1] + 1)
    row = tableau.dense @ node**powers
    degree = np.arange(1, 5)
    # values of θ, ..., θ^4 and of their slopes: y1, v0, v1, v(node)
    conditions = np.stack(
        [np.ones(4), degree * 0.0 ** (degree - 1), degree, degree * node ** (degree - 1)]
    )
    known = np.zeros((4, width + 1))
    known[0, : len(tableau.b)] = tableau.b
    known[1, 0] = known[2, width - 1] = known[3, width] = 1.0
    dense = np.linalg.solve(conditions, known).T
    return Tableau(
        tableau.a, tableau.b, tableau.order, dense, dense_order=min(tableau.order, 4),
        errors=tableau.errors, error_order=tableau.error_order, extra=((node, tuple(row)),),
        first_same_as_last=tableau.first_same_as_last,
    )  # fmt: skip


def method(name: str) -> qf.Method:
    base = {"bosh3": BOSH3, "dopri5": DOPRI5, "tsit5": TSIT5, "heun": HEUN}[name]
    tableau = with_extra(base, 0.43)
    return StagesMethod(name, base.order, tableau.dense_order, base.error_order, 10.0, tableau)


LATE: dict[str, str | qf.Method] = {
    "dopri8": "dopri8",
    "heun": "heun",  # the velocity at its end is no stage
    **{f"{name} and a stage": method(name) for name in ("bosh3", "dopri5", "tsit5", "heun")},
}


def square(x: Tensor) -> Tensor:
    return ((x >= 0) & (x < 0.5)).to(x)


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "square": square,
    "half a sine": lambda x: square(x) * torch.sin(2 * math.pi * x),
    "triangle": lambda x: square(x) * (1 - (4 * x - 1).abs()),
    "ramp and jump": lambda x: square(x) * 2 * x,
    "spike": lambda x: square(x) * torch.exp(-20 * x),
    "three teeth": lambda x: square(x) * (torch.floor(12 * x) % 2),
    "bell": lambda x: torch.exp(-(((x - 0.25) / 0.08) ** 2)),
    "Lorentz": lambda x: 1 / (1 + ((x - 0.25) / 0.01) ** 2),
    "two": lambda x: square(4 * x) + square(4 * x - 3),
}


def doses(shape: Callable[[Tensor], Tensor], phase: float) -> Callable[[Tensor, Tensor], Tensor]:
    """At most 10 for half an hour of a day, less a fifth an hour."""
    return lambda t, y: 10 * shape((t - phase) % 24.0).to(y) - 0.2 * y


# -- values within the bounds of the problem -------------------------------------------------------


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_stay_within_bounds(blind: None, name: str, shape: str) -> None:
    """With 0 <= u <= 10 for half an hour a day, y' = u - 0.2 y stays within 0 and y0 + 5.1; whether
    a step sees all of a pulse or nothing of it."""
    steps = {"max_steps": 20_000}
    for phase, start in ((0.0, 1.0), (7.9, 5.0)):
        y0 = torch.tensor([start], dtype=torch.float64)
        solution = qf.solve(
            doses(SHAPES[shape], phase), y0, HOURS[:73], method=LATE[name], **LOOSE, **steps
        )
        low, high = float(solution.y.min()), float(solution.y.max())
        assert low >= -0.05 and high <= start + 5.1 + 0.05, (phase, start)


@pytest.mark.parametrize("name", ["adams", "gauss", "lobatto", "dopri5", "tsit5", "bosh3", "pece3"])
def test_what_is_made_of_the_step_needs_no_check(blind: None, name: str) -> None:
    for shape in ("square", "spike", "bell"):
        for phase, start in ((0.0, 1.0), (7.9, 5.0)):
            y0 = torch.tensor([start], dtype=torch.float64)
            solution = qf.solve(doses(SHAPES[shape], phase), y0, HOURS[:73], method=name, **LOOSE)
            low, high = float(solution.y.min()), float(solution.y.max())
            assert low >= -0.05 and high <= start + 5.1 + 0.05, (shape, phase, start)


@pytest.mark.parametrize("start", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("phase", [0.0, 8.0, 12.0])
def test_hourly_doses_with_dopri8(phase: float, start: float) -> None:
    """Requested times, dense output and events, with steps as they are."""
    y0, f = torch.tensor([start], dtype=torch.float64), doses(square, phase)
    kind = {"method": "dopri8", **LOOSE}
    requested = qf.solve(f, y0, HOURS[:97], **kind).y
    kept = qf.solve(f, y0, (0.0, 96.0), dense_output=True, **kind)(HOURS[:97].tolist())
    never = [qf.Event(lambda t, y: y[0] + 0.05, terminal=True),
             qf.Event(lambda t, y: y[0] - 10.2, terminal=True)]  # fmt: skip
    watched = qf.solve(f, y0, HOURS[:97], events=never, **kind)
    assert watched.status is qf.Status.SUCCESS
    for values in (requested, kept, watched.y):
        assert float(values.min()) >= -0.05 and float(values.max()) <= start + 5.15


@pytest.mark.parametrize("shape", SHAPES)
def test_events_that_must_not_fire(blind: None, shape: str) -> None:
    y0 = torch.ones(1, dtype=torch.float64)
    below = qf.Event(lambda t, y: y[0] + 0.05, terminal=True)
    above = qf.Event(lambda t, y: y[0] - 6.2, terminal=True)
    for phase in (3.0, 12.0):
        solution = qf.solve(
            doses(SHAPES[shape], phase), y0, (0.0, 72.0), method="dopri8", events=[below, above],
            **LOOSE,
        )  # fmt: skip
        assert solution.status is qf.Status.SUCCESS and solution.t[-1] == 72.0


def test_samples_and_compiled_steps(blind: None) -> None:
    start = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    f = doses(square, 12.0)
    for how, days in (({"batch_dims": 1}, 3), ({"compile": {"backend": "eager"}}, 1)):
        solution = qf.solve(f, start, HOURS[: 24 * days + 1], method="dopri8", **LOOSE, **how)
        assert float(solution.y.min()) > -0.05
        assert bool((solution.y.amax(0) < start + 5.15).all())
    dense = qf.solve(f, start, (0.0, 72.0), method="dopri8", batch_dims=1, dense_output=True,
                     **LOOSE)(HOURS[:73].tolist())  # fmt: skip
    assert float(dense.min()) > -0.05 and bool((dense.amax(0) < start + 5.15).all())


def test_what_a_sample_wants_is_its_own_affair(blind: None) -> None:
    """A sample whose output is refused leaves the steps of one that asks for none alone."""
    times = torch.tensor([[0.0, 0.0], [30.0, 71.0], [72.0, 72.0]], dtype=torch.float64)
    f, y0 = doses(square, 12.0), torch.ones(2, 1, dtype=torch.float64)
    both = qf.solve(f, y0, times, method="dopri8", batch_dims=1, **LOOSE)
    alone = qf.solve(f, y0[1:], times[:, 1:], method="dopri8", batch_dims=1, **LOOSE)
    torch.testing.assert_close(both.y[:, 1], alone.y[:, 0], rtol=1e-12, atol=0.0)


def test_a_hole_that_only_dense_output_meets(blind: None) -> None:
    """f is NaN in a window that the stages step over: its place is named, or it is never met."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        hole = (t % 10.0 > 3.0) & (t % 10.0 < 3.1)
        return torch.where(hole, torch.nan, -0.2 * y)

    y0 = torch.ones(1, dtype=torch.float64)
    times = np.linspace(0.0, 60.0, 61)
    solution = qf.solve(f, y0, times, method="dopri8", throw=False, **LOOSE)
    assert solution.y.isfinite().all()
    reached = solution.t[: len(solution.y)]
    assert float((solution.y[:, 0] - torch.exp(-0.2 * reached)).abs().max()) < 0.01
    if not solution.success:
        assert solution.status is qf.Status.NON_FINITE
        assert abs(solution.steps[-1] % 10.0 - 3.0) < 1e-3


# -- what it costs ---------------------------------------------------------------------------------


def wave(t: Tensor, y: Tensor) -> Tensor:
    return torch.cos(t) * y


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
def test_smooth_steps_are_not_refused(rtol: float) -> None:
    """The same steps with dense output and without."""
    y0 = torch.ones(1, dtype=torch.float64)
    for name in LATE:
        if name == "dopri8" or rtol > 1e-6:
            how = {"method": LATE[name], "rtol": rtol, "atol": rtol}
            plain = qf.solve(wave, y0, (0.0, 20.0), **how)
            dense = qf.solve(wave, y0, (0.0, 20.0), dense_output=True, **how)
            assert dense.steps == plain.steps and dense.stats.rejected == plain.stats.rejected


def test_extra_stages_are_evaluated_where_they_are_wanted() -> None:
    y0 = torch.ones(1, dtype=torch.float64)
    extra = len(DOPRI8.extra)

    def cost(t: tuple[float, ...], **how: object) -> tuple[int, int]:
        stats = qf.solve(wave, y0, t, method="dopri8", **how).stats  # type: ignore[arg-type]
        return stats.nfe, stats.accepted + stats.rejected

    nfe, tries = cost((0.0, 20.0))
    assert nfe == 12 * tries + 2  # the start, and one for the first step's size
    dense, same = cost((0.0, 20.0), dense_output=True)
    assert same == tries and dense == nfe + extra * tries
    one, same = cost((0.0, 10.0, 20.0))
    assert same == tries and nfe + extra <= one <= nfe + 2 * extra
    # at fixed steps there is no tolerance to check against
    fixed, n = cost((0.0, 20.0), step_size=0.5)
    assert cost((0.0, 20.0), step_size=0.5, dense_output=True) == (fixed + extra * n, n)
    samples, tries = cost((0.0, 20.0), batch_dims=1)
    assert cost((0.0, 20.0), batch_dims=1, dense_output=True)[0] == samples + extra * tries


@pytest.mark.parametrize("how", [{}, {"batch_dims": 1}], ids=["shared", "samples"])
def test_a_try_waits_once(how: dict[str, int]) -> None:
    y0 = torch.ones(1, dtype=torch.float64)

    def waits(rtol: float) -> tuple[int, int]:
        with CountWaits() as counter:
            stats = qf.solve(
                wave, y0, (0.0, 20.0), method="dopri8", rtol=rtol, atol=rtol, dense_output=True,
                **how,
            ).stats  # fmt: skip
        return counter.waits, stats.accepted + stats.rejected

    (few, loose), (many, tight) = waits(1e-3), waits(1e-9)
    assert tight > loose and many - few == tight - loose


def test_gradients_go_through_checked_output() -> None:
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(1, dtype=torch.float64)
    solution = qf.solve(lambda t, y: -rate * y, y0, (0.0, 1.3, 4.0), method="dopri8")
    (slope,) = torch.autograd.grad(solution.y[1].sum(), rate)
    assert abs(float(slope) + 1.3 * math.exp(-0.7 * 1.3)) < 1e-6


def test_misses_vanish_with_the_step() -> None:
    """At the order that the interpolant declares, of all with stages of their own."""
    for name, late in LATE.items():
        tableau = qf.get_method(late).tableau  # type: ignore[attr-defined]
        assert tableau.misses, name
        rows = np.array(tableau.misses)
        assert np.abs(rows.sum(1)).max() < 1e-12  # nothing is missed of a constant velocity
    assert not DOPRI5.misses and not BOSH3.misses and not TSIT5.misses
