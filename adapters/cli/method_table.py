"""`quadflow methods`: what is registered, in a table."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Mapping

import quadflow as qf

MOST_COLUMNS = 100
"""Width of the table where nobody says how wide the terminal is; wider ones get no more."""

LEGEND = (
    "takes: a adaptive steps, f fixed steps, s steps of its own for every sample (adaptive), "
    "c compiled"
)


def _methods(arguments: argparse.Namespace) -> None:
    columns = shutil.get_terminal_size((MOST_COLUMNS, 24)).columns
    print(method_table(qf.methods(), min(MOST_COLUMNS, columns)))


def method_table(methods: Mapping[str, qf.Method], columns: int = MOST_COLUMNS) -> str:
    """Name, plan, orders, what it takes and what it is of every method, within so many columns."""
    width = max(10, *(len(name) for name in methods))
    lines = [f"{'name':<{width}} {'plan':<14} {'order':>5} {'dense':>5}  takes  what it is"]
    for name, method in methods.items():
        order, dense = (_order(method, o) for o in (method.order, method.dense_order))
        facts = f"{name:<{width}} {_plan(method):<14} {order:>5} {dense:>5}  {_takes(method)}   "
        lines += textwrap.wrap(
            method.description or "-", max(columns, len(facts) + 30), initial_indent=facts,
            subsequent_indent=" " * len(facts),
        )  # fmt: skip
    return "\n".join([*lines, "", *textwrap.wrap(LEGEND, columns)])


def _plan(method: qf.Method) -> str:
    """The plan's name in words, from that of its class."""
    words = type(method).__name__.removesuffix("Method")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words).lower()


def _order(method: qf.Method, declared: int | None) -> str:
    if declared is None and method.order_control is not None:
        return f"2-{method.order_control.max_order + 1}"
    return "-" if declared is None else str(declared)


def _takes(method: qf.Method) -> str:
    from ...loop.per_sample import check_method

    try:
        check_method(method)
        of_its_own = True
    except ValueError:
        of_its_own = False
    facts = {
        "a": method.error_order is not None, "f": method.takes_fixed_steps, "s": of_its_own,
        "c": method.not_compiled(samples=False) is None,
    }  # fmt: skip
    return "".join(letter if taken else "-" for letter, taken in facts.items())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes nothing."""
    parser.set_defaults(run=_methods)
