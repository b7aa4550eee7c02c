"""Initial value problems with known solutions. Adding one is one registered function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from quadflow.errors import nearest


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y), y(span[0]) = y0, with the exact state at span[1].

    f takes one state (d,) with 0-d t, or several (n, d) with t (n, 1). y0, end: (d,) float64.
    exact: t -> (d,), where a formula exists. source: of statement and reference digits.
    """

    name: str
    f: Callable[[Tensor, Tensor], Tensor]
    y0: Tensor
    span: tuple[float, float]
    end: Tensor
    source: str
    exact: Callable[[float], Tensor] | None = None


_PROBLEMS: dict[str, Callable[[], Problem]] = {}


def _register(name: str) -> Callable[[Callable[[], Problem]], Callable[[], Problem]]:
    def add(make: Callable[[], Problem]) -> Callable[[], Problem]:
        _PROBLEMS[name] = make
        return make

    return add


def problems() -> dict[str, Problem]:
    """Every registered name with its Problem."""
    return {name: make() for name, make in _PROBLEMS.items()}


def get_problem(name: str) -> Problem:
    """The Problem of a name; ValueError, with the nearest names, for an unknown one."""
    if name not in _PROBLEMS:
        raise ValueError(f"problem={name!r} is unknown: {nearest(name, _PROBLEMS)}")
    return _PROBLEMS[name]()


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@_register("kepler")
def kepler() -> Problem:
    """The planar two-body problem with eccentricity 0.6, from pericentre, over t in [0, 20]."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        position, speed = y.split(2, dim=-1)
        radius = torch.linalg.vector_norm(position, dim=-1, keepdim=True)
        return torch.cat((speed, -position / radius**3), dim=-1)

    return Problem(
        "kepler",
        f,
        _vector(0.4, 0.0, 0.0, 2.0),
        (0.0, 20.0),
        _vector(-0.770075578411240449, 0.788344816994424389, -0.894183731988691497,
                -0.123461764158440959),
        "Hairer, Lubich & Wanner, Geometric Numerical Integration, I.2; Kepler's equation",
    )  # fmt: skip


@_register("lotka-volterra")
def lotka_volterra() -> Problem:
    """Predator and prey with rates (1.5, 1, 3, 1), from (1, 1), over t in [0, 10]."""

    def f(t: Tensor, y: Tensor) -> Tensor:
        prey, predator = y.split(1, dim=-1)
        return torch.cat((prey * (1.5 - predator), predator * (prey - 3.0)), dim=-1)

    return Problem(
        "lotka-volterra",
        f,
        _vector(1.0, 1.0),
        (0.0, 10.0),
        _vector(1.02634476757508931914, 0.909691078136041617548),
        "Lotka 1925, Volterra 1926; end point from a 30-digit Taylor solve",
    )


@_register("driven")
def driven() -> Problem:
    """A nonlinear, non-autonomous pair with the exact solution (sin t, 1/(2 + cos t)), t in [0, 3].

    Every term of an order condition is alive in it, which linear or autonomous problems cannot say.
    """

    def solution(t: Tensor) -> Tensor:
        return torch.cat((torch.sin(t), 1 / (2 + torch.cos(t))), dim=-1)

    def coupling(t: Tensor, y: Tensor) -> Tensor:
        a, b = y.split(1, dim=-1)
        return torch.cat((a * b + torch.sin(b + t), torch.cos(a) * b - t * a * a), dim=-1)

    def f(t: Tensor, y: Tensor) -> Tensor:
        t = t.reshape(*t.shape, *(1,) * (y.dim() - t.dim()))
        slope = torch.cat((torch.cos(t), torch.sin(t) / (2 + torch.cos(t)) ** 2), dim=-1)
        return slope + coupling(t, y) - coupling(t, solution(t))

    def exact(t: float) -> Tensor:
        return solution(_vector(t))

    return Problem("driven", f, exact(0.0), (0.0, 3.0), exact(3.0), "manufactured solution", exact)
