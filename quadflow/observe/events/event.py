"""What an event is, and what a user may give for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import check_callable, is_integer
from .gradients import EventFunction


@dataclass(frozen=True)
class Event:
    """A zero of g along the solution.

    Args:
        function: g(t, y) -> 0-dimensional real tensor; t and y as func gets them. With
            batch_dims=1 (B,), one number a sample, each of its own sample alone.
        terminal: True ends the solve at the first zero, an integer m >= 1 at the m-th. A zero at
            the very start does not count.
        direction: 1 for zeros where g rises in the direction of the solve, -1 where it falls, 0 for
            both.
        subintervals: None looks at every step in as many places as its polynomial needs, ten or
            more, and more closely where these do not settle whether there are zeros between them.
            An integer cuts every step into so many equal parts and looks for changes of sign alone;
            two zeros in one part go unseen. With 1 only the ends of the steps are looked at, and
            dense output is made only in steps with a zero.

    Raises:
        TypeError, ValueError: an argument that is none of these.
    """

    function: EventFunction
    terminal: bool | int = False
    direction: int = 0
    subintervals: int | None = None

    def __post_init__(self) -> None:
        check_callable(self.function, "an event's function", "g(t, y)")
        if not isinstance(self.terminal, (bool, np.bool_)) and not is_integer(self.terminal, 1):
            raise ValueError(
                f"terminal must be True, False or an integer >= 1, got {self.terminal!r}"
            )
        if self.direction not in (-1, 0, 1):
            raise ValueError(f"direction must be -1, 0 or 1, got {self.direction!r}")
        if self.subintervals is not None and not is_integer(self.subintervals, 1):
            raise ValueError(
                f"subintervals must be an integer >= 1, got {self.subintervals!r} (or None, to "
                "look where the step's polynomial needs it)"
            )


class FirstChange(Event):
    """An event for which a zero within rounding of the start is no zero at the start: it ends the
    solve, as by torchdiffeq's contract.
    """


def event_of_any(event_fn: Callable[..., Tensor], t0: Tensor, y0: Any) -> Event:
    """The terminal event that an entry of event_fn changes its sign: torchdiffeq's `event_fn`.

    Args:
        event_fn: event_fn(t, y) -> real tensor of any shape.
        t0, y0: start of the solve, where each entry's sign is taken.

    Returns:
        `Event` whose function is the least of the entries, each times its sign at the start: zero
        where the first of them is. It is zero at the start already where an entry is; by
        torchdiffeq's contract (Chen 2018) the solve then ends at once, which is for the caller to
        look at: a tracker does not end a solve where it starts.
    """
    with torch.no_grad():
        signs = torch.sign(event_fn(t0, y0))

    def least(t: Tensor, y: Any) -> Tensor:
        return (event_fn(t, y) * signs).min()

    return FirstChange(least, terminal=True, direction=-1)


def as_events(events: Any) -> list[Event]:
    """The events that a user gives: an Event, a function, or a sequence of these.

    A plain function may carry scipy's attributes `terminal` and `direction`.

    Raises:
        TypeError, ValueError: something else, or attributes that an `Event` does not take.
    """
    several = isinstance(events, Iterable) and not isinstance(events, (Event, dict, str))
    found: list[Event] = []
    for i, event in enumerate(events if several and not callable(events) else [events]):
        if isinstance(event, Event):
            found.append(event)
        elif callable(event):
            terminal = getattr(event, "terminal", False)
            direction = getattr(event, "direction", 0)
            try:  # scipy takes any number for its sign
                direction = int(np.sign(direction))
                # None and 0 are scipy's False
                found.append(Event(event, terminal or False, direction))
            except (TypeError, ValueError) as error:
                raise type(error)(f"events[{i}]: {error}") from error
        else:
            raise TypeError(
                f"events[{i}] must be an Event or a function g(t, y), got {type(event).__name__}"
            )
    return found


@dataclass(frozen=True)
class Stop:
    """The end of a solve at a terminal event.

    t: a float for shared steps; a float64 array (B,) for steps of every sample, NaN for those that
    go on. y, time: in shared steps the state there, and t as a tensor (1,) that is differentiable,
    as the event moves.
    """

    t: Any
    y: Tensor | None = None
    time: Tensor | None = None
