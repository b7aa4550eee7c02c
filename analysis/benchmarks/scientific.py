"""Classic problems at equal achieved error, against torchdiffeq, torchode, scipy and diffrax.

Every solver goes through a half-decade tolerance sweep (absolute tolerance 0.01 of the relative
one) and is timed, in turns with the others, at the cheapest tolerance that reaches the target.
Errors are relative, in the largest component at the end of the span. Compilation is not timed.

`python -m quadflow.analysis.benchmarks.scientific [--quick] [--out FILE.json]`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..cost.equal_error import compare
from ..cost.rows import geometric_mean
from ..cost.timing import interleaved
from ..problems.subjects import SCIENTIFIC, subject
from ..solvers.run import Solver
from ..solvers.solver import other_solvers, quadflow_solvers
from .report import (
    PEER_KINDS,
    Record,
    best_wall,
    crossed,
    left_out,
    milliseconds,
    quotient,
    ratio,
    run,
    table,
)

TARGETS = (1e-6, 1e-9, 1e-12)
"""Achieved relative errors at which solvers are compared."""


def measure(
    *,
    quick: bool = False,
    problems: Sequence[str] | None = None,
    targets: Sequence[float] | None = None,
    solvers: Sequence[Solver] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every problem, target and solver, "f": seconds of a call of f}.

    quick: two problems, two targets, nothing that compiles.
    """
    names = problems or (SCIENTIFIC[:2] if quick else SCIENTIFIC)
    targets = targets or (TARGETS[:2] if quick else TARGETS)
    solvers = solvers or [
        *quadflow_solvers(compiled=not quick), *other_solvers(compiled=not quick)
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    calls: dict[str, float] = {}
    for name in names:
        chosen = subject(name)
        t = torch.zeros((), dtype=torch.float64)

        def many_calls(f: Any = chosen.torch_f, y: Any = chosen.y0, t: Any = t) -> None:
            for _ in range(200):
                f(t, y)

        calls[name] = interleaved({"f": many_calls}, repeats=5)["f"].best / 200
        entries = compare(
            solvers, chosen, targets, repeats=3 if quick else 5, seconds=0.5,
            say=say,
        )  # fmt: skip
        rows += [{"problem": name, **entry.to_dict()} for entry in entries]
    return {"rows": rows, "f": calls, "targets": list(targets)}


# -- tables ---------------------------------------------------------------------------------------


def tables(record: Record) -> dict[str, str]:
    """The summary of quadflow against each peer, and a table a problem."""
    return {"scientific": f"{summary(record)}\n\n{left_out(record)}".strip()} | {
        "scientific-problems": "\n\n".join(
            problem_table(record, name)
            for name in dict.fromkeys(r["problem"] for r in record["rows"])
        )
    }


def ratios(record: Record, solver: str) -> list[dict[str, Any]]:
    """Where `solver` reached the target: its wall, calls and evaluations against the peers'.

    Entries: problem, target; a name of `PEER_KINDS`: wall of the best solver of that kind over this
    one's (None where it has none); calls, nfe: over DOP853's.
    """
    found = []
    for row in record["rows"]:
        if row["solver"] != solver or row["failure"] is not None:
            continue
        same = [
            r for r in record["rows"]
            if (r["problem"], r["target"]) == (row["problem"], row["target"])
        ]  # fmt: skip
        peer: dict[str, Any] = next((r for r in same if PEER_KINDS["DOP853"](r)), {})
        found.append({
            "problem": row["problem"], "target": row["target"],
            **{name: quotient(best_wall(same, kind), row["wall"])
               for name, kind in PEER_KINDS.items()},
            "calls": quotient(row["calls"], peer.get("calls")),
            "nfe": quotient(row["nfe"], peer.get("nfe")),
        })  # fmt: skip
    return found


def summary(record: Record) -> str:
    """A row for each of quadflow's methods: geometric mean (worst) of its ratios."""
    names = dict.fromkeys(r["solver"] for r in record["rows"] if r["library"] == "quadflow")
    cases = len({(r["problem"], r["target"]) for r in record["rows"]})
    rows = []
    for name in names:
        found = ratios(record, name)
        cells = [name, f"{len(found)}/{cases}"]
        for kind in PEER_KINDS:
            cells.append(_mean_and_worst([r[kind] for r in found], min))
        for cost in ("calls", "nfe"):
            cells.append(_mean_and_worst([r[cost] for r in found], max))
        rows.append(cells)
    heads = [f"wall of {kind}" for kind in PEER_KINDS]
    return table(
        ["mean (worst) ratios", "reached", *heads, "calls / DOP853's", "evaluations / DOP853's"],
        rows,
    )


def _mean_and_worst(values: Sequence[float | None], worst: Callable[..., float]) -> str:
    there = [v for v in values if v is not None]
    return f"{ratio(geometric_mean(there))} ({ratio(worst(there))})" if there else "–"


def problem_table(record: Record, name: str) -> str:
    """Wall (ms), sequential calls and evaluations of every solver on one problem."""
    mine = [r for r in record["rows"] if r["problem"] == name]
    per_call = 1e6 * record["f"][name]
    return crossed(
        f"{name} (torch f: {per_call:.1f} µs)", mine, "solver", "target",
        lambda target: [f"{what} {target:.0e}" for what in ("ms", "calls", "nfe")],
        lambda r: [milliseconds(r["wall"]), str(r["calls"]), str(r["nfe"])],
    )  # fmt: skip


if __name__ == "__main__":
    run("scientific", measure, tables, __doc__)
