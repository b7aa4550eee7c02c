"""Norms, the first step, and the step-size controller."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..host import read_on_host
from ..plans.sums import add_scaled

Array = np.ndarray

Norm = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor) -> Tensor:
    """Root of the mean of |x|² over all entries: a 0-dimensional real tensor."""
    norm: Tensor = torch.linalg.vector_norm(x) / math.sqrt(x.numel())
    return norm


def max_norm(x: Tensor) -> Tensor:
    """The largest |x|: a 0-dimensional real tensor."""
    return x.abs().amax()


@dataclass(frozen=True)
class Tolerance:
    """scale = atol + rtol * |y|, the error a step may make; atol and rtol float or tensors that
    broadcast against the solver's state."""

    rtol: float | Tensor
    atol: float | Tensor
    norm: Norm = rms_norm
    per_sample: bool = False

    def ratio(self, error: Tensor, y0: Tensor, y1: Tensor) -> Tensor:
        """Norm of error / scale, 0-dimensional: a step is accepted where it is at most 1.

        With per_sample, one for every entry of the leading axis: (B,).
        """
        return self.measure(error / self._scale(y0, y1))

    @functools.cached_property
    def strictest(self) -> float:
        """The least relative tolerance (one host synchronisation where it is a tensor)."""
        return float(
            -read_on_host(-self.rtol.min()) if isinstance(self.rtol, Tensor) else self.rtol
        )

    def ratios(self, errors: Tensor, y0: Tensor, y1: Tensor) -> Tensor:
        """`ratio` of each of k errors (k, *shape) of one step: (k,)."""
        scaled = errors / self._scale(y0, y1)
        if self.norm is rms_norm:
            return _rms_of_each(scaled)
        return torch.stack([_measured(self.norm, one) for one in scaled])

    def numbers(self, errors: Iterable[Array], y0: Array, y1: Array) -> list[float]:
        """`ratio` of each of some errors of one step, all in arrays: as numbers."""
        scale = np.maximum(np.abs(y0), np.abs(y1))
        rtol, atol = self.in_numpy(scale.dtype)
        scale *= rtol
        scale += atol
        return [self._number(error / scale) for error in errors]

    def _number(self, x: Array) -> float:
        if self.norm is not rms_norm:
            return float(read_on_host(_measured(self.norm, torch.from_numpy(x))))
        if x.ndim > 1:
            x = x.reshape(-1)
        square = np.vdot(x, x).real if x.dtype.kind == "c" else x.dot(x)
        return math.sqrt(square / x.size)

    def in_numpy(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """rtol and atol as arrays: numbers in this dtype, of no dimensions, by which NumPy
        multiplies in half the time of Python's."""
        if dtype not in self._known:
            self._known[dtype] = tuple(
                x.detach().cpu().numpy() if isinstance(x, Tensor) else np.array(x, dtype)
                for x in (self.rtol, self.atol)
            )
        return self._known[dtype]

    @functools.cached_property
    def _known(self) -> dict[Any, Any]:
        return {}

    def _scale(self, y0: Tensor, y1: Tensor) -> Tensor:
        return torch.maximum(y0.abs(), y1.abs()).mul(self.rtol).add(self.atol)

    def measure(self, x: Tensor) -> Tensor:
        """The norm of x, or of every sample of it."""
        return _each(self.norm, x) if self.per_sample else _measured(self.norm, x)

    def size(self, x: Any) -> Any:
        """`measure` of what may be of any size: a norm's squares neither over- nor underflow. An
        error's may, as all that is far above 1, or below, leads to the same step. A number where x
        is an array."""
        if isinstance(x, np.ndarray):
            largest = float(np.abs(x).max())
            largest = largest if 0 < largest < math.inf else 1.0
            return self._number(x / largest) * largest
        axes = tuple(range(int(self.per_sample), x.dim()))
        unit = x.abs().amax(axes, keepdim=True) if axes else x.abs()
        unit = torch.where((unit > 0) & torch.isfinite(unit), unit, 1.0)
        return self.measure(x / unit) * unit.reshape(unit.shape[: int(self.per_sample)])


def _each(norm: Norm, x: Tensor) -> Tensor:
    """The norm of every entry of x's leading axis."""
    if norm is rms_norm:
        return _rms_of_each(x)
    each: Tensor = torch.func.vmap(lambda one: _checked(norm(one)))(x)
    return each


def _rms_of_each(x: Tensor) -> Tensor:
    """`rms_norm` of every entry of x's leading axis, in one operation."""
    flat = x.reshape(len(x), -1)
    root: Tensor = torch.linalg.vector_norm(flat, dim=1) / math.sqrt(flat.shape[1])
    return root


def _measured(norm: Norm, x: Tensor) -> Tensor:
    value = _checked(norm(x))
    # a user's norm may fill the same memory in its next call, before this one is read
    return value if norm is rms_norm else value.clone()


def _checked(norm: Any) -> Tensor:
    """What a norm returned, if it is one."""
    if not isinstance(norm, Tensor) or norm.dim() or norm.is_complex():
        what = (
            f"one of shape {tuple(norm.shape)}, {norm.dtype}"
            if isinstance(norm, Tensor)
            else type(norm).__name__
        )
        raise TypeError(f"norm must return a real 0-dimensional tensor, got {what}")
    return norm


def first_step(
    velocity: Callable[[Any, Any], Any],
    t0: Any,
    y0: Any,
    v0: Any,
    direction: float,
    span: Any,
    order: int,
    tolerance: Tolerance,
    on_device: Callable[[Any], Any] = float,
    leap: Any = math.inf,
) -> Any:
    """A first step size (positive), from one more evaluation of f.

    It is no longer than `leap` where the velocity would not move the state by a tolerance over the
    whole span.

    y0, v0: tensors or arrays, like what velocity takes and returns. t0, span and the size are
    floats; arrays (B,) with a tolerance per sample, for which on_device makes a tensor that
    broadcasts against y0.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, section II.4, "starting step size".
    """
    with torch.no_grad(), np.errstate(divide="ignore", invalid="ignore"):
        is_array = isinstance(y0, np.ndarray)
        scale = abs(y0)
        rtol, atol = (
            tolerance.in_numpy(scale.dtype) if is_array else (tolerance.rtol, tolerance.atol)
        )
        scale = scale * rtol + atol
        sizes = [tolerance.size(x / scale) for x in (y0, v0)]
        d0, d1 = np.array(sizes if is_array else read_on_host(torch.stack(sizes)))
        h0 = np.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        h0 = np.minimum(h0, span)
        moved = add_scaled(y0, v0, on_device(direction * h0))
        v1 = velocity(on_device(t0 + direction * h0), moved)
        change = tolerance.size((v1 - v0) / scale)
        d2 = np.array(change if is_array else read_on_host(change)) / h0
        largest = np.maximum(d1, d2)
        h1 = np.where(
            largest <= 1e-15, np.maximum(1e-6, h0 * 1e-3), (0.01 / largest) ** (1 / order)
        )
        size = np.minimum(np.minimum(100 * h0, h1), span)
        size = np.where(largest * span <= 1, np.minimum(size, leap), size)
        size = np.where(np.isfinite(d2), size, h0)
    return size if size.ndim else float(size)


@dataclass
class StepController:
    """Proportional-integral control of the step size.

    The factor after a step with error ratio r and estimate order q is
    safety * r^(-0.7/q) * r_previous^(0.4/q), within [min_factor, max_factor]; after a rejection
    the memory is left out and the step does not grow. It is left out as well, the factor being
    safety * r^(-1/q), where this alone would double the step: memory is there to smooth, and on the
    way up from a short first step there is nothing to smooth.

    Source: Hairer & Wanner, Solving ODEs II, section IV.2; Gustafsson 1991.
    """

    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    _previous: float = 1.0
    _calm: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.safety <= 1:
            raise ValueError(f"safety must be in (0, 1], got {self.safety}")
        if not 0 < self.min_factor < 1 <= self.max_factor:
            raise ValueError(
                f"a step-size factor must be able to shrink and to grow: 0 < min_factor < 1 <= "
                f"max_factor, got min_factor={self.min_factor}, max_factor={self.max_factor}"
            )

    def growth(self, ratio: Any, previous: Any, calm: Any, order: Any) -> Any:
        """The factor before its limits, of numbers or of arrays. calm: trials accepted since the
        last rejection; ten at the start."""
        smooth = self.safety * ratio ** (-0.7 / order) * previous ** (0.4 / order)
        plain = self.shrinkage(ratio, order)
        leaps = (calm >= 10) & (plain > 2)
        if isinstance(plain, np.ndarray):
            return np.where(leaps, plain, smooth)
        return plain if leaps else smooth

    def shrinkage(self, ratio: Any, order: Any) -> Any:
        """The factor without memory, before its limits, of numbers or of arrays."""
        return self.safety * ratio ** (-1 / order)

    def accept(self, ratio: float, order: int) -> float:
        """Factor for the next step after an accepted one."""
        ratio = max(ratio, 1e-10)
        factor: float = self.growth(ratio, self._previous, self._calm, order)
        factor = min(self.max_factor, max(self.min_factor, factor))
        if self._calm == 0:
            factor = min(1.0, factor)
        self._previous, self._calm = max(ratio, 1e-4), self._calm + 1
        return factor

    def reject(self, ratio: float, order: int) -> float:
        """Factor for another trial after a rejected step (ratio > 1, or not finite)."""
        self._calm = 0
        if not math.isfinite(ratio):
            return self.min_factor
        factor: float = self.shrinkage(ratio, order)
        return min(0.9, max(self.min_factor, factor))


def worth_a_sweep(ratio: Any, before: Any, left: Any) -> Any:
    """Whether more sweeps are likely to bring an error ratio above 1 down to 1.

    Of numbers, or of arrays (B,) with one a sample. ratio: after the last sweep. before: after the
    one before it, None where that is not known: a sweep is then taken to gain a digit, else what
    the last one gained. left: sweeps still allowed.
    """
    # ratio <= gain^left with gain = before/ratio, but no division: either may be 0 or infinite
    reach = (10 * ratio if before is None else before) ** (left / (left + 1))
    return (left >= 1) & (ratio > 1) & (ratio < math.inf) & (ratio <= reach)
