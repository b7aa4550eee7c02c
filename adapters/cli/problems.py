"""`quadflow problems`, and NAME of a problem wherever a command takes one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .own import kind_of, load_own

if TYPE_CHECKING:
    from ...analysis.problems.problem import Problem

FORMS = (
    "NAME, NAME:KEY=VALUE such as kepler:eccentricity=0.9, or MODULE:NAME or FILE.py:NAME, a "
    "Problem of one's own or a function that makes one"
)
"""What a problem is given as."""


def read_problem(text: str, option: str) -> Problem:
    """The Problem of a registered name, with parameters or without; or of MODULE:NAME.

    Raises:
        ValueError: unknown name, parameter or module; MODULE:NAME is no Problem.
    """
    from ...analysis.problems.problem import Problem, parse_problem, problem_names

    name, colon, parameters = text.partition(":")
    if not colon or name in problem_names() or "=" in parameters:
        return parse_problem(text)
    found = load_own(text, option, problem_names())
    if not isinstance(found, Problem):
        raise ValueError(
            f"{option} {text} is {kind_of(found)}: must be a Problem, or a function that makes one"
        )
    return found


def _problems(arguments: argparse.Namespace) -> None:
    from ...analysis.problems.problem import problems
    from ...analysis.problems.tables import describe, problem_table

    if arguments.name is None:
        names = list(problems(arguments.set)) if arguments.set else None
        print(problem_table(names))
        return
    if arguments.set:
        raise ValueError(f"--set {arguments.set}: give either a set or a NAME")
    print(describe(read_problem(arguments.name, "NAME")))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help=FORMS)
    add("--set", help="only this set, such as nonstiff, stiff, detest")
    parser.set_defaults(run=_problems)
