"""The Brusselator with diffusion in one dimension, by the method of lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..problem import Problem, register_problem, vector
from .checks import whole

# State at t = 10 on 40 points, from a 24-digit solve by `references.radau`
_END_40 = (
    *(0.9369133417207273, 3.0796044720685494, 0.8753478177973771, 3.1572375798620698),
    *(0.8166058767035983, 3.231181816529206, 0.7617026742485724, 3.3000705127606),
    *(0.7113385525204293, 3.362934900994192, 0.6659085742032655, 3.419204704148885),
    *(0.6255396330018463, 3.4686723648752706, 0.5901435466827412, 3.5114339997855617),
    *(0.559475370390303, 3.54781976924876, 0.5331887898514697, 3.5783238008661904),
    *(0.5108836288756002, 3.60354043400839, 0.49214334268791743, 3.624110368904077),
    *(0.47656243937135084, 3.6406778340936947, 0.46376501554148747, 3.6538582610524095),
    *(0.4534161556114103, 3.664215068764426, 0.4452280411086755, 3.672243816453503),
    *(0.4389624461989141, 3.6783619818393967, 0.43443100593163597, 3.6829028091069413),
    *(0.4314943283329292, 3.6861119397362963, 0.43006072969389686, 3.68814582843082),
    *(0.4300851230517996, 3.6890712250840423, 0.43156838300997086, 3.688865261850823),
    *(0.43455733547166087, 3.687415923591783, 0.4391453633568268, 3.6845229080900124),
    *(0.4454734618475598, 3.6798991098493152, 0.4537314022795206, 3.6731731981621945),
    *(0.46415845786391224, 3.6638940138032408, 0.47704289789284715, 3.6515377798651962),
    *(0.49271917177225455, 3.6355193992531327, 0.5115614013468671, 3.6152093617359147),
    *(0.5339715317327056, 3.5899579430707003, 0.5603603533550624, 3.559128340571923),
    *(0.5911197497572597, 3.522139998379944, 0.6265851415700536, 3.4785224399092822),
    *(0.6669883889032353, 3.4279782615395025, 0.7124035051815404, 3.3704514702947734),
    *(0.7626903314834086, 3.306194233650054, 0.8174443599690705, 3.235821910999888),
    *(0.8759632749557027, 3.1603439669004856, 0.9372412962019725, 3.081158324269585),
)


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
        vector(*_END_40) if n == 40 else None,
        stiff=n >= 50,
        parameters={"points": n},
        sets=("stiff" if n >= 50 else "nonstiff", "chemistry"),
        vector=whole_array,
    )
