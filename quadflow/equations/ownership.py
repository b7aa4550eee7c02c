"""The owner of a tensor's memory: outputs that a user's function writes over in its next call, and
states that it must leave as they are.

Many functions fill one array and return it in every call (`buf[0] = ...; return buf`), the habit of
SciPy, Fortran and Julia. What they returned before then changes, and a solver that still holds it
is wrong without a word. So an output is copied, unless nothing but the solver knows its memory: a
tensor made by the call that returned it. Two things may be returned uncopied all the same: the
state itself, which nobody writes to, and a constant (one copy is made, and held against it).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from sys import getrefcount
from typing import NoReturn

import torch
from torch import Tensor

from ..errors import VelocityError

_use_count: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)
"""How many tensors (and handles) share a storage; without it every view counts as shared."""


def in_transform() -> bool:
    """Whether a transform of torch.func runs: its tensors have no memory to look at."""
    return torch._C._functorch.maybe_current_level() is not None


class Outputs:
    """The outputs of one function, made safe from its later calls.

    Attributes:
        reused: whether an output was copied so far, other than the state itself: the function may
            well write over what it returns.
    """

    def __init__(self) -> None:
        self.reused = False
        self._kept: tuple[Tensor, int, Tensor] | None = None

    def own(self, value: Tensor, y: Tensor | None, references: int) -> Tensor:
        """The value where it will stay as it is, else a copy (differentiable).

        value: an output, held by one name of the caller alone. y: the state that the function was
        given, which may be returned. references: getrefcount(value), counted by the caller in this
        very place: what a call adds to it differs from place to place, and while torch compiles.
        """
        if references <= _FRESH and _alone(value):
            return value
        return self._copied(value, y)

    def _copied(self, value: Tensor, y: Tensor | None) -> Tensor:
        if y is not None and same_memory(value, y):
            return value
        self.reused = True
        if value.requires_grad or in_transform():
            return value.clone()
        if self._kept is not None and _unchanged(value, *self._kept):
            return self._kept[2]
        copy = value.clone()
        self._kept = (value, version(value), copy)
        return copy


def _fresh() -> tuple[int, int, int]:
    """References to a tensor that one name holds, as `Outputs.own` gets them, to one that nothing
    but a view holds, and to a storage that nothing but its tensor does."""
    value = torch.empty(1)
    view = torch.empty(1).view(1)
    base, storage = view._base, value.untyped_storage()
    return _third(value, None, getrefcount(value)), getrefcount(base), getrefcount(storage)


def _third(value: Tensor, y: Tensor | None, references: int) -> int:
    return references


# in a thread of its own, out of reach of what the first solve may stand in: a transform of
# torch.func, in which tensors have no storage, inference mode, a default device
with ThreadPoolExecutor(1) as _elsewhere:
    _FRESH, _FRESH_BASE, _FRESH_STORAGE = _elsewhere.submit(_fresh).result()


def _alone(value: Tensor) -> bool:
    """Whether no other tensor shares the memory of this one, but one that it is a view of and that
    nobody else knows. A copy too many is the price of doubt: where autograd has saved the value."""
    try:
        storage = value.untyped_storage()
    except (NotImplementedError, RuntimeError):  # no memory of its own, as in torch.func
        return True
    # a storage that is held by name; one made of NumPy's memory, or another library's
    if getrefcount(storage) > _FRESH_STORAGE or not storage.resizable():
        return False
    is_view = value._is_view()
    if _use_count is None:
        return not is_view
    # the storage's handle counts as well
    if _use_count(storage._cdata) > (3 if is_view else 2):
        return False
    base = value._base
    return not is_view or getrefcount(base) <= _FRESH_BASE


def same_memory(value: Tensor, y: Tensor) -> bool:
    """Whether two tensors share their memory, as far as that can be seen: one storage, or two made
    of one array."""
    if value is y:
        return True
    try:
        if value.untyped_storage()._cdata == y.untyped_storage()._cdata:
            return True
        return value.numel() > 0 and value.data_ptr() == y.data_ptr()
    except (NotImplementedError, RuntimeError):
        return False


def _unchanged(value: Tensor, raw: Tensor, when: int, copy: Tensor) -> bool:
    """Whether the value is the one that was copied, the same memory with the same numbers."""
    if (
        value.data_ptr() != raw.data_ptr()
        or value.shape != raw.shape
        or value.stride() != raw.stride()
        or value.dtype is not raw.dtype
        or version(value) != when
    ):
        return False
    if value.device.type != "cpu":
        return True
    # NumPy writes to memory that it shares without a count
    try:
        return bool((value.numpy() == copy.numpy()).all())
    except (TypeError, RuntimeError):  # a dtype or a lazy conjugate that NumPy has not
        return False


def version(y: Tensor) -> int:
    """How often a tensor was written to; 0 where that is not counted (inference mode)."""
    try:
        return y._version
    except RuntimeError:
        return 0


class Untouched:
    """Refuses a user's function that changes the state it is given.

    Every call is watched by the tensor's count of writes. The first call is watched by value as
    well, on the CPU, where NumPy may write without being counted, and in inference mode, where
    nothing is counted (one host synchronisation on another device then).

    Args:
        name: of the function, as the user knows it.
        error: raised, with a message.

    Attributes:
        first: whether there was no call so far.
    """

    def __init__(self, name: str, error: type[Exception] = VelocityError) -> None:
        self.name, self._error = name, error
        self.first = True

    def before(self, y: Tensor) -> tuple[int, Tensor | None]:
        """What `after` is to be given; y: the tensor that the function gets, or parts of."""
        if not self.first:
            return version(y), None
        self.first = False
        if (y.device.type == "cpu" or y.is_inference()) and not in_transform():
            return version(y), y.detach().clone()
        return version(y), None

    def after(self, y: Tensor, mark: tuple[int, Tensor | None]) -> None:
        """Raise if y has changed since `before`."""
        when, copy = mark
        if version(y) == when and (copy is None or _same_bits(y.detach(), copy)):
            return
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise what tells that y was changed."""
        raise self._error(
            f"{self.name} changed the state y in place. y belongs to the solver: work on a copy "
            "(y = y.clone(), in NumPy y.copy()), or use operations that make a new tensor (y * 2, "
            "not y *= 2)"
        )


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.device.type == "cpu":
        try:
            return a.numpy().tobytes() == b.numpy().tobytes()
        except (TypeError, RuntimeError):
            pass
    return torch.equal(a, b)
