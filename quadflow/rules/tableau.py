"""A Runge-Kutta tableau: checked when it is made, with what a step wants to know of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..checks import check_booleans
from .tableau_checks import (
    check_step,
    estimate_rows,
    extra_stages,
    interpolant,
    numbers,
    positive_integer,
    stage_rows,
)


@dataclass(frozen=True, eq=False, init=False)
class Tableau:
    """An explicit Runge-Kutta method, its error estimate and its interpolant.

    Numbers may be given as lists, tuples or arrays; they are kept as here, copied and read-only.

    Args:
        a: s rows, row i of i numbers: the weights of the earlier stages in stage i.
        b: weights (s,).
        order: p.
        dense: coefficients (m, degree) with
            y(t0 + θh) = y0 + h Σ_j (Σ_i dense[j, i] θ^(i+1)) v_j.
            Rows past s are the end velocity and then the velocities of `extra` stages; an end
            velocity without a row has the weight zero. The default is cubic Hermite interpolation
            of states and velocities at the ends of the step.
        dense_order: q of the error O(h^q) of the solution between the steps, over the whole span:
            min(p, local order of the interpolant), since its own error does not accumulate; that of
            the cubic is min(4, p).
        errors: rows of weights (e, s or s+1) whose velocity combinations estimate the local error.
            One row is the usual embedded difference, two rows are Hairer's combined estimate of
            DOP853 (fifth-order row first). A column s+1 is the velocity at the end of the step,
            which then is kept as one more stage, the same as the first of the next step.
        error_order: q, the local error estimate being O(h^q).
        extra: stages for the interpolant, (c, row of a) each, evaluated only when a time inside the
            step is wanted.
        first_same_as_last: whether stage s is f at the end of the step.

    Raises:
        TypeError: an argument that is no number, or no rows of numbers.
        ValueError: an argument of another shape, not finite, or at odds with the others; the
            message names it.
    """

    a: tuple[tuple[float, ...], ...]
    b: np.ndarray
    order: int
    dense: np.ndarray
    dense_order: int
    errors: tuple[np.ndarray, ...]
    error_order: int | None
    extra: tuple[tuple[float, tuple[float, ...]], ...]
    first_same_as_last: bool

    def __init__(
        self,
        a: Sequence[ArrayLike],
        b: ArrayLike,
        order: int,
        dense: ArrayLike | None = None,
        dense_order: int | None = None,
        errors: Sequence[ArrayLike] | ArrayLike = (),
        error_order: int | None = None,
        extra: Sequence[tuple[float, ArrayLike]] = (),
        first_same_as_last: bool = False,
    ) -> None:
        check_booleans(first_same_as_last=first_same_as_last)
        stages, weights, fsal = stage_rows(a), numbers(b, "b"), bool(first_same_as_last)
        check_step(stages, weights, fsal)
        s, p = len(stages), positive_integer(order, "order")
        estimates, more = estimate_rows(errors, s, fsal), extra_stages(extra, s + (not fsal))
        rows, q = interpolant(dense, dense_order, p, weights, len(more), fsal)
        if any(len(row) > s for row in estimates):
            # f at the end of the step, evaluated in every step: a stage like the others
            stages, weights, fsal = (*stages, tuple(weights.tolist())), np.append(weights, 0), True
            estimates = [np.append(row, 0) if len(row) == s else row for row in estimates]
        if bool(estimates) != (error_order is not None):
            raise ValueError(
                f"error_order must be given with errors, and only with them: got {error_order!r} "
                f"and {len(estimates)} rows of errors"
            )
        if error_order is not None:
            error_order = positive_integer(error_order, "error_order")
        values = {
            "a": stages, "b": weights, "order": p, "dense": rows, "dense_order": q,
            "errors": tuple(estimates), "extra": more, "first_same_as_last": fsal,
            "error_order": error_order,
        }  # fmt: skip
        for array in (weights, rows, *estimates):
            array.setflags(write=False)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # through the constructor, which makes the arrays read-only
        return type(self), tuple(getattr(self, one.name) for one in fields(self))

    @functools.cached_property
    def c(self) -> np.ndarray:
        """Nodes (s,): the row sums of a; exactly 1 at the end of a step, past which f is not
        evaluated."""
        sums = np.array([math.fsum(row) for row in self.a])
        return np.where(np.abs(sums - 1) < 1e-14, 1.0, sums)

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """The matrix (s, s) of a, with its zeros."""
        s = len(self.a)
        return np.array([[*row, *[0.0] * (s - len(row))] for row in self.a])

    @functools.cached_property
    def numbers(self) -> tuple[list[float], list[float], list[list[float]]]:
        """c, b and errors as Python's numbers, by which a step multiplies tensors."""
        return self.c.tolist(), self.b.tolist(), [row.tolist() for row in self.errors]

    @functools.cached_property
    def probe(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """How a step sees f change with the state: weights (s,) of the stage velocities, and
        weights (s,) that make h times the matching difference of the stage states; None where it
        cannot.

        It is the difference of the last two stages where both are at the end of the step (Hairer &
        Wanner, Solving ODEs II, section IV.2). Else it is the highest divided difference over the
        stages of a method with four, which holds little of f's change with time.
        """
        s, c = len(self.a), self.c
        if not self.first_same_as_last:
            return None
        weights = np.zeros(s)
        if abs(c[-2] - 1) < 1e-12:
            weights[-2:] = -1.0, 1.0
        elif len(set(c)) == s:
            weights[:] = [1 / np.prod(np.delete(c[i] - c, i)) for i in range(s)]
        else:
            return None
        return tuple(weights.tolist()), tuple((weights @ self.matrix).tolist())

    @functools.cached_property
    def misses(self) -> list[list[float]]:
        """Rows of weights that tell by how much the interpolant misses what the step knows: h times
        these sums over all velocities that it is made of. No rows where it is made of the step's
        own stages, which the error estimate has judged.

        At every extra node: the state at which f was evaluated there, less the interpolant; both
        are right where f is smooth. For the velocity at the end, where that is no stage: the cubic
        with it less the parabola without it (both meet y0, v0 and y1), where they differ most.
        """
        rows: list[np.ndarray] = []
        width = len(self.dense)
        powers = np.arange(1, self.dense.shape[1] + 1)
        for node, row in self.extra:
            state = np.zeros(width)
            state[: len(row)] = row
            rows.append(state - self.dense @ node**powers)
        s = len(self.a)
        if not self.first_same_as_last and self.dense[s].any():
            end = np.zeros(width)
            end[:s] = -2.0 * self.b
            end[0] += 1.0
            end[s] += 1.0
            rows.append(4 / 27 * end)
        return [row.tolist() for row in rows]
