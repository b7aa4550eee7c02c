"""Ordinary problems in which something short happens, or happens late, or on an odd scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special

from ...problems.problem import Problem, RightHandSide
from .pieces import relaxed, solved_tightly, square_wave


@dataclass(frozen=True)
class ShortInput:
    """A problem and what its solution is at some times.

    problem: its `end` is left out. times: (T,), ascending, the start first and the end last.
    exact: (T, d). kind: of input, in a word or two.
    """

    problem: Problem
    kind: str
    times: np.ndarray
    exact: np.ndarray


_MAKERS: list[Callable[[], ShortInput]] = []


def short_inputs() -> list[ShortInput]:
    """The whole set, solutions worked out."""
    return [make() for make in _MAKERS]


def _add(
    name: str,
    kind: str,
    statement: str,
    rhs: RightHandSide,
    y0: float | Sequence[float],
    span: tuple[float, float],
    exact: Callable[[np.ndarray], Any] | None = None,
    *,
    breakpoints: Sequence[float] = (),
    longest: float = math.inf,
    looks: int = 25,
) -> None:
    """Enter a problem. exact: times (T,) -> (T,) or (T, d); without it the problem is solved
    tightly, see `solved_tightly`. looks: equal parts of the span at whose ends it is looked at."""

    def make() -> ShortInput:
        start = np.atleast_1d(np.array(y0, dtype=np.float64))
        times = np.linspace(*span, looks + 1)
        problem = Problem(name, statement, "this library", rhs, torch.from_numpy(start), span)
        if exact is None:
            states = solved_tightly(problem.f_numpy, start, times, breakpoints, longest)
        else:
            states = np.asarray(exact(times), dtype=np.float64).reshape(len(times), -1)
        return ShortInput(problem, kind, times, states)

    _MAKERS.append(make)


def _while(m: Any, t: Any, condition: Any, yes: Any, no: Any = 0.0) -> Any:
    """yes where the condition holds, else no, in the precision of t."""
    return m.where(condition, 0 * t + yes, 0 * t + no)


# -- pulse trains ----------------------------------------------------------------------------------


def _train(
    name: str, statement: str, rate: float, period: float, width: float, height: float,
    end: float, *, low: float = 0.0, start: float = 0.0, kind: str = "pulse train",
    looks: int = 25,
) -> None:  # fmt: skip
    edges, levels = square_wave(period, width, height, low, end)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return (_while(m, t, t % period < width, height, low) - rate * y[0],)

    _add(
        name, kind, statement, rhs, start, (0.0, end),
        lambda times: relaxed(rate, start, edges, levels, times), looks=looks,
    )  # fmt: skip


_train("dose a day", "10 for 0.5 of 24, y' = u - 0.2 y", 0.2, 24.0, 0.5, 10.0, 240.0, looks=240)
_train("dose a day, loaded", "the same from y = 1", 0.2, 24.0, 0.5, 10.0, 240.0, start=1.0,
       looks=240)  # fmt: skip
_train("dose, slow clearance", "10 for 0.5 of 24, y' = u - 0.05 y", 0.05, 24.0, 0.5, 10.0, 240.0)
_train("infusion", "3 for 2 of 12, y' = u - 0.3 y", 0.3, 12.0, 2.0, 3.0, 96.0)
_train("counter", "1 for 0.1 of 1, y' = u", 0.0, 1.0, 0.1, 1.0, 20.0)
_train("heart beat", "5 for 0.12 of 0.8, y' = u - y", 1.0, 0.8, 0.12, 5.0, 16.0)
_train("duty of a tenth", "1 for 0.1 of 1, y' = u - y", 1.0, 1.0, 0.1, 1.0, 20.0)
_train("heater", "2 for 15 of 60, y' = u - 0.02 y", 0.02, 60.0, 15.0, 2.0, 600.0, start=10.0)
_train("square wave", "1 and -1, half a period of 2 each, y' = u - y", 1.0, 2.0, 1.0, 1.0, 20.0,
       low=-1.0, kind="square wave")  # fmt: skip
_train("triangle wave", "y' = 1 and -1, half a period of 1 each", 0.0, 1.0, 0.5, 1.0, 10.3,
       low=-1.0, kind="square wave")  # fmt: skip
_train("fast switching", "4 for 0.02 of 0.05, y' = u - y", 1.0, 0.05, 0.02, 4.0, 2.0,
       kind="square wave")  # fmt: skip


# -- single inputs ---------------------------------------------------------------------------------


def _pulses(
    name: str, kind: str, statement: str, rate: float, start: float, edges: Sequence[float],
    levels: Sequence[float], *, looks: int = 25,
) -> None:  # fmt: skip
    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        u = 0 * t + levels[0]
        for edge, level in zip(edges[1:-1], levels[1:], strict=True):
            u = m.where(t >= edge, 0 * t + level, u)
        return (u - rate * y[0],)

    _add(
        name, kind, statement, rhs, start, (edges[0], edges[-1]),
        lambda times: relaxed(rate, start, edges, levels, times), looks=looks,
    )  # fmt: skip


_pulses("early pulse", "pulse", "y' = 1 from 1 to 1.2", 0.0, 0.0, (0, 1, 1.2, 10), (0, 1, 0))
_pulses("pulse after a rest", "late", "y' = [50 < t < 55] - y", 1.0, 0.0, (0, 50, 55, 100),
        (0, 1, 0))  # fmt: skip
_pulses("pulse after a decay", "late", "y' = [30 < t < 31] - y from 1", 1.0, 1.0, (0, 30, 31, 60),
        (0, 1, 0))  # fmt: skip
_pulses("long rest, step", "late", "y' = [t > 700]", 0.0, 0.0, (0, 700, 1000), (0, 1))
_pulses("delayed switch", "switch", "y' = 1 - y from t = 10 on, 0 before", 1.0, 0.0, (0, 10, 30),
        (0, 1))  # fmt: skip
_pulses("step at pi", "switch", "y' = [t > pi] - y/2 from 2", 0.5, 2.0, (0, math.pi, 10), (0, 1))
_pulses("staircase", "switch", "y' = floor(t) - y to 8", 1.0, 0.0, range(9), range(8))
_pulses("pulses ever rarer", "pulse train", "1 for 1 from 2, 4, 8, 16, 32, y' = u - y", 1.0, 0.0,
        (0, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64), (0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0))  # fmt: skip
_pulses("there and back", "pulse", "y' = 1 from 3 to 3.5, -1 from 6 to 6.5", 0.0, 0.0,
        (0, 3, 3.5, 6, 6.5, 10), (0, 1, 0, -1, 0))  # fmt: skip


def _gauss(t: Any, middle: float, width: float, m: Any) -> Any:
    return m.exp(-(((t - middle) / width) ** 2)) / (width * math.sqrt(math.pi))


def _kicked(middle: float, width: float) -> Callable[[np.ndarray], np.ndarray]:
    def exact(times: np.ndarray) -> np.ndarray:
        return (special.erf((times - middle) / width) + 1) / 2

    return exact


_add("late kick", "late", "y' = Gauss's bell at 50, width 2", 
     lambda t, y, m: (_gauss(t, 50.0, 2.0, m),), 0.0, (0.0, 100.0), _kicked(50.0, 2.0))  # fmt: skip
_add("kick at a third", "late", "y' = Gauss's bell at 3.3, width 0.2",
     lambda t, y, m: (_gauss(t, 3.3, 0.2, m),), 0.0, (0.0, 10.0), _kicked(3.3, 0.2))  # fmt: skip
_add("kicked oscillator", "late", "x'' = -x + bell at 30, width 1, from rest",
     lambda t, y, m: (y[1], _gauss(t, 30.0, 1.0, m) - y[0]), (0.0, 0.0), (0.0, 60.0),
     longest=0.5)  # fmt: skip
_add("kick on a decay", "late", "y' = -y + bell at 20, width 1",
     lambda t, y, m: (_gauss(t, 20.0, 1.0, m) - y[0],), 1.0, (0.0, 40.0), longest=0.5)  # fmt: skip
_add("arctangent", "spike", "y' = 100 / (1 + (100 (t - 5))^2)",
     lambda t, y, m: (100.0 / (1.0 + (100.0 * (t - 5.0)) ** 2),), 0.0, (0.0, 10.0),
     lambda times: np.arctan(100 * (times - 5)) + np.arctan(500.0))  # fmt: skip
_add("sharp tanh", "switch", "y' = 1 + tanh(20 (t - 4))",
     lambda t, y, m: (1.0 + m.tanh(20.0 * (t - 4.0)),), 0.0, (0.0, 10.0),
     lambda s: s + (np.log(np.cosh(20 * (s - 4))) - math.log(math.cosh(80.0))) / 20)  # fmt: skip
_add("wave packet", "late", "y' = cos(6 t) exp(-((t - 20)/3)^2)",
     lambda t, y, m: (m.cos(6.0 * t) * m.exp(-(((t - 20.0) / 3.0) ** 2)),), 0.0, (0.0, 40.0),
     longest=0.1)  # fmt: skip
_add("fast wave packet", "late", "y' = cos(20 t) exp(-((t - 20)/3)^2)",
     lambda t, y, m: (m.cos(20.0 * t) * m.exp(-(((t - 20.0) / 3.0) ** 2)),), 0.0, (0.0, 40.0),
     longest=0.03)  # fmt: skip

# -- kinks and relays ------------------------------------------------------------------------------


def _rectified(times: np.ndarray) -> np.ndarray:
    whole = np.floor(times / math.pi)
    return 2 * whole + 1 - np.cos(times - math.pi * whole)


_add("rectifier", "kink", "y' = |sin t|", lambda t, y, m: (abs(m.sin(t)),), 0.0, (0.0, 20.0),
     _rectified)  # fmt: skip
_add("kink in time", "kink", "y' = |t - 1| - y",
     lambda t, y, m: (abs(t - 1.0) - y[0],), 1.0, (0.0, 3.0), breakpoints=(1.0,))  # fmt: skip
_add("daylight", "kink", "y' = max(0, sin(2 pi t/24)) - 0.1 y",
     lambda t, y, m: (_while(m, t, m.sin(math.pi / 12 * t) > 0, m.sin(math.pi / 12 * t))
                      - 0.1 * y[0],), 0.0, (0.0, 120.0),
     breakpoints=[12.0 * k for k in range(1, 10)])  # fmt: skip
_add("sawtooth", "kink", "y' = t mod 1 - y", lambda t, y, m: (t % 1.0 - y[0],), 0.0, (0.0, 8.5),
     breakpoints=range(1, 9))  # fmt: skip
_add("ramp and hold", "kink", "y' = min(max(t - 5, 0), 1) - y",
     lambda t, y, m: (_while(m, t, t > 5.0, _while(m, t, t > 6.0, 1.0, t - 5.0)) - y[0],), 0.0,
     (0.0, 12.0), breakpoints=(5.0, 6.0))  # fmt: skip
_add("two rates", "relay", "y' = 2 below y = 1, 1/2 above",
     lambda t, y, m: (_while(m, y[0], y[0] < 1.0, 2.0, 0.5),), 0.0, (0.0, 3.0),
     lambda s: np.where(s < 0.5, 2 * s, 1 + (s - 0.5) / 2))  # fmt: skip


def _bang_bang(times: np.ndarray) -> np.ndarray:
    # x'' = -sign x from (1, 0): parabolas, a quarter period being sqrt 2
    quarter = math.sqrt(2.0)
    turn = times / quarter
    part, s = np.floor(turn) % 4, (turn % 1) * quarter
    x = np.choose(part.astype(int), [1 - s**2 / 2, -quarter * s + s**2 / 2, s**2 / 2 - 1,
                                     quarter * s - s**2 / 2])  # fmt: skip
    v = np.choose(part.astype(int), [-s, s - quarter, s, quarter - s])
    return np.stack((x, v), 1)


_add("bang bang", "relay", "x'' = -sign x from (1, 0)",
     lambda t, y, m: (y[1], -m.sign(y[0])), (1.0, 0.0), (0.0, 10.0), _bang_bang)  # fmt: skip
_add("thermostat", "relay", "y' = 1 below y = 20, 0.2 above, less 0.1",
     lambda t, y, m: (_while(m, y[0], y[0] < 20.0, 0.9, 0.1),), 15.0, (0.0, 20.0),
     lambda s: np.where(s < 5 / 0.9, 15 + 0.9 * s, 20 + 0.1 * (s - 5 / 0.9)))  # fmt: skip

# -- rests followed by action ----------------------------------------------------------------------


def _logistic(start: float) -> Callable[[np.ndarray], np.ndarray]:
    def exact(times: np.ndarray) -> np.ndarray:
        grown = start * np.exp(times)
        return grown / (1 - start + grown)

    return exact


_add("logistic from 1e-10", "take-off", "y' = y (1 - y)", lambda t, y, m: (y[0] * (1.0 - y[0]),),
     1e-10, (0.0, 50.0), _logistic(1e-10))  # fmt: skip
_add("logistic from 1e-3", "take-off", "y' = y (1 - y)", lambda t, y, m: (y[0] * (1.0 - y[0]),),
     1e-3, (0.0, 20.0), _logistic(1e-3))  # fmt: skip
_add("epidemic", "take-off", "S' = -S I/2000, I' = S I/2000 - 0.1 I, one of 1000 infected",
     lambda t, y, m: (-y[0] * y[1] / 2000.0, y[0] * y[1] / 2000.0 - 0.1 * y[1]), (999.0, 1.0),
     (0.0, 100.0))  # fmt: skip
_add("epidemic of few", "take-off", "s' = -s i/2, i' = s i/2 - i/10, one of a million infected",
     lambda t, y, m: (-y[0] * y[1] / 2.0, y[0] * y[1] / 2.0 - 0.1 * y[1]), (1.0 - 1e-6, 1e-6),
     (0.0, 100.0))  # fmt: skip
_add("flame", "take-off", "y' = y^2 - y^3 from 0.01",
     lambda t, y, m: (y[0] ** 2 - y[0] ** 3,), 0.01, (0.0, 150.0), longest=0.5)  # fmt: skip
_add("unstable rest", "take-off", "y' = y from 1e-9", lambda t, y, m: (y[0],), 1e-9, (0.0, 25.0),
     lambda s: 1e-9 * np.exp(s))  # fmt: skip
_add("still at the start", "take-off", "y' = t^4", lambda t, y, m: (t**4 + 0 * y[0],), 0.0,
     (0.0, 5.0), lambda s: s**5 / 5)  # fmt: skip
_add("neuron", "take-off", "FitzHugh-Nagumo, a current of 0.5 from t = 20 on",
     lambda t, y, m: (y[0] - y[0] ** 3 / 3 - y[1] + _while(m, t, t >= 20.0, 0.5),
                      0.08 * (y[0] + 0.7 - 0.8 * y[1])),
     (-1.1994080352440, -0.6242600440550), (0.0, 60.0), breakpoints=(20.0,))  # fmt: skip

# -- oscillations ----------------------------------------------------------------------------------

_add("chirp", "oscillation", "y' = cos t^2", lambda t, y, m: (m.cos(t * t),), 0.0, (0.0, 10.0),
     lambda s: math.sqrt(math.pi / 2) * special.fresnel(s * math.sqrt(2 / math.pi))[1])  # fmt: skip
_add("passage through resonance", "oscillation", "x'' = -x - 0.1 x' + cos(t^2/40)",
     lambda t, y, m: (y[1], m.cos(t * t / 40.0) - y[0] - 0.1 * y[1]), (0.0, 0.0),
     (0.0, 60.0))  # fmt: skip
_add("at resonance", "oscillation", "x'' = -x + cos t from rest",
     lambda t, y, m: (y[1], m.cos(t) - y[0]), (0.0, 0.0), (0.0, 30.0),
     lambda s: np.stack((s * np.sin(s) / 2, (np.sin(s) + s * np.cos(s)) / 2), 1))  # fmt: skip
_add("relaxation", "oscillation", "van der Pol, mu = 5",
     lambda t, y, m: (y[1], 5.0 * (1.0 - y[0] ** 2) * y[1] - y[0]), (2.0, 0.0),
     (0.0, 20.0))  # fmt: skip

# -- scales ----------------------------------------------------------------------------------------

_add("tiny state", "scale", "y' = -y from 1e-12", lambda t, y, m: (-y[0],), 1e-12, (0.0, 5.0),
     lambda s: 1e-12 * np.exp(-s))  # fmt: skip
_add("huge state", "scale", "y' = -y + 1e12 [t < 1]",
     lambda t, y, m: (_while(m, t, t < 1.0, 1e12) - y[0],), 1e12, (0.0, 5.0),
     lambda s: relaxed(1.0, 1e12, (0, 1, 5), (1e12, 0), s))  # fmt: skip
_add("tiny time", "scale", "y' = -1e12 y, to 5e-12", lambda t, y, m: (-1e12 * y[0],), 1.0,
     (0.0, 5e-12), lambda s: np.exp(-1e12 * s))  # fmt: skip
_add("huge time", "scale", "y' = -1e-12 y, to 5e12", lambda t, y, m: (-1e-12 * y[0],), 1.0,
     (0.0, 5e12), lambda s: np.exp(-1e-12 * s))  # fmt: skip
_add("pulse in huge time", "scale", "y' = 1e-12 ([2e12 < t < 3e12] - y)",
     lambda t, y, m: (1e-12 * (_while(m, t, (t > 2e12) & (t < 3e12), 1.0) - y[0]),), 0.5,
     (0.0, 6e12), lambda s: relaxed(1.0, 0.5, (0, 2, 3, 6), (0, 1, 0), s / 1e12))  # fmt: skip
_add("constant", "scale", "y' = 3", lambda t, y, m: (0 * y[0] + 3.0,), 0.0, (0.0, 1e3),
     lambda s: 3 * s)  # fmt: skip
_add("nothing", "scale", "y' = 0", lambda t, y, m: (0 * y[0],), 1.0, (0.0, 1e3), np.ones_like)
_add("forced decay", "scale", "y' = -50 (y - cos t)", lambda t, y, m: (50.0 * (m.cos(t) - y[0]),),
     0.0, (0.0, 5.0),
     lambda s: (2500 * (np.cos(s) - np.exp(-50 * s)) + 50 * np.sin(s)) / 2501)  # fmt: skip
_add("two scales", "scale", "x' = -100 x, y' = -0.1 y",
     lambda t, y, m: (-100.0 * y[0], -0.1 * y[1]), (1.0, 1.0), (0.0, 10.0),
     lambda s: np.stack((np.exp(-100 * s), np.exp(-0.1 * s)), 1))  # fmt: skip
