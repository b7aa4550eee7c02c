"""Solves that are driven from outside: they ask for velocities, and are told them.

Pipelines that own the loop (schedulers of diffusion models, laboratory instruments, simulators
behind a queue) evaluate func themselves. `drive` turns the loop inside out for them; the steps are
those of `solve`, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from ..equations.times import monotone_times
from ..equations.velocity import StateLayout, Velocity
from ..plans.method import Method
from ..plans.registry import get_method
from ..plans.result import StepResult
from ..plans.state import State


class Asking(Protocol):
    """The stepper of a method that can be driven, see `plans.anchors.method.AnchorsStepper`."""

    velocity: Velocity

    def begin(self, state: State, t1: Any, is_last: bool) -> Any: ...
    def ask(self, trial: Any) -> tuple[Any, Tensor] | None: ...
    def tell(self, trial: Any, v: Tensor, detail: Any = None) -> Any: ...
    def finish(self, trial: Any) -> StepResult: ...


@dataclass(frozen=True)
class Driven:
    """A solve in fixed steps that is driven from outside, made by `drive`.

    Nothing in it ever changes: `tell` returns the next one, and the one before may be kept to go
    back to, copied, or continued in two ways.

    Attributes:
        grid: ends of the steps, floats. told: velocities so far (NFE).
    """

    grid: tuple[float, ...]
    told: int
    _stepper: Asking
    _state: State
    _trial: Any
    _index: int

    @property
    def t(self) -> float:
        """The time that was reached: the last end of a step with nothing left to be asked."""
        return self.grid[self._index]

    @property
    def y(self) -> Any:
        """The state there, like y0."""
        return self._stepper.velocity.layout.split(self._state.y)

    @property
    def done(self) -> bool:
        """Whether the end of the grid is reached."""
        return self._trial is None

    def ask(self) -> tuple[float, Any] | None:
        """The time and the state where the velocity is wanted next, or None at the end.

        The state is like y0 and a copy: it may be changed in place.
        """
        wanted = None if self.done else self._stepper.ask(self._trial)
        if wanted is None:
            return None
        t, y = wanted
        return t, self._stepper.velocity.layout.split(y.clone())

    def tell(self, v: Any) -> Driven:
        """The solve with the velocity where it was asked for.

        v: like y0; it is copied.

        Raises:
            ValueError: nothing is asked for any more.
            VelocityError: another type, shape, dtype or device than the state's.
        """
        stepper = self._stepper
        wanted = None if self.done else stepper.ask(self._trial)
        if wanted is None:
            raise ValueError(f"tell: the solve has reached its end, t={self.t:.9g}")
        checked = stepper.velocity.checked(v, wanted[1], 0)
        trial = stepper.tell(self._trial, checked.clone() if checked is v else checked)
        return replace(self, told=self.told + 1, _trial=trial)._settled()

    def _settled(self) -> Driven:
        """The same after all steps that want nothing more."""
        state, trial, index, stepper = self._state, self._trial, self._index, self._stepper
        while trial is not None and stepper.ask(trial) is None:
            state, index, trial = stepper.finish(trial).state, index + 1, None
            if index + 1 < len(self.grid):
                trial = stepper.begin(state, self.grid[index + 1], index + 2 == len(self.grid))
        return replace(self, _state=state, _trial=trial, _index=index)


def drive(
    method: str | Method,
    y0: Any,
    grid: Sequence[float] | np.ndarray | Tensor,
    *,
    accumulation_dtype: torch.dtype | None = None,
) -> Driven:
    """Begin a solve in fixed steps whose velocities come from outside.

        solving = quadflow.drive(quadflow.adams(2, startup="rising"), y0, grid)
        while (wanted := solving.ask()) is not None:
            t, y = wanted
            solving = solving.tell(f(t, y))
        solving.y  # at grid[-1]

    Args:
        method: of the anchors plan with startup="rising": Adams-Bashforth, PEC and PECE methods
            such as `adams(2, "PEC", startup="rising")`, and interpolants of your own
            (`anchors`). One velocity an interval is asked for, with PECE two.
        y0: as of `solve`, not changed.
        grid: ends of the steps (N+1,), strictly monotone; kept in float64.
        accumulation_dtype: as of `solve`.

    The result is that of `solve` with this method and grid, to the bit. What is told is not looked
    at: velocities that are not finite lead to states that are not.

    Returns:
        `Driven`.

    Raises:
        TypeError, ValueError: a bad argument, or a method that cannot be driven.
    """
    chosen = get_method(method)
    if not chosen.is_driven:
        raise ValueError(
            f"method {chosen.name!r} cannot be driven from outside: take one of the anchors plan "
            "with startup='rising', such as adams(2, 'PEC', startup='rising')"
        )
    layout = StateLayout(y0, accumulation_dtype)
    times = tuple(monotone_times(grid, "grid"))
    velocity = Velocity(_evaluated_outside, layout, (times[0], times[-1]), "loop")
    stepper = cast(Asking, chosen.stepper(velocity))
    state = State(times[0], layout.start(y0))
    trial = stepper.begin(state, times[1], len(times) == 2)
    return Driven(times, 0, stepper, state, trial, 0)._settled()


def _evaluated_outside(t: Tensor, y: Any) -> NoReturn:
    raise RuntimeError("a solve that is driven from outside evaluates nothing itself")
