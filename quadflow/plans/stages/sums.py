"""The sums of a Runge-Kutta step, as pure functions of tensors or arrays.

h is a float, or a tensor that broadcasts against the state. Nothing is counted or checked here.
For small states (`small_states`) there are the same of NumPy's arrays, of which h is a float.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...rules.tableau import Tableau
from ..sums import add_scaled, combine

Array = np.ndarray

SUMMED_AT_ONCE = 2048
"""Most entries of a state whose stages are summed all at once: fewer operations, but more work for
every entry, which large states are spared."""


FORMULAS = (
    "tensor_stages",
    "StageSums.after",
    "StageSums.errors",
    "ColumnSums.after",
    "ColumnSums.errors",
    "array_stages",
    "combined",
)
"""Functions with formulas of a step, in which the laboratory plants faults."""


class StageSums:
    """The sums of stage velocities that a Runge-Kutta step from y0 is made of, each made when it is
    asked for: of states of any kind and size.

    h: a float, or a tensor that broadcasts against the state. velocities: of the stages so far.
    """

    def __init__(self, tableau: Tableau, y0: Tensor, h: Any) -> None:
        self._rows = [*tableau.a, tableau.numbers[1]]
        self._errors, self._y0, self._h = tableau.numbers[2], y0, h
        self.velocities: list[Tensor] = []

    def add(self, v: Tensor) -> None:
        """Take the next stage's velocity."""
        self.velocities.append(v)

    def after(self, v: Tensor) -> Tensor:
        """The state of the stage after the one with velocity v; after the last, the step's end."""
        self.add(v)
        return add_scaled(
            self._y0, combine(self._rows[len(self.velocities)], self.velocities), self._h
        )

    def errors(self) -> Any:
        """Every row of the error estimate."""
        h = self._h
        size = h.to(self._y0.real.dtype) if isinstance(h, Tensor) else h
        return [combine(row, self.velocities) * size for row in self._errors]


class ColumnSums(StageSums):
    """The same of a small state, for a float h: a velocity is added at once to all sums that it
    goes into, in one operation.

    columns: see `stage_columns`.
    """

    def __init__(self, tableau: Tableau, y0: Tensor, h: float, columns: list[Tensor]) -> None:
        super().__init__(tableau, y0, h)
        self._columns = columns
        self._is_flat = y0.dim() == 1  # then nothing is reshaped, which would cost as much as a sum
        self._sums: Tensor | None = None

    def add(self, v: Tensor) -> None:
        column = self._columns[len(self.velocities)]
        self.velocities.append(v)
        flat = v if self._is_flat else v.reshape(-1)
        sums = self._sums
        self._sums = torch.outer(column, flat) if sums is None else torch.addr(sums, column, flat)

    def _sum(self, row: int) -> Tensor:
        assert self._sums is not None
        total = self._sums[row]
        return total if self._is_flat else total.view_as(self._y0)

    def after(self, v: Tensor) -> Tensor:
        self.add(v)
        return torch.add(self._y0, self._sum(len(self.velocities) - 1), alpha=self._h)

    def errors(self) -> Any:
        count = len(self._errors)
        return [self._sum(row - count) * self._h for row in range(count)]


def stage_columns(tableau: Tableau, like: Tensor) -> list[Tensor]:
    """Column i: the weights of stage velocity i in every later sum, which are the states of the
    later stages, then the end where that is no stage, then the error estimates.

    As tensors of the dtype and device of a state `like` this one.
    """
    end = [] if tableau.first_same_as_last else [tableau.b]
    table = torch.tensor(np.stack([*tableau.matrix[1:], *end, *tableau.errors]))
    return list(table.to(like.device, like.dtype).T.contiguous().unbind(0))


@functools.lru_cache(maxsize=64)
def stage_table(tableau: Tableau, dtype: np.dtype[Any]) -> Array:
    """The weights of a tableau's stages as an array for states of this dtype, (s + 1 + errors, s):
    of the stage states, then of the end, then of the error estimates."""
    return np.array([*tableau.matrix, tableau.b, *tableau.errors], dtype)


def tensor_stages(
    tableau: Tableau, f: Callable[[Any, Any, bool], Any], t0: Any, t1: Any, h: Any, v0: Any,
    sums: Any,
) -> tuple[Any, Any]:  # fmt: skip
    """The state at t1 = t0 + h, and the error's estimate (None without one).

    f: (t, y, held) -> velocity; held: y is the state at t1. v0: velocity at the start. sums:
    `StageSums` from the state there, or the like; they hold the velocities of the stages
    afterwards.
    """
    c, v, last = tableau.numbers[0], v0, len(tableau.a) - 1
    reused, y1 = tableau.first_same_as_last, None
    for i in range(1, last + 1):
        y1 = sums.after(v)
        # c = 1 means t1 itself: t0 + h may miss it by rounding
        v = f(t1 if c[i] == 1.0 else t0 + c[i] * h, y1, reused and i == last)
    if reused:
        sums.add(v)
    else:
        y1 = sums.after(v)
    return y1, combined(sums.errors()) if tableau.errors else None


def array_stages(
    tableau: Tableau, f: Callable[[float, Array, bool], Array], t0: float, t1: float, y0: Array,
    v0: Array, real: Any,
) -> tuple[Array, Array | None, Array]:  # fmt: skip
    """`tensor_stages` in NumPy, of a state (numel,) of the real dtype `real`: the state at t1, the
    error's estimate, and the velocities (stages, numel)."""
    h = t1 - t0
    scaled = stage_table(tableau, y0.dtype) * np.array(h, real)
    c, s = tableau.numbers[0], len(tableau.a)
    # 0 before they are known, so that every sum is over all of them
    velocities = np.zeros((s, y0.size), y0.dtype)
    velocities[0] = v0
    held = s - 1 if tableau.first_same_as_last else s
    y1 = y0
    for i in range(1, s):
        y1 = scaled[i].dot(velocities)
        y1 += y0
        velocities[i] = f(t1 if c[i] == 1.0 else t0 + c[i] * h, y1, i == held)
    if held == s:
        y1 = scaled[s].dot(velocities)
        y1 += y0
    error = combined(scaled[s + 1 :].dot(velocities)) if tableau.errors else None
    return y1, error, velocities


def combined(parts: Any) -> Any:
    """The error that a tableau's rows of estimates tell: of two, fifth²/√(fifth² + third²/100),
    without squares that overflow."""
    if len(parts) == 1:
        return parts[0]
    fifth, third = abs(parts[0]), abs(parts[1])
    of = np if isinstance(fifth, np.ndarray) else torch
    total = of.hypot(fifth, 0.1 * third)
    return fifth * (fifth / of.where(total == 0, 1.0, total))
