"""What solvers of two checkouts add to the calls of f, measured in turns.

Overhead is the wall time of a solve less that of as many bare calls of f, on the same shapes. A
process for each tree solves whenever it is asked to, one after the other, so that the machine's
load hits both. Only the public API and the subjects of the benchmarks are used, so the trees may
differ inside.

`python -m quadflow.analysis.benchmarks.two_trees OLD [NEW] [--repeats N] [--out FILE.json]`
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

METHODS = ("dopri5", "gauss", "adams")
RTOL, ATOL = 1e-6, 1e-8
SUBJECTS = ("quadflow.analysis.cost.subjects", "quadflow.analysis.benchmarks.subjects")
"""Where a tree has them, the first that there is."""


def _subjects() -> Any:
    for name in SUBJECTS:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ImportError(f"this tree has its benchmarks' subjects in none of {SUBJECTS}")


def timed(problem: str, method: str) -> dict[str, Any]:
    """One solve in this process: its wall seconds, those of the bare calls, their number, and the
    number of tries."""
    import quadflow as qf

    subject = _subjects().subject(problem)
    f, y0 = subject.torch_f, subject.y0
    shapes: list[tuple[int, ...]] = []

    def watched(t: Any, y: Any) -> Any:
        shapes.append(tuple(y.shape))
        return f(t, y)

    how: dict[str, Any] = {"method": method, "rtol": RTOL, "atol": ATOL}
    stats = qf.solve(watched, y0, subject.span, **how).stats
    states = [y0.expand(shape).clone() for shape in shapes]
    t = torch.zeros((), dtype=y0.dtype)
    began = time.perf_counter()
    qf.solve(f, y0, subject.span, **how)
    solved = time.perf_counter()
    for y in states:
        f(t, y)
    bare = time.perf_counter() - solved
    tries = stats.accepted + stats.rejected
    return {"wall": solved - began, "bare": bare, "calls": len(shapes), "tries": tries}


def _serve() -> None:
    """Answer every line "problem method" on the standard input with a line of JSON."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(timed(*line.split())), flush=True)


@contextlib.contextmanager
def served(tree: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that solves with the quadflow of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        # the one package that the three folders make when they are installed
        package = Path(folder, "quadflow")
        package.mkdir()
        for entry in (*(tree / "quadflow").iterdir(), tree / "adapters", tree / "analysis"):
            (package / entry.name).symlink_to(entry)
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(
            [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env=environment,
        ) as process:  # fmt: skip
            yield process


def _asked(process: subprocess.Popen[str], problem: str, method: str) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{problem} {method}\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def measure(
    old: Path, new: Path, repeats: int = 15, problems: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """A row a problem and method: medians of the overheads of both trees in seconds a call, and
    their ratio."""
    rows = []
    with served(old) as before, served(new) as after:
        for problem in problems or _subjects().SCIENTIFIC:
            for method in METHODS:
                found: list[list[dict[str, Any]]] = [[], []]
                for turn in range(repeats + 1):
                    for process, kept in zip((before, after), found, strict=True):
                        one = _asked(process, problem, method)
                        if turn:  # the first warms up
                            kept.append(one)
                costs = [
                    median(one["wall"] - one["bare"] for one in kept) / kept[0]["calls"]
                    for kept in found
                ]
                calls = [kept[0]["calls"] for kept in found]
                # of a whole solve: the number of calls is part of what a tree adds
                ratio = costs[1] * calls[1] / (costs[0] * calls[0])
                rows.append({
                    "problem": problem, "method": method, "old": costs[0], "new": costs[1],
                    "calls": calls, "ratio": ratio,
                })  # fmt: skip
                print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table, in microseconds a call."""
    old, new = 1e6 * row["old"], 1e6 * row["new"]
    calls = "{} / {}".format(*row["calls"])
    return (
        f"| {row['problem']} | {row['method']} | {calls} | {old:.1f} | {new:.1f} "
        f"| {row['ratio']:.2f} |"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, nargs="?", default=Path(__file__).parents[2])
    parser.add_argument("--repeats", type=int, default=15, help="solves of each, median taken")
    parser.add_argument("--problem", action="append", help="instead of all seven")
    parser.add_argument("--out", type=Path, help="keep the rows here, as JSON")
    arguments = parser.parse_args(argv)
    print("| problem | method | calls, old / new | old, µs a call | new | ratio of solves |")
    print("|:--|:--|--:|--:|--:|--:|")
    rows = measure(
        arguments.old.resolve(), arguments.new.resolve(), arguments.repeats, arguments.problem
    )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    _serve() if sys.argv[1:] == ["serve"] else main()
