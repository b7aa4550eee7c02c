"""The values of the events' functions: checked, and read together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from sys import getrefcount

import numpy as np
import torch
from torch import Tensor

from ...equations.ownership import Outputs, Untouched, same_memory
from ...equations.probing import mixed_samples
from ...equations.velocity import StateLayout
from .dense_step import Array, DenseStep
from .event import Event, FirstChange
from .rounding import moved_by_rounding


class EventValues:
    """Evaluates the functions of the events of one solve.

    Args:
        events: of the solve.
        layout: of the state; gives functions their y and t.
        samples: B where every sample has steps of its own, None for shared steps.

    Attributes:
        width: B, 1 for shared steps. eps: the rounding of time. kept: states that outlive a call of
            a function, which it must not get to write to. may_end_at_start: of every event whether
            a zero within rounding of the start ends the solve (events, 1).
    """

    def __init__(self, events: Sequence[Event], layout: StateLayout, samples: int | None) -> None:
        self.events, self.layout, self.samples = events, layout, samples
        self.width = 1 if samples is None else samples
        self.eps = float(torch.finfo(layout.time_dtype).eps)
        self.kept: tuple[Tensor, ...] = ()
        first = [isinstance(event, FirstChange) for event in events]
        self.may_end_at_start = np.array(first, bool)[:, None]
        self._guards = [Untouched(f"events[{i}]", ValueError) for i in range(len(events))]
        self._outputs = [Outputs() for _ in events]

    def value(self, i: int, t: float | Tensor, y: Tensor) -> Tensor:
        """g of event i, checked: () for shared steps, (B,) for steps of every sample.

        Raises:
            TypeError, ValueError: it is no real number, or not one a sample.
        """
        dtype = self.layout.time_dtype
        if isinstance(t, Tensor):
            t = self.layout.against_parts(t).to(dtype)
        else:  # a fill on the device, where a copy from the host would synchronise
            t = torch.full((), t, dtype=dtype, device=self.layout.device)
        seen, guard = self.layout.seen(y), self._guards[i]
        if seen is y and any(same_memory(y, kept) for kept in self.kept):
            seen = y.clone()
        mark = guard.before(seen)
        value = self.events[i].function(t, self.layout.split(seen))
        guard.after(seen, mark)
        name = guard.name
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must return a torch.Tensor, got {type(value).__name__}")
        if not value.is_floating_point():
            raise TypeError(f"{name} must return a real floating tensor, got dtype {value.dtype}")
        wanted = () if self.samples is None else (self.samples,)
        if value.shape != wanted:
            meant = "one number" if self.samples is None else "one number a sample"
            raise ValueError(
                f"{name} returned shape {tuple(value.shape)}; it must be {wanted}, {meant}"
            )
        if value.device != self.layout.device:
            raise ValueError(f"{name} is on {value.device}, the state on {self.layout.device}")
        # values are read together: g may fill the same memory in its next call
        return self._outputs[i].own(value, seen, getrefcount(value))

    def at(
        self,
        step: DenseStep,
        events: Sequence[int] | Array,
        thetas: Array,
        asked: Array | None = None,
    ) -> Array:
        """Values (len(events), B) at θ of that shape, in one host synchronisation.

        Raises:
            ValueError: NaN, of a finite state and where `asked`.
        """
        if (thetas != 1).any():
            _ = step.segment  # in the caller's grad mode
        events = [int(i) for i in events]
        with torch.no_grad():
            values = self.numbers(
                [
                    self.value(i, self.moment(step.times(row)), step.state(row))
                    for i, row in zip(events, thetas, strict=True)
                ]
            )
        self.refuse_nan(
            values, step.good if asked is None else asked,
            lambda k: (step.times(thetas[k]), step.state(thetas[k])), events,
        )  # fmt: skip
        return values

    def moved(
        self, times: Array, y: Tensor, size: Tensor, count: float, farthest: Array
    ) -> list[Tensor]:
        """Values of all events where rounding may have moved time and state from, on either side:
        the first side's of all, then the other's. Arguments of `moved_by_rounding`."""
        return [
            self.value(i, self.moment(t), state)
            for t, state in moved_by_rounding(times, y, size, count, farthest)
            for i in range(len(self.events))
        ]

    @staticmethod
    def numbers(values: list[Tensor]) -> Array:
        """Values on the host, (len(values), B), in one synchronisation."""
        try:
            numbers = torch.stack([value.to(torch.float64) for value in values]).tolist()
        except RuntimeError as error:
            raise RuntimeError(
                "the values of the events could not be read; under torch.func.vmap there are "
                "no events: take batch_dims=1, where every sample has its own"
            ) from error
        return np.array(numbers).reshape(len(values), -1)

    def refuse_nan(
        self,
        values: Array,
        asked: Array,
        where: Callable[[int], tuple[Array, Tensor]],
        events: Sequence[int] | None = None,
    ) -> None:
        """Raise ValueError for a value that is NaN of a finite state and where `asked`.

        where: the times (B,) and the state of a row of values. events: the rows' events.
        """
        missing = np.isnan(values)
        for k, sample in np.argwhere(missing & asked).tolist() if missing.any() else ():
            times, state = where(k)
            state = state.detach()
            if bool(torch.isfinite(state if self.samples is None else state[sample]).all()):
                of = "" if self.samples is None else f" in sample {sample}"
                event = k if events is None else events[k]
                raise ValueError(f"events[{event}] is NaN at t={times[sample]:.9g}{of}")

    def refuse_mixing(self, t0: Array, t_end: Array, y0: Tensor) -> None:
        """Raise ValueError for a function whose value of a sample depends on other samples."""
        for i, guard in enumerate(self._guards):
            mixed = mixed_samples(functools.partial(self.value, i), t0, t_end, y0, 0.0)
            if mixed:
                raise ValueError(
                    f"{guard.name} mixes the samples: its value {mixed}. With batch_dims=1 every "
                    "sample has times of its own, and its value must depend on its own row of t "
                    "and y alone"
                )

    def times(self, when: Array) -> Sequence[Tensor]:
        """Rows of times (n, B) as tensors, as functions take them."""
        layout, shape = self.layout, (len(when),)
        if self.samples is not None:
            shape = (*when.shape, *self._axes())
        times = torch.tensor(when).to(layout.device, layout.time_dtype, non_blocking=True)
        return times.reshape(shape).unbind(0)

    def moment(self, when: Array) -> float | Tensor:
        """A row of times as functions and segments take it."""
        if self.samples is None:
            return float(when[0])
        return torch.tensor(when).to(self.layout.device).reshape((-1, *self._axes()))

    def _axes(self) -> tuple[int, ...]:
        """The further axes of a time for every sample."""
        return (1,) * (1 if self.layout.joined else self.layout.rank - 1)
