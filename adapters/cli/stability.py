"""`quadflow stability`."""

from __future__ import annotations

import argparse
from typing import Any

from ...extras import require
from ...storage import write_json
from .arguments import output_file, retyped
from .methods import add_method_arguments, named_method, named_rule, refuse_rule_arguments

ADJOINTS = {
    "radau-ia": "radau-left",
    "lobatto-iiib": "gauss-lobatto",
    "lobatto-iiic": "gauss-lobatto",
}
"""Implicit Runge-Kutta methods that are no collocation: name -> the family of their nodes."""


OPTIONS = ("nodes", "sweeps", "guess", "out", "star", "json")


def _subject(arguments: argparse.Namespace) -> Any:
    """What METHOD means: a rule, a method or an implicit method.

    Raises:
        ValueError: as `named_method`.
    """
    family = arguments.method
    if family not in ADJOINTS:
        return named_method(arguments)
    from ...analysis.stability.report import implicit_method

    why = f"{family} is no collocation on a rule, on which sweeps could be made"
    refuse_rule_arguments(arguments, why, "sweeps", "guess")
    rule = named_rule(ADJOINTS[family], arguments.nodes, name=family)
    return implicit_method(family, rule.n)


def _stability(arguments: argparse.Namespace) -> None:
    from ...analysis.report.panels import SUFFIXES
    from ...analysis.stability import figures
    from ...analysis.stability.report import is_multistep, stability_report

    subject = _subject(arguments)
    files = {
        option: output_file(value, f"--{option}", suffixes)
        for option, value, suffixes in (
            ("out", arguments.out, SUFFIXES),
            ("star", arguments.star, SUFFIXES),
            ("json", arguments.json, (".json",)),
        )
        if value
    }
    if "out" in files or "star" in files:
        require("matplotlib", "analysis")  # before the work, not after it
    if "star" in files and is_multistep(subject):
        raise ValueError(
            f"--star {files['star']}: {arguments.method} is a multistep method here, and an order "
            "star needs a one-step method such as rk4, or a family with --nodes"
        )
    report = stability_report(subject)
    print(report)
    command = retyped(("stability", arguments.method), arguments, OPTIONS)
    if "out" in files:
        figures.stability_region(files["out"], [subject], command=command)
    if "star" in files:
        figures.order_star(files["star"], subject, command=command)
    if "json" in files:
        write_json(files["json"], {"command": command, **report.to_dict()})
    for path in files.values():
        print(f"-> {path}")


def add_stability(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    text = "stability of a method: its function exactly, A-, L- and algebraic stability, intervals"
    stability = commands.add_parser(
        "stability", help=text, description=f"{text}. METHOD is also one of {', '.join(ADJOINTS)}."
    )
    add_method_arguments(stability)
    add = stability.add_argument
    add("--out", metavar="FILE", help="draw the stability region: .png, .pdf or .svg")
    add("--star", metavar="FILE", help="draw the order star: .png, .pdf or .svg")
    add("--json", metavar="FILE", help="the report as JSON, fractions as text")
    stability.set_defaults(run=_stability)
