"""The progress bar tells where a solve stands, seldom, and is closed whatever happens."""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections.abc import Iterator

import pytest
import torch
from host_waits import CountWaits

import quadflow as qf
from quadflow import extras
from quadflow.observe import progress

Y0 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)


def decay(t, y):
    return -y


@contextlib.contextmanager
def shown() -> Iterator[list[str]]:
    """The states of the bar, one after another, and whether its line was ended."""
    states: list[str] = []
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        try:
            yield states
        finally:
            text = stream.getvalue()
            assert text == "" or text.endswith("\n")
            states += [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]


@pytest.mark.parametrize("span", [(0.0, 4.0), (3.0, -1.0)])
def test_the_end_is_shown(span: tuple[float, float]) -> None:
    with shown() as states:
        solution = qf.solve(decay, Y0, span, rtol=1e-5, progress=True)
    last = states[-1]
    size = abs(solution.steps[-1] - solution.steps[-2])
    assert last.startswith(f"t={span[1]:.6g} of {span[1]:.6g} 100%|")
    assert f"{solution.stats.accepted} steps," in last
    assert "steps/s" in last and f"step size {size:.3g}" in last


def test_nothing_is_shown_unasked() -> None:
    with shown() as states:
        qf.solve(decay, Y0, (0.0, 1.0))
    assert not states


def test_fixed_steps() -> None:
    with shown() as states:
        qf.solve(decay, Y0, (0.0, 1.0), method="rk4", step_size=0.125, progress=True)
    assert "t=1 of 1 100%|" in states[-1] and "8 steps" in states[-1]
    assert "step size 0.125" in states[-1]


def test_a_grid_of_per_sample_times_is_counted() -> None:
    grid = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None, None].expand(6, 2, 1)
    with shown() as states:
        qf.solve(decay, Y0, (0.0, 1.0), method="euler", grid=grid, progress=True)
    assert "5 steps" in states[-1] and "step size" not in states[-1]


def test_without_an_end() -> None:
    event = qf.Event(lambda t, y: t - 1.0, terminal=True)
    with shown() as states:
        qf.solve(decay, Y0, (0.0, math.inf), events=event, progress=True)
    last = states[-1]
    assert re.match(r"t=1[.\d]* \[", last) and "%" not in last and "inf" not in last


def test_samples_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has come least far of those under way; one that failed is not waited for."""
    monkeypatch.setattr(progress.ProgressBar.__init__, "__defaults__", (0.0,))  # every step

    def f(t, y):
        return torch.stack((-y[0], 10 * y[1] ** 2, -1e3 * y[2]))  # the second ends at t = 0.1

    y0 = torch.ones(3, 1, dtype=torch.float64)
    with shown() as states:
        solution = qf.solve(
            f, y0, (0.0, 2.0), batch_dims=1, rtol=1e-3, atol=1e-3, progress=True, throw=False
        )
    assert solution.statuses[1] is not qf.Status.SUCCESS
    assert {"sample 1 of 3", "sample 2 of 3"} <= {s[s.find("(") + 1 : s.find(")")] for s in states}
    assert states[-1].startswith("t=2 of 2 (sample 2 of 3) 100%|")


def test_an_error_closes_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []  # kept alive: a bar without an owner closes itself

    def kept(*arguments, **layout):
        bars.append(extras.progress(*arguments, **layout))
        return bars[-1]

    monkeypatch.setattr(progress, "progress", kept)

    def breaks(t, y):
        if t > 0.5:
            raise ZeroDivisionError
        return -y

    with shown() as states, pytest.raises(ZeroDivisionError):
        qf.solve(breaks, Y0, (0.0, 1.0), method="rk4", step_size=0.125, progress=True)
    assert "t=0.5 of 1  50%|" in states[-1] and len(bars) == 1


def test_updates_are_seldom_and_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 10 ms each, by a clock that tells so: ten of them an update."""
    now = iter(0.01 * i for i in range(10**6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))

    def waits(bar: bool) -> int:
        with CountWaits() as counter:
            qf.solve(decay, Y0, (0.0, 1.0), method="rk4", step_size=0.005, progress=bar)
        return counter.waits

    with shown() as states:
        assert waits(True) == waits(False)
    assert 15 <= len(states) <= 25
