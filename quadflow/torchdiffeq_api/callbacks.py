"""Callbacks that func carries as attributes, by torchdiffeq's names for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from ..errors import caller_level
from .names import StepKind

CALLBACKS = {
    StepKind.ADAPTIVE: ("callback_step", "callback_accept_step", "callback_reject_step"),
    StepKind.FIXED: ("callback_step",),
    StepKind.ADAMS: ("callback_step",),
    StepKind.SCIPY: (),
}


def callbacks_of(func: Any, y0: Any, kind: StepKind, name: str) -> dict[str, Any]:
    """`solve`'s hooks for the callbacks that func carries as attributes."""
    named = {
        attribute: getattr(func, attribute)
        for attribute in CALLBACKS[StepKind.ADAPTIVE]
        if callable(getattr(func, attribute, None))
    }
    unused = sorted(set(named) - set(CALLBACKS[kind]))
    if unused:
        warnings.warn(
            f"method {name!r} does not call {', '.join(unused)}", stacklevel=caller_level()
        )
    step, accept, reject = (
        named.get(attribute) if attribute in CALLBACKS[kind] else None
        for attribute in CALLBACKS[StepKind.ADAPTIVE]
    )
    device = (y0[0] if isinstance(y0, tuple) else y0).device

    def told(callback: Callable[..., Any], t0: float, state: Any, h: float) -> None:
        start, size = (
            torch.full((), value, dtype=torch.float64, device=device) for value in (t0, abs(h))
        )
        callback(start, state, size)

    last: list[tuple[float, Any, float]] = []
    hooks: dict[str, Any] = {}
    if step is not None or accept is not None:

        def trial(t0: float, state: Any, h: float) -> None:
            last[:] = [(t0, state, h)]
            if step is not None:
                told(step, t0, state, h)

        hooks["attempt_callback"] = trial
    if accept is not None:
        # what was accepted is the last trial
        hooks["callback"] = lambda t, y: told(accept, *last[-1])
    if reject is not None:
        hooks["reject_callback"] = lambda t0, state, h: told(reject, t0, state, h)
    return hooks
