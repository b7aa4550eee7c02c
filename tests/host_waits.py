"""Counts operations whose result the host reads (what a GPU would have to finish first)."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.item.default",
         "aten.is_nonzero.default", "aten.equal.default"}  # fmt: skip


class CountWaits(TorchDispatchMode):
    """`waits`: how many such operations ran inside."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += str(func) in WAITS
        return func(*args, **(kwargs or {}))
