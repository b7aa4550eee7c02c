"""A training step of a neural ODE: forward, loss at 20 times, gradients by backprop or adjoint.

MLP 2-64-2 with tanh, batch 256, float32, mean squared error to a spiral at 20 times over [0, 10].
Solvers are compared at equal tolerance and at equal achieved error of the loss gradient: relative,
in the 2-norm over all parameters, against torchdiffeq's dopri5 in float64 at tolerance 1e-10.
Memory is what a step adds to the peak of a process of its own.

`python -m quadflow.analysis.benchmarks.training_step [--quick] [--out FILE.json]`
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import quadflow as qf

from ...extras import require
from ..cost.equal_error import cheapest, trial
from ..cost.memory import in_own_process
from ..cost.rows import Row
from ..cost.timing import interleaved
from ..solvers.counting import Counter
from ..solvers.run import ATOL_RATIO, EXTRA
from ..solvers.solver import missing
from .networks import NetworkVelocity, start_states
from .report import Record, crossed, left_out, milliseconds, quotient, ratio, run

TOLERANCE = 1e-4
"""Relative tolerance of the comparison at equal tolerance."""

TARGETS = (1e-3, 1e-5)
"""Achieved relative errors of the gradient at which solvers are compared."""

TOLERANCES = tuple(float(f"{10 ** (-k / 2):.2e}") for k in range(2, 15))
"""Tolerances of the sweep, half decades from 0.1 to 3.16e-8: float32 knows no less."""

SPIRAL = ((-0.1, 2.0), (-2.0, -0.1))


@dataclass(frozen=True)
class Task:
    """The task of a training step.

    net: what is trained. y0: states at the start (B, 2). times: (T,). wanted: the states wanted
    there (T, B, 2).
    """

    net: NetworkVelocity
    y0: Tensor
    times: Tensor
    wanted: Tensor

    def gradient(self) -> Tensor:
        """The gradients of all parameters as one vector."""
        return torch.cat([_grad(p).reshape(-1) for p in self.net.parameters()])


def _grad(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def task(batch: int = 256, outputs: int = 20, *, dtype: torch.dtype = torch.float32) -> Task:
    """The task of these sizes; the spiral is y' = y A, by the matrix exponential."""
    y0 = start_states(batch, 2, dtype=torch.float64)
    times = torch.linspace(0, 10, outputs, dtype=torch.float64)
    flow = torch.linalg.matrix_exp(times[:, None, None] * torch.tensor(SPIRAL).double())
    return Task(
        NetworkVelocity((2, 64, 2), dtype=dtype), y0.to(dtype), times, (y0 @ flow).to(dtype)
    )


Integrate = Callable[[Any, Tensor, Tensor, float], Tensor]
"""(f, y0, times, tolerance) -> states (T, B, 2)."""


def _quadflow(method: str, adjoint: bool, compiled: bool) -> Integrate:
    def integrate(f: Any, y0: Tensor, times: Tensor, tolerance: float) -> Tensor:
        tolerances: dict[str, Any] = {"rtol": tolerance, "atol": ATOL_RATIO * tolerance}
        if adjoint:
            return qf.odeint_adjoint(f, y0, times, method=method, **tolerances)
        return qf.solve(
            f, y0, times, method=method, node_evaluation="broadcast", compile=compiled, **tolerances
        ).y

    return integrate


def _torchdiffeq(method: str, adjoint: bool) -> Integrate:
    def integrate(f: Any, y0: Tensor, times: Tensor, tolerance: float) -> Tensor:
        library = require("torchdiffeq", EXTRA)
        solve = library.odeint_adjoint if adjoint else library.odeint
        return solve(f, y0, times, rtol=tolerance, atol=ATOL_RATIO * tolerance, method=method)

    return integrate


def solvers(*, compiled: bool = True) -> dict[str, Integrate]:
    """name -> how it integrates, of what is installed; names end in "backprop" or "adjoint"."""
    names = ("gauss", "adams", "dopri5", "dopri8", "gauss4", "gauss8")
    found: dict[str, Integrate] = {}
    for adjoint in (False, True):
        way = "adjoint" if adjoint else "backprop"
        if "torchdiffeq" not in missing():
            for method in ("dopri5", "dopri8"):
                found[f"torchdiffeq {method} {way}"] = _torchdiffeq(method, adjoint)
        for m in names:
            found[f"quadflow {m} {way}"] = _quadflow(m, adjoint, False)
            if compiled and not adjoint and m in ("gauss", "dopri5"):
                found[f"quadflow {m} compiled {way}"] = _quadflow(m, False, True)
    return found


def step(integrate: Integrate, chosen: Task, tolerance: float) -> float:
    """One step without the optimiser's: the loss; the gradients are in the parameters."""
    chosen.net.zero_grad(set_to_none=True)
    states = integrate(chosen.net, chosen.y0, chosen.times, tolerance)
    loss = (states - chosen.wanted).square().mean()
    loss.backward()
    return float(loss.detach())


def reference() -> Tensor:
    """The gradient in float64 by torchdiffeq's dopri5 at tolerance 1e-10, through its steps.

    Raises:
        MissingExtraError: torchdiffeq is not installed.
    """
    exact = task(dtype=torch.float64)
    same = task()
    exact.net.load_state_dict(same.net.state_dict())  # the very numbers of float32
    exact = dataclasses.replace(exact, y0=same.y0.double(), wanted=same.wanted.double())
    step(_torchdiffeq("dopri5", False), exact, 1e-10)
    return exact.gradient()


def _trial(name: str, integrate: Integrate, chosen: Task, exact: Tensor, tolerance: float) -> Row:
    """A counted step; its error is the gradient's, and all of the batch is one state."""
    counter = Counter(chosen.y0.numel())

    def error(tolerance: float) -> float:
        step(integrate, chosen, tolerance)
        return float((chosen.gradient().double() - exact).norm() / exact.norm())

    hook = chosen.net.register_forward_pre_hook(lambda net, given: counter.tick(given[1].numel()))
    try:
        return trial(name, "training step", tolerance, counter, error)
    finally:
        hook.remove()


def measure(
    *,
    quick: bool = False,
    names: Sequence[str] | None = None,
    tolerances: Sequence[float] = TOLERANCES,
    memory: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Record:
    """{"rows": one for every solver and kind of comparison, "error 1e-03" or "tolerance 1e-04"}."""
    chosen = task()
    exact = reference()
    available = solvers(compiled=not quick)
    ways = {n: available[n] for n in (names or available)}
    picks: dict[str, dict[str, Row | None]] = {}
    for name in ways:
        say(f"training step: sweep of {name}")
        eager = available[name.replace(" compiled", "")]
        trials: list[Row] = []
        for tolerance in tolerances:
            trials.append(_trial(name, eager, chosen, exact, tolerance))
            error = trials[-1].error
            if error is not None and error <= min(TARGETS) and tolerance <= TOLERANCE:
                break
        picks[name] = {f"error {t:.0e}": cheapest(trials, t) for t in TARGETS}
        picks[name][f"tolerance {TOLERANCE:.0e}"] = _trial(name, eager, chosen, exact, TOLERANCE)
    rows: list[dict[str, Any]] = []
    warm: dict[str, float] = {}
    for kind in next(iter(picks.values())):
        there = {
            n: t for n in picks if (t := picks[n][kind]) is not None and t.failure is None
        }  # fmt: skip
        say(f"training step: {kind}, {len(there)} solvers in turns")
        timings = interleaved(
            {n: functools.partial(step, ways[n], chosen, t.tolerance or 0.0)
             for n, t in there.items()},
            repeats=3 if quick else 7, seconds=0.7 if quick else 1.5,
            warm_ups={n: warm[n] for n in there if n in warm},
        )  # fmt: skip
        warm |= {n: timing.warm_up for n, timing in timings.items()}
        for name in ways:
            row: dict[str, Any] = {"solver": name, "kind": kind, "failure": None}
            if name not in there:
                row["failure"] = "not reached"
            else:
                found, timing = there[name], timings[name]
                row |= {
                    "tolerance": found.tolerance, "error": found.error, "calls": found.calls,
                    "nfe": found.nfe, "wall": timing.best, "median": timing.median,
                    "warm_up": timing.warm_up,
                }  # fmt: skip
                if memory and "compiled" not in name:
                    _, row["memory_mib"] = in_own_process(
                        memory_job, name, found.tolerance, warm_up=(name, TOLERANCE, 2)
                    )
            rows.append(row)
    return {"rows": rows, "kinds": list(dict.fromkeys(r["kind"] for r in rows))}


def memory_job(name: str, tolerance: float, batch: int = 256) -> None:
    """One step of the solver of this name, for a process of its own."""
    step(solvers(compiled=False)[name], task(batch), tolerance)


# -- tables ---------------------------------------------------------------------------------------


def tables(record: Record) -> dict[str, str]:
    """A row a solver: milliseconds, torchdiffeq dopri5's over them, calls, MiB, for each kind."""
    by = {(r["solver"], r["kind"]): r for r in record["rows"]}

    def cells(row: Record) -> list[str]:
        peer = f"torchdiffeq dopri5 {row['solver'].rpartition(' ')[2]}"
        times = quotient(by.get((peer, row["kind"]), {}).get("wall"), row["wall"])
        memory = row.get("memory_mib")
        return [
            milliseconds(row["wall"]), ratio(times), str(row["calls"]), f"{row['error']:.0e}",
            "–" if memory is None else f"{memory:.0f}",
        ]  # fmt: skip

    text = crossed(
        "training step", record["rows"], "solver", "kind",
        lambda kind: (f"{kind}: ms", "torchdiffeq's / this", "calls", "gradient error", "MiB"),
        cells,
    )  # fmt: skip
    return {"training-step": f"{text}\n\n{left_out(record)}".strip()}


if __name__ == "__main__":
    run("training_step", measure, tables, __doc__)
