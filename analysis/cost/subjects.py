"""What the benchmarks solve, with f written for every framework as its users would write it.

torch: on states (..., d), so that several states go through one call; components are taken apart by
one `unbind` where a formula has few of them, and vectorised where it has many. numpy: plain floats
for a few components (numpy's scalars are slower), arrays for many. jax: like torch's, to be jitted.
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

from ..problems.problem import Problem, get_problem
from ..references.reference import reference_end

SCIENTIFIC = (
    "lotka-volterra", "kepler", "euler-body", "van-der-pol", "lorenz", "pleiades", "arenstorf",
)  # fmt: skip
"""Names of the scientific problems, in the order of the tables."""


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
        """Largest over the trajectories of max|reached - end| / max|end|; inf where not finite.

        Raises:
            ValueError: the end is not known.
        """
        if self.end is None:
            raise ValueError(f"{self.name}: no end is known to compare with")
        if not isinstance(reached, Tensor):
            reached = torch.from_numpy(np.array(reached, dtype=np.float64))
        states = reached.to(self.end).reshape(self.end.shape)
        worst = (states - self.end).abs().amax(-1) / self.end.abs().amax(-1)
        error = float(worst.max())
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
    forms = _FORMS[name](problem) if name in _FORMS else _componentwise(problem)
    return Subject(name, *forms, problem.y0, problem.span, end, end_error)


Forms = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]


def _componentwise(problem: Problem) -> Forms:
    rhs = problem.rhs

    def torch_f(t: Any, y: Tensor) -> Tensor:
        return torch.stack(tuple(rhs(t, y.unbind(-1), torch)), -1)

    def numpy_f(t: Any, y: Any) -> Any:
        return np.array(rhs(t, y.tolist(), math))

    def jax_f(t: Any, y: Any, jnp: Any) -> Any:
        return jnp.stack(rhs(t, y, jnp))

    return torch_f, numpy_f, jax_f


def _kepler(problem: Problem) -> Forms:
    def torch_f(t: Any, y: Tensor) -> Tensor:
        place, speed = y.chunk(2, -1)
        distance = torch.linalg.vector_norm(place, dim=-1, keepdim=True)
        return torch.cat((speed, place / -(distance**3)), -1)

    return torch_f, *_componentwise(problem)[1:]


def _pleiades(problem: Problem) -> Forms:
    # [..., k, i, j]: coordinate k of star j seen from star i; the diagonal of ones keeps a star's
    # distance to itself from being divided by
    mass, one = np.arange(1.0, 8.0), np.eye(7)
    torch_mass, torch_one = torch.from_numpy(mass), torch.from_numpy(one)

    def torch_f(t: Any, y: Tensor) -> Tensor:
        place = y[..., :14].unflatten(-1, (2, 7))
        gap = place.unsqueeze(-2) - place.unsqueeze(-1)
        square = gap.square().sum(-3) + torch_one
        pull = torch_mass / (square * square.sqrt())
        return torch.cat((y[..., 14:], (gap * pull.unsqueeze(-3)).sum(-1).flatten(-2)), -1)

    def array_f(t: Any, y: Any, m: Any = np) -> Any:
        place = y[:14].reshape(2, 7)
        gap = place[:, None, :] - place[:, :, None]
        square = (gap * gap).sum(0) + one
        pull = mass / (square * m.sqrt(square))
        return m.concatenate((y[14:], (gap * pull).sum(-1).ravel()))

    return torch_f, array_f, array_f


_FORMS: dict[str, Callable[[Problem], Forms]] = {"kepler": _kepler, "pleiades": _pleiades}


@functools.cache
def ring(batch: int, *, end: float = 10.0, seed: int = 0) -> Subject:
    """A batch of `ring_start` with the end of its trajectories, over t in [0, end].

    The end is that of scipy's DOP853 on all of them as one system at rtol 1e-13, its error the
    difference to rtol 1e-12.
    """
    forms, y0 = ring_start(batch, seed=seed)

    def solved(rtol: float) -> Tensor:
        got = solve_ivp(
            lambda t, y: forms[1](t, y.reshape(batch, 8)).ravel(), (0.0, end), y0.numpy().ravel(),
            method="DOP853", rtol=rtol, atol=1e-2 * rtol, t_eval=[end],
        )  # fmt: skip
        return torch.from_numpy(got.y[:, -1].reshape(batch, 8).copy())

    tight, less = solved(1e-13), solved(1e-12)
    error = float(((tight - less).abs().amax(-1) / tight.abs().amax(-1)).max())
    return Subject(f"ring x {batch}", *forms, y0, (0.0, end), tight, error)


def ring_start(batch: int, *, seed: int = 0) -> tuple[Forms, Tensor]:
    """f and y0 (batch, 8) of a batch of rings of four coupled van der Pol oscillators.

    q_i'' = (1 - q_i^2) q_i' - q_i + (q_{i-1} - 2 q_i + q_{i+1}) / 2; positions uniform in [-2, 2],
    velocities in [-1, 1], drawn from the seed.

    Raises:
        ValueError: batch below 1.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    starts = np.random.default_rng(seed).uniform(-1, 1, (batch, 8)) * ([2.0] * 4 + [1.0] * 4)
    eye = np.eye(4)
    coupling = 2 * eye - (np.roll(eye, 1, 0) + np.roll(eye, -1, 0)) / 2
    torch_coupling = torch.from_numpy(coupling)

    def torch_f(t: Any, y: Tensor) -> Tensor:
        q, p = y.chunk(2, -1)
        return torch.cat((p, (1 - q * q) * p - q @ torch_coupling), -1)

    def array_f(t: Any, y: Any, m: Any = np) -> Any:
        q, p = y[..., :4], y[..., 4:]
        return m.concatenate((p, (1 - q * q) * p - q @ coupling), axis=-1)

    return (torch_f, array_f, array_f), torch.from_numpy(starts)
