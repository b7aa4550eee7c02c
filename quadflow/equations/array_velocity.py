"""The velocity in NumPy: how steps from `small_states` call func, which sees tensors alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .ownership import version
from .small_states import Array, NeedsTensors, silence, takes, tensor_of

T = TypeVar("T")


class ArrayVelocity:
    """`Velocity` of states in arrays, counted and checked like it.

    Attributes:
        real: the real dtype of the states, in which func sees times.
        run: calls function(*arguments) without NumPy's warnings; func is called with them.
    """

    def __init__(self, velocity: Any, plain: Callable[[Any, Any], Any], simple: bool) -> None:
        """velocity: a `Velocity`. plain: func without details. simple: its outputs need neither be
        joined nor cast."""
        layout = velocity.layout
        self._velocity, self._plain, self._simple = velocity, plain, simple
        self._guard, self._dtype = velocity.guard, layout.dtype
        self._column = (-1, *(1,) * layout.rank)  # of several times
        self.real = np.float64 if layout.time_dtype is torch.float64 else np.float32
        # what func returned in this step, see `attempt`
        self._made: list[Tensor | Array] = []
        self._possible = not velocity.detailed
        self.run, self._outside = silence()

    def takes(self, y: Any) -> bool:
        """Whether a step from the state y may go through NumPy."""
        return self._possible and takes(y)

    def attempt(self, step: Callable[..., T], *arguments: Any) -> T:
        """step(*arguments), which goes through NumPy.

        Raises:
            NeedsTensors: the velocity carries more than numbers. What func returned in this step
                will be returned once more, as it is done again in tensors.
        """
        self._made.clear()
        try:
            found: T = self.run(step, *arguments)
            return found
        except NeedsTensors:
            self._velocity.repeats = [tensor_of(value) for value in self._made]
            self._possible = False
            raise

    def at(self, t: float, y: Array, held: bool = False) -> Array:
        """The velocity of one state, in memory of its own; one call, one evaluation.

        held: as in `Velocity.of_held`.

        Raises:
            NeedsTensors: the velocity carries more than numbers.
        """
        velocity = self._velocity
        state = torch.from_numpy(y.copy() if held else y)
        if self._guard.first or not self._simple:
            return self._own(self._outside(velocity, t, state)[0], y)
        velocity.nfe += 1
        velocity.calls += 1
        if velocity.window is not None:
            t = min(max(t, velocity.window[0]), velocity.window[1])
        time = torch.from_numpy(np.array(t, self.real))
        value = self._outside(self._plain, time, state)
        try:
            written = state._version
        except RuntimeError:  # not counted in inference mode
            written = 0
        if written:
            self._guard.refuse()
        return self._own(value, y, 0)

    def nodes(self, times: Array, states: Array) -> Array:
        """The velocities (n, *shape) of states (n, *shape) at times (n,), likewise."""
        velocity, together = self._velocity, torch.from_numpy(states)
        if velocity.mode != "broadcast" or self._guard.first or not self._simple:
            value = self._outside(velocity.nodes, torch.from_numpy(times), together)
            return self._own(value, states)
        velocity.nfe += len(states)
        velocity.calls += 1
        if velocity.window is not None:
            times = times.clip(*velocity.window)
        when = torch.from_numpy(times.astype(self.real, copy=False).reshape(self._column))
        value = self._outside(self._plain, when, together)
        if version(together):
            self._guard.refuse()
        return self._own(value, states, 1)

    def _own(self, value: Any, y: Array, leading: int | None = None) -> Array:
        """The numbers of a velocity at y, which func may write over in its next call. leading: as
        of `Velocity.checked`; None of what has been checked."""
        if type(value) is Tensor and value.dtype is self._dtype:
            try:
                numbers = value.numpy()
                if numbers.shape == y.shape:
                    own = numbers.copy()
                    self._made.append(own)
                    return own
            except (RuntimeError, TypeError):  # with a graph, or not in memory as NumPy knows it
                pass
        if leading is not None:
            value = self._velocity.checked(value, torch.from_numpy(y), leading)
        self._made.append(value.clone())
        raise NeedsTensors
