"""DETEST: the 25 nonstiff problems that solvers have been compared on since 1972, all on [0, 20].

Hull, Enright, Fellen & Sedgwick, Comparing numerical methods for ordinary differential equations,
SIAM J. Numer. Anal. 9 (1972); the later collection of Enright & Pryce (ACM TOMS 13, 1987) states
them in the same way. A: single equations, B: small systems, C: moderate systems, D: orbits, E:
higher order equations. Nineteen have closed forms.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...exact.multiprecision import multiprecision as mp
from ..problem import Problem, RightHandSide, register_problem, vector
from .mechanics import euler_body, kepler, outer_planets
from .oscillators import van_der_pol

_SETS = ("nonstiff", "detest")
_SOURCE = "Hull, Enright, Fellen & Sedgwick 1972, problem"


Formulas = tuple[RightHandSide, Callable[[Any], Sequence[Any]] | None]
"""Right-hand side and exact solution; None where there is no formula for it."""


def _detest(
    label: str,
    statement: str,
    y0: Sequence[float],
    invariants: Mapping[str, Callable[[Sequence[Any], Any], Any]] | None = None,
    end: Sequence[float] | None = None,
) -> Callable[[Callable[[], Formulas]], Callable[[], Problem]]:
    """A decorator that enters the problem of a function's formulas in the registry."""
    name = f"detest-{label.lower()}"

    def enter(formulas: Callable[[], Formulas]) -> Callable[[], Problem]:
        @register_problem(name)
        @functools.wraps(formulas)
        def make() -> Problem:
            rhs, exact = formulas()
            return Problem(
                name,
                statement,
                f"{_SOURCE} {label}",
                rhs,
                vector(*y0),
                (0.0, 20.0),
                end=None if end is None else vector(*end),
                exact=exact,
                invariants=invariants or {},
                sets=_SETS,
            )

        return make

    return enter


def _total(y: Sequence[Any], m: Any) -> Any:
    return sum(y[1:], y[0])


# -- A: single equations -----------------------------------------------------------------------


@_detest("A1", "y' = -y", [1.0])
def a1() -> Formulas:
    """The negative exponential."""
    return lambda t, y, m: (-y[0],), lambda t: (mp().exp(-t),)


@_detest("A2", "y' = -y^3 / 2", [1.0])
def a2() -> Formulas:
    """A special case of the Riccati equation."""
    return lambda t, y, m: (-y[0] * y[0] * y[0] / 2,), lambda t: (1 / mp().sqrt(t + 1),)


@_detest("A3", "y' = y cos t", [1.0])
def a3() -> Formulas:
    """An oscillatory problem."""
    return lambda t, y, m: (y[0] * m.cos(t),), lambda t: (mp().exp(mp().sin(t)),)


@_detest("A4", "y' = y/4 (1 - y/20)", [1.0])
def a4() -> Formulas:
    """A logistic curve."""
    return lambda t, y, m: (y[0] / 4 * (1 - y[0] / 20),), lambda t: (
        20 / (1 + 19 * mp().exp(-t / 4)),
    )


@_detest("A5", "y' = (y - t)/(y + t)", [4.0])
def a5() -> Formulas:
    """A spiral curve: r = 4 exp(pi/2 - angle), where t = r cos(angle) and y = r sin(angle)."""

    def exact(t: Any) -> Sequence[Any]:
        m = mp()

        def radius(angle: Any) -> Any:
            return 4 * m.exp(m.pi / 2 - angle)

        def excess(angle: Any) -> Any:
            return radius(angle) * m.cos(angle) - t

        angle = m.findroot(excess, (-m.pi / 4, m.pi / 2 + 0.1), solver="anderson")
        return (radius(angle) * m.sin(angle),)

    return lambda t, y, m: ((y[0] - t) / (y[0] + t),), exact


# -- B: small systems --------------------------------------------------------------------------


def _of_populations(y: Sequence[Any], m: Any) -> Any:
    return y[0] - m.log(y[0]) + 2 * (y[1] - m.log(y[1]))


@_detest(
    "B1",
    "y1' = 2 (y1 - y1 y2), y2' = -(y2 - y1 y2)",
    [1.0, 3.0],
    {"y1 - log y1 + 2 (y2 - log y2)": _of_populations},
    end=[0.6761876008576606, 0.18608160996400297],
)
def b1() -> Formulas:
    """The growth of two conflicting populations."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return 2 * y[0] * (1 - y[1]), -y[1] * (1 - y[0])

    return rhs, None


@_detest(
    "B2", "y1' = -y1 + y2, y2' = y1 - 2 y2 + y3, y3' = y2 - y3", [2.0, 0.0, 1.0], {"mass": _total}
)
def b2() -> Formulas:
    """A linear chemical reaction."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return -y[0] + y[1], y[0] - 2 * y[1] + y[2], y[1] - y[2]

    def exact(t: Any) -> Sequence[Any]:
        # modes (1, 1, 1), (1, 0, -1), (1, -2, 1) with rates 0, -1, -3
        slow, fast = mp().exp(-t) / 2, mp().exp(-3 * t) / 2
        return 1 + slow + fast, 1 - 2 * fast, 1 - slow + fast

    return rhs, exact


@_detest("B3", "y1' = -y1, y2' = y1 - y2^2, y3' = y2^2", [1.0, 0.0, 0.0], {"mass": _total})
def b3() -> Formulas:
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

    return rhs, exact


@_detest(
    "B4",
    "y1' = -y2 - y1 y3/r, y2' = y1 - y2 y3/r, y3' = y1/r, r^2 = y1^2 + y2^2",
    [3.0, 0.0, 0.0],
    {"y3 - y2/r": lambda y, m: y[2] - y[1] / m.sqrt(y[0] * y[0] + y[1] * y[1])},
)
def b4() -> Formulas:
    """An integral surface of a torus."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        r = m.sqrt(y[0] * y[0] + y[1] * y[1])
        return -y[1] - y[0] * y[2] / r, y[0] - y[1] * y[2] / r, y[0] / r

    def exact(t: Any) -> Sequence[Any]:
        sin, cos = mp().sin(t), mp().cos(t)
        return (2 + cos) * cos, (2 + cos) * sin, sin

    return rhs, exact


def _borrowed(label: str, make: Callable[[], Problem]) -> None:
    """Enter a problem that the library has under another name."""
    name = f"detest-{label.lower()}"

    @register_problem(name)
    def renamed() -> Problem:
        known = make()
        source = f"{_SOURCE} {label}; {known.source}"
        return dataclasses.replace(known, name=name, source=source, parameters={}, sets=_SETS)


# Euler's equations of motion of a rigid body without external forces
_borrowed("B5", euler_body)


# -- C: moderate systems -----------------------------------------------------------------------


@_detest(
    "C1", "y1' = -y1, yi' = y(i-1) - yi (i = 2..9), y10' = y9", [1.0] + [0.0] * 9, {"mass": _total}
)
def c1() -> Formulas:
    """A radioactive decay chain with equal rates: Poisson probabilities."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return (-y[0], *(a - b for a, b in itertools.pairwise(y[:9])), y[8])

    def exact(t: Any) -> Sequence[Any]:
        first = [mp().exp(-t) * t**k / math.factorial(k) for k in range(9)]
        return (*first, 1 - sum(first))

    return rhs, exact


@_detest(
    "C2",
    "y1' = -y1, yi' = (i-1) y(i-1) - i yi (i = 2..9), y10' = 9 y9",
    [1.0] + [0.0] * 9,
    {"mass": _total},
)
def c2() -> Formulas:
    """A radioactive decay chain with growing rates: geometric probabilities."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return (-y[0], *(k * y[k - 1] - (k + 1) * y[k] for k in range(1, 9)), 9 * y[8])

    def exact(t: Any) -> Sequence[Any]:
        left = mp().exp(-t)
        return (*(left * (1 - left) ** k for k in range(9)), (1 - left) ** 9)

    return rhs, exact


def _heat(n: int) -> Callable[[], Formulas]:
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

    def formulas() -> Formulas:
        return rhs, exact

    formulas.__doc__ = f"The heat equation by the method of lines, {n} points."
    return formulas


for _label, _n in (("C3", 10), ("C4", 51)):
    _statement = f"yi' = y(i-1) - 2 yi + y(i+1) with y0 = y{_n + 1} = 0, i = 1..{_n}"
    _detest(_label, _statement, [1.0] + [0.0] * (_n - 1))(_heat(_n))


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


_planets, _planets_start, _planets_kept = outer_planets()


@_detest(
    "C5",
    "r_i'' = G (-(m0 + m_i) r_i/|r_i|^3 + sum_{j != i} m_j ((r_j - r_i)/|r_j - r_i|^3 - "
    "r_j/|r_j|^3)), i = 1..5, r in the frame of the sun",
    _planets_start.tolist(),
    _planets_kept,
    end=_PLANETS_END,
)
def c5() -> Formulas:
    """Five outer planets about the sun, positions (15) and then velocities (15)."""
    return _planets, None


# -- D: orbits ---------------------------------------------------------------------------------


# Kepler orbits of these eccentricities
for _k, _e in enumerate((0.1, 0.3, 0.5, 0.7, 0.9), start=1):
    _borrowed(f"D{_k}", functools.partial(kepler, _e))


# -- E: higher order equations -----------------------------------------------------------------


@_detest(
    "E1",
    "y'' = -(y'/(t + 1) + (1 - 0.25/(t + 1)^2) y), y = J_{1/2}(t + 1)",
    [0.6713967071418031, 0.09540051444747453],
)
def e1() -> Formulas:
    """Bessel's equation of order one half, shifted by one."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        x = t + 1
        return y[1], -(y[1] / x + (1 - 0.25 / (x * x)) * y[0])

    def exact(t: Any) -> Sequence[Any]:
        m = mp()
        x = t + 1
        size = m.sqrt(2 / (m.pi * x))
        return size * m.sin(x), size * (m.cos(x) - m.sin(x) / (2 * x))

    return rhs, exact


# Van der Pol's equation
_borrowed("E2", van_der_pol)


@_detest(
    "E3",
    "y'' = y^3/6 - y + 2 sin(2.78535 t)",
    [0.0, 0.0],
    end=[-0.10041788586472507, 0.2411400132095934],
)
def e3() -> Formulas:
    """Duffing's equation."""

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return y[1], y[0] * y[0] * y[0] / 6 - y[0] + 2 * m.sin(2.78535 * t)

    return rhs, None


@_detest("E4", "y'' = 0.032 - 0.4 y'^2", [30.0, 0.0])
def e4() -> Formulas:
    """A falling body with air resistance."""

    def exact(t: Any) -> Sequence[Any]:
        m = mp()
        pull, drag = m.mpf(0.032), m.mpf(0.4)
        rate = m.sqrt(pull * drag)
        return 30 + m.log(m.cosh(rate * t)) / drag, m.sqrt(pull / drag) * m.tanh(rate * t)

    return lambda t, y, m: (y[1], 0.032 - 0.4 * y[1] * y[1]), exact


@_detest("E5", "y'' = sqrt(1 + y'^2)/(25 - t)", [0.0, 0.0])
def e5() -> Formulas:
    """A linear pursuit."""

    def exact(t: Any) -> Sequence[Any]:
        left = 25 - t
        return (
            12.5 * mp().log(25 / left) - (625 - left * left) / 100,
            (25 / left - left / 25) / 2,
        )

    return lambda t, y, m: (y[1], m.sqrt(1 + y[1] * y[1]) / (25 - t)), exact
