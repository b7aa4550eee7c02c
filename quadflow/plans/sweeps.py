"""The plan *sweeps*: explicit collocation, on a rule of any family."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..checks import integer_from, is_integer
from ..rules.lagrange import lagrange_matrix
from ..rules.rule import QuadratureRule
from .method import FLOAT64, Method, reach, widest_gap

MOST_NODES = 8
"""The most nodes of one sweep from an extrapolated guess, see `nodes_for_tolerance`."""

AMPLIFICATION = 3 + 2 * math.sqrt(2)
"""By how much every node amplifies rounding, where a guess is extrapolated over an interval as long
as the last."""

_ROUNDING = 15.0


@dataclass(frozen=True, eq=False, repr=False)
class SweepsMethod(Method):
    """The plan *sweeps*: all nodes at once, `sweeps` times (explicit collocation, Picard).

    Attributes:
        rule: its nodes are where f is evaluated.
        sweeps: how often.
        guess: what the first sweep starts from. "constant": f at the start of the interval.
            "extrapolated": the velocity polynomial of the last interval; the first interval then
            gets order - 1 sweeps from a constant guess.
        converged: repeat until the sweeps move the states by rounding alone, at most `sweeps`
            times: the implicit collocation equations solved by fixed-point iteration (one host
            synchronisation a sweep).
        most_sweeps: the most sweeps of an adaptive step, which is swept again where its estimate is
            too large by little.
        family: a function of n that makes the rule; where it is given, an adaptive solve takes the
            number of nodes from the tolerance (`nodes_for_tolerance`).
    """

    rule: QuadratureRule
    sweeps: int
    guess: str
    converged: bool = False
    most_sweeps: int = 0
    family: Callable[[int], QuadratureRule] | None = None

    @functools.cached_property
    def widest_gap(self) -> float:
        return widest_gap(self.rule.nodes)

    @functools.cached_property
    def stability_limit(self) -> float | None:
        return None if self.converged else reach(lambda x: _spectral_radius(self, -x))

    @property
    def stiff_margins(self) -> tuple[float, float] | None:
        return 5.0, 10.0

    @property
    def has_exact_adjoint(self) -> bool:
        # collocation solved to convergence, on a rule that is symmetric and symplectic (Gauss's)
        if not self.converged:
            return False
        a, b = self.rule.integration_matrix, self.rule.weights
        symmetric = abs(a + a[::-1, ::-1] - b).max() < 1e-14
        product = b[:, None] * a
        symplectic = abs(product + product.T - b[:, None] * b).max() < 1e-14
        return bool(symmetric and symplectic)

    def for_tolerance(self, rtol: float, eps: float = FLOAT64) -> SweepsMethod:
        """The same on the number of nodes that suits the tolerance, if it is to be chosen.

        Raises:
            ValueError: over so many nodes an extrapolated guess would be rounding alone.
        """
        if self.family is not None:
            return _suited(self, nodes_for_tolerance(rtol, eps))
        n = self.rule.n
        if self.guess == "extrapolated" and n > MOST_NODES and _drowns(n, rtol, eps):
            raise ValueError(
                f"method {self.name!r} extrapolates its guess over {n} nodes, which amplifies the "
                f"rounding of func ({eps:.1e}) to {AMPLIFICATION**n * eps:.1e}, too much for the "
                f"error estimate at rtol={rtol:g}: take at most {MOST_NODES} nodes, fixed steps, "
                "or guess='constant'"
            )
        return self

    def on_nodes(self, n: int) -> SweepsMethod:
        """The same on n nodes of its family, 2 to 8, whatever the tolerance.

        Raises:
            ValueError: there is no family, or n is none of these.
        """
        if self.family is None:
            raise ValueError(f"method {self.name!r} has no family of rules to take {n} nodes of")
        if not is_integer(n, 2) or n > MOST_NODES:
            raise ValueError(
                f"nodes must be an integer from 2 (for an error estimate) to {MOST_NODES} (beyond, "
                f"rounding spoils the start guess), got {n!r}"
            )
        return collocation(
            self.family(n), self.sweeps, guess=self.guess, most_sweeps=self.most_sweeps
        )


@functools.lru_cache(maxsize=64)
def _suited(method: SweepsMethod, n: int) -> SweepsMethod:
    """`on_nodes` under the method's own name; made once, so that what is worked out for a method is
    found again in the next solve.
    """
    return replace(method.on_nodes(n), name=method.name, family=method.family)


def _drowns(n: int, rtol: float, eps: float) -> bool:
    """Whether the rounding of an extrapolated guess drowns the error estimate.

    It does where it is more than 15 tolerances in a step, which is about rtol^(1/(n+1)) long: fewer
    nodes then need fewer calls. Measured on five problems, in float64 from 1e-9 to 1e-13 and in
    float32 from 1e-3 to 1e-6.
    """
    return AMPLIFICATION**n * eps * rtol ** (1 / (n + 1)) > _ROUNDING * rtol


def nodes_for_tolerance(rtol: float, eps: float = FLOAT64) -> int:
    """Number of nodes for one sweep from an extrapolated guess: 5 + digits/2, within [4, 8], and
    fewer where the guess would drown in rounding.

    Args:
        rtol: positive.
        eps: relative rounding of func's values.

    What the guess misses over an interval as long as the last one falls like the n-th power of that
    length, so n grows with the digits wanted; the slope is that of the least cost measured on seven
    problems. Extrapolation amplifies rounding by (3 + 2√2)^n, which is 1e6 for n = 8.
    """
    n = min(MOST_NODES, max(4, 5 + math.floor(-math.log10(rtol) / 2 + 1e-9)))
    while n > 4 and _drowns(n, rtol, eps):
        n -= 1
    return n


def collocation(
    rule: QuadratureRule,
    sweeps: int | str | None = None,
    *,
    guess: str = "constant",
    most_sweeps: int | None = None,
) -> SweepsMethod:
    """Explicit collocation on a rule: `sweeps` evaluations of all nodes together an interval.

    Args:
        rule: n nodes, degree d.
        sweeps: K >= 0 from a constant guess, K >= 1 from an extrapolated one. The default is the
            least that reaches order d+1. "converged" repeats until the sweeps move the states by
            rounding alone: the implicit collocation method of order d+1, symmetric and symplectic
            on Gauss's rule. It takes fixed steps alone.
        guess: "constant" or "extrapolated", see `SweepsMethod`.
        most_sweeps: >= sweeps, see `SweepsMethod`; the default is no more than `sweeps`.

    The order is min(K+1, d+1) from a constant guess and min(K+n, d+1) from an extrapolated one,
    on uniform and on varying steps. Solved to convergence it is the collocation method of the rule
    (order d+1; for 4-point Gauss-Lobatto: local error O(h^7), global order 6).

    Raises:
        ValueError: a guess that is neither; sweeps or most_sweeps below what they may be, or no
            integers.

    Sources: Hairer, Nørsett & Wanner, Solving ODEs I, section II.7; Dutt, Greengard & Rokhlin 2000
    (deferred correction); Nørsett & Simonsen 1989 (start guesses).
    """
    if guess not in ("constant", "extrapolated"):
        raise ValueError(f"guess must be 'constant' or 'extrapolated', got {guess!r}")
    least = 0 if guess == "constant" else 1
    gain = 1 if guess == "constant" else rule.n
    if sweeps == "converged":
        return SweepsMethod(
            name=f"converged-{rule.family}-{rule.n}",
            order=rule.degree + 1,
            dense_order=min(rule.degree, rule.n) + 1,
            error_order=None,
            max_growth=2.0,
            rule=rule,
            sweeps=100,
            guess=guess,
            converged=True,
        )
    if sweeps is None:
        sweeps = max(least, rule.degree + 1 - gain)
    sweeps = integer_from(least, sweeps, "sweeps", f" with guess={guess!r}, or 'converged'")
    if most_sweeps is None:
        most_sweeps = sweeps
    elif not is_integer(most_sweeps, sweeps):
        raise ValueError(f"most_sweeps must be an integer >= sweeps={sweeps}, got {most_sweeps!r}")
    order = min(sweeps + gain, rule.degree + 1)
    # What the last sweep changed, and the rule against one node fewer: from an extrapolated guess
    # on what the guess missed, else on the velocities themselves.
    error_order = rule.n + 1 if guess == "extrapolated" else min(order, rule.n)
    return SweepsMethod(
        name=f"{rule.family}-{rule.n}",
        order=order,
        dense_order=min(order, rule.n + 1),
        error_order=error_order if sweeps and rule.n > 1 else None,
        max_growth=5.0 if guess == "constant" else 2.0,
        rule=rule,
        sweeps=sweeps,
        guess=guess,
        most_sweeps=most_sweeps,
    )


def adaptive_collocation(family: Callable[[int], QuadratureRule]) -> SweepsMethod:
    """Collocation whose number of nodes follows the tolerance, with one sweep, up to three where
    one does not suffice. Four nodes where steps are fixed.

    family: a function of n that makes the rule.
    """
    return replace(collocation(family(4), 1, guess="extrapolated", most_sweeps=3), family=family)


def _spectral_radius(method: SweepsMethod, z: np.ndarray) -> np.ndarray:
    """Growth over one interval on y' = λy, for z = hλ (m,): the spectral radius (m,) of the map of
    (h V, y), V the node velocities.
    """
    rule = method.rule
    n = rule.n
    nodes = np.zeros((len(z), n, n + 1))  # h times the node velocities, of the last (h V, y)
    if method.guess == "extrapolated":
        nodes[:, :, :n] = lagrange_matrix(rule.nodes, 1 + rule.nodes)
    else:
        nodes[:, :, n] = z[:, None]
    for _ in range(method.sweeps):
        nodes = rule.integration_matrix @ nodes
        nodes[:, :, n] += 1.0
        nodes *= z[:, None, None]
    matrix = np.concatenate((nodes, (rule.weights @ nodes)[:, None]), axis=1)
    matrix[:, n, n] += 1.0
    radius: np.ndarray = np.abs(np.linalg.eigvals(matrix)).max(1)
    return radius
