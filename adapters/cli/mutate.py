"""`quadflow mutate`."""

from __future__ import annotations

import argparse

from ...extras import progress
from .arguments import output_files


def _mutate(arguments: argparse.Namespace) -> None:
    from ...analysis.proofs.mutations import KINDS, plant

    kinds = tuple(arguments.kinds.split(",")) if arguments.kinds else KINDS
    out = output_files(arguments, json=()).get("json")
    with progress(arguments.faults, "mutate", "analysis") as bar:
        report = plant(
            arguments.faults,
            seed=arguments.seed,
            kinds=kinds,
            save=out,
            progress=lambda: bar.update(1),
        )
    print(report)
    if report.survivors:
        raise ValueError(f"{len(report.survivors)} faults survived")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("--faults", type=int, default=100, help="how many (%(default)s)")
    add("--seed", type=int, default=0, help="of the places (%(default)s)")
    add("--kinds", help="such as nodes,weights,'step formula'; default: all")
    add("--json", help="file for the report, rewritten after every fault")
    parser.set_defaults(run=_mutate)
