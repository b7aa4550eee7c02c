"""torchode's solvers, whose trajectories have steps of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import nearest
from ...extras import require
from ..cost.timing import timed
from ..problems.problem import Problem
from ..problems.subjects import Subject
from .counting import CountedVelocity, Counter
from .run import ATOL_RATIO, EXTRA, Run, Solve, Solver, guarded

ORDERS = {"Dopri5": 5, "Tsit5": 5, "Heun": 2}
"""Declared orders by name."""


def torchode_solver(name: str, *, compiled: bool = False) -> Solver:
    """torchode's Dopri5, Tsit5 or Heun with its PID controller.

    compiled: its loop through `torch.compile`, compiled once for all tolerances (they are buffers
    of the controller). torch.jit.script, which its paper uses, fails on it with current torch.

    Raises:
        MissingExtraError: torchode is not installed. ValueError: unknown name.
    """
    require("torchode", EXTRA)
    if name not in ORDERS:
        raise ValueError(f"torchode solver {name!r} is unknown: {nearest(name, ORDERS)}")

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        f = subject.torch_f if counter is None else counter.counted(subject.torch_f)
        # what is compiled is counted in its eager twin, which takes the same steps
        solved = _prepared(name, f, subject.y0, subject.span, compiled and counter is None)
        return lambda tolerance: solved(tolerance, ATOL_RATIO * tolerance)

    return Solver(
        f"torchode:{name}{' compiled' * compiled}", ORDERS[name], None,
        None if compiled else functools.partial(_adaptive, name), bind=bind, compiled=compiled,
        per_sample=True,
    )  # fmt: skip


def _adaptive(name: str, problem: Problem, rtol: float, atol: float) -> Run:
    def solve(f: CountedVelocity) -> Run:
        solved = _prepared(name, f, problem.y0, problem.span, False)
        end, seconds = timed(lambda: solved(rtol, atol))
        return Run(end, f.nfe, f.calls, seconds)

    return guarded(problem, solve)


def _prepared(
    name: str, f: Callable[..., Any], y0: Tensor, span: tuple[float, float], compiled: bool
) -> Callable[[float, float], Tensor]:
    """(rtol, atol) -> the end state, of y0's shape."""
    torchode = require("torchode", EXTRA)
    term = torchode.ODETerm(f, with_stats=False)
    controller = torchode.PIDController(
        atol=1.0, rtol=1.0, pcoeff=0.2, icoeff=0.5, dcoeff=0.0, term=term
    )
    adjoint = torchode.AutoDiffAdjoint(getattr(torchode, name)(term=term), controller)
    run = torch.compile(adjoint.solve) if compiled else adjoint.solve
    rows = y0.reshape(-1, y0.shape[-1])
    start, end = (torch.full((len(rows),), t, dtype=rows.dtype) for t in span)
    problem = torchode.InitialValueProblem(y0=rows, t_start=start, t_end=end, t_eval=None)

    def solve(rtol: float, atol: float) -> Tensor:
        controller.rtol.fill_(rtol)
        controller.atol.fill_(atol)
        found = run(problem)
        if bool((found.status != 0).any()):
            raise RuntimeError(f"torchode: status {found.status.tolist()[:8]}")
        return found.ys[:, -1].reshape(y0.shape)

    return solve
