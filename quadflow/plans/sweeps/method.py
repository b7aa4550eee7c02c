"""The plan *sweeps*: explicit collocation, on a rule of any family."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...checks import integer_from, is_integer
from ...equations.small_states import array_of, tensor_of
from ...equations.velocity import Velocity
from ...host import read_on_host
from ...rules.lagrange import lagrange_matrix
from ...rules.rule import QuadratureRule
from ..interpolants import Anchor
from ..method import FARTHEST, FLOAT64, Method, Stepper, reach, widest_gap
from ..result import StepResult
from ..segment import Segment, WeightFunction, lagrange_weights
from ..state import Behind, NotContracting, State, between_ends
from . import sweep as arithmetic
from .nodes import AMPLIFICATION, MOST_NODES, drowns, nodes_for_tolerance
from .samples import step_of_samples
from .seen_times import SeenTimes, derivative_matrix, seen_numbers
from .sweep import RuleTensors, Swept

if TYPE_CHECKING:
    from ...compiled.step import CompiledTrial


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

    looks_back: ClassVar[bool] = False

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
    def amplification(self) -> float:
        extrapolates = self.guess == "extrapolated" and not self.converged
        return AMPLIFICATION**self.rule.n if extrapolates else 0.0

    def not_compiled(self, samples: bool) -> str | None:
        if self.converged:
            return (
                "sweeps until it has converged, which a compiled step cannot decide; give the "
                "number of sweeps"
            )
        if samples:
            return (
                "sweeps every sample on its own with batch_dims=1, which is not compiled; take a "
                "Runge-Kutta method such as 'dopri5', or batch_dims=0"
            )
        return None

    def stepper(self, velocity: Velocity, *, adaptive: bool = False) -> SweepsStepper:
        return SweepsStepper(self, velocity, adaptive=adaptive)

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
        if self.guess == "extrapolated" and n > MOST_NODES and drowns(n, rtol, eps):
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
            raise self._without_family(n)
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


class SweepsStepper(Stepper):
    """Steps of explicit collocation: all nodes at once, some times over."""

    method: SweepsMethod

    def __init__(self, method: SweepsMethod, velocity: Velocity, *, adaptive: bool = False) -> None:
        super().__init__(method, velocity, adaptive=adaptive)
        self._rules: dict[Any, RuleTensors] = {}
        self._derivatives: dict[Any, Tensor] = {}
        self._weights: WeightFunction | None = None

    def efforts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(sweeps, further ones there may be) of an interval, and of a first one, whose guess is a
        constant where that of later ones is extrapolated."""
        method = self.method
        sweeps, further = method.sweeps, max(0, method.most_sweeps - method.sweeps)
        if method.guess == "constant":
            return (sweeps, further), (sweeps, further)
        full = max(sweeps, (method.order or 1) - 1)
        if further and self.adaptive:  # the estimate says when there are enough
            return (sweeps, further), (2, 2 * full)
        return (sweeps, further), (full, further)

    def step(self, state: State, t1: Any, *, is_last: bool = False) -> StepResult:
        if state.unfinished is not None:
            return step_of_samples(self, state, t1)
        method = self.method
        rule, h, last = method.rule, t1 - state.t, state.last
        usual, at_first = self.efforts()
        order, known = method.error_order, state.known
        from_, old = "constant", None
        if (
            method.guess == "extrapolated"
            and last is not None
            and h / (last.t1 - last.t0) <= FARTHEST
        ):
            from_, old = "extrapolated", last.velocities
            # without an anchor the first sweep evaluates the start with the other nodes
            known = known if rule.has_left else None
        elif order is not None:
            order = min(order, rule.n)

        sweeps, further = usual if from_ == "extrapolated" else at_first
        v0 = None if known is None else known.v
        done = self._swept(state, t1, from_, v0, old, None, sweeps)
        return self._result(state, t1, known, order, done, further)

    def _result(
        self, state: State, t1: float, known: Anchor | None,
        order: int | None, done: Swept, further: int,
    ) -> StepResult:  # fmt: skip
        """The result of sweeps that are done, of which `further` more may follow. A method, for
        nested functions that call each other would live until garbage is collected."""
        t0, h, numbers, anchor = state.t, t1 - state.t, state.numbers, known
        if anchor is None and done.v0 is not None:
            anchor = Anchor(t0, numbers, done.v0)

        def refine() -> StepResult:
            more = self._swept(state, t1, "given", done.v0, done.values, done.guess, 1)
            more = more._replace(earlier=done.previous)
            return self._result(state, t1, known, order, more, further - 1)

        def reached() -> Anchor:  # where the last sweep evaluated f at the end
            y0 = tensor_of(numbers)
            moved = self.rule_tensors(y0).matrix[-1] @ tensor_of(done.previous) * h
            return Anchor(t1, y0 + moved.reshape(y0.shape), tensor_of(done.values)[-1])

        other = self.other_end(reached) if self.method.rule.has_right else None
        lipschitz_pair = between_ends(state, anchor)
        if done.earlier is not None and done.previous is not None:

            def lipschitz_pair() -> tuple[Tensor, Tensor]:
                previous = tensor_of(done.previous)
                matrix = self.rule_tensors(tensor_of(numbers)).matrix
                moved = matrix @ (previous - tensor_of(done.earlier)) * h
                return moved, tensor_of(done.values).reshape(len(previous), -1) - previous

        def segment(_: StepResult) -> Segment:
            return Segment(t0, t1, tensor_of(numbers), tensor_of(done.values), self.dense())

        return StepResult(
            State(t1, done.y1, last=Behind(t0, t1, done.values), other_end=other),
            done.error, order, segment, anchor, state,
            refine=refine if further > 0 else None, sweeps_left=further,
            lipschitz_pair=lipschitz_pair, ratio=done.ratio,
        )  # fmt: skip

    def _swept(
        self, state: State, t1: float, from_: str, v0: Any, old: Any,
        guess: Any, count: int,
    ) -> Swept:  # fmt: skip
        """`count` sweeps over an interval, compiled or not, in NumPy or in tensors; arguments as of
        `arithmetic.guessed`."""
        if not (self.compiled is not None or self.corrects or self.method.converged):
            ways = self._of_arrays, self._of_tensors
            return self.either(state, t1, *ways, state, t1, from_, v0, old, guess, count)
        v0, old, guess = tensor_of(v0), tensor_of(old), tensor_of(guess)
        t0, y0, last = state.t, state.y, state.last
        rule = self.rule_tensors(y0)
        h, width = t1 - t0, 1.0 if last is None else last.t1 - last.t0
        seen, numbers = self._seen(t0, h, y0) if self.corrects else (None, ())
        compiled: CompiledTrial | None = None
        # an interval that starts anew is swept in a way of its own, which is rare
        anew = from_ == "constant" or (from_ == "given" and guess is None)
        if self.compiled is not None and (not anew or self.method.guess == "constant"):
            compiled = self.compiled.sweeps(
                rule, count, from_, v0 is not None, guess is not None, seen
            )
        if compiled is not None and compiled.known:
            return compiled.swept(from_, count, rule, y0, v0, old, guess, (t0, t1, width, *numbers))
        before = self.velocity.counts
        done = self._of_tensors(state, t1, from_, v0, old, guess, count, seen)
        if compiled is not None:
            compiled.measure(before)
        return done

    def _of_tensors(
        self, state: State, t1: float, from_: str, v0: Any, old: Any,
        guess: Any, count: int, seen: SeenTimes | None = None,
    ) -> Swept:  # fmt: skip
        t0, y0, last, velocity = state.t, state.y, state.last, self.velocity
        v0, old, guess = tensor_of(v0), tensor_of(old), tensor_of(guess)
        h, width = t1 - t0, 1.0 if last is None else last.t1 - last.t0
        rule = self.rule_tensors(y0)
        if from_ == "constant" and v0 is None:
            v0, _ = velocity.of_held(t0, y0)
        start, guess = arithmetic.guessed(from_, rule, h, width, v0, old, guess)
        earlier: Any = None
        if seen is not None and from_ == "constant" and rule.has_left:
            v0 = None  # evaluated beside the start as well, if t is not float64
        if self.method.converged:
            values, previous, v0 = self._until_converged(rule, t0, h, y0, v0, start, count)
        else:
            values, previous, earlier, v0 = arithmetic.sweeps(
                rule, velocity.nodes, arithmetic.node_times(rule, t0, h), h, y0, v0, start, count,
                seen,
            )  # fmt: skip
        y1, error = arithmetic.swept(rule, h, y0, values, previous, guess)
        return Swept(y1, values.reshape(-1, *y0.shape), error, guess, v0, previous, earlier)

    def _of_arrays(
        self, state: State, t1: float, from_: str, v0: Any, old: Any,
        guess: Any, count: int,
    ) -> Swept:  # fmt: skip
        t0, last, velocity = state.t, state.last, self.velocity.arrays
        h: Any = t1 - t0
        width = 1.0 if last is None else last.t1 - last.t0
        y0 = array_of(state.numbers)
        v0 = None if v0 is None else array_of(v0)
        old = None if old is None else array_of(old)
        rule = arithmetic.rule_arrays(
            self.method.rule, y0.dtype, self.method.error_order is not None
        )
        if from_ == "constant" and v0 is None:
            v0 = velocity.at(t0, y0, held=True)
        times = arithmetic.node_times(rule, np.array(t0), np.array(h))
        h = np.array(h, velocity.real)
        start, guess = arithmetic.guessed(from_, rule, h, width, v0, old, guess)
        values, previous, earlier, v0 = arithmetic.sweeps(
            rule, velocity.nodes, times, h, y0, v0, start, count
        )
        y1, error = arithmetic.swept(rule, h, y0, values, previous, guess)
        return Swept(y1, values.reshape(-1, *y0.shape), error, guess, v0, previous, earlier)

    def _seen(self, t0: float, h: float, y0: Tensor) -> tuple[SeenTimes, tuple[float, ...]]:
        """The nodes' times as func sees them, and the numbers of it, times before shifts."""
        velocity = self.velocity
        numbers = np.stack(
            seen_numbers(self.method.rule.nodes, t0, h, velocity.layout.time_dtype, velocity.window)
        )
        times, shifts = torch.tensor(numbers).to(y0.device, non_blocking=True).unbind()
        shifts = shifts.reshape(-1, *(1,) * y0.dim())
        return SeenTimes(times, shifts, self.derivative(y0)), tuple(numbers.flat)

    def derivative(self, y0: Tensor) -> Tensor:
        key = (y0.dtype, y0.device)
        if key not in self._derivatives:
            self._derivatives[key] = derivative_matrix(self.method.rule, y0)
        return self._derivatives[key]

    def dense(self) -> WeightFunction:
        if self._weights is None:
            self._weights = lagrange_weights(self.method.rule.nodes)
        return self._weights

    def rule_tensors(self, y0: Tensor) -> RuleTensors:
        key = (y0.dtype, y0.device)
        if key not in self._rules:
            self._rules[key] = arithmetic.rule_tensors(
                self.method.rule, y0, estimated=self.method.error_order is not None
            )
        return self._rules[key]

    def _until_converged(
        self, rule: RuleTensors, t0: float, h: float, y0: Tensor, v0: Tensor | None,
        guess: Tensor, most: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """As `arithmetic.sweeps`, until the sweeps move the states by rounding alone."""
        values = previous = guess
        eps = torch.finfo(self.velocity.layout.func_dtype).eps  # func knows its states no better
        change = least = math.inf
        times = arithmetic.node_times(rule, t0, h)
        for count in range(1, most + 1):
            previous = values
            values, v0 = arithmetic.sweep(rule, self.velocity.nodes, times, h, y0, v0, previous)
            before, change = change, _rounding_units(values - previous, h, y0, eps)
            if _converged(change, before, least, count == most, t0, h):
                break
            least = min(least, change)
        return values, previous, v0


def _rounding_units(change: Tensor, h: float, y0: Tensor, eps: float) -> float:
    """How much a sweep moved the states, in units of their rounding: one host synchronisation."""
    with torch.no_grad():
        size = torch.maximum(y0.abs().amax(), change.abs().amax() * abs(h))
        moved = change.abs().amax() * abs(h) / size / eps
        return float(read_on_host(torch.where(size > 0, moved, 0.0)))


def _converged(
    change: float, before: float, least: float, is_last: bool, t0: float, h: float
) -> bool:
    """Whether sweeps are done: the last one moved the states by rounding alone.

    change, before: what the last two sweeps changed, in units of rounding; least: the smallest
    change so far.

    Raises:
        NotContracting: they move away, or this was the last sweep there may be.
    """
    # rounding may go on for ever: changes of some units that do not shrink any more are the end
    if change <= 1 or (change <= 64 and change >= 0.5 * before):
        return True
    # a sweep may grow for a while before it contracts, where the equations are coupled one way
    if not math.isfinite(change) or is_last or change > 1e4 * least:
        raise NotContracting(
            f"the sweeps do not contract at t={t0:.9g} with step size {abs(h):.3g} (the last one "
            f"changed the states by {change:.3g} roundings, the one before by {before:.3g}): take "
            "smaller steps, or an implicit method where the problem is stiff"
        )
    return False
