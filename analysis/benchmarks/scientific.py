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
from ..cost.subjects import SCIENTIFIC, subject
from ..cost.timing import interleaved
from ..solvers.peers import Peer, other_peers, quadflow_peers
from .report import Record, left_out, milliseconds, quotient, ratio, run, table

TARGETS = (1e-6, 1e-9, 1e-12)
"""Achieved relative errors at which solvers are compared."""


def measure(
    *,
    quick: bool = False,
    problems: Sequence[str] | None = None,
    targets: Sequence[float] | None = None,
    peers: Sequence[Peer] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every problem, target and solver, "f": seconds of a call of f}.

    quick: two problems, two targets, nothing that compiles.
    """
    names = problems or (SCIENTIFIC[:2] if quick else SCIENTIFIC)
    targets = targets or (TARGETS[:2] if quick else TARGETS)
    solvers = peers or [*quadflow_peers(compiled=not quick), *other_peers(compiled=not quick)]
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

    Entries: problem, target; torchdiffeq, torchode, torchode_compiled, dop853, diffrax: wall of the
    best solver of that kind over this one's (None where it has none); calls, nfe: over DOP853's.
    """
    found = []
    for row in record["rows"]:
        if row["solver"] != solver or row["failure"] is not None:
            continue
        others = [
            r for r in record["rows"]
            if (r["problem"], r["target"]) == (row["problem"], row["target"])
            and r["failure"] is None
        ]  # fmt: skip

        def best(kind: Callable[[Any], bool], rows: Any = others) -> float | None:
            return min((r["wall"] for r in rows if kind(r)), default=None)

        walls = {
            "torchdiffeq": best(lambda r: r["library"] == "torchdiffeq"),
            "torchode": best(lambda r: r["solver"].startswith("torchode") and not _compiled(r)),
            "torchode_compiled": best(
                lambda r: r["solver"].startswith("torchode") and _compiled(r)
            ),
            "dop853": best(lambda r: r["solver"] == "scipy DOP853"),
            "diffrax": best(lambda r: r["library"] == "diffrax"),
        }
        peer: dict[str, Any] = next((r for r in others if r["solver"] == "scipy DOP853"), {})
        found.append({
            "problem": row["problem"], "target": row["target"],
            **{kind: quotient(wall, row["wall"]) for kind, wall in walls.items()},
            "calls": quotient(row["calls"], peer.get("calls")),
            "nfe": quotient(row["nfe"], peer.get("nfe")),
        })  # fmt: skip
    return found


def _compiled(row: dict[str, Any]) -> bool:
    return "compiled" in row["solver"]


_KINDS = {
    "torchdiffeq": "torchdiffeq", "torchode": "torchode", "torchode_compiled": "torchode compiled",
    "dop853": "DOP853", "diffrax": "diffrax jitted",
}  # fmt: skip


def summary(record: Record) -> str:
    """A row for each of quadflow's methods: geometric mean (worst) of its ratios."""
    names = dict.fromkeys(r["solver"] for r in record["rows"] if r["library"] == "quadflow")
    cases = len({(r["problem"], r["target"]) for r in record["rows"]})
    rows = []
    for name in names:
        found = ratios(record, name)
        cells = [name, f"{len(found)}/{cases}"]
        for kind in _KINDS:
            cells.append(_mean_and_worst([r[kind] for r in found], min))
        for cost in ("calls", "nfe"):
            cells.append(_mean_and_worst([r[cost] for r in found], max))
        rows.append(cells)
    heads = [f"wall of {kind}" for kind in _KINDS.values()]
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
    rows = []
    for solver in dict.fromkeys(r["solver"] for r in mine):
        cells = [solver]
        for target in record["targets"]:
            row = next(r for r in mine if r["solver"] == solver and r["target"] == target)
            if row["failure"] is not None:
                cells += ["–", "–", "–"]
            else:
                cells += [milliseconds(row["wall"]), str(row["calls"]), str(row["nfe"])]
        rows.append(cells)
    heads = [
        f"{what} {target:.0e}" for target in record["targets"] for what in ("ms", "calls", "nfe")
    ]
    per_call = 1e6 * record["f"][name]
    return table([f"{name} (torch f: {per_call:.1f} µs)", *heads], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    run("scientific", measure, tables, __doc__, argv)


if __name__ == "__main__":
    main()
