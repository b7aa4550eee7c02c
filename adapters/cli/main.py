"""The command line `quadflow`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import quadflow

from ...extras import MissingExtraError
from .bench import add_bench
from .edit import add_edit
from .evaluate import add_evaluate
from .laboratory import add_laboratory
from .order import add_order
from .sample import add_sample
from .stability import add_stability
from .train import add_train


def _demo(arguments: argparse.Namespace) -> None:
    from ...analysis.report.demo import run_demo

    run_demo(Path(arguments.out), seed=arguments.seed, quick=arguments.quick)


def _methods(arguments: argparse.Namespace) -> None:
    print(f"{'name':<10} {'plan':<8} {'order':>5} {'dense':>5}  steps")
    for name, method in quadflow.methods().items():
        plan = type(method).__name__.removesuffix("Method").lower()
        kinds = {"fixed": method.takes_fixed_steps, "adaptive": method.error_order is not None}
        steps = " or ".join(kind for kind, taken in kinds.items() if taken)
        print(f"{name:<10} {plan:<8} {method.order!s:>5} {method.dense_order!s:>5}  {steps}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="quadflow", description=quadflow.__doc__)
    parser.add_argument("--version", action="version", version=f"quadflow {quadflow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="measured orders and few-evaluation images, in minutes")
    demo.add_argument("--out", default="demo", help="folder for pictures and figures (%(default)s)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--quick", action="store_true", help="fewer images and steps, for a try")
    demo.set_defaults(run=_demo)

    add_sample(commands)
    add_train(commands)
    add_evaluate(commands)
    add_edit(commands)
    add_laboratory(commands)
    add_order(commands)
    add_stability(commands)
    add_bench(commands)

    methods = commands.add_parser("methods", help="every registered method with its order")
    methods.set_defaults(run=_methods)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors that a user can mend go to standard error, exit code 2."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"quadflow {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, a pager) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (
        ValueError, TypeError, OSError, FloatingPointError, MissingExtraError, quadflow.SolveError,
    ) as error:  # fmt: skip
        print(f"quadflow {arguments.command}: {error}", file=sys.stderr)
        return 2
    return 0
