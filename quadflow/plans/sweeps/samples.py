"""Sweeps with an interval of its own for every sample."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...equations.velocity import Velocity
from ..interpolants import Anchor
from ..result import StepResult
from ..segment import Segment, WeightFunction
from ..state import Behind, State
from . import sweep as arithmetic
from .seen_times import SeenTimes, seen_by_samples
from .sweep import RuleTensors


class Sweeping(Protocol):
    """The stepper of the plan, as far as a step of the samples' own needs it."""

    method: Any
    velocity: Velocity
    corrects: Any

    def start(self, state: State) -> Anchor:
        """The anchor at the start."""

    def efforts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Sweeps of an interval, and of a first one."""

    def rule_tensors(self, y0: Tensor) -> RuleTensors:
        """The rule for states like this one."""

    def derivative(self, y0: Tensor) -> Tensor:
        """What differentiates at the nodes."""

    def dense(self) -> WeightFunction:
        """The weights of dense output."""


def step_of_samples(stepper: Sweeping, state: State, t1: Any) -> StepResult:
    """A step with an interval of its own for every sample: see `Unfinished`."""
    method, waiting = stepper.method, state.unfinished
    assert waiting is not None
    t0: Any = state.t
    rule, y0, h = method.rule, state.y, t1 - t0
    n, shape = rule.n, y0.shape
    tensors = stepper.rule_tensors(y0)
    usual, at_first = stepper.efforts()
    first: Tensor | None = None
    order: Any = method.error_order
    if method.guess == "extrapolated" and state.last is not None:
        anchor = state.anchor if rule.has_left else None
        guess = extrapolated = arithmetic.extrapolated(tensors, h, *_rows(state.last))
        if waiting.first.any():
            first = _columns(waiting.first, y0)
            guess = extrapolated = torch.where(first, _rows(state.last)[1], guess)
        begun, further = (
            np.where(waiting.first, a, b) for a, b in zip(at_first, usual, strict=True)
        )
        order = np.where(waiting.first, min(order, n), order)
    else:
        anchor, extrapolated = stepper.start(state), None
        guess = anchor.v.reshape(1, -1).expand(n, -1)
        begun, further = (np.full(len(y0), count) for count in at_first)
        order = min(order, n)
    values = previous = guess
    if waiting.again.any():
        assert waiting.values is not None
        values = torch.where(_columns(waiting.again, y0), waiting.values, guess)
    v0 = None if anchor is None else anchor.v
    seen: SeenTimes | None = None
    if np.any(stepper.corrects):
        seen = _seen_by_samples(stepper, t0, h, y0)
        if stepper.velocity.layout.time_dtype is not torch.float64:
            v0 = None  # evaluated beside the start as well
    wanted = np.where(waiting.active, np.where(waiting.again, 1, begun), 0)
    f, times = stepper.velocity.nodes, arithmetic.node_times(tensors, t0, h)
    for left in range(int(wanted.max()), 0, -1):
        new, v0 = arithmetic.sweep(tensors, f, times, h, y0, v0, values, seen)
        late = waiting.active & (wanted < left)
        if late.any():  # all end with the same sweep
            new = torch.where(_columns(late, y0), values, new)
        previous, values = values, new
    if v0 is not None and anchor is None:
        anchor = Anchor(t0, y0, v0)
    y1, error = arithmetic.swept(tensors, h, y0, values, previous, extrapolated, first)
    velocities = values.reshape(n, *shape)
    segment = Segment(t0, t1, y0, velocities, stepper.dense())
    return StepResult(
        State(t1, y1, last=Behind(t0, t1, velocities)), error, order, lambda _: segment,
        anchor, state, sweeps_left=further, swept=values,
    )  # fmt: skip


def _seen_by_samples(stepper: Sweeping, t0: Tensor, h: Tensor, y0: Tensor) -> SeenTimes:
    wanted = torch.tensor(stepper.corrects).to(y0.device, non_blocking=True).reshape(h.shape)
    nodes = stepper.rule_tensors(y0).nodes
    times, shifts = seen_by_samples(nodes, t0, h, stepper.velocity.layout.time_dtype, wanted)
    return SeenTimes(times, shifts, stepper.derivative(y0))


def _rows(last: Behind) -> tuple[Any, Tensor]:
    """Its size, and its velocities, one row a node."""
    return last.t1 - last.t0, last.velocities.reshape(len(last.velocities), -1)


def _columns(which: np.ndarray, y: Tensor) -> Tensor:
    """Entries (y.numel(),) of the samples that are named: bool, on y's device."""
    named = torch.tensor(which).to(y.device, non_blocking=True)
    return named.repeat_interleave(y[0].numel())
