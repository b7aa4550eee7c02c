"""The forward and the backward solve of the adjoint: what both have, whoever calls them."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..control.control import rms_norm
from ..equations.velocity import StateLayout
from .adjoint import SolveBackward, SolveForward
from .augmented import Augmented, Parts, as_complex


class GraphAtFirst:
    """func as the forward solve calls it, without gradients but for its first evaluation.

    What func computes there once and keeps (cached parametrizations, weights made by a network, the
    casts of autocast) has a graph then, as the backward solve needs it.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func, self._is_first = func, True

    def __getattr__(self, name: str) -> Any:  # the callbacks of `odeint`
        return getattr(self._func, name)

    def __call__(self, t: Tensor, y: Any) -> Any:
        if not self._is_first:
            return self._func(t, y)
        self._is_first = False
        with torch.enable_grad():
            v = self._func(t, y)
        if isinstance(v, (tuple, list)):
            return type(v)(x.detach() if isinstance(x, Tensor) else x for x in v)
        return v.detach() if isinstance(v, Tensor) else v


def augmented_tolerance(value: Any, like: Tensor, count: int) -> Any:
    """One tolerance for every part of the augmented state: y's for the adjoint as well, and the
    least of them for the gradients in times and parameters.

    value: as the forward solve takes it. like: the solver's state. count: of the parameters.
    Returns a number, or a tuple of one for every part: floats, and tensors (n,) of n entries.
    """
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    like = like.detach()
    each = value.to(like.real).expand(like.shape)
    if like.is_complex():
        each = each[..., None].expand(*each.shape, 2)
    each, least = each.reshape(-1), float(value.min())
    return (least, each, each, *[least] * count)


def augmented_norm(
    norm: Any, layout: StateLayout, state_norm: Callable[[Tensor], Tensor]
) -> Callable[[Parts], Tensor]:
    """The norm of the augmented state's parts.

    norm: None, the largest of the parts' norms; "seminorm", without those of the gradients in
    parameters; or a function of the tuple (t, y, adjoint, *parameters), tuple states spread out in
    it. state_norm: that of y and the adjoint.
    """

    def as_state(part: Tensor) -> Tensor:
        return as_complex(part) if layout.dtype.is_complex else part

    if callable(norm):

        def of_user(parts: Parts) -> Tensor:
            times, y, adjoint, *params = parts
            states = [layout.split(as_state(part)) for part in (y, adjoint)]
            if layout.joined:
                return norm((times.abs().amax(), *states[0], *states[1], *params))
            return norm((times.abs().amax(), *states, *params))

        return of_user

    def largest(parts: Parts) -> Tensor:
        times, y, adjoint, *params = parts
        norms = [times.abs().amax(), *(state_norm(as_state(part)) for part in (y, adjoint))]
        if norm is None:
            norms += [rms_norm(part) for part in params]
        return torch.stack(norms).amax()

    return largest


def exact_solves(
    solve: Callable[..., Any], func: Any, layout: StateLayout, y0: Any, times: list[float],
    keywords: dict[str, Any],
) -> tuple[SolveForward, SolveBackward]:  # fmt: skip
    """Both solves over the same steps, which land on all the times.

    solve: `quadflow.solve`; func, y0, times and keywords: of the forward solve.
    """
    steps: list[float] = []
    sign = 1.0 if times[-1] > times[0] else -1.0

    def forward() -> tuple[list[float], Tensor]:
        inner = sorted({*times[1:-1], *keywords.get("breakpoints", ())}, reverse=sign < 0)
        found = solve(func, y0, times, **{**keywords, "breakpoints": inner})
        steps[:] = found.steps
        return found.t.tolist(), layout.join(found.y, 1)

    def backward(augmented: Augmented, start: Parts, t1: float, t0: float) -> Parts:
        keys = [sign * step for step in steps]
        first, last = (bisect.bisect_left(keys, sign * end) for end in (t0, t1))
        ends, y, adjoint, *by_params = start
        # all but y is linear in the adjoint: at y's size the sweeps converge for both alike
        scale = adjoint.abs().amax() / y.abs().amax()
        scale = torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
        zeros = [torch.zeros_like(part) for part in by_params]
        found = solve(
            augmented, (ends, y, adjoint / scale, *zeros), (t1, t0), method=keywords["method"],
            grid=steps[first : last + 1][::-1], node_evaluation=augmented.node_evaluation,
        )  # fmt: skip
        ends, y, adjoint, *added = (part[-1] for part in found.y)
        total = (old + scale * new for old, new in zip(by_params, added, strict=True))
        return (scale * ends, y, scale * adjoint, *total)

    return forward, backward
