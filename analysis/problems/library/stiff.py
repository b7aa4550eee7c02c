"""Stiff problems that are no chemistry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ...exact.multiprecision import multiprecision as mp
from ..problem import Problem, register_problem, vector
from .checks import real
from .oscillators import relaxation_oscillator


@register_problem("prothero-robinson")
def prothero_robinson(lam: float = -1e6) -> Problem:
    """y' = lam (y - cos t) - sin t with solution cos t: shows order reduction, over t in [0, 10].

    Raises:
        ValueError: lam not negative (the solution would be unstable).
    """
    rate = real("prothero-robinson", "lam", lam, below=0)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return (rate * (y[0] - m.cos(t)) - m.sin(t),)

    return Problem(
        "prothero-robinson",
        f"y' = lam (y - cos t) - sin t, lam = {rate:g}",
        "Prothero & Robinson 1974; Hairer & Wanner, Solving ODEs II, IV.15; exact cos t",
        rhs,
        vector(1.0),
        (0.0, 10.0),
        exact=lambda t: (mp().cos(t),),
        stiff=rate <= -100,
        parameters={"lam": rate},
        sets=("stiff" if rate <= -100 else "nonstiff",),
    )


@register_problem("van-der-pol-stiff")
def van_der_pol_stiff() -> Problem:
    """Van der Pol's relaxation oscillation with mu = 1000, over t in [0, 2000]."""
    return dataclasses.replace(
        relaxation_oscillator("van-der-pol-stiff", 1e3, 2000.0), parameters={}
    )
