"""Small problems that every study needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...exact.multiprecision import multiprecision as mp
from ..problem import KnownEvent, Problem, register_problem, stored_end, vector


@register_problem("lotka-volterra")
def lotka_volterra() -> Problem:
    """Predator and prey with rates (1.5, 1, 3, 1), from (1, 1), over t in [0, 10]."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        prey, predator = y
        return prey * (1.5 - predator), predator * (prey - 3)

    return Problem(
        "lotka-volterra",
        "x' = x (1.5 - y), y' = y (x - 3)",
        "Lotka 1925, Volterra 1926; end point from a 30-digit Taylor solve",
        rhs,
        vector(1.0, 1.0),
        (0.0, 10.0),
        stored_end("lotka-volterra"),
        invariants={
            "x - 3 log x + y - 1.5 log y": lambda y, m: (
                y[0] - 3 * m.log(y[0]) + y[1] - 1.5 * m.log(y[1])
            )
        },
        sets=("nonstiff",),
    )


@register_problem("driven")
def driven() -> Problem:
    """A nonlinear, non-autonomous pair with the exact solution (sin t, 1/(2 + cos t)), t in [0, 3].

    Every term of an order condition is alive in it, which linear or autonomous problems cannot say.
    """

    def coupling(t: Any, a: Any, b: Any, m: Any) -> tuple[Any, Any]:
        return a * b + m.sin(b + t), m.cos(a) * b - t * a * a

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        sin, cos = m.sin(t), m.cos(t)
        here, there = coupling(t, y[0], y[1], m), coupling(t, sin, 1 / (2 + cos), m)
        return cos + here[0] - there[0], sin / (2 + cos) ** 2 + here[1] - there[1]

    def exact(t: Any) -> Sequence[Any]:
        return mp().sin(t), 1 / (2 + mp().cos(t))

    return Problem(
        "driven",
        "u' = cos t + G1(t, u, w) - G1(t, p, q), w' = sin t / (2 + cos t)^2 + G2(t, u, w) - "
        "G2(t, p, q), (p, q) = (sin t, 1/(2 + cos t)), G = (u w + sin(w + t), w cos u - t u^2)",
        "manufactured solution (sin t, 1/(2 + cos t))",
        rhs,
        vector(0.0, 1 / 3),
        (0.0, 3.0),
        end_error=1e-15,  # y0 holds 1/3 to float64 only
        exact=exact,
        event=KnownEvent(lambda t, y, m: y[0] - 0.5, 2.6179938779914944, 1.6, 3.0),
        sets=("nonstiff",),
    )
