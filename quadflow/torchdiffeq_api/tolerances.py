"""Times, tolerances and norms of torchdiffeq as `solve` takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..checks import check_callable
from ..control.control import Norm, rms_norm
from ..equations.velocity import StateLayout


def requested_times(t: Any) -> list[float]:
    """The times as floats; their order, and whether they are finite, is left to `solve`."""
    if isinstance(t, Tensor):
        if not t.is_floating_point():
            raise TypeError(f"t must be a floating tensor, got {t.dtype}")
    else:
        try:
            t = torch.tensor([float(when) for when in t], dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(f"t must be a floating tensor or numbers, got {t!r}") from error
    if t.dim() != 1 or not len(t):
        raise ValueError(f"t must be one-dimensional and not empty, got shape {tuple(t.shape)}")
    return t.detach().to(torch.float64).tolist()


def solver_tolerance(value: Any, y0: Any, name: str) -> Any:
    """A tolerance as `solve` takes it: where there is one for every tensor of a tuple, it is spread
    over the state.
    """
    each: Iterable[Any]
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise ValueError(f"{name} requires grad: there are no gradients in tolerances, detach")
        if value.dim() == 0 or not isinstance(y0, tuple):
            return value
        each = value.unbind(0)
    elif isinstance(value, (tuple, list)) and isinstance(y0, tuple):
        each = value
    else:
        return value
    each = list(each)
    if len(each) != len(y0):
        raise ValueError(f"{name} has {len(each)} entries for {len(y0)} tensors of y0")
    spread = [
        torch.as_tensor(one, dtype=torch.float64, device=y.device).expand(y.numel())
        for one, y in zip(each, y0, strict=True)
    ]
    return torch.cat(spread)


def solver_norm(norm: Callable[[Any], Any] | None, y0: Any) -> Norm:
    """The norm on the solver's state. The user's norm gets the user's tuple; the default is the
    largest RMS of its tensors.
    """
    if norm is not None:
        check_callable(norm, "options['norm']")
    if not isinstance(y0, tuple):
        if norm is None:
            return rms_norm
        single = norm
        return lambda x: torch.as_tensor(single(x), device=x.device)
    layout = StateLayout(y0)
    on_tuple = norm or (lambda parts: torch.stack([rms_norm(part) for part in parts]).amax())
    return lambda x: torch.as_tensor(on_tuple(layout.split(x)), device=x.device)
