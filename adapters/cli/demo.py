"""`quadflow demo`."""

from __future__ import annotations

import argparse
from pathlib import Path


def _demo(arguments: argparse.Namespace) -> None:
    from ...analysis.report.demo import run_demo

    run_demo(Path(arguments.out), seed=arguments.seed, quick=arguments.quick)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("--out", default="demo", help="folder for pictures and figures (%(default)s)")
    add("--seed", type=int, default=0, help="of the noises (%(default)s)")
    add("--quick", action="store_true", help="fewer images and steps, for a try")
    parser.set_defaults(run=_demo)
