"""Times as func sees them, rounded: what that does to adaptive steps far from t = 0.

A velocity that depends on t is off by f_t δ, δ being up to half a rounding of t, of which a step's
error estimate sees h f_t δ. Where that is more than a tolerance, steps get far shorter than the
solution asks for. Sweeps from an extrapolated guess amplify it, and can undo it (`seen_times`).

Whether it counts is measured, in the steps where it might: two evaluations of func at one state and
two times, a little of a step apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..equations.velocity import Velocity
from ..errors import RoundingWarning, caller_level
from ..plans.method import Method
from .control import Tolerance

FELT = 0.3
"""The change of func by one rounding of t, over a step and in tolerances, from which on it counts.
Below 1 no method takes more than a fifth more steps (but sweeps, which undo it)."""

NARROW = 1e-2
"""Roundings of t over the step from which on there are hardly any times to choose from."""

APART = 1 / 16
"""The share of a step that the two times lie apart."""

BEYOND = 0.01
"""|Δf|/|f| over rtol, Δf by one rounding of t, up to which translation of t changes nothing and
there is no warning."""

NEAR_ZERO = 16
"""Steps from t = 0."""

RARER, RAREST = 4, 64
"""How many times as many trials lie between two measurements as between the last two, and the most.
"""


class TimeRounding:
    """Watches what the rounding of t does to the steps of one adaptive solve.

    Times t and sizes h are numbers, or arrays (B,) with a tolerance per sample. Nothing is done
    where t is not large against its rounding, seen from the steps and the tolerance.

    Attributes:
        corrects: whether sweeps are to undo it; of every sample where each has steps of its own.
        pending: what was measured and is still to be read, one row of numbers each; () for nothing.
    """

    def __init__(
        self, method: Method, velocity: Velocity, tolerance: Tolerance, samples: int | None = None
    ) -> None:
        self._velocity, self._tolerance = velocity, tolerance
        dtype = velocity.layout.time_dtype
        self._eps = torch.finfo(dtype).eps
        self._single = dtype is not torch.float64
        self._rtol = tolerance.strictest
        self._gain = method.amplification
        # f changes in a step by about itself: what one rounding of t is of the step is then its
        # share in that. Within some steps of 0 it is no more than the rounding of f
        self._least = max(self._rtol / max(10.0, self._gain), NEAR_ZERO * self._eps)
        one = 1 if samples is None else np.ones(samples, int)
        self.corrects: Any = False if samples is None else np.zeros(samples, bool)
        self.pending: Sequence[Tensor] = ()
        self._measured: tuple[Any, Any, Any] = (0.0, 0.0, False)
        self._since, self._wait = 0 * one, one  # trials: since, and between, two measurements
        self._message = ""
        self._told = False

    def amplifies(self, t: Any) -> Any:
        """Whether steps from t on that are as long as the solution allows for might suffer from an
        extrapolated guess: asked before the first one."""
        return self._eps * abs(t) * self._gain > 0.1 * self._rtol

    def due(self, t: Any, h: Any, tried: Any = True) -> Any:
        """Whether to `measure` after a trial of size h from t: where the rounding of t might count
        in steps of this size, after the first of them and then ever more rarely.

        tried: of which samples it was a trial, and no further sweep that goes on.
        """
        self._since = self._since + tried
        looms = self._eps * abs(t) > self._least * h
        if looms is False or (self._told and not self._gain):  # nothing, or nothing more, to do
            return False
        return looms & tried & (self._since >= self._wait)

    def measure(
        self,
        t: Any,
        y: Tensor,
        h: Any,
        sign: float,
        due: Any = True,
        on_device: Callable[[Any], Any] = float,
    ) -> None:
        """Evaluate func at (t, y) and a little later, for `read`: two evaluations, in one call
        where nodes are evaluated together.

        due: of which samples it is used. on_device makes a tensor that broadcasts against y of an
        array (B,).
        """
        if due is True:
            self._since, self._wait = 0, min(RARER * self._wait, RAREST)
        else:
            self._since = np.where(due, 0, self._since)
            self._wait = np.where(due, np.minimum(RARER * self._wait, RAREST), self._wait)
        velocity, y = self._velocity, y.detach()
        ulp = np.maximum(self._eps * np.abs(t), np.finfo(np.float64).tiny)
        here = self._seen(t)
        there = self._seen(t + sign * np.maximum(APART * h, 2 * ulp))
        # what func changes by between the two, in one rounding of t and over a step
        change = h * ulp / np.abs(there - here)
        with torch.no_grad():
            times = [on_device(np.float64(when)) for when in (here, there)]
            if velocity.mode == "auto":
                one, other = (velocity(when, y)[0] for when in times)
            else:
                both = torch.stack([torch.as_tensor(when, dtype=torch.float64) for when in times])
                one, other = velocity.nodes(both.to(y.device), torch.stack((y, y))).unbind()
            step, change = (
                torch.as_tensor(on_device(size), dtype=y.real.dtype, device=y.device)
                for size in (h, change)
            )
            moved = one * step
            felt, whole = (
                self._tolerance.ratio(x, y, y + moved) for x in ((other - one) * change, moved)
            )
            share = torch.where(whole > 0, felt / whole, 0.0)
        self.pending, self._measured = (felt, share), (t, h, due)

    def _seen(self, t: Any) -> Any:
        return np.float64(np.float32(t)) if self._single else t

    def read(self, numbers: Sequence[Any]) -> Sequence[Any]:
        """The numbers of `pending`, which come last, taken off."""
        if not self.pending:
            return numbers
        self.pending = ()
        *others, felt, share = numbers
        t, h, due = self._measured
        felt, share = np.where(due, felt, 0.0), np.where(due, share, 0.0)
        if self._gain:
            corrects = self.corrects | (felt > 0)  # 0 where func does not depend on t
            self.corrects = bool(corrects) if corrects.ndim == 0 else corrects
        narrow = self._eps * np.abs(t) > NARROW * h
        beyond = ((felt >= FELT) | narrow) & (share > BEYOND * self._rtol)
        if not self._told and beyond.any():
            worst = int(np.argmax(np.where(beyond, felt, -1.0)))
            self._message = self._warning(*(np.atleast_1d(x)[worst] for x in (t, h, felt)))
        return others

    def _warning(self, t: float, h: float, felt: float) -> str:
        name = "float32" if self._single else "float64"
        return (
            f"t={t:.9g} is rounded to {self._eps * abs(t):.2g} ({name}), in which func changes by "
            f"{felt:.2g} tolerances a step of size h = {h:.3g}, at rtol={self._rtol:.3g}: more "
            "than can be told from an error, so that steps may be far shorter than the solution "
            "asks for. Shift t such that the solve starts at 0"
            + (", keep the state, and with it t, in float64," if self._single else "")
            + " or take a looser rtol"
        )

    def tell(self) -> None:
        """Warn, once, of what was found."""
        if self._message and not self._told:
            self._told = True
            warnings.warn(self._message, RoundingWarning, stacklevel=caller_level())
