"""The plan *stages*: explicit Runge-Kutta."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ..rules.tableau import Tableau
from .method import Method, reach, widest_gap


@dataclass(frozen=True, eq=False, repr=False)
class StagesMethod(Method):
    """The plan *stages*: node velocities built one after another (explicit Runge-Kutta).

    Attributes:
        tableau: its numbers.
    """

    tableau: Tableau

    @functools.cached_property
    def widest_gap(self) -> float:
        return widest_gap(self.tableau.c)

    @functools.cached_property
    def stability_limit(self) -> float | None:
        tableau, s = self.tableau, len(self.tableau.a)
        moment, powers = np.ones(s), [1.0]
        for _ in range(s):
            powers.append(float(tableau.b @ moment))
            moment = tableau.matrix @ moment
        return reach(lambda x: np.abs(np.polynomial.polynomial.polyval(-x, powers)))

    @property
    def stiff_margins(self) -> tuple[float, float] | None:
        # stages none of which are at one time see f jump in time
        if self.tableau.probe is None:
            return None
        return (5.0, 10.0) if np.count_nonzero(self.tableau.probe[0]) > 2 else None


def stages(tableau: Tableau, name: str = "stages") -> StagesMethod:
    """The method of an explicit Runge-Kutta tableau.

    Args:
        tableau: its orders are the method's; without `errors` the method takes fixed steps alone.
        name: shown in messages.

    Raises:
        TypeError: tableau is no Tableau.
    """
    if not isinstance(tableau, Tableau):
        raise TypeError(f"tableau must be a Tableau, got {tableau!r}")
    return StagesMethod(
        name=name,
        order=tableau.order,
        dense_order=tableau.dense_order,
        error_order=tableau.error_order,
        max_growth=10.0,
        tableau=tableau,
    )
