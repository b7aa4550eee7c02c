"""Wall times of several things in one run, taken in turns, so that the machine's load hits all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from ...checks import integer_from


@dataclass(frozen=True)
class Timing:
    """Wall seconds of repeated runs of one thing.

    warm_up: of its first run, which compiles what is compiled. times: of the others.
    """

    warm_up: float
    times: tuple[float, ...]

    @property
    def best(self) -> float:
        """The shortest: what other processes disturb least."""
        return min(self.times)

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.times)


def interleaved(
    runs: Mapping[str, Any],
    *,
    repeats: int = 7,
    seconds: float = 1.5,
    warm_ups: Mapping[str, float] | None = None,
    clock: Callable[[Any], float] | None = None,
) -> dict[str, Timing]:
    """Time every run `repeats` times, round after round through all of them.

    Args:
        runs: name -> what is timed: functions of no arguments, or what `clock` takes.
        repeats: rounds, >= 1. seconds: a run that has taken this long in all sits out the rounds
            after its second.
        warm_ups: seconds that first runs took elsewhere; those are not warmed up again.
        clock: run -> wall seconds of one run of it; `clocked` where None.

    Raises:
        ValueError: repeats below 1.
    """
    integer_from(1, repeats, "repeats")
    clock = clock or clocked
    first = dict(warm_ups or {})
    for name, run in runs.items():
        if name not in first:
            first[name] = clock(run)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            spent = times[name]
            if len(spent) < 2 or sum(spent) < seconds:
                spent.append(clock(run))
    return {name: Timing(first[name], tuple(spent)) for name, spent in times.items()}


def forget_compiled() -> None:
    """Drop what `torch.compile` has made.

    Without it the ninth problem of a process runs eagerly and nothing says so: torch compiles one
    function a limited number of times, and a solver's loop is one function for all problems.
    """
    torch.compiler.reset()


def graphs_compiled() -> int:
    """How many graphs `torch.compile` has made in this process so far."""
    from torch._dynamo.utils import counters  # takes seconds to import

    return int(counters["stats"]["unique_graphs"])


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a run returns, and its wall seconds."""
    began = time.perf_counter()
    result = run()
    return result, time.perf_counter() - began


def clocked(run: Callable[[], object]) -> float:
    """Wall seconds of one run."""
    return timed(run)[1]
