"""The command line `quadflow`: a module a command, imported when the command is asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import quadflow

from ...extras import MissingExtraError
from .own import place_in_own, told

COMMANDS = {
    "demo": "measured orders, and images in few evaluations with maps of their errors, in minutes",
    "sample": "images from the shipped model, or from your own",
    "fit": "fit a sampler to a backbone, in minutes",
    "train": "train a backbone or a SideNet",
    "evaluate": "every sampler at every budget, against the converged solve from the same noises",
    "reproduce": "the table of the published BA-solver, if you hold its weights",
    "edit": "images of one class turned into another, by inversion and regeneration",
    "certify": "prove the order of a method by exact order conditions",
    "mutate": "plant faults in rules, tableaus and formulas; report which checks find them",
    "study": "a study of what order, stability and tolerance mean",
    "problems": "the problem library, or one problem's statement, source and invariants",
    "order": "measure the order of a method: slopes that have settled, above rounding",
    "stability": "stability of a method: its function exactly, A-, L- and algebraic stability, "
    "intervals",
    "bench": "work and precision of solvers, quadflow's and peers', side by side",
    "methods": "every registered method: what it is, its orders and what it takes",
}
"""Every command with what it does. The module of the same name, `method_table` for methods, has
`add_arguments(parser)`, which adds the command's arguments and says what runs it."""


def make_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command line, with the arguments of the one command that argv names."""
    parser = argparse.ArgumentParser(prog="quadflow", description=quadflow.__doc__)
    parser.add_argument("--version", action="version", version=f"quadflow {quadflow.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    asked = next((word for word in argv if word in COMMANDS), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=f"{text}.")
        if name == asked:
            module = "method_table" if name == "methods" else name
            importlib.import_module(f".{module}", __package__).add_arguments(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; errors that a user can mend go to standard error, exit code 2.

    Those are refusals, and whatever the user's own code raises.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = make_parser(argv).parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"quadflow {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, a pager) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, FloatingPointError, MissingExtraError, quadflow.SolveError) as error:
        print(f"quadflow {arguments.command}: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        place = place_in_own(error)
        if not place and not isinstance(error, (TypeError, OSError)):
            raise
        what = f"{place}{told(error)}" if place else error
        print(f"quadflow {arguments.command}: {what}", file=sys.stderr)
        return 2
    return 0
