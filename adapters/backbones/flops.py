"""Floating-point operations of networks, counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def counted(run: Callable[[], Any]) -> int:
    """FLOPs of a call: two for each multiplication with addition in products of matrices and
    convolutions, which is what `torch.utils.flop_counter` sees.

    On torch's meta device nothing is computed.
    """
    # attention as two products of matrices: its fused forms on a CPU are not counted
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
