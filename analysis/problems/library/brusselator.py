"""The Brusselator with diffusion in one dimension, by the method of lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..problem import Problem, register_problem, stored_end, vector
from .checks import whole


@register_problem("brusselator")
def brusselator(points: int = 40) -> Problem:
    """Reaction and diffusion on `points` inner points of [0, 1], over t in [0, 10].

    State (u1, v1, u2, v2, ...), 2 * points components; stiff from 50 points on.

    Raises:
        ValueError: points outside 2 to 2000. TypeError: not an int.
    """
    n = whole("brusselator", "points", points, least=2, most=2000)
    diffusion = (n + 1) ** 2 / 50

    def reaction(u: Any, v: Any) -> tuple[Any, Any]:
        made = u * u * v
        return 1 + made - 4 * u, 3 * u - made

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        u, v = (1, *y[0::2], 1), (3, *y[1::2], 3)
        result: list[Any] = []
        for i in range(1, n + 1):
            for part, z in zip(reaction(u[i], v[i]), (u, v), strict=True):
                result.append(part + diffusion * (z[i - 1] - 2 * z[i] + z[i + 1]))
        return result

    def whole_array(t: Any, y: Any, m: Any) -> Any:
        edge = m.ones_like(y[..., :1])
        state = m.concatenate((edge, 3 * edge, y, edge, 3 * edge), -1)
        spread = diffusion * (state[..., :-4] - 2 * y + state[..., 4:])
        u, v = reaction(y[..., 0::2], y[..., 1::2])
        return spread + m.stack((u, v), -1).reshape(y.shape)

    return Problem(
        "brusselator",
        "u_i' = 1 + u_i^2 v_i - 4 u_i + a (u_{i-1} - 2 u_i + u_{i+1}), v_i' = 3 u_i - u_i^2 v_i + "
        "a (v_{i-1} - 2 v_i + v_{i+1}), a = (n + 1)^2 / 50, u = 1, v = 3 at the ends, from "
        f"u_i = 1 + sin(2 pi i/(n + 1)), v_i = 3, n = {n}",
        "Hairer & Wanner, Solving ODEs II, IV.1 and IV.10",
        rhs,
        vector(
            *(x for i in range(1, n + 1) for x in (1 + math.sin(2 * math.pi * i / (n + 1)), 3.0))
        ),
        (0.0, 10.0),
        stored_end(f"brusselator:points={n}"),
        stiff=n >= 50,
        parameters={"points": n},
        sets=("stiff" if n >= 50 else "nonstiff", "chemistry"),
        vector=whole_array,
    )
