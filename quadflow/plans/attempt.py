"""The arithmetic of one interval as pure functions of tensors, which `Stepper` calls.

h is a float, or a tensor that broadcasts against the state. Nothing is counted or checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..rules.lagrange import lagrange_integrals, lagrange_taylor
from ..rules.rule import QuadratureRule
from ..rules.tableau import Tableau
from .seen_times import SeenTimes
from .segment import along, combine

Evaluate = Callable[[Any, Tensor], Tensor]
"""(t, y) -> f(t, y), for one state or for several nodes together."""

CONTRACTION = 0.25
"""The share of an increment that the estimate takes for the error left after the sweep, from an
extrapolated guess. Measured on nonlinear problems at the steps that tolerances of 1e-3 to 1e-9 lead
to, all but a twentieth of the sweeps leave less, the median 1/7 to 1/75. Where sweeps hardly
contract, beyond h·L = 0.4 a sweep (L the Lipschitz constant), steps are unstable anyway."""

SUMMED_AT_ONCE = 2048
"""Most entries of a state whose stages are summed all at once: fewer operations, but more work for
every entry, which large states are spared."""


def stage_columns(tableau: Tableau, like: Tensor) -> list[Tensor]:
    """Of each of a tableau's stages the weights of its velocity in all that it goes into: the
    states of the later stages, then the end where that is no stage, then the error estimates.

    As tensors of the dtype and device of a state `like` this one.
    """
    end = [] if tableau.first_same_as_last else [tableau.b]
    table = torch.tensor(np.stack([*tableau.matrix[1:], *end, *tableau.errors]))
    return list(table.to(like.device, like.dtype).T.contiguous().unbind(0))


def stages(
    tableau: Tableau,
    f: Evaluate,
    t0: Any,
    t1: Any,
    h: Any,
    y0: Tensor,
    v0: Tensor,
    columns: list[Tensor] | None = None,
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """The state at t1 = t0 + h, the velocities of the stages (v0 first), the error's estimate.

    columns: of the tableau, for a float h: a velocity then is added at once to all that it goes
    into.
    """
    velocities, sums = [v0], None
    y, c, b, errors = y0, *tableau.numbers
    is_flat = y0.dim() == 1  # then nothing is reshaped, which would cost as much as a sum

    def shaped(x: Tensor) -> Tensor:
        return x if is_flat else x.view_as(y0)

    if columns is not None:
        sums = torch.outer(columns[0], v0 if is_flat else v0.reshape(-1))
    for i in range(1, len(tableau.a)):
        if sums is None:
            y = along(y0, combine(tableau.a[i], velocities), h)
        else:
            y = torch.add(y0, shaped(sums[i - 1]), alpha=h)
        # c = 1 means t1 itself: t0 + h may miss it by rounding
        v = f(t1 if c[i] == 1.0 else t0 + c[i] * h, y)
        velocities.append(v)
        if sums is not None and columns is not None:
            sums = torch.addr(sums, columns[i], v if is_flat else v.reshape(-1))
    y1 = y
    if not tableau.first_same_as_last:
        if sums is None:
            y1 = along(y0, combine(b, velocities), h)
        else:
            y1 = torch.add(y0, shaped(sums[len(b) - 1]), alpha=h)
    if not errors:
        return y1, velocities, None
    size = h.to(y0.real.dtype) if isinstance(h, Tensor) else h
    if sums is None:
        parts = [combine(row, velocities) * size for row in errors]
    else:
        parts = [shaped(sums[i - len(errors)]) * size for i in range(len(errors))]
    error = parts[0]
    if len(parts) == 2:
        # fifth²/√(fifth² + third²/100), without squares that overflow
        fifth, third = parts[0].abs(), parts[1].abs()
        total = torch.hypot(fifth, 0.1 * third)
        error = fifth * (fifth / torch.where(total == 0, 1.0, total))
    return y1, velocities, error


@dataclass(frozen=True)
class RuleTensors:
    """A rule with n nodes as tensors of the state's dtype (the nodes: float64) and device.

    matrix: (n, n). weights, nodes: (n,). estimates: (2, n), the weights times `CONTRACTION`, and
    the weights less those of the rule without its middle node; None where no error is to be
    estimated. taylor, powers: (n, n) and exponents (n,), see `extrapolated`. key: equal for equal
    rules.
    """

    matrix: Tensor
    weights: Tensor
    nodes: Tensor
    estimates: Tensor | None
    taylor: Tensor
    powers: Tensor
    exponents: Tensor
    has_left: bool
    key: tuple[Any, ...]


def rule_tensors(rule: QuadratureRule, like: Tensor, *, estimated: bool) -> RuleTensors:
    """The rule's tensors for a state `like` this one. estimated: an error is to be estimated."""

    def tensor(values: np.ndarray, dtype: torch.dtype = like.dtype) -> Tensor:
        return torch.tensor(values).to(like.device, dtype)

    degrees = np.arange(rule.n)
    estimates: Tensor | None = None
    if estimated:
        estimates = tensor(np.stack((CONTRACTION * rule.weights, _embedded(rule))))
    return RuleTensors(
        matrix=tensor(rule.integration_matrix),
        weights=tensor(rule.weights),
        nodes=tensor(rule.nodes, torch.float64),
        estimates=estimates,
        taylor=tensor(lagrange_taylor(rule.nodes, 1.0)),
        powers=tensor(rule.nodes[:, None] ** degrees),
        exponents=tensor(degrees, like.real.dtype),
        has_left=rule.has_left,
        key=(rule.nodes.tobytes(), rule.integration_matrix.tobytes(), rule.weights.tobytes(),
             estimated),
    )  # fmt: skip


def _embedded(rule: QuadratureRule) -> np.ndarray:
    """Weights b - b̂, b̂ being interpolatory on the nodes without the middle one: (n,), O(h^n)."""
    drop = rule.n // 2
    keep = np.delete(np.arange(rule.n), drop)
    difference: np.ndarray = rule.weights.copy()
    difference[keep] -= lagrange_integrals(rule.nodes[keep], np.array([1.0]))[0]
    return difference


WRITTEN_OUT = 400
"""Most entries of a state for which a graph has sums in the place of matrix products: measured with
8 nodes, on one core."""


def product(matrix: Tensor, values: Tensor) -> Tensor:
    """matrix (m, n) times values (n, numel). In the graph of a small state it is written out as a
    sum, which is joined with what comes before and after, where a matrix product would be a call
    of its own."""
    if torch.compiler.is_compiling() and values.shape[1] <= WRITTEN_OUT:
        return (matrix.unsqueeze(2) * values).sum(1)
    return torch.mm(matrix, values)


def extrapolated(rule: RuleTensors, h: Any, width: Any, old: Tensor) -> Tensor:
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
        terms = terms * ((h / width) ** rule.exponents).unsqueeze(1)
    return product(rule.powers, terms)


def guessed(
    from_: str,
    rule: RuleTensors,
    h: Any,
    width: Any,
    v0: Tensor | None,
    old: Tensor | None,
    guess: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The node velocities (n, numel) that sweeps start from, and those that the estimate takes for
    extrapolated (None after a constant guess).

    from_: "constant", v0 at all nodes; "extrapolated" from `old`, the node velocities (n, *shape)
    of the interval before, of size `width`; "given", where earlier sweeps led to `old` from
    `guess`.
    """
    if from_ == "constant":
        assert v0 is not None
        return v0.reshape(1, -1).expand(len(rule.nodes), -1), None
    assert old is not None
    flat = old.reshape(len(old), -1)
    if from_ == "given":
        return flat, guess
    guess = extrapolated(rule, h, width, flat)
    return guess, guess


def sweep(
    rule: RuleTensors,
    f: Evaluate,
    t0: Any,
    h: Any,
    y0: Tensor,
    v0: Tensor | None,
    values: Tensor,
    seen: SeenTimes | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Node velocities (n, numel) at the states that the given ones lead to, and the one at the
    start where the rule has it.

    A node at the start has the start's velocity in every sweep: with v0 it is not evaluated.
    seen: of all nodes, where the rounding of their times is to be undone.
    """
    first = 1 if v0 is not None and rule.has_left else 0
    if v0 is not None and first == len(rule.matrix):  # the start is the only node
        return v0.reshape(1, -1), v0
    if seen is not None:
        new = _at_seen_times(rule, f, seen, h, y0, v0 if first else None, values)
        return new, new[0].reshape(y0.shape) if rule.has_left else v0
    nodes = rule.nodes[first:] if first else rule.nodes
    if isinstance(h, Tensor) and h.dim():  # one for each sample
        nodes = nodes.reshape(-1, *(1,) * h.dim())
    times = torch.add(nodes * h, t0)
    matrix = rule.matrix[first:] if first else rule.matrix
    new = f(times, integrated(matrix, y0, values, h)).reshape(len(nodes), -1)
    if v0 is not None and first:
        return torch.cat((v0.reshape(1, -1), new)), v0
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
        new = torch.cat((start.reshape(1, -1), new))
    slopes = product(seen.matrix[first:], new).reshape(states.shape)
    back = new[first:].reshape(states.shape) - shifts[first:] * slopes
    back = back.reshape(len(states), -1)
    return back if start is None else torch.cat((start.reshape(1, -1), back))


def sweeps(
    rule: RuleTensors,
    f: Evaluate,
    t0: Any,
    h: Any,
    y0: Tensor,
    v0: Tensor | None,
    guess: Tensor,
    count: int,
    seen: SeenTimes | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Node velocities after `count` sweeps from a guess (n, numel), those one sweep earlier, those
    two sweeps earlier where there are so many, and the velocity at the start where it is known."""
    values = previous = guess
    earlier: Tensor | None = None
    for done in range(count):
        earlier, previous = previous if done else None, values
        values, v0 = sweep(rule, f, t0, h, y0, v0, previous, seen)
    return values, previous, earlier, v0


def integrated(matrix: Tensor, y0: Tensor, values: Tensor, h: Any) -> Tensor:
    """The states y0 + h·matrix·values, (m, *shape), of weights (m, n), velocities (n, numel)."""
    if isinstance(h, Tensor):
        return along(y0, product(matrix, values).reshape(-1, *y0.shape), h)
    states = torch.addmm(y0.reshape(1, -1), matrix, values, alpha=h)
    return states.reshape(-1, *y0.shape)


def swept(
    rule: RuleTensors,
    h: Any,
    y0: Tensor,
    values: Tensor,
    previous: Tensor,
    guess: Tensor | None,
    first: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The state at the end of the interval and its error's estimate, both of y0's shape.

    values, previous: node velocities after the last sweep, and before it. guess: that which the
    sweeps started from where it was extrapolated; None after a constant one. first: entries
    (numel,) whose guess was a constant all the same, of samples in their first interval.
    """
    if isinstance(h, Tensor):
        mean = product(rule.weights.unsqueeze(0), values)
        y1 = along(y0, mean.reshape(y0.shape), h)
        h = h.to(y0.real.dtype)
    else:
        y1 = torch.addmv(y0.reshape(-1), values.T, rule.weights, alpha=h).reshape(y0.shape)
    if rule.estimates is None:
        return y1, None
    if guess is None:
        increment = product(rule.weights.unsqueeze(0), values - previous)
        error = increment.abs() + product(rule.estimates[1:], values).abs()
    elif guess is previous and first is None:
        error = product(rule.estimates, values - guess).abs().sum(0)
    else:
        increment = product(rule.estimates[:1], values - previous)
        beyond = values - guess
        if first is not None:
            increment = torch.where(first, increment / CONTRACTION, increment)
            beyond = torch.where(first, values, beyond)
        error = increment.abs() + product(rule.estimates[1:], beyond).abs()
    return y1, error.reshape(y0.shape) * h


class Swept(NamedTuple):
    """An interval after some sweeps.

    y1: the state at its end. values: node velocities (n, *shape). error: estimate, of y0's shape.
    guess: see `guessed`. v0: the velocity at the start where it is known by then. previous: node
    velocities (n, numel) one sweep earlier, earlier: two sweeps earlier, where there are so many.
    ratio: of error and tolerance, where a compiled step brings it instead of the error.
    """

    y1: Tensor
    values: Tensor
    error: Tensor | None
    guess: Tensor | None
    v0: Tensor | None
    previous: Tensor | None
    earlier: Tensor | None
    ratio: Tensor | None = None
