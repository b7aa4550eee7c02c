"""diffrax's solvers, in float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import nearest
from ...extras import require
from ..cost.timing import timed
from ..problems.problem import Problem
from ..problems.subjects import Subject
from .counting import CountedVelocity, Counter, OverBudgetError
from .run import ATOL_RATIO, EXTRA, Dense, Run, Solve, Solver, guarded, on_grid

MOST_STEPS = 30_000
"""Steps after which a `Solve` is given up: no counter stops what runs inside jax."""


def diffrax_solver(solver: Any) -> Solver:
    """A diffrax solver, as an object (`diffrax.Dopri5()`) or by name ("Dopri5"), in float64.

    Fixed steps by `StepTo`. Implicit solvers need a root finder of their own on fixed steps: give
    the object, such as `diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=1e-12, atol=1e-12))`.
    Evaluations are counted by a callback, in a solve of their own; `seconds` is a second, compiled
    run. `bind` compiles once for all tolerances, a batch through vmap; evaluations of a batch are
    what one trajectory needs for the steps of the longest one, times the batch, which is what vmap
    computes.

    Raises:
        MissingExtraError: diffrax is not installed. ValueError: unknown name.
    """
    diffrax, jax = require("diffrax", EXTRA), require("jax", EXTRA)
    if isinstance(solver, str):
        solver = _named(diffrax, solver)

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        with jax.enable_x64(True):
            controller = diffrax.StepTo(ts=jax.numpy.asarray(grid))
        return on_grid(_run(solver, problem, controller, len(grid) + 1), grid)

    def adaptive(problem: Problem, rtol: float, atol: float) -> Run:
        return _run(solver, problem, diffrax.PIDController(rtol=rtol, atol=atol), 1_000_000)

    try:
        order = solver.order(None)
    except Exception:
        order = None
    controlled = isinstance(solver, diffrax.AbstractAdaptiveSolver)
    return Solver(
        f"diffrax:{type(solver).__name__}", order, fixed, adaptive if controlled else None,
        bind=functools.partial(_bind, solver) if controlled else None, compiled=True,
        per_sample=True,
    )  # fmt: skip


def _named(diffrax: Any, name: str) -> Any:
    kinds = {n: k for n, k in vars(diffrax).items() if isinstance(k, type)}
    known = [
        n for n, k in kinds.items()
        if issubclass(k, diffrax.AbstractSolver) and not n.startswith("Abstract")
    ]  # fmt: skip
    if name not in known:
        raise ValueError(f"diffrax solver {name!r} is unknown: {nearest(name, known)}")
    return kinds[name]()


def _solved(
    solver: Any, f: Callable[..., Any], span: tuple[float, float], y0: Any, controller: Any,
    most: int, **how: Any,
) -> Any:  # fmt: skip
    diffrax = require("diffrax", EXTRA)
    return diffrax.diffeqsolve(
        diffrax.ODETerm(f), solver, *span, None, y0, stepsize_controller=controller,
        max_steps=most, throw=False, **how,
    )  # fmt: skip


def _ticking(counter: Counter, f: Callable[..., Any]) -> Callable[..., Any]:
    """f, with its evaluations of one state counted while the compiled solve runs."""
    jax = require("jax", EXTRA)

    def counted(t: Any, y: Any, args: Any) -> Any:
        jax.debug.callback(lambda: counter.tick(counter.size))
        return f(t, y, args)

    return counted


def _bind(solver: Any, subject: Subject, counter: Counter | None) -> Solve:
    diffrax, jax = require("diffrax", EXTRA), require("jax", EXTRA)
    jnp, batched = jax.numpy, subject.y0.dim() > 1
    counts = Counter(subject.y0.shape[-1])  # without a limit: a callback cannot stop the solve

    def f(t: Any, y: Any, args: Any) -> Any:
        return subject.jax_f(t, y, jnp)

    def one(f: Callable[..., Any], y: Any, tolerance: Any) -> Any:
        control = diffrax.PIDController(rtol=tolerance, atol=ATOL_RATIO * tolerance)
        found = _solved(solver, f, subject.span, y, control, MOST_STEPS)
        done = found.result == diffrax.RESULTS.successful
        return found.ys[-1], found.stats["num_steps"], done

    with jax.enable_x64(True):
        y0 = jnp.asarray(subject.y0.numpy())
        plain = functools.partial(one, f)
        compiled = jax.jit(jax.vmap(plain, (0, None)) if batched else plain)
        counted = jax.jit(functools.partial(one, _ticking(counts, f)))

    def solve(tolerance: float) -> Any:
        with jax.enable_x64(True):
            if counter is None:
                return jax.block_until_ready(compiled(y0, tolerance))[0]
            counts.calls = 0
            end, few, done = counted(y0[0] if batched else y0, tolerance)
            jax.effects_barrier()
            counter.calls = counts.calls
            if batched:
                end, steps, done = compiled(y0, tolerance)
                # what comes to a step of one trajectory comes to every step of the batch
                counter.calls = round(counter.calls * int(steps.max()) / int(few))
            counter.nfe = counter.calls * subject.states
            if not bool(jnp.all(done)):
                raise OverBudgetError(f"more than {MOST_STEPS} steps")
            return end

    return solve


def _run(solver: Any, problem: Problem, controller: Any, most: int) -> Run:
    diffrax, jax = require("diffrax", EXTRA), require("jax", EXTRA)
    jnp = jax.numpy

    def velocity(t: Any, y: Any, args: Any) -> Any:
        if problem.vector is not None:
            return problem.vector(t, y, jnp)
        parts = problem.rhs(t, tuple(y), jnp)
        return jnp.stack([jnp.asarray(p, dtype=y.dtype) for p in parts])

    def solved(f: Callable[..., Any], start: Any, **save: Any) -> Any:
        how = diffrax.SaveAt(t1=True, **save)
        return _solved(solver, f, problem.span, start, controller, most, saveat=how)

    def solve(f: CountedVelocity) -> Run:
        with jax.enable_x64(True):
            y0 = jnp.asarray(problem.y0.detach().numpy())
            first = solved(_ticking(f, velocity), y0, steps=True)
            jax.effects_barrier()
            compiled = jax.jit(lambda y: solved(velocity, y).ys)
            jax.block_until_ready(compiled(y0))
            ys, seconds = timed(lambda: jax.block_until_ready(compiled(y0)))
            done = bool(first.result == diffrax.RESULTS.successful)
            failure = None if done else f"diffrax: {first.result}"
            times = np.asarray(first.ts)
            end = torch.from_numpy(np.array(ys)[-1].copy())
        again = functools.cache(lambda: solved(velocity, y0, dense=True))

        def many(wanted: np.ndarray) -> Tensor:
            with jax.enable_x64(True):
                rows = jax.vmap(again().evaluate)(jnp.asarray(wanted))
                return torch.from_numpy(np.array(rows))

        # the end is saved twice, as a step and as the end
        steps = dict.fromkeys([problem.span[0], *times[np.isfinite(times)].tolist()])
        reached = end if failure is None else None
        return Run(reached, f.nfe, f.calls, seconds, failure, Dense(many), tuple(steps))

    return guarded(problem, solve)
