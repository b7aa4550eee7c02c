"""Random problems with known solutions: choose y(t), derive a right-hand side that has it.

f(t, u) = y'(t) + G(t, u) - G(t, y(t)) with a coupling G that is nonlinear in u, depends on t and
mixes both, so that no order condition holds by accident. Every coefficient is a multiple of 1/8 and
y(0) is too: float64 states the problem without rounding.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

from ....extras import require
from ...exact.multiprecision import multiprecision as mp
from ..problem import Problem, register_problem, vector
from .checks import whole

_FUNCTIONS = ("sin", "cos", "exp", "sqrt")


def _pick(source: random.Random, low: int, high: int) -> Any:
    """A multiple of 1/8 from low/8 to high/8, of either sign."""
    rational = require("sympy", "analysis").Rational
    return rational(source.choice((-1, 1)) * source.randint(low, high), 8)


@functools.lru_cache(maxsize=64)
def _derive(seed: int, dimension: int) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Symbols (t, u1, ..., ud), solution y(t), coupling G(t, u), right-hand side f(t, u)."""
    sympy = require("sympy", "analysis")
    source = random.Random(f"{seed}/{dimension}")
    t, *u = symbols = sympy.symbols(f"t u1:{dimension + 1}", real=True)
    solution, coupling = [], []
    for i in range(dimension):
        wave, other = abs(_pick(source, 6, 14)), abs(_pick(source, 6, 14))
        solution.append(
            _pick(source, 1, 4)
            + _pick(source, 4, 8) * sympy.sin(wave * t)
            + _pick(source, 2, 5) * (1 - sympy.cos(other * t))
        )
        near = u[(i + 1) % dimension]
        coupling.append(
            _pick(source, 4, 8) * sympy.sin(near + t)
            + _pick(source, 2, 4) * u[i] * near
            + _pick(source, 2, 4) * sympy.cos(u[i]) * sympy.cos(t / 2) * near
            - t * u[i] * u[i] / 8
        )
    there = dict(zip(u, solution, strict=True))
    velocity = [
        sympy.diff(y, t) + g - g.subs(there) for y, g in zip(solution, coupling, strict=True)
    ]
    return list(symbols), solution, coupling, velocity


def _compiled(symbols: Sequence[Any], formulas: Sequence[Any]) -> Callable[..., Sequence[Any]]:
    """(values of the symbols, namespace m) -> values of the formulas."""
    lambdify = require("sympy", "analysis").lambdify

    @functools.cache
    def within(m: Any) -> Callable[..., Sequence[Any]]:
        names = {name: getattr(m, name) for name in _FUNCTIONS}
        return lambdify(symbols, formulas, modules=[names], cse=True)

    return lambda values, m: within(m)(*values)


@register_problem("manufactured")
def manufactured(seed: int = 0, dimension: int = 2) -> Problem:
    """A random smooth solution and a right-hand side that has it, over t in [0, 2].

    The same seed and dimension give the same problem everywhere.

    Raises:
        ValueError: seed outside 0 to 2^31, dimension outside 1 to 16. TypeError: not an int.
    """
    seed = whole("manufactured", "seed", seed, least=0, most=2**31)
    d = whole("manufactured", "dimension", dimension, least=1, most=16)
    symbols, solution, coupling, velocity = _derive(seed, d)
    run, known = _compiled(symbols, velocity), _compiled(symbols[:1], solution)

    def rhs(t: Any, y: Sequence[Any], m: Any) -> Sequence[Any]:
        return run((t, *y), m)

    def exact(t: Any) -> Sequence[Any]:
        return known((t,), mp())

    text = ", ".join
    return Problem(
        "manufactured",
        f"u' = y'(t) + G(t, u) - G(t, y(t)), y = ({text(map(str, solution))}), "
        f"G = ({text(map(str, coupling))})",
        f"manufactured solution, seed {seed}, dimension {d}",
        rhs,
        vector(*(float(y.subs(symbols[0], 0)) for y in solution)),
        (0.0, 2.0),
        exact=exact,
        parameters={"seed": seed, "dimension": d},
        sets=("nonstiff", "manufactured"),
    )
