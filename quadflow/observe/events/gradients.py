"""How the time of an event moves with all that the solve is differentiable in.

Where p is anything that the solve is differentiable in, g(t_e, y(t_e; p); p) = 0 gives
dt_e/dp = -(∂g/∂p + ∂g/∂y ∂y/∂p) / (dg/dt), and the state there moves by ∂y/∂p + y' dt_e/dp, with
dg/dt and y' those of the polynomial: the derivatives of what was computed, to rounding. First
derivatives alone: a second one is an error in backward mode. Where dg/dt is zero they are infinite
or NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

EventFunction = Callable[[Tensor, Any], Tensor]


def shift_of_zero(
    function: EventFunction,
    value: Tensor,
    t: Tensor,
    y: Tensor,
    velocity: Tensor,
    hit: Tensor | None = None,
) -> Tensor:
    """The shift of a zero of g along y(t): zero in value, with the first derivative of its time.

    Args:
        function: g(t, y) -> () or, one number a sample, (B,).
        value: g at the zero, with all that it is differentiable in but t.
        t, y, velocity: the zero, the state and dy/dt there.
        hit: (B,) or (1,), where there is a zero at all; elsewhere the derivative is left out.

    Source: the implicit function theorem, as in Chen, Amos & Nickel 2021.
    """
    with torch.no_grad():
        y, velocity = y.detach(), velocity.detach()
        pull = torch.func.vjp(function, t.detach(), y)[1]
        by_time, by_state = pull(torch.ones_like(value))
        along = (by_state.conj() * velocity).real.to(torch.float64)
        slope = by_time.to(torch.float64).reshape(value.shape)
        slope = slope + along.reshape(*value.shape, -1).sum(-1)
        if hit is not None:
            # a sample without the event must not turn its zero gradient into 0/0
            slope = torch.where(hit.to(slope.device).reshape(value.shape), slope, 1.0)
    value = _FirstDerivativeAlone.apply(value)  # type: ignore[no-untyped-call]
    shift = -(value - value.detach()) / slope
    # at a slope of zero the derivative is not finite, the time is
    return torch.where(shift.isnan(), 0.0, shift)


class _Once(torch.autograd.Function):
    """Identity in its first argument, which must not be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, source: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise RuntimeError("the time of an event has first derivatives alone, not a second one")


class _FirstDerivativeAlone(torch.autograd.Function):
    """Identity whose second derivative is an error."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Once.apply(gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.clone()
