"""Images from a flow-matching model in a given number of evaluations, by one call."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...checks import check_choice, integer_from
from ...plans.method import Method
from ...solution import Statistics
from ...solve import solve
from ..flow.field import Convention, FlowField, Guidance, resolve_convention
from .samplers import SAMPLERS, Plan, Sampler


def check_state(x: Tensor, name: str) -> None:
    """Raise unless x is a finite (B, ...) of at least one sample; name: what the error calls it."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor (B, ...), got {type(x).__name__}")
    if x.dim() < 2 or not len(x):
        raise ValueError(f"{name} must be (B, ...) with B >= 1, got shape {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        bad = int(torch.isfinite(x).flatten(1).all(1).logical_not().nonzero()[0])
        raise ValueError(f"{name} is not finite in sample {bad}")


def _grid(grid: Any, noise: Tensor, intervals: int, what: str) -> Any:
    """The grid as `solve` takes it: (N+1,) as it is, (B, N+1) as (N+1, B, 1, ...)."""
    times = grid if isinstance(grid, Tensor) else np.asarray(grid, np.float64)
    if times.ndim not in (1, 2) or (times.ndim == 2 and len(times) != len(noise)):
        raise ValueError(
            f"grid must be (N+1,), or (B, N+1) with B={len(noise)} samples, got shape "
            f"{tuple(times.shape)}"
        )
    if times.shape[-1] != intervals + 1:
        raise ValueError(f"grid has {times.shape[-1]} times; {what} needs {intervals + 1}")
    if times.ndim == 1:
        return times
    rows = torch.as_tensor(times).T
    return rows.reshape(*rows.shape, *(1,) * (noise.dim() - 1))


@dataclass(frozen=True)
class Samples:
    """What a sampler made, and what it cost.

    x: the samples (B, ...), at the end of the way. stats: of the solve; stats.nfe counts a guided
    pair as one. rows: samples that the network was evaluated on (2B an evaluation where guided).
    """

    x: Tensor
    stats: Statistics
    rows: int


def initial_noise(
    seed: int,
    count: int,
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype = torch.float32,
    first: int = 0,
) -> Tensor:
    """Standard normal noise (count, *shape), drawn sample by sample.

    Sample i depends on seed and i alone, not on the batch that it is drawn in.

    Args:
        seed: an integer >= 0.
        count: number of samples, >= 1.
        shape: of one sample, such as (channels, height, width).
        dtype: a floating one.
        first: i of the first sample, >= 0.

    Raises:
        ValueError: seed, count or first out of range.
    """
    integer_from(0, seed, "seed")
    integer_from(1, count, "count")
    integer_from(0, first, "first")
    rows = []
    for i in range(first, first + count):
        words = np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        rows.append(torch.randn(shape, generator=generator, dtype=dtype))
    return torch.stack(rows)


def default_labels(count: int, num_classes: int) -> Tensor | None:
    """`count` labels that go round the classes; None for a backbone without."""
    return torch.arange(count) % num_classes if num_classes else None


def time_grid(
    intervals: int,
    convention: Convention | str = "repa",
    *,
    shift: float = 1.0,
    sigmas: tuple[float, float] = (1.0, 0.0),
) -> np.ndarray:
    """Times from noise to data, in the model's own time: (intervals + 1,) float64.

    Args:
        intervals: >= 1.
        convention: whose time it is.
        shift: s of σ' = sσ/(1 + (s-1)σ) on a uniform grid of σ: above 1 the steps are short near
            the noise, below 1 near the data; 1 is uniform.
        sigmas: noise fractions of the first and the last time, within [0, 1] and different; other
            ends than (1, 0) give a part of the way, or the way back.

    Source: Esser et al. 2024, eq. 23.
    """
    integer_from(1, intervals, "intervals")
    if not 0 < shift < float("inf"):
        raise ValueError(f"shift must be positive and finite, got {shift}")
    if not all(0 <= s <= 1 for s in sigmas) or sigmas[0] == sigmas[1]:
        raise ValueError(f"sigmas must be two different numbers in [0, 1], got {sigmas}")
    path = resolve_convention(convention)
    start, end = (own_time(path, s) for s in sigmas)
    # on a uniform grid of the model's own time, so that shift 1 is that grid to the last bit
    times = np.linspace(start, end, intervals + 1)
    if shift == 1:
        return times
    first, last = (s / (shift - (shift - 1) * s) for s in sigmas)  # where the shift takes to them
    sigma = np.linspace(first, last, intervals + 1)
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    times[1:-1] = (path.data_t + path.direction * sigma)[1:-1]
    return times


def own_time(path: Convention, sigma: float) -> float:
    """The model's own time at a noise fraction, the ends exactly."""
    return {1.0: path.noise_t, 0.0: path.data_t}.get(sigma, path.data_t + path.direction * sigma)


def _planned(answer: Any) -> Plan:
    """What a sampler gave, checked."""
    if isinstance(answer, tuple) and len(answer) in (2, 4) and isinstance(answer[0], Method):
        return Plan(*answer)
    raise TypeError(f"method, a plan, must give (Method, number of intervals), gave {answer!r}")


def as_sampler(method: Sampler | Method) -> Sampler:
    """The plan of a Method (see `intervals_for`); a plan as it is."""
    if not isinstance(method, Method):
        return method
    return lambda field, nfe, sidenet: (method, intervals_for(method, nfe))


def intervals_for(method: Method, nfe: int) -> int:
    """The largest number of intervals on which a Method evaluates its function nfe times.

    Counted on a small problem: what a plan costs does not depend on what it solves.

    Raises:
        ValueError: no number of intervals costs exactly nfe (the message names the budgets next to
            it), or the method takes no fixed steps.
    """

    def cost(intervals: int) -> int:
        grid = np.linspace(0.0, 1.0, intervals + 1)
        y0 = torch.ones(1, 1, dtype=torch.float64)
        solution = solve(
            lambda t, y: -y, y0, (0.0, 1.0), method=method, grid=grid, node_evaluation="loop"
        )
        return solution.stats.nfe

    # an interval costs an evaluation at least, so there are at most nfe
    intervals = bisect.bisect_right(range(1, nfe + 1), nfe, key=cost)
    if not intervals or cost(intervals) != nfe:
        near = ([cost(intervals)] if intervals else []) + [cost(intervals + 1)]
        raise ValueError(
            f"nfe={nfe}: no number of intervals of method {method.name} costs that; "
            f"{' and '.join(map(str, near))} can be had"
        )
    return intervals


def sample(
    model: Any,
    noise: Tensor,
    labels: Tensor | None = None,
    *,
    sigmas: tuple[float, float] = (1.0, 0.0),
    method: str | Sampler | Method = "bianchor",
    nfe: int = 7,
    sidenet: nn.Module | None = None,
    guidance: Guidance | None = None,
    convention: Convention | str = "repa",
    extras: Mapping[str, Any] | None = None,
    null_extras: Mapping[str, Any] | None = None,
    grid: Tensor | np.ndarray | Sequence[float] | None = None,
    shift: float = 1.0,
    callback: Callable[[float, Tensor], None] | None = None,
) -> Samples:
    """Integrate a flow-matching model from noise to data with exactly `nfe` evaluations.

    Args:
        model: the network; see `FlowField` for what may be given and how it is called.
        noise: (B, ...) float32 or float64, the state at noise fraction sigmas[0].
        labels: (B,) int64, or None.
        sigmas: noise fractions σ in [0, 1] where the way begins and ends; other ones than noise to
            data sample from a state between, or go back (see `editing.invert`).
        method: one of `SAMPLERS`; a sampler such as `bianchor_plan(simpson())` or what
            `fit_sampler` gives, a function (field, nfe, sidenet) -> (Method, number of intervals)
            or a `Plan`; or a Method that takes fixed steps, on as many intervals as cost nfe
            evaluations.
        nfe: evaluations of the model, >= 1; a guided pair is one.
        sidenet: for "bianchor" and "single-anchor".
        guidance, convention, extras, null_extras: see `FlowField`.
        grid: ends of the intervals in the model's own time, from that of sigmas[0] to that of
            sigmas[1], both included: (N+1,), or (B, N+1) with times for every sample. N must be the
            number of intervals that costs `nfe`. Default: `time_grid` between sigmas.
        shift: see `time_grid`; excludes `grid`.
        callback: callback(t, x) after every interval; t is a float, or (B, 1, ...) with times for
            every sample.

    Raises:
        ValueError: unknown method, nfe < 1 or none that a Method's intervals cost, a grid that
            does not fit, noise that is not finite; what `FlowField` and `solve` raise.
        TypeError: a plan that gives no (Method, number of intervals).
        SolveError: the samples are not finite.
    """
    if isinstance(method, str):
        check_choice(method, SAMPLERS, "method")
    integer_from(1, nfe, "nfe")
    check_state(noise, "noise" if sigmas[0] == 1 else "x")
    flow = FlowField(
        model, convention, labels, guidance or Guidance(), extras or {},
        null_extras=null_extras or {},
    )  # fmt: skip
    sampler = SAMPLERS[method] if isinstance(method, str) else as_sampler(method)
    plan = _planned(sampler(flow, nfe, sidenet))
    times: Any = plan.times
    if times is None:
        times = time_grid(plan.intervals, flow.resolved, shift=shift, sigmas=sigmas)
    elif grid is not None or shift != 1 or tuple(sigmas) != (1.0, 0.0):
        raise ValueError(
            f"{plan.method.name} has times of its own, from noise to data: leave out grid, shift "
            "and sigmas"
        )
    ends = (float(times[0]), float(times[-1]))
    if grid is not None:
        if shift != 1:
            raise ValueError(f"give grid or shift={shift}, not both")
        name = method if isinstance(method, str) else plan.method.name
        times = _grid(grid, noise, plan.intervals, f"{name} with nfe={nfe}")
    with torch.no_grad():
        whole = plan._replace(times=times, field=plan.field or flow)
        return run_plan(whole, noise, ends, callback)


def run_plan(
    plan: Plan,
    noise: Tensor,
    ends: tuple[float, float],
    callback: Callable[[float, Tensor], None] | None = None,
) -> Samples:
    """Integrate along a plan that has its times and its field, with gradients where wanted.

    plan: see `Plan`; times (N+1,), or (N+1, ...) that broadcast against the state, then with their
    gradient. noise: (B, ...), the state at ends[0]. ends: the first and the last time. callback:
    see `sample`.

    Raises:
        ValueError: times that do not run from the one end to the other.
        SolveError: the samples are not finite.
    """
    field = plan.field
    assert field is not None
    # a network is no function of several times at once, and finding that out would cost calls
    solution = solve(
        field, noise, ends, method=plan.method, grid=plan.times, callback=callback,
        node_evaluation="loop",
    )  # fmt: skip
    return Samples(solution.y[-1], solution.stats, field.rows)
