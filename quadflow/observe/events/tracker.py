"""Events: zeros of functions g(t, y) along the solution, found on its dense output.

Every accepted step is looked at in several places, and the values there of all events are read
together, in one host synchronisation. A zero lies where the sign changes from one look to the next;
where the looks' own polynomial comes to zero between two of one sign, or they are too few to say
so, there are more looks (`hidden_zeros`). A zero is bracketed (Chandrupatla 1997) down to the
rounding of the step, on the polynomial of the step.

A value that is exactly zero is one event, where zero is reached: neither staying at zero nor
leaving it is another. Its sign afterwards is looked at just behind it. At the start and at the end
of the solve a value that rounding alone keeps from zero is zero (`rounding`).

Times and states of events are differentiable: see `gradients`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ...equations.clock import Clock
from ...equations.velocity import StateLayout
from ...plans.result import StepResult
from .dense_step import DenseStep
from .event import Stop, as_events
from .looks import Looks
from .occurrences import Occurrences
from .values import EventValues
from .zeros import Zeros


class EventTracker:
    """Finds the events of one solve, step by step: `start`, then `step` for every accepted step.

    Args:
        events: see `as_events`.
        layout: of the state; gives functions their y and t.
        samples: B where every sample has steps of its own, None for shared steps.
        clock: of a solve whose times require grad.

    The host arrays of this package are (lanes, B) or (events, B), with B = 1 for shared steps; see
    `Lanes`.
    """

    def __init__(
        self, events: Any, layout: StateLayout, samples: int | None, clock: Clock | None = None
    ) -> None:
        self._events = as_events(events)
        self._values = EventValues(self._events, layout, samples)
        self._occurrences = Occurrences(self._values, clock)

    def start(self, t0: Any, y0: Tensor, t_end: Any) -> None:
        """Take the values at the start: t0 a float, or times of B samples; y0 the state there;
        t_end where the solve will end.

        Raises:
            TypeError, ValueError: a function that gives no number, or NaN.
        """
        if isinstance(t0, Tensor):
            t0 = t0.detach().cpu().numpy()
        width = self._values.width
        self._t, end = (
            np.broadcast_to(np.asarray(t, dtype=np.float64).reshape(-1), (width,)).copy()
            for t in (t0, t_end)
        )
        self._fresh = np.ones(width, bool)
        if self._events:
            self._looks = Looks(self._values, self._t, end)
            started = self._looks.start(y0)
            self._zeros = Zeros(self._values, self._occurrences, self._t, end, started)

    def step(self, result: StepResult) -> Stop | None:
        """Look for events in an accepted step.

        Returns:
            Where terminal events end the solve; None where none does.

        Raises:
            TypeError, ValueError: a function that gives no number, or NaN.
        """
        if not self._events:
            return None
        taken = DenseStep(result, self._t, self._values.samples)
        looked = self._looks.look(taken)
        final = None if looked is None else self._zeros.record(taken, *looked, self._fresh)
        self._fresh &= ~taken.good
        self._t = np.where(taken.good, taken.t1, taken.t0)
        if final is None or np.isnan(final).all():
            return None
        if self._values.samples is not None:
            return Stop(final)
        ended = next(
            own[-1]
            for event, own in zip(self._events, self._occurrences.found, strict=True)
            if event.terminal and own and own[-1].when == final[0]
        )
        return Stop(float(final[0]), ended.y[0], ended.t)

    @property
    def t_events(self) -> list[Any]:
        """The times so far of every event, in the order of the solve: float64 (k,), on the state's
        device. For steps of every sample a list of B such tensors."""
        return [self._occurrences.times(i) for i in range(len(self._events))]

    @property
    def y_events(self) -> list[Any]:
        """The states there of every event, (k, *shape) in the user's structure; a list of B such
        for steps of every sample."""
        return [self._occurrences.states(i) for i in range(len(self._events))]
