"""quadflow's own methods."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from torch import Tensor

import quadflow as qf

from ...control.control import StepController, rms_norm
from ...plans.method import Method
from ..cost.timing import timed
from ..problems.problem import Problem
from ..problems.subjects import Subject
from .counting import CountedVelocity, Counter
from .run import ATOL_RATIO, Dense, Run, Solve, Solver, guarded, on_grid


def quadflow_solver(
    method: str | Method,
    *,
    node_evaluation: str = "broadcast",
    compiled: bool = False,
    per_sample: bool = False,
    **options: Any,
) -> Solver:
    """A registered name or any Method.

    Args:
        node_evaluation: see `quadflow.solve`; a Problem's f broadcasts, so nothing need be found
            out. compiled, per_sample, options: for `bind` alone, that is for comparisons of costs;
            options are further ones of `solve`. What is compiled or has steps a sample is measured
            no other way.

    Raises:
        ValueError, TypeError: unknown name, or no Method (see `quadflow.get_method`).
    """
    chosen = qf.get_method(method)
    how: dict[str, Any] = {"method": chosen, "node_evaluation": node_evaluation}

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        every: dict[str, Any] = {"max_steps": 10**8, **how, **options}
        if per_sample:
            every["batch_dims"] = 1
        if compiled and counter is None:
            # what is compiled is counted in its eager twin, which takes the same steps
            every["compile"] = True
        f = subject.torch_f if counter is None else counter.counted(subject.torch_f)

        def solve(tolerance: float) -> Tensor:
            return qf.solve(
                f, subject.y0, subject.span, rtol=tolerance, atol=ATOL_RATIO * tolerance, **every
            ).y[-1]

        return solve

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        return on_grid(_run(problem, {"grid": grid, **how}), grid)

    def adaptive(problem: Problem, rtol: float, atol: float) -> Run:
        controller = StepController(max_factor=chosen.max_growth)
        return _run(problem, {"rtol": rtol, "atol": atol, "controller": controller, **how})

    name = chosen.name + " compiled" * compiled + " per sample" * per_sample
    varied, controlled = compiled or per_sample, chosen.error_order is not None
    return Solver(
        name, chosen.order,
        fixed if chosen.takes_fixed_steps and not varied else None,
        adaptive if controlled and not varied else None,
        chosen, bind if controlled else None, compiled, per_sample,
    )  # fmt: skip


def _run(problem: Problem, how: dict[str, Any]) -> Run:
    scaled: list[Tensor] = []
    accepted: list[tuple[Tensor, Tensor, Tensor]] = []  # scaled error, state before, state after
    before = [problem.y0]

    def solved(f: Any, **more: Any) -> qf.Solution:
        return qf.solve(f, problem.y0, problem.span, throw=False, **how, **more)

    def norm(error: Tensor) -> Tensor:
        scaled[:] = [error]
        return rms_norm(error)

    def keep(t: float, y: Tensor) -> None:
        accepted.append((scaled[0], before[0], y))
        before[0] = y

    def solve(f: CountedVelocity) -> Run:
        watch: dict[str, Any] = {"norm": norm, "callback": keep} if "rtol" in how else {}
        solution, seconds = timed(lambda: solved(f, **watch))
        probes = solution.stats.probe_nfe
        counts = f.nfe - probes, max(1, f.calls - probes) if probes else f.calls
        # with the same norm, so that the steps are the same to the last bit
        watch.pop("callback", None)
        again = functools.cache(lambda: solved(problem.f, dense_output=True, **watch))
        estimates = [
            float((e.abs() * (how["atol"] + how["rtol"] * y.abs().maximum(z.abs()))).max())
            for e, y, z in accepted
        ]
        return Run(
            solution.y[-1] if solution.success else None, *counts, seconds,
            None if solution.success else f"{solution.status.value}: {solution.message}",
            Dense(lambda times: again()(times)), tuple(solution.steps), tuple(estimates),
        )  # fmt: skip

    return guarded(problem, solve)
