"""A solve in progress, driven step by step in any order, against its formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import CLOSED_FORMS
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from plain_draws import seeded
from torch import Tensor

import quadflow as qf
from quadflow.control.control import StepController, Tolerance
from quadflow.equations.velocity import StateLayout, Velocity
from quadflow.loop.steps import AdaptiveSteps, FixedSteps, Hooks, Landing, Limits, Steps
from quadflow.plans.result import StepResult
from quadflow.plans.state import State

TOL = 1e-6
ADAPTIVE = sorted(n for n, m in qf.methods().items() if (m.error_order or 0) >= 4 or n == "adams")
FIXED = sorted(n for n, m in qf.methods().items() if (m.order or 0) >= 4)
FORMS = ("decay", "driven", "linear", "logistic")
SPAN = 3.0
STEP = 0.05


class Solve(RuleBasedStateMachine):
    """Steps of one method on one problem. The model is the formula of the solution."""

    def __init__(self) -> None:
        super().__init__()
        self.evaluations = self.tried = self.refused = 0
        self.base = (0, 0, 0)  # counts of the solves before this one
        self.visited: list[float] = []
        self.ended = False
        self.results: list[StepResult] = []
        self.error = 0.0

    @initialize(
        form=st.sampled_from(FORMS), adaptive=st.booleans(), number=st.integers(0, 99),
        seed=st.integers(0, 99), backward=st.booleans(),
    )  # fmt: skip
    def begin(self, form: str, adaptive: bool, number: int, seed: int, backward: bool) -> None:
        self.form, self.sign = CLOSED_FORMS[form], -1.0 if backward else 1.0
        self.adaptive = adaptive
        names = ADAPTIVE if adaptive else FIXED
        self.method = qf.get_method(names[number % len(names)])
        random = np.random.default_rng(seed)
        y0 = random.uniform(0.2, 0.9, (2, 3))
        # where the formula starts from: s = 0 at t = 0
        self.origin, self.start = 0.0, y0
        self._enter(State(0.0, torch.tensor(y0)), SPAN * self.sign, None)

    # -- making a solve ------------------------------------------------------------------------

    def func(self, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1 if y.dim() == 2 else len(y)
        return self.sign * self.form.slope(self.sign * t, y)

    def _enter(self, state: State, end: float, landing: float | None) -> None:
        """Go on from a state to `end`, which lies ahead."""
        self.direction = math.copysign(1.0, end - state.t)
        layout = StateLayout(state.y)
        span = (state.t, end)
        velocity = Velocity(self.func, layout, span, "broadcast")
        self.evaluations = self.tried = self.refused = 0

        def attempt(*_: Any) -> None:
            self.tried += 1

        def reject(*_: Any) -> None:
            self.refused += 1

        hooks = Hooks(attempt, reject)
        marks = [] if landing is None else [Landing(landing)]
        landings = [*marks, Landing(end)]
        self.end, self.landing = end, landing
        self.velocity = velocity
        stepper = self.method.for_tolerance(TOL).stepper(velocity)
        self.steps: Steps
        if self.adaptive:
            self.steps = AdaptiveSteps(
                stepper, state, landings, Tolerance(TOL, TOL),
                StepController(max_factor=self.method.max_growth), Limits(max_step=0.5),
                hooks=hooks,
            )  # fmt: skip
        else:
            grid = self._grid(state.t, end, landing)
            self.steps = FixedSteps(stepper, state, grid, landings=landings, hooks=hooks)
        self.visited, self.results, self.ended = [state.t], [], False

    def _grid(self, t0: float, t1: float, landing: float | None) -> Iterator[float]:
        count = max(1, round(abs(t1 - t0) / STEP))
        points = {t0 + (t1 - t0) * i / count for i in range(1, count)} | {t1}
        if landing is not None:
            points.add(landing)
        yield from sorted(points, key=lambda t: self.direction * t)

    # -- rules ---------------------------------------------------------------------------------

    @precondition(lambda self: not self.ended)
    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            before = self.steps.accepted
            result = next(self.steps, None)
            if result is None:
                self.ended = True
                assert self.steps.accepted == before
                return
            assert self.steps.accepted == before + 1
            assert result.previous.t == self.visited[-1]
            assert result.state is self.steps.state
            self.visited.append(result.state.t)
            self.results = [*self.results, result][-3:]

    @precondition(lambda self: self.results)
    @rule(theta=st.floats(0.0, 1.0), back=st.integers(0, 2))
    def look_inside(self, theta: float, back: int) -> None:
        """Dense output of the last steps, at any time, in any order, more than once."""
        result = self.results[-1 - min(back, len(self.results) - 1)]
        t0, t1 = result.previous.t, result.state.t
        t = t0 + theta * (t1 - t0)
        segment = result.segment()
        at = segment.at([t])[0]
        assert torch.allclose(at, segment(t), rtol=1e-12, atol=1e-12)
        self._near(t, at)
        # continuous: the ends are the steps' own
        assert torch.allclose(segment.at([t0])[0], result.previous.y, rtol=1e-12, atol=1e-13)
        assert torch.allclose(segment.at([t1])[0], result.state.y, rtol=1e-12, atol=1e-13)

    @precondition(lambda self: len(self.visited) > 2)
    @rule(part=st.floats(0.05, 1.0))
    def restart(self, part: float) -> None:
        """From the state as it is, without a past, to land on a time on the way."""
        state = self.steps.state
        end = SPAN * self.sign if self.direction == self.sign else 0.0
        if abs(end - state.t) < 0.2:
            return
        self._enter(State(state.t, state.y), end, state.t + part * (end - state.t))

    @precondition(lambda self: len(self.visited) > 2)
    @rule()
    def reverse(self) -> None:
        """Back to where the formula starts, or away from there again."""
        state = self.steps.state
        end = 0.0 if self.direction == self.sign else SPAN * self.sign
        if abs(end - state.t) < 0.2:
            return
        self._enter(State(state.t, state.y), end, None)

    @precondition(lambda self: self.ended)
    @rule()
    def ask_again(self) -> None:
        """What has ended stays ended."""
        counts = self.steps.accepted, self.steps.rejected, self.velocity.nfe
        for _ in range(2):
            assert next(self.steps, None) is None
        assert counts == (self.steps.accepted, self.steps.rejected, self.velocity.nfe)
        assert self.steps.status is qf.Status.SUCCESS

    # -- what always holds ---------------------------------------------------------------------

    def _near(self, t: float, y: Tensor) -> None:
        exact = self.form.exact(self.sign * t, self.start)
        # attained: 0.9 TOL either way; solutions that come together forwards part again backwards
        room = 10 * TOL if self.direction == self.sign else 50 * TOL
        self.error = float(np.abs(y.numpy() - exact).max())
        assert self.error < room, (self.method, t, self.error)

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "steps"):
            return
        steps = self.steps
        assert self.velocity.nfe == self.evaluations
        assert self.velocity.calls <= self.velocity.nfe and self.velocity.probe_nfe == 0
        assert steps.rejected == self.refused
        assert self.tried == steps.accepted + steps.rejected
        assert len(self.visited) == steps.accepted + 1
        if isinstance(steps, FixedSteps):
            assert steps.rejected == steps.refined == 0

    @invariant()
    def time_goes_on(self) -> None:
        if not self.visited:
            return
        sign = self.direction
        assert all(sign * a < sign * b for a, b in itertools.pairwise(self.visited))
        assert sign * self.visited[-1] <= sign * self.end
        assert self.steps.state.t == self.visited[-1]
        if self.landing is not None and sign * self.visited[-1] >= sign * self.landing:
            assert self.landing in self.visited
        assert self.ended <= (self.visited[-1] == self.end)

    @invariant()
    def near_the_solution(self) -> None:
        if self.visited:
            self._near(self.visited[-1], self.steps.state.y)


def drive(examples: int, seed: int) -> None:
    """Run the machine: always the same runs for a seed."""
    run_state_machine_as_test(Solve, settings=seeded(seed, examples, stateful_step_count=15))


def test_a_solve_in_progress() -> None:
    drive(60, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_many_solves_in_progress(seed: int) -> None:
    drive(300, seed)
