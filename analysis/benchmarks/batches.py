"""Batches of independent trajectories at equal achieved error, shared and per-sample steps.

Rings of four coupled van der Pol oscillators (dimension 8, nonlinear) from random starts, see
`subjects.ring`. The error is that of the worst trajectory. Solvers with one step size for the whole
batch and those with steps of their own for every trajectory stand in one table, and each is marked.
scipy's loop over 10^4 trajectories is extrapolated from the first 20.

`python -m quadflow.analysis.benchmarks.batches [--quick] [--out FILE.json]`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ..cost.equal_error import compare
from ..cost.subjects import Subject, ring
from ..solvers.peers import Peer, other_peers, quadflow_peers
from .report import Record, left_out, milliseconds, quotient, ratio, run, table

SIZES = (1, 100, 10_000)
"""Numbers of trajectories."""

TARGET = 1e-6
"""Achieved relative error of the worst trajectory."""

LOOPED = 20
"""Most trajectories that scipy's loop is run on; beyond, its time is extrapolated from these."""


def measure(
    *,
    quick: bool = False,
    sizes: Sequence[int] | None = None,
    peers: Sequence[Peer] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every size and solver}. quick: 1 and 100 trajectories, nothing compiled."""
    sizes = sizes or (SIZES[:2] if quick else SIZES)
    rows: list[dict[str, Any]] = []
    solvers = list(peers or _solvers(quick))
    for size in sizes:
        subject = ring(size)
        parts: dict[str, tuple[Subject, float]] = {}
        if size > LOOPED and subject.end is not None:
            part = dataclasses.replace(subject, y0=subject.y0[:LOOPED], end=subject.end[:LOOPED])
            parts = {"scipy DOP853": (part, LOOPED / size)}
        loops = {"scipy DOP853": min(size, LOOPED)}
        budget = 30_000 * max(loops.values())
        entries = compare(
            solvers, subject, [TARGET], budget=budget, repeats=3 if quick else 5,
            seconds=1.0 if quick else 2.0, parts=parts, say=say,
        )  # fmt: skip
        marks = {p.name: p.per_sample for p in solvers}
        rows += [{"size": size, "per_sample": marks[e.solver], **e.to_dict()} for e in entries]
    return {"rows": rows, "target": TARGET, "sizes": list(sizes)}


def _solvers(quick: bool) -> list[Peer]:
    ours = [
        *quadflow_peers(compiled=not quick), *quadflow_peers(compiled=not quick, per_sample=True)
    ]  # fmt: skip
    return [*ours, *other_peers(compiled=not quick, batch=True)]


def tables(record: Record) -> dict[str, str]:
    """Wall of every solver at every size, and that of the best of each library over quadflow's."""
    sizes = record["sizes"]
    rows = []
    for solver in dict.fromkeys(r["solver"] for r in record["rows"]):
        mine = {r["size"]: r for r in record["rows"] if r["solver"] == solver}
        if all(row["failure"] is not None for row in mine.values()):
            continue  # named below, with the reason
        cells = [solver, "own" if next(iter(mine.values()))["per_sample"] else "shared"]
        for size in sizes:
            row = mine[size]
            if row["failure"] is not None:
                cells += ["–", "–"]
                continue
            mark = "~" if row["share"] < 1 else ""
            cells += [mark + milliseconds(row["wall"]), str(row["calls"])]
        rows.append(cells)
    heads = [f"{what} x{size}" for size in sizes for what in ("ms", "calls")]
    walls = table(["trajectories", "steps", *heads], rows)
    parts = [walls, _failures(record), _against(record), left_out(record)]
    return {"batches": "\n\n".join(part for part in parts if part)}


def _failures(record: Record) -> str:
    """What did not reach the target, a line for each reason with its solvers and sizes."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for row in record["rows"]:
        if row["failure"] is not None:
            # what a message says of the method's own name is the same for all of them
            method = row["solver"].partition(" ")[2].split(" ")[0] or row["solver"]
            reason = row["failure"].replace(f"'{method}' cannot", "'…' cannot")
            solvers = reasons.setdefault(reason, {})
            solvers.setdefault(row["solver"], []).append(f"x{row['size']}")
    lines = []
    for reason, solvers in reasons.items():
        names = (f"{name} ({', '.join(sizes)})" for name, sizes in solvers.items())
        lines.append(f"- Not reached: {', '.join(names)}: {reason}")
    return "\n".join(lines)


def best_ratios(record: Record) -> dict[str, dict[int, float | None]]:
    """Best wall of a library's solvers over the best of quadflow's: kind -> size -> ratio."""
    kinds: dict[str, Callable[[dict[str, Any]], bool]] = {
        "torchdiffeq": lambda r: r["library"] == "torchdiffeq",
        "torchode": lambda r: r["library"] == "torchode" and "compiled" not in r["solver"],
        "torchode compiled": lambda r: r["library"] == "torchode" and "compiled" in r["solver"],
        "scipy loop": lambda r: r["solver"] == "scipy DOP853",
        "scipy joint": lambda r: r["solver"] == "scipy DOP853 joint",
        "diffrax jitted": lambda r: r["library"] == "diffrax",
    }
    ours = {
        "eager": lambda r: r["library"] == "quadflow" and "compiled" not in r["solver"],
        "compiled": lambda r: r["library"] == "quadflow" and "compiled" in r["solver"],
    }

    def best(size: int, kind: Callable[[dict[str, Any]], bool]) -> float | None:
        rows = [r for r in record["rows"] if r["size"] == size and r["failure"] is None]
        return min((r["wall"] for r in rows if kind(r)), default=None)

    return {
        f"{name} / quadflow {how}": {
            size: quotient(best(size, kind), best(size, mine)) for size in record["sizes"]
        }
        for how, mine in ours.items()
        for name, kind in kinds.items()
    }


def _against(record: Record) -> str:
    rows = [
        [name, *(ratio(value) for value in found.values())]
        for name, found in best_ratios(record).items()
        if any(value is not None for value in found.values())
    ]
    return table(["best walls, ratios", *(f"x{size}" for size in record["sizes"])], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    run("batches", measure, tables, __doc__, argv)


if __name__ == "__main__":
    main()
