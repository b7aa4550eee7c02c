"""The velocity as the solver sees it: checked, counted, and evaluated at several nodes together."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getrefcount
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import VelocityError, nearest
from ..host import read_on_host
from .array_velocity import ArrayVelocity
from .ownership import Outputs, Untouched
from .probing import find_mode

Time = float | Tensor
"""A time: a float, or a tensor that broadcasts against the state (one time a sample)."""

NODE_EVALUATIONS = ("auto", "broadcast", "vmap", "loop")
_SUPPORTED = (torch.float32, torch.float64, torch.complex64, torch.complex128)
_HALF = (torch.float16, torch.bfloat16)


@runtime_checkable
class DetailedVelocity(Protocol):
    """A func that brings more than the velocity: `evaluate(t, y) -> (v, detail)`.

    The detail is kept in the anchor made of the evaluation; it counts as one evaluation. t comes
    as a float (or as the tensor that the caller of a `Stepper` uses for per-sample times), so that
    decisions on t cost no host synchronisation. Neither v nor the detail may be written over by a
    later call (see `ownership.Outputs`).
    """

    def evaluate(self, t: Time, y: Any) -> tuple[Any, Any]: ...


class StateLayout:
    """How a user's state (a tensor, a tuple or a dict of tensors) lies in the solver's one tensor.

    A single tensor is used as it is; tensors of a tuple or dict are flattened and joined (with
    batch_dims=1: from the second axis on, the first being the samples).

    Args:
        y0: the state.
        accumulation_dtype: dtype in which the solver keeps and adds states; None is the state's
            own. The user's function and the returned states keep y0's dtype.
        batch_dims: 1 where the leading axis of every tensor counts independent samples.

    Raises:
        TypeError: not tensors, or a dtype other than float32, float64, complex64, complex128, or
            float16 and bfloat16 with an accumulation_dtype; an accumulation_dtype that does not
            hold y0's.
        ValueError: empty or non-finite state; tensors that differ in dtype or device, or in the
            number of samples.
    """

    def __init__(
        self, y0: Any, accumulation_dtype: torch.dtype | None = None, batch_dims: int = 0
    ) -> None:
        self.kind: type = next((k for k in (tuple, dict) if isinstance(y0, k)), Tensor)
        self.keys: list[Any] = list(y0) if self.kind is dict else []
        parts = list(self._parts(y0))
        if not parts:
            raise ValueError(f"y0 is an empty {self.kind.__name__}: give at least one tensor")
        self.names = self._labels(len(parts))
        for label, part in zip(self.names, parts, strict=True):
            name = f"y0{label}"
            if not isinstance(part, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {type(part).__name__}")
            if part.layout is not torch.strided:
                raise TypeError(f"{name} is stored as {part.layout}; it must be a dense tensor")
            if part.dtype in _HALF and accumulation_dtype is None:
                raise TypeError(
                    f"{name} has dtype {part.dtype}, in which steps cannot be added up: give "
                    "accumulation_dtype=torch.float32 (func still gets half precision), or "
                    "integrate half-precision models in a float32 state and cast inside func"
                )
            if part.dtype not in _SUPPORTED + _HALF:
                raise TypeError(
                    f"{name} has dtype {part.dtype}; it must be float32, float64, complex64 or "
                    "complex128, or float16 or bfloat16 with an accumulation_dtype"
                )
            if part.numel() == 0:
                raise ValueError(f"{name} is empty (shape {tuple(part.shape)})")
            if (part.dtype, part.device) != (parts[0].dtype, parts[0].device):
                raise ValueError(
                    f"{name} is {part.dtype} on {part.device}, y0{self.names[0]} is "
                    f"{parts[0].dtype} on {parts[0].device}: they must agree"
                )
            if part.dim() < batch_dims or (batch_dims and len(part) != len(parts[0])):
                raise ValueError(
                    f"{name} has shape {tuple(part.shape)}: with batch_dims=1 the leading axis of "
                    "every tensor counts the samples"
                )
            if read_on_host(~torch.isfinite(part.detach()).all()):
                raise ValueError(f"{name} is not finite")
        self.batch: tuple[int, ...] = tuple(parts[0].shape[:batch_dims])
        self.shapes = [part.shape[batch_dims:] for part in parts]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.func_dtype: torch.dtype = parts[0].dtype
        self.dtype: torch.dtype = accumulation_dtype or self.func_dtype
        if self.dtype not in _SUPPORTED or (
            torch.promote_types(self.dtype, self.func_dtype) != self.dtype
        ):
            raise TypeError(
                f"accumulation_dtype={accumulation_dtype} does not hold a state of "
                f"{self.func_dtype}: it must be float32, float64, complex64 or complex128, and at "
                "least as wide"
            )
        self.device: torch.device = parts[0].device
        self.time_dtype = torch.empty((), dtype=self.dtype).real.dtype

    def _labels(self, count: int) -> list[str]:
        """What messages call the parts, behind the name of the whole."""
        if self.kind is dict:
            return [f"[{key!r}]" for key in self.keys]
        return [f"[{i}]" for i in range(count)] if self.kind is tuple else [""]

    @property
    def joined(self) -> bool:
        """Whether the state is made of several tensors, joined into one."""
        return self.kind is not Tensor

    @property
    def rank(self) -> int:
        """Axes of the largest tensor that the user's function sees."""
        return len(self.batch) + max(len(shape) for shape in self.shapes)

    def against_parts(self, t: Tensor) -> Tensor:
        """Times (…, B, 1), one a sample, with as many axes as the largest of the tensors that the
        state was joined from; other times as they are."""
        if not (self.joined and self.batch and t.dim() > 1):
            return t
        return t.reshape(*t.shape[:-1], *(1,) * (self.rank - 1))

    def _parts(self, y: Any) -> Sequence[Any]:
        if self.kind is dict:
            return [y[key] for key in self.keys]
        return y if self.kind is tuple else (y,)

    def join(self, y: Any, leading: int = 0) -> Tensor:
        """The solver's tensor of a user's state that has `leading` extra axes in front."""
        if self.kind is Tensor:
            return y if y.dtype is self.dtype else y.to(self.dtype)
        front = leading + len(self.batch)
        flat = [part.reshape(*part.shape[:front], -1) for part in self._parts(y)]
        return torch.cat(flat, dim=-1).to(self.dtype)

    def start(self, y0: Any) -> Tensor:
        """`join`, in memory of the solver's own: what a user's function does to its argument can
        not reach y0, nor can what becomes of y0 later reach the solution."""
        y = self.join(y0)
        return y.clone() if y is y0 else y

    def own(self, y0: Any) -> Any:
        """The user's state in such memory."""
        return self.split(self.start(y0))

    def seen(self, y: Tensor) -> Tensor:
        """A solver's tensor in the dtype that the user's functions see."""
        return y if y.dtype is self.func_dtype else y.to(self.func_dtype)

    def split(self, y: Tensor, leading: int = 0) -> Any:
        """The user's state of a solver's tensor that has `leading` extra axes in front."""
        y = self.seen(y)
        if self.kind is Tensor:
            return y
        front = y.shape[: leading + len(self.batch)]
        pieces = torch.split(y, self.sizes, dim=-1)
        parts = [p.reshape((*front, *s)) for p, s in zip(pieces, self.shapes, strict=True)]
        return dict(zip(self.keys, parts, strict=True)) if self.kind is dict else tuple(parts)


def check_function(func: Any) -> None:
    """Raise TypeError for what is no velocity function."""
    if not callable(func) and not isinstance(func, DetailedVelocity):
        raise TypeError(f"func must be callable as func(t, y), got {type(func).__name__}")


class Velocity:
    """Evaluates func(t, y), checks what it returns and counts every evaluation.

    func is called with t of the state's real dtype: 0-dimensional for one state; for n nodes
    evaluated by "broadcast", t of shape (n, 1, ..., 1) against states (n, *shape); by "vmap",
    through torch.func.vmap; by "loop", n times as for one state. "auto" finds out at the first
    nodes, see `probing.find_mode`. A func may return memory that it fills anew in its next call
    (it is copied), and must leave y as it is (VelocityError).

    Attributes:
        nfe: evaluations of the velocity of one state (n nodes in one call are n).
        calls: sequential calls of func.
        probe_nfe: the part of nfe that "auto" spent on finding out.
        mode: the mode in use; "auto" until it is decided.
    """

    def __init__(
        self,
        func: Any,
        layout: StateLayout,
        span: tuple[float, float],
        node_evaluation: str = "auto",
    ) -> None:
        check_function(func)
        if node_evaluation not in NODE_EVALUATIONS:
            raise ValueError(
                f"node_evaluation={node_evaluation!r} is unknown: "
                f"{nearest(node_evaluation, NODE_EVALUATIONS)}"
            )
        self.func = func
        self.layout = layout
        self.span = span
        self.mode = self._asked = node_evaluation
        self.nfe = self.calls = self.probe_nfe = 0
        # times outside are moved to the nearer end: a func that jumps is kept on one side
        self.window: tuple[float, float] | None = None
        self.outputs = Outputs()
        self._own = self.outputs.own
        self.guard = Untouched("func")
        self.detailed = isinstance(func, DetailedVelocity)
        # other outputs are copied anyway, when they are joined or cast
        self._keeps = not (layout.joined or self.detailed or layout.dtype is not layout.func_dtype)
        # for several nodes together, where no detail is kept
        self._plain = func if callable(func) else lambda t, y: func.evaluate(t, y)[0]
        self._column = (-1, *(1,) * layout.rank)  # of several times
        # yet to be returned once more, see `ArrayVelocity.attempt`
        self.repeats: list[Tensor] = []
        simple = layout.kind is Tensor and layout.dtype is layout.func_dtype
        self.arrays = ArrayVelocity(self, self._plain, simple)

    @property
    def counts(self) -> tuple[int, int, int]:
        """nfe, calls and probe_nfe so far."""
        return self.nfe, self.calls, self.probe_nfe

    def __call__(self, t: Time, y: Tensor) -> tuple[Tensor, Any]:
        """v = f(t, y) and its detail (None for an ordinary func); one call, one evaluation."""
        if self.repeats:
            return self.repeats.pop(0), None
        layout = self.layout
        self.nfe += 1
        self.calls += 1
        seen = layout.seen(y)
        mark = self.guard.before(seen)
        if isinstance(t, Tensor):
            t = self.layout.against_parts(t)
        if self.detailed:
            value, detail = self.func.evaluate(t, layout.split(seen))
        else:
            time = self._time(t)
            value, detail = self.func(time, layout.split(seen)), None
            if self._keeps and isinstance(value, Tensor):
                value = self._own(value, seen, getrefcount(value))
        self.guard.after(seen, mark)
        return self.checked(value, y, 0), detail

    def _time(self, t: Time) -> Tensor:
        """A time as func sees it, which may do with it as it likes."""
        layout = self.layout
        if isinstance(t, Tensor):
            return t.to(layout.time_dtype, copy=True)
        if self.window is not None:
            t = min(max(t, self.window[0]), self.window[1])
        # a fill on the device, where a copy from the host would synchronise
        return torch.full((), t, dtype=layout.time_dtype, device=layout.device)

    def enter(self, window: tuple[float, float]) -> None:
        """Evaluate func inside this window of times alone, whose ends are breaks of it: behind
        one, several nodes may have to be evaluated in another way."""
        self.window, self.mode = window, self._asked

    def of_held(self, t: Time, y: Tensor) -> tuple[Tensor, Any]:
        """The same, of a state that is kept: what func does to it without being noticed (by NumPy,
        in inference mode, in a transform, in a later call) must not reach it."""
        return self(t, y.clone())

    def nodes(self, times: Tensor, states: Tensor) -> Tensor:
        """Velocities (n, *shape) at n nodes: states (n, *shape), times (n,) float64, or with a
        time for every sample (n, B, 1, …, 1)."""
        if self.repeats:
            return self.repeats.pop(0)
        times = self.layout.against_parts(times).to(self.layout.time_dtype)
        if self.window is not None:
            times = times.clamp(*self.window)
        if self.mode == "auto":
            self.mode = find_mode(self, times, states)
        self.nfe += len(states)
        self.calls += len(states) if self.mode == "loop" else 1
        return self.evaluate_nodes(self.mode, times, states)

    def evaluate_nodes(self, mode: str, times: Tensor, states: Tensor) -> Tensor:
        """`nodes` in a given mode, uncounted; times in the dtype that func sees."""
        seen, times = self.layout.seen(states), times.clone()
        mark = self.guard.before(seen)
        value = self._each(times, seen) if mode == "loop" else self._together(mode, times, seen)
        self.guard.after(seen, mark)
        return value

    def _each(self, times: Tensor, states: Tensor) -> Tensor:
        pairs = zip(times.unbind(0), states.unbind(0), strict=True)
        return torch.stack([self._one(t, y) for t, y in pairs])

    def _one(self, t: Tensor, y: Tensor) -> Tensor:
        """One node of several; y as func sees it."""
        value = self._plain(t, self.layout.split(y))
        if self._keeps and isinstance(value, Tensor):
            value = self._own(value, y, getrefcount(value))
        return self.checked(value, y, 0)

    def _together(self, mode: str, times: Tensor, states: Tensor) -> Tensor:
        """Several nodes in one call; states as func sees them."""
        layout = self.layout
        if mode == "vmap":
            value = torch.func.vmap(self._plain)(times, layout.split(states, 1))
        else:
            if times.dim() == 1:
                times = times.view(self._column)
            value = self._plain(times, layout.split(states, 1))
        if self._keeps and isinstance(value, Tensor):
            value = self._own(value, states, getrefcount(value))
        return self.checked(value, states, 1)

    def checked(self, value: Any, y: Tensor, leading: int) -> Tensor:
        layout = self.layout
        if (  # the common case, kept lean
            layout.kind is Tensor
            and isinstance(value, Tensor)
            and value.shape == y.shape
            and value.dtype is layout.func_dtype
            and value.device == y.device
        ):
            return value if layout.dtype is layout.func_dtype else value.to(layout.dtype)
        parts: Sequence[Any]
        if layout.kind is tuple:
            if not isinstance(value, (tuple, list)) or len(value) != len(layout.shapes):
                raise VelocityError(
                    f"func must return a tuple of {len(layout.shapes)} tensors like y0, got "
                    f"{type(value).__name__}"
                    + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
                )
            parts = value
        elif layout.kind is dict:
            if not isinstance(value, dict) or set(value) != set(layout.keys):
                raise VelocityError(
                    f"func must return a dict with y0's keys {layout.keys}, got "
                    f"{type(value).__name__}"
                    + (f" with keys {list(value)}" if isinstance(value, dict) else "")
                )
            parts = [value[key] for key in layout.keys]
        else:
            parts = (value,)
        front = tuple(y.shape[: leading + len(layout.batch)])
        for part, shape, label in zip(parts, layout.shapes, layout.names, strict=True):
            name = f"func's output{label}"
            if not isinstance(part, Tensor):
                raise VelocityError(f"{name} must be a torch.Tensor, got {type(part).__name__}")
            if part.shape != front + tuple(shape):
                raise VelocityError(
                    f"{name} has shape {tuple(part.shape)}, the state has {front + tuple(shape)}"
                )
            if part.dtype != layout.func_dtype:
                raise VelocityError(f"{name} is {part.dtype}, the state is {layout.func_dtype}")
            if part.device != layout.device:
                raise VelocityError(f"{name} is on {part.device}, the state on {layout.device}")
        return layout.join(
            dict(zip(layout.keys, parts, strict=True))
            if layout.kind is dict
            else tuple(parts)
            if layout.kind is tuple
            else parts[0],
            leading,
        )
