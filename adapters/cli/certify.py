"""`quadflow certify`."""

from __future__ import annotations

import argparse
from typing import Any

import quadflow as qf

from ...extras import progress
from ...storage import write_json
from .arguments import output_files
from .methods import add_method_arguments, read_method, refuse_rule_arguments


def _certify(arguments: argparse.Namespace) -> None:
    from ...analysis.proofs import certificates
    from ...analysis.solvers.run import Solver

    out = output_files(arguments, json=()).get("json")
    options = {"highest": arguments.highest} if arguments.highest is not None else {}
    subjects: list[Any]
    if arguments.method == "all":
        refuse_rule_arguments(arguments, "all is every registered method", "nodes", "sweeps",
                              "guess")  # fmt: skip
        subjects = list(qf.methods().values())
    else:
        subjects = [read_method(arguments)]
    if isinstance(subjects[0], Solver):
        found = certificates.certify_solver(subjects[0], **options)
        if out is not None:
            write_json(out, found.to_dict())
        if found.failure is not None:
            raise ValueError(str(found))
        print(found)
        return
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        f"{parser.description} METHOD may also be all; or a solver that is certified by what it "
        "returns: another library's, such as torchdiffeq:rk4 or scipy:DOP853, or a callable."
    )
    add_method_arguments(parser)
    add = parser.add_argument
    add("--highest", type=int, help="largest order of single trees (10; peers 9)")
    add("--json", help="file for the certificates")
    parser.set_defaults(run=_certify)
