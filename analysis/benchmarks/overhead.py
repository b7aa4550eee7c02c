"""What a solver adds to the calls of f: wall of a solve over the same number of bare calls.

Bare calls are calls of the same function in the same framework on the same shapes (on n nodes
together where the method evaluates nodes together), as many as the solve made. Solve and bare calls
are timed in turns. A compiled solver stands against both: eager bare calls, and (in brackets) calls
of the compiled f.

`python -m quadflow.analysis.benchmarks.overhead [--quick] [--out FILE.json]`
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..cost.equal_error import bound
from ..cost.timing import clocked, forget_compiled, graphs_compiled, interleaved
from ..problems.subjects import Subject, subject, torch_subject
from ..solvers.run import Solver, quietly
from ..solvers.solver import missing, quadflow_solvers
from ..solvers.torchdiffeq import torchdiffeq_solver
from ..solvers.torchode import torchode_solver
from .networks import NetworkVelocity, start_states
from .report import Record, crossed, left_out, ratio, run, table


@dataclass(frozen=True)
class Load:
    """What is solved, and at what relative tolerance."""

    subject: Subject
    rtol: float


def loads(quick: bool = False) -> list[Load]:
    """A cheap f, a small network on a batch, and (unless quick) a large one."""
    found = [
        Load(subject("lotka-volterra"), 1e-6),
        _network((2, 64, 2), batch=256, end=10.0),
    ]
    return found if quick else [*found, _network((64, 1024, 1024, 64), batch=64, end=2.0)]


def _network(widths: Sequence[int], *, batch: int, end: float) -> Load:
    states = start_states(batch, widths[0], dtype=torch.float32)
    name = f"MLP {'-'.join(map(str, widths))}, batch {batch}"
    return Load(torch_subject(name, NetworkVelocity(widths), states, (0.0, end)), 1e-4)


def solvers(*, compiled: bool = True) -> list[Solver]:
    """quadflow's methods and the torch peers that are installed."""
    names = ("dopri5", "dopri8", "gauss", "adams", "gauss4", "gauss8")
    found = quadflow_solvers(names, compiled=compiled)
    if "torchdiffeq" not in missing():
        found += [torchdiffeq_solver("dopri5"), torchdiffeq_solver("dopri8")]
    if "torchode" not in missing():
        found.append(torchode_solver("Dopri5"))
        if compiled:
            found.append(torchode_solver("Dopri5", compiled=True))
    return found


def measure(
    *,
    quick: bool = False,
    chosen: Sequence[Load] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every load and solver, with the ratio of its wall to bare calls}."""
    rows = []
    peers = solvers(compiled=not quick)
    for load in chosen or loads(quick):
        subject = load.subject
        if any(peer.compiled for peer in peers):
            forget_compiled()
        shapes: dict[str, list[tuple[int, ...]]] = {}
        runs: dict[str, Callable[[], object]] = {}
        warm: dict[str, float] = {}
        graphs: dict[str, tuple[int, int]] = {}
        for peer in peers:
            if peer.twin not in shapes:
                say(f"{subject.name}: {peer.twin}")
                shapes[peer.twin] = shapes_seen(peer, load)
            runs[peer.title] = functools.partial(bound(peer, subject), load.rtol)
            runs[f"bare {peer.title}"] = bare_calls(subject, shapes[peer.twin])
            if peer.compiled:
                say(f"{subject.name}: compiling {peer.title}")
                before = graphs_compiled()
                warm[peer.title] = quietly(functools.partial(clocked, runs[peer.title]))
                first = graphs_compiled()
                quietly(runs[peer.title])
                graphs[peer.title] = first - before, graphs_compiled() - first
                fast = dataclasses.replace(subject, torch_f=torch.compile(subject.torch_f))
                runs[f"fast {peer.title}"] = bare_calls(fast, shapes[peer.twin])
        say(f"{subject.name}: {len(runs)} runs in turns")
        turns = functools.partial(interleaved, runs, seconds=1.0, warm_ups=warm)
        timings = quietly(functools.partial(turns, repeats=5 if quick else 9))
        for peer in peers:
            wall, bare = timings[peer.title].best, timings[f"bare {peer.title}"].best
            quick_calls = timings.get(f"fast {peer.title}")
            seen = shapes[peer.twin]
            made, again = graphs.get(peer.title, (0, 0))
            rows.append({
                "load": subject.name, "solver": peer.title, "calls": len(seen),
                "states": sum(math.prod(s) for s in seen) // subject.y0.numel(),
                "wall": wall, "bare": bare, "ratio": wall / bare,
                "bare_compiled": None if quick_calls is None else quick_calls.best,
                "ratio_compiled": None if quick_calls is None else wall / quick_calls.best,
                "warm_up": timings[peer.title].warm_up, "graphs": made, "graphs_again": again,
            })  # fmt: skip
    return {"rows": rows}


def shapes_seen(peer: Solver, load: Load) -> list[tuple[int, ...]]:
    """The shape of every state that a solve calls f with, the compiled ones' eager twin's."""
    seen: list[tuple[int, ...]] = []

    def watched(t: Any, y: Tensor) -> Tensor:
        seen.append(tuple(y.shape))
        return load.subject.torch_f(t, y)

    subject = dataclasses.replace(load.subject, torch_f=watched)
    if peer.compiled:
        raise ValueError(f"{peer.title} is compiled: watch {peer.twin}")
    quietly(functools.partial(bound(peer, subject), load.rtol))
    return seen


def bare_calls(subject: Subject, shapes: Sequence[tuple[int, ...]]) -> Callable[[], None]:
    """Calls of f on states of these shapes, nothing between them; the states are made before."""
    f, y0 = subject.torch_f, subject.y0
    states = {
        s: y0.expand(s).clone() if math.prod(s) > y0.numel() else y0.reshape(s)
        for s in dict.fromkeys(shapes)
    }
    t = torch.zeros((), dtype=y0.dtype)
    arguments = [states[s] for s in shapes]

    def calls() -> None:
        for y in arguments:
            f(t, y)

    return calls


def tables(record: Record) -> dict[str, str]:
    """The ratios, a row a solver and a column a load."""

    def cells(row: Record) -> list[str]:
        text = ratio(row["ratio"])
        if row["ratio_compiled"] is not None:
            text += f" ({ratio(row['ratio_compiled'])})"
        return [text, f"{1e6 * row['wall'] / row['calls']:.0f}", str(row["calls"])]

    text = crossed(
        "wall / bare calls (/ compiled bare calls)", record["rows"], "solver", "load",
        lambda load: (load, "µs/call", "calls"), cells,
    )  # fmt: skip
    return {"overhead": "\n\n".join([text, _compilation(record), left_out(record)]).strip()}


def _compilation(record: Record) -> str:
    """What compiling took, and whether a second solve compiled again."""
    rows = [
        [
            r["solver"], r["load"], f"{r['warm_up']:.1f}", str(r["graphs"]),
            str(r["graphs_again"]),
        ]
        for r in record["rows"]
        if "compiled" in r["solver"]
    ]  # fmt: skip
    heads = ["compiled", "load", "first solve (s)", "graphs", "graphs of a second solve"]
    return table(heads, rows) if rows else ""


if __name__ == "__main__":
    run("overhead", measure, tables, __doc__)
