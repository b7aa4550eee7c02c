"""A solve with gradients by another way than through its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..equations.velocity import DetailedVelocity, StateLayout
from ..plans.method import Method
from ..solution import Solution
from .by_adjoint import solve_by_adjoint
from .by_sensitivities import solve_by_sensitivities
from .choice import Adjoint, Forward


def differentiated_solve(
    solve: Callable[..., Solution], way: Adjoint | Forward, layout: StateLayout, chosen: Method,
    given: dict[str, Any],
) -> Solution:  # fmt: skip
    """Solve, with the solution's gradients by the adjoint or by forward sensitivities.

    Args:
        solve: `quadflow.solve`. way: the settings. layout: of the state. chosen: the method.
        given: what `solve` was called with, by name, tolerances complete.

    Raises:
        As `solve`; ValueError: arguments that the way does not go with.
    """
    func = given["func"]
    if not callable(func):
        what = "DetailedVelocity" if isinstance(func, DetailedVelocity) else type(func).__name__
        raise TypeError(
            f"func is a {what}, which gradient={given['gradient']!r} does not take: give a "
            "function func(t, y), or take gradient='backprop'"
        )
    if not isinstance(given["args"], (tuple, list)):
        raise TypeError(f"args must be a tuple of func's further arguments, got {given['args']!r}")
    if isinstance(way, Adjoint):
        return solve_by_adjoint(solve, way, layout, chosen, given)
    return solve_by_sensitivities(solve, way, layout, given)
