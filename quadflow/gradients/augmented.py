"""The augmented state of the adjoint equation, and its velocity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..equations.velocity import Velocity

Parts = tuple[Tensor, ...]
"""An augmented state: gradients in the interval's two ends (2,), y, a, gradients in the params."""


class Augmented:
    """The velocity of (gradients in the interval's ends, y, a, gradients in the parameters).

    Called as func(t, parts) with a tuple of real tensors (complex ones come with a last axis of
    2). t is 0-dimensional, or, where there are no parameters, (n, 1, ..., 1) for n nodes together.

    Args:
        velocity: the function solved for.
        like: a state of the forward solve.
        params: parameters that require grad.
        in_time: whether gradients in the times are wanted; zero otherwise.
    """

    def __init__(
        self, velocity: Velocity, like: Tensor, params: Sequence[Tensor], in_time: bool
    ) -> None:
        self._velocity, self._params, self._in_time = velocity, tuple(params), in_time
        self._like = like
        self._start, self._length = 0.0, 1.0
        self._retains = True

    @property
    def node_evaluation(self) -> str:
        """How several nodes are to be evaluated.

        A backward pass over n nodes together would add up their gradients in the parameters,
        which a collocation method wants apart.
        """
        return "loop" if self._params else "broadcast"

    def enter(self, t0: float, t1: float) -> None:
        """Say that the interval solved is the one between the requested times t0 and t1."""
        self._start, self._length = t0, t1 - t0

    def join(self, y: Tensor, adjoint: Tensor, by_params: Sequence[Tensor]) -> Parts:
        """The augmented state at an interval's end."""
        dtype = self._like.real.dtype
        ends = torch.zeros(2, dtype=dtype, device=self._like.device)
        return (ends, *(_as_real(part, dtype) for part in (y, adjoint, *by_params)))

    def split(self, parts: Parts) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Gradients in the interval's ends (2,), y, the adjoint, gradients in the parameters."""
        ends, y, adjoint, *by_params = parts
        restored = [_like(part, p) for part, p in zip(by_params, self._params, strict=True)]
        return ends, _like(y, self._like), _like(adjoint, self._like), restored

    def __call__(self, t: Tensor, parts: Parts) -> Parts:
        together = t.dim() > 0
        y, adjoint = _like(parts[1], self._like), _like(parts[2], self._like)
        with torch.enable_grad():
            t = (t.reshape(-1) if together else t).detach().requires_grad_(self._in_time)
            y = y.detach().requires_grad_()
            v = self._velocity.nodes(t, y) if together else self._velocity(t, y)[0]
        wanted = (y, *((t,) if self._in_time else ()), *self._params)
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if v.requires_grad:
            found = self._pulled_back(v, wanted, adjoint)
        known = [
            torch.zeros_like(x) if gradient is None else gradient
            for x, gradient in zip(wanted, found, strict=True)
        ]
        v, t = v.detach(), t.detach()
        ends = torch.zeros_like(parts[0])
        if self._in_time:
            by_t = known.pop(1)
            along = (adjoint.conj() * v).real.reshape(*t.shape, -1).sum(-1) / self._length
            theta = (t - self._start) / self._length
            ends = torch.stack((along - (1 - theta) * by_t, -along - theta * by_t), -1)
        backward = [_as_real(-gradient, ends.dtype) for gradient in known]
        return (ends, _as_real(v, ends.dtype), *backward)

    def _pulled_back(
        self, v: Tensor, wanted: Sequence[Tensor], adjoint: Tensor
    ) -> Sequence[Tensor | None]:
        """The gradients of adjoint·v. The graph is not freed, for func may share some of it between
        its evaluations (weights made before the solve); the part of this one goes with v.
        """
        try:
            return torch.autograd.grad(
                v, wanted, adjoint, retain_graph=self._retains, allow_unused=True
            )
        except RuntimeError as error:
            if self._retains and "donated" in str(error):
                # torch.compile made func such that its graph can be gone through but once
                self._retains = False
                return torch.autograd.grad(v, wanted, adjoint, allow_unused=True)
            if not self._retains and "second time" in str(error):
                raise RuntimeError(
                    "func is compiled, and makes use of tensors that were computed from "
                    "adjoint_params before the solve, whose graph is freed at its first "
                    "evaluation: give adjoint_params these tensors themselves, or set "
                    "torch._functorch.config.donated_buffer = False before func is compiled"
                ) from error
            raise


def _as_real(x: Tensor, dtype: torch.dtype) -> Tensor:
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x).to(dtype)


def as_complex(part: Tensor) -> Tensor:
    """The complex tensor whose real and imaginary parts lie along the last axis (of 2)."""
    return torch.complex(*part.unbind(-1))


def _like(part: Tensor, original: Tensor) -> Tensor:
    """The inverse of `_as_real`: the part in original's dtype."""
    if original.is_complex():
        part = as_complex(part.to(original.real.dtype))
    return part.to(original.dtype)
