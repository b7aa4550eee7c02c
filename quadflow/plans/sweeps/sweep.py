"""Sweeps over the nodes of one interval, as pure functions of tensors or arrays.

h is a float, or a tensor that broadcasts against the state. Nothing is counted or checked here.
For small states (`small_states`) the same functions get NumPy's arrays, of which h is a float.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...rules.lagrange import lagrange_integrals, lagrange_taylor
from ...rules.rule import QuadratureRule
from ..sums import add_scaled, product
from .seen_times import SeenTimes

Array = np.ndarray

Evaluate = Callable[[Any, Any], Any]
"""(t, y) -> f(t, y), for one state or for several nodes together."""

CONTRACTION = 0.25
"""The share of an increment that the estimate takes for the error left after the sweep, from an
extrapolated guess. Measured on nonlinear problems at the steps that tolerances of 1e-3 to 1e-9 lead
to, all but a twentieth of the sweeps leave less, the median 1/7 to 1/75. Where sweeps hardly
contract, beyond h·L = 0.4 a sweep (L the Lipschitz constant), steps are unstable anyway."""


FORMULAS = (
    "sweep",
    "sweeps",
    "guessed",
    "integrated",
    "swept",
    "extrapolated",
    "_embedded",
)
"""Functions with formulas of a step, in which the laboratory plants faults."""


@dataclass(frozen=True)
class RuleTensors:
    """A rule with n nodes as tensors of the state's dtype (the nodes: float64) and device, or as
    arrays where the state is one.

    matrix: (n, n). weights, nodes: (n,). estimates: (2, n), the weights times `CONTRACTION`, and
    the weights less those of the rule without its middle node; None where no error is to be
    estimated. taylor, powers: (n, n) and exponents (n, 1), see `extrapolated`. key: equal for equal
    rules.
    """

    matrix: Any
    weights: Any
    nodes: Any
    estimates: Any
    taylor: Any
    powers: Any
    exponents: Any
    has_left: bool
    key: tuple[Any, ...]


@functools.lru_cache(maxsize=64)
def rule_arrays(rule: QuadratureRule, dtype: np.dtype[Any], estimated: bool) -> RuleTensors:
    """The rule's arrays for states of this dtype. estimated: an error is to be estimated."""
    degrees = np.arange(rule.n)
    estimates: Array | None = None
    if estimated:
        estimates = np.stack((CONTRACTION * rule.weights, _embedded(rule))).astype(dtype)
    return RuleTensors(
        matrix=rule.integration_matrix.astype(dtype),
        weights=rule.weights.astype(dtype),
        nodes=rule.nodes,
        estimates=estimates,
        taylor=lagrange_taylor(rule.nodes, 1.0).astype(dtype),
        powers=(rule.nodes[:, None] ** degrees).astype(dtype),
        exponents=degrees[:, None].astype(dtype).real,
        has_left=rule.has_left,
        key=(rule.nodes.tobytes(), rule.integration_matrix.tobytes(), rule.weights.tobytes(),
             estimated),
    )  # fmt: skip


def rule_tensors(rule: QuadratureRule, like: Tensor, *, estimated: bool) -> RuleTensors:
    """The rule's tensors for a state `like` this one. estimated: an error is to be estimated."""
    arrays = rule_arrays(rule, np.dtype(np.float64), estimated)
    dtypes = {"nodes": torch.float64, "exponents": like.real.dtype}
    tensors: dict[str, Any] = {
        name: torch.tensor(value).to(like.device, dtypes.get(name, like.dtype))
        for name, value in vars(arrays).items()
        if isinstance(value, np.ndarray)
    }
    return replace(arrays, **tensors)


def _embedded(rule: QuadratureRule) -> np.ndarray:
    """Weights b - b̂, b̂ being interpolatory on the nodes without the middle one: (n,), O(h^n)."""
    drop = rule.n // 2
    keep = np.delete(np.arange(rule.n), drop)
    difference: np.ndarray = rule.weights.copy()
    difference[keep] -= lagrange_integrals(rule.nodes[keep], np.array([1.0]))[0]
    return difference


def extrapolated(rule: RuleTensors, h: Any, width: Any, old: Any) -> Any:
    """The velocity polynomial of the interval before, at the nodes of the next, (n, numel).

    h, width: sizes of the next interval and of that before. old: velocities at the latter's nodes,
    (n, numel). In powers of the way past its end, of which the ratio of the two sizes takes a power
    each: the matrices are the same for all steps and samples. Past the nodes all terms of a basis
    polynomial have one sign, so nothing cancels.
    """
    terms = product(rule.taylor, old)
    if isinstance(h, Tensor):
        ratio = (h / torch.where(width == 0, 1.0, width)).to(rule.exponents.dtype)
        scales = ratio ** rule.exponents.reshape(-1, *(1,) * ratio.dim())
        # one ratio, or one for each sample, which are the leading axis of the state
        terms = (terms.reshape(len(terms), *ratio.shape[:1], -1) * scales.reshape(
            len(terms), *ratio.shape[:1], 1)).reshape(old.shape)  # fmt: skip
    else:
        terms = terms * (h / width) ** rule.exponents
    return product(rule.powers, terms)


def guessed(
    from_: str,
    rule: RuleTensors,
    h: Any,
    width: Any,
    v0: Any,
    old: Any,
    guess: Any,
) -> tuple[Any, Any]:
    """The node velocities (n, numel) that sweeps start from, and those that the estimate takes for
    extrapolated (None after a constant guess).

    from_: "constant", v0 at all nodes; "extrapolated" from `old`, the node velocities (n, *shape)
    of the interval before, of size `width`; "given", where earlier sweeps led to `old` from
    `guess`.
    """
    if from_ == "constant":
        assert v0 is not None
        return _repeated(v0, len(rule.nodes)), None
    assert old is not None
    flat = old.reshape(len(old), -1)
    if from_ == "given":
        return flat, guess
    guess = extrapolated(rule, h, width, flat)
    return guess, guess


def node_times(rule: RuleTensors, t0: Any, h: Any) -> Any:
    """The times of the rule's nodes, float64: (n,), or (n, B, 1, …, 1) with one for each sample."""
    nodes = rule.nodes
    if isinstance(h, Tensor) and h.dim():
        nodes = nodes.reshape(-1, *(1,) * h.dim())
    return nodes * h + t0


def sweep(
    rule: RuleTensors,
    f: Evaluate,
    times: Any,
    h: Any,
    y0: Any,
    v0: Any,
    values: Any,
    seen: SeenTimes | None = None,
) -> tuple[Any, Any]:
    """Node velocities (n, numel) at the states that the given ones lead to, and the one at the
    start where the rule has it.

    times: see `node_times`. A node at the start has the start's velocity in every sweep: with v0 it
    is not evaluated.
    seen: of all nodes, where the rounding of their times is to be undone.
    """
    first = 1 if v0 is not None and rule.has_left else 0
    if v0 is not None and first == len(rule.matrix):  # the start is the only node
        return v0.reshape(1, -1), v0
    if seen is not None:
        new = _at_seen_times(rule, f, seen, h, y0, v0 if first else None, values)
        return new, new[0].reshape(y0.shape) if rule.has_left else v0
    matrix = rule.matrix[first:] if first else rule.matrix
    times = times[first:] if first else times
    new = f(times, integrated(matrix, y0, values, h)).reshape(len(matrix), -1)
    if v0 is not None and first:
        return _joined(v0, new), v0
    return new, new[0].reshape(y0.shape) if rule.has_left else v0


def _at_seen_times(
    rule: RuleTensors,
    f: Evaluate,
    seen: SeenTimes,
    h: Any,
    y0: Tensor,
    start: Tensor | None,
    values: Tensor,
) -> Tensor:
    """The node velocities of `sweep`: every node's state is put on the trajectory at the time that
    func sees, and the velocity there is brought back to the node. start: that of a first node,
    where it is known.
    """
    first = 0 if start is None else 1
    shifts = seen.shifts.to(y0.real.dtype)
    states = integrated(rule.matrix[first:], y0, values, h)
    known = values[first:].reshape(states.shape)
    states = torch.addcmul(states, known, (seen.shifts * h).to(y0.real.dtype)[first:])
    new = f(seen.times[first:], states).reshape(len(states), -1)
    if start is not None:
        new = _joined(start, new)
    slopes = product(seen.matrix[first:], new).reshape(states.shape)
    back = new[first:].reshape(states.shape) - shifts[first:] * slopes
    back = back.reshape(len(states), -1)
    return back if start is None else _joined(start, back)


def sweeps(
    rule: RuleTensors,
    f: Evaluate,
    times: Any,
    h: Any,
    y0: Any,
    v0: Any,
    guess: Any,
    count: int,
    seen: SeenTimes | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Node velocities after `count` sweeps from a guess (n, numel), those one sweep earlier, those
    two sweeps earlier where there are so many, and the velocity at the start where it is known."""
    values = previous = guess
    earlier: Any = None
    for done in range(count):
        earlier, previous = previous if done else None, values
        values, v0 = sweep(rule, f, times, h, y0, v0, previous, seen)
    return values, previous, earlier, v0


def _repeated(v: Any, n: int) -> Any:
    """The velocity at each of n nodes, (n, numel)."""
    if isinstance(v, np.ndarray):
        return np.repeat(v.reshape(1, -1), n, axis=0)
    return v.reshape(1, -1).expand(n, -1)


def _joined(first: Any, others: Any) -> Any:
    """A velocity before others (m, numel): (1 + m, numel)."""
    parts = (first.reshape(1, -1), others)
    return np.concatenate(parts) if isinstance(others, np.ndarray) else torch.cat(parts)


def integrated(matrix: Any, y0: Any, values: Any, h: Any) -> Any:
    """The states y0 + h·matrix·values, (m, *shape), of weights (m, n), velocities (n, numel)."""
    if isinstance(y0, np.ndarray):
        return y0 + (matrix.dot(values) * h).reshape(-1, *y0.shape)
    if isinstance(h, Tensor):
        return add_scaled(y0, product(matrix, values).reshape(-1, *y0.shape), h)
    states = torch.addmm(y0.reshape(1, -1), matrix, values, alpha=h)
    return states.reshape(-1, *y0.shape)


def swept(
    rule: RuleTensors,
    h: Any,
    y0: Any,
    values: Any,
    previous: Any,
    guess: Any,
    first: Tensor | None = None,
) -> tuple[Any, Any]:
    """The state at the end of the interval and its error's estimate, both of y0's shape.

    values, previous: node velocities after the last sweep, and before it. guess: that which the
    sweeps started from where it was extrapolated; None after a constant one. first: entries
    (numel,) whose guess was a constant all the same, of samples in their first interval.
    """
    if isinstance(h, Tensor):
        mean = product(rule.weights.unsqueeze(0), values)
        y1 = add_scaled(y0, mean.reshape(y0.shape), h)
        h = h.to(y0.real.dtype)
    elif isinstance(y0, np.ndarray):
        y1 = y0 + (rule.weights.dot(values) * h).reshape(y0.shape)
    else:
        y1 = torch.addmv(y0.reshape(-1), values.T, rule.weights, alpha=h).reshape(y0.shape)
    if rule.estimates is None:
        return y1, None
    if guess is None:
        increment = product(rule.weights[None], values - previous)
        error = abs(increment) + abs(product(rule.estimates[1:], values))
    elif guess is previous and first is None:
        error = abs(product(rule.estimates, values - guess)).sum(0)
    else:
        increment = product(rule.estimates[:1], values - previous)
        beyond = values - guess
        if first is not None:
            increment = torch.where(first, increment / CONTRACTION, increment)
            beyond = torch.where(first, values, beyond)
        error = abs(increment) + abs(product(rule.estimates[1:], beyond))
    return y1, error.reshape(y0.shape) * h


class Swept(NamedTuple):
    """An interval after some sweeps, in tensors or in arrays.

    y1: the state at its end. values: node velocities (n, *shape). error: estimate, of y0's shape.
    guess: see `guessed`. v0: the velocity at the start where it is known by then. previous: node
    velocities (n, numel) one sweep earlier, earlier: two sweeps earlier, where there are so many.
    ratio: of error and tolerance, where a compiled step brings it instead of the error.
    """

    y1: Any
    values: Any
    error: Any
    guess: Any
    v0: Any
    previous: Any
    earlier: Any
    ratio: Tensor | None = None
