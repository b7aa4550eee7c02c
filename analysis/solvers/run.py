"""What a solver is and what a solve by it gives, whoever wrote it.

A measurement asks for a solve on a given grid of times, or at given tolerances, and receives a
`Run`. Where a solver was told a grid, what it did is compared with it, since a solver that takes
steps of its own shows an order of nothing. A comparison of costs has the solve alone, counted or
bare, by `Solver.bind`.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...plans.method import Method
from ..problems.problem import Problem
from ..problems.subjects import Subject
from .counting import CountedVelocity, Counter

EXTRA = "benchmarks"
"""The extra of quadflow that brings the libraries of peers."""

ATOL_RATIO = 1e-2
"""Absolute over relative tolerance of every `Solve`."""

Solve = Callable[[float], Any]
"""relative tolerance -> the end state, of y0's shape (tensor or array)."""


class Dense:
    """States at any time of the span, from the solver's own interpolant; made when first asked.

    A number gives (d,), `many` gives (T, d), both float64.
    """

    def __init__(self, many: Callable[[np.ndarray], Tensor]) -> None:
        self._many = many

    def many(self, times: np.ndarray) -> Tensor:
        """The states at times (T,) of any order: (T, d)."""
        return self._many(np.asarray(times, dtype=np.float64))

    def __call__(self, t: float) -> Tensor:
        return self._many(np.array([t], dtype=np.float64))[0]


def piecewise(times: Sequence[float], piece: Callable[[int, float], Tensor]) -> Dense:
    """States by piece(i, t), i being the number of the interval between the times that t is in."""
    sign = math.copysign(1.0, times[-1] - times[0])
    keys = [sign * t for t in times]

    def at(t: float) -> Tensor:
        return piece(bisect.bisect_left(keys, sign * t, 1, len(keys) - 1) - 1, t)

    return Dense(lambda wanted: torch.stack([at(t) for t in wanted.tolist()]))


@dataclass(frozen=True)
class Run:
    """One solve by anybody's solver.

    end: (d,) float64, the state reached; None when the end was not reached. It carries torch's
    graph where the problem's y0 requires grad and the solver is torch's. nfe: velocity evaluations
    of single states. calls: sequential calls of f. seconds: wall time of the solve alone. failure:
    why it did not reach the end (or left the grid it was told); None where it did. dense: t -> (d,)
    by the solver's interpolant, see `Dense`; it may solve once more, outside the counts. steps:
    accepted times, the start included, where known. estimates: the solver's local error estimate
    of every accepted step (largest entry, absolute), where known.
    """

    end: Tensor | None
    nfe: int
    calls: int
    seconds: float
    failure: str | None = None
    dense: Callable[[float], Tensor] | None = None
    steps: tuple[float, ...] = ()
    estimates: tuple[float, ...] = ()

    def states(self, times: np.ndarray) -> Tensor:
        """The states (T, d) at times (T,) by `dense`.

        Raises:
            ValueError: the solver gives none between its steps.
        """
        if self.dense is None:
            raise ValueError("the solver gives no states between its steps")
        if isinstance(self.dense, Dense):
            return self.dense.many(times)
        return torch.stack([self.dense(t) for t in times.tolist()])


@dataclass(frozen=True)
class Solver:
    """A solver by name, with what it can do.

    name: of the library and the solver, with a colon between; quadflow's methods without the
    library. order: declared, None where none is. fixed: (problem, grid (N+1,) of times) -> Run on
    these steps; None where the solver cannot be told its steps. adaptive: (problem, rtol, atol) ->
    Run; None where it has no error control. method: quadflow's Method, where it is one. bind:
    (subject, counter or None) -> `Solve`; with a counter every evaluation is counted there, without
    one nothing is between the solver and f. compiled: whether its first `Solve` compiles.
    per_sample: whether every trajectory of a batch has steps of its own.
    """

    name: str
    order: int | None
    fixed: Callable[[Problem, np.ndarray], Run] | None
    adaptive: Callable[[Problem, float, float], Run] | None
    method: Method | None = None
    bind: Callable[[Subject, Counter | None], Solve] | None = field(default=None, repr=False)
    compiled: bool = False
    per_sample: bool = False

    @property
    def library(self) -> str:
        """The prefix of the name, before its colon; "quadflow" without one."""
        return self.name.partition(":")[0] if ":" in self.name else "quadflow"

    @property
    def title(self) -> str:
        """Library and name, for tables."""
        return f"{self.library} {self.name.removeprefix(self.library + ':')}"

    @property
    def twin(self) -> str:
        """Title of the solver that takes the same steps eagerly; its own if there is no other."""
        return self.title.replace(" compiled", "")


def guarded(problem: Problem, solve: Callable[[CountedVelocity], Run]) -> Run:
    """The run that `solve` makes with the problem's counted f; whatever it raises is its failure,
    with what it had cost."""
    f = CountedVelocity(problem)
    began = time.perf_counter()
    try:
        with without_warnings():
            result = solve(f)
    except Exception as error:
        spent = time.perf_counter() - began
        return Run(None, f.nfe, f.calls, spent, f"{type(error).__name__}: {first_line(error)}")
    if result.end is not None and not bool(torch.isfinite(result.end.detach()).all()):
        return dataclasses.replace(result, end=None, failure="the state is not finite")
    return result


@contextmanager
def without_warnings() -> Iterator[None]:
    """Leave out the warnings of what runs inside: a peer's own are not ours to mend."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def quietly(solve: Callable[[], Any]) -> Any:
    """What a solve gives, without its warnings and without gradients."""
    with without_warnings(), torch.no_grad():
        return solve()


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error) or "no message").splitlines()[0]


def on_grid(run: Run, wanted: np.ndarray) -> Run:
    """The run, failed where its steps are not the grid (N+1,) to the last digits."""
    if run.failure is not None:
        return run
    wrong = _left_grid(wanted, run.steps)
    return run if wrong is None else dataclasses.replace(
        run, end=None, failure=f"left the grid: {wrong}"
    )  # fmt: skip


def _left_grid(wanted: np.ndarray, taken: Sequence[float]) -> str | None:
    if len(taken) != len(wanted):
        return f"took {len(taken) - 1} steps where the grid has {len(wanted) - 1}"
    off = np.abs(np.asarray(taken) - wanted)
    if off.max() > 1e-13 * np.abs(wanted).max():
        i = int(off.argmax())
        return f"was at t={taken[i]:.9g} where the grid has t={wanted[i]:.9g}"
    return None
