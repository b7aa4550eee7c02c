"""Bodies in motion.

Exact solutions and end points are those of the float64 initial state and float64 constants, so that
a solver that makes no error at all shows none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from ...exact.multiprecision import multiprecision as mp
from ..problem import KnownEvent, Problem, register_problem, vector
from .checks import real


@register_problem("kepler")
def kepler(eccentricity: float = 0.6) -> Problem:
    """The planar two-body problem from pericentre, over t in [0, 20] (period 2 pi).

    Raises:
        ValueError: eccentricity outside [0, 1).
    """
    e = real("kepler", "eccentricity", eccentricity, least=0, below=1)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        square = y[0] * y[0] + y[1] * y[1]
        cube = square * m.sqrt(square)
        return y[2], y[3], -y[0] / cube, -y[1] / cube

    def whole_array(t: Any, y: Any, m: Any) -> Any:
        place = y[..., :2]
        square = (place * place).sum(-1)[..., None]
        return m.concatenate((y[..., 2:], place / (-square * m.sqrt(square))), -1)

    near, speed = 1 - e, math.sqrt((1 + e) / (1 - e))

    def orbit() -> tuple[Any, Any, Any]:
        # eccentricity, half axis and mean motion of the orbit through the rounded initial state
        ecc = mp().mpf(near) * mp().mpf(speed) ** 2 - 1
        axis = near / (1 - ecc)
        return ecc, axis, 1 / mp().sqrt(axis) ** 3

    def exact(t: Any) -> Sequence[Any]:
        m = mp()
        ecc, axis, motion = orbit()
        mean = motion * t
        angle = mean + ecc * m.sign(m.sin(mean)) * 0.85
        for _ in range(200):
            change = (angle - ecc * m.sin(angle) - mean) / (1 - ecc * m.cos(angle))
            angle -= change
            if abs(change) <= abs(angle) * m.eps:
                break
        root, bottom = m.sqrt(1 - ecc**2), 1 - ecc * m.cos(angle)
        return (
            axis * (m.cos(angle) - ecc),
            axis * root * m.sin(angle),
            -axis * motion * m.sin(angle) / bottom,
            axis * motion * root * m.cos(angle) / bottom,
        )

    with mp().workdps(30):
        half_period = float(mp().pi / orbit()[2])
    return Problem(
        "kepler",
        "x'' = -x / r^3, y'' = -y / r^3, r^2 = x^2 + y^2, from (1 - e, 0), "
        f"(0, sqrt((1 + e)/(1 - e))), e = {e:g}",
        "Hairer, Lubich & Wanner, Geometric Numerical Integration, I.2; Kepler's equation",
        rhs,
        vector(near, 0.0, 0.0, speed),
        (0.0, 20.0),
        exact=exact,
        invariants={
            "energy": lambda y, m: (
                (y[2] * y[2] + y[3] * y[3]) / 2 - 1 / m.sqrt(y[0] * y[0] + y[1] * y[1])
            ),
            "angular momentum": lambda y, m: y[0] * y[3] - y[1] * y[2],
        },
        event=KnownEvent(lambda t, y, m: y[1], half_period, 1.0, 5.0),
        parameters={"eccentricity": e},
        sets=("nonstiff", "mechanics"),
        vector=whole_array,
    )


@register_problem("euler-body")
def euler_body(m: float = 0.51) -> Problem:
    """Euler's equations of a free rigid body, scaled: the Jacobi functions sn, cn, dn of modulus m.

    Over t in [0, 20], from (0, 1, 1).

    Raises:
        ValueError: m (the parameter k^2) outside [0, 1).
    """
    square = real("euler-body", "m", m, least=0, below=1)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return y[1] * y[2], -y[0] * y[2], -square * y[0] * y[1]

    def exact(t: Any) -> Sequence[Any]:
        return tuple(mp().ellipfun(kind, u=t, m=mp().mpf(square)) for kind in ("sn", "cn", "dn"))

    return Problem(
        "euler-body",
        f"y1' = y2 y3, y2' = -y1 y3, y3' = -m y1 y2, m = {square:g}",
        "Hull, Enright, Fellen & Sedgwick 1972, problem B5; Jacobi elliptic functions",
        rhs,
        vector(0.0, 1.0, 1.0),
        (0.0, 20.0),
        exact=exact,
        invariants={
            "angular momentum squared": lambda y, m: y[0] * y[0] + y[1] * y[1],
            "energy": lambda y, m: square * y[0] * y[0] + y[2] * y[2],
        },
        parameters={"m": square},
        sets=("nonstiff", "mechanics"),
    )


def _arenstorf(name: str, speed: float, period: float, end: Sequence[float], what: str) -> Problem:
    moon = 0.012277471

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        earth = 1 - moon
        left, right = y[0] + moon, y[0] - earth
        d1 = left * left + y[1] * y[1]
        d2 = right * right + y[1] * y[1]
        d1, d2 = d1 * m.sqrt(d1), d2 * m.sqrt(d2)
        return (
            y[2],
            y[3],
            y[0] + 2 * y[3] - earth * left / d1 - moon * right / d2,
            y[1] - 2 * y[2] - earth * y[1] / d1 - moon * y[1] / d2,
        )

    def jacobi(y: Sequence[Any], m: Any) -> Any:
        earth = 1 - moon
        left, right = y[0] + moon, y[0] - earth
        square = y[1] * y[1]
        potential = earth / m.sqrt(left * left + square) + moon / m.sqrt(right * right + square)
        return y[0] * y[0] + square + 2 * potential - y[2] * y[2] - y[3] * y[3]

    return Problem(
        name,
        "x'' = x + 2 y' - (1 - mu) (x + mu)/D1 - mu (x - 1 + mu)/D2, y'' = y - 2 x' - (1 - mu) y/D1"
        " - mu y/D2, D1 = ((x + mu)^2 + y^2)^(3/2), D2 = ((x - 1 + mu)^2 + y^2)^(3/2), "
        f"mu = {moon}, from (0.994, 0), (0, {speed})",
        f"Arenstorf 1963; Hairer, Norsett & Wanner, Solving ODEs I, II.0 ({what}); the exact orbit "
        "closes, the end given is that of the float64 initial state",
        rhs,
        vector(0.994, 0.0, 0.0, speed),
        (0.0, period),
        vector(*end),
        invariants={"Jacobi constant": jacobi},
        sets=("nonstiff", "mechanics"),
    )


@register_problem("arenstorf")
def arenstorf() -> Problem:
    """A periodic orbit of a satellite around Earth and Moon, one period of 17.065."""
    return _arenstorf(
        "arenstorf",
        -2.00158510637908252240537862224,
        17.0652165601579625588917206249,
        (0.9939999999999088, -3.0309430229824185e-13, -4.9285365810550526e-11, -2.00158510639327),
        "long orbit",
    )


@register_problem("arenstorf-short")
def arenstorf_short() -> Problem:
    """The second classical periodic orbit around Earth and Moon, one period of 11.124."""
    return _arenstorf(
        "arenstorf-short",
        -2.0317326295573368357302057924,
        11.124340337266085134999734047,
        (0.9939999999999338, -2.2444814217098002e-13, -3.673380288743887e-11, -2.031732629567483),
        "short orbit",
    )


_SEVEN_STARS = (
    *(3.0, 3.0, -1.0, -3.0, 2.0, -2.0, 2.0),
    *(3.0, -3.0, 2.0, 0.0, 0.0, -4.0, 4.0),
    *(0.0, 0.0, 0.0, 0.0, 0.0, 1.75, -1.5),
    *(0.0, 0.0, 0.0, -1.25, 1.0, 0.0, 0.0),
)
_SEVEN_STARS_END = (
    *(0.37061391439705127, 3.237284092057233, -3.2225590324183235, 0.6597091455775308),
    *(0.342558170715658, 1.5621721014006311, -0.7003092922212495, -3.943437585517392),
    *(-3.27138097397255, 5.225081843456544, -2.5906124349774693, 1.1982136933922747),
    *(-0.24296823449358235, 1.0914492404289797, 3.4170038063143147, 1.3545845016255011),
    *(-2.5900655978107756, 2.025053734714241, -1.155815100160449, -0.8072988170223022),
    *(0.5952396354208719, -3.7412449612340084, 0.3773459685750629, 0.9386858869551079),
    *(0.36679222272005696, -0.3474046353808494, 2.344915448180937, -1.947020434263292),
)


@register_problem("pleiades")
def pleiades() -> Problem:
    """Seven stars in the plane with masses 1 to 7 and near collisions, over t in [0, 3].

    State (x1..x7, y1..y7, x1'..x7', y1'..y7').
    """
    n = 7
    mass = tuple(range(1, n + 1))

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        pulls: list[list[Any]] = [[0] * n, [0] * n]
        for i, j in combinations(range(n), 2):
            dx, dy = y[j] - y[i], y[n + j] - y[n + i]
            square = dx * dx + dy * dy
            cube = square * m.sqrt(square)
            for pull, d in zip(pulls, (dx / cube, dy / cube), strict=True):
                pull[i] = pull[i] + mass[j] * d
                pull[j] = pull[j] - mass[i] * d
        return (*y[2 * n :], *pulls[0], *pulls[1])

    # [..., k, i, j]: coordinate k of star j seen from star i; the diagonal of ones keeps a star's
    # distance to itself from being divided by
    constants = np.array(mass, dtype=float), np.eye(n)
    torch_constants = tuple(torch.from_numpy(x) for x in constants)

    def whole_array(t: Any, y: Any, m: Any) -> Any:
        masses, one = torch_constants if m is torch else constants
        place = y[..., : 2 * n].reshape((*y.shape[:-1], 2, n))
        gap = place[..., None, :] - place[..., :, None]
        square = (gap * gap).sum(-3) + one
        pull = masses / (square * m.sqrt(square))
        moved = (gap * pull[..., None, :, :]).sum(-1).reshape((*y.shape[:-1], 2 * n))
        return m.concatenate((y[..., 2 * n :], moved), -1)

    def energy(y: Sequence[Any], m: Any) -> Any:
        total: Any = 0
        for i in range(n):
            total = total + mass[i] * (y[2 * n + i] ** 2 + y[3 * n + i] ** 2) / 2
            for j in range(i + 1, n):
                gap = m.sqrt((y[i] - y[j]) ** 2 + (y[n + i] - y[n + j]) ** 2)
                total = total - mass[i] * mass[j] / gap
        return total

    return Problem(
        "pleiades",
        "x_i'' = sum_j m_j (x_j - x_i)/r_ij^3, y_i'' = sum_j m_j (y_j - y_i)/r_ij^3, m_i = i, "
        "i = 1..7",
        "Hairer, Norsett & Wanner, Solving ODEs I, II.10; Test Set for IVP Solvers",
        rhs,
        vector(*_SEVEN_STARS),
        (0.0, 3.0),
        vector(*_SEVEN_STARS_END),
        invariants={
            "energy": energy,
            "momentum in x": lambda y, m: sum(
                k * v for k, v in zip(mass, y[2 * n :], strict=False)
            ),
            "momentum in y": lambda y, m: sum(k * v for k, v in zip(mass, y[3 * n :], strict=True)),
            "angular momentum": lambda y, m: sum(
                mass[i] * (y[i] * y[3 * n + i] - y[n + i] * y[2 * n + i]) for i in range(n)
            ),
        },
        sets=("nonstiff", "mechanics"),
        vector=whole_array,
    )


@register_problem("henon-heiles")
def henon_heiles() -> Problem:
    """A star in the field of a galaxy, energy 0.132 (order and chaos coexist), t in [0, 50]."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        q1, q2, p1, p2 = y
        return p1, p2, -q1 * (1 + 2 * q2), q2 * (q2 - 1) - q1 * q1

    return Problem(
        "henon-heiles",
        "q1'' = -q1 - 2 q1 q2, q2'' = -q2 - q1^2 + q2^2",
        "Henon & Heiles 1964; Hairer, Lubich & Wanner, Geometric Numerical Integration, I.3",
        rhs,
        vector(0.0, 0.125, 0.5, 0.0),
        (0.0, 50.0),
        vector(0.1605831316402258, 0.4284264263636217, 0.2510922011428259, -0.1492271733705902),
        invariants={
            "energy": lambda y, m: (
                (y[0] * y[0] + y[1] * y[1] + y[2] * y[2] + y[3] * y[3]) / 2
                + y[0] * y[0] * y[1]
                - y[1] * y[1] * y[1] / 3
            )
        },
        sets=("nonstiff", "mechanics"),
    )


PLANETS = (
    *(3.42947415189, 3.35386959711, 1.35494901715, 6.64145542550, 5.97156957878, 2.18231499728),
    *(11.2630437207, 14.6952576794, 6.27960525067, -30.1552268759, 1.65699966404, 1.43785752721),
    *(-21.1238353380, 28.4465098142, 15.3882659679),
    *(-0.557160570446, 0.505696783289, 0.230578543901, -0.415570776342, 0.365682722812),
    *(0.169143213293, -0.325325669158, 0.189706021964, 0.0877265322780, -0.0240476254170),
    *(-0.287659532608, -0.117219543175, -0.176860753121, -0.216393453025, -0.0148647893090),
)
"""Jupiter to Pluto: positions (astronomical units), then velocities (time in units of 100 days)."""


def outer_planets() -> tuple[
    Callable[[Any, Sequence[Any], Any], Sequence[Any]], torch.Tensor, dict[str, Any]
]:
    """Right-hand side, initial state and invariants of five planets in the frame of the sun."""
    gravity, sun = 2.95912208286, 1.00000597682
    mass = (
        *(0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449),
        0.00000277777777778,
    )

    def cube(d: Sequence[Any], m: Any) -> Any:
        square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        return square * m.sqrt(square)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        place = [y[3 * i : 3 * i + 3] for i in range(5)]
        solar = [[x / r for x in p] for p in place for r in [cube(p, m)]]
        pull = [[-(sun + mass[i]) * x for x in solar[i]] for i in range(5)]
        for i, j in combinations(range(5), 2):
            gap = [b - a for a, b in zip(place[i], place[j], strict=True)]
            third = cube(gap, m)
            for k in range(3):
                pull[i][k] = pull[i][k] + mass[j] * (gap[k] / third - solar[j][k])
                pull[j][k] = pull[j][k] - mass[i] * (gap[k] / third + solar[i][k])
        return (*y[15:], *(gravity * x for p in pull for x in p))

    # The sun's own motion follows from the rest of the centre of mass.
    total = sun + sum(mass)

    def weighed(parts: Sequence[Any], axis: int) -> Any:
        return sum(mass[i] * parts[3 * i + axis] for i in range(5))

    def energy(y: Sequence[Any], m: Any) -> Any:
        value: Any = 0
        for k in range(3):
            value = value - weighed(y[15:], k) ** 2 / (2 * total)
        for i in range(5):
            p, v = y[3 * i : 3 * i + 3], y[15 + 3 * i : 18 + 3 * i]
            value = value + mass[i] * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) / 2
            value = value - gravity * sun * mass[i] / m.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2)
            for j in range(i + 1, 5):
                q = y[3 * j : 3 * j + 3]
                square = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2
                value = value - gravity * mass[i] * mass[j] / m.sqrt(square)
        return value

    def spin(axis: int) -> Callable[[Sequence[Any], Any], Any]:
        a, b = (axis + 1) % 3, (axis + 2) % 3

        def momentum(y: Sequence[Any], m: Any) -> Any:
            place, speed = y[:15], y[15:]
            own = sum(
                mass[i]
                * (place[3 * i + a] * speed[3 * i + b] - place[3 * i + b] * speed[3 * i + a])
                for i in range(5)
            )
            frame = weighed(place, a) * weighed(speed, b) - weighed(place, b) * weighed(speed, a)
            return own - frame / total

        return momentum

    invariants: dict[str, Any] = {"energy": energy}
    for k, axis in enumerate("xyz"):
        invariants[f"angular momentum about {axis}"] = spin(k)
    return rhs, vector(*PLANETS), invariants
