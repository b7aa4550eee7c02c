"""Counts operations whose result the host reads (what a GPU would have to finish first)."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.item.default",
         "aten.is_nonzero.default", "aten.equal.default"}  # fmt: skip


class CountWaits(TorchDispatchMode):
    """`waits`: how many such operations ran inside."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __enter__(self) -> CountWaits:
        # numbers of a whole tensor are read without an operation
        self._tolist = torch.Tensor.tolist

        def counted(tensor: torch.Tensor) -> object:
            self.waits += tensor.dim() > 0
            return self._tolist(tensor)

        torch.Tensor.tolist = counted
        return super().__enter__()

    def __exit__(self, *failure: object) -> None:
        torch.Tensor.tolist = self._tolist
        super().__exit__(*failure)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += str(func) in WAITS
        return func(*args, **(kwargs or {}))
