"""quadflow's adaptive methods as solvers of scipy.integrate.solve_ivp, for NumPy functions.

    solve_ivp(fun, (0.0, 10.0), y0, method=GaussCollocation, rtol=1e-8, dense_output=True)

The steps are those that `quadflow.solve` takes; SciPy asks for them one by one.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import DenseOutput, OdeSolver
from torch import Tensor

from ..checks import check_choice
from ..control.control import StepController, Tolerance
from ..control.tolerances import ROUNDINGS
from ..equations.velocity import StateLayout, Time, Velocity
from ..errors import ToleranceWarning, VelocityError
from ..loop.steps import AdaptiveSteps, Landing, Limits, adaptive_stepper
from ..plans.method import Method
from ..plans.registry import get_method
from ..plans.result import StepResult
from ..plans.segment import Segment
from ..plans.state import State

NODE_EVALUATIONS = ("loop", "broadcast")
LEAST_RTOL = ROUNDINGS * float(np.finfo(np.float64).eps)
# instead of 0: no error of a component that is 0 passes, and 0/0 is not met
LEAST_ATOL = float(np.finfo(np.float64).tiny)


class QuadflowSolver(OdeSolver):  # type: ignore[misc]  # SciPy has no type hints
    """The common part of this module's solvers; take one of them, or `solver_class`.

    Args:
        fun, t0, y0, t_bound: as in `OdeSolver`; y0 (n,), solved in float64 or, where it is complex,
            in complex128. fun must leave the y it is given as it is. t_bound may be infinite where
            a terminal event ends the solve.
        max_step: longest step, > 0.
        rtol, atol: a step may make an error of atol + rtol*|y| in the RMS norm; floats, or arrays
            (n,). rtol is raised to 100 times float64's epsilon, with a warning. atol may be 0: a
            component that is 0 must then be free of error.
        vectorized: fun takes y of shape (n, k) at one time. Nodes lie at different times, so this
            alone does not let them be evaluated together.
        first_step: size of the first step, at most |t_bound - t0|; None: from one evaluation more.
        min_step: a step that would have to be shorter fails.
        max_steps: accepted and rejected ones together; None is no limit, as SciPy has none.
        node_evaluation: "loop" calls fun once a node, which is always right. "broadcast" promises
            that fun(t, y) takes t of shape (k,) with y of shape (n, k), column i being the state at
            time t[i]; the nodes of a sweep are then evaluated in one call. A fun that takes columns
            keeps the promise if it does not use t, or uses it elementwise.
        extraneous: what solve_ivp passes on for other solvers; a warning names it.

    Attributes (besides those of `OdeSolver`):
        nfev: evaluations of fun, each of one state: a call with k columns counts as k. njev and
            nlu stay 0.
        steps: the `AdaptiveSteps`: accepted, rejected, refined; None where there is nothing to
            solve (t_bound = t0, or n = 0), as is `velocity`.
        velocity: the `Velocity` that counts: nfe, and calls, the calls of fun.

    Raises:
        ValueError, TypeError: a bad argument, named with its value.
        VelocityError: while stepping, fun returns another shape than y's (a single number does for
            n = 1).
    """

    method: str | Method
    """A registered name or a Method, with an error estimate."""

    def __init__(
        self,
        fun: Callable[..., Any],
        t0: float,
        y0: ArrayLike,
        t_bound: float,
        max_step: float = math.inf,
        rtol: ArrayLike = 1e-3,
        atol: ArrayLike = 1e-6,
        vectorized: bool = False,
        first_step: float | None = None,
        *,
        min_step: float = 0.0,
        max_steps: int | None = None,
        node_evaluation: str = "loop",
        **extraneous: Any,
    ) -> None:
        if extraneous:
            warnings.warn(
                f"{type(self).__name__} ignores {', '.join(extraneous)}: it has no such argument",
                stacklevel=3,
            )
        method = _adaptive(self.method)
        super().__init__(fun, t0, y0, t_bound, vectorized, support_complex=True)
        start, end = float(t0), float(t_bound)
        if not math.isfinite(start):
            raise ValueError(f"t0 must be finite, got {t0}")
        if math.isnan(end):
            raise ValueError(f"t_bound must be a number, got {t_bound}")
        check_choice(node_evaluation, NODE_EVALUATIONS, "node_evaluation")
        if first_step is not None and not 0 < first_step <= abs(end - start):
            raise ValueError(
                f"first_step must be positive and at most |t_bound - t0| = {abs(end - start)}, "
                f"got {first_step}"
            )
        limits = Limits(
            first_step, min_step, max_step, sys.maxsize if max_steps is None else max_steps
        )
        tolerance = Tolerance(
            _tolerance(rtol, "rtol", self.n, LEAST_RTOL, warns=True),
            _tolerance(atol, "atol", self.n, LEAST_ATOL),
        )
        self.steps: AdaptiveSteps | None = None
        self._dense_asked = False
        self.velocity: Velocity | None = None
        if self.n and start != end:
            state = torch.from_numpy(self.y.copy())
            self.velocity = Velocity(
                _NumpyFunction(self), StateLayout(state), (start, end), node_evaluation
            )
            self.steps = AdaptiveSteps(
                adaptive_stepper(method, self.velocity, tolerance), State(start, state),
                [Landing(end)], tolerance, StepController(max_factor=method.max_growth), limits,
            )  # fmt: skip
            # solve_ivp does not say so before, but asks after every step if it asks at all
            self.steps.wants_dense = lambda t0, t1: self._dense_asked
        self._result: StepResult | None = None

    def _step_impl(self) -> tuple[bool, str | None]:
        assert self.steps is not None
        result = next(self.steps, None)
        self._count()
        if result is None:
            return False, self.steps.message
        self._result = result
        self.t, self.y = result.state.t, result.state.y.numpy()
        return True, None

    def _dense_output_impl(self) -> DenseOutput:
        assert self._result is not None
        self._dense_asked = True
        segment = self._result.segment()
        self._count()
        return SegmentOutput(segment)

    def _count(self) -> None:
        assert self.velocity is not None
        self.nfev = self.velocity.nfe


class _Collocation(QuadflowSolver):
    """Explicit collocation, one to three sweeps a step."""

    def __init__(self, *args: Any, nodes: int | None = None, **options: Any) -> None:
        if nodes is not None:
            self.method = get_method(self.method).on_nodes(nodes)
        super().__init__(*args, **options)


class GaussCollocation(_Collocation):
    """Method "gauss": explicit collocation on Gauss-Legendre nodes, one to three sweeps a step.

    Args:
        nodes: their number, 2 to 8; None lets the tolerance choose
            (`quadflow.plans.sweeps.nodes.nodes_for_tolerance`). Others: see `QuadflowSolver`.
    """

    method = "gauss"


class LobattoCollocation(_Collocation):
    """Method "lobatto": explicit collocation on Gauss-Lobatto nodes, one to three sweeps a step.

    Args:
        nodes: as in `GaussCollocation`; the first of them is the step's start.
    """

    method = "lobatto"


class VariableOrderAdams(QuadflowSolver):
    """Method "adams": predictor-corrector of variable order, for functions that are expensive."""

    method = "adams"


class Dopri5(QuadflowSolver):
    """Method "dopri5": the Runge-Kutta pair of SciPy's RK45, with quadflow's step control."""

    method = "dopri5"


class Tsit5(QuadflowSolver):
    """Method "tsit5": Tsitouras's Runge-Kutta pair of orders 5 and 4."""

    method = "tsit5"


class Dopri8(QuadflowSolver):
    """Method "dopri8": the Runge-Kutta method of SciPy's DOP853, with quadflow's step control."""

    method = "dopri8"


def solver_class(method: str | Method) -> type[QuadflowSolver]:
    """A class for solve_ivp's `method` of any quadflow method that chooses its steps.

    Args:
        method: a name in `quadflow.methods()`, or a Method.

    Raises:
        ValueError: unknown name, or a method without an error estimate. TypeError: neither.
    """
    chosen = _adaptive(method)
    described = f"Method {chosen.name!r}, see `QuadflowSolver`."
    return type(chosen.name, (QuadflowSolver,), {"method": chosen, "__doc__": described})


class SegmentOutput(DenseOutput):  # type: ignore[misc]
    """A step's polynomial as SciPy's dense output: t a number or (T,), states (n,) or (n, T)."""

    def __init__(self, segment: Segment) -> None:
        super().__init__(segment.t0, segment.t1)
        self.segment = segment

    def _call_impl(self, t: np.ndarray) -> np.ndarray:
        segment = self.segment
        if not t.size:
            return np.empty((len(segment.y0), 0), segment.y0.numpy().dtype)
        return segment(float(t)).numpy() if t.ndim == 0 else segment.at(t.tolist()).numpy().T


class _NumpyFunction:
    """A solver's NumPy function as `Velocity` calls it."""

    def __init__(self, solver: QuadflowSolver) -> None:
        self._solver = solver

    def evaluate(self, t: Time, y: Tensor) -> tuple[Tensor, None]:
        """dy/dt at one state (n,); this entry brings t as a float."""
        return self._velocity(self._solver.fun_single, float(t), y.numpy()), None

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at a node's state (n,), or at the states (k, n) of all nodes, t being (k, 1)."""
        if y.dim() == 1:
            return self.evaluate(t.item(), y)[0]
        return self._velocity(self._solver._fun, t.reshape(-1).numpy(), y.numpy().T)

    def _velocity(self, fun: Callable[..., Any], t: Any, y: np.ndarray) -> Tensor:
        value: np.ndarray = fun(t, y)
        if value.shape != y.shape:
            if self._solver.n > 1 or value.size != y.size:
                raise VelocityError(
                    f"fun returned an array of shape {value.shape} for y of shape {y.shape}"
                    + (f" and t of shape {t.shape}" if y.ndim > 1 else "")
                )
            value = value.reshape(y.shape)
        # fun may fill the same array in its next call
        return torch.from_numpy(value.T.copy())


def _adaptive(method: str | Method) -> Method:
    chosen = get_method(method)
    if chosen.error_order is None:
        raise ValueError(
            f"method {chosen.name!r} has no error estimate, so it cannot choose its steps: take an "
            "adaptive method such as 'dopri5'"
        )
    return chosen


def _tolerance(
    value: ArrayLike, name: str, n: int, least: float, warns: bool = False
) -> float | Tensor:
    """A tolerance raised to `least`, with a warning or without."""
    values = np.asarray(value, dtype=np.float64)
    if values.shape not in ((), (n,)):
        raise ValueError(f"{name} must be a number or of shape ({n},), got shape {values.shape}")
    if not (values >= 0).all():
        raise ValueError(f"{name} must not be negative or NaN, got {value!r}")
    if warns and (values < least).any():
        warnings.warn(
            f"{name}={value!r} is more than float64 holds: raised to {least:.3g}",
            ToleranceWarning,
            stacklevel=4,
        )
    raised = np.maximum(values, least)
    return torch.from_numpy(raised) if raised.ndim else float(raised)
