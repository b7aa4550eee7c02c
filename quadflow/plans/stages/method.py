"""The plan *stages*: explicit Runge-Kutta."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from ...equations.small_states import array_of, tensor_of
from ...equations.velocity import Velocity
from ...rules.tableau import Tableau
from ..interpolants import Anchor
from ..method import Method, Stepper, reach, widest_gap
from ..result import StepResult
from ..segment import Segment, polynomial_weights
from ..state import State, between_ends
from ..sums import add_scaled, combine
from .sums import SUMMED_AT_ONCE, ColumnSums, StageSums, array_stages, stage_columns, tensor_stages

if TYPE_CHECKING:
    from ...compiled.step import CompiledTrial


@dataclass(frozen=True, eq=False, repr=False)
class StagesMethod(Method):
    """The plan *stages*: node velocities built one after another (explicit Runge-Kutta).

    Attributes:
        tableau: its numbers.
    """

    looks_back: ClassVar[bool] = False

    tableau: Tableau

    @functools.cached_property
    def widest_gap(self) -> float:
        return widest_gap(self.tableau.c)

    @functools.cached_property
    def stability_limit(self) -> float | None:
        tableau, s = self.tableau, len(self.tableau.a)
        moment, powers = np.ones(s), [1.0]
        for _ in range(s):
            powers.append(float(tableau.b @ moment))
            moment = tableau.matrix @ moment
        return reach(lambda x: np.abs(np.polynomial.polynomial.polyval(-x, powers)))

    @property
    def stiff_margins(self) -> tuple[float, float] | None:
        # stages none of which are at one time see f jump in time
        if self.tableau.probe is None:
            return None
        return (5.0, 10.0) if np.count_nonzero(self.tableau.probe[0]) > 2 else None

    def stepper(self, velocity: Velocity, *, adaptive: bool = False) -> StagesStepper:
        return StagesStepper(self, velocity, adaptive=adaptive)


def stages(tableau: Tableau, name: str = "stages") -> StagesMethod:
    """The method of an explicit Runge-Kutta tableau.

    Args:
        tableau: its orders are the method's; without `errors` the method takes fixed steps alone.
        name: shown in messages.

    Raises:
        TypeError: tableau is no Tableau.
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


class StagesStepper(Stepper):
    """Runge-Kutta steps: the velocities of the stages, one after another."""

    def __init__(self, method: StagesMethod, velocity: Velocity, *, adaptive: bool = False) -> None:
        super().__init__(method, velocity, adaptive=adaptive)
        self.tableau = method.tableau
        self._columns: dict[Any, list[Tensor]] = {}

    def step(self, state: State, t1: Any, *, is_last: bool = False) -> StepResult:
        tableau = self.tableau
        compiled: CompiledTrial | None = None
        if self.compiled is not None:
            compiled = self.compiled.stages(tableau, state.known is not None)
        if compiled is not None and compiled.known:
            return self._staged(state, t1, *_compiled_stages(compiled, state, t1))
        if compiled is None:
            ways = self._of_arrays, self._of_tensors
            return self.either(state, t1, *ways, state, t1)
        before = self.velocity.counts
        result = self._of_tensors(state, t1)
        compiled.measure(before)
        return result

    def _of_tensors(self, state: State, t1: Any) -> StepResult:
        velocity, y0, tableau = self.velocity, state.y, self.tableau
        h: Any = t1 - state.t
        start = self.start(state)
        detail = start.detail

        def f(t: Any, y: Tensor, held: bool) -> Tensor:
            nonlocal detail
            v, detail = velocity.of_held(t, y) if held else velocity(t, y)
            return v

        sums = self._sums(y0, h)
        y1, error = tensor_stages(tableau, f, state.t, t1, h, start.v, sums)
        return self._staged(state, t1, start, y1, sums.velocities, error, detail)

    def _of_arrays(self, state: State, t1: float) -> StepResult:
        velocity, y0 = self.velocity.arrays, array_of(state.numbers)
        start = self.start_in_arrays(state)
        f, flat, v0, shape = velocity.at, y0, array_of(start.v), y0.shape
        if y0.ndim > 1:
            flat, v0 = y0.reshape(-1), v0.reshape(-1)

            def f(t: float, y: np.ndarray, held: bool = False) -> np.ndarray:
                return velocity.at(t, y.reshape(shape), held).reshape(-1)

        y1, error, velocities = array_stages(self.tableau, f, state.t, t1, flat, v0, velocity.real)
        if y0.ndim > 1:
            y1, velocities = y1.reshape(shape), velocities.reshape(-1, *shape)
            error = None if error is None else error.reshape(shape)
        return self._staged(state, t1, start, y1, velocities, error, None)

    def _staged(
        self, state: State, t1: Any, start: Anchor, y1: Any, velocities: Any,
        error: Any, detail: Any, ratio: Tensor | None = None,
    ) -> StepResult:  # fmt: skip
        """The result of stages that are done; velocities: as of `Stages`."""
        tableau = self.tableau
        done = Stages(self, tableau, state, t1, velocities)
        end: Anchor | None = None
        other: Callable[[], Anchor] | None = None
        if tableau.first_same_as_last:
            end = Anchor(t1, y1, velocities[-1], detail)
        elif tableau.c[-1] == 1.0:
            # nothing but what it needs: states that held their steps would hold all steps before
            h, y0 = t1 - state.t, state.numbers
            other = self.other_end(lambda: _last_stage(tableau, y0, t1, h, velocities))
        pair = between_ends(state, start) if tableau.probe is None else done.lipschitz_pair
        return StepResult(
            State(t1, y1, end, other_end=other), error, tableau.error_order, done.segment, start,
            state, lipschitz_pair=pair, ratio=ratio,
            make_misses=done.misses if tableau.misses else None,
        )  # fmt: skip

    def _sums(self, y0: Tensor, h: Any) -> StageSums:
        tableau = self.tableau
        large = y0.numel() > SUMMED_AT_ONCE
        if large or len(tableau.a) < 4 or isinstance(h, Tensor):
            return StageSums(tableau, y0, h)
        key = (y0.dtype, y0.device)
        if key not in self._columns:
            self._columns[key] = stage_columns(tableau, y0)
        return ColumnSums(tableau, y0, h, self._columns[key])


def _last_stage(tableau: Tableau, y0: Any, t1: Any, h: Any, velocities: Any) -> Anchor:
    """The last stage's evaluation, of a method that makes it at the end of the step."""
    *earlier, last = tensor_of(velocities)
    return Anchor(t1, add_scaled(tensor_of(y0), combine(tableau.a[-1], earlier), h), last)


@dataclass(slots=True)
class Stages:
    """What may be asked of a Runge-Kutta step that is done.

    velocities: of its stages, a sequence of tensors or one array (s, *shape).
    """

    stepper: Stepper
    tableau: Tableau
    state: State
    t1: Any
    velocities: Any
    _known: list[Tensor] | None = None

    def _stages(self) -> Sequence[Tensor]:
        found: Sequence[Tensor] = tensor_of(self.velocities)
        return found

    def lipschitz_pair(self) -> tuple[Tensor, Tensor]:
        """`StepResult.lipschitz_pair`, of a tableau with a probe."""
        assert self.tableau.probe is not None
        v_weights, y_weights = self.tableau.probe
        velocities, h = tuple(self._stages()), self.t1 - self.state.t
        return combine(y_weights, velocities) * h, combine(v_weights, velocities)

    def _evaluated(self, result: StepResult) -> list[Tensor]:
        """All velocities that dense output is made of."""
        if self._known is None:
            t0, y0, h = self.state.t, self.state.y, self.t1 - self.state.t
            known = list(self._stages())
            if not self.tableau.first_same_as_last:
                anchor = self.stepper.start(result.state)  # shared with the next interval
                result.state.known = anchor
                known.append(anchor.v)
            for node, row in self.tableau.extra:
                inner = add_scaled(y0, combine(row, known), h)
                known.append(self.stepper.velocity(t0 + node * h, inner)[0])
            self._known = known
        return self._known

    def segment(self, result: StepResult) -> Segment:
        """The step's dense output."""
        dense = self.tableau.dense
        velocities, weights = self._evaluated(result), polynomial_weights(dense)
        return Segment(
            self.state.t, self.t1, self.state.y, velocities, weights, degree=dense.shape[1]
        )

    def misses(self, result: StepResult) -> list[Tensor]:
        """By how much dense output misses what the step knows, see `Tableau.misses`."""
        size: Any = self.t1 - self.state.t
        if isinstance(size, Tensor):
            size = size.to(self.state.y.real.dtype)
        # f is evaluated with its graph, which dense output needs; the misses have none
        found = [v.detach() for v in self._evaluated(result)]
        return [combine(row, found) * size for row in self.tableau.misses]


def _compiled_stages(
    compiled: CompiledTrial, state: State, t1: Any
) -> tuple[Anchor, Tensor, list[Tensor], None, None, Tensor | None]:
    t0: Any = state.t
    start = state.anchor
    times = (t0, t1, None, None) if isinstance(t0, Tensor) else compiled.times(t0, t1)
    v0 = None if start is None else start.v
    y1, velocities, ratio = compiled(state.y, v0, times)
    if start is None:
        start = Anchor(t0, state.y, velocities[0])
    else:
        velocities.insert(0, v0)
    return start, y1, velocities, None, None, ratio
