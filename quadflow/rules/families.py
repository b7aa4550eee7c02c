"""Families of quadrature rules: one function each, which gives the nodes.

A family returns its n nodes (as `decimal.Decimal`, ascending on [0, 1]) and carries the `family`
decorator, which checks n, builds the interpolatory rule, caches it and enters it in `FAMILIES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

import numpy as np

from ..checks import as_integer
from ..errors import caller_level
from .decimals import digits, weights_and_matrix
from .rule import QuadratureRule, legendre_table, moment_tolerance

Nodes = Callable[[int], Sequence[Decimal]]
"""nodes(n): n nodes on [0, 1], ascending."""

MAX_NODES = 128
"""The largest n of any rule: above it one takes seconds to generate, and no step needs it."""

_MAX_MAGNITUDE = 1e8  # sum of |weights| above which half of float64's digits cancel


class NegativeWeightsWarning(UserWarning):
    """A rule with negative weights was asked for: it amplifies errors of the integrand."""


@dataclass(frozen=True)
class FamilyInfo:
    """An entry of `FAMILIES`.

    name: as in `QuadratureRule.family`. function: function(n) gives the rule with n nodes. minimum,
    maximum: the range of n. degree: degree(n) is the degree of exactness.
    """

    name: str
    function: Callable[[int], QuadratureRule]
    minimum: int
    maximum: int
    degree: Callable[[int], int]


FAMILIES: dict[str, FamilyInfo] = {}
"""Every family that takes n alone, by name."""


def family(
    name: str,
    *,
    minimum: int,
    degree: Callable[[int], int],
    maximum: int = MAX_NODES,
    too_few: str = "use n >= 1",
    too_many: str = "use more intervals with fewer nodes each",
) -> Callable[[Nodes], Callable[[int], QuadratureRule]]:
    """Register a family: the decorated function returns the n nodes and becomes the constructor.

    Args:
        name: the name in `FAMILIES`.
        minimum, maximum: the range of n; outside it a ValueError names the family, n and the bound.
        degree: degree(n), the degree of exactness; checked on every rule made.
        too_few, too_many: the remedy that closes the message of those errors.

    Returns:
        Decorator from nodes(n) -> sequence of Decimal (called in a context of 60 digits) to
        rule(n) -> `QuadratureRule`, cached by n.
    """

    def register(build: Nodes) -> Callable[[int], QuadratureRule]:
        def constructor(n: int) -> QuadratureRule:
            n = as_integer(n, f"{name}: n")
            if n < minimum:
                raise ValueError(f"{name} needs n >= {minimum}, got {n}: {too_few}")
            if n > maximum:
                raise ValueError(f"{name} is limited to n <= {maximum}, got {n}: {too_many}")
            rule = _made(name, build, n, degree(n))
            warn_if_negative(
                rule, "use clenshaw_curtis or gauss_legendre, whose weights are positive"
            )
            return rule

        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(constructor, attribute, getattr(build, attribute))
        FAMILIES[name] = FamilyInfo(name, constructor, minimum, maximum, degree)
        return constructor

    return register


@cache
def _made(name: str, build: Nodes, n: int, degree: int) -> QuadratureRule:
    with digits():
        return interpolatory(name, build(n), degree)


def interpolatory(name: str, nodes: Sequence[Decimal], degree: int | None) -> QuadratureRule:
    """The rule that integrates the interpolant through the nodes; degree None: find it."""
    weights, matrix = weights_and_matrix(nodes)
    c = np.array([float(x) for x in nodes])
    b = np.array([float(x) for x in weights])
    a = np.array([[float(x) for x in row] for row in matrix])
    if degree is None:
        size = max(float(np.abs(b).sum()), float(np.abs(a).sum(axis=1).max()))
        if not size < _MAX_MAGNITUDE:
            i = int(np.argmin(np.diff(c)))
            raise ValueError(
                f"{name}: the weights reach {size:.1e} in size and leave too few digits. The "
                f"closest nodes are {i} and {i + 1} ({c[i].item()!r}, {c[i + 1].item()!r}); use "
                "fewer nodes, or nodes that thin out towards the middle"
            )
        moments = b @ legendre_table(c, 2 * c.size)
        degree = c.size - 1  # interpolation gives this much
        for k in range(c.size, 2 * c.size):
            if abs(moments[k]) > moment_tolerance(b, k):
                break
            degree = k
    return QuadratureRule(name, c, b, a, degree)


def warn_if_negative(rule: QuadratureRule, remedy: str) -> None:
    """Warn on every call, cached rule or not, at the caller from outside the library."""
    least = float(rule.weights.min())
    if least >= 0.0:
        return
    warnings.warn(
        f"{rule.family} with n={rule.n} has negative weights (minimum {least:.3g}), which "
        f"amplify errors of the integrand: {remedy}",
        NegativeWeightsWarning,
        stacklevel=caller_level(),
    )


def even_or_odd(n: int) -> int:
    """Degree of an interpolatory rule on symmetric nodes: odd n gains one by symmetry."""
    return n if n % 2 else n - 1
