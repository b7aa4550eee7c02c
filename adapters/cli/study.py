"""`quadflow study`."""

from __future__ import annotations

import argparse
import importlib

from ...extras import progress
from ...storage import write_json
from .arguments import output_files

STUDIES = {
    "blind-spots": (
        "proofs.blind_spots:blind_spots",
        "two wrong methods that linear or autonomous problems take for fourth order",
    ),
    "order-reduction": (
        "orders.order_reduction:order_reduction",
        "slopes of implicit collocation on a problem that grows stiff",
    ),
    "local-and-global": (
        "orders.local_and_global:local_and_global",
        "Gauss-Lobatto 4: local error O(h^7), global order 6",
    ),
    "kepler": (
        "cost.kepler_orbits:kepler_orbits",
        "energy over ten thousand periods of an orbit, and what other methods lose of it",
    ),
    "tolerance": (
        "cost.achieved_error:achieved_error",
        "achieved error over tolerance on the whole problem library",
    ),
    "short-inputs": (
        "reliability.short_inputs.study:short_inputs_study",
        "pulses, late kicks and odd scales, every library at its own defaults",
    ),
}
"""Name -> where in quadflow.analysis the study is, and what it shows."""


def _study(arguments: argparse.Namespace) -> None:
    module, _, name = STUDIES[arguments.name][0].partition(":")
    make_study = getattr(importlib.import_module(f"quadflow.analysis.{module}"), name)
    files = output_files(arguments, ("out",), json=())
    with progress(None, f"study {arguments.name}", "analysis") as bar:
        study = make_study(progress=lambda: bar.update(1))
    print(study)
    if "json" in files:
        write_json(files["json"], study.to_dict())
    if "out" in files:
        study.plot(files["out"])
        print(f"-> {files['out']}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    listed = "; ".join(f"{name}: {what}" for name, (_, what) in STUDIES.items())
    parser.description = f"{parser.description} {listed}."
    add = parser.add_argument
    add("name", metavar="STUDY", choices=tuple(STUDIES), help=", ".join(STUDIES))
    add("--out", help="draw it: .pdf, .svg or .png")
    add("--json", help="file for every figure")
    parser.set_defaults(run=_study)
