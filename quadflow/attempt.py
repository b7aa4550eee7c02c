"""The arithmetic of one interval as pure functions of tensors: run as it is, or compiled.

`Stepper` calls them; see `compiled` for how torch.compile does. h is a float, or a tensor that
broadcasts against the state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .dense import WeightFunction, along, combine, lagrange_weights
from .lagrange import barycentric_weights
from .quadrature import QuadratureRule
from .tableaus import Tableau

Evaluate = Callable[[Any, Tensor], Tensor]
"""(t, y) -> f(t, y), for one state or for several nodes together."""

CONTRACTION = 0.25
"""The share of an increment that the estimate takes for the error left after the sweep, from an
extrapolated guess. Measured on nonlinear problems at the steps that tolerances of 1e-3 to 1e-9 lead
to, all but a twentieth of the sweeps leave less, the median 1/7 to 1/75. Where sweeps hardly
contract, beyond h·L = 0.4 a sweep (L the Lipschitz constant), steps are unstable anyway."""


def stages(
    tableau: Tableau, f: Evaluate, t0: Any, t1: Any, h: Any, y0: Tensor, v0: Tensor
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """The state at t1 = t0 + h, the velocities of the stages (v0 first), the error's estimate."""
    velocities = [v0]
    y, c, b, errors = y0, *tableau.numbers
    for i in range(1, len(tableau.a)):
        y = along(y0, combine(tableau.a[i], velocities), h)
        # c = 1 means t1 itself: t0 + h may miss it by rounding
        velocities.append(f(t1 if c[i] == 1.0 else t0 + c[i] * h, y))
    y1 = y if tableau.first_same_as_last else along(y0, combine(b, velocities), h)
    if not errors:
        return y1, velocities, None
    size = h.to(y0.real.dtype) if isinstance(h, Tensor) else h
    parts = [combine(row, velocities) * size for row in errors]
    error = parts[0]
    if len(parts) == 2:
        fifth, third = parts[0].abs(), parts[1].abs()
        total = torch.sqrt(fifth**2 + 0.01 * third**2)
        error = torch.where(total > 0, fifth**2 / torch.where(total > 0, total, 1), 0.0)
    return y1, velocities, error


@dataclass(frozen=True)
class RuleTensors:
    """A rule with n nodes as tensors of the state's dtype (the nodes: float64) and device.

    matrix: (n, n). weights, nodes: (n,). embedded: the weights less those of the rule without its
    middle node, (n,); None where no error is to be estimated. barycentric: the weights of the nodes
    times `scale`, float64. key: the same for the same rule.
    dense: the weights of the velocity polynomial.
    """

    matrix: Tensor
    weights: Tensor
    nodes: Tensor
    embedded: Tensor | None
    has_left: bool
    scale: float
    barycentric: Tensor
    key: tuple[Any, ...]
    dense: WeightFunction

    @classmethod
    def of(cls, rule: QuadratureRule, embedded: np.ndarray | None, like: Tensor) -> RuleTensors:
        """Those of a rule, with the state's dtype and device."""
        span = float(rule.nodes.max() - rule.nodes.min())

        def tensor(array: np.ndarray, dtype: torch.dtype = like.dtype) -> Tensor:
            return torch.tensor(array).to(like.device, dtype)

        return cls(
            tensor(rule.integration_matrix),
            tensor(rule.weights),
            tensor(rule.nodes, torch.float64),
            None if embedded is None else tensor(embedded),
            rule.has_left,
            4.0 / span if span else 1.0,
            tensor(barycentric_weights(rule.nodes), torch.float64),
            (
                rule.nodes.tobytes(),
                rule.integration_matrix.tobytes(),
                rule.weights.tobytes(),
                embedded is None,
            ),
            lagrange_weights(rule.nodes),
        )

    def extrapolation(self, ratio: float | Tensor) -> Tensor:
        """The Lagrange basis of the last interval at the nodes of the next one, which is `ratio`
        times as long: (n, n), float64; row i times the old velocities is the guess at node i."""
        distances = ((1 - self.nodes + ratio * self.nodes.unsqueeze(1)) * self.scale).unsqueeze(1)
        n = len(self.nodes)
        own = torch.eye(n, dtype=torch.bool, device=distances.device)
        product: Tensor = torch.where(own, 1.0, distances).prod(2)
        return product * self.barycentric


def guessed(
    from_: str,
    rule: RuleTensors,
    v0: Tensor | None,
    old: Tensor | None,
    guess: Tensor | None,
    move: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The node velocities (n, numel) that sweeps start from, and those that the estimate takes for
    extrapolated (None after a constant guess).

    from_: "constant", v0 at all nodes; "extrapolated", by the matrix `move` from `old`, the node
    velocities of the last interval (n, *shape); "given", where earlier sweeps led to `old` from
    `guess`.
    """
    if from_ == "constant":
        assert v0 is not None
        return v0.reshape(1, -1).expand(len(rule.nodes), -1), None
    assert old is not None
    flat = old.reshape(len(old), -1)
    if from_ == "given":
        return flat, guess
    assert move is not None
    guess = product(move.to(flat.dtype), flat)
    return guess, guess


def sweep(
    rule: RuleTensors,
    f: Evaluate,
    t0: Any,
    h: Any,
    y0: Tensor,
    v0: Tensor | None,
    values: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Node velocities (n, numel) at the states that the given ones lead to, and the one at the
    start where the rule has it.

    A node at the start has the start's velocity in every sweep: with v0 it is not evaluated.
    """
    first = 1 if v0 is not None and rule.has_left else 0
    times = torch.add(rule.nodes[first:] * h, t0)
    states = integrated(rule.matrix[first:], y0, values, h).reshape(-1, *y0.shape)
    new = f(times, states).reshape(len(states), -1)
    if v0 is not None and first:
        return torch.cat((v0.reshape(1, -1), new)), v0
    return new, new[0].reshape(y0.shape) if rule.has_left else v0


def sweeps(
    rule: RuleTensors,
    f: Evaluate,
    t0: Any,
    h: Any,
    y0: Tensor,
    v0: Tensor | None,
    guess: Tensor,
    count: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Node velocities after `count` sweeps from a guess (n, numel), those one sweep earlier, and
    the velocity at the start where it is known by then."""
    values = previous = guess
    for _ in range(count):
        previous = values
        values, v0 = sweep(rule, f, t0, h, y0, v0, previous)
    return values, previous, v0


def product(matrix: Tensor, values: Tensor) -> Tensor:
    """matrix (m, n) times values (n, numel). In a graph it is written out as a sum, which is joined
    with what comes before and after, where a matrix product would be a call of its own."""
    if torch.compiler.is_compiling():
        return (matrix.unsqueeze(2) * values).sum(1)
    return matrix @ values


def integrated(matrix: Tensor, y0: Tensor, values: Tensor, h: Any) -> Tensor:
    """The states y0 + h·matrix·values, (m, numel), of weights (m, n) and velocities (n, numel)."""
    flat = y0.reshape(1, -1)
    if isinstance(h, Tensor):
        return along(flat, product(matrix, values), h)
    return torch.addmm(flat, matrix, values, alpha=h)


class Swept(NamedTuple):
    """An interval after some sweeps.

    y1: the state at its end. values: node velocities (n, *shape). error: estimate, of y0's shape.
    guess: see `guessed`. v0: the velocity at the start where it is known by then. ratio: of error
    and tolerance, where a compiled step brings it instead of the error.
    """

    y1: Tensor
    values: Tensor
    error: Tensor | None
    guess: Tensor | None
    v0: Tensor | None
    ratio: Tensor | None = None

    def completed(self, v0: Tensor | None, guess: Tensor | None) -> Swept:
        """With what was known before."""
        return self._replace(
            v0=self.v0 if v0 is None else v0, guess=self.guess if guess is None else guess
        )


def swept(
    rule: RuleTensors,
    h: Any,
    y0: Tensor,
    values: Tensor,
    previous: Tensor,
    v0: Tensor | None,
    guess: Tensor | None,
) -> Swept:
    """The end of the interval: values, previous, v0 as `sweeps` gives them, guess of `guessed`."""
    if isinstance(h, Tensor):
        y1 = integrated(rule.weights.reshape(1, -1), y0, values, h).reshape(y0.shape)
        h = h.to(y0.real.dtype)
    else:
        y1 = torch.addmv(y0.reshape(-1), values.T, rule.weights, alpha=h).reshape(y0.shape)
    error: Tensor | None = None
    if rule.embedded is not None:
        increment = product(rule.weights.unsqueeze(0), values - previous)
        if guess is None:
            missed = product(rule.embedded.unsqueeze(0), values)
        else:
            increment = increment * CONTRACTION
            missed = product(rule.embedded.unsqueeze(0), values - guess)
        error = ((increment.abs() + missed.abs()) * h).reshape(y0.shape)
    return Swept(y1, values.reshape(-1, *y0.shape), error, guess, v0)
