"""Samplers that are judged side by side, with what may be tuned of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...adapters.fitted.fitted import FittedSampler
from ...adapters.fitted.shipped import shipped_fitted
from ...adapters.sampling.samplers import SHIPPED, Sampler
from ...adapters.training.state import digest
from ...plans.method import Method
from .cab import ADAMS, cab_plan

Runnable = str | Sampler | Method
"""What `run_sampler` takes as its method."""


@dataclass(frozen=True, eq=False)
class Rival:
    """A sampler as it is judged.

    name: in tables. sampler: what `run_sampler` takes. settings: value of a parameter -> sampler,
    of which the best for each NFE is chosen on the selection noises, together with the grid; empty
    where there is nothing to tune. own_grid: it brings its times, so that no grid is chosen for it.
    mark: what tells it from another of its name, such as the hash of its file; rows of another mark
    are made anew when an evaluation goes on. budgets: the NFE that it has, None for any.
    """

    name: str
    sampler: Runnable
    settings: Mapping[float, Runnable] = field(default_factory=dict)
    own_grid: bool = False
    mark: str = ""
    budgets: Sequence[int] | None = None

    def has(self, nfe: int) -> bool:
        """Whether it can be run with so many evaluations."""
        return self.budgets is None or nfe in self.budgets

    def at(self, setting: float | None) -> Runnable:
        """The sampler at a value of its parameter; None for the one that has none."""
        return self.sampler if setting is None else self.settings[setting]


CAB = Rival("cab", cab_plan(ADAMS), {t: cab_plan(t) for t in (-0.1, 0.1, 0.25, ADAMS, 0.6)})
"""Adams-Bashforth 2 with a tuned constant θ, see `CorrectedAdams`."""


def shipped_rival(model: Any, scale: float) -> Rival:
    """The shipped fitted sampler of a backbone, with the budgets of a guidance scale.

    Raises:
        ValueError: none is shipped for this backbone, or none for this scale.
    """
    return fitted_rival(SHIPPED, shipped_fitted(model), scale)


def fitted_rival(name: str, fitted: FittedSampler, scale: float) -> Rival:
    """A fitted sampler, with the budgets of a guidance scale.

    Raises:
        ValueError: it has none.
    """
    budgets = [nfe for nfe, own in fitted.budgets if own == scale]
    if not budgets:
        known = sorted({own for _, own in fitted.budgets})
        raise ValueError(
            f"{name} was fitted for guidance {' and '.join(f'{s:g}' for s in known)}, not {scale:g}"
        )
    mark = digest(fitted.learned.state_dict())
    return Rival(name, fitted, own_grid=True, mark=mark, budgets=budgets)


def as_rival(method: str | Rival) -> Rival:
    """A rival; "cab" and the names that `run_sampler` knows become one."""
    if isinstance(method, Rival):
        return method
    return CAB if method == CAB.name else Rival(method, method)


def grid_of(calibrated: Sequence[float], intervals: int) -> list[float]:
    """A calibrated grid for another number of intervals, linear between its times."""
    times = np.asarray(calibrated, np.float64)
    if len(times) == intervals + 1:
        return times.tolist()
    places = np.linspace(0, 1, intervals + 1)
    return np.interp(places, np.linspace(0, 1, len(times)), times).tolist()


def intervals_of(name: str, nfe: int) -> int:
    """The intervals on which a rival spends nfe evaluations: two an interval for "heun"."""
    return (nfe + 1) // 2 if name == "heun" else nfe
