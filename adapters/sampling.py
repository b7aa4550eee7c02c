"""Images from a flow-matching model in a given number of evaluations, by one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quadflow.errors import nearest
from quadflow.methods import Method, adams, anchors
from quadflow.quadrature import gauss_legendre
from quadflow.solve import Statistics, solve

from .exponential import DataPredictionInterpolant
from .flow import Convention, FlowField, Guidance
from .sidenet import BiAnchor

Plan = Callable[[FlowField, int, "nn.Module | None"], tuple[Method, int]]
"""(field, nfe, sidenet) -> the method and the number of intervals that cost exactly nfe."""


def _euler(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[Method, int]:
    return adams(1), nfe


def _heun(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[Method, int]:
    # two evaluations an interval; an odd budget ends with an Euler step
    return adams(1, "PECE", forward_last=nfe % 2 == 1), (nfe + 1) // 2


def _ab2(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[Method, int]:
    return adams(2, startup="rising"), nfe


def _pec2(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[Method, int]:
    return adams(2, "PEC", startup="rising", forward_last=True), nfe


def _dpmpp_2m(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[Method, int]:
    interpolant = DataPredictionInterpolant(field.resolved)
    return anchors(interpolant, gauss_legendre(1), name="dpmpp-2m"), nfe


def _bianchor(field: FlowField, nfe: int, sidenet: nn.Module | None) -> tuple[Method, int]:
    if sidenet is None:
        raise ValueError("method='bianchor' needs sidenet=, a SideNet trained for this model")
    return BiAnchor(sidenet, field), nfe


SAMPLERS: dict[str, Plan] = {
    "euler": _euler,
    "heun": _heun,
    "ab2": _ab2,
    "dpmpp-2m": _dpmpp_2m,
    "pec2": _pec2,
    "bianchor": _bianchor,
}
"""euler; heun (explicit trapezoid); ab2 (Adams-Bashforth with two anchors); dpmpp-2m (DPM-Solver++
in data prediction); pec2 (predict with two anchors, correct once, reuse); bianchor (BA-solver)."""


@dataclass(frozen=True)
class Samples:
    """x: (B, ...) at the data end. stats: of the solve; stats.nfe counts a guided pair as one.
    rows: samples that the network was evaluated on (2B an evaluation where guided)."""

    x: Tensor
    stats: Statistics
    rows: int


def initial_noise(
    seed: int, count: int, shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal noise (count, *shape), drawn sample by sample: sample i depends on seed and
    i alone, not on the batch that it is drawn in."""
    if seed < 0:
        raise ValueError(f"seed must be >= 0, got {seed}")
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    rows = []
    for i in range(count):
        words = np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        rows.append(torch.randn(shape, generator=generator, dtype=dtype))
    return torch.stack(rows)


def sample(
    model: Any,
    noise: Tensor,
    labels: Tensor | None = None,
    *,
    method: str = "bianchor",
    nfe: int = 7,
    sidenet: nn.Module | None = None,
    guidance: Guidance | None = None,
    convention: Convention | str = "repa",
    extras: dict[str, Any] | None = None,
    grid: Tensor | None = None,
    callback: Callable[[float, Tensor], None] | None = None,
) -> Samples:
    """Integrate a flow-matching model from noise to data with exactly `nfe` evaluations.

    Args:
        model: the network; see `FlowField` for what may be given and how it is called.
        noise: (B, ...) float32 or float64, the state at the noise end.
        labels: (B,) int64, or None.
        method: one of `SAMPLERS`.
        nfe: evaluations of the model, >= 1; a guided pair is one.
        sidenet: for "bianchor".
        guidance, convention, extras: see `FlowField`.
        grid: ends of the intervals in the model's own time, first to last; default uniform. Its
            number of intervals must be the one that costs `nfe`.
        callback: callback(t, x) after every interval.

    Raises:
        ValueError: unknown method, nfe < 1, a grid that does not fit; what `FlowField` and `solve`
            raise.
        SolveError: the samples are not finite.
    """
    if method not in SAMPLERS:
        raise ValueError(f"method={method!r} is unknown: {nearest(method, SAMPLERS)}")
    if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1:
        raise ValueError(f"nfe must be an integer >= 1, got {nfe!r}")
    flow = FlowField(model, convention, labels, guidance or Guidance(), extras or {})
    plan, intervals = SAMPLERS[method](flow, nfe, sidenet)
    ends = (flow.resolved.noise_t, flow.resolved.data_t)
    times = np.linspace(*ends, intervals + 1) if grid is None else np.asarray(grid, np.float64)
    if times.ndim != 1:
        raise ValueError(f"grid must be one-dimensional, got shape {times.shape}")
    if len(times) != intervals + 1:
        raise ValueError(
            f"grid has {len(times)} times; {method} with nfe={nfe} needs {intervals + 1}"
        )
    with torch.no_grad():
        solution = solve(flow, noise, ends, method=plan, grid=times, callback=callback)
    return Samples(solution.y[-1], solution.stats, flow.rows)
