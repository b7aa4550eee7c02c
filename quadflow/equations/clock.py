"""Differentiable times: the solve runs in fixed times, and func sees times that carry gradients.

A solve's steps lie at floats τ. Where the requested times t_0, …, t_N require grad, each interval
[τ_i, τ_(i+1)] between two of them is mapped onto [t_i, t_(i+1)] by a straight line of slope
s_i = (t_(i+1) - t_i) / (τ_(i+1) - τ_i), and dy/dτ = s_i · func(time, y) is solved. In value the
line is the identity and s_i = 1; its derivatives make every step stretch in proportion as the
requested times move. So what is differentiated is the discretisation itself, whatever the method.
After the last finite time, in a solve that an event ends, the line has slope 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..errors import real_number
from .velocity import DetailedVelocity


def differentiated(x: Tensor) -> bool:
    """Whether derivatives of x are wanted, by backward or forward mode."""
    return x.requires_grad or forward_ad.unpack_dual(x).tangent is not None


def with_graph(t: Any) -> Any:
    """Requested times as a tensor where derivatives of any of them are wanted, else as they are.

    t: a tensor; or a list or tuple of numbers and 0-dimensional real tensors of any dtype, which
    becomes a float64 tensor (T,) on the device of the first of those that are differentiated.

    Raises:
        TypeError, ValueError: a tensor in a sequence that is complex, or of more than one number.
    """
    if not isinstance(t, (list, tuple)):
        return t
    tensors = {i: when for i, when in enumerate(t) if isinstance(when, Tensor)}
    for i, when in tensors.items():
        if when.is_complex():
            raise TypeError(f"t[{i}] must be real, got dtype {when.dtype}")
        if when.dim() > 0:
            raise ValueError(
                f"t[{i}] has shape {tuple(when.shape)}: in a sequence of times every tensor must "
                "be 0-dimensional"
            )
    moving = [when for when in tensors.values() if differentiated(when)]
    if not moving:
        return [float(when) if isinstance(when, Tensor) else when for when in t]
    exact = [
        when
        if isinstance(when, Tensor)
        else torch.tensor(real_number(when, f"t[{i}]"), dtype=torch.float64)
        for i, when in enumerate(t)
    ]
    return torch.stack([when.to(moving[0].device, torch.float64) for when in exact])


class Clock:
    """Requested times that require grad, for one solve.

    Args:
        t: real floating tensor (T,), T >= 2, on any device.

    Attributes:
        exact: the same times in float64, with their gradient.
        times: the same times as floats, without gradient.
        interval: index i of the interval [times[i], times[i+1]] that is being solved; set by
            `enter`, so that finding it costs no host synchronisation. A step must not straddle a
            requested time, and a velocity evaluated in one interval must not be reused in the
            next: the slopes differ.

    Raises:
        TypeError: t is not a real floating tensor.
        ValueError: t is not of shape (T,) with T >= 2.
    """

    def __init__(self, t: Tensor) -> None:
        if not isinstance(t, Tensor) or not t.is_floating_point():
            kind = t.dtype if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"t must be a real floating tensor to be differentiable, got {kind}")
        if t.dim() != 1 or len(t) < 2:
            raise ValueError(f"t must hold at least two times, got shape {tuple(t.shape)}")
        self.exact = exact = t.to(torch.float64)
        fixed = exact.detach()
        self.times: list[float] = fixed.tolist()
        self.interval = 0
        # both are zero in value, so that func's time is bit for bit the time of the step
        self._shifts = (exact - fixed).unbind(0)
        lengths = exact.diff()
        # of an interval without an end only the start moves
        slopes = torch.where(lengths.isinf(), 1.0, lengths / lengths.detach())
        self._slopes = slopes.unbind(0)
        self._stretches = (slopes - 1).unbind(0)

    def enter(self, interval: int) -> None:
        """Say that the steps to come lie in [times[interval], times[interval + 1]].

        Raises:
            IndexError: there is no such interval.
        """
        if not 0 <= interval < len(self._slopes):
            raise IndexError(
                f"interval {interval} does not exist: {len(self.times)} times have "
                f"{len(self._slopes)} intervals, counted from 0"
            )
        self.interval = interval

    def time(self, tau: float | Tensor) -> Tensor:
        """The differentiable time at tau: of tau's value, shape and dtype (0-dimensional float64
        for a float)."""
        shift, stretch = self._shifts[self.interval], self._stretches[self.interval]
        offset = tau - self.times[self.interval]
        if not isinstance(tau, Tensor):
            return shift + stretch * offset + tau
        return (_at(shift, tau) + _at(stretch, tau) * offset).to(tau.dtype) + tau

    def wrap(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """func(time, y, *args) as a velocity of the solve's times: wrapped(tau, y, *args).

        tau is a float, a 0-dimensional tensor, or a tensor of node times (n, 1, ..., 1), all
        within the interval entered. The wrapped function returns what func returns (a tensor, or
        a tuple, list or dict of tensors), unchanged in value.

        Raises:
            TypeError: func brings details with its velocities (`evaluate`); these know times as
                plain floats.
        """
        if isinstance(func, DetailedVelocity):
            raise TypeError(
                f"func is a {type(func).__name__}, whose `evaluate` takes times without gradient: "
                "detach t, or pass a function func(t, y)"
            )

        def velocity(tau: float | Tensor, y: Any, *args: Any) -> Any:
            return _scaled(func(self.time(tau), y, *args), self._slopes[self.interval])

        return velocity


def _scaled(value: Any, slope: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value * _at(slope, value).to(value.dtype.to_real())
    if isinstance(value, (tuple, list)):
        parts = [_scaled(part, slope) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {key: _scaled(part, slope) for key, part in value.items()}
    return value  # the solver names what is wrong with it


def _at(scalar: Tensor, like: Tensor) -> Tensor:
    """A 0-dimensional tensor usable with `like`: one on the CPU is so everywhere, unmoved."""
    return scalar if scalar.device.type == "cpu" else scalar.to(like.device)
