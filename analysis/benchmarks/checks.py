"""What it costs that wrong answers are looked out for: counts, and wall over that of a plain solve.

Lotka-Volterra over [0, 10] at a tolerance of 1e-7, one state: as it is; with a func that fills one
buffer; with an event that is looked for inside every step, and at their ends alone; with dense
output; from a time that is large against its rounding; and four states with steps of their own.

`python -m quadflow.analysis.benchmarks.checks [--quick] [--out FILE.json]`
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import quadflow as qf

from ..cost.subjects import subject
from ..cost.timing import interleaved
from .report import Record, ratio, run, table

METHODS = ("adams", "dopri5", "dopri8", "gauss")
FAR = 1e8


class Counts(TorchDispatchMode):
    """copies: clones of tensors."""

    copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.copies += str(func).startswith("aten.clone")
        return func(*args, **(kwargs or {}))


def cases(method: str) -> dict[str, Callable[[], qf.Solution]]:
    """Solves by name, each a function of no arguments."""
    chosen = subject("lotka-volterra")
    f, y0, buffer = chosen.torch_f, chosen.y0, torch.empty_like(chosen.y0)

    def filled(t: Any, y: Tensor) -> Tensor:
        return buffer.copy_(f(t, y))

    def level(t: Any, y: Tensor) -> Tensor:
        return y[0] - 100.0

    how: dict[str, Any] = {"method": method, "rtol": 1e-7, "atol": 1e-9}
    together: dict[str, Any] = {"node_evaluation": "broadcast", **how}
    solve = functools.partial(qf.solve, f, y0, (0.0, 10.0), **together)
    found: dict[str, Callable[[], qf.Solution]] = {
        "plain": solve,
        "nodes one by one": functools.partial(solve, node_evaluation="loop"),
        "into a buffer, nodes one by one": functools.partial(
            qf.solve, filled, y0, (0.0, 10.0), node_evaluation="loop", **how
        ),
        "event": functools.partial(solve, events=level),
        "event, ends of steps alone": functools.partial(
            solve, events=qf.Event(level, subintervals=1)
        ),
        "dense output": functools.partial(solve, dense_output=True),
        f"from t = {FAR:.0e}": functools.partial(qf.solve, f, y0, (FAR, FAR + 10.0), **together),
    }
    if method != "adams":
        found["four samples, steps of their own"] = functools.partial(
            qf.solve, f, y0.expand(4, -1), (0.0, 10.0), batch_dims=1, **together
        )
    return found


def measure(
    *,
    quick: bool = False,
    methods: Sequence[str] = METHODS,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every method and case}."""
    rows = []
    for method in methods[:2] if quick else methods:
        say(method)
        runs = cases(method)
        with torch.no_grad():
            timings = interleaved(runs, repeats=3 if quick else 15)
            for name, solve in runs.items():
                with Counts() as counts:  # type: ignore[no-untyped-call]
                    solution = solve()
                rows.append({
                    "method": method, "case": name, "calls": solution.stats.calls,
                    "probe": solution.stats.probe_nfe, "steps": solution.stats.accepted,
                    "copies": counts.copies,
                    "wall": timings[name].median,
                    "ratio": timings[name].median / timings["plain"].median,
                })  # fmt: skip
    return {"rows": rows}


def tables(record: Record) -> dict[str, str]:
    """A row a method and case."""
    heads = ["method, solve", "calls of f", "to find out", "steps", "copies", "wall / plain"]
    rows = [
        [
            f"{r['method']}: {r['case']}", str(r["calls"]), str(r["probe"]), str(r["steps"]),
            str(r["copies"]), ratio(r["ratio"]),
        ]
        for r in record["rows"]
    ]  # fmt: skip
    return {"checks": table(heads, rows)}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    run("checks", measure, tables, __doc__, argv)


if __name__ == "__main__":
    main()
