"""All speed benchmarks: docs/figures/benchmarks, docs/benchmarks.md.

`python -m quadflow.analysis.benchmarks [--quick] [--only NAME ...] [--docs docs] [--draw]`, in the
repository's root; in about half an hour. Each is also a command of its own, see `--help`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...storage import read_json_object, write_json
from . import batches, checks, default_method, growth, overhead, scientific, training_step
from .report import Record, measured, replace_blocks, say

_MODULES = (scientific, batches, overhead, training_step, growth, default_method, checks)
BENCHMARKS: dict[str, Any] = {one.__name__.rpartition(".")[2]: one for one in _MODULES}
"""Name -> module with measure(quick, say) and tables(record)."""


def blocks(records: dict[str, Record]) -> dict[str, str]:
    """The generated pieces of docs/benchmarks.md, by marker name."""
    texts: dict[str, str] = {}
    for name, record in records.items():
        tables: Callable[[Record], dict[str, str]] = BENCHMARKS[name].tables
        for block, text in tables(record).items():
            texts[f"benchmarks-{block}"] = text
        texts[f"benchmarks-{name.replace('_', '-')}-machine"] = machine_line(record)
    return texts


def machine_line(record: Record) -> str:
    """Where, with what and how long a benchmark was measured."""
    at = record["environment"]
    versions = ", ".join(
        f"{p} {at[p]}" for p in ("torch", "scipy", "torchdiffeq", "torchode", "diffrax", "jax")
        if p in at
    )  # fmt: skip
    return (
        f"`{record['command']}`: {record['seconds']:.0f} s on one thread of a machine with "
        f"{at['cores']} {at['architecture']} cores ({at['processor']}); {versions}."
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m quadflow.analysis.benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="one alone, printed: python -m quadflow.analysis.benchmarks.NAME",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a small part of each")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), metavar="NAME",
                        help=f"of {', '.join(BENCHMARKS)}; others stay as recorded")  # fmt: skip
    parser.add_argument(
        "--draw", action="store_true", help="measure nothing, draw what is recorded"
    )
    parser.add_argument("--docs", default="docs", metavar="FOLDER",
                        help="with benchmarks.md and figures/benchmarks (docs)")  # fmt: skip
    arguments = parser.parse_args(argv)
    docs = Path(arguments.docs)
    page, record_file = docs / "benchmarks.md", docs / "figures" / "benchmarks" / "benchmarks.json"
    if not page.is_file() or not record_file.parent.is_dir():
        parser.error(f"--docs {docs}: there must be {page} and the folder {record_file.parent}")
    records: dict[str, Record] = {}
    if record_file.exists():
        records = dict(read_json_object(record_file, "record of benchmarks"))
    for name in () if arguments.draw else arguments.only or BENCHMARKS:
        say(f"== {name}")
        records[name] = measured(name, BENCHMARKS[name].measure, quick=arguments.quick)
        records = {known: records[known] for known in BENCHMARKS if known in records}
        write_json(record_file, records)  # what is finished stays, whatever comes
    if "growth" in records:
        for path in growth.figures(records["growth"], record_file.parent):
            say(f"-> {path}")
    page.write_text(
        replace_blocks(page.read_text(encoding="utf-8"), blocks(records)), encoding="utf-8"
    )
    say(f"-> {record_file}, {page}")


if __name__ == "__main__":
    main()
