"""What the benchmarks solve, with f written for every framework as its users would write it.

torch: on states (..., d), so that several states go through one call. numpy: plain floats for a few
components (numpy's scalars are slower), arrays for many. jax: like torch's, to be jitted. All three
are made from the formulas of the problem library.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ...checks import integer_from
from ..references.reference import reference_end, relative_error
from .problem import Problem, get_problem

SCIENTIFIC = (
    "lotka-volterra", "kepler", "euler-body", "van-der-pol", "lorenz", "pleiades", "arenstorf",
)  # fmt: skip
"""Names of the scientific problems, in the order of the tables."""

MANY = 8
"""Components from which on numpy is given whole arrays where a problem has a formula for them."""


@dataclass(frozen=True)
class Subject:
    """An initial value problem for every framework.

    name: of it. torch_f: f(t, y) on states (..., d), t ignored or broadcasting. numpy_f: f(t, y) on
    one state (d,). jax_f: f(t, y, jnp) on one state (d,). y0: (d,) or, for a batch of independent
    trajectories, (B, d). span: (start, end). end: of y0's shape, the state at span[1]; None where
    it is not known. end_error: relative error of `end`.
    """

    name: str
    torch_f: Callable[[Any, Tensor], Tensor]
    numpy_f: Callable[[Any, Any], Any]
    jax_f: Callable[[Any, Any, Any], Any]
    y0: Tensor
    span: tuple[float, float]
    end: Tensor | None = None
    end_error: float = 0.0

    @property
    def states(self) -> int:
        """Number of states that are solved together."""
        return self.y0.numel() // self.y0.shape[-1]

    def error(self, reached: Any) -> float:
        """Relative error of an end state, the worst trajectory's; inf where it is not finite.

        Raises:
            ValueError: the end is not known.
        """
        if self.end is None:
            raise ValueError(f"{self.name}: no end is known to compare with")
        if not isinstance(reached, Tensor):
            reached = torch.from_numpy(np.array(reached, dtype=np.float64))
        error = relative_error(reached.to(self.end).reshape(self.end.shape), self.end)
        return error if math.isfinite(error) else math.inf


def torch_subject(
    name: str,
    f: Callable[[Any, Tensor], Tensor],
    y0: Tensor,
    span: tuple[float, float],
    end: Tensor | None = None,
) -> Subject:
    """A subject for the torch solvers alone."""

    def elsewhere(*_: Any) -> Any:
        raise NotImplementedError(f"{name} is written for torch only")

    return Subject(name, f, elsewhere, elsewhere, y0, span, end)


@functools.cache
def subject(name: str) -> Subject:
    """A scientific problem of the library by its name, with the library's reference end."""
    problem = get_problem(name)
    end, end_error, _ = reference_end(problem)
    return Subject(name, *forms(problem), problem.y0, problem.span, end, end_error)


Forms = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]
"""torch_f, numpy_f and jax_f of a `Subject`."""


def forms(problem: Problem) -> Forms:
    """The problem's right-hand side for every framework, from its formulas."""
    rhs, whole = problem.rhs, problem.vector

    def torch_f(t: Any, y: Tensor) -> Tensor:
        return torch.stack(tuple(rhs(t, y.unbind(-1), torch)), -1)

    def numpy_f(t: Any, y: Any) -> Any:
        return np.array(rhs(t, y.tolist(), math))

    def jax_f(t: Any, y: Any, jnp: Any) -> Any:
        return jnp.stack(rhs(t, y, jnp))

    if whole is None:
        return torch_f, numpy_f, jax_f
    on_arrays = _on_arrays(whole)
    return on_arrays if problem.dimension >= MANY else (on_arrays[0], numpy_f, jax_f)


def _on_arrays(formula: Callable[[Any, Any, Any], Any]) -> Forms:
    """formula(t, y, m) on arrays (..., d), m being torch, numpy or jax.numpy."""
    return (lambda t, y: formula(t, y, torch)), (lambda t, y: formula(t, y, np)), formula


@functools.cache
def ring(batch: int, *, end: float = 10.0) -> Subject:
    """A batch of `ring_start` with the end of its trajectories, over t in [0, end].

    The end is that of scipy's DOP853 on all of them as one system at rtol 1e-13, its error the
    difference to rtol 1e-12.
    """
    made, y0 = ring_start(batch)

    def solved(rtol: float) -> Tensor:
        got = solve_ivp(
            lambda t, y: made[1](t, y.reshape(batch, 8)).ravel(), (0.0, end), y0.numpy().ravel(),
            method="DOP853", rtol=rtol, atol=1e-2 * rtol, t_eval=[end],
        )  # fmt: skip
        return torch.from_numpy(got.y[:, -1].reshape(batch, 8).copy())

    tight = solved(1e-13)
    error = relative_error(solved(1e-12), tight)
    return Subject(f"ring x {batch}", *made, y0, (0.0, end), tight, error)


def ring_start(batch: int) -> tuple[Forms, Tensor]:
    """f and y0 (batch, 8) of a batch of rings of four coupled van der Pol oscillators.

    q_i'' = (1 - q_i^2) q_i' - q_i + (q_{i-1} - 2 q_i + q_{i+1}) / 2; positions uniform in [-2, 2],
    velocities in [-1, 1], the same every time.

    Raises:
        ValueError: batch below 1.
    """
    integer_from(1, batch, "batch")
    starts = np.random.default_rng(0).uniform(-1, 1, (batch, 8)) * ([2.0] * 4 + [1.0] * 4)
    eye = np.eye(4)
    coupling = 2 * eye - (np.roll(eye, 1, 0) + np.roll(eye, -1, 0)) / 2
    torch_coupling = torch.from_numpy(coupling)

    def formula(t: Any, y: Any, m: Any) -> Any:
        q, p = y[..., :4], y[..., 4:]
        pull = q @ (torch_coupling if m is torch else coupling)
        return m.concatenate((p, (1 - q * q) * p - pull), -1)

    return _on_arrays(formula), torch.from_numpy(starts)
