"""Solvers at equal achieved error: a tolerance sweep each, then the cheapest timed in turns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..solvers.peers import Counter, OverBudgetError, Peer, Solve, quietly
from .subjects import Subject
from .timing import Timing, forget_compiled, interleaved

HALF_DECADES = tuple(float(f"{10 ** (-k / 2):.2e}") for k in range(4, 28))
"""Relative tolerances of a sweep, from loose to tight: 1e-2, 3.16e-3, ..., 3.16e-14."""

BUDGET = 30_000
"""Most calls of f in one solve; what needs more has not reached its target."""


@dataclass(frozen=True)
class Trial:
    """One solve of a sweep. error: achieved, None where the solve failed, and `failure` says why.
    calls: sequential calls of f; nfe: evaluations of single states."""

    tolerance: float
    error: float | None
    calls: int
    nfe: int
    failure: str | None = None


@dataclass(frozen=True)
class Entry:
    """One solver at one target: the cheapest of its trials that reaches it, and its wall time.

    trial, timing: None where no tolerance reaches the target; `failure` says what the tightest did.
    """

    solver: str
    library: str
    target: float
    trial: Trial | None
    timing: Timing | None
    failure: str | None = None
    share: float = 1.0

    @property
    def wall(self) -> float | None:
        """Best wall seconds of the whole job (extrapolated where only a share of it was run)."""
        return None if self.timing is None else self.timing.best / self.share

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        row: dict[str, Any] = {
            "solver": self.solver, "library": self.library, "target": self.target,
            "failure": self.failure,
        }  # fmt: skip
        if self.trial is not None:
            row |= {k: v for k, v in asdict(self.trial).items() if k != "failure"}
            row |= {k: round(row[k] / self.share) for k in ("calls", "nfe")}
        if self.timing is not None:
            row |= {
                "wall": self.wall, "median": self.timing.median / self.share,
                "warm_up": self.timing.warm_up, "times": list(self.timing.times),
                "share": self.share,
            }  # fmt: skip
        return row


def sweep(
    peer: Peer,
    subject: Subject,
    targets: Sequence[float],
    *,
    tolerances: Sequence[float] = HALF_DECADES,
    budget: int | None = BUDGET,
) -> list[Trial]:
    """Solve from loose to tight tolerances until every target is reached, or the budget is not
    enough twice running: a solve at a loose tolerance may need more calls than at a tighter one."""
    trials: list[Trial] = []
    over_before = False
    hardest = min(targets)
    counter = Counter(subject.y0.shape[-1], budget)
    solve = peer.bind(subject, counter)
    for tolerance in tolerances:
        counter.calls = counter.nfe = 0
        try:
            error = subject.error(quietly(functools.partial(solve, tolerance)))
        except Exception as failed:
            text = str(failed).splitlines()[0] if str(failed) else type(failed).__name__
            trials.append(Trial(tolerance, None, counter.calls, counter.nfe, text))
            over = isinstance(failed, OverBudgetError)
            if over and over_before:
                break
            over_before = over
            continue
        over_before = False
        trials.append(Trial(tolerance, error, counter.calls, counter.nfe))
        if error <= hardest:
            break
    return trials


def cheapest(trials: Sequence[Trial], target: float) -> Trial | None:
    """The trial of fewest calls whose error is at most `target`; None where none is."""
    reached = [t for t in trials if t.error is not None and t.error <= target]
    return min(reached, key=lambda t: (t.calls, t.nfe), default=None)


def compare(
    peers: Sequence[Peer],
    subject: Subject,
    targets: Sequence[float],
    *,
    tolerances: Sequence[float] = HALF_DECADES,
    budget: int | None = BUDGET,
    repeats: int = 7,
    seconds: float = 1.5,
    parts: Mapping[str, tuple[Subject, float]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Entry]:
    """Every solver at every target: one sweep each, and at each target all of them in turns.

    parts: solver -> (part of the batch that it solves, the part's share of it); its calls, its
    evaluations and its wall time are scaled up to the whole.

    Two peers that differ only in being compiled take the same steps, so the sweep of one is the
    other's. What is compiled is compiled once, at the loosest target; its `warm_up` says how long
    the first run took.
    """
    parts = parts or {}
    if any(peer.compiled for peer in peers):
        forget_compiled()
    sweeps: dict[str, list[Trial]] = {}
    solves: dict[str, Solve] = {}
    for peer in peers:
        twin = peer.twin
        part, _ = parts.get(peer.name, (subject, 1.0))
        if twin not in sweeps:
            say(f"{subject.name}: sweep of {twin}")
            sweeps[twin] = sweep(peer, part, targets, tolerances=tolerances, budget=budget)
        solves[peer.name] = peer.bind(part, None)
    entries: list[Entry] = []
    warm: dict[str, float] = {}
    for target in sorted(targets, reverse=True):
        chosen = {p.name: cheapest(sweeps[p.twin], target) for p in peers}
        runs: dict[str, Callable[[], object]] = {
            name: functools.partial(solves[name], trial.tolerance)
            for name, trial in chosen.items()
            if trial is not None
        }
        say(f"{subject.name}: error {target:.0e}, {len(runs)} solvers in turns")
        known = {name: warm[name] for name in runs if name in warm}
        in_turns = functools.partial(interleaved, runs, warm_ups=known)
        timings = quietly(lambda: in_turns(repeats=repeats, seconds=seconds))  # noqa: B023
        warm |= {name: timing.warm_up for name, timing in timings.items()}
        for peer in peers:
            last = sweeps[peer.twin][-1]
            why = last.failure or f"error {last.error:.1e} at tolerance {last.tolerance:.0e}"
            trial = chosen[peer.name]
            share = parts.get(peer.name, (subject, 1.0))[1]
            failure = None if trial is not None else why
            timing = timings.get(peer.name)
            entries.append(Entry(peer.name, peer.library, target, trial, timing, failure, share))
    return entries
