"""Oscillations and strange attractors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..problem import Problem, register_problem, stored_end, vector
from .checks import real


def relaxation_oscillator(name: str, mu: float, end: float) -> Problem:
    """Van der Pol's equation over t in [0, end] from (2, 0)."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return y[1], mu * (1 - y[0] * y[0]) * y[1] - y[0]

    return Problem(
        name,
        f"x'' = mu (1 - x^2) x' - x, mu = {mu:g}",
        "van der Pol 1926; Hairer, Norsett & Wanner, Solving ODEs I, I.16; Hairer & Wanner, II, "
        "IV.10; Test Set for IVP Solvers",
        rhs,
        vector(2.0, 0.0),
        (0.0, end),
        end=stored_end(f"van-der-pol:mu={mu}:end={end}"),
        stiff=mu >= 50,
        parameters={"mu": mu},
        sets=("stiff",) if mu >= 50 else ("nonstiff",),
    )


@register_problem("van-der-pol")
def van_der_pol(mu: float = 1.0) -> Problem:
    """Van der Pol's oscillator from (2, 0), over t in [0, 20].

    Raises:
        ValueError: mu negative.
    """
    return relaxation_oscillator("van-der-pol", real("van-der-pol", "mu", mu, least=0), 20.0)


@register_problem("lorenz")
def lorenz() -> Problem:
    """Lorenz's attractor with the classical (10, 28, 8/3), from (1, 1, 1), over t in [0, 5]."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return 10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 * y[2] / 3

    return Problem(
        "lorenz",
        "x' = 10 (y - x), y' = x (28 - z) - y, z' = x y - 8/3 z",
        "Lorenz 1963; Hairer, Norsett & Wanner, Solving ODEs I, I.16",
        rhs,
        vector(1.0, 1.0, 1.0),
        (0.0, 5.0),
        stored_end("lorenz"),
        sets=("nonstiff", "chaotic"),
    )
