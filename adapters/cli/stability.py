"""`quadflow stability`."""

from __future__ import annotations

import argparse
from typing import Any

from ...storage import write_json
from .arguments import output_files, retyped
from .methods import add_method_arguments, named_rule, read_method, refuse_rule_arguments

ADJOINTS = {
    "radau-ia": "radau-left",
    "lobatto-iiib": "gauss-lobatto",
    "lobatto-iiic": "gauss-lobatto",
}
"""Implicit Runge-Kutta methods that are no collocation: name -> the family of their nodes."""


OPTIONS = ("nodes", "sweeps", "guess", "out", "star", "json")


def _subjects(arguments: argparse.Namespace) -> list[Any]:
    """The rule, method or implicit method that METHOD means.

    Several where METHOD chooses its order or its nodes: one for each of its choices.

    Raises:
        ValueError: as `read_method`; a solver of which only what it returns is known.
    """
    from ...analysis.exact.held import held_methods
    from ...analysis.solvers.run import Solver

    family = arguments.method
    if family not in ADJOINTS:
        subject = read_method(arguments)
        if isinstance(subject, Solver):
            raise ValueError(
                f"METHOD {family} is a solver known by what it returns: stability is worked out "
                "from the coefficients of a Method, a Tableau or a rule"
            )
        return list(held_methods(subject).values()) or [subject]
    from ...analysis.exact.runge_kutta import implicit_method

    why = f"{family} is no collocation on a rule, on which sweeps could be made"
    refuse_rule_arguments(arguments, why, "sweeps", "guess")
    rule = named_rule(ADJOINTS[family], arguments.nodes, name=family)
    return [implicit_method(family, rule.n)]


def _stability(arguments: argparse.Namespace) -> None:
    from ...analysis.stability import figures
    from ...analysis.stability.report import is_multistep, limits_table, stability_report

    subjects = _subjects(arguments)
    files = output_files(arguments, ("out", "star"), json=(".json",))
    if "star" in files and any(map(is_multistep, subjects)):
        raise ValueError(
            f"--star {files['star']}: {arguments.method} is a multistep method here, and an order "
            "star needs a one-step method such as rk4, or a family with --nodes"
        )
    reports = [stability_report(subject) for subject in subjects]
    print(reports[0] if len(reports) == 1 else limits_table(reports))
    command = retyped(arguments.method, arguments, OPTIONS)
    if "out" in files:
        figures.stability_region(files["out"], figures.spread(subjects), command=command)
    if "star" in files:
        figures.order_star(files["star"], subjects[0], command=command)
    if "json" in files:
        found: dict[str, Any] = {"reports": [report.to_dict() for report in reports]}
        write_json(
            files["json"], {"command": command, **(found if reports[1:] else reports[0].to_dict())}
        )
    for path in files.values():
        print(f"-> {path}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        f"{parser.description} METHOD is also one of {', '.join(ADJOINTS)}. One that chooses its "
        "order or its nodes (adams, gauss, lobatto) is told at each of its choices, or in full at "
        "one: adams:5, gauss:6."
    )
    add_method_arguments(parser)
    add = parser.add_argument
    add("--out", metavar="FILE", help="draw the stability region: .png, .pdf or .svg")
    add("--star", metavar="FILE", help="draw the order star: .png, .pdf or .svg")
    add("--json", metavar="FILE", help="the report as JSON, fractions as text")
    parser.set_defaults(run=_stability)
