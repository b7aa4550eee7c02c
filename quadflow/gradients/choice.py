"""The ways to differentiate a solve, as `solve`'s argument `gradient` names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..checks import check_choice
from ..plans.method import Method


@dataclass(frozen=True)
class Adjoint:
    """Settings of `solve(..., gradient=Adjoint(...))`; gradient="adjoint" is `Adjoint()`.

    Attributes:
        params: the tensors to give gradients to, beside y0 and t. None: those that require grad
            among args, and the parameters of func and of args that are nn.Modules; func may then
            depend on no other tensor that requires grad (ValueError).
        rtol, atol: of the backward solve; None: the forward ones.
        method: of the backward solve; None: the forward one, and its steps' settings. Another
            method takes adaptive steps unless step_size is given.
        step_size: of the backward solve, positive; None: as the forward solve.
        max_steps: of the backward solve from one requested time to the one before; None: as the
            forward solve.
        norm: what the backward solve's steps look at. None: the largest of the norms of y, the
            adjoint, and the gradients in the times and in every parameter; "seminorm": without
            those in the parameters, which saves steps.

    With rtol, atol, method, step_size and norm all None, a converged Gauss collocation goes back
    over its own steps, and gives the exact gradient of the discrete solution.
    """

    params: Iterable[Tensor] | None = None
    rtol: Any = None
    atol: Any = None
    method: str | Method | None = None
    step_size: float | None = None
    max_steps: int | None = None
    norm: str | None = None

    def __post_init__(self) -> None:
        if self.norm is not None:
            check_choice(self.norm, ("seminorm",), "Adjoint.norm")

    @property
    def steps_as_forward(self) -> bool:
        """Whether nothing asks for a backward solve with other steps than the forward one."""
        return all(
            x is None for x in (self.rtol, self.atol, self.method, self.step_size, self.norm)
        )


@dataclass(frozen=True)
class Forward:
    """Settings of `solve(..., gradient=Forward(...))`; gradient="forward" is `Forward()`.

    Attributes:
        params: the real tensors to give gradients to, each one of args or a parameter of func or of
            an nn.Module in args, all requiring grad. None: all such that require grad. y0 comes on
            top where it requires grad.
        error_control: whether adaptive steps keep the error of the sensitivities within rtol and
            atol as well as that of the state.
    """

    params: Iterable[Tensor] | None = None
    error_control: bool = True


WAYS: dict[str, Callable[[], Adjoint | Forward | None]] = {
    "backprop": lambda: None,
    "adjoint": Adjoint,
    "forward": Forward,
}
"""What the names of `gradient` stand for; None is differentiation through the steps."""


def chosen_gradient(value: Any) -> Adjoint | Forward | None:
    """The way to differentiate that `gradient` asks for.

    Raises:
        TypeError: neither a name nor settings. ValueError: an unknown name.
    """
    if isinstance(value, (Adjoint, Forward)):
        return value
    if not isinstance(value, str):
        raise TypeError(
            f"gradient must be one of {sorted(WAYS)}, an Adjoint or a Forward, got {value!r}"
        )
    check_choice(value, WAYS, "gradient")
    return WAYS[value]()


def refuse_together(name: str, given: dict[str, tuple[bool, str]]) -> None:
    """Refuse arguments that a way to differentiate cannot have beside it (ValueError).

    name: of the way. given: by the argument with its value, as it is written: whether it was given,
    and what would be right.
    """
    for what, (is_given, remedy) in given.items():
        if is_given:
            raise ValueError(f"gradient={name!r} and {what} do not go together: {remedy}")
