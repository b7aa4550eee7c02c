"""Order reduction: what is left of a method's order when the problem is stiff."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quadflow as qf

from ..exact.mp_backend import ImplicitCollocation
from ..problems.problem import get_problem
from ..report.panels import Panels, label_end, styles
from .convergence import measured_order
from .measurement import OrderMeasurement

RULES = (qf.gauss_legendre(3), qf.radau_right(3), qf.gauss_lobatto(4))
STIFFNESS = (-1.0, -1e2, -1e4, -1e6)
STEPS = (16, 24, 32, 48, 64)
"""Even numbers: Gauss rules do not damp, R(∞) = ±1, and signs would alternate with the number."""


RuleSlopes = tuple[str, int, int, tuple[tuple[float, OrderMeasurement], ...]]
"""A row of `OrderReduction`."""


@dataclass(frozen=True)
class OrderReduction:
    """Slopes of implicit collocation on the Prothero-Robinson problem, by stiffness.

    rows: (rule's name, its order d+1, its stage order n, [(lam, measurement), ...]).
    """

    rows: tuple[RuleSlopes, ...]

    def to_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        return {
            "rows": [
                {
                    "rule": name,
                    "order": order,
                    "stage_order": stage,
                    "slopes": {f"{lam:g}": m.slope for lam, m in by},
                    "measurements": {f"{lam:g}": m.to_dict() for lam, m in by},
                }
                for name, order, stage, by in self.rows
            ]
        }

    def __str__(self) -> str:
        stiffness = [lam for lam, _ in self.rows[0][3]]
        head = "".join(f"{f'lam {lam:g}':>12}" for lam in stiffness)
        lines = [f"{'collocation on':<20}{'order':>6}{'stage order':>13}{head}   (slopes)"]
        for name, order, stage, by in self.rows:
            slopes = "".join(f"{m.slope:>12.2f}" for _, m in by)
            lines.append(f"{name:<20}{order:>6}{stage:>13}{slopes}")
        return "\n".join(lines)

    def plot(self, path: str | Path) -> None:
        """Error against steps, a panel a rule, a line a stiffness; .pdf, .svg or .png."""
        look = styles([f"{lam:g}" for lam, _ in self.rows[0][3]])
        titles = [f"{name}: order {p}, stage order {q}" for name, p, q, _ in self.rows]
        command = f"quadflow study order-reduction --out {Path(path).name}"
        title = "Order reduction on y' = λ(y - cos t) - sin t"
        with Panels(path, titles, title, command, log="xy") as panels:
            for (_, _, _, by), axis in zip(self.rows, panels.axes.values(), strict=True):
                for lam, m in by:
                    style = look[f"{lam:g}"]
                    axis.plot(m.steps, m.errors, markersize=4, label=f"λ = {lam:g}", **style)
                    label_end(axis, m.steps[-1], m.errors[-1], f"{m.slope:.1f}", style["color"])
                axis.margins(x=0.12)
            panels.label("number of equal steps", "relative error at t = 10 (numbers: slopes)")


def order_reduction(
    rules: Sequence[qf.QuadratureRule] = RULES,
    stiffness: Sequence[float] = STIFFNESS,
    steps: Sequence[int] = STEPS,
    *,
    digits: int = 30,
    progress: Callable[[], None] | None = None,
) -> OrderReduction:
    """Measure implicit collocation, its equations solved to the last of `digits` digits.

    On y' = lam (y - cos t) - sin t the solution is cos t whatever lam is; when |lam| h is large the
    slope is no longer the order d+1, which describes h -> 0, but about the stage order n, or n+1
    where errors of neighbouring steps cancel (Gauss with odd n, on an even number of steps).

    Args:
        rules: with n nodes each. stiffness: values of lam, negative. steps: numbers of equal steps
            on [0, 10], at least three. progress: called after every solve.

    Ctrl-C ends it with the rules that are finished.

    Source: Prothero & Robinson 1974; Hairer & Wanner, Solving ODEs II, section IV.15.
    """
    rows: list[RuleSlopes] = []
    for rule in rules:
        by = []
        for lam in stiffness:
            problem = get_problem("prothero-robinson", lam=lam)
            method = ImplicitCollocation(rule)
            by.append(
                (lam, measured_order(method, problem, steps, digits=digits, progress=progress))
            )
        if any(m.interrupted for _, m in by):
            if not rows:
                raise KeyboardInterrupt
            break
        rows.append((f"{rule.family}-{rule.n}", rule.degree + 1, rule.n, tuple(by)))
    return OrderReduction(tuple(rows))
