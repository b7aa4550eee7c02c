"""`quadflow order`."""

from __future__ import annotations

import argparse
from typing import Any

import quadflow

from ...errors import nearest
from ...extras import progress, require
from ...rules.quadrature import QuadratureRule
from ...storage import write_json
from .arguments import output_file, retyped, whole_numbers
from .methods import add_method_arguments, named_method, refuse_rule_arguments

OPTIONS = ("nodes", "sweeps", "guess", "problem", "of", "digits", "budget", "out", "json", "steps")


def _subject(arguments: argparse.Namespace) -> tuple[Any, str]:
    """What is measured, and what there is to say about it.

    Raises:
        ValueError: as `named_method`.
    """
    name = arguments.method
    if ":" in name:
        refuse_rule_arguments(arguments, f"{name} is a peer's solver", "nodes", "sweeps", "guess")
        if arguments.digits is not None:
            raise ValueError(f"--digits {arguments.digits}: {name} runs in float64 only")
        return name, ""
    subject = named_method(arguments)
    if not isinstance(subject, QuadratureRule):
        return subject, ""
    if arguments.digits is not None:
        from ...analysis.exact.mp_backend import ImplicitCollocation

        return ImplicitCollocation(subject), "implicit collocation, solved to the last digit"
    # two sweeps more than the order needs, so that the collocation method itself shows
    sweeps = subject.n + 2
    method = quadflow.collocation(subject, sweeps, guess="extrapolated")
    return method, (
        f"{sweeps} sweeps from the extrapolated guess stand in for implicit collocation "
        "(--digits solves its equations)"
    )


def _order(arguments: argparse.Namespace) -> None:
    from ...analysis.orders.convergence import (
        KINDS,
        default_budget,
        measured_order,
        order_figures,
        window_length,
    )
    from ...analysis.orders.error_kinds import MP_KINDS
    from ...analysis.problems.problem import parse_problem

    out = json = None
    if arguments.out:
        from ...analysis.orders.figures import order_plot
        from ...analysis.report.panels import SUFFIXES

        require("matplotlib", "analysis")  # before the work, not after it
        out = output_file(arguments.out, "--out", SUFFIXES)
    if arguments.json:
        json = output_file(arguments.json, "--json")
    known = KINDS if arguments.digits is None else MP_KINDS
    kinds = known if arguments.of == "all" else tuple(arguments.of.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"--of {kind!r} is unknown: {nearest(kind, (*KINDS, 'all'))}")
    problem = parse_problem(arguments.problem)
    subject, remark = _subject(arguments)
    command = retyped(("order", arguments.method), arguments, OPTIONS, _word)
    points = [
        len(arguments.steps)
        if arguments.steps
        else window_length(arguments.budget or default_budget(kind, arguments.digits))
        for kind in kinds
    ]
    done = []
    with progress(sum(points), "order", "analysis") as bar:
        for i, kind in enumerate(kinds):
            bar.set_postfix_str(kind)
            measurement = measured_order(
                subject, problem, arguments.steps, of=kind, digits=arguments.digits,
                budget=arguments.budget, progress=lambda: bar.update(1),
            )  # fmt: skip
            done.append(measurement)
            bar.update(max(0, sum(points[: i + 1]) - bar.n))
            if json is not None:
                write_json(
                    json,
                    {"command": command, "note": remark, "orders": [m.to_dict() for m in done]},
                )
            if measurement.interrupted:
                break
    print("\n\n".join(str(m) for m in done))
    if len(done) > 1:
        print(f"\n{order_figures(done)}")
    if remark:
        print(f"\n{done[0].method}: {remark}")
    if json is not None:
        print(f"-> {json}")
    if out is not None:
        order_plot(out, done, command=command)
        print(f"-> {out}")


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _steps(text: str) -> tuple[int, ...]:
    return whole_numbers(text, "10,20,40")


def add_order(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    text = "measure the order of a method: slopes that have settled, above rounding"
    order = commands.add_parser(
        "order",
        help=text,
        description=f"{text}. METHOD is also a peer's solver: torchdiffeq:dopri5, scipy:DOP853, "
        "diffrax:Dopri5.",
    )
    add_method_arguments(order)
    add = order.add_argument
    add("--problem", default="driven", metavar="NAME",
        help="see `quadflow problems` (%(default)s: nonlinear and non-autonomous); with "
        "parameters: kepler:eccentricity=0.9")  # fmt: skip
    add("--of", default="endpoint", metavar="WHAT",
        help="endpoint (default), dense, estimate, event, gradient, local, several with commas, "
        "or all")  # fmt: skip
    add("--digits", type=int, metavar="D",
        help="extended precision with D decimal digits, for orders above 8 (endpoint, dense, "
        "local)")  # fmt: skip
    add("--steps", type=_steps, metavar="N,N,...", help="numbers of steps; default: found out")
    add("--budget", type=int, metavar="STEPS",
        help="most steps altogether when they are found out (12000; gradient 3000; --digits "
        "700)")  # fmt: skip
    add("--out", metavar="FILE", help="draw it: .pdf, .svg or .png")
    add("--json", metavar="FILE", help="every figure")
    order.set_defaults(run=_order)
