"""What the solvers of several checkouts add to the calls of f, measured in turns.

Overhead is the wall time of a solve less that of as many bare calls of f, on the same shapes. A
process for each tree solves whenever it is asked to, one after the other, so that the machine's
load hits all. Only the public API and the subjects of the benchmarks are used, so the trees may
differ inside.

    python tests/support/overhead_of_trees.py OLD [NEWER ...] [--repeats N] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import itertools
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from trees import environment_of

METHODS = ("dopri5", "gauss", "adams")
RTOL, ATOL = 1e-6, 1e-8
SUBJECTS = ("problems", "cost", "benchmarks")
"""Rooms of the laboratory that hold `subjects.py`, the first that there is in a tree."""


def _subjects() -> Any:
    for room in SUBJECTS:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(f"quadflow.analysis.{room}.subjects")
    raise ImportError(f"this tree has its benchmarks' subjects in none of the rooms {SUBJECTS}")


@functools.cache
def _watched(problem: str, method: str) -> tuple[list[Tensor], int]:
    """The states that a solve calls f with, and its number of trials."""
    import quadflow as qf

    subject, shapes = _subjects().subject(problem), []

    def watched(t: Any, y: Tensor) -> Tensor:
        shapes.append(y.shape)
        return subject.torch_f(t, y)

    stats = qf.solve(
        watched, subject.y0, subject.span, method=method, rtol=RTOL, atol=ATOL
    ).stats  # fmt: skip
    states = {shape: subject.y0.expand(shape).clone() for shape in shapes}
    return [states[shape] for shape in shapes], stats.accepted + stats.rejected


def timed(problem: str, method: str) -> dict[str, Any]:
    """One solve in this process: its wall seconds, those of the bare calls, their number, and the
    number of tries."""
    import quadflow as qf

    states, tries = _watched(problem, method)
    subject = _subjects().subject(problem)
    f, t = subject.torch_f, torch.zeros((), dtype=subject.y0.dtype)
    began = time.perf_counter()
    qf.solve(f, subject.y0, subject.span, method=method, rtol=RTOL, atol=ATOL)
    solved = time.perf_counter()
    for y in states:
        f(t, y)
    bare = time.perf_counter() - solved
    return {"wall": solved - began, "bare": bare, "calls": len(states), "tries": tries}


def _serve() -> None:
    """Answer every line "problem method" on the standard input with a line of JSON."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(timed(*line.split())), flush=True)


@contextlib.contextmanager
def served(tree: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that solves with the quadflow of a checkout."""
    with (
        environment_of(tree) as environment,
        subprocess.Popen(
            [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment,
        ) as process,
    ):  # fmt: skip
        yield process


def _asked(process: subprocess.Popen[str], problem: str, method: str) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{problem} {method}\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def measure(
    trees: Sequence[Path], repeats: int = 15, problems: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """A row a problem and method: of every tree the median overhead in seconds a call, the calls,
    and the overhead of the whole solve over that of the first tree."""
    rows = []
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(served(tree)) for tree in trees]
        for problem, method in itertools.product(problems or _subjects().SCIENTIFIC, METHODS):
            found: list[list[dict[str, Any]]] = [[] for _ in trees]
            for turn in range(repeats + 1):
                for process, kept in zip(processes, found, strict=True):
                    one = _asked(process, problem, method)
                    if turn:  # the first warms up
                        kept.append(one)
            whole = [median(one["wall"] - one["bare"] for one in kept) for kept in found]
            calls = [kept[0]["calls"] for kept in found]
            rows.append({
                "problem": problem, "method": method, "calls": calls,
                "overhead": [w / n for w, n in zip(whole, calls, strict=True)],
                "ratio": [w / whole[0] for w in whole],
            })  # fmt: skip
            print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table, overheads in microseconds a call."""
    cells = [
        " / ".join(map(str, row["calls"])),
        " / ".join(f"{1e6 * one:.1f}" for one in row["overhead"]),
        " / ".join(f"{one:.2f}" for one in row["ratio"][1:]),
    ]
    return "| " + " | ".join([row["problem"], row["method"], *cells]) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", type=Path, nargs="+", help="checkouts, the oldest first")
    parser.add_argument("--repeats", type=int, default=15, help="solves of each, median taken")
    parser.add_argument("--problem", action="append", help="instead of all seven")
    parser.add_argument("--out", type=Path, help="keep the rows here, as JSON")
    arguments = parser.parse_args(argv)
    print("| problem | method | calls | overhead, µs a call | of a solve, over the first |")
    print("|:--|:--|--:|--:|--:|")
    rows = measure(arguments.trees, arguments.repeats, arguments.problem)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    _serve() if sys.argv[1:] == ["serve"] else main()
