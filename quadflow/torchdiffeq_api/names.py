"""torchdiffeq 0.2.5's names of methods and options, and the method of this library that each is."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..checks import check_choice, integer_from
from ..errors import caller_level, nearest
from ..plans.anchors.method import adams
from ..plans.method import Method
from ..plans.registry import get_method, method_names
from ..plans.stages.method import stages
from ..rules.classical import FEHLBERG2


class StepKind(enum.Enum):
    """How a method of `odeint` chooses its steps; which options mean anything follows from it."""

    ADAPTIVE = "adaptive"
    FIXED = "fixed"
    ADAMS = "fixed Adams"
    SCIPY = "SciPy's"


TORCHDIFFEQ_METHODS: dict[str, tuple[str | Method | None, StepKind]] = {
    "dopri8": ("dopri8", StepKind.ADAPTIVE),
    "dopri5": ("dopri5", StepKind.ADAPTIVE),
    "bosh3": ("bosh3", StepKind.ADAPTIVE),
    "fehlberg2": (stages(FEHLBERG2, "fehlberg2"), StepKind.ADAPTIVE),
    "adaptive_heun": ("heun", StepKind.ADAPTIVE),
    "euler": ("euler", StepKind.FIXED),
    "midpoint": ("midpoint", StepKind.FIXED),
    "heun2": ("heun", StepKind.FIXED),
    "heun3": ("heun3", StepKind.FIXED),
    "rk4": ("rk4_38", StepKind.FIXED),
    "explicit_adams": (None, StepKind.ADAMS),
    "implicit_adams": (None, StepKind.ADAMS),
    "fixed_adams": (None, StepKind.ADAMS),
    "scipy_solver": (None, StepKind.SCIPY),
}
"""The names that torchdiffeq 0.2.5 knows: the method of each, and how it chooses its steps."""
# fehlberg2 is not registered: its estimate is 1/512 of the difference that it is made of, so that
# the error is some hundred times the tolerance, here and in every library that has it

_MAX_ORDER, _LEAST_ORDER = 12, 4

_OF_ADAPTIVE = (
    "first_step", "min_step", "max_step", "max_num_steps", "safety", "ifactor", "dfactor", "norm",
    "dtype", "step_t", "jump_t", "grid_points",
)  # fmt: skip
_OF_FIXED = ("step_size", "grid_constructor", "interp", "perturb")
_OF_EITHER = ("eps", "node_evaluation")
_OF_ADAMS = ("max_order", "max_iters")
_OF_SCIPY = ("solver", "min_step", "max_step")

_OPTIONS: tuple[str, ...] = (*_OF_ADAPTIVE, *_OF_FIXED, *_OF_EITHER, *_OF_ADAMS, "solver")

_USED: dict[StepKind, tuple[str, ...]] = {
    StepKind.ADAPTIVE: (*_OF_ADAPTIVE, *_OF_EITHER),
    StepKind.FIXED: (*_OF_FIXED, *_OF_EITHER),
    StepKind.ADAMS: (*_OF_FIXED, *_OF_EITHER, *_OF_ADAMS),
    StepKind.SCIPY: _OF_SCIPY,
}


class NamedMethod(NamedTuple):
    """What `odeint` runs: the name asked for, its Method (None for SciPy's), how steps are made."""

    name: str
    method: Method | None
    kind: StepKind


def torchdiffeq_method(method: str | Method | None, options: Mapping[str, Any]) -> NamedMethod:
    """What `odeint` runs.

    Args:
        method: a name of torchdiffeq, a registered name, a Method, or None for "dopri5". Where
            both have a name, torchdiffeq's meaning counts: "rk4" is the 3/8 rule.
        options: as given to `odeint`, None being the same as not there; `max_order` and `max_iters`
            make the Adams method.

    A method of this library alone takes adaptive steps, or fixed ones where options hold a step
    size or a grid or where it has no error estimate.

    Raises:
        ValueError: an unknown name, an unknown option, an option that this method has no use for,
            max_order or max_iters out of range. TypeError: neither a name nor a Method.
    """
    for option in options:
        if option not in _OPTIONS:
            raise ValueError(f"options[{option!r}] is unknown: {nearest(option, _OPTIONS)}")
    options = {option: value for option, value in options.items() if value is not None}
    chosen, kind = _look_up("dopri5" if method is None else method, options)
    name = method.name if isinstance(method, Method) else method or "dopri5"
    refused = [option for option in options if option not in _USED[kind]]
    if name == "explicit_adams" and "max_iters" in options:
        refused.append("max_iters")
    if refused:
        raise ValueError(f"options {refused} have no use in method {name!r}: {_why(refused, kind)}")
    if kind is StepKind.ADAMS:
        chosen = _adams(name, options)
    return NamedMethod(name, chosen, kind)


def _look_up(method: str | Method, options: Mapping[str, Any]) -> tuple[Method | None, StepKind]:
    if isinstance(method, str):
        if method in TORCHDIFFEQ_METHODS:
            known, kind = TORCHDIFFEQ_METHODS[method]
            return None if known is None else get_method(known), kind
        check_choice(method, {*TORCHDIFFEQ_METHODS, *method_names()}, "method")
    chosen = get_method(method)
    stepped = "step_size" in options or "grid_constructor" in options
    return chosen, StepKind.FIXED if stepped or chosen.error_order is None else StepKind.ADAPTIVE


def _why(refused: list[str], kind: StepKind) -> str:
    if kind is StepKind.SCIPY:
        return f"it takes {', '.join(_OF_SCIPY)}"
    reasons = [
        (_OF_ADAMS, "max_order belongs to the Adams methods, max_iters to the implicit one"),
        (("solver",), "solver belongs to 'scipy_solver'"),
        (_OF_FIXED, "they belong to fixed steps and these are adaptive"),
        (_OF_ADAPTIVE, "they belong to adaptive steps and these are fixed"),
    ]
    return "; ".join(why for options, why in reasons if any(o in options for o in refused))


def _adams(name: str, options: Mapping[str, Any]) -> Method:
    """Adams-Bashforth(-Moulton) of max_order, the order of the corrector."""
    order = integer_from(1, options.get("max_order", _MAX_ORDER), "options['max_order']")
    if order > _MAX_ORDER:
        raise ValueError(f"options['max_order'] must be at most {_MAX_ORDER}, got {order}")
    # the corrector is made once: the limit on its iterations is kept whatever it is
    integer_from(1, options.get("max_iters", 1), "options['max_iters']")
    if order < _LEAST_ORDER:
        warnings.warn(
            f"max_order={order} is below {_LEAST_ORDER}: {name!r} takes the steps of 'rk4' alone",
            stacklevel=caller_level(),
        )
        return get_method("rk4_38")
    return adams(order - 1, None if name == "explicit_adams" else "PECE")
