"""Samplers of other libraries, run beside our own. Their solver loops are theirs, not ours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...adapters import FlowField, Guidance, sample, time_grid
from ...adapters.flow.field import Convention
from ...adapters.sampling.samplers import Sampler
from ...extras import require
from ...plans.method import Method

PEERS = ("unipc",)
"""unipc: UniPC (order 2, bh2) of diffusers."""


@dataclass(frozen=True)
class Sampling:
    """One sampling: x (B, ...) at the data end; nfe, a guided pair being one; rows that the network
    was evaluated on; seconds of it all, and of the SideNet within."""

    x: Tensor
    nfe: int
    rows: int
    seconds: float
    sidenet_seconds: float


class TimedSideNet(nn.Module):
    """A SideNet that adds up the seconds spent in it (waiting for a GPU to finish, where it is on
    one)."""

    def __init__(self, sidenet: nn.Module) -> None:
        super().__init__()
        self.sidenet = sidenet
        self.num_classes = getattr(sidenet, "num_classes", None)
        self.seconds = 0.0

    def forward(self, x: Tensor, v: Tensor, t: Tensor, h: Tensor, y: Tensor) -> Tensor:
        finish(x)
        start = time.perf_counter()
        delta = self.sidenet(x, v, t, h, y)
        finish(x)
        self.seconds += time.perf_counter() - start
        return delta


def finish(x: Tensor) -> None:
    """Wait until a GPU has made x; on a CPU it is made."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def run_sampler(
    method: str | Sampler | Method,
    model: nn.Module,
    noise: Tensor,
    labels: Tensor | None,
    *,
    nfe: int,
    sidenet: nn.Module | None = None,
    guidance: Guidance | None = None,
    convention: Convention | str = "repa",
    shift: float = 1.0,
    grid: Sequence[float] | None = None,
) -> Sampling:
    """Any of our samplers or of `PEERS`, with exactly nfe evaluations.

    Args: as of `quadflow.adapters.sample`.

    Raises:
        MissingExtraError: a peer without its library. What `sample` raises.
    """
    timed = None if sidenet is None else TimedSideNet(sidenet)
    finish(noise)
    start = time.perf_counter()
    if method in PEERS:
        field = FlowField(model, convention, labels, guidance or Guidance())
        times = time_grid(nfe, field.resolved, shift=shift) if grid is None else np.asarray(grid)
        x = _unipc(field, noise, times)
        evaluations, rows = field.evaluations, field.rows
    else:
        samples = sample(
            model, noise, labels, method=method, nfe=nfe, sidenet=timed, guidance=guidance,
            convention=convention, shift=shift, grid=grid,
        )  # fmt: skip
        x, evaluations, rows = samples.x, samples.stats.nfe, samples.rows
    finish(noise)
    seconds = time.perf_counter() - start
    if evaluations != nfe:
        raise RuntimeError(f"{method} used {evaluations} evaluations, asked for {nfe}")
    return Sampling(x, evaluations, rows, seconds, timed.seconds if timed else 0.0)


def _unipc(field: FlowField, noise: Tensor, times: np.ndarray) -> Tensor:
    scheduler = require("diffusers", "diffusers").UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0
    )
    path = field.resolved
    sigmas = (times[:-1] - path.data_t) / path.direction
    scheduler.set_timesteps(sigmas=sigmas, device=noise.device)
    x = noise
    with torch.no_grad():
        for sigma, step in zip(sigmas.tolist(), scheduler.timesteps, strict=True):
            v, _ = field.evaluate(path.data_t + path.direction * sigma, x)
            x = scheduler.step(v * path.direction, step, x).prev_sample
    return x
