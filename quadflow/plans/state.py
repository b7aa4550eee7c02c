"""Where a solve stands between two intervals, in the memory of any plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ..equations.small_states import tensor_of
from .interpolants import Anchor


@dataclass(slots=True)
class State:
    """Where a solve stands between two intervals.

    numbers: the state y; an array after a step that went through NumPy, as are then the numbers of
    all anchors. known: the velocity at (t, y) where it is known already (reused end anchors, first
    same as last). history: earlier anchors, oldest first. last: the interval that led here. order:
    that of the next interval where it varies. other_end: another evaluation of f at t, at a state
    nearby, that an adaptive solve made on its way here (a predicted end). t may be a tensor that
    broadcasts against y: a time for every sample. unfinished: see `Unfinished`; samples that have
    no interval behind them have f at their start as `last`, at all nodes.
    """

    t: float
    numbers: Any
    known: Anchor | None = None
    history: tuple[Anchor, ...] = ()
    last: Behind | None = None
    order: int = 1
    unfinished: Unfinished | None = None
    other_end: Callable[[], Anchor] | None = None

    @property
    def y(self) -> Tensor:
        """The state as a tensor."""
        found: Tensor = tensor_of(self.numbers)
        return found

    @property
    def anchor(self) -> Anchor | None:
        """`known` in tensors."""
        return None if self.known is None else in_tensors(self.known)


class Behind(NamedTuple):
    """The interval behind a state. velocities: at its nodes, (n, *shape), in either kind."""

    t0: Any
    t1: Any
    velocities: Any


@dataclass(frozen=True)
class Unfinished:
    """Where the samples stand in the sweeps of an interval of their own.

    active: the samples that have a way to go still (bool (B,), like the others). first: those
    in their first interval. again: those whose interval gets one sweep more, of the same size and
    from `values` ((n, B·rest); None before any sweep).
    """

    active: np.ndarray
    first: np.ndarray
    again: np.ndarray
    values: Tensor | None = None


class NotContracting(RuntimeError):
    """Sweeps that are to converge do not."""


def in_tensors(anchor: Anchor) -> Anchor:
    """The anchor, of tensors."""
    v = tensor_of(anchor.v)
    return anchor if v is anchor.v else Anchor(anchor.t, tensor_of(anchor.y), v, anchor.detail)


def between_ends(state: State, start: Anchor | None) -> Callable[[], tuple[Tensor, Tensor]] | None:
    """`StepResult.lipschitz_pair` of two evaluations of f at the start of an interval."""
    make = state.other_end
    if make is None or start is None:
        return None

    def lipschitz_pair() -> tuple[Tensor, Tensor]:
        here, there = in_tensors(start), make()
        return here.y - there.y, here.v - there.v

    return lipschitz_pair
