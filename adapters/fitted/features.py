"""What a frozen backbone computed on the way to its output, kept without another evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..flow.field import output_tensor


@dataclass(frozen=True)
class FeatureLayout:
    """How features lie over a state.

    module: name of the module whose input they are. channels: numbers at a position. positions: of
    the features along each axis of the state after the first, () where they are one vector a
    sample. kind: "map" (B, channels, *positions), "tokens" (B, product of positions, channels) or
    "vector" (B, channels).
    """

    module: str
    channels: int
    positions: tuple[int, ...]
    kind: str

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    def arrange(self, features: Tensor) -> Tensor:
        """Features as the backbone had them, as (B, channels, *positions)."""
        if self.kind == "tokens":
            features = features.transpose(1, 2)
        return features.reshape(len(features), self.channels, *self.positions)


class Tapped(nn.Module):
    """A frozen model that keeps what one of its modules was fed with.

    Called as the model is; returns its velocity alone.

    Args:
        model: the network. module: the name of one of its modules; None keeps nothing.
        checkpointed: in backpropagation compute a call again instead of keeping what it computed.

    Attributes:
        seen: the module's inputs (B, ...), one for every call since `take`.

    Raises:
        ValueError: the model has no module of this name.
    """

    def __init__(self, model: Any, module: str | None, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.model, self.checkpointed = model, checkpointed
        self.num_classes = getattr(model, "num_classes", None)
        self.seen: list[Tensor] = []
        self._module = None if module is None else named_module(model, module)

    def take(self) -> list[Tensor]:
        """The inputs seen so far, which are then forgotten."""
        seen, self.seen = self.seen, []
        return seen

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.checkpointed and torch.is_grad_enabled():
            found = checkpoint(self._call, *args, use_reentrant=False, **kwargs)
        else:
            found = self._call(*args, **kwargs)
        velocity, *seen = found
        self.seen += seen
        return velocity

    def _call(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        if self._module is None:
            return (output_tensor(self.model(*args, **kwargs)),)
        inputs: list[Tensor] = []
        with _watched([("", self._module)], lambda _, given: inputs.append(given)):
            velocity = output_tensor(self.model(*args, **kwargs))
        if len(inputs) != 1:
            raise ValueError(
                f"the module that gives the features was called {len(inputs)} times in one "
                "evaluation: name one that is called once"
            )
        return velocity, inputs[0]


def named_module(model: Any, name: str) -> nn.Module:
    """The module of this name in a model.

    Raises:
        ValueError: there is none (the message names some).
    """
    known = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    if name not in known or not name:
        some = ", ".join(list(known)[-6:]) or "none: the model is no torch module"
        raise ValueError(f"features={name!r}: the model has no such module; its last are {some}")
    return known[name]


def find_features(
    model: Any, evaluate: Callable[[], Any], shape: Sequence[int], module: str | None = None
) -> FeatureLayout | None:
    """The input of a backbone's last layer (or of the module named) and how it lies over a state.

    Args:
        model: the network. evaluate: evaluates it once, through whatever calls it. shape: of one
            state. module: name of a module; None takes the last one with weights of its own whose
            input fits the state.

    Returns:
        None where no module was named and none fits.

    Raises:
        ValueError: no module of this name, or features that do not fit the state.
    """
    if not isinstance(model, nn.Module):
        if module is not None:
            named_module(model, module)
        return None
    if module is not None:
        wanted = [(module, named_module(model, module))]
    else:
        wanted = [
            (name, m)
            for name, m in model.named_modules()
            if name and m._parameters and next(m.children(), None) is None
        ]
    calls: list[tuple[str, torch.Size]] = []
    with torch.no_grad(), _watched(wanted, lambda name, x: calls.append((name, x.shape))):
        evaluate()
    for name, found in reversed(calls):
        layout = _layout(name, tuple(found[1:]), tuple(shape))
        if layout is not None and sum(name == other for other, _ in calls) == 1:
            return layout
        if module is not None:
            raise ValueError(
                f"features={module!r} have shape {tuple(found)}, called "
                f"{sum(name == other for other, _ in calls)} times, which does not lie over states "
                f"{tuple(shape)}: name another module, or none"
            )
    if module is not None:
        raise ValueError(f"features={module!r}: the model does not call this module")
    return None


def _layout(name: str, found: tuple[int, ...], state: tuple[int, ...]) -> FeatureLayout | None:
    sides = state[1:]
    if len(found) == len(state) and sides:
        fits = all(s % f == 0 for s, f in zip(sides, found[1:], strict=True))
        folds = {s // f for s, f in zip(sides, found[1:], strict=True)} if fits else set()
        return FeatureLayout(name, found[0], found[1:], "map") if len(folds) == 1 else None
    if len(found) == 2 and sides:
        for fold in range(1, min(sides) + 1):
            positions = tuple(s // fold for s in sides)
            if all(s % fold == 0 for s in sides) and math.prod(positions) == found[0]:
                return FeatureLayout(name, found[1], positions, "tokens")
        return None
    return FeatureLayout(name, found[0], (), "vector") if len(found) == 1 else None


class _watched:
    """The modules' first inputs go to `see(name, input)` while this context lasts."""

    def __init__(
        self, modules: Sequence[tuple[str, nn.Module]], see: Callable[[str, Tensor], None]
    ) -> None:
        self.modules, self.see = modules, see

    def __enter__(self) -> None:
        def hook(name: str) -> Callable[..., None]:
            def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
                if given is not None and given.is_floating_point():
                    self.see(name, given)

            return look

        self._handles = [
            m.register_forward_pre_hook(hook(name), with_kwargs=True) for name, m in self.modules
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
