"""Tables in markdown, the record of a run as JSON, and the command line of the benchmarks."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...storage import write_json
from ..report.machine import machine
from ..report.marked_blocks import fill
from ..solvers.solver import LIBRARIES, missing

Record = dict[str, Any]
"""What a benchmark measured, ready for JSON; `tables` makes text of it."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, the first column to the left and the others to the right."""
    marks = [":--", *("--:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, marks, *rows))


def crossed(
    corner: str,
    rows: Sequence[Record],
    down: str,
    across: str,
    heads: Callable[[Any], Sequence[str]],
    cells: Callable[[Record], list[str]],
) -> str:
    """A table of a record's rows by two of their keys; corner: what stands above the first column.

    Args:
        down, across: a line for each value of the first, columns for each of the second.
        heads: the heads of the columns of a value of the second.
        cells: the texts of one entry, below them; an entry with a failure has dashes.
    """
    found = {(r[down], r[across]): r for r in rows}
    above = {column: heads(column) for column in dict.fromkeys(r[across] for r in rows)}
    lines = []
    for name in dict.fromkeys(first for first, _ in found):
        line = [name if isinstance(name, str) else f"{name:g}"]
        for column, head in above.items():
            row = found[name, column]
            line += ["–"] * len(head) if row.get("failure") is not None else cells(row)
        lines.append(line)
    return table([corner, *(text for head in above.values() for text in head)], lines)


def replace_blocks(text: str, blocks: Mapping[str, str]) -> str:
    """`text` with what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` replaced.

    Raises:
        ValueError: the text has no such markers for a name.
    """
    text, filled = fill(text, blocks)
    for name in blocks:
        if name not in filled:
            raise ValueError(f"there is no <!-- begin {name} --> ... <!-- end {name} --> to fill")
    return text


def milliseconds(seconds: float | None) -> str:
    """Three digits of milliseconds; a dash for None."""
    return "–" if seconds is None else f"{1e3 * seconds:.3g}"


def ratio(value: float | None) -> str:
    """A ratio to two or three digits; a dash for None."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def quotient(a: float | None, b: float | None) -> float | None:
    """a / b; None where one is missing or b is zero."""
    return None if a is None or not b else a / b


PEER_KINDS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "torchdiffeq": lambda r: r["library"] == "torchdiffeq",
    "torchode": lambda r: r["library"] == "torchode" and not is_compiled(r),
    "torchode compiled": lambda r: r["library"] == "torchode" and is_compiled(r),
    "DOP853": lambda r: r["solver"] == "scipy DOP853",
    "diffrax jitted": lambda r: r["library"] == "diffrax",
}
"""Whom quadflow is compared with: name -> whether a row of a record is one of theirs."""


def is_compiled(row: Mapping[str, Any]) -> bool:
    """Whether a row is that of a solver through `torch.compile`."""
    return "compiled" in row["solver"]


def best_wall(
    rows: Iterable[Mapping[str, Any]], kind: Callable[[Mapping[str, Any]], bool]
) -> float | None:
    """The shortest wall time among the rows of a kind that reached their target."""
    walls = (r["wall"] for r in rows if r["failure"] is None and kind(r))
    return min(walls, default=None)


def environment() -> dict[str, Any]:
    """The machine, the versions of all peers, and which of them are not installed."""
    absent = missing()
    extra = [p for p in LIBRARIES if p not in absent]
    versions = machine([f"{p}:" for p in (*extra, *(("jax",) if "diffrax" in extra else ()))])
    return {**versions, "missing": list(absent)}


def run(
    name: str,
    measure: Callable[..., Record],
    tables: Callable[[Record], dict[str, str]],
    description: str | None,
    argv: Sequence[str] | None = None,
) -> Record:
    """The command line of one benchmark: measure, print its tables, write its record.

    measure: keywords quick (bool) and say (a function for lines of progress).
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m quadflow.analysis.benchmarks.{name}", description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="a small part of it, in about a minute"
    )
    parser.add_argument("--out", metavar="FILE", help="keep every figure here, as JSON")
    arguments = parser.parse_args(argv)
    if arguments.out and not Path(arguments.out).resolve().parent.is_dir():
        parser.error(f"--out {arguments.out}: there is no such folder")
    record = measured(name, measure, quick=arguments.quick)
    print("\n\n".join(tables(record).values()))
    if arguments.out:
        write_json(arguments.out, record)
    return record


def measured(name: str, measure: Callable[..., Record], *, quick: bool) -> Record:
    """The record of one benchmark with its command, its environment and how long it took.

    On one thread: the peers' walls are compared, not their thread pools.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        record = measure(quick=quick, say=say)
    finally:
        torch.set_num_threads(threads)
    command = ["python", "-m", f"quadflow.analysis.benchmarks.{name}"]
    return {
        "benchmark": name,
        "command": shlex.join(command + ["--quick"] * quick),
        "environment": environment(),
        "seconds": round(time.perf_counter() - began, 1),
        **record,
    }


def say(line: str) -> None:
    """A line of progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def left_out(record: Record) -> str:
    """One sentence that names the peers that were not measured; empty where none is missing."""
    absent = record["environment"]["missing"]
    return f"Not installed, left out: {', '.join(absent)}." if absent else ""
