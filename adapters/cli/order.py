"""`quadflow order`."""

from __future__ import annotations

import argparse
from typing import Any

import quadflow as qf

from ...errors import nearest
from ...extras import progress
from ...rules.rule import QuadratureRule
from ...storage import write_json
from .arguments import output_files, retyped, whole_numbers
from .methods import add_method_arguments, read_method
from .problems import FORMS, read_problem

OPTIONS = ("nodes", "sweeps", "guess", "problem", "of", "digits", "budget", "out", "json", "steps")


def _subjects(arguments: argparse.Namespace) -> tuple[list[Any], str]:
    """The methods that are measured, and a remark about them.

    Several where METHOD chooses its order or its nodes: one for each of its choices.

    Raises:
        ValueError: as `read_method`.
    """
    from ...analysis.exact.held import held_methods
    from ...analysis.solvers.run import Solver

    subject = read_method(arguments)
    digits = arguments.digits
    if isinstance(subject, Solver):
        if digits is not None:
            raise ValueError(f"--digits {digits}: {arguments.method} runs in float64 only")
        return [subject], ""
    if isinstance(subject, qf.Method):
        held = held_methods(subject)
        if not held:
            return [subject], ""
        if subject.order_control is not None:
            return [*held.values()], "the order k held, from exact starting values"
        return [*held.values()], "one sweep, the number of nodes held"
    assert isinstance(subject, QuadratureRule)
    if digits is not None:
        from ...analysis.exact.mp_backend import ImplicitCollocation

        return [ImplicitCollocation(subject)], "implicit collocation, solved to the last digit"
    # two sweeps more than the order needs, so that the collocation method itself shows
    sweeps = subject.n + 2
    method = qf.collocation(subject, sweeps, guess="extrapolated")
    return [method], (
        f"{sweeps} sweeps from the extrapolated guess stand in for implicit collocation "
        "(--digits solves its equations)"
    )


def _kinds(arguments: argparse.Namespace) -> tuple[str, ...]:
    from ...analysis.orders.error_kinds import KINDS, MP_KINDS

    if arguments.of == "all":
        return KINDS if arguments.digits is None else MP_KINDS
    kinds = tuple(arguments.of.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"--of {kind!r} is unknown: {nearest(kind, (*KINDS, 'all'))}")
    return kinds


def _measured(
    arguments: argparse.Namespace, subjects: list[Any], json: Any, command: str, remark: str
) -> list[Any]:
    """Every subject's orders of every kind, kept in the file `json` as they come."""
    from ...analysis.orders.convergence import default_budget, measured_order, window_length

    problem = read_problem(arguments.problem, "--problem")
    pairs = [(subject, kind) for subject in subjects for kind in _kinds(arguments)]
    points = [
        len(arguments.steps)
        if arguments.steps
        else window_length(arguments.budget or default_budget(kind, arguments.digits))
        for _, kind in pairs
    ]
    done: list[Any] = []
    with progress(sum(points), "order", "analysis") as bar:
        for i, (subject, kind) in enumerate(pairs):
            bar.set_postfix_str(kind)
            measurement = measured_order(
                subject, problem, arguments.steps, of=kind, digits=arguments.digits,
                budget=arguments.budget, progress=lambda: bar.update(1),
            )  # fmt: skip
            done.append(measurement)
            bar.update(max(0, sum(points[: i + 1]) - bar.n))
            if json is not None:
                orders = [m.to_dict() for m in done]
                write_json(json, {"command": command, "note": remark, "orders": orders})
            if measurement.interrupted:
                break
    return done


def _order(arguments: argparse.Namespace) -> None:
    from ...analysis.orders.figures import order_plot
    from ...analysis.orders.measurement import order_figures

    files = output_files(arguments, ("out",), json=())
    _kinds(arguments)
    subjects, remark = _subjects(arguments)
    command = retyped(arguments.method, arguments, OPTIONS, _word)
    done = _measured(arguments, subjects, files.get("json"), command, remark)
    if len(subjects) == 1:
        print("\n\n".join(str(m) for m in done))
    if len(done) > 1:
        print(("\n" if len(subjects) == 1 else "") + order_figures(done))
    if remark:
        print(f"\n{arguments.method if len(subjects) > 1 else done[0].method}: {remark}")
    if "out" in files:
        order_plot(files["out"], done, command=command)
    for path in files.values():
        print(f"-> {path}")


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _steps(text: str) -> tuple[int, ...]:
    return whole_numbers(text, "10,20,40")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        f"{parser.description} METHOD is also a peer's solver: torchdiffeq:dopri5, scipy:DOP853, "
        "diffrax:Dopri5. One that chooses its order or its nodes (adams, gauss, lobatto) is "
        "measured at each of its choices, or at one: adams:5, gauss:6."
    )
    add_method_arguments(parser)
    add = parser.add_argument
    add("--problem", default="driven", metavar="NAME",
        help=f"{FORMS}; see `quadflow problems` (%(default)s: nonlinear and "
        "non-autonomous)")  # fmt: skip
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
    parser.set_defaults(run=_order)
