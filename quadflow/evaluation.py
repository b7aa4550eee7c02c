"""The velocity as the solver sees it: checked, counted, and evaluated at several nodes together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .errors import VelocityError, nearest

Time = float | Tensor
"""A time: a float, or a tensor that broadcasts against the state (one time a sample)."""

NODE_EVALUATIONS = ("auto", "broadcast", "vmap", "loop")
_SUPPORTED = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@runtime_checkable
class DetailedVelocity(Protocol):
    """A func that brings more than the velocity: `evaluate(t, y) -> (v, detail)`.

    The detail is kept in the anchor made of the evaluation; it counts as one evaluation. t comes
    as a float (or as the tensor that the caller of a `Stepper` uses for per-sample times), so that
    decisions on t cost no host synchronisation.
    """

    def evaluate(self, t: Time, y: Any) -> tuple[Any, Any]: ...


class StateLayout:
    """How a user's state (a tensor, or a tuple of tensors) lies in the solver's one tensor.

    A single tensor is used as it is; tensors of a tuple are flattened and joined.

    Raises:
        TypeError: not tensors, dtype not float32, float64, complex64 or complex128.
        ValueError: empty or non-finite state; tensors of a tuple that differ in dtype or device.
    """

    def __init__(self, y0: Any) -> None:
        self.is_tuple = isinstance(y0, tuple)
        parts = y0 if self.is_tuple else (y0,)
        if not parts:
            raise ValueError("y0 is an empty tuple: give at least one tensor")
        for i, part in enumerate(parts):
            name = f"y0[{i}]" if self.is_tuple else "y0"
            if not isinstance(part, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {type(part).__name__}")
            if part.dtype not in _SUPPORTED:
                raise TypeError(
                    f"{name} has dtype {part.dtype}; it must be float32, float64, complex64 or "
                    "complex128 (integrate half-precision models in a float32 state and cast "
                    "inside func)"
                )
            if part.numel() == 0:
                raise ValueError(f"{name} is empty (shape {tuple(part.shape)})")
            if (part.dtype, part.device) != (parts[0].dtype, parts[0].device):
                raise ValueError(
                    f"{name} is {part.dtype} on {part.device}, y0[0] is {parts[0].dtype} on "
                    f"{parts[0].device}: they must agree"
                )
            if not bool(torch.isfinite(part.detach()).all()):
                raise ValueError(f"{name} is not finite")
        self.shapes = [part.shape for part in parts]
        self.sizes = [part.numel() for part in parts]
        self.dtype: torch.dtype = parts[0].dtype
        self.device: torch.device = parts[0].device
        self.time_dtype = torch.empty((), dtype=self.dtype).real.dtype

    def join(self, y: Any) -> Tensor:
        """The solver's tensor of a user's state."""
        if not self.is_tuple:
            assert isinstance(y, Tensor)
            return y
        return torch.cat([part.reshape(-1) for part in y])

    def split(self, y: Tensor, leading: int = 0) -> Any:
        """The user's state of a solver's tensor that has `leading` extra axes in front."""
        if not self.is_tuple:
            return y
        front = y.shape[:leading]
        pieces = torch.split(y, self.sizes, dim=-1)
        return tuple(p.reshape((*front, *s)) for p, s in zip(pieces, self.shapes, strict=True))


def _perturbed(y: Tensor) -> Tensor:
    """Node states of which no two entries are alike, within 1 % of y.

    Zeros move as well (upwards, into the domain of roots and logarithms): at zero states a func
    that mixes the nodes would look innocent.
    """
    # equidistributed in [0, 1): the multiples of the golden ratio
    index = torch.arange(1, y.numel() + 1, dtype=torch.float64).reshape(y.shape)
    wiggle = (5e-3 * (1 + torch.frac(index * 0.6180339887498949))).to(y)
    size = y.abs()
    floor = 1e-3 * size.amax()
    return y + wiggle * torch.where(size > floor, y, torch.where(floor > 0, floor, 1.0).to(y))


class Velocity:
    """Evaluates func(t, y), checks what it returns and counts every evaluation.

    func is called with t of the state's real dtype: 0-dimensional for one state; for n nodes
    evaluated by "broadcast", t of shape (n, 1, ..., 1) against states (n, *shape); by "vmap",
    through torch.func.vmap; by "loop", n times as for one state. "auto" finds out on perturbed
    copies of the first node states and keeps the fastest mode that it trusts:
    - "loop" where vmap fails or differs: vmap refuses a func that reads numbers out of its
      arguments (float(t), `if y.norm() > 1`), and such a func may treat each node differently;
    - "broadcast" where it agrees with the loop to rounding, and a node thrown far away leaves the
      others as they were (a func that sums over its whole argument fails one or the other);
    - else "vmap".

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
        if not callable(func) and not isinstance(func, DetailedVelocity):
            raise TypeError(f"func must be callable as func(t, y), got {type(func).__name__}")
        if node_evaluation not in NODE_EVALUATIONS:
            raise ValueError(
                f"node_evaluation={node_evaluation!r} is unknown: "
                f"{nearest(node_evaluation, NODE_EVALUATIONS)}"
            )
        self.func = func
        self.layout = layout
        self.span = span
        self.mode = node_evaluation
        self.nfe = self.calls = self.probe_nfe = 0
        self._detailed = isinstance(func, DetailedVelocity)
        # for several nodes together, where no detail is kept
        self._plain = func if callable(func) else lambda t, y: func.evaluate(t, y)[0]

    def __call__(self, t: Time, y: Tensor) -> tuple[Tensor, Any]:
        """v = f(t, y) and its detail (None for an ordinary func); one call, one evaluation."""
        layout = self.layout
        self.nfe += 1
        self.calls += 1
        if self._detailed:
            value, detail = self.func.evaluate(t, layout.split(y))
        else:
            if isinstance(t, Tensor):
                time = t.to(layout.time_dtype)
            else:  # a fill on the device, where a copy from the host would synchronise
                time = torch.full((), t, dtype=layout.time_dtype, device=layout.device)
            value, detail = self.func(time, layout.split(y)), None
        return self._checked(value, y, 0), detail

    def nodes(self, times: Tensor, states: Tensor) -> Tensor:
        """Velocities (n, *shape) at n nodes: times (n,) float64, states (n, *shape)."""
        times = times.to(self.layout.time_dtype)
        if self.mode == "auto":
            self.mode = self._probe(times, states)
        self.nfe += len(states)
        self.calls += len(states) if self.mode == "loop" else 1
        return self._evaluate_nodes(self.mode, times, states)

    def _evaluate_nodes(self, mode: str, times: Tensor, states: Tensor) -> Tensor:
        layout = self.layout
        if mode == "loop":
            values = [self._plain(t, layout.split(y)) for t, y in zip(times, states, strict=True)]
            pairs = zip(values, states, strict=True)
            return torch.stack([self._checked(value, y, 0) for value, y in pairs])
        if mode == "vmap":
            value = torch.func.vmap(self._plain)(times, layout.split(states, 1))
        else:
            rank = max(len(shape) for shape in layout.shapes)
            value = self._plain(times.reshape(-1, *(1,) * rank), layout.split(states, 1))
        return self._checked(value, states, 1)

    def _probe(self, node_times: Tensor, states: Tensor) -> str:
        before = self.nfe
        device = states.device
        with (
            torch.no_grad(),
            warnings.catch_warnings(),
            # a random func draws in the solve what it would have drawn without the probe
            torch.random.fork_rng(
                [] if device.type == "cpu" else [device], device_type=device.type
            ),
        ):
            warnings.simplefilter("ignore")
            mode = self._trusted_mode(node_times, _perturbed(states.detach()))
        self.probe_nfe += self.nfe - before
        return mode

    def _trusted_mode(self, node_times: Tensor, y: Tensor) -> str:
        n = len(y)

        def evaluate(mode: str, times: Tensor, y: Tensor) -> Tensor:
            self.nfe += n
            self.calls += n if mode == "loop" else 1
            return self._evaluate_nodes(mode, times, y)

        # times spread over the whole span expose a func that mixes them; where func is not
        # finite that far from its trajectory, the nodes' own times must do
        for times in (torch.linspace(*self.span, n).to(node_times), node_times):
            try:
                reference = evaluate("loop", times, y)
            except Exception:  # func may refuse a state that its trajectory never meets
                continue
            if bool(torch.isfinite(reference).all()):
                break
        else:
            return "loop"
        # what rounding may do to each component: its own size, and (where large terms cancel) the
        # size of those terms, which the perturbation of 1 % shows
        spread = (reference - reference[0]).abs().amax(0)
        bound = 200 * torch.finfo(reference.dtype).eps * (reference.abs().amax(0) + 100 * spread)

        def agrees(mode: str, y: Tensor, rows: slice) -> bool:
            try:
                value = evaluate(mode, times, y)
            except Exception:  # whatever a function does on shapes that it was not written for
                return False
            return bool(((value - reference)[rows].abs() <= bound).all())

        if not agrees("vmap", y, slice(None)):
            return "loop"
        if not agrees("broadcast", y, slice(None)):
            return "vmap"
        # a threshold on all nodes together (say on y.norm()) shows only once it is crossed
        far = 1e8 * max(1.0, float(y.abs().amax()))
        for i, value, others in ((0, far, slice(1, None)), (n - 1, -far, slice(0, n - 1))):
            thrown = y.clone()
            thrown[i] = value
            if n > 1 and not agrees("broadcast", thrown, others):
                return "vmap"
        return "broadcast"

    def _checked(self, value: Any, y: Tensor, leading: int) -> Tensor:
        layout = self.layout
        parts: Sequence[Any]
        if layout.is_tuple:
            if not isinstance(value, (tuple, list)) or len(value) != len(layout.shapes):
                raise VelocityError(
                    f"func must return a tuple of {len(layout.shapes)} tensors like y0, got "
                    f"{type(value).__name__}"
                    + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")
                )
            parts = value
        else:
            parts = (value,)
        front = tuple(y.shape[:leading])
        for i, (part, shape) in enumerate(zip(parts, layout.shapes, strict=True)):
            name = f"func's output[{i}]" if layout.is_tuple else "func's output"
            if not isinstance(part, Tensor):
                raise VelocityError(f"{name} must be a torch.Tensor, got {type(part).__name__}")
            if part.shape != front + tuple(shape):
                raise VelocityError(
                    f"{name} has shape {tuple(part.shape)}, the state has {front + tuple(shape)}"
                )
            if part.dtype != layout.dtype:
                raise VelocityError(f"{name} is {part.dtype}, the state is {layout.dtype}")
            if part.device != layout.device:
                raise VelocityError(f"{name} is on {part.device}, the state on {layout.device}")
        if not layout.is_tuple:
            return parts[0]
        return torch.cat([part.reshape(*front, -1) for part in parts], dim=-1)
