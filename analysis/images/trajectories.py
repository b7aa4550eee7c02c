"""How far samplers end from the converged solution of the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import quadflow as qf

from ...adapters import FlowField, Guidance, Samples, sample


@dataclass(frozen=True)
class ConvergedImages:
    """The converged samples that others are compared with.

    x: (B, ...). error: their own, the RMSE to a solve with half the steps, divided by 15
    (Richardson, for a fourth-order method). nfe: evaluations of both solves.
    """

    x: Tensor
    error: float
    nfe: int


def rmse(a: Tensor, b: Tensor) -> float:
    """Root mean squared difference over all entries, in units of the state."""
    return float((a - b).double().square().mean().sqrt())


def solved(field: FlowField, noise: Tensor, steps: int) -> qf.Solution:
    """The solve from noise to data with rk4 in so many equal steps."""
    ends = (field.resolved.noise_t, field.resolved.data_t)
    size = abs(ends[1] - ends[0]) / steps
    with torch.no_grad():
        return qf.solve(field, noise, ends, method="rk4", step_size=size)


def converged(field: FlowField, noise: Tensor, steps: int) -> ConvergedImages:
    """`solved` from the same noise in `steps` and in 2*`steps` steps."""
    coarse, fine = (solved(field, noise, n) for n in (steps, 2 * steps))
    error = rmse(fine.y[-1], coarse.y[-1]) / 15
    return ConvergedImages(fine.y[-1], error, coarse.stats.nfe + fine.stats.nfe)


@dataclass(frozen=True)
class TrajectoryErrors:
    """How far samplers end from the converged solution, and the samples themselves.

    rmse: method -> NFE -> root mean squared difference to the reference, in units of the state.
    samples: method -> NFE -> what was sampled. reference: the converged samples.
    """

    rmse: dict[str, dict[int, float]]
    samples: dict[str, dict[int, Samples]]
    reference: ConvergedImages


def trajectory_errors(
    model: nn.Module,
    sidenet: nn.Module,
    noise: Tensor,
    labels: Tensor,
    *,
    methods: Sequence[str],
    nfes: Sequence[int],
    guidance: Guidance,
    reference_steps: int = 40,
    progress: Callable[[], None] | None = None,
) -> TrajectoryErrors:
    """Every method at every NFE on the same noise and labels, against the converged solve.

    Args:
        model: the backbone, called as convention "repa" says, see `FlowField`.
        sidenet: trained for it.
        noise: (B, ...) float32 or float64.
        labels: (B,) int64.
        methods: names in `SAMPLERS`.
        nfes: numbers of evaluations, each >= 1.
        guidance: of all solves, see `Guidance`.
        reference_steps: steps of the coarser reference solve by "rk4"; the finer has twice as many.
        progress: called after the reference and after every method and NFE.

    Raises:
        ValueError: what `sample` refuses.
        RuntimeError: a sampler that spent another number of evaluations than it was given.
    """
    reference = converged(
        FlowField(model, labels=labels, guidance=guidance), noise, reference_steps
    )
    if progress is not None:
        progress()
    errors: dict[str, dict[int, float]] = {}
    samples: dict[str, dict[int, Samples]] = {}
    for method in methods:
        errors[method], samples[method] = {}, {}
        for nfe in nfes:
            result = sample(
                model, noise, labels, method=method, nfe=nfe, sidenet=sidenet, guidance=guidance
            )
            if result.stats.nfe != nfe:
                raise RuntimeError(f"{method} used {result.stats.nfe} evaluations, asked for {nfe}")
            samples[method][nfe] = result
            errors[method][nfe] = rmse(result.x, reference.x)
            if progress is not None:
                progress()
    return TrajectoryErrors(errors, samples, reference)
