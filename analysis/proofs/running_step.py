"""The step that runs against the step that was proved: an interval of `Stepper`, by trees."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import quadflow as qf

from ...equations.velocity import StateLayout, Velocity
from ...plans.adams.method import VariableOrderMethod
from ...plans.anchors.method import AnchorsMethod
from ...plans.interpolants import Anchor
from ...plans.result import StepResult
from ...plans.state import Behind, State
from ...plans.sweeps.method import SweepsMethod
from ..exact.methods import ExactStep, exact_step, exact_velocity, look_back
from ..exact.trees import all_trees, density, size, tree_problem, tree_text

TOLERANCE = 1e-9
"""Relative to the exact solution; float64 loses 1e-14 to 1e-11 on the way."""

UNEVEN = Fraction(6, 5)
"""Ratio of neighbouring steps in comparisons on uneven grids; with larger ones extrapolation
amplifies rounding too much."""

MANY_ANCHORS = 8
"""Beyond, the weights of an Adams formula are large and of both signs, and rounding shows."""


def uneven(method: qf.Method) -> Fraction:
    """`UNEVEN`, and less for many anchors: the weights of twelve have an absolute sum of 2.6e6 at
    6/5, and of 6e3 at 21/20."""
    return Fraction(21, 20) if _many_anchors(method) else UNEVEN


def _many_anchors(method: qf.Method) -> bool:
    return isinstance(method, VariableOrderMethod) and method.max_order > MANY_ANCHORS


THETAS = (0.21, 0.5, 0.83)


class Watched(TorchDispatchMode):
    """Inside, torch's operations are watched, for which steps stay in tensors that would go through
    NumPy."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _run(method: qf.Method, highest: int, ratio: float, intervals: int) -> StepResult:
    """The last of several intervals, each from the exact state; it goes from 0 to 1."""
    table, problem = all_trees(highest), tree_problem(highest)
    powers = torch.tensor([float(size(tree)) for tree in table.trees], dtype=torch.float64)
    assert problem.end is not None

    def exact(t: float) -> Tensor:
        return problem.end * t**powers  # type: ignore[operator]

    def slope(t: float) -> Tensor:
        velocity = exact_velocity(table, Fraction(t))
        return torch.tensor([float(v) for v in velocity], dtype=torch.float64)

    velocity = Velocity(problem.f, StateLayout(problem.y0), (-1.0, 1.0), "broadcast")
    stepper = method.stepper(velocity)
    sizes = [ratio**-j for j in range(intervals - 1, -1, -1)]
    t = -sum(sizes[:-1])
    state = State(t, exact(t))
    if isinstance(method, (AnchorsMethod, VariableOrderMethod)):
        times, h = [t], sizes[0]
        for _ in range(look_back(method)):
            h /= ratio
            times.insert(0, times[0] - h)
        known = [Anchor(s, exact(s), slope(s)) for s in times]
        # a method of variable order is run at its highest
        state = State(t, exact(t), known[-1], tuple(known[:-1]), order=len(known))
    elif isinstance(method, SweepsMethod) and method.guess == "extrapolated":
        h = sizes[0] / ratio
        nodes = method.rule.nodes
        values = torch.stack([slope(t - h + c * h) for c in nodes.tolist()])
        before = Behind(t - h, t, values)
        state = State(t, exact(t), last=before)
    for i, h in enumerate(sizes):
        t1 = 1.0 if i == len(sizes) - 1 else t + h
        result = stepper.step(state, t1)
        t = 0.0 if i == len(sizes) - 2 else t1
        reused = isinstance(method, AnchorsMethod) and method.correction == "PEC"
        state = State(
            t, exact(t), result.state.anchor if reused else None, result.state.history,
            result.state.last,
        )  # fmt: skip
    return result


def _expected_error(step: ExactStep, method: qf.Method) -> Tensor | None:
    """|the estimate| as the step combines its rows."""
    if not step.estimates:
        return None
    rows = torch.tensor([[float(e) for e in row] for row in step.estimates], dtype=torch.float64)
    rows = rows.abs()
    if step.combined:
        return rows[0] ** 2 / (rows[0] ** 2 + 0.01 * rows[1] ** 2).sqrt()
    if isinstance(method, SweepsMethod):
        return rows.sum(0)
    return rows[0]


def _comparable(method: qf.Method) -> int:
    """The order of the trees that float64 can compare to `TOLERANCE`.

    An extrapolated guess over n nodes amplifies rounding by up to (3 + 2√2)^n, and with one sweep
    an interval nothing takes that back: it grows with every interval, that is with the tree. The
    weights of many anchors meet velocities that grow with the tree, too.
    """
    if isinstance(method, SweepsMethod) and method.guess == "extrapolated":
        return 3 if method.sweeps == 1 and method.rule.n > 5 else 6
    return 3 if _many_anchors(method) else 6


def against_algebra(method: str | qf.Method, *, ratio: Fraction = Fraction(1)) -> list[str]:
    """Every difference between `Stepper` and the exact step of `exact.methods`, in words.

    Compared for all trees that float64 can compare, see `_comparable`, those included whose
    conditions fail: the state at the end, the dense output at three places, and the error estimate
    (that of DOP853 is zero up to order 5, which is why trees go to 6 where rounding lets them).

    Args:
        method: a registered name or a Method.
        ratio: of neighbouring steps, for methods that look back.

    Raises:
        ValueError, TypeError: as `exact_step`.
    """
    method = qf.get_method(method)
    highest = _comparable(method)
    table = all_trees(highest)
    proved = exact_step(method, table, ratio)
    intervals = 1
    if isinstance(method, AnchorsMethod):
        intervals = highest if method.correction == "PEC" else 1
    elif isinstance(method, SweepsMethod) and method.guess == "extrapolated":
        intervals = -(-highest // method.sweeps) + 1
    result = _run(method, highest, float(ratio), intervals)
    segment = result.segment()
    found: list[str] = []

    def compare(what: str, got: Tensor, want: Sequence[Fraction] | Tensor) -> None:
        scale = torch.tensor([1 / density(t) for t in table.trees], dtype=torch.float64)
        wanted = torch.as_tensor([float(w) for w in want], dtype=torch.float64)
        off = (got - wanted).abs() / torch.maximum(scale, wanted.abs())
        worst = int(torch.nan_to_num(off, nan=torch.inf).argmax())
        if not float(off[worst]) <= TOLERANCE:
            found.append(
                f"{what} differs at tree {tree_text(table.trees[worst])}: "
                f"{float(got[worst]):.12g}, proved {float(wanted[worst]):.12g}"
            )

    compare("the step", result.state.y, proved.end)
    for theta in THETAS:
        compare(f"dense output at {theta}", segment(theta), proved.dense(Fraction(theta)))
    expected = _expected_error(proved, method)
    if (result.error is None) != (expected is None):
        found.append("one has an error estimate and the other has not")
    elif result.error is not None and expected is not None:
        compare("the error estimate", result.error.abs(), expected)
    return found
