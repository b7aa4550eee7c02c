"""Random numbers of a training step that depend on the seed, the step and the sample alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class Draws:
    """The random numbers of one step of a training, for the samples of one process.

    Every draw is made for the whole batch, on the CPU, and the own rows are cut out of it. So a
    sample gets the same numbers whatever the number of processes and the device, and a training
    that is resumed at a step goes on with the numbers that it would have had.

    Args:
        seed: of the training, >= 0. step: of the optimiser, from 0. batch: samples of the step, of
            all processes together. rows: those of this process; default all. device: where the
            numbers are wanted. stream: keeps draws of different purposes apart.
    """

    seed: int
    step: int
    batch: int
    rows: slice = field(default_factory=lambda: slice(None))
    device: torch.device | str = "cpu"
    stream: int = 0

    def __post_init__(self) -> None:
        words = np.random.SeedSequence((self.seed, self.step, self.stream))
        (word,) = words.generate_state(1, np.uint64)
        self._generator = torch.Generator().manual_seed(int(word >> np.uint64(1)))

    @property
    def count(self) -> int:
        """Samples of this process."""
        return len(range(*self.rows.indices(self.batch)))

    def fork(self, step: int, stream: int) -> Draws:
        """Draws of another step or purpose, for the same samples."""
        return replace(self, step=step, stream=stream)

    def uniform(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(count,), uniform in [0, 1)."""
        return self._own(torch.rand(self.batch, generator=self._generator, dtype=dtype))

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """(count, *shape), standard normal."""
        numbers = torch.randn((self.batch, *shape), generator=self._generator, dtype=dtype)
        return self._own(numbers)

    def integers(self, high: int) -> Tensor:
        """(count,) int64, uniform in 0..high-1."""
        return self._own(torch.randint(high, (self.batch,), generator=self._generator))

    def permutations(self, n: int) -> Tensor:
        """(count, n) int64: for every sample the numbers 0..n-1 in an order of its own."""
        keys = torch.rand((self.batch, n), generator=self._generator, dtype=torch.float64)
        return self._own(keys.argsort(dim=1))

    def dropped(self, labels: Tensor, null_label: int, probability: float) -> Tensor:
        """Labels (count,) with each one replaced by `null_label` with the given probability."""
        drop = self.uniform() < probability
        return torch.where(drop, torch.full_like(labels, null_label), labels)

    def _own(self, numbers: Tensor) -> Tensor:
        return numbers[self.rows].to(self.device)
