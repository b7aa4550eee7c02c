"""The events that were found: their times and states, differentiable as the events move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...equations.clock import Clock, differentiated
from .dense_step import Array, DenseStep
from .gradients import shift_of_zero
from .values import EventValues


@dataclass(frozen=True)
class Occurrence:
    """An event at once in some samples (k,): times t (k,) and states y (k, *shape).

    when: the time on the host, of the first sample.
    """

    samples: Array
    t: Tensor
    y: Tensor
    when: float


class Occurrences:
    """What was found of every event of one solve, in the order of the solve.

    Args:
        values: of the events.
        clock: of a solve whose times require grad.

    Attributes:
        found: a list of `Occurrence` for every event.
    """

    def __init__(self, values: EventValues, clock: Clock | None) -> None:
        self._values, self._clock = values, clock
        self.found: list[list[Occurrence]] = [[] for _ in values.events]

    def keep(self, i: int, step: DenseStep, place: Array, is_start: bool = False) -> None:
        """Record event i at θ of `place` (B,), NaN where there is none."""
        values = self._values
        hit = ~np.isnan(place)
        place = np.where(hit, place, 1.0)
        times = step.times(place)
        moment = values.moment(times)
        if not is_start and (place != 1).any():
            _ = step.segment
        y = step.result.previous.y if is_start else step.state(place)
        tau = torch.tensor(times).to(values.layout.device)
        if not is_start:
            value = values.value(i, self._through_clock(moment), y)
            if differentiated(value):
                tau, y = self._moved(i, step, place, tau, y, value, hit)
        tau = self._through_clock(tau)
        if values.samples is None:
            y = y.unsqueeze(0)
        rows = np.flatnonzero(hit)
        if not hit.all():
            index = torch.tensor(rows).to(values.layout.device)
            tau, y = tau[index], y[index]
        self.found[i].append(Occurrence(rows, tau, y, float(times[0])))

    def _moved(
        self, i: int, step: DenseStep, place: Array, tau: Tensor, y: Tensor, value: Tensor,
        hit: Array,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Time and state of an event, unchanged in value, with the derivative of the time."""
        values = self._values
        _ = step.segment
        with torch.no_grad():
            velocity = step.velocity(place)
        moment = values.moment(step.times(place))
        time = torch.full_like(tau[0], moment) if isinstance(moment, float) else moment
        shift = shift_of_zero(
            lambda t, x: values.value(i, t, x), value, time, y, velocity, torch.tensor(hit)
        ).reshape(-1)
        column = shift.reshape(-1, *(1,) * (y.dim() - 1)) if values.samples else shift.reshape(())
        return tau + shift, y + velocity * column.to(y.real.dtype)

    def _through_clock(self, tau: Any) -> Any:
        """The user's time, which carries gradients where t does."""
        return tau if self._clock is None else self._clock.time(tau)

    def times(self, i: int) -> Any:
        """The times of event i so far, float64 (k,), on the state's device; a list of B such for
        steps of every sample."""
        order, counts = self._order(i)
        none = torch.empty(0, dtype=torch.float64, device=self._values.layout.device)
        flat = torch.cat([none, *(one.t for one in self.found[i])])[order]
        return flat if self._values.samples is None else list(flat.split(counts))

    def states(self, i: int) -> Any:
        """The states at event i, (k, *shape) in the user's structure; a list of B such for steps
        of every sample."""
        layout, (order, counts) = self._values.layout, self._order(i)
        shape = layout.shapes[0] if not layout.joined else (sum(layout.sizes),)
        empty = torch.empty((0, *shape), dtype=layout.dtype, device=layout.device)
        rows = torch.cat([empty, *(one.y for one in self.found[i])])[order]
        if self._values.samples is None:
            return layout.split(rows, 1)
        return [layout.split(own) for own in rows.split(counts)]

    def _order(self, i: int) -> tuple[Tensor, list[int]]:
        """The occurrences of event i by sample, and how many each sample has."""
        samples = np.concatenate([np.empty(0, int), *(one.samples for one in self.found[i])])
        order = torch.tensor(np.argsort(samples, kind="stable")).to(self._values.layout.device)
        return order, np.bincount(samples, minlength=self._values.width).tolist()
