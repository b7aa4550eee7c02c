"""Bodies in motion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..problems import Event, Problem, register_problem, vector


@register_problem("kepler")
def kepler(eccentricity: float = 0.6) -> Problem:
    """The planar two-body problem from pericentre, over t in [0, 20] (period 2 pi).

    Raises:
        ValueError: eccentricity outside [0, 1).
    """
    e = eccentricity
    if not 0 <= e < 1:
        raise ValueError(f"kepler: eccentricity must be in [0, 1), got {e!r}")

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        square = y[0] * y[0] + y[1] * y[1]
        cube = square * m.sqrt(square)
        return y[2], y[3], -y[0] / cube, -y[1] / cube

    speed = math.sqrt((1 + e) / (1 - e))

    def exact(t: Any) -> Sequence[Any]:
        from mpmath import mp

        ecc = mp.mpf(e)
        angle = mp.findroot(lambda x: x - ecc * mp.sin(x) - t, t + ecc * mp.sin(t))
        root, bottom = mp.sqrt(1 - ecc**2), 1 - ecc * mp.cos(angle)
        return (
            mp.cos(angle) - ecc,
            root * mp.sin(angle),
            -mp.sin(angle) / bottom,
            root * mp.cos(angle) / bottom,
        )

    return Problem(
        "kepler",
        "x'' = -x / r^3, y'' = -y / r^3, r^2 = x^2 + y^2",
        "Hairer, Lubich & Wanner, Geometric Numerical Integration, I.2; Kepler's equation",
        rhs,
        vector(1 - e, 0.0, 0.0, speed),
        (0.0, 20.0),
        exact=exact,
        invariants={
            "energy": lambda y, m: (
                (y[2] * y[2] + y[3] * y[3]) / 2 - 1 / m.sqrt(y[0] * y[0] + y[1] * y[1])
            ),
            "angular momentum": lambda y, m: y[0] * y[3] - y[1] * y[2],
        },
        event=Event(lambda t, y, m: y[1], math.pi, 1.0, 5.0),
        parameters={"eccentricity": e},
        sets=("nonstiff", "mechanics"),
    )
