"""The step compiled by torch.compile: the sums of a plan, kept for every func.

A kernel is one trial step as one graph, from the start's velocity to the ratio of error and
tolerance, so that a trial costs one call and the host reads one number. It holds what a method and
a state's layout fix; func, its further arguments and all numbers that change come as arguments, the
numbers as tensors, so that no step compiles anew. Counting happens outside: what a kernel costs is
what its first trial cost, which runs uncompiled and so checks func's output as well.
"""

from __future__ import annotations

import math
import types
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..control.control import Norm, Tolerance
from ..equations.velocity import DetailedVelocity, StateLayout, Velocity
from ..errors import CompileError
from ..plans.stages.sums import StageSums, tensor_stages
from ..plans.sweeps import sweep as arithmetic
from ..plans.sweeps.seen_times import SeenTimes
from ..plans.sweeps.sweep import RuleTensors, Swept
from ..rules.tableau import Tableau

FUSED = 1024
"""Most entries of a state for which tensors that func joins (torch.stack) are computed in place,
without buffers of their own: a cheaper call, but more work for every entry. The two are equal at
about 1500 entries (rings of van der Pol oscillators, one core)."""

_GRAPH = "__compiled_fn"

GUARDED_CALLS = 2
"""How many calls of a kernel in a solve check whether it still fits, where nothing but the solve
runs between the calls."""


class _Traced(Velocity):
    """func as a graph sees it: nothing is counted or watched, and times are tensors.

    copies: func may write over what it returned, see `ownership`; inside a graph this cannot be
    seen, so every output is copied, which a compiler joins with what made it.
    """

    def __init__(
        self, func: Any, further: tuple[Any, ...], layout: StateLayout, copies: bool
    ) -> None:
        self.layout, self.window, self._keeps = layout, None, False
        self._column = (-1, *(1,) * layout.rank)
        plain = (lambda t, y: func(t, y, *further)) if further else func
        self._plain = (lambda t, y: _copied(plain(t, y))) if copies else plain

    def at(self, t: Tensor, y: Tensor) -> Tensor:
        """f at one time (or one a sample)."""
        t = self.layout.against_parts(t).to(self.layout.time_dtype)
        return self._one(t, self.layout.seen(y))

    def at_nodes(self, mode: str, times: Tensor, states: Tensor) -> Tensor:
        """f at several nodes."""
        times, states = times.to(self.layout.time_dtype), self.layout.seen(states)
        if mode == "loop":
            return self._each(times, states)
        return self._together(mode, times, states)


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class _Measure:
    """The norm of error / tolerance, without the tolerance's numbers. norm: None in fixed steps."""

    norm: Norm | None
    per_sample: bool

    def ratio(
        self, error: Tensor | None, y0: Tensor, y1: Tensor, rtol: Tensor | None, atol: Tensor | None
    ) -> Tensor | None:
        if self.norm is None or error is None:
            return None
        assert rtol is not None and atol is not None
        tolerance = Tolerance(rtol, atol, self.norm, self.per_sample)
        return tolerance.ratio(error.detach(), y0.detach(), y1.detach())


def _stages_kernel(
    tableau: Tableau, layout: StateLayout, copies: bool, measure: _Measure
) -> Callable[..., Any]:
    def trial(
        func: Any, further: Any, y0: Tensor, v0: Tensor | None, times: Any, rtol: Any, atol: Any
    ) -> Any:
        velocity = _Traced(func, further, layout, copies)
        t0, t1, low, high = times if isinstance(times, tuple) else times.unbind()

        def f(t: Tensor, y: Tensor, _: bool = False) -> Tensor:
            return velocity.at(t if low is None else torch.clamp(t, low, high), y)

        start = f(t0, y0) if v0 is None else v0
        sums = StageSums(tableau, y0, t1 - t0)
        y1, error = tensor_stages(tableau, f, t0, t1, t1 - t0, start, sums)
        # an input that is an output as well would be copied
        known = sums.velocities if v0 is None else sums.velocities[1:]
        return y1, known, measure.ratio(error, y0, y1, rtol, atol)

    return trial


def _sweeps_kernel(
    rule: RuleTensors, count: int, from_: str, mode: str, layout: StateLayout, copies: bool,
    measure: _Measure, derivative: Tensor | None,
) -> Callable[..., Any]:  # fmt: skip
    n = len(rule.nodes)

    def sweeps(
        func: Any, further: Any, y0: Tensor, v0: Tensor | None, old: Tensor | None,
        guess: Tensor | None, times: Any, rtol: Any, atol: Any,
    ) -> Any:  # fmt: skip
        velocity = _Traced(func, further, layout, copies)
        t0, t1, low, high, width = times[:5].unbind()
        h, given = t1 - t0, (v0, guess)
        seen: SeenTimes | None = None
        if derivative is not None:
            shifts = times[5 + n :].reshape(-1, *(1,) * y0.dim())
            seen = SeenTimes(times[5 : 5 + n], shifts, derivative)

        def f(t: Tensor, y: Tensor) -> Tensor:
            return velocity.at_nodes(mode, torch.clamp(t, low, high), y)

        if from_ == "constant" and v0 is None:
            v0 = velocity.at(torch.clamp(t0, low, high), y0)
        start, guess = arithmetic.guessed(from_, rule, h, width, v0, old, guess)
        values, previous, earlier, v0 = arithmetic.sweeps(
            rule, f, arithmetic.node_times(rule, t0, h), h, y0, v0, start, count, seen
        )
        y1, error = arithmetic.swept(rule, h, y0, values, previous, guess)
        # an input that is an output too would be copied; for what is left see `CompiledTrial.swept`
        return Swept(
            y1, values.reshape(-1, *y0.shape), None, guess if given[1] is None else None,
            v0 if given[0] is None else None, previous if count > 1 else None,
            earlier if count > 2 else None, measure.ratio(error, y0, y1, rtol, atol),
        )  # fmt: skip

    return sweeps


@dataclass
class _Kernel:
    """A compiled function. cost: evaluations and calls of f, once they are known."""

    run: Callable[..., Any]
    plain: Callable[..., Any]
    cost: tuple[int, int] | None = None
    worked: bool = False

    def direct(self) -> Callable[..., Any]:
        """The compiled code itself, without the checks that choose between several such codes:
        where there is one alone. They would cost as much as a small step."""
        try:
            from torch._dynamo.eval_frame import _debug_get_cache_entry_list

            (entry,) = _debug_get_cache_entry_list(self.plain.__code__)
            code, names = entry.code, self.plain.__globals__
            graphs = {name: names[name] for name in code.co_names if name.startswith(_GRAPH)}
            bare = {name: g._torchdynamo_orig_callable for name, g in graphs.items()}
        except Exception:  # several codes, or a torch that keeps them elsewhere
            return self.run
        return types.FunctionType(
            code, {**names, **bare}, self.plain.__name__, None, self.plain.__closure__
        )


_KERNELS: MutableMapping[Any, dict[Any, _Kernel]] = weakref.WeakKeyDictionary()
"""Kernels of every func (or object of a bound method) that is alive, by what they are made for."""


def _options(compile: bool | Mapping[str, Any], entries: int) -> dict[str, Any]:
    """Keywords of torch.compile, for a state of so many entries.

    Raises:
        TypeError: neither a bool nor a mapping.
        ValueError: keywords that would change what is compiled.
    """
    if compile is True:
        compile = {}
    if not isinstance(compile, Mapping):
        raise TypeError(
            f"compile must be True, False or a dict of torch.compile's keywords, got {compile!r}"
        )
    chosen = {"dynamic": False, "fullgraph": True, **compile}
    if chosen["fullgraph"] is not True or chosen["dynamic"] is not False:
        raise ValueError(
            f"compile={dict(compile)!r}: a step is one graph of fixed shapes (fullgraph=True, "
            "dynamic=False); leave these out, or leave out compile"
        )
    inductor = chosen.get("backend", "inductor") == "inductor" and "mode" not in chosen
    if inductor and entries <= FUSED:
        chosen["options"] = {"force_pointwise_cat": True, **(chosen.get("options") or {})}
    return chosen


class CompiledTrials:
    """The kernels of one solve.

    Args:
        func, args: the user's function and its further arguments, as `solve` has them.
        velocity: the same, counted.
        tolerance: None for fixed steps.
        compile: True, or keywords of torch.compile.
        alone: nothing but the solve runs between the steps (no callback that might change func).

    Raises:
        TypeError, ValueError: what cannot be compiled.
    """

    def __init__(
        self,
        func: Any,
        args: tuple[Any, ...],
        velocity: Velocity,
        tolerance: Tolerance | None,
        compile: bool | Mapping[str, Any],
        alone: bool,
    ) -> None:
        if isinstance(func, DetailedVelocity):
            raise TypeError(
                f"func is a {type(func).__name__}, whose `evaluate` decides on float times: it "
                "cannot be compiled; leave out compile"
            )
        layout = velocity.layout
        entries = sum(layout.sizes) * math.prod(layout.batch)
        self.asked, self.options = compile, _options(compile, entries)
        self.velocity, self.alone = velocity, alone
        self.func, self.further = func, tuple(args)
        norm, per_sample = (None, False) if tolerance is None else (
            tolerance.norm, tolerance.per_sample
        )  # fmt: skip
        self._measure = _Measure(norm, per_sample)
        self.rtol = self.atol = None
        if tolerance is not None:
            self.rtol = _on_device(tolerance.rtol, layout)
            self.atol = _on_device(tolerance.atol, layout)
        # what the kernels are made for, beside the method
        self._key = (
            layout.kind, tuple(map(repr, layout.keys)), tuple(layout.shapes), layout.batch,
            layout.func_dtype, layout.dtype, layout.device, norm, per_sample,
            repr(sorted(self.options.items(), key=lambda item: item[0])),
        )  # fmt: skip
        self._mine: dict[Any, CompiledTrial] = {}
        self._store = _kernels_of(func)

    def stages(self, tableau: Tableau, known: bool) -> CompiledTrial:
        """A trial of a Runge-Kutta step; known: with the start's velocity given."""
        copies = self.velocity.outputs.reused
        kind = (tableau, known, copies)
        found = self._mine.get(kind)
        if found is None:
            found = self._mine[kind] = self._trial(
                ("stages", *kind),
                lambda: _stages_kernel(tableau, self.velocity.layout, copies, self._measure),
            )
        return found

    def sweeps(
        self, rule: RuleTensors, count: int, from_: str, known: bool, guessed: bool,
        seen: SeenTimes | None,
    ) -> CompiledTrial | None:  # fmt: skip
        """A trial of `count` sweeps, see `sweep.guessed`; known, guessed: with the start's
        velocity, and the guess, given. seen: with the times that func sees. None before it is
        decided how nodes are evaluated, which a trial finds out that runs as it is."""
        mode = self.velocity.mode
        if mode == "auto":
            return None
        copies, derivative = self.velocity.outputs.reused, None if seen is None else seen.matrix
        kind = (id(rule), count, from_, known, guessed, copies, seen is not None)
        found = self._mine.get(kind)
        if found is None:
            layout, measure = self.velocity.layout, self._measure
            found = self._mine[kind] = self._trial(
                ("sweeps", rule.key, *kind[1:], mode),
                lambda: _sweeps_kernel(
                    rule, count, from_, mode, layout, copies, measure, derivative
                ),
            )
        return found

    def _trial(self, key: Any, make: Callable[[], Callable[..., Any]]) -> CompiledTrial:
        kernels, full = self._store, (key, self._key)
        if full not in kernels:
            plain = _own_code(make())
            kernels[full] = _Kernel(torch.compile(plain, **self.options), plain)
        return CompiledTrial(self, kernels[full])


class CompiledTrial:
    """A kernel as the trial steps of one solve use it.

    Attributes:
        known: whether its cost is; else a trial is to run as it is, and `measure` to follow.
    """

    def __init__(self, solve: CompiledTrials, kernel: _Kernel) -> None:
        self._solve, self._kernel, self._run, self._calls = solve, kernel, kernel.run, 0
        self.known = kernel.cost is not None
        self._numbers: np.ndarray | None = None
        self._packed: Tensor | None = None

    def measure(self, before: tuple[int, int, int]) -> None:
        """Keep the cost of the trial that began when the velocity's counts were `before`."""
        now = self._solve.velocity.counts
        if now[2] == before[2]:  # else it found out how nodes are evaluated as well
            self._kernel.cost = (now[0] - before[0], now[1] - before[1])
            self.known = True

    def times(self, t0: float, t1: float, *others: float) -> Tensor:
        """t0, t1, the window of times in which func may be evaluated, and further numbers, as one
        float64 tensor on the state's device."""
        velocity = self._solve.velocity
        low, high = velocity.window or (-math.inf, math.inf)
        if self._packed is not None and self._numbers is not None:
            self._numbers[:] = (t0, t1, low, high, *others)
            return self._packed
        packed = torch.tensor((t0, t1, low, high, *others), dtype=torch.float64)
        device = velocity.layout.device
        return packed if device.type == "cpu" else packed.to(device, non_blocking=True)

    def __call__(self, y0: Tensor, v0: Tensor | None, *arguments: Any) -> Any:
        """What the kernel makes of y0, v0, what else it takes, and the times last."""
        solve, kernel = self._solve, self._kernel
        assert kernel.cost is not None
        try:
            result = self._run(
                solve.func, solve.further, y0, v0, *arguments, solve.rtol, solve.atol
            )
        except Exception as failure:
            of_compiler = type(failure).__module__.startswith(("torch._dynamo", "torch._inductor"))
            if kernel.worked and not of_compiler:
                raise
            raise CompileError(
                f"compile={solve.asked!r}: the step could not be compiled with func="
                f"{getattr(solve.func, '__name__', solve.func)}: it must be traceable as one "
                "graph (no decisions on values, no Python state that changes from call to "
                "call); else leave out compile. The cause: "
                f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}"
            ) from failure
        kernel.worked = True
        solve.velocity.nfe += kernel.cost[0]
        solve.velocity.calls += kernel.cost[1]
        self._calls += 1
        if self._calls == GUARDED_CALLS and solve.alone:
            self._settle(arguments[-1], result[0])
        return result

    def swept(
        self, from_: str, count: int, rule: RuleTensors, y0: Tensor, v0: Tensor | None,
        old: Tensor | None, guess: Tensor | None, times: tuple[float, ...],
    ) -> Swept:  # fmt: skip
        """Sweeps over an interval (t0, t1, width of the one before, then the times of the nodes
        that func sees and their shifts, if they count), arguments as of `sweep.guessed`; with
        what the kernel leaves out because it was given."""
        done: Swept = self(y0, v0, old, guess, self.times(*times))
        v0 = done.v0 if v0 is None else v0
        guess = done.guess if guess is None else guess
        previous, earlier = done.previous, done.earlier
        if count <= 2:
            start = guess
            if from_ != "extrapolated":
                start, _ = arithmetic.guessed(from_, rule, 1.0, 1.0, v0, old, None)
            previous, earlier = (start, None) if count == 1 else (previous, start)
        return done._replace(v0=v0, guess=guess, previous=previous, earlier=earlier)

    def _settle(self, times: Any, y1: Tensor) -> None:
        """Leave out what only a first call needs."""
        self._run = self._kernel.direct()
        # a graph that autograd keeps holds on to its times
        if isinstance(times, Tensor) and times.device.type == "cpu" and not y1.requires_grad:
            self._numbers = np.empty(len(times))
            self._packed = torch.from_numpy(self._numbers)


def _on_device(value: float | Tensor, layout: StateLayout) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.float64).to(layout.device)


def _kernels_of(func: Any) -> dict[Any, _Kernel]:
    """The kernels of func, kept as long as it lives."""
    key, name = func, None
    if isinstance(func, types.MethodType):  # made anew each time it is looked up
        key, name = func.__self__, func.__func__
    try:
        kept = _KERNELS.setdefault(key, {})
    except TypeError:  # neither hashable nor weakly referable: nothing to keep them by
        return {}
    return kept if name is None else kept.setdefault(name, {})  # type: ignore[return-value,arg-type]


def _own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a code object of its own, by which torch.compile keeps what it made."""
    assert isinstance(function, types.FunctionType)
    return types.FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__,
        function.__defaults__, function.__closure__,
    )  # fmt: skip
