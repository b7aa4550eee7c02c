"""Where the chains of chain training start: on the paths of data, or on the backbone's own."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ...checks import integer_from
from ...plans.anchors.method import adams
from ...solve import solve
from ..data.datasets import Images
from ..flow.field import Convention, FlowField, Guidance, resolve_convention
from .random import StepRandom
from .state import Fingerprint

LEAST_SIGMA = 1e-3
"""Chains of a denoised prediction stay this far from the data, where it gives no velocity."""


@runtime_checkable
class ChainSource(Protocol):
    """States that chains start from; the samples of a step are those of `random`.

    shape: (C, H, W) of a state.
    """

    shape: tuple[int, int, int]

    def states(self, random: StepRandom) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, C, H, W), sigma (B,) in [0, 1] with noise at 1, and labels (B,) int64, where the
        null label stands for "no class"; B is `random.count`. A function of `random` alone."""
        ...

    def fingerprint(self) -> Fingerprint:
        """JSON values that the states depend on besides the random numbers."""
        ...


class DataChains:
    """Chains from x = (1-σ) image + σ noise with σ uniform in [0, 1], as published.

    Args:
        images: see `Images`; without labels every chain has the null label.
        null_label: the SideNet's number of classes.
        label_dropout: probability of the null label.
    """

    def __init__(self, images: Images, null_label: int, label_dropout: float = 0.1) -> None:
        self.images, self.null_label, self.label_dropout = images, null_label, label_dropout
        self.shape = images.shape

    def states(self, random: StepRandom) -> tuple[Tensor, Tensor, Tensor]:
        images, labels = self.images.batch(random.integers(len(self.images)).cpu())
        data = images.to(random.device)
        if labels is None:
            labels = torch.full((len(data),), self.null_label)
        labels = random.dropped(labels.to(random.device), self.null_label, self.label_dropout)
        sigma = random.uniform(data.dtype)
        noise = random.normal(self.shape, data.dtype)
        s = sigma[:, None, None, None]
        return (1 - s) * data + s * noise, sigma, labels

    def fingerprint(self) -> Fingerprint:
        return {"data": self.images.identity()}


class TrajectoryChains:
    """Chains from the trajectories that a backbone itself takes from noise: no data needed.

    A pool of one trajectory a chain is solved by two-step Adams-Bashforth and used up, every state
    once, in `intervals` steps of the training; then the next pool is solved. So it costs about one
    evaluation of the backbone a step. The times are stratified: the k-th is uniform in the k-th of
    `intervals` equal parts of [0, 1], for every trajectory anew.

    Args:
        model: the frozen backbone. shape: (C, H, W) of a state. null_label: the SideNet's number
            of classes; the trajectories have uniform labels below it, 0 means that the backbone
            takes none. label_dropout: probability of the null label. convention: see `FlowField`.
            intervals: of a trajectory, >= 2. dtype: of the states.
    """

    def __init__(
        self,
        model: Any,
        shape: tuple[int, int, int],
        null_label: int,
        label_dropout: float = 0.1,
        *,
        convention: Convention | str = "repa",
        intervals: int = 16,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        integer_from(2, intervals, "intervals")
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), got {shape}")
        self.model, self.shape, self.null_label = model, shape, null_label
        self.label_dropout, self.intervals, self.dtype = label_dropout, intervals, dtype
        self.convention = resolve_convention(convention)
        self._pool: tuple[StepRandom, tuple[Tensor, Tensor, Tensor, Tensor]] | None = None

    def states(self, random: StepRandom) -> tuple[Tensor, Tensor, Tensor]:
        age, turn = divmod(random.step, self.intervals)
        # a pool is a function of the seed and its number: a resumed training solves it again
        key = random.fork(age, stream=1)
        if self._pool is None or self._pool[0] != key:
            self._pool = key, self._solve(key)
        x, sigma, order, labels = self._pool[1]
        rows, which = torch.arange(random.count, device=x.device), order[:, turn]
        return x[which, rows], sigma[which, rows], labels

    def fingerprint(self) -> Fingerprint:
        return {"data": f"trajectories of {self.intervals} intervals, shape {list(self.shape)}"}

    def _solve(self, random: StepRandom) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States (n, B, ...), their σ (n, B), the order (B, n) of their use, labels (B,)."""
        n, path = self.intervals, self.convention
        noise = random.normal(self.shape, self.dtype)
        labels = random.integers(max(1, self.null_label))
        if self.null_label:
            labels = random.dropped(labels, self.null_label, self.label_dropout)
        shift = random.uniform(torch.float64).clamp(min=1e-3)
        order = random.permutations(n)
        parts = torch.arange(n, device=noise.device, dtype=torch.float64)
        sigma = 1 - (parts[:, None] + shift) / n
        if path.prediction == "denoised":
            sigma = sigma.clamp(min=LEAST_SIGMA)
        ends = torch.ones_like(sigma[:1])
        grid = path.data_t + path.direction * torch.cat((ends, sigma, 0 * ends))
        field = FlowField(
            self.model, path, labels if self.null_label else None,
            Guidance(null_label=self.null_label),
        )  # fmt: skip
        reached: list[Tensor] = []
        with torch.no_grad():
            solve(
                field,
                noise,
                (path.noise_t, path.data_t),
                method=adams(2, startup="rising"),
                grid=grid[:, :, None, None, None],
                callback=lambda _, x: reached.append(x),
            )
        return torch.stack(reached[:n]), sigma.to(self.dtype), order, labels
