"""Many tensors as few, for what is pickled: in copies, in files, between processes."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor


class _Place(NamedTuple):
    """The place of a tensor: its stack, and its row there."""

    stack: int
    row: int


@dataclass(frozen=True)
class Packed:
    """A value whose tensors lie in a few others, without their graphs: a thousand small tensors
    would take many times the space of one.

    value: as it was, with a `_Place` for every tensor. stacks: (k, *shape) each, the distinct
    tensors of one shape, dtype and device.
    """

    value: Any
    stacks: list[Tensor]

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # protocol 2, which torch.save has, spells out bytes as text but leaves tensors to torch
        as_bytes = operator.index(protocol) > 2
        stacks = [_as_array(stack) for stack in self.stacks] if as_bytes else self.stacks
        return _restored, (self.value, stacks)

    def unpacked(self) -> Any:
        """The value, its tensors being rows of the stacks."""
        rows = [stack.unbind(0) for stack in self.stacks]
        return _rebuilt(self.value, _Place, lambda place: rows[place.stack][place.row])


def _as_array(stack: Tensor) -> Any:
    """A tensor of the CPU as an array (and its dtype), so that its bytes themselves travel: between
    processes torch sends the place of its tensors in memory, which is lost where the sender ends
    before the receiver looks."""
    if stack.device.type != "cpu":
        return stack
    plain = stack.view(torch.int16) if stack.dtype is torch.bfloat16 else stack
    return plain.numpy(), stack.dtype


def _restored(value: Any, stacks: list[Any]) -> Packed:
    tensors = [
        stack if isinstance(stack, Tensor) else torch.from_numpy(stack[0]).view(stack[1])
        for stack in stacks
    ]
    return Packed(value, tensors)


def pack(value: Any) -> Packed:
    """A value made of tuples, lists, dicts and dataclasses, with its tensors packed; a tensor that
    is in several places is kept once."""
    stacks: dict[Any, tuple[int, list[Tensor]]] = {}
    places: dict[int, _Place] = {}

    def place(tensor: Tensor) -> _Place:
        found = places.get(id(tensor))
        if found is None:
            kind = (tensor.shape, tensor.dtype, tensor.device)
            number, rows = stacks.setdefault(kind, (len(stacks), []))
            found = places[id(tensor)] = _Place(number, len(rows))
            rows.append(tensor.detach())
        return found

    packed = _rebuilt(value, Tensor, place)
    return Packed(packed, [torch.stack(rows) for _, rows in stacks.values()])


def _rebuilt(value: Any, kind: type, change: Any) -> Any:
    """A copy of the value, with `change` made to whatever in it is of this kind."""
    if isinstance(value, kind):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_rebuilt(part, kind, change) for part in value)
    if type(value) is dict:
        return {key: _rebuilt(part, kind, change) for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        old = {one.name: getattr(value, one.name) for one in fields(value)}
        parts = {name: _rebuilt(part, kind, change) for name, part in old.items()}
        if all(parts[name] is part for name, part in old.items()):
            return value  # what segments share stays shared
        new = object.__new__(type(value))
        for name, part in parts.items():
            object.__setattr__(new, name, part)
        return new
    return value
