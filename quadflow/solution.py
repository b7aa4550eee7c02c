"""What a solve returns, and what it raises."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .equations.velocity import StateLayout
from .loop.per_sample import dense_states
from .loop.steps import Status
from .packing import Packed, pack


@dataclass
class Statistics:
    """What a solve cost.

    Attributes:
        method: name.
        nfe: velocity evaluations, each of one state (n nodes evaluated together are n).
        calls: sequential calls of func.
        probe_nfe: the part of nfe that node_evaluation="auto" spent on finding its mode.
        accepted, rejected: steps.
        refined: further sweeps of steps whose estimate was too large after the first.
        wall_time: seconds.
        node_evaluation: the mode in use ("auto" where no nodes were evaluated together).
        stiff_at: the time at which the problem was found to be stiff, see on_stiff of `solve`; None
            where it was not, or nothing looked.
    """

    method: str
    nfe: int = 0
    calls: int = 0
    probe_nfe: int = 0
    accepted: int = 0
    rejected: int = 0
    refined: int = 0
    wall_time: float = 0.0
    node_evaluation: str = "auto"
    stiff_at: float | None = None


class SolveError(RuntimeError):
    """A solve did not reach its end. `status` says why, `solution` holds what was reached."""

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution
        self.status = solution.status

    def __reduce__(self) -> tuple[Any, ...]:
        # an exception is made anew from its args, which are the message alone
        return type(self), (self.args[0], self.solution), self.__dict__


@dataclass
class Solution:
    """What `solve` returns.

    Attributes:
        t: the requested times that were reached, float64 (T,); (T, B) with batch_dims=1. They carry
            the graph of the requested ones.
        y: the states there, (T, *shape), a tuple or dict of such tensors like y0. With batch_dims=1
            NaN where a sample did not get. Where a terminal event ended the solve, its time and
            state come last in t and y, both differentiable, as the event moves.
        stats: `Statistics`.
        status, message: how the solve ended.
        steps: times of all accepted steps, the first time included (floats; tensors where the grid
            gives every sample its own); the first and the last alone with record_steps=False; empty
            with batch_dims=1.
        t_events, y_events: for every event its times (k,) and the states there, see `events` of
            `solve`; with batch_dims=1 a list of B such for every event. Empty without events.
        t_reached, y_reached: how far the steps came, whatever times were requested: the end of the
            last accepted one (or the terminal event), and the state there, like y0. A float; with
            batch_dims=1 a time for every sample, as func gets it.
        statuses, messages: with batch_dims=1 how each sample ended; None otherwise.

    Calling the solution, sol(t), evaluates its dense output (solve with dense_output=True): t is a
    number or a 1-d sequence within the solved span; returns (*shape) or (len(t), *shape).

    Pickled (also by torch.save and on the way to another process) or copied by copy.deepcopy it is
    the same to the last bit, dense output included, but without the graph that tensors may carry:
    what is differentiated stays in its process. copy.copy shares the tensors, graph and all.
    """

    t: Tensor
    y: Any
    stats: Statistics
    status: Status
    message: str
    steps: list[float]
    t_events: list[Tensor]
    y_events: list[Any]
    _layout: StateLayout
    _segments: Any
    t_reached: Any = None
    y_reached: Any = None
    statuses: list[Status] | None = None
    messages: list[str] | None = None

    @property
    def success(self) -> bool:
        """Whether the end was reached, or a terminal event."""
        return self.status in (Status.SUCCESS, Status.EVENT)

    def __getstate__(self) -> Packed:
        return pack(self.__dict__)

    def __setstate__(self, state: Packed) -> None:
        self.__dict__.update(state.unpacked())

    def __copy__(self) -> Solution:
        shared = object.__new__(type(self))
        shared.__dict__.update(self.__dict__)
        return shared

    def __call__(self, t: float | Sequence[float] | np.ndarray | Tensor) -> Any:
        if self._segments is None:
            raise ValueError("there is no dense output: call solve(..., dense_output=True)")
        times = np.asarray(t.detach().cpu() if isinstance(t, Tensor) else t, dtype=np.float64)
        if self.statuses is not None:
            return self._per_sample(times)
        if times.ndim > 1:
            raise ValueError(f"t must be a number or one-dimensional, got shape {times.shape}")
        low, high = sorted((self.steps[0], self.steps[-1]))
        outside = times[~((times >= low) & (times <= high))]
        if outside.size:
            raise ValueError(f"t={outside.flat[0]} lies outside the solved span [{low}, {high}]")
        if not self._segments:
            raise ValueError("no step was accepted: there is nothing to interpolate")
        sign = 1.0 if self.steps[-1] >= self.steps[0] else -1.0
        keys = [sign * s for s in self.steps]

        def index_of(when: float) -> int:
            return bisect.bisect_left(keys, sign * when, lo=1, hi=len(keys) - 1) - 1

        if times.ndim == 0:
            when = float(times)
            return self._layout.split(self._segments[index_of(when)].at([when])[0])
        if not times.size:
            raise ValueError("t is empty: give at least one time")
        pieces = [
            self._segments[index].at(list(group))
            for index, group in itertools.groupby(times.tolist(), index_of)
        ]
        return self._layout.split(torch.cat(pieces), 1)

    def _per_sample(self, times: np.ndarray) -> Any:
        samples = len(self.statuses or ())
        if times.ndim > 2 or (times.ndim == 2 and times.shape[1] != samples):
            raise ValueError(
                f"t has shape {times.shape}; it must be a number, (T,), or (T, {samples}) with a "
                "time for every sample"
            )
        rows = times.reshape(-1, 1) if times.ndim < 2 else times
        rows = np.broadcast_to(rows, (len(rows), samples))
        states = dense_states(self._segments, rows)
        return self._layout.split(states, 1) if times.ndim else self._layout.split(states[0])
