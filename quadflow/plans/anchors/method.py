"""The plan *anchors*: f at the ends of the intervals, and an interpolant through these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from ...equations.velocity import Velocity
from ...rules.gauss import gauss_legendre
from ...rules.pairs import DOPRI5
from ...rules.rule import QuadratureRule
from ..interpolants import (
    Anchor,
    Interpolant,
    Interval,
    IntervalVelocity,
    PolynomialInterpolant,
)
from ..method import FARTHEST, Method, Stepper
from ..result import StepResult
from ..segment import Segment
from ..stages.method import stages
from ..state import State, between_ends, in_tensors
from ..sums import add_scaled

PECE_LIMITS = (2.0, 2.4, 1.93, 1.41, 1.03, 0.77, 0.58, 0.43, 0.33, 0.26, 0.21, 0.06)
"""Real stability interval of Adams PECE with k = 1 … 12 anchors (k+1 correct), equal steps."""


@dataclass(frozen=True, eq=False, repr=False)
class AnchorsMethod(Method):
    """The plan *anchors*: f at the start of an interval, and at its end when it is corrected.

    The interpolant predicts the interval from the anchors so far.

    Attributes:
        rule: integrates the interpolant.
        interpolant: the velocity between anchors.
        correction: None keeps the prediction (Euler, Adams-Bashforth). "PEC" evaluates f at the
            predicted end, corrects with that anchor and reuses it as the start of the next interval
            (one evaluation an interval). "PECE" evaluates again at the corrected end.
        startup: how the first k-1 intervals are done. "rising" uses the anchors there are;
            "dopri5" takes Runge-Kutta steps, which keeps the order of k >= 3.
        forward_last: leave out evaluation and correction in the last interval of a fixed grid, so
            that PEC over N intervals costs N evaluations.

    Raises:
        ValueError: an unknown correction or startup, or forward_last without a correction.
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

    @property
    def stability_limit(self) -> float | None:
        k = self.interpolant.anchors
        known = isinstance(self.interpolant, PolynomialInterpolant) and k <= len(PECE_LIMITS)
        # steps that stability limits are never quite equal, which costs a fifth of the interval
        return 0.8 * PECE_LIMITS[k - 1] if known and self.correction == "PECE" else None

    @property
    def takes_sample_grid(self) -> bool:
        return self.startup == "rising"

    @property
    def is_driven(self) -> bool:
        return self.startup == "rising"

    def stepper(self, velocity: Velocity, *, adaptive: bool = False) -> AnchorsStepper:
        return AnchorsStepper(self, velocity, adaptive=adaptive)


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

    Raises:
        ValueError: an unknown correction or startup, or forward_last without a correction.
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

    Raises:
        TypeError, ValueError: k is no integer >= 1.
        ValueError: an unknown correction or startup, or forward_last without a correction.

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


FORMULAS = ("AnchorsStepper._predicted", "AnchorsStepper.finish")
"""Functions with formulas of a step, in which the laboratory plants faults."""


class Trial(NamedTuple):
    """An interval under way: what is known of it so far.

    state: at its start. t1: its end. is_last: no interval follows. start: f at its start. known:
    the anchors that it is predicted from. inside: the prediction. y1: where that leads. reached: f
    there.
    """

    state: State
    t1: Any
    is_last: bool
    start: Anchor | None = None
    known: tuple[Anchor, ...] = ()
    inside: IntervalVelocity | None = None
    y1: Tensor | None = None
    reached: Anchor | None = None


class AnchorsStepper(Stepper):
    """Steps that an interpolant through the anchors so far predicts, and may correct.

    A step says where f is wanted (`ask`) and goes on with what it is there (`tell`), so that it can
    be taken by whoever evaluates f. It looks at no more of its velocity than at the layout.
    """

    method: AnchorsMethod

    def __init__(
        self, method: AnchorsMethod, velocity: Velocity, *, adaptive: bool = False
    ) -> None:
        super().__init__(method, velocity, adaptive=adaptive)
        self._runge_kutta = stages(DOPRI5).stepper(velocity, adaptive=adaptive)

    def step(self, state: State, t1: Any, *, is_last: bool = False) -> StepResult:
        trial = self.begin(state, t1, is_last)
        while (wanted := self.ask(trial)) is not None:
            trial = self.tell(trial, *self.velocity.of_held(*wanted))
        if trial.inside is None:
            result = self._runge_kutta.step(State(state.t, state.y, trial.start), t1)
            result.state.history = trial.known
            return result
        return self.finish(trial)

    def begin(self, state: State, t1: Any, is_last: bool) -> Trial:
        """The interval from a state to t1, of which no more is known than the state brings."""
        trial = Trial(state, t1, is_last)
        start = state.anchor
        return trial if start is None else self._predicted(trial, start)

    def ask(self, trial: Trial) -> tuple[Any, Tensor] | None:
        """Time and state where f is wanted next; None where nothing more is."""
        method = self.method
        if trial.start is None:
            return trial.state.t, trial.state.y
        leaves = method.correction is None or (trial.is_last and method.forward_last)
        if leaves or trial.reached is not None or trial.y1 is None:
            return None
        return trial.t1, trial.y1

    def tell(self, trial: Trial, v: Tensor, detail: Any = None) -> Trial:
        """The interval with f where it was wanted."""
        if trial.start is None:
            return self._predicted(trial, Anchor(trial.state.t, trial.state.y, v, detail))
        assert trial.y1 is not None
        return trial._replace(reached=Anchor(trial.t1, trial.y1, v, detail))

    def _predicted(self, trial: Trial, start: Anchor) -> Trial:
        """The interval predicted, unless it is one of the first that Runge-Kutta takes."""
        method, state, t1 = self.method, trial.state, trial.t1
        interpolant = method.interpolant
        known = _spaced((*map(in_tensors, state.history), start), t1)[-interpolant.anchors :]
        if method.startup == "dopri5" and len(known) < interpolant.anchors:
            return trial._replace(start=start, known=known)
        inside = interpolant.integrate(Interval(known, state.t, t1, method.rule))
        y1 = add_scaled(state.y, inside.mean, self._size(trial))
        return trial._replace(start=start, known=known, inside=inside, y1=y1)

    def _size(self, trial: Trial) -> Any:
        h = trial.t1 - trial.state.t
        # per-sample times are float64, the state need not be
        return h.to(self.velocity.layout.time_dtype) if isinstance(h, Tensor) else h

    def finish(self, trial: Trial) -> StepResult:
        """The interval done, once nothing more is wanted."""
        method, state, t1 = self.method, trial.state, trial.t1
        inside, y1, known, reached = trial.inside, trial.y1, trial.known, trial.reached
        assert inside is not None and y1 is not None
        t0, y0, h = state.t, state.y, self._size(trial)
        end: Anchor | None = None
        error: Tensor | None = None
        other: Callable[[], Anchor] | None = None
        if reached is not None:
            interval = Interval((*known, reached), t0, t1, method.rule, inside)
            corrected = method.interpolant.integrate(interval)
            y1 = add_scaled(y0, corrected.mean, h)
            error = (corrected.mean - inside.mean) * h
            inside = corrected
            if method.correction == "PEC":
                end = Anchor(t1, y1, reached.v, reached.detail)
            else:
                other = self.other_end(lambda: reached)
        segment = Segment(t0, t1, y0, inside.values, inside.weights)
        return StepResult(
            State(t1, y1, end, known, other_end=other), error, len(known) + 1, lambda _: segment,
            trial.start, state, lipschitz_pair=between_ends(state, trial.start),
        )  # fmt: skip


def _spaced(anchors: tuple[Anchor, ...], t1: Any) -> tuple[Anchor, ...]:
    """The anchors without those that are much nearer to the last one than the step to t1 is long:
    their difference from it is their error, which a longer step would magnify."""
    *earlier, start = anchors
    if any(isinstance(t, Tensor) for t in (t1, *(anchor.t for anchor in anchors))):
        return anchors  # a time for every sample, which is not read here
    while earlier and abs(t1 - start.t) > FARTHEST * abs(start.t - earlier[-1].t):
        earlier.pop()
    return (*earlier, start)
