"""Counts operations whose result the host reads (what a GPU would have to finish first)."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
WAITS = {
    _ATEN._local_scalar_dense.default, _ATEN.nonzero.default, _ATEN.item.default,
    _ATEN.is_nonzero.default, _ATEN.equal.default,
}  # fmt: skip


class CountWaits(TorchDispatchMode):
    """`waits`: how many such operations ran inside."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __enter__(self) -> CountWaits:
        # reads its numbers without an operation; refuses those of a tensor of torch.func.vmap
        self._tolist = torch.Tensor.tolist

        def counted(tensor: torch.Tensor) -> object:
            numbers = self._tolist(tensor)
            self.waits += 1
            return numbers

        torch.Tensor.tolist = counted
        return super().__enter__()

    def __exit__(self, *failure: object) -> None:
        torch.Tensor.tolist = self._tolist
        super().__exit__(*failure)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += func in WAITS
        return func(*args, **kwargs) if kwargs else func(*args)
