"""How far samplers end from the converged solution of the same noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...adapters import FlowField, Guidance, Samples, sample
from ...adapters.sampling.converged import STEPS, Converged, converged, rmse
from .rivals import Rival, as_rival


@dataclass(frozen=True)
class TrajectoryErrors:
    """How far samplers end from the converged solution, and the samples themselves.

    rmse: method -> NFE -> root mean squared difference to the reference, in units of the state; a
    method lacks the NFE that it cannot be run with. samples: method -> NFE -> what was sampled.
    reference: the converged samples.
    """

    rmse: dict[str, dict[int, float]]
    samples: dict[str, dict[int, Samples]]
    reference: Converged


def trajectory_errors(
    model: nn.Module,
    sidenet: nn.Module,
    noise: Tensor,
    labels: Tensor,
    *,
    methods: Sequence[str | Rival],
    nfes: Sequence[int],
    guidance: Guidance,
    reference_steps: int = STEPS,
    progress: Callable[[], None] | None = None,
) -> TrajectoryErrors:
    """Every method at every NFE on the same noise and labels, against the converged solve.

    Args:
        model: the backbone, called as convention "repa" says, see `FlowField`.
        sidenet: trained for it.
        noise: (B, ...) float32 or float64.
        labels: (B,) int64.
        methods: names in `SAMPLERS`, or rivals.
        nfes: numbers of evaluations, each >= 1; a rival is run with those that it has.
        guidance: of all solves, see `Guidance`.
        reference_steps: of the converged solve, >= 4, see `tight_solve`.
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
    for rival in map(as_rival, methods):
        name = rival.name
        errors[name], samples[name] = {}, {}
        for nfe in filter(rival.has, nfes):
            result = sample(
                model, noise, labels, method=rival.sampler, nfe=nfe, sidenet=sidenet,
                guidance=guidance,
            )  # fmt: skip
            if result.stats.nfe != nfe:
                raise RuntimeError(f"{name} used {result.stats.nfe} evaluations, asked for {nfe}")
            samples[name][nfe] = result
            errors[name][nfe] = rmse(result.x, reference.x)
            if progress is not None:
                progress()
    return TrajectoryErrors(errors, samples, reference)
