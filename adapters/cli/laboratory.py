"""`quadflow certify`, `quadflow mutate`, `quadflow study` and `quadflow problems`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import quadflow

from ...extras import progress, require
from ...storage import write_json
from .arguments import output_file
from .methods import add_method_arguments, named_method, refuse_rule_arguments


def _certify(arguments: argparse.Namespace) -> None:
    from ...analysis.proofs import certificates

    out = output_file(arguments.json, "--json") if arguments.json else None
    options = {"highest": arguments.highest} if arguments.highest is not None else {}
    if ":" in arguments.method:
        why = f"{arguments.method} is another library's solver"
        refuse_rule_arguments(arguments, why, "nodes", "sweeps", "guess")
        found = certificates.certify_solver(arguments.method, **options)
        print(found)
        if out is not None:
            write_json(out, found.to_dict())
        return
    if arguments.method == "all":
        refuse_rule_arguments(arguments, "all is every registered method", "nodes", "sweeps",
                              "guess")  # fmt: skip
        subjects: list[Any] = list(quadflow.methods().values())
    else:
        subjects = [named_method(arguments)]
    finished: list[certificates.Certificate] = []
    with progress(len(subjects), "certify", "analysis") as bar:
        for subject in subjects:
            finished.append(certificates.certify(subject, **options))
            bar.update(1)
            if len(subjects) == 1:
                bar.clear()
                print(finished[-1])
            else:
                bar.write(certificates.summary_line(finished[-1]))
            if out is not None:
                write_json(out, [c.to_dict() for c in finished])
    wrong = [c.method for c in finished if not c.agrees]
    if wrong:
        raise ValueError(f"declared and proved differ: {', '.join(wrong)}")


def _mutate(arguments: argparse.Namespace) -> None:
    from ...analysis.proofs.mutations import KINDS, plant

    kinds = tuple(arguments.kinds.split(",")) if arguments.kinds else KINDS
    out = output_file(arguments.json, "--json") if arguments.json else None
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


STUDIES = {
    "blind-spots": "two wrong methods that linear or autonomous problems take for fourth order",
    "order-reduction": "slopes of implicit collocation on a problem that grows stiff",
    "local-and-global": "Gauss-Lobatto 4: local error O(h^7), global order 6",
    "kepler": "energy over ten thousand periods of an orbit, and what other methods lose of it",
    "tolerance": "achieved error over tolerance on the whole problem library",
    "short-inputs": "pulses, late kicks and odd scales, every library at its own defaults",
}


def _study(arguments: argparse.Namespace) -> None:
    from ...analysis.cost import achieved_error, kepler_orbits
    from ...analysis.orders import local_and_global, order_reduction
    from ...analysis.proofs import blind_spots
    from ...analysis.reliability.short_inputs.study import short_inputs_study
    from ...analysis.report.panels import SUFFIXES

    studies: dict[str, Callable[..., Any]] = {
        "blind-spots": blind_spots.blind_spots,
        "order-reduction": order_reduction.order_reduction,
        "local-and-global": local_and_global.local_and_global,
        "kepler": kepler_orbits.kepler_orbits,
        "tolerance": achieved_error.achieved_error,
        "short-inputs": short_inputs_study,
    }
    picture = output_file(arguments.out, "--out", SUFFIXES) if arguments.out else None
    if picture is not None:
        require("matplotlib", "analysis")  # before the work, not after it
    out = output_file(arguments.json, "--json") if arguments.json else None
    with progress(None, f"study {arguments.name}", "analysis") as bar:
        study = studies[arguments.name](progress=lambda: bar.update(1))
    print(study)
    if out is not None:
        write_json(out, study.to_dict())
    if picture is not None:
        study.plot(picture)
        print(f"-> {picture}")


def _problems(arguments: argparse.Namespace) -> None:
    from ...analysis.problems.problem import parse_problem, problems
    from ...analysis.problems.tables import describe, problem_table

    if arguments.name is None:
        names = list(problems(arguments.set)) if arguments.set else None
        print(problem_table(names))
        return
    if arguments.set:
        raise ValueError(f"--set {arguments.set}: give either a set or a NAME")
    print(describe(parse_problem(arguments.name)))


def add_laboratory(commands: Any) -> None:
    """Add the four commands to the subparsers of the command line."""
    text = "prove the order of a method by exact order conditions"
    certify = commands.add_parser(
        "certify",
        help=text,
        description=f"{text}. METHOD may also be all, or another library's solver such as "
        "torchdiffeq:rk4 or scipy:DOP853, which is certified by what it returns.",
    )
    add_method_arguments(certify)
    certify.add_argument("--highest", type=int, help="largest order of single trees (10; peers 9)")
    certify.add_argument("--json", help="file for the certificates")
    certify.set_defaults(run=_certify)

    text = "plant faults in rules, tableaus and formulas; report which checks find them"
    mutate = commands.add_parser("mutate", help=text, description=text)
    mutate.add_argument("--faults", type=int, default=100, help="how many (%(default)s)")
    mutate.add_argument("--seed", type=int, default=0, help="of the places (%(default)s)")
    mutate.add_argument("--kinds", help="such as nodes,weights,'step formula'; default: all")
    mutate.add_argument("--json", help="file for the report, rewritten after every fault")
    mutate.set_defaults(run=_mutate)

    text = "a study of what order, stability and tolerance mean"
    listed = "; ".join(f"{name}: {what}" for name, what in STUDIES.items())
    study = commands.add_parser("study", help=text, description=f"{text}. {listed}.")
    study.add_argument("name", metavar="STUDY", choices=tuple(STUDIES), help=", ".join(STUDIES))
    study.add_argument("--out", help="draw it: .pdf, .svg or .png")
    study.add_argument("--json", help="file for every figure")
    study.set_defaults(run=_study)

    text = "the problem library, or one problem's statement, source and invariants"
    problems = commands.add_parser("problems", help=text, description=text)
    listed = "with parameters NAME:KEY=VALUE, such as kepler:eccentricity=0.9"
    problems.add_argument("name", nargs="?", metavar="NAME", help=listed)
    problems.add_argument("--set", help="only this set, such as nonstiff, stiff, detest")
    problems.set_defaults(run=_problems)
