"""Methods: a rule, an interpolant and a plan of where f is evaluated; and their names."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import nearest
from ..rules.quadrature import QuadratureRule, gauss_legendre, gauss_lobatto, radau_right
from ..rules.tableaus import (
    BOSH3,
    DOPRI5,
    DOPRI8,
    HEUN,
    HEUN3,
    MIDPOINT,
    RK4,
    RK4_THREE_EIGHTHS,
    TSIT5,
    Tableau,
)
from .interpolants import Interpolant, PolynomialInterpolant
from .variable_order import OrderControl

FLOAT64 = 2.0**-52
"""Relative rounding of float64."""


@dataclass(frozen=True, eq=False)
class Method:
    """What `solve` needs to know of a method; the three plans below are its kinds.

    name: as in the registry. order: global order p, error O(h^p) at fixed steps; None where none
    is claimed. dense_order: the same for the solution between the steps. error_order: q, the error
    estimate being O(h^q); None without an estimate (fixed steps only). max_growth: largest factor
    between successive adaptive steps. takes_fixed_steps: False where the steps are chosen with
    something else, such as the order.
    """

    takes_fixed_steps: ClassVar[bool] = True

    name: str
    order: int | None
    dense_order: int | None
    error_order: int | None
    max_growth: float

    def for_tolerance(self, rtol: float, eps: float = FLOAT64) -> Method:
        """The method that an adaptive solve takes at this relative tolerance, where func's values
        are rounded to eps: itself."""
        return self

    @functools.cached_property
    def widest_gap(self) -> float:
        """The longest part of a step within which f is not evaluated: 1 where it is at the ends
        alone."""
        return 1.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: order {self.order}>"


@dataclass(frozen=True, eq=False, repr=False)
class AnchorsMethod(Method):
    """The plan *anchors*: f at the start of an interval, and at its end when it is corrected.

    The interpolant predicts the interval from the anchors so far. correction: None keeps the
    prediction (Euler, Adams-Bashforth); "PEC" evaluates f at the predicted end, corrects with that
    anchor and reuses it as the start of the next interval (one evaluation an interval); "PECE"
    evaluates again at the corrected end. startup: how the first k-1 intervals are done: "rising"
    uses the anchors there are; "dopri5" takes Runge-Kutta steps, which keeps the order of k >= 3.
    forward_last: leave out evaluation and correction in the last interval of a fixed grid, so that
    PEC over N intervals costs N evaluations.
    """

    rule: QuadratureRule
    interpolant: Interpolant
    correction: str | None
    startup: str
    forward_last: bool

    def __post_init__(self) -> None:
        if self.correction not in (None, "PEC", "PECE"):
            raise ValueError(f"correction must be None, 'PEC' or 'PECE', got {self.correction!r}")
        if self.startup not in ("rising", "dopri5"):
            raise ValueError(f"startup must be 'rising' or 'dopri5', got {self.startup!r}")
        if self.forward_last and self.correction is None:
            raise ValueError("forward_last=True needs a correction to leave out")


@dataclass(frozen=True, eq=False, repr=False)
class VariableOrderMethod(Method):
    """The plan *anchors* with PECE, its number of anchors chosen anew for every interval.

    control: chooses order and step size; order k (k anchors predict, k+1 correct) goes from 1 to
    control.max_order. `order` is None: the order is chosen together with the steps, so there is
    none at fixed steps, which the method does not take. error_order is that of the lowest k.
    """

    takes_fixed_steps: ClassVar[bool] = False

    control: OrderControl

    @property
    def max_order(self) -> int:
        """The highest k."""
        return self.control.max_order


@dataclass(frozen=True, eq=False, repr=False)
class SweepsMethod(Method):
    """The plan *sweeps*: all nodes at once, `sweeps` times (explicit collocation, Picard).

    guess: "constant" starts every interval from f at its start, "extrapolated" from the velocity
    polynomial of the last interval (the first interval then gets order - 1 sweeps from constant).
    converged: repeat until the sweeps move the states by rounding alone, at most `sweeps` times,
    which solves the implicit collocation equations by fixed-point iteration (one host
    synchronisation a sweep).
    most_sweeps: an adaptive step whose estimate is too large by little is swept again, up to so
    many times in all. family: a function of n that makes the rule; where it is given, an adaptive
    solve takes the number of nodes from the tolerance (`nodes_for_tolerance`).
    """

    rule: QuadratureRule
    sweeps: int
    guess: str
    converged: bool = False
    most_sweeps: int = 0
    family: Callable[[int], QuadratureRule] | None = None

    @functools.cached_property
    def widest_gap(self) -> float:
        return _widest_gap(self.rule.nodes)

    def for_tolerance(self, rtol: float, eps: float = FLOAT64) -> SweepsMethod:
        """The same on the number of nodes that suits the tolerance, if it is to be chosen.

        Raises:
            ValueError: an extrapolated guess over so many nodes would be rounding alone.
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
            ValueError: there is no family, or another n.
        """
        if self.family is None:
            raise ValueError(f"method {self.name!r} has no family of rules to take {n} nodes of")
        if isinstance(n, bool) or not isinstance(n, int) or not 2 <= n <= MOST_NODES:
            raise ValueError(
                f"nodes must be an integer from 2 (for an error estimate) to {MOST_NODES} (beyond, "
                f"rounding spoils the start guess), got {n!r}"
            )
        return collocation(
            self.family(n), self.sweeps, guess=self.guess, most_sweeps=self.most_sweeps
        )


@functools.lru_cache(maxsize=64)
def _suited(method: SweepsMethod, n: int) -> SweepsMethod:
    """Made once, so that what is worked out for a method is found again in the next solve."""
    return replace(method.on_nodes(n), name=method.name, family=method.family)


MOST_NODES = 8
"""Of one sweep from an extrapolated guess, see `nodes_for_tolerance`."""

AMPLIFICATION = 3 + 2 * math.sqrt(2)
"""Of rounding by extrapolation over an interval as long as the last, a node."""

_ROUNDING = 15.0


def _drowns(n: int, rtol: float, eps: float) -> bool:
    """Whether the rounding of an extrapolated guess drowns the estimate: in a step, which is about
    rtol^(1/(n+1)) long, it is more than 15 tolerances. Where it is, fewer nodes need fewer calls:
    measured on five problems, in float64 from 1e-9 to 1e-13 and in float32 from 1e-3 to 1e-6."""
    return AMPLIFICATION**n * eps * rtol ** (1 / (n + 1)) > _ROUNDING * rtol


def nodes_for_tolerance(rtol: float, eps: float = FLOAT64) -> int:
    """Number of nodes for one sweep from an extrapolated guess: 5 + digits/2, within [4, 8], and
    fewer where the guess would drown in rounding.

    rtol: positive. eps: relative rounding of func's values. The guess over an interval as long as
    the last one misses what falls like the n-th power of that length, so n grows with the digits
    wanted; the slope is that of the least cost measured on seven problems. Extrapolation amplifies
    rounding by (3 + 2√2)^n, which is 1e6 for n = 8.
    """
    n = min(MOST_NODES, max(4, 5 + math.floor(-math.log10(rtol) / 2 + 1e-9)))
    while n > 4 and _drowns(n, rtol, eps):
        n -= 1
    return n


@dataclass(frozen=True, eq=False, repr=False)
class StagesMethod(Method):
    """The plan *stages*: node velocities built one after another (explicit Runge-Kutta)."""

    tableau: Tableau

    @functools.cached_property
    def widest_gap(self) -> float:
        return _widest_gap(self.tableau.c)


def _widest_gap(nodes: np.ndarray) -> float:
    return float(np.diff(np.unique([0.0, *nodes, 1.0])).max())


def anchors(
    interpolant: Interpolant,
    rule: QuadratureRule,
    *,
    correction: str | None = None,
    startup: str = "rising",
    forward_last: bool = False,
    name: str = "anchors",
) -> AnchorsMethod:
    """An anchors-plan method from any interpolant and rule.

    Args:
        interpolant: says what the velocity is between anchors.
        rule: quadrature rule on [0, 1].
        correction, startup, forward_last: see `AnchorsMethod`.
        name: shown in messages.

    The declared order is min(k, d+1) without and min(k+1, d+1) with correction, k being the
    interpolant's order and d the rule's degree; "rising" start-up lowers it to at most 2 or 3.
    """
    order = interpolant.order
    if order is not None:
        order = min(order + (correction is not None), rule.degree + 1)
        if startup == "rising":
            order = min(order, 2 if correction is None else 3)
    # the last polynomial integrated has degree k-1, or k when corrected; a rule that is not exact
    # for it leaves only the polynomial through the rule's nodes between the steps
    highest = interpolant.anchors - (correction is None)
    dense_order = order
    if order is not None and rule.degree < highest:
        dense_order = min(order, rule.n + 1)
    return AnchorsMethod(
        name=name,
        order=order,
        dense_order=dense_order,
        error_order=None if correction is None or order is None else interpolant.anchors + 1,
        max_growth=2.0,
        rule=rule,
        interpolant=interpolant,
        correction=correction,
        startup=startup,
        forward_last=forward_last,
    )


def adams(
    k: int,
    correction: str | None = None,
    *,
    rule: QuadratureRule | None = None,
    startup: str = "dopri5",
    forward_last: bool = False,
) -> AnchorsMethod:
    """Adams methods: the polynomial through k anchors, on any spacing of the steps.

    Args:
        k: number of anchors that the prediction uses, >= 1.
        correction: None for Adams-Bashforth (order k), "PEC" or "PECE" for one correction with the
            end anchor (order k+1; Adams-Moulton as corrector).
        rule: integrates the interpolant; the default, Gauss-Legendre of degree >= k, is exact. A
            rule of lower degree d limits the order to d+1.
        startup, forward_last: see `AnchorsMethod`.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, sections III.1 and III.5.
    """
    interpolant = PolynomialInterpolant(k)
    name = f"ab{k}" if correction is None else f"{correction.lower()}{k}"
    return anchors(
        interpolant,
        rule or gauss_legendre(k // 2 + 1),
        correction=correction,
        startup=startup if k > 1 else "rising",
        forward_last=forward_last,
        name=name,
    )


def adams_variable(control: OrderControl | None = None) -> VariableOrderMethod:
    """Adams predictor-corrector of variable order and step, for functions that are expensive.

    It evaluates f twice a step whatever the order, once in the last and in rejected ones, starts
    itself at order 1 (by Runge-Kutta steps where t holds none that short), and takes adaptive steps
    alone. Between the steps: the polynomial through the anchors used, the predicted end included,
    as accurate as the steps and continuous at the joins.

    Args:
        control: how order and step size are chosen; the default goes up to k = 12.

    Sources: see `quadflow.plans.variable_order`.
    """
    return VariableOrderMethod(
        name="adams",
        order=None,
        dense_order=None,
        error_order=2,
        max_growth=2.0,
        control=OrderControl() if control is None else control,
    )


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
    (order d+1; for 4-point Gauss-Lobatto: local error O(h^7), global order 6). Sources: Hairer,
    Nørsett & Wanner, Solving ODEs I, section II.7; Dutt, Greengard & Rokhlin 2000 (deferred
    correction); Nørsett & Simonsen 1989 (start guesses).
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
    if isinstance(sweeps, bool) or not isinstance(sweeps, int) or sweeps < least:
        raise ValueError(
            f"sweeps must be an integer >= {least} with guess={guess!r}, or 'converged', got "
            f"{sweeps!r}"
        )
    if most_sweeps is None:
        most_sweeps = sweeps
    if isinstance(most_sweeps, bool) or not isinstance(most_sweeps, int) or most_sweeps < sweeps:
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


def _automatic(family: Callable[[int], QuadratureRule]) -> SweepsMethod:
    """One sweep, up to three where one does not suffice; four nodes where steps are fixed."""
    return replace(collocation(family(4), 1, guess="extrapolated", most_sweeps=3), family=family)


def stages(tableau: Tableau, name: str = "stages") -> StagesMethod:
    """The method of an explicit Runge-Kutta tableau.

    Raises:
        TypeError: it is no Tableau.
    """
    if not isinstance(tableau, Tableau):
        raise TypeError(f"tableau must be a Tableau, got {tableau!r}")
    return StagesMethod(
        name=name,
        order=tableau.order,
        dense_order=tableau.dense_order,
        error_order=tableau.error_order,
        max_growth=10.0,
        tableau=tableau,
    )


_REGISTRY: dict[str, Callable[[], Method]] = {}


def register(name: str, method: Method | Callable[[], Method]) -> None:
    """Add a method to the registry under `name`.

    Args:
        name: printable, not empty, without blanks at its ends.
        method: a Method, which is shown under its new name; or a function of no arguments that
            makes one, called when it is first asked for.

    Raises:
        TypeError: name is no string, or method neither a Method nor a function.
        ValueError: the name is taken, or no name.
    """
    _check_name(name)
    if name in _REGISTRY:
        raise ValueError(f"a method named {name!r} is registered already")
    _check_source(method)
    _REGISTRY[name] = functools.cache(functools.partial(_made, name, method))


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if not name.isprintable() or name != name.strip() or not name:
        raise ValueError(
            f"name={name!r} must be printable, not empty, and without blanks at its ends"
        )


def _check_source(method: Any) -> None:
    if not isinstance(method, Method) and not callable(method):
        hint = ": quadflow.stages makes one of a Tableau" if isinstance(method, Tableau) else ""
        raise TypeError(
            f"method must be a Method or a function that makes one, got {method!r}{hint}"
        )


def unregister(name: str) -> None:
    """Take a method of one's own out of the registry again.

    Raises:
        ValueError: there is none of this name, or the library has it of itself.
    """
    if name in _BUILT_IN or name not in _REGISTRY:
        own = [known for known in _REGISTRY if known not in _BUILT_IN]
        hint = nearest(name, own) if own else "there are none"
        raise ValueError(f"name={name!r} is none of the methods that were added: {hint}")
    del _REGISTRY[name]


def _made(name: str, method: Method | Callable[[], Method]) -> Method:
    made: Any = method
    if not isinstance(method, Method):
        try:
            made = method()
        except Exception as error:
            raise RuntimeError(
                f"method {name!r} could not be made: the function registered for it raised "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(made, Method):
        raise TypeError(
            f"method {name!r}: the function registered for it must return a Method, got {made!r}"
        )
    if made.name != name:
        made = copy.copy(made)
        object.__setattr__(made, "name", name)
    return made


def method_names() -> tuple[str, ...]:
    """Every registered name; no method is made."""
    return tuple(_REGISTRY)


def methods() -> dict[str, Method]:
    """Every registered name with its Method.

    One that cannot be made is left out, with a warning that says why; `get_method` raises it.
    """
    found: dict[str, Method] = {}
    for name, make in list(_REGISTRY.items()):
        try:
            found[name] = make()
        except (RuntimeError, TypeError) as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    return found


def get_method(method: str | Method) -> Method:
    """The Method of a registered name; a Method is passed through.

    Raises:
        ValueError: unknown name (the message lists the nearest).
        TypeError: neither a name nor a Method; or what was registered makes no Method.
        RuntimeError: the function that was registered failed.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"method must be a name or a Method, got {type(method).__name__}")
    if method not in _REGISTRY:
        raise ValueError(f"method={method!r} is unknown: {nearest(method, _REGISTRY)}")
    return _REGISTRY[method]()


def _register_all() -> None:
    for name, tableau in {
        "midpoint": MIDPOINT,
        "heun": HEUN,
        "heun3": HEUN3,
        "rk4": RK4,
        "rk4_38": RK4_THREE_EIGHTHS,
        "bosh3": BOSH3,
        "dopri5": DOPRI5,
        "tsit5": TSIT5,
        "dopri8": DOPRI8,
    }.items():
        register(name, functools.partial(stages, tableau))
    register("adams", adams_variable)
    register("euler", functools.partial(adams, 1))
    for k in (2, 3, 4):
        register(f"ab{k}", functools.partial(adams, k))
    for k in (1, 2, 3, 4):
        register(f"pec{k}", functools.partial(adams, k, "PEC"))
        register(f"pece{k}", functools.partial(adams, k, "PECE"))
    for family, maker, sizes in (
        ("gauss", gauss_legendre, (2, 3, 4, 6, 8)),
        ("lobatto", gauss_lobatto, (3, 4, 5, 6)),
        ("radau", radau_right, (2, 3, 5)),
    ):
        for n in sizes:
            make = functools.partial(
                lambda maker, n: collocation(maker(n), guess="extrapolated"), maker, n
            )
            register(f"{family}{n}", make)
    for name, maker in (("gauss", gauss_legendre), ("lobatto", gauss_lobatto)):
        register(name, functools.partial(_automatic, maker))


_register_all()

_BUILT_IN = frozenset(_REGISTRY)
