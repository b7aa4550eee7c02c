"""Which method is right for most people: the study behind quadflow's default.

Adaptive methods on four kinds of problems, at equal achieved errors: smooth ones over long spans,
velocities with kinks, steps that stability holds short, and short smooth spans at loose tolerances
as in models that are trained. Each is judged by sequential calls of f (what counts where a call
costs the same for one state and for several: small networks, accelerators that are not full), by
evaluations of single states (where the work itself counts), and by wall time on these cheap f.

The default is the method whose largest regret is least: the regret is the geometric mean, over the
cases of a kind, of its cost over that of the best method, and the largest is taken over the kinds
and over calls and evaluations.

`python -m quadflow.analysis.benchmarks.default_method [--quick] [--out FILE.json]`
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import quadflow as qf

from ..cost.equal_error import compare
from ..cost.rows import geometric_mean
from ..problems.problem import get_problem, vector
from ..problems.subjects import SCIENTIFIC, Subject, forms, subject, torch_subject
from ..solvers.quadflow import quadflow_solver
from .networks import NetworkVelocity, start_states
from .report import Record, ratio, run, table

METHODS = ("bosh3", "dopri5", "tsit5", "dopri8", "gauss4", "gauss", "lobatto", "adams")
"""Candidates: every adaptive method of the registry that another one does not plainly stand for."""

COSTS = {"calls": "calls", "nfe": "evaluations", "wall": "wall"}
"""Kinds of cost in a record's rows, and their names in tables."""

KINDS = ("smooth", "kinks", "stability", "short")
"""Kinds of problems, in the order of the tables."""


def subjects(kind: str) -> list[tuple[Subject, tuple[float, ...]]]:
    """Problems of a kind with the errors at which methods are compared.

    Raises:
        KeyError: unknown kind.
    """
    makers: dict[str, Callable[[], list[tuple[Subject, tuple[float, ...]]]]] = {
        "smooth": lambda: [(subject(name), (1e-4, 1e-6, 1e-8)) for name in SCIENTIFIC],
        "kinks": lambda: [(one, (1e-3, 1e-5)) for one in (_driven_by_arches(), _relu())],
        "stability": lambda: [(one, (1e-3, 1e-5)) for one in (_decay(), _heat(), _van_der_pol())],
        "short": lambda: [(_trained(end), (1e-2, 1e-4)) for end in (1.0, 3.0)],
    }
    return makers[kind]()


def _referenced(
    name: str,
    f: Callable[[Any, Tensor], Tensor],
    y0: Tensor,
    span: tuple[float, float],
    kinks: Sequence[float] = (),
) -> Subject:
    """A subject with the end that dopri8 finds at tolerances far below those compared."""
    end = qf.solve(
        f, y0, span, method="dopri8", rtol=1e-12, atol=1e-13, max_steps=10**6, breakpoints=kinks
    ).y[-1]
    return torch_subject(name, f, y0, span, end)


@functools.cache
def _driven_by_arches() -> Subject:
    def f(t: Any, y: Tensor) -> Tensor:
        return torch.sin(3 * torch.as_tensor(t)).abs() - 0.5 * y

    kinks = [k * math.pi / 3 for k in range(1, 10)]
    return _referenced("y' = |sin 3t| - y/2", f, vector(1.0), (0.0, 10.0), kinks)


@functools.cache
def _relu() -> Subject:
    generator = torch.Generator().manual_seed(0)
    sizes = ((32, 2), (32, 32), (2, 32))
    first, second, third = (
        2 * torch.randn(size, generator=generator, dtype=torch.float64) / math.sqrt(size[1])
        for size in sizes
    )

    def f(t: Any, y: Tensor) -> Tensor:
        hidden = torch.relu(torch.relu(y @ first.T + 0.3) @ second.T)
        return torch.stack((y[..., 1], -y[..., 0]), -1) + 0.1 * hidden @ third.T - 0.5 * y

    return _referenced("ReLU network", f, vector(1.0, 0.0), (0.0, 10.0))


@functools.cache
def _decay() -> Subject:
    return _referenced(
        "y' = -100 (y - cos t)", lambda t, y: -100 * (y - torch.cos(torch.as_tensor(t))),
        vector(1.0), (0.0, 10.0),
    )  # fmt: skip


@functools.cache
def _heat() -> Subject:
    size = 20
    second = -2 * torch.eye(size, dtype=torch.float64)
    second += torch.diag(torch.ones(size - 1, dtype=torch.float64), 1)
    second += torch.diag(torch.ones(size - 1, dtype=torch.float64), -1)
    place = torch.linspace(0, 1, size, dtype=torch.float64)
    return _referenced(
        "heat equation, 20 points", lambda t, y: 44.1 * (y @ second) + torch.sin(y),
        4 * place * (1 - place), (0.0, 2.0),
    )  # fmt: skip


@functools.cache
def _van_der_pol() -> Subject:
    f, _, _ = forms(get_problem("van-der-pol", mu=20))
    return _referenced("Van der Pol, mu = 20", f, vector(2.0, 0.0), (0.0, 40.0))


@functools.cache
def _trained(end: float) -> Subject:
    network = NetworkVelocity((2, 64, 2)).double()
    y0 = start_states(16, 2, dtype=torch.float64)
    with torch.no_grad():
        return _referenced(f"MLP 2-64-2, t to {end:g}", network, y0, (0.0, end))


def measure(
    *,
    quick: bool = False,
    methods: Sequence[str] = METHODS,
    kinds: Sequence[str] = KINDS,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every kind, problem, error and method}. quick: one problem a kind."""
    rows: list[dict[str, Any]] = []
    solvers = [quadflow_solver(method) for method in methods]
    for kind in kinds:
        for one, targets in subjects(kind)[: 1 if quick else None]:
            entries = compare(solvers, one, targets, repeats=3, seconds=0.3, say=say)
            rows += [
                {
                    "kind": kind, "problem": one.name,
                    "method": entry.solver.removeprefix("quadflow "), **entry.to_dict(),
                }
                for entry in entries
            ]  # fmt: skip
    return {"rows": rows}


def regrets(record: Record) -> dict[str, dict[tuple[str, str], float | None]]:
    """method -> (kind, cost) -> geometric mean of its cost over the best one's.

    Over the cases of the kind that the method reached; None where it reached none.
    """
    cases: dict[tuple[str, float], list[Record]] = {}
    for row in record["rows"]:
        if row["failure"] is None:
            cases.setdefault((row["problem"], row["target"]), []).append(row)
    kinds = dict.fromkeys(row["kind"] for row in record["rows"])
    return {
        method: {
            (kind, cost): geometric_mean([
                row[cost] / min(other[cost] for other in same)
                for same in cases.values() for row in same
                if (row["method"], row["kind"]) == (method, kind)
            ])
            for kind in kinds for cost in COSTS
        }
        for method in dict.fromkeys(row["method"] for row in record["rows"])
    }  # fmt: skip


def missed(record: Record) -> dict[str, int]:
    """In how many cases each method did not reach the error within the budget."""
    return {
        method: sum(r["failure"] is not None for r in record["rows"] if r["method"] == method)
        for method in dict.fromkeys(row["method"] for row in record["rows"])
    }


def largest_regrets(record: Record) -> dict[str, float]:
    """By which methods are ranked: the largest regret in calls and in evaluations of every kind;
    infinite where a case was not reached at all."""
    unreached = missed(record)
    return {
        method: math.inf
        if unreached[method]
        else max(value for (_, cost), value in by.items() if cost != "wall" and value is not None)
        for method, by in regrets(record).items()
    }


def tables(record: Record) -> dict[str, str]:
    """Regrets, a row a method, the least of the largest first."""
    largest, unreached, all_of_them = largest_regrets(record), missed(record), regrets(record)
    kinds = tuple(dict.fromkeys(row["kind"] for row in record["rows"]))
    heads = [f"{kind}: {name}" for kind in kinds for name in COSTS.values()]
    rows = [
        [
            method,
            *(ratio(all_of_them[method][kind, cost]) for kind in kinds for cost in COSTS),
            str(unreached[method]),
            ratio(largest[method]),
        ]
        for method in sorted(all_of_them, key=lambda m: (largest[m], unreached[m]))
    ]
    return {"default-method": table(["cost over the best", *heads, "not reached", "largest"], rows)}


if __name__ == "__main__":
    run("default_method", measure, tables, __doc__)
