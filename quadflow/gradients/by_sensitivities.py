"""`solve` with gradient="forward": the sensitivities of the state, solved together with it.

With p any of the numbers that a solve depends on, S = ∂y/∂p obeys S' = J(t, y) S + ∂f/∂p. One
solve carries y and the columns of S, each a Jacobian-vector product by forward mode; backward() is
then a product with what was stored, so that memory does not grow with the steps. Source: Hindmarsh
et al., SUNDIALS (CVODES), ACM TOMS 31, 2005, the simultaneous corrector form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..equations.clock import differentiated
from ..equations.ownership import in_transform
from ..equations.velocity import StateLayout
from ..solution import Solution
from .augmented_sensitivities import SensitivityVelocity
from .choice import Forward, refuse_together
from .parameters import differentiable, distinct, refuse_others, tensors_of


def solve_by_sensitivities(
    solve: Callable[..., Solution], how: Forward, layout: StateLayout, given: dict[str, Any]
) -> Solution:
    """Solve, with gradients in y0 and parameters by forward sensitivities.

    Args:
        solve: `quadflow.solve`. how: the settings. layout: of the state.
        given: what `solve` was called with, by name, tolerances complete.

    Returns:
        As `solve`; y carries gradients, and y_reached where it is the last state of y. What is kept
        for them is a state for every number differentiated and every time in t.

    Raises:
        As `solve`; ValueError: arguments that have no forward sensitivities; TypeError: complex
        tensors to differentiate.
    """
    _refuse(given)
    func, y0, args = given["func"], given["y0"], given["args"]
    named = tensors_of(func, args)
    joined = layout.join(y0)
    params = _chosen(how, named, joined)
    start = layout.split(joined.detach())
    if torch.is_grad_enabled() and how.params is None:
        first = torch.as_tensor(given["t"], dtype=torch.float64)[0].detach()
        first = first.to(layout.device, layout.time_dtype)
        refuse_others(
            lambda t, y: func(t, y, *args), first, layout.own(start), list(named.values()),
            "Forward(params=...)",
        )  # fmt: skip
    in_y0 = joined.requires_grad
    columns = sum(p.numel() for p in params.values()) + (joined.numel() if in_y0 else 0)
    rest = {k: x for k, x in given.items() if k not in ("func", "y0", "t", "gradient", "compile")}
    if not columns or not torch.is_grad_enabled():
        return solve(func, start, given["t"], **rest)
    velocity = SensitivityVelocity(func, args, layout, params, in_y0)
    rest |= _augmented_arguments(how, layout, given, columns, joined.numel())
    with torch.no_grad():
        found = solve(velocity, velocity.start(joined.detach()), given["t"], **rest)
        y, sensitivities = found.y
    sources = [*([joined] if in_y0 else []), *params.values()]
    states = _WithSensitivities.apply(y, sensitivities, *sources)  # type: ignore[no-untyped-call]
    last = found.y_reached[0]
    if found.t_reached == float(found.t[-1]):
        last = states[-1]
    return replace(found, y=layout.split(states, 1), y_reached=layout.split(last), _layout=layout)


class _WithSensitivities(torch.autograd.Function):
    """States (T, *y) whose gradient in each source is a product with the columns (T, m, *y)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, columns: Tensor, *sources: Tensor) -> Tensor:
        ctx.save_for_backward(columns, *sources)
        return y.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        columns, *sources = ctx.saved_tensors
        times, count = columns.shape[:2]
        flat = columns.reshape(times, count, -1)
        along = torch.einsum("tmn,tn->m", flat.conj(), grad.reshape(times, -1)).real
        pieces = along.split([source.numel() for source in sources])
        each = (
            piece.reshape(source.shape).to(source)
            for piece, source in zip(pieces, sources, strict=True)
        )
        return (None, None, *each)


def _chosen(how: Forward, named: dict[str, Tensor], y0: Tensor) -> dict[str, Tensor]:
    """The parameters to differentiate, by name."""
    chosen = named
    if how.params is not None:
        wanted = differentiable(distinct(how.params, "Forward.params"))
        names = {id(p): name for name, p in named.items()}
        for i, p in enumerate(wanted):
            if id(p) not in names:
                raise ValueError(
                    f"Forward.params[{i}], of shape {tuple(p.shape)}, is neither one of args nor a "
                    "parameter of func or of a module in args: pass it in args"
                )
        chosen = {names[id(p)]: p for p in wanted}
    for name, p in [*chosen.items(), *([("y0", y0)] if y0.requires_grad else [])]:
        if p.is_complex() or not p.is_floating_point():
            raise TypeError(
                f"gradient='forward': {name} is {p.dtype} and requires grad; forward "
                "sensitivities are in real tensors: take gradient='backprop' or 'adjoint'"
            )
    return chosen


def _refuse(given: dict[str, Any]) -> None:
    if in_transform():
        raise ValueError(
            "gradient='forward' does not go through torch.func's transforms: take "
            "gradient='backprop' (torch.func.jacfwd is forward mode too)"
        )
    t, grid = given["t"], given["grid"]
    other = "take gradient='backprop' or 'adjoint'"
    refuse_together(
        "forward",
        {
            "dense_output=True": (
                given["dense_output"],
                "there are sensitivities at the requested times alone; ask for more times in t",
            ),
            "events": (given["events"] is not None, other),
            f"batch_dims={given['batch_dims']}": (given["batch_dims"] == 1, other),
            f"compile={given['compile']!r}": (given["compile"] is not False, other),
            "a t that requires grad": (
                isinstance(t, Tensor) and differentiated(t),
                f"detach t, or {other}",
            ),
            "accumulation_dtype": (given["accumulation_dtype"] is not None, other),
            "a grid of per-sample times": (
                isinstance(grid, Tensor) and grid.dim() > 1,
                "take gradient='backprop'",
            ),
        },
    )


def _augmented_arguments(
    how: Forward, layout: StateLayout, given: dict[str, Any], columns: int, size: int
) -> dict[str, Any]:
    """The arguments of `solve` that are others for the state and its columns together."""
    changed: dict[str, Any] = {"args": ()}
    shape = (size,) if layout.joined else tuple(layout.shapes[0])
    for name in ("rtol", "atol"):
        value = given[name]
        if isinstance(value, Tensor) and value.dim():
            each = value.to(layout.device, layout.time_dtype).expand(shape).reshape(-1)
            changed[name] = each.repeat(1 + columns)
    norm = given["norm"]

    def largest(x: Tensor) -> Tensor:
        of_state = norm(x[:size].reshape(shape))
        if not how.error_control:
            return torch.as_tensor(of_state)
        rows = x[size:].reshape(columns, *shape)
        return torch.stack([torch.as_tensor(of_state), *(norm(row) for row in rows)]).amax()

    changed["norm"] = largest
    if given["node_evaluation"] == "broadcast":
        changed["node_evaluation"] = "vmap"  # of func in a vmap of its own

    def of_state(callback: Callable[..., Any] | None) -> Any:
        if callback is None:
            return None
        return lambda t, parts, *others: callback(t, layout.split(parts[0]), *others)

    names: Sequence[str] = ("callback", "attempt_callback", "reject_callback")
    return changed | {name: of_state(given[name]) for name in names}
