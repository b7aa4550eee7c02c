"""quadflow's methods and the solvers of other libraries, each solving a `Subject` its own way.

A library that is not installed is left out, and `missing` says which.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import quadflow as qf

from ...extras import require
from ..cost.subjects import Subject

EXTRA = "benchmarks"
"""The extra of quadflow that brings the peers."""

LIBRARIES = ("torchdiffeq", "torchode", "diffrax")
"""Peers that need not be installed; scipy always is."""

ATOL_RATIO = 1e-2
"""Absolute over relative tolerance, of every solver."""


class OverBudgetError(RuntimeError):
    """A solve has used up its calls of f."""


@dataclass
class Counter:
    """Counts calls of f and the states in them; stops a solve that needs more than `limit` calls.

    size: numbers in one state (d).
    """

    size: int
    limit: int | None = None
    calls: int = 0
    nfe: int = 0

    def counted(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """f with its calls counted here."""

        def counting(t: Any, y: Any) -> Any:
            self.tick(y.numel() if isinstance(y, Tensor) else y.size)
            return f(t, y)

        return counting

    def tick(self, numbers: int) -> None:
        """One call on so many numbers."""
        self.calls += 1
        self.nfe += numbers // self.size
        if self.limit is not None and self.calls > self.limit:
            raise OverBudgetError(f"more than {self.limit} calls of f")


Solve = Callable[[float], Any]
"""tolerance -> the end state, of y0's shape (tensor or array)."""


@dataclass(frozen=True)
class Peer:
    """A solver as the benchmarks run it.

    name: for tables. library: whose. bind: (subject, counter or None) -> `Solve`; with a counter
    every evaluation is counted there, without one nothing is between the solver and f. compiled:
    whether its first run compiles. per_sample: whether every trajectory of a batch has steps of its
    own.
    """

    name: str
    library: str
    bind: Callable[[Subject, Counter | None], Solve] = field(repr=False)
    compiled: bool = False
    per_sample: bool = False

    @property
    def twin(self) -> str:
        """Name of the peer that takes the same steps eagerly: its own where there is no other."""
        return self.name.replace(" compiled", "")


def missing() -> tuple[str, ...]:
    """Libraries among `LIBRARIES` that are not installed."""
    return tuple(name for name in LIBRARIES if importlib.util.find_spec(name) is None)


def _f(subject: Subject, counter: Counter | None) -> Callable[..., Any]:
    return subject.torch_f if counter is None else counter.counted(subject.torch_f)


# -- quadflow ------------------------------------------------------------------------------------


def quadflow_peer(
    method: str,
    *,
    compiled: bool = False,
    per_sample: bool = False,
    **options: Any,
) -> Peer:
    """quadflow by a registered name. options: further ones of `solve`.

    Several nodes are evaluated by broadcasting, as one who knows f says it.
    """
    how: dict[str, Any] = {
        "node_evaluation": "broadcast", "max_steps": 10**8, "method": method, **options,
    }  # fmt: skip
    if per_sample:
        how["batch_dims"] = 1
    marks = " compiled" * compiled + " per sample" * per_sample
    name = f"quadflow {method}{marks}"

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        # what is compiled is counted in its eager twin, which takes the same steps
        extra: dict[str, Any] = {"compile": True} if compiled and counter is None else {}
        f = _f(subject, counter)

        def solve(tolerance: float) -> Tensor:
            found = qf.solve(
                f, subject.y0, subject.span, rtol=tolerance, atol=ATOL_RATIO * tolerance,
                **how, **extra,
            )  # fmt: skip
            end: Tensor = found.y[-1]
            return end

        return solve

    return Peer(name, "quadflow", bind, compiled, per_sample)


# -- torchdiffeq ---------------------------------------------------------------------------------


def torchdiffeq_peer(method: str) -> Peer:
    """torchdiffeq's dopri5, dopri8, ...; one step size for the whole batch."""

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        odeint = require("torchdiffeq", EXTRA).odeint
        f, times = _f(subject, counter), torch.tensor(subject.span, dtype=torch.float64)

        def solve(tolerance: float) -> Tensor:
            end: Tensor = odeint(
                f, subject.y0, times, rtol=tolerance, atol=ATOL_RATIO * tolerance, method=method
            )[-1]
            return end

        return solve

    return Peer(f"torchdiffeq {method}", "torchdiffeq", bind)


# -- torchode ------------------------------------------------------------------------------------


def torchode_peer(method: str = "Tsit5", *, compiled: bool = False) -> Peer:
    """torchode's Dopri5 or Tsit5 with its PID controller; every trajectory has its own steps.

    compiled: its loop through `torch.compile`, compiled once for all tolerances (they are buffers
    of the controller). torch.jit.script, which its paper uses, fails on it with current torch.
    """

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        torchode = require("torchode", EXTRA)
        term = torchode.ODETerm(_f(subject, counter), with_stats=False)
        controller = torchode.PIDController(
            atol=1.0, rtol=1.0, pcoeff=0.2, icoeff=0.5, dcoeff=0.0, term=term
        )
        adjoint = torchode.AutoDiffAdjoint(getattr(torchode, method)(term=term), controller)
        run = torch.compile(adjoint.solve) if compiled and counter is None else adjoint.solve
        y0 = subject.y0.reshape(-1, subject.y0.shape[-1])
        start, end = (torch.full((len(y0),), t, dtype=y0.dtype) for t in subject.span)
        problem = torchode.InitialValueProblem(y0=y0, t_start=start, t_end=end, t_eval=None)

        def solve(tolerance: float) -> Tensor:
            controller.rtol.fill_(tolerance)
            controller.atol.fill_(ATOL_RATIO * tolerance)
            found = run(problem)
            if bool((found.status != 0).any()):
                raise RuntimeError(f"torchode: status {found.status.tolist()[:8]}")
            states: Tensor = found.ys[:, -1].reshape(subject.y0.shape)
            return states

        return solve

    name = f"torchode {method}{' compiled' * compiled}"
    return Peer(name, "torchode", bind, compiled, per_sample=True)


# -- scipy ---------------------------------------------------------------------------------------


def scipy_peer(method: str = "DOP853", *, joint: bool = False) -> Peer:
    """scipy's solve_ivp, trajectory after trajectory; joint: the batch as one long system."""

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        f = subject.numpy_f if counter is None else counter.counted(subject.numpy_f)
        y0 = subject.y0.numpy()
        rows = y0.reshape(-1, y0.shape[-1])

        def joined(t: float, y: Any) -> Any:
            return f(t, y.reshape(rows.shape)).ravel()

        def solve(tolerance: float) -> Any:
            how: dict[str, Any] = {
                "method": method, "rtol": tolerance, "atol": ATOL_RATIO * tolerance,
            }  # fmt: skip
            if joint:
                return _end(solve_ivp(joined, subject.span, rows.ravel(), **how)).reshape(y0.shape)
            ends = [_end(solve_ivp(f, subject.span, row, **how)) for row in rows]
            return np.stack(ends).reshape(y0.shape)

        return solve

    return Peer(f"scipy {method}{' joint' * joint}", "scipy", bind, per_sample=not joint)


def _end(found: Any) -> Any:
    if not found.success:
        raise RuntimeError(f"scipy: {found.message}")
    return found.y[:, -1]


# -- diffrax -------------------------------------------------------------------------------------


def diffrax_peer(solver: str = "Dopri8") -> Peer:
    """diffrax, jitted once for all tolerances, in float64; a batch through vmap.

    Evaluations are counted by a callback out of the jitted solve; in a batch they are what one
    trajectory needs for the steps of the longest one, times the batch, which is what vmap computes.
    """

    def bind(subject: Subject, counter: Counter | None) -> Solve:
        diffrax, jax = require("diffrax", EXTRA), require("jax", EXTRA)
        jnp = require("jax.numpy", EXTRA)
        batched = subject.y0.dim() > 1

        def one(counting: bool) -> Callable[..., Any]:
            def tick() -> None:
                assert counter is not None
                counter.calls += 1

            def f(t: Any, y: Any, args: Any) -> Any:
                if counting:
                    jax.debug.callback(tick)
                return subject.jax_f(t, y, jnp)

            def solve_one(y: Any, tolerance: Any) -> Any:
                control = diffrax.PIDController(rtol=tolerance, atol=ATOL_RATIO * tolerance)
                found = diffrax.diffeqsolve(
                    diffrax.ODETerm(f), getattr(diffrax, solver)(), *subject.span, None, y,
                    stepsize_controller=control, max_steps=30_000, throw=False,
                )  # fmt: skip
                done = found.result == diffrax.RESULTS.successful
                return found.ys[-1], found.stats["num_steps"], done

            return solve_one

        with jax.enable_x64(True):
            y0 = jnp.asarray(subject.y0.numpy())
            counted = jax.jit(one(True))
            plain = one(False)
            compiled = jax.jit(jax.vmap(plain, (0, None)) if batched else plain)

        def solve(tolerance: float) -> Any:
            with jax.enable_x64(True):
                if counter is None:
                    return jax.block_until_ready(compiled(y0, tolerance))[0]
                if not batched:
                    end, _, done = counted(y0, tolerance)
                    jax.effects_barrier()
                    counter.nfe = counter.calls
                else:
                    _, few, _ = counted(y0[0], tolerance)
                    jax.effects_barrier()
                    end, steps, done = compiled(y0, tolerance)
                    # what comes to a step of one trajectory comes to every step of the batch
                    counter.calls = round(counter.calls * int(steps.max()) / int(few))
                    counter.nfe = counter.calls * len(y0)
                if not bool(jnp.all(done)):
                    raise OverBudgetError("more than 30000 steps")
                return end

        return solve

    return Peer(f"diffrax {solver}", "diffrax", bind, compiled=True, per_sample=True)


# -- all -----------------------------------------------------------------------------------------

QUADFLOW_METHODS = (
    "adams", "gauss", "dopri5", "tsit5", "dopri8", "gauss4", "gauss6", "gauss8", "lobatto5",
)  # fmt: skip
"""quadflow's methods in the comparisons."""

SHARED_STEPS = ("adams",)
"""Those of them that cannot give every trajectory of a batch steps of its own."""


def quadflow_peers(*, compiled: bool = True, per_sample: bool = False) -> list[Peer]:
    """quadflow's methods, eager and (where this version can) compiled."""
    names = [m for m in QUADFLOW_METHODS if not per_sample or m not in SHARED_STEPS]
    found = [quadflow_peer(m, per_sample=per_sample) for m in names]
    if compiled:
        chosen = ["dopri5", "dopri8"]
        if not per_sample:  # sweeps of samples on their own are not compiled
            chosen.append("gauss")
        found += [quadflow_peer(m, compiled=True, per_sample=per_sample) for m in chosen]
    return found


def other_peers(*, compiled: bool = True, batch: bool = False) -> list[Peer]:
    """The solvers of other libraries that are installed."""
    absent = missing()
    found = [scipy_peer()]
    if batch:
        found.append(scipy_peer(joint=True))
    if "torchdiffeq" not in absent:
        found += [torchdiffeq_peer("dopri5"), torchdiffeq_peer("dopri8")]
    if "torchode" not in absent:
        found.append(torchode_peer("Tsit5"))
        if compiled:
            found.append(torchode_peer("Tsit5", compiled=True))
    if "diffrax" not in absent and compiled:
        found += [diffrax_peer("Tsit5"), diffrax_peer("Dopri8")]
    return found


def quietly(solve: Callable[[], Any]) -> Any:
    """What a solve gives, its warnings left out: a peer's own are not ours to mend."""
    with warnings.catch_warnings(), np.errstate(all="ignore"), torch.no_grad():
        warnings.simplefilter("ignore")
        return solve()


def names_of(peers: Sequence[Peer], library: str) -> list[str]:
    """The names of one library's peers."""
    return [p.name for p in peers if p.library == library]
