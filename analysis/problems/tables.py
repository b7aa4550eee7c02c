"""The problem library as text: one table of all, one page of each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from ..references.reference import reference_end
from .problem import Problem, get_problem, problem_names

_HEADER = ("name", "d", "span", "stiff", "exact", "error", "sets")


def problem_table(names: Sequence[str] | None = None) -> str:
    """A line for each problem at default parameters; all registered ones if names is None.

    Columns: name; d, number of components; span of time; whether it is stiff; whether there is a
    closed form; relative error of the reference state at the end of the span; sets.

    Raises:
        ValueError: unknown name.
    """
    made = [get_problem(name) for name in (problem_names() if names is None else names)]
    rows = [_HEADER, *(_row(problem) for problem in made)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(_HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(problem: Problem) -> tuple[str, ...]:
    return (
        problem.name,
        str(problem.dimension),
        _span(problem),
        "stiff" if problem.stiff else "-",
        "exact" if problem.exact is not None else "-",
        "-" if problem.end is None else f"{problem.end_error:.0e}",
        ", ".join(problem.sets),
    )


def _span(problem: Problem) -> str:
    return f"[{problem.span[0]:.10g}, {problem.span[1]:.10g}]"


def describe(name: str | Problem, **parameters: Any) -> str:
    """Statement, source, parameters, invariants and reference end of one problem, as text.

    Args:
        name: registered name, or a Problem.
        parameters: other than the default ones.

    Raises:
        ValueError: unknown name or parameter, or a parameter out of range.
        quadflow.analysis.references.reference.ReferenceFailed: no reference end is stored for these
            parameters and none could be found.
    """
    problem = get_problem(name, **parameters)
    end, error, how = reference_end(problem)
    kind = "stiff" if problem.stiff else "not stiff"
    lines = [
        f"{problem.name}: {problem.dimension} components over {_span(problem)}, {kind}",
        *_entry("statement", problem.statement),
        *_entry("source", problem.source),
        *_entry("parameters", ", ".join(f"{k}={v!r}" for k, v in problem.parameters.items())),
        *_entry("invariants", ", ".join(problem.invariants)),
        *_entry("sets", ", ".join(problem.sets)),
    ]
    if problem.event is not None:
        lines += _entry("event", f"a root at t = {problem.event.time!r}")
    lines += _entry("start", _numbers(problem.y0.tolist()))
    lines += _entry(
        "end",
        f"{_numbers(end.tolist())}; relative error {error:.0e}, {how}, of the initial state and "
        "constants as float64 has them",
    )
    return "\n".join(lines)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{v!r}" for v in values)


def _entry(title: str, text: str) -> list[str]:
    return textwrap.wrap(
        text or "none",
        96,
        initial_indent=f"  {title:<11}",
        subsequent_indent=" " * 13,
        break_long_words=False,
    )
