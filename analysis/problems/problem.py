"""Initial value problems with known solutions: one registry; adding one is one function.

The right-hand side is written once, component by component, over a namespace of functions, so that
the very same formula runs in torch (one state or many), numpy, sympy and, at any number of digits,
mpmath.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from ...checks import check_choice
from ...errors import nearest
from ...storage import read_json_object
from ..exact.multiprecision import multiprecision

RightHandSide = Callable[[Any, Sequence[Any], Any], Sequence[Any]]
"""rhs(t, y, m): y a sequence of d components, m the namespace of sin, cos, exp, log, sqrt, ...
(torch, numpy, sympy or mpmath.mp); returns the d components of dy/dt."""


@dataclass(frozen=True)
class KnownEvent:
    """g(t, y, m) = 0 at `time`, written as a right-hand side is; the sign changes there.

    time: float, to float64's last digits. Between `after` and `before` there is no other root.
    """

    g: Callable[[Any, Sequence[Any], Any], Any]
    time: float
    after: float
    before: float


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y), y(span[0]) = y0.

    name: as in the registry. statement: the equations, one line of plain text. source: of statement
    and reference digits. rhs: rhs(t, y, m) -> the d components of dy/dt; y is a sequence of d
    components, m the namespace of sin, cos, exp, log, sqrt, ... (torch, numpy, sympy or mpmath.mp).
    y0: (d,) float64. span: (start, end). end: (d,) float64, the state at span[1] of the problem
    that float64 y0 and constants state; taken from `exact` where that is given; None where none is
    known for these parameters (`references.reference` finds it). end_error: relative error of
    `end` (max norm over the largest entry): its own rounding, and what the problem makes of a y0
    rounded otherwise. exact: t (mpf) -> d components at mpmath's working precision, where a formula
    exists. invariants: name -> q(y, m), constant along solutions. event: for measured event times.
    stiff: an explicit method needs far more steps for stability than for accuracy. parameters: what
    it was made with. sets: names of the sets it belongs to. vector: f(t, y, m) on whole arrays
    (..., d), for problems of many components; equal to rhs.
    """

    name: str
    statement: str
    source: str
    rhs: RightHandSide
    y0: Tensor
    span: tuple[float, float]
    end: Tensor | None = None
    end_error: float = 2e-16
    exact: Callable[[Any], Sequence[Any]] | None = None
    invariants: Mapping[str, Callable[[Sequence[Any], Any], Any]] = field(default_factory=dict)
    event: KnownEvent | None = None
    stiff: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    vector: Callable[[Any, Any, Any], Any] | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        # functions that were made for the parameters cannot be pickled: the problem is made anew
        recipe = self.__dict__.get("_recipe")
        return super().__reduce_ex__(protocol) if recipe is None else (recipe, ())

    def __post_init__(self) -> None:
        if self.y0.dtype != torch.float64 or self.y0.dim() != 1:
            raise ValueError(
                f"{self.name}: y0 must be float64 of shape (d,), got {self.y0.dtype} "
                f"{tuple(self.y0.shape)}"
            )
        if not self.span[0] != self.span[1]:
            raise ValueError(f"{self.name}: span must have two different ends, got {self.span}")
        if self.end is None and self.exact is not None:
            object.__setattr__(self, "end", self.solution(self.span[1]))

    @property
    def dimension(self) -> int:
        """Number of components, d."""
        return len(self.y0)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt for states (..., d) and times that are 0-d, (...) or (..., 1): (..., d)."""
        if self.vector is not None:
            return self.vector(t, y, torch)
        if t.dim() == y.dim():
            t = t.squeeze(-1)
        parts = self.rhs(t, y.unbind(-1), torch)
        like = y[..., 0]
        return torch.stack(
            [
                p
                if isinstance(p, Tensor) and p.shape == like.shape
                else torch.as_tensor(p, dtype=y.dtype, device=y.device).expand(like.shape)
                for p in parts
            ],
            -1,
        )

    def f_numpy(self, t: float, y: np.ndarray) -> np.ndarray:
        """dy/dt of one state (d,) as scipy's solvers want it."""
        if self.vector is not None:
            return np.asarray(self.vector(t, y, np))
        return np.array(self.rhs(t, tuple(y), np))

    def jacobian(self, t: float | Tensor, y: Tensor) -> Tensor:
        """df/dy at one state (d,), by forward differentiation: (d, d), exact to rounding."""
        time = torch.as_tensor(t, dtype=y.dtype)
        return torch.func.jacfwd(lambda u: self.f(time, u))(y)

    def solution(self, t: float) -> Tensor:
        """The exact state (d,) at time t, worked out at 30 digits and rounded once.

        Raises:
            ValueError: there is no formula for it.
        """
        if self.exact is None:
            raise ValueError(f"{self.name} has no exact solution: see quadflow.analysis.references")
        mp = multiprecision()
        with mp.workdps(30):
            return torch.tensor([float(x) for x in self.exact(mp.mpf(t))], dtype=torch.float64)


_PROBLEMS: dict[str, Callable[..., Problem]] = {}


def register_problem(name: str) -> Callable[[Callable[..., Problem]], Callable[..., Problem]]:
    """A decorator that enters a problem in the registry.

    It stands before a function whose arguments, the parameters, have defaults, and that returns a
    Problem.

    Args:
        name: what `get_problem` knows it by.

    Raises:
        ValueError: the name is taken.
    """

    def add(make: Callable[..., Problem]) -> Callable[..., Problem]:
        if name in _PROBLEMS:
            raise ValueError(f"a problem named {name!r} is registered already")
        _PROBLEMS[name] = make
        return make

    return add


@functools.cache
def _load() -> None:
    # The problems are told apart by where they come from; each module registers its own.
    for module in (
        "classic", "oscillators", "mechanics", "detest", "brusselator", "stiff", "chemistry",
        "manufactured",
    ):  # fmt: skip
        importlib.import_module(f"quadflow.analysis.problems.library.{module}")


def problem_names() -> tuple[str, ...]:
    """Every registered name."""
    _load()
    return tuple(_PROBLEMS)


def problems(subset: str | None = None) -> dict[str, Problem]:
    """Registered names with their Problem, at default parameters; all, or one set of them.

    Args:
        subset: a set's name, such as "nonstiff" or "stiff"; None is all.

    Raises:
        ValueError: unknown set.
    """
    made = {name: get_problem(name) for name in problem_names()}
    if subset is None:
        return made
    known = {s for p in made.values() for s in p.sets}
    check_choice(subset, known, "set")
    return {name: p for name, p in made.items() if subset in p.sets}


def get_problem(name: str | Problem, **parameters: Any) -> Problem:
    """The Problem of a name.

    Args:
        name: a registered one; a Problem is passed through.
        parameters: what it is made with, see `quadflow problems NAME`; the rest are its defaults.

    Raises:
        ValueError: unknown name or parameter; the message lists the nearest.
    """
    if isinstance(name, Problem):
        if parameters:
            raise ValueError(f"{name.name} is made already, it takes no {sorted(parameters)}")
        return name
    _load()
    check_choice(name, _PROBLEMS, "problem")
    known = inspect.signature(_PROBLEMS[name]).parameters
    for given in parameters:
        if given not in known:
            hint = nearest(given, known) if known else "it has none"
            raise ValueError(f"{name} has no parameter {given!r}: {hint}")
    problem = _PROBLEMS[name](**parameters)
    # not that of what is replaced in it
    object.__setattr__(problem, "_recipe", functools.partial(get_problem, name, **parameters))
    return problem


def parse_problem(text: str) -> Problem:
    """The Problem of "NAME" or "NAME:KEY=VALUE:KEY=VALUE", as command lines have it.

    Raises:
        ValueError: unknown name or parameter, or a value that is no number.
    """
    name, *pairs = text.split(":")
    parameters: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            parameters[key] = int(value) if value.lstrip("+-").isdigit() else float(value)
        except ValueError:
            raise ValueError(
                f"problem {text!r}: {pair!r} must be KEY=NUMBER, such as kepler:eccentricity=0.9"
            ) from None
    return get_problem(name, **parameters)


def vector(*values: float) -> Tensor:
    """The numbers as a float64 tensor (d,)."""
    return torch.tensor(values, dtype=torch.float64)


@functools.cache
def _references() -> dict[str, Any]:
    return read_json_object(Path(__file__).with_name("references.json"), "file of states")


def stored_start(problem: str) -> Tensor:
    """The initial state (d,), float64, of a problem for which the file of references holds one."""
    return vector(*_references()[problem]["start"])


def stored_end(problem: str) -> Tensor | None:
    """The state (d,) at the end of a span that the file of references holds, with its source.

    Args:
        problem: its key there, "NAME" or "NAME:KEY=VALUE:KEY=VALUE".

    Returns:
        float64; None where the file has no such problem, as with other parameters than its own.
    """
    known = _references().get(problem)
    return None if known is None else vector(*known["end"])
