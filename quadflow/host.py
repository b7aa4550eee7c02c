"""Reading numbers of tensors on the host: the only places where a solve waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _WorstOfBatch(torch.autograd.Function):
    """Identity, except that under torch.func.vmap it is the largest over the batch.

    So that a whole vmapped batch takes one decision: the step that the worst of its samples needs.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (None,)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
        if in_dims[0] is None:
            return _applied(x), None
        return _applied(x.amax(in_dims[0])), None


def _applied(x: Tensor) -> Tensor:
    return _WorstOfBatch.apply(x)  # type: ignore[no-untyped-call]


def read_on_host(x: Tensor) -> Any:
    """A tensor's numbers as Python's (nested lists where it has axes): one host synchronisation.

    x: real or bool, any shape. Under torch.func.vmap the largest over the vmapped axis is read, so
    x must be something of which larger is worse (an error ratio, "is not finite").
    """
    x = x.detach()
    try:
        return x.item() if x.dim() == 0 else x.tolist()
    except RuntimeError:  # a tensor of torch.func.vmap has no numbers of its own
        return _applied(x.to(torch.float64)).tolist()
