"""Local order 7, global order 6: what "order" means, on four-point Gauss-Lobatto."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import quadflow as qf

from ..problems.problem import Problem, get_problem
from .convergence import OrderMeasurement, measured_order
from .figures import order_plot

DIGITS = 40
BUDGET = 2500  # steps of all solves of a measurement: the global error settles late


@dataclass(frozen=True)
class LocalAndGlobal:
    """quadrature: one step with the exact velocity at the nodes. local: one step of the method from
    the exact state. whole: the error at the end of the span, after all steps."""

    quadrature: OrderMeasurement
    local: OrderMeasurement
    whole: OrderMeasurement

    @property
    def rows(self) -> dict[str, OrderMeasurement]:
        """By what each measures."""
        return {
            "one step, exact velocities at the nodes": self.quadrature,
            "one step of the method": self.local,
            "the whole span": self.whole,
        }

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return {name: m.to_dict() for name, m in self.rows.items()}

    def __str__(self) -> str:
        lines = [f"{'error of':<42}{'slope':>8}"]
        for name, m in self.rows.items():
            lines.append(f"{name:<42}{m.order:>8.2f}" if m.trusted else f"{name:<42}  {m.verdict}")
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Error against steps and slopes, of all three."""
        order_plot(
            path, list(self.rows.values()), title="Gauss-Lobatto 4: local order 7, global order 6",
            command=f"quadflow study local-and-global --out {Path(path).name}",
        )  # fmt: skip


def oracle(problem: Problem, rule: qf.QuadratureRule) -> qf.Method:
    """A rule with the exact velocity along the problem's solution at its nodes.

    Raises:
        ValueError: the problem has no exact solution.
    """

    def velocity(t: float) -> torch.Tensor:
        return problem.f(torch.tensor(t, dtype=torch.float64), problem.solution(t))

    problem.solution(problem.span[0])
    return qf.anchors(qf.OracleInterpolant(velocity), rule, name=f"oracle {rule.family}-{rule.n}")


def local_and_global(
    rule: qf.QuadratureRule | None = None,
    problem: str | Problem = "driven",
    *,
    progress: Callable[[], None] | None = None,
) -> LocalAndGlobal:
    """Measure the three errors of a rule of n nodes and degree d, with 40 digits.

    Exact velocities leave the quadrature error O(h^(d+2)); a step of the converged collocation
    method has the same exponent, since its order is d+1; over a span the errors of 1/h steps add
    up to O(h^(d+1)).

    Args:
        rule: 4-point Gauss-Lobatto by default. problem: one with an exact solution.
        progress: called after every solve.
    """
    rule = rule or qf.gauss_lobatto(4)
    problem = get_problem(problem)
    method = qf.collocation(rule, rule.degree + 1, guess="constant")

    def measured(method: qf.Method, of: str) -> OrderMeasurement:
        m = measured_order(method, problem, of=of, digits=DIGITS, budget=BUDGET, progress=progress)
        if m.interrupted:  # three rows are compared, or there is nothing to say
            raise KeyboardInterrupt
        return m

    return LocalAndGlobal(
        measured(oracle(problem, rule), "local"),
        measured(method, "local"),
        measured(method, "endpoint"),
    )
