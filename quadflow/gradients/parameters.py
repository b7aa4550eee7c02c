"""The tensors that func depends on: those it is given, and those it was found to use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge


def tensors_of(func: Any, args: Sequence[Any]) -> dict[str, Tensor]:
    """The tensors that require grad among func's further arguments, and the parameters that do of
    func and of args that are nn.Modules, each once, by what a user calls them."""
    found: dict[str, Tensor] = {}
    for name, source in (("func", func), *((f"args[{i}]", x) for i, x in enumerate(args))):
        if isinstance(source, nn.Module):
            found |= {f"{name}.{key}": p for key, p in source.named_parameters()}
        elif isinstance(source, Tensor):
            found[name] = source
    once = {id(p): name for name, p in reversed(found.items())}
    return {name: p for name, p in found.items() if p.requires_grad and once[id(p)] == name}


def distinct(given: Iterable[Tensor], name: str) -> list[Tensor]:
    """The parameters given by a user, each once.

    Raises:
        TypeError: one is no tensor.
    """
    params = list(given)
    for i, param in enumerate(params):
        if not isinstance(param, Tensor):
            raise TypeError(f"{name}[{i}] must be a tensor, got {type(param).__name__}")
    return list({id(param): param for param in params}.values())  # else counted twice


def differentiable(params: Iterable[Tensor]) -> list[Tensor]:
    """Those of the parameters that require grad, and hold a number."""
    return [param for param in params if param.requires_grad and param.numel()]


def refuse_others(
    func: Callable[..., Any], t: Tensor, y: Any, known: Sequence[Tensor], setting: str
) -> None:
    """Refuse a func whose value has a gradient in tensors other than the known ones, which no
    gradient would reach. It is evaluated once.

    t, y: without graph. setting: what is to hold the tensors, for the message.

    Raises:
        ValueError: it has.
    """
    with torch.enable_grad():
        value = func(t, y)
    values = value.values() if isinstance(value, dict) else value
    parts = [values] if isinstance(values, Tensor) else list(values)
    seen = {get_gradient_edge(p).node for p in known}
    waiting = [x.grad_fn for x in parts if isinstance(x, Tensor) and x.requires_grad]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            raise ValueError(
                f"func depends on a tensor of shape {tuple(leaf.shape)} that requires grad and is "
                f"neither in args nor a parameter of func: name it in {setting}, pass it in args, "
                "or detach it"
            )
        waiting.extend(before for before, _ in node.next_functions)
