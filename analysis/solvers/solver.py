"""Anybody's solver behind one interface: quadflow's methods, peers, and callables of one's own.

A measurement asks for a solve on a given grid of times, or at given tolerances, and receives a
`Run`. Evaluations are counted here, in the right-hand side, and never taken from a solver's own
books; where a solver was told a grid, what it did is compared with it, since a solver that takes
steps of its own shows an order of nothing.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import integrate
from torch import Tensor

import quadflow as qf

from ...control.control import StepController, rms_norm
from ...errors import nearest
from ...extras import require
from ...plans.registry import Method
from ..problems.problem import Problem

PEERS = ("torchdiffeq", "scipy", "diffrax")
"""Prefixes that `as_solver` knows, as in "scipy:DOP853"."""


class Dense:
    """States at any time of the span, from the solver's own interpolant; made when first asked.

    A number gives (d,), `many` gives (T, d), both float64.
    """

    def __init__(self, many: Callable[[np.ndarray], Tensor]) -> None:
        self._many = many

    def many(self, times: np.ndarray) -> Tensor:
        """The states at times (T,) of any order: (T, d)."""
        return self._many(np.asarray(times, dtype=np.float64))

    def __call__(self, t: float) -> Tensor:
        return self._many(np.array([t], dtype=np.float64))[0]


@dataclass(frozen=True)
class Run:
    """One solve by anybody's solver.

    end: (d,) float64, the state reached; None when the end was not reached. It carries torch's
    graph where the problem's y0 requires grad and the solver is torch's. nfe: velocity evaluations
    of single states. calls: sequential calls of f. seconds: wall time of the solve alone. failure:
    why it did not reach the end (or left the grid it was told); None where it did. dense: t -> (d,)
    by the solver's interpolant, see `Dense`; it may solve once more, outside the counts. steps:
    accepted times, the start included, where known. estimates: the solver's local error estimate
    of every accepted step (largest entry, absolute), where known.
    """

    end: Tensor | None
    nfe: int
    calls: int
    seconds: float
    failure: str | None = None
    dense: Callable[[float], Tensor] | None = None
    steps: tuple[float, ...] = ()
    estimates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Solver:
    """A solver by name, with what it can do.

    order: declared, None where none is. fixed: (problem, grid (N+1,) of times) -> Run on these
    steps; None where the solver cannot be told its steps. adaptive: (problem, rtol, atol) -> Run;
    None where it has no error control. method: quadflow's Method, where it is one.
    """

    name: str
    order: int | None
    fixed: Callable[[Problem, np.ndarray], Run] | None
    adaptive: Callable[[Problem, float, float], Run] | None
    method: Method | None = None


class _Counted:
    """A problem's right-hand side for torch and for numpy, with its evaluations counted.

    times: where it was called, of single states.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.nfe = self.calls = 0
        self.times: list[float] = []

    def __call__(self, t: Any, y: Any) -> Any:
        self.calls += 1
        if isinstance(y, Tensor):
            self.nfe += y.numel() // y.shape[-1]
            return self.problem.f(torch.as_tensor(t, dtype=torch.float64), y)
        self.nfe += 1
        return self.problem.f_numpy(float(t), np.asarray(y))

    def recording(self, t: Any, y: Any) -> Any:
        """As a call, and the time is kept."""
        self.times += np.atleast_1d(np.asarray(t, dtype=np.float64)).ravel().tolist()
        return self(t, y)


def _guarded(solve: Callable[[_Counted], Run]) -> Callable[[Problem], Run]:
    """Whatever a solver raises becomes the failure of its run, with what it had cost."""

    def run(problem: Problem) -> Run:
        f = _Counted(problem)
        began = time.perf_counter()
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                result = solve(f)
        except Exception as error:
            text = str(error).splitlines()[0] if str(error) else "no message"
            spent = time.perf_counter() - began
            return Run(None, f.nfe, f.calls, spent, f"{type(error).__name__}: {text}")
        if result.end is not None and not bool(torch.isfinite(result.end.detach()).all()):
            return dataclasses.replace(result, end=None, failure="the state is not finite")
        return result

    return run


def _left_grid(wanted: np.ndarray, taken: Sequence[float]) -> str | None:
    """What is wrong with the steps taken, or None where they are the grid to the last digits."""
    if len(taken) != len(wanted):
        return f"took {len(taken) - 1} steps where the grid has {len(wanted) - 1}"
    off = np.abs(np.asarray(taken) - wanted)
    if off.max() > 1e-13 * np.abs(wanted).max():
        i = int(off.argmax())
        return f"was at t={taken[i]:.9g} where the grid has t={wanted[i]:.9g}"
    return None


def _on_grid(run: Run, wanted: np.ndarray) -> Run:
    wrong = _left_grid(wanted, run.steps)
    if run.failure is None and wrong is not None:
        return dataclasses.replace(run, end=None, failure=f"left the grid: {wrong}")
    return run


# -- quadflow ------------------------------------------------------------------------------------


def quadflow_solver(method: str | Method, *, node_evaluation: str = "broadcast") -> Solver:
    """quadflow's own: a registered name or any Method.

    node_evaluation: see `quadflow.solve`; a Problem's f broadcasts, so nothing need be found out.

    Raises:
        ValueError, TypeError: unknown name, or no Method (see `quadflow.get_method`).
    """
    chosen = qf.get_method(method)

    def run(problem: Problem, how: dict[str, Any]) -> Run:
        scaled: list[Tensor] = []
        last: list[tuple[Tensor, Tensor, Tensor]] = []  # scaled error, state before, state after
        before = [problem.y0]
        adaptive = "rtol" in how

        def norm(error: Tensor) -> Tensor:
            scaled[:] = [error]
            return rms_norm(error)

        def accepted(t: float, y: Tensor) -> None:
            last.append((scaled[0], before[0], y))
            before[0] = y

        def solve(f: _Counted) -> Run:
            watch: dict[str, Any] = {"norm": norm, "callback": accepted} if adaptive else {}
            began = time.perf_counter()
            solution = qf.solve(
                f, problem.y0, problem.span, method=chosen, throw=False,
                node_evaluation=node_evaluation, **watch, **how,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            probes = solution.stats.probe_nfe
            counts = f.nfe - probes, max(1, f.calls - probes) if probes else f.calls

            @functools.cache
            def again() -> Any:
                return qf.solve(
                    problem.f, problem.y0, problem.span, method=chosen, throw=False,
                    node_evaluation=node_evaluation, dense_output=True, **how,
                )  # fmt: skip

            estimates = [
                float((e.abs() * (how["atol"] + how["rtol"] * y.abs().maximum(z.abs()))).max())
                for e, y, z in last
                if adaptive
            ]
            return Run(
                solution.y[-1] if solution.success else None, *counts, seconds,
                None if solution.success else f"{solution.status.value}: {solution.message}",
                Dense(lambda times: again()(times)), tuple(solution.steps), tuple(estimates),
            )  # fmt: skip

        return _guarded(solve)(problem)

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        return _on_grid(run(problem, {"grid": grid}), grid)

    def adaptive(problem: Problem, rtol: float, atol: float) -> Run:
        controller = StepController(max_factor=chosen.max_growth)
        return run(problem, {"rtol": rtol, "atol": atol, "controller": controller})

    return Solver(
        chosen.name,
        chosen.order,
        fixed if chosen.takes_fixed_steps else None,
        None if chosen.error_order is None else adaptive,
        chosen,
    )


# -- scipy ---------------------------------------------------------------------------------------

_SCIPY_ORDERS = {"RK23": 3, "RK45": 5, "DOP853": 8, "Radau": 5, "BDF": None, "LSODA": None}


def scipy_solver(name: str) -> Solver:
    """scipy.integrate's RK23, RK45, DOP853, Radau, BDF or LSODA.

    Fixed steps: before each of its steps the solver is told that its span ends at the next point
    of the grid, with a tolerance that accepts everything; for Radau the Newton iterations are
    carried on to 1e-14. BDF and LSODA choose their order by the error, so they have no fixed steps.

    Raises:
        ValueError: unknown name.
    """
    if name not in _SCIPY_ORDERS:
        raise ValueError(f"scipy solver {name!r} is unknown: {nearest(name, _SCIPY_ORDERS)}")
    kind = getattr(integrate, name)

    def march(
        f: Any, problem: Problem, grid: np.ndarray, dense: bool
    ) -> tuple[list[float], list[Any], Any]:
        times: list[float] = grid.tolist()
        atol, options = np.inf, dict[str, Any]()
        if name == "Radau":
            atol = 1e6 * max(1.0, float(problem.y0.abs().max()))
            options["jac"] = _numpy_jacobian(problem)
        solver = kind(
            f, times[0], problem.y0.detach().numpy().copy(), times[1], rtol=1e-3, atol=atol,
            first_step=abs(times[1] - times[0]), **options,
        )  # fmt: skip
        if name == "Radau":
            solver.rtol, solver.newton_tol = 0.0, 1e-14 / 1e6
        taken, pieces = [times[0]], []
        for goal in times[1:]:
            solver.t_bound, solver.status = goal, "running"
            solver.h_abs = 2 * abs(goal - solver.t)  # cut to the goal by the solver itself
            if name == "Radau":
                # factorised for another step size; and an old Jacobian's rate of convergence
                # makes the iterations stop at 1e-10
                solver.J, solver.current_jac = solver.jac(solver.t, solver.y, solver.f), True
                solver.LU_real = solver.LU_complex = None
            message = solver.step()
            if solver.status == "failed":
                raise RuntimeError(f"at t={solver.t:.9g}: {message}")
            taken.append(solver.t)
            if solver.t != goal:
                break
            if dense:  # DOP853 evaluates f for it
                pieces.append(solver.dense_output())
        return taken, pieces, solver.y

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        def solve(f: _Counted) -> Run:
            began = time.perf_counter()
            taken, _, end = march(f, problem, grid, False)
            seconds = time.perf_counter() - began

            @functools.cache
            def pieces() -> Any:
                return march(problem.f_numpy, problem, grid, True)[1]

            def many(times: np.ndarray) -> Tensor:
                sign = 1.0 if grid[-1] > grid[0] else -1.0
                keys = (sign * grid).tolist()
                where = [
                    bisect.bisect_left(keys, sign * t, 1, len(keys) - 1) - 1 for t in times.tolist()
                ]
                rows = [pieces()[i](t) for i, t in zip(where, times.tolist(), strict=True)]
                return torch.from_numpy(np.array(rows))

            return Run(
                torch.from_numpy(np.array(end)), f.nfe, f.calls, seconds, None, Dense(many),
                tuple(taken),
            )  # fmt: skip

        return _on_grid(_guarded(solve)(problem), grid)

    def adaptive(problem: Problem, rtol: float, atol: float) -> Run:
        y0 = problem.y0.detach().numpy().copy()
        options: dict[str, Any] = {"method": name, "rtol": rtol, "atol": atol}
        if name in ("Radau", "BDF"):
            options["jac"] = _numpy_jacobian(problem)

        def solve(f: _Counted) -> Run:
            began = time.perf_counter()
            got = integrate.solve_ivp(f, problem.span, y0, **options)
            seconds = time.perf_counter() - began

            @functools.cache
            def again() -> Any:
                return integrate.solve_ivp(
                    problem.f_numpy, problem.span, y0, dense_output=True, **options
                ).sol

            end = torch.from_numpy(got.y[:, -1].copy()) if got.success else None
            return Run(
                end, f.nfe, f.calls, seconds, None if got.success else str(got.message),
                Dense(lambda times: torch.from_numpy(again()(times).T.copy())),
                tuple(got.t.tolist()),
            )  # fmt: skip

        return _guarded(solve)(problem)

    told = name not in ("BDF", "LSODA")
    return Solver(f"scipy:{name}", _SCIPY_ORDERS[name], fixed if told else None, adaptive)


def _numpy_jacobian(problem: Problem) -> Callable[[float, np.ndarray], np.ndarray]:
    def jacobian(t: float, y: np.ndarray) -> np.ndarray:
        matrix: np.ndarray = problem.jacobian(t, torch.from_numpy(np.array(y))).numpy()
        return matrix

    return jacobian


# -- torchdiffeq ---------------------------------------------------------------------------------


def torchdiffeq_solver(name: str, **options: Any) -> Solver:
    """torchdiffeq's dopri5, dopri8, bosh3, rk4, euler, midpoint, explicit_adams, ...

    options: handed to it as they are (such as interp="cubic"; the linear interpolation of its
    fixed-step solvers is its default). Fixed steps of its adaptive solvers: the grid as `step_t`,
    with a tolerance that accepts everything.

    Raises:
        MissingExtraError: torchdiffeq is not installed. ValueError: unknown name.
    """
    torchdiffeq = require("torchdiffeq", "analysis")
    solvers: dict[str, Any] = require("torchdiffeq._impl.odeint", "analysis").SOLVERS
    if name not in solvers:
        raise ValueError(f"torchdiffeq solver {name!r} is unknown: {nearest(name, solvers)}")
    valid = solvers[name].valid_callbacks()
    controlled = "callback_accept_step" in valid

    def run(problem: Problem, how: dict[str, Any], extra: dict[str, Any]) -> Run:
        span = torch.tensor(problem.span, dtype=torch.float64)

        def odeint(f: Any, times: Tensor) -> Tensor:
            return torchdiffeq.odeint(
                f, problem.y0, times, method=name, options={**options, **extra}, **how
            )

        def solve(f: _Counted) -> Run:
            taken: list[float] = []
            watch = _Watched(f, taken, controlled)
            began = time.perf_counter()
            end = odeint(watch, span)[-1]
            seconds = time.perf_counter() - began
            taken.append(problem.span[1])

            def many(times: np.ndarray) -> Tensor:
                order = np.argsort(times if span[1] > span[0] else -times, kind="stable")
                inner = times[order]
                inside = inner[(inner != problem.span[0]) & (inner != problem.span[1])]
                unique = [problem.span[0], *dict.fromkeys(inside.tolist()), problem.span[1]]
                with torch.no_grad():
                    states = odeint(problem.f, torch.tensor(unique, dtype=torch.float64))
                at = dict(zip(unique, states, strict=True))
                return torch.stack([at[t] for t in times.tolist()])

            return Run(end, f.nfe, f.calls, seconds, None, Dense(many), tuple(taken))

        return _guarded(solve)(problem)

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        points = torch.from_numpy(grid.copy())
        if controlled:
            extra = {
                "step_t": points[1:],
                "first_step": 2 * abs(grid[1] - grid[0]),
                "max_num_steps": 10 * len(grid) + 100,
            }
            got = run(problem, {"rtol": 1.0, "atol": np.inf}, extra)
        else:
            got = run(problem, {}, {"grid_constructor": lambda f, y0, t: points})
        return _on_grid(got, grid)

    def adaptive(problem: Problem, rtol: float, atol: float) -> Run:
        return run(problem, {"rtol": rtol, "atol": atol}, {"max_num_steps": 1_000_000})

    order = getattr(solvers[name], "order", None)
    if name == "scipy_solver":
        raise ValueError("torchdiffeq's scipy_solver is scipy: take 'scipy:RK45' or another")
    return Solver(f"torchdiffeq:{name}", order, fixed, adaptive if controlled else None)


class _Watched:
    """A counted right-hand side that torchdiffeq tells of its steps."""

    def __init__(self, f: _Counted, taken: list[float], controlled: bool) -> None:
        self._f = f

        def step(t0: Tensor, y0: Tensor, dt: Tensor) -> None:
            taken.append(float(t0))

        # fixed-grid solvers reject nothing, and know only the first of these
        setattr(self, "callback_accept_step" if controlled else "callback_step", step)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        value: Tensor = self._f(t, y)
        return value


# -- diffrax -------------------------------------------------------------------------------------


def diffrax_solver(solver: Any) -> Solver:
    """A diffrax solver, as an object (`diffrax.Dopri5()`) or by name ("Dopri5"), in float64.

    Fixed steps by `StepTo`. Implicit solvers need a root finder of their own on fixed steps: give
    the object, such as `diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=1e-12, atol=1e-12))`.
    Evaluations are counted in a solve of their own; `seconds` is a second, compiled run.

    Raises:
        MissingExtraError: diffrax is not installed. ValueError: unknown name.
    """
    diffrax = require("diffrax", "analysis")
    jax = require("jax", "analysis")
    jnp = require("jax.numpy", "analysis")
    if isinstance(solver, str):
        known = [
            n for n in dir(diffrax)
            if isinstance(getattr(diffrax, n), type)
            and issubclass(getattr(diffrax, n), diffrax.AbstractSolver)
            and not n.startswith("Abstract")
        ]  # fmt: skip
        if solver not in known:
            raise ValueError(f"diffrax solver {solver!r} is unknown: {nearest(solver, known)}")
        solver = getattr(diffrax, solver)()
    name = f"diffrax:{type(solver).__name__}"

    def velocity(problem: Problem) -> Callable[[Any, Any, Any], Any]:
        def f(t: Any, y: Any, args: Any) -> Any:
            if problem.vector is not None:
                return problem.vector(t, y, jnp)
            parts = problem.rhs(t, tuple(y), jnp)
            return jnp.stack([jnp.asarray(p, dtype=y.dtype) for p in parts])

        return f

    def run(problem: Problem, controller: Any, dt0: float | None, most: int) -> Run:
        def solve(f: _Counted) -> Run:
            field = velocity(problem)

            def tick() -> None:
                f.nfe += 1
                f.calls += 1

            def counted(t: Any, y: Any, args: Any) -> Any:
                jax.debug.callback(tick)
                return field(t, y, args)

            def diffeqsolve(vector_field: Any, start: Any, **save: Any) -> Any:
                return diffrax.diffeqsolve(
                    diffrax.ODETerm(vector_field), solver, problem.span[0], problem.span[1], dt0,
                    start, stepsize_controller=controller, max_steps=most, throw=False,
                    saveat=diffrax.SaveAt(t1=True, **save),
                )  # fmt: skip

            with jax.enable_x64(True):
                y0 = jnp.asarray(problem.y0.detach().numpy())
                first = diffeqsolve(counted, y0, steps=True)
                jax.effects_barrier()
                compiled = jax.jit(lambda y: diffeqsolve(field, y).ys)
                jax.block_until_ready(compiled(y0))
                began = time.perf_counter()
                ys = jax.block_until_ready(compiled(y0))
                seconds = time.perf_counter() - began
                done = bool(first.result == diffrax.RESULTS.successful)
                times = np.asarray(first.ts)
                end = torch.from_numpy(np.array(ys)[-1].copy())
            steps = times[np.isfinite(times)].tolist()
            # the end is saved twice, as a step and as the end
            steps = list(dict.fromkeys([problem.span[0], *steps]))

            @functools.cache
            def again() -> Any:
                return diffeqsolve(field, y0, dense=True)

            def many(wanted: np.ndarray) -> Tensor:
                with jax.enable_x64(True):
                    rows = jax.vmap(again().evaluate)(jnp.asarray(wanted))
                    return torch.from_numpy(np.array(rows))

            failure = None if done else f"diffrax: {first.result}"
            return Run(
                end if done else None, f.nfe, f.calls, seconds, failure, Dense(many), tuple(steps)
            )

        return _guarded(solve)(problem)

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        with jax.enable_x64(True):
            controller = diffrax.StepTo(ts=jnp.asarray(grid))
        return _on_grid(run(problem, controller, None, len(grid) + 1), grid)

    def adaptive(problem: Problem, rtol: float, atol: float) -> Run:
        return run(problem, diffrax.PIDController(rtol=rtol, atol=atol), None, 1_000_000)

    try:
        order = solver.order(None)
    except Exception:
        order = None
    controlled = isinstance(solver, diffrax.AbstractAdaptiveSolver)
    return Solver(name, order, fixed, adaptive if controlled else None)


# -- anything ------------------------------------------------------------------------------------


def callable_solver(solve: Callable[..., Any], name: str | None = None) -> Solver:
    """A solver of one's own: solve(rhs, y0, grid) -> the state at grid[-1], on fixed steps.

    rhs(t, y) takes a state (d,) as tensor or numpy array and answers in kind. y0 is a float64
    tensor (d,), grid a float64 array (N+1,) of times. The answer is a tensor or array (d,), or a
    pair of it and a function t -> (d,) for the states between. A run in which some interval of the
    grid saw no evaluation of rhs has failed: its steps were others.
    """
    title: str = name or getattr(solve, "__name__", None) or type(solve).__name__

    def fixed(problem: Problem, grid: np.ndarray) -> Run:
        def run(f: _Counted) -> Run:
            began = time.perf_counter()
            answer = solve(f.recording, problem.y0, grid.copy())
            seconds = time.perf_counter() - began
            between: Callable[[float], Any] | None = None
            if isinstance(answer, tuple):
                answer, between = answer
            end = torch.as_tensor(answer, dtype=torch.float64)
            if end.shape != problem.y0.shape:
                raise ValueError(
                    f"{title} returned shape {tuple(end.shape)}, the state is "
                    f"{tuple(problem.y0.shape)}"
                )
            slack = 1e-9 * np.abs(np.diff(grid)).min()
            seen = np.sort(f.times)
            low, high = np.sort([grid[:-1], grid[1:]], axis=0)
            # a method looks at the left end of an interval or at the right one, if at neither's
            # inside: in one of the two senses no interval may be empty
            held, right = (
                np.searchsorted(seen, high + shift) - np.searchsorted(seen, low + shift)
                for shift in (-slack, slack)
            )
            if (held == 0).any() and (right > 0).all():
                held = right
            failure = None
            if (held == 0).any():
                i = int(np.argmin(held))
                failure = (
                    f"left the grid: no evaluation in [{grid[i]:.9g}, {grid[i + 1]:.9g}], "
                    f"interval {i} of {len(held)}"
                )
            dense = None
            if between is not None:
                at = between
                dense = Dense(
                    lambda times: torch.stack(
                        [torch.as_tensor(at(t), dtype=torch.float64) for t in times.tolist()]
                    )
                )
            return Run(None if failure else end, f.nfe, f.calls, seconds, failure, dense)

        return _guarded(run)(problem)

    return Solver(title, None, fixed, None)


def as_solver(anything: Any) -> Solver:
    """The Solver of a Solver, a Method, a name, a diffrax object or a callable.

    Names: a registered method ("rk4"), or a peer's, "torchdiffeq:dopri5", "scipy:DOP853",
    "diffrax:Dopri5". A callable: see `callable_solver`.

    Raises:
        ValueError: unknown name. TypeError: none of these. MissingExtraError: the peer is missing.
    """
    if isinstance(anything, Solver):
        return anything
    if isinstance(anything, Method):
        return quadflow_solver(anything)
    if isinstance(anything, str):
        peer, colon, name = anything.partition(":")
        if not colon:
            return quadflow_solver(anything)
        if peer not in PEERS:
            raise ValueError(f"method={anything!r}: {peer!r} is no peer: {nearest(peer, PEERS)}")
        return {
            "torchdiffeq": torchdiffeq_solver, "scipy": scipy_solver, "diffrax": diffrax_solver,
        }[peer](name)  # fmt: skip
    if type(anything).__module__.partition(".")[0] == "diffrax":
        return diffrax_solver(anything)
    if callable(anything):
        return callable_solver(anything)
    raise TypeError(
        "method must be a name, a Method, a Solver or a callable solve(rhs, y0, grid), got "
        f"{type(anything).__name__}"
    )
