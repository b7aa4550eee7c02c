"""DETEST: the 25 nonstiff problems that solvers have been compared on since 1972, all on [0, 20].

Hull, Enright, Fellen & Sedgwick, Comparing numerical methods for ordinary differential equations,
SIAM J. Numer. Anal. 9 (1972); the later collection of Enright & Pryce (ACM TOMS 13, 1987) states
them in the same way. A: single equations, B: small systems, C: moderate systems, D: orbits, E:
higher order equations. Nineteen have closed forms.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...exact.multiprecision import multiprecision as mp
from ..problem import Problem, RightHandSide, register_problem, vector
from .mechanics import euler_body, kepler, outer_planets
from .oscillators import van_der_pol

_SETS = ("nonstiff", "detest")


def _detest(
    label: str,
    statement: str,
    rhs: RightHandSide,
    y0: Sequence[float],
    exact: Callable[[Any], Sequence[Any]] | None = None,
    invariants: Mapping[str, Callable[[Sequence[Any], Any], Any]] | None = None,
    end: Sequence[float] | None = None,
) -> Problem:
    return Problem(
        f"detest-{label.lower()}",
        statement,
        f"Hull, Enright, Fellen & Sedgwick 1972, problem {label}",
        rhs,
        vector(*y0),
        (0.0, 20.0),
        end=None if end is None else vector(*end),
        exact=exact,
        invariants=invariants or {},
        sets=_SETS,
    )


def _total(y: Sequence[Any], m: Any) -> Any:
    return sum(y[1:], y[0])


# -- A: single equations -----------------------------------------------------------------------


@register_problem("detest-a1")
def a1() -> Problem:
    """The negative exponential."""
    return _detest("A1", "y' = -y", lambda t, y, m: (-y[0],), [1.0], lambda t: (mp().exp(-t),))


@register_problem("detest-a2")
def a2() -> Problem:
    """A special case of the Riccati equation."""
    return _detest(
        "A2",
        "y' = -y^3 / 2",
        lambda t, y, m: (-y[0] * y[0] * y[0] / 2,),
        [1.0],
        lambda t: (1 / mp().sqrt(t + 1),),
    )


@register_problem("detest-a3")
def a3() -> Problem:
    """An oscillatory problem."""
    return _detest(
        "A3",
        "y' = y cos t",
        lambda t, y, m: (y[0] * m.cos(t),),
        [1.0],
        lambda t: (mp().exp(mp().sin(t)),),
    )


@register_problem("detest-a4")
def a4() -> Problem:
    """A logistic curve."""
    return _detest(
        "A4",
        "y' = y/4 (1 - y/20)",
        lambda t, y, m: (y[0] / 4 * (1 - y[0] / 20),),
        [1.0],
        lambda t: (20 / (1 + 19 * mp().exp(-t / 4)),),
    )


@register_problem("detest-a5")
def a5() -> Problem:
    """A spiral curve: r = 4 exp(pi/2 - angle), where t = r cos(angle) and y = r sin(angle)."""

    def exact(t: Any) -> Sequence[Any]:
        m = mp()

        def radius(angle: Any) -> Any:
            return 4 * m.exp(m.pi / 2 - angle)

        def excess(angle: Any) -> Any:
            return radius(angle) * m.cos(angle) - t

        angle = m.findroot(excess, (-m.pi / 4, m.pi / 2 + 0.1), solver="anderson")
        return (radius(angle) * m.sin(angle),)

    return _detest(
        "A5", "y' = (y - t)/(y + t)", lambda t, y, m: ((y[0] - t) / (y[0] + t),), [4.0], exact
    )


# -- B: small systems --------------------------------------------------------------------------


@register_problem("detest-b1")
def b1() -> Problem:
    """The growth of two conflicting populations."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return 2 * y[0] * (1 - y[1]), -y[1] * (1 - y[0])

    def kept(y: Sequence[Any], m: Any) -> Any:
        return y[0] - m.log(y[0]) + 2 * (y[1] - m.log(y[1]))

    return _detest(
        "B1",
        "y1' = 2 (y1 - y1 y2), y2' = -(y2 - y1 y2)",
        rhs,
        [1.0, 3.0],
        end=[0.6761876008576606, 0.18608160996400297],
        invariants={"y1 - log y1 + 2 (y2 - log y2)": kept},
    )


@register_problem("detest-b2")
def b2() -> Problem:
    """A linear chemical reaction."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return -y[0] + y[1], y[0] - 2 * y[1] + y[2], y[1] - y[2]

    def exact(t: Any) -> Sequence[Any]:
        # modes (1, 1, 1), (1, 0, -1), (1, -2, 1) with rates 0, -1, -3
        slow, fast = mp().exp(-t) / 2, mp().exp(-3 * t) / 2
        return 1 + slow + fast, 1 - 2 * fast, 1 - slow + fast

    return _detest(
        "B2",
        "y1' = -y1 + y2, y2' = y1 - 2 y2 + y3, y3' = y2 - y3",
        rhs,
        [2.0, 0.0, 1.0],
        exact,
        {"mass": _total},
    )


@register_problem("detest-b3")
def b3() -> Problem:
    """A nonlinear chemical reaction; y2 by Bessel functions of 2 exp(-t/2)."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        square = y[1] * y[1]
        return -y[0], y[0] - square, square

    def exact(t: Any) -> Sequence[Any]:
        m = mp()
        # y2 = w'/w with w'' = exp(-t) w, a modified Bessel equation in x
        x, a, b = 2 * m.exp(-t / 2), m.besselk(1, 2), m.besseli(1, 2)
        slope = b * m.besselk(1, x) - a * m.besseli(1, x)
        second = x / 2 * slope / (a * m.besseli(0, x) + b * m.besselk(0, x))
        first = m.exp(-t)
        return first, second, 1 - first - second

    return _detest(
        "B3",
        "y1' = -y1, y2' = y1 - y2^2, y3' = y2^2",
        rhs,
        [1.0, 0.0, 0.0],
        exact,
        {"mass": _total},
    )


@register_problem("detest-b4")
def b4() -> Problem:
    """An integral surface of a torus."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        r = m.sqrt(y[0] * y[0] + y[1] * y[1])
        return -y[1] - y[0] * y[2] / r, y[0] - y[1] * y[2] / r, y[0] / r

    def exact(t: Any) -> Sequence[Any]:
        sin, cos = mp().sin(t), mp().cos(t)
        return (2 + cos) * cos, (2 + cos) * sin, sin

    return _detest(
        "B4",
        "y1' = -y2 - y1 y3/r, y2' = y1 - y2 y3/r, y3' = y1/r, r^2 = y1^2 + y2^2",
        rhs,
        [3.0, 0.0, 0.0],
        exact,
        {"y3 - y2/r": lambda y, m: y[2] - y[1] / m.sqrt(y[0] * y[0] + y[1] * y[1])},
    )


@register_problem("detest-b5")
def b5() -> Problem:
    """Euler's equations of motion of a rigid body without external forces."""
    return _renamed(euler_body(), "B5")


def _renamed(problem: Problem, label: str) -> Problem:
    return dataclasses.replace(
        problem,
        name=f"detest-{label.lower()}",
        source=f"Hull, Enright, Fellen & Sedgwick 1972, problem {label}; {problem.source}",
        parameters={},
        sets=_SETS,
    )


# -- C: moderate systems -----------------------------------------------------------------------


@register_problem("detest-c1")
def c1() -> Problem:
    """A radioactive decay chain with equal rates: Poisson probabilities."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return (-y[0], *(a - b for a, b in itertools.pairwise(y[:9])), y[8])

    def exact(t: Any) -> Sequence[Any]:
        first = [mp().exp(-t) * t**k / math.factorial(k) for k in range(9)]
        return (*first, 1 - sum(first))

    return _detest(
        "C1",
        "y1' = -y1, yi' = y(i-1) - yi (i = 2..9), y10' = y9",
        rhs,
        [1.0] + [0.0] * 9,
        exact,
        {"mass": _total},
    )


@register_problem("detest-c2")
def c2() -> Problem:
    """A radioactive decay chain with growing rates: geometric probabilities."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return (-y[0], *(k * y[k - 1] - (k + 1) * y[k] for k in range(1, 9)), 9 * y[8])

    def exact(t: Any) -> Sequence[Any]:
        left = mp().exp(-t)
        return (*(left * (1 - left) ** k for k in range(9)), (1 - left) ** 9)

    return _detest(
        "C2",
        "y1' = -y1, yi' = (i-1) y(i-1) - i yi (i = 2..9), y10' = 9 y9",
        rhs,
        [1.0] + [0.0] * 9,
        exact,
        {"mass": _total},
    )


def _heat(label: str, n: int) -> Problem:
    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        inner = (y[i - 1] - 2 * y[i] + y[i + 1] for i in range(1, n - 1))
        return (y[1] - 2 * y[0], *inner, y[n - 2] - 2 * y[n - 1])

    def exact(t: Any) -> Sequence[Any]:
        m = mp()
        sines = [m.sin(k * m.pi / (n + 1)) for k in range(2 * n + 2)]
        decay = [m.exp((2 * m.cos(k * m.pi / (n + 1)) - 2) * t) * sines[k] for k in range(n + 1)]
        return [
            2 * m.fdot((decay[k], sines[j * k % (2 * n + 2)]) for k in range(1, n + 1)) / (n + 1)
            for j in range(1, n + 1)
        ]

    return _detest(
        label,
        f"yi' = y(i-1) - 2 yi + y(i+1) with y0 = y{n + 1} = 0, i = 1..{n}",
        rhs,
        [1.0] + [0.0] * (n - 1),
        exact,
    )


@register_problem("detest-c3")
def c3() -> Problem:
    """The heat equation by the method of lines, 10 points."""
    return _heat("C3", 10)


@register_problem("detest-c4")
def c4() -> Problem:
    """The heat equation by the method of lines, 51 points."""
    return _heat("C4", 51)


# C5 at its end, a line for each planet: places, then velocities
_PLANETS_END = (
    *(-4.792730224323633, -2.4205507254490226, -0.9212509306015123),
    *(-4.217310404035214, 7.356202947498969, 3.223785985421211),
    *(4.0355594432622715, 17.19865528670555, 7.478910794233703),
    *(-29.987593263248442, -4.107310937550929, -0.9277008321754407),
    *(-24.42125302518483, 23.814590457465542, 14.920963069513588),
    *(0.3499208963064, -0.5748487687912803, -0.25516940208791444),
    *(-0.5237040978903326, -0.24930004635796632, -0.0804534164204447),
    *(-0.38752892373341097, 0.05648603288767891, 0.030236064721433413),
    *(0.04133856546712447, -0.2862393029841379, -0.11830324051362069),
    *(-0.15119864573592057, -0.24600688943187654, -0.03189687411323877),
)


@register_problem("detest-c5")
def c5() -> Problem:
    """Five outer planets about the sun, positions (15) and then velocities (15)."""
    rhs, y0, invariants = outer_planets()
    return _detest(
        "C5",
        "r_i'' = G (-(m0 + m_i) r_i/|r_i|^3 + sum_{j != i} m_j ((r_j - r_i)/|r_j - r_i|^3 - "
        "r_j/|r_j|^3)), i = 1..5, r in the frame of the sun",
        rhs,
        y0.tolist(),
        invariants=invariants,
        end=_PLANETS_END,
    )


# -- D: orbits ---------------------------------------------------------------------------------


def _orbit(label: str, eccentricity: float) -> Callable[[], Problem]:
    def make() -> Problem:
        return _renamed(kepler(eccentricity), label)

    make.__doc__ = f"A Kepler orbit of eccentricity {eccentricity}."
    return make


for _k, _e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=1):
    register_problem(f"detest-d{_k}")(_orbit(f"D{_k}", _e))


# -- E: higher order equations -----------------------------------------------------------------


@register_problem("detest-e1")
def e1() -> Problem:
    """Bessel's equation of order one half, shifted by one."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        x = t + 1
        return y[1], -(y[1] / x + (1 - 0.25 / (x * x)) * y[0])

    def exact(t: Any) -> Sequence[Any]:
        m = mp()
        x = t + 1
        size = m.sqrt(2 / (m.pi * x))
        return size * m.sin(x), size * (m.cos(x) - m.sin(x) / (2 * x))

    return _detest(
        "E1",
        "y'' = -(y'/(t + 1) + (1 - 0.25/(t + 1)^2) y), y = J_{1/2}(t + 1)",
        rhs,
        [0.6713967071418031, 0.09540051444747453],
        exact,
    )


@register_problem("detest-e2")
def e2() -> Problem:
    """Van der Pol's equation."""
    return _renamed(van_der_pol(), "E2")


@register_problem("detest-e3")
def e3() -> Problem:
    """Duffing's equation."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return y[1], y[0] * y[0] * y[0] / 6 - y[0] + 2 * m.sin(2.78535 * t)

    return _detest(
        "E3",
        "y'' = y^3/6 - y + 2 sin(2.78535 t)",
        rhs,
        [0.0, 0.0],
        end=[-0.10041788586472507, 0.2411400132095934],
    )


@register_problem("detest-e4")
def e4() -> Problem:
    """A falling body with air resistance."""

    def exact(t: Any) -> Sequence[Any]:
        m = mp()
        pull, drag = m.mpf(0.032), m.mpf(0.4)
        rate = m.sqrt(pull * drag)
        return 30 + m.log(m.cosh(rate * t)) / drag, m.sqrt(pull / drag) * m.tanh(rate * t)

    return _detest(
        "E4",
        "y'' = 0.032 - 0.4 y'^2",
        lambda t, y, m: (y[1], 0.032 - 0.4 * y[1] * y[1]),
        [30.0, 0.0],
        exact,
    )


@register_problem("detest-e5")
def e5() -> Problem:
    """A linear pursuit."""

    def exact(t: Any) -> Sequence[Any]:
        left = 25 - t
        return (
            12.5 * mp().log(25 / left) - (625 - left * left) / 100,
            (25 / left - left / 25) / 2,
        )

    return _detest(
        "E5",
        "y'' = sqrt(1 + y'^2)/(25 - t)",
        lambda t, y, m: (y[1], m.sqrt(1 + y[1] * y[1]) / (25 - t)),
        [0.0, 0.0],
        exact,
    )
