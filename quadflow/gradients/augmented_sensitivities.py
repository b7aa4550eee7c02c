"""The state together with its sensitivities, and their velocity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..equations.velocity import StateLayout


class SensitivityVelocity:
    """The velocity of (y, S): y the solver's state, S (m, *y) its derivatives in m numbers.

    The numbers are the entries of y0, if wanted, then those of the parameters in their order. The
    derivative of func along all columns is one torch.func.vmap of its Jacobian-vector product, so
    func must be written in operations that both take.

    Args:
        func, args: func(t, y, *args), as `solve` gets them.
        layout: of the user's state.
        params: the tensors to differentiate by name, "func.…", "args[i]" or "args[i].…".
        in_y0: whether derivatives in y0 are wanted.
    """

    def __init__(
        self, func: Any, args: Sequence[Any], layout: StateLayout, params: Mapping[str, Tensor],
        in_y0: bool,
    ) -> None:  # fmt: skip
        self._func, self._args, self._layout = func, tuple(args), layout
        self._in_y0 = in_y0
        self._names = list(params)
        self._values = tuple(p.detach() for p in params.values())

    def start(self, y0: Tensor) -> tuple[Tensor, Tensor]:
        """The state and its columns at the first time."""
        of_params = y0.new_zeros((sum(p.numel() for p in self._values), *y0.shape))
        if not self._in_y0:
            return y0, of_params
        of_y0 = torch.eye(y0.numel(), dtype=y0.dtype, device=y0.device)
        return y0, torch.cat((of_y0.reshape(-1, *y0.shape), of_params))

    def __call__(self, t: Tensor, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, columns = parts

        def velocity(y: Tensor, *values: Tensor) -> Tensor:
            return self._layout.join(self._evaluate(t, self._layout.split(y), values))

        def along(column: Tensor, *directions: Tensor) -> tuple[Tensor, Tensor]:
            v, pushed = torch.func.jvp(velocity, (y, *self._values), (column, *directions))[:2]
            return v, pushed

        every = torch.func.vmap(along, out_dims=(None, 0))  # type: ignore[arg-type]
        v, pushed = every(columns, *self._directions(columns))
        return v, pushed

    def _directions(self, columns: Tensor) -> list[Tensor]:
        """The parameters' own directions, a unit vector for every number of theirs, (m, *p)."""
        count, at = len(columns), len(columns) - sum(p.numel() for p in self._values)
        directions = []
        for p in self._values:
            rows = torch.zeros((count, p.numel()), dtype=p.dtype, device=p.device)
            rows[at : at + p.numel()] = torch.eye(p.numel(), dtype=p.dtype, device=p.device)
            directions.append(rows.reshape(count, *p.shape))
            at += p.numel()
        return directions

    def _evaluate(self, t: Tensor, y: Any, values: Sequence[Tensor]) -> Any:
        """func with its parameters in the values' place."""
        given = dict(zip(self._names, values, strict=True))
        args = [self._replaced(x, f"args[{i}]", given) for i, x in enumerate(self._args)]
        return self._replaced(self._func, "func", given)(t, y, *args)

    def _replaced(self, x: Any, name: str, given: Mapping[str, Tensor]) -> Any:
        if name in given:
            return given[name]
        inside = f"{name}."
        own = {k.removeprefix(inside): v for k, v in given.items() if k.startswith(inside)}
        if isinstance(x, nn.Module) and own:
            return lambda *inputs: torch.func.functional_call(x, own, inputs)
        return x
