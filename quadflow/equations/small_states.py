"""Small states of the CPU in NumPy: one of its operations takes a third of torch's time there.

A step from such a state, of which nothing but numbers is wanted, goes through the same functions
of a plan's sums with arrays in the place of tensors. Arrays and tensors share their memory; func
sees tensors alone.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from .ownership import in_transform

Array = np.ndarray

MOST_ENTRIES = 1024
"""Entries of the largest state that goes through NumPy. Beyond, an operation takes the time of its
entries, and NumPy might start threads of its own."""


class NeedsTensors(Exception):
    """What func returned carries more than numbers (a graph, say): the step is for torch."""


def takes(y: Tensor | Array) -> bool:
    """Whether a step from the state y, an array after one in NumPy, may go through NumPy.

    It may not where more than numbers is wanted of it (gradients in either direction, transforms of
    torch.func) or where torch's operations are watched or replaced (dispatch modes, compilers).
    """
    if type(y) is Tensor:
        small = y.is_cpu and y.dim() > 0 and y.numel() <= MOST_ENTRIES and not y.requires_grad
    else:
        small = type(y) is np.ndarray
    return (
        small
        and not in_transform()
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
        and not torch.compiler.is_compiling()
    )


def array_of(x: Tensor | Array) -> Array:
    """The numbers of a tensor, in its own memory.

    Raises:
        NeedsTensors: it carries more than numbers, or lies in another way than NumPy knows.
    """
    if isinstance(x, np.ndarray):
        return x
    if type(x) is not Tensor or x.requires_grad:
        raise NeedsTensors
    try:
        return x.numpy()
    except (RuntimeError, TypeError):  # on another device, lazily conjugate, of a strange layout
        raise NeedsTensors from None


def tensor_of(x: Any) -> Any:
    """The tensor with an array's numbers, in its memory; what is no array as it is."""
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


Run = Callable[..., Any]


def silence() -> tuple[Run, Run]:
    """Two ways to call a function, as run(function, *arguments): without NumPy's warnings, which
    torch has not for numbers that overflow or are none; and, inside the first, with them."""
    if int(np.__version__.partition(".")[0]) > 1:
        silent, outside = contextvars.copy_context(), contextvars.copy_context()
        silent.run(np.seterr, all="ignore")
        return silent.run, outside.run
    told = np.geterr()  # of the thread, not of the context

    def run_silent(function: Run, *arguments: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*arguments)

    def run_outside(function: Run, *arguments: Any) -> Any:
        with np.errstate(**told):
            return function(*arguments)

    return run_silent, run_outside
