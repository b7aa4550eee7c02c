"""Keeps steps in tensors, where small states of the CPU would go through NumPy."""

from __future__ import annotations

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode


class InTensors(TorchDispatchMode):
    """Watches torch's operations, which is why steps inside stay in tensors (see
    `equations.small_states`). counts: how often each ran, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))
