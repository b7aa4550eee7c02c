"""What every method declares, whatever its plan."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

FLOAT64 = 2.0**-52
"""Relative rounding of float64."""


@dataclass(frozen=True, eq=False)
class Method:
    """What `solve` needs to know of a method; each plan has a class of its own.

    Attributes:
        name: as in the registry.
        order: global order p, error O(h^p) at fixed steps; None where none is claimed.
        dense_order: the same for the solution between the steps.
        error_order: q, the error estimate being O(h^q); None without an estimate (fixed steps
            only).
        max_growth: largest factor between the sizes of successive adaptive steps.
        description: what the method is and where it comes from, in one line.
        takes_fixed_steps: False where step sizes are chosen together with something else, such as
            the order.
    """

    takes_fixed_steps: ClassVar[bool] = True

    name: str
    order: int | None
    dense_order: int | None
    error_order: int | None
    max_growth: float
    description: str = field(default="", kw_only=True)

    def for_tolerance(self, rtol: float, eps: float = FLOAT64) -> Method:
        """The method that an adaptive solve takes at this relative tolerance: itself, unless its
        size is to be chosen.

        eps: relative rounding of func's values.
        """
        return self

    @functools.cached_property
    def widest_gap(self) -> float:
        """The longest part of a step within which f is not evaluated: 1 where it is at the ends
        alone."""
        return 1.0

    @property
    def stability_limit(self) -> float | None:
        """The reach of the stability region on the negative real axis, at equal steps.

        None where it is not known, or f is never evaluated at two states to compare.
        """
        return None

    @property
    def stiff_margins(self) -> tuple[float, float] | None:
        """Two factors that tell a stiff problem from one whose solution itself is fast: how many
        times faster than the solution turns the stiff part must be; and how many tolerances a step
        may move the state by and still be at rest.

        A state at rest moves by the noise of the stiff part, which turns without end. Two kinds of
        plans need the factors: those whose stability limits are so small that loose tolerances meet
        them on any problem, and those that may take a jump of f in time for a change with the
        state. None for the others.
        """
        return None

    @property
    def has_exact_adjoint(self) -> bool:
        """Whether the adjoint equation gives the exact gradient of what the method computed, where
        the method solves it backward over its own steps.
        """
        return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: order {self.order}>"


def widest_gap(nodes: np.ndarray) -> float:
    """The longest part of a step, from 0 to 1, between two nodes or a node and an end."""
    return float(np.diff(np.unique([0.0, *nodes, 1.0])).max())


def reach(growth: Callable[[np.ndarray], np.ndarray]) -> float:
    """The last x, of 0.02, 0.04, … 12, up to which the growth over a step does not exceed 1."""
    x = np.arange(0.0, 12.0, 0.02)
    above = growth(x) > 1 + 1e-6
    return float(x[max(0, int(above.argmax()) - 1)] if above.any() else x[-1])
