"""How the cost grows: with dimension, batch, tolerance and time span; wall, calls and peak memory.

Every point is a solve in a process of its own; memory is what the solve adds to the peak of that
process, wall the best of a few solves. Where the version of quadflow can, nothing is recorded
between the ends, so that memory should not grow with the number of steps.

- dimension 1 to 10^6: y' = cos(t) y (1 - y), componentwise, over [0, 10], tolerance 1e-6;
- batch 1 to 10^5: rings of van der Pol oscillators (`subjects.ring_start`) over [0, 5], 1e-4;
- tolerance 1e-3 to 1e-12: Lotka-Volterra over [0, 10];
- span 10 to 10^4: the first problem with 1000 components, tolerance 1e-6.

`python -m quadflow.analysis.benchmarks.growth [--quick] [--out FILE.json]`; figures are drawn by
`python -m quadflow.analysis.benchmarks`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cost.equal_error import bound
from ..cost.memory import JobFailed, in_own_process
from ..cost.timing import clocked, timed
from ..problems.subjects import Subject, ring_start, subject, torch_subject
from ..report.panels import Panels, styles
from ..solvers.counting import Counter
from ..solvers.quadflow import quadflow_solver
from ..solvers.run import Solver
from ..solvers.solver import missing
from ..solvers.torchdiffeq import torchdiffeq_solver
from .report import Record, crossed, left_out, milliseconds, run

SIZES: dict[str, tuple[float, ...]] = {
    "dimension": tuple(10.0**k for k in range(7)),
    "batch": tuple(10.0**k for k in range(6)),
    "tolerance": tuple(float(f"1e-{k}") for k in range(3, 13)),
    "span": (10.0, 100.0, 1e3, 1e4),
}
"""What grows, from the least to the largest."""

QUANTITIES = {
    "wall": "wall (ms)",
    "calls": "sequential calls of f",
    "memory_mib": "peak memory (MiB)",
}
"""What is measured, with the labels of the figures."""

SECONDS = 1.0
"""A solve is repeated for its best wall until it has taken this long in all."""


def logistic_start(dimension: int) -> Tensor:
    """(dimension,) starts between 0.1 and 0.9."""
    return torch.linspace(0.1, 0.9, dimension, dtype=torch.float64)


def logistic(t: Any, y: Tensor) -> Tensor:
    """y' = cos(t) y (1 - y), of any shape."""
    return torch.cos(torch.as_tensor(t, dtype=y.dtype)) * (y * (1 - y))


def logistic_end(y0: Tensor, t: float) -> Tensor:
    """Its solution at t from y0 at 0: 1 / (1 + (1/y0 - 1) exp(-sin t))."""
    return 1 / (1 + (1 / y0 - 1) * math.exp(-math.sin(t)))


def setting(kind: str, size: float) -> tuple[Subject, float]:
    """What is solved at a point, and at what relative tolerance."""
    if kind == "dimension":
        y0 = logistic_start(int(size))
        end = logistic_end(y0, 10.0)
        return torch_subject("logistic", logistic, y0, (0.0, 10.0), end), 1e-6
    if kind == "batch":
        forms, y0 = ring_start(int(size))
        return torch_subject("ring", forms[0], y0, (0.0, 5.0)), 1e-4
    if kind == "tolerance":
        return subject("lotka-volterra"), size
    y0 = logistic_start(1000)
    return torch_subject("logistic", logistic, y0, (0.0, size), logistic_end(y0, size)), 1e-6


def solvers(kind: str) -> dict[str, Solver]:
    """Those that are measured, of what is installed and registered, by name."""
    found = [quadflow_solver(m, record_steps=False) for m in ("adams", "gauss", "dopri5")]
    if kind == "batch":
        found.append(quadflow_solver("dopri5", per_sample=True, record_steps=False))
    if "torchdiffeq" not in missing():
        found.append(torchdiffeq_solver("dopri5"))
    return {solver.title: solver for solver in found}


def point(kind: str, size: float, name: str, repeat: bool = True) -> dict[str, Any]:
    """One solve: {"wall": best seconds, "calls", "nfe", "error": relative, or None}."""
    chosen, tolerance = setting(kind, size)
    solver = solvers(kind)[name]
    counter = Counter(chosen.y0.numel())
    counted = functools.partial(bound(solver, chosen, counter), tolerance)
    solve = functools.partial(bound(solver, chosen), tolerance)
    with torch.no_grad():
        # counting is no cost worth mention where a solve takes as long as SECONDS
        reached, first = timed(counted)
        walls = [first]
        error = None if chosen.end is None else chosen.error(reached)
        while repeat and sum(walls) < SECONDS and len(walls) < 8:
            walls.append(clocked(solve))
    return {"wall": min(walls), "calls": counter.calls, "nfe": counter.nfe, "error": error}


def measure(
    *,
    quick: bool = False,
    sizes: dict[str, Sequence[float]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every kind of growth, size and solver}. quick: all but the largest sizes."""
    chosen: dict[str, Sequence[float]] = dict(sizes or SIZES)
    if quick:
        chosen = {kind: values[:3] for kind, values in chosen.items()}
    rows = []
    for kind, values in chosen.items():
        for size in values:
            say(f"growth with {kind}: {size:g}")
            for name in solvers(kind):
                row: dict[str, Any] = {"kind": kind, "size": size, "solver": name, "failure": None}
                small = (kind, chosen[kind][0], name, False)
                try:
                    found, memory = in_own_process(point, kind, size, name, warm_up=small)
                    row |= {**found, "memory_mib": memory}
                except JobFailed as failed:
                    row["failure"] = str(failed).strip().splitlines()[-1]
                rows.append(row)
    return {"rows": rows}


def tables(record: Record) -> dict[str, str]:
    """A table for each kind of growth: milliseconds, calls and MiB."""
    texts = []
    for kind in dict.fromkeys(r["kind"] for r in record["rows"]):
        mine = [r for r in record["rows"] if r["kind"] == kind]
        texts.append(
            crossed(kind, mine, "size", "solver", lambda s: (f"{s}: ms", "calls", "MiB"), _cells)
        )
    return {"growth": "\n\n".join([*texts, left_out(record)]).strip()}


def _cells(row: Record) -> list[str]:
    return [milliseconds(row["wall"]), str(row["calls"]), f"{row['memory_mib']:.0f}"]


def figures(record: Record, folder: Path) -> list[Path]:
    """Draw growth-wall.svg, growth-calls.svg and growth-memory.svg; the paths."""
    made = []
    kinds = list(dict.fromkeys(r["kind"] for r in record["rows"]))
    look = styles(list(dict.fromkeys(r["solver"] for r in record["rows"])))
    for quantity, label in QUANTITIES.items():
        path = folder / f"growth-{quantity.removesuffix('_mib')}.svg"
        title = f"Growth of {label}"
        with Panels(path, kinds, title, record["command"], log="xy") as panels:
            for kind in kinds:
                axis = panels.axes[kind]
                for name in look:
                    points = [
                        (r["size"], _shown(r, quantity)) for r in record["rows"]
                        if (r["kind"], r["solver"]) == (kind, name) and r["failure"] is None
                    ]  # fmt: skip
                    if points:
                        x, y = zip(*points, strict=True)
                        axis.plot(x, y, label=name, markersize=4, linewidth=1.2, **look[name])
                if kind == "tolerance":
                    axis.invert_xaxis()
            panels.label("size", label)
        made.append(path)
    return made


def _shown(row: dict[str, Any], quantity: str) -> float:
    if quantity == "wall":
        return float(1e3 * row["wall"])
    return max(float(row[quantity]), 0.1)  # below, the allocator is measured


if __name__ == "__main__":
    run("growth", measure, tables, __doc__)
