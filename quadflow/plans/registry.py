"""Methods by their names."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from types import NoneType
from typing import Any

from ..checks import check_choice
from ..errors import nearest
from ..rules.gauss import gauss_legendre, gauss_lobatto, radau_right
from ..rules.rule import QuadratureRule
from ..rules.tableau import Tableau
from ..rules.tableaus import TABLEAUS
from .adams.method import adams_variable
from .anchors.method import adams
from .method import Method
from .stages.method import stages
from .sweeps.method import adaptive_collocation, collocation

_REGISTRY: dict[str, Callable[[], Method]] = {}


def register(
    name: str, method: Method | Callable[[], Method], *, description: str | None = None
) -> None:
    """Add a method to the registry under `name`.

    Args:
        name: printable, not empty, without blanks at its ends.
        method: a Method, which is shown under its new name; or a function of no arguments that
            makes one, called when it is first asked for.
        description: what it is, in one line, as `quadflow methods` prints it; the default is the
            method's own.

    Raises:
        TypeError: name or description are no strings, or method neither a Method nor a function.
        ValueError: the name is taken, or no name.
    """
    _check_name(name)
    if name in _REGISTRY:
        raise ValueError(f"a method named {name!r} is registered already")
    _check_source(method)
    if not isinstance(description, (str, NoneType)):
        raise TypeError(f"description must be a string, got {description!r}")
    _REGISTRY[name] = functools.cache(functools.partial(_made, name, method, description))


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r}")
    if not name.isprintable() or name != name.strip() or not name:
        raise ValueError(
            f"name={name!r} must be printable, not empty, and without blanks at its ends"
        )


def _check_source(method: Any) -> None:
    if not isinstance(method, Method) and not callable(method):
        hint = ": quadflow.stages makes one of a Tableau" if isinstance(method, Tableau) else ""
        raise TypeError(
            f"method must be a Method or a function that makes one, got {method!r}{hint}"
        )


def unregister(name: str) -> None:
    """Take a method of one's own out of the registry again.

    Raises:
        ValueError: there is none of this name, or it belongs to the library.
    """
    if name in _BUILT_IN or name not in _REGISTRY:
        own = [known for known in _REGISTRY if known not in _BUILT_IN]
        hint = nearest(name, own) if own else "there are none"
        raise ValueError(f"name={name!r} is none of the methods that were added: {hint}")
    del _REGISTRY[name]


def _made(name: str, method: Method | Callable[[], Method], description: str | None) -> Method:
    made: Any = method
    if not isinstance(method, Method):
        try:
            made = method()
        except Exception as error:
            raise RuntimeError(
                f"method {name!r} could not be made: the function registered for it raised "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(made, Method):
        raise TypeError(
            f"method {name!r}: the function registered for it must return a Method, got {made!r}"
        )
    for attribute, value in (("name", name), ("description", description)):
        if value is not None and getattr(made, attribute) != value:
            made = copy.copy(made)
            object.__setattr__(made, attribute, value)
    return made


def method_names() -> tuple[str, ...]:
    """Every registered name; no method is made."""
    return tuple(_REGISTRY)


def methods() -> dict[str, Method]:
    """Every registered name with its Method.

    One that cannot be made is left out, with a warning that says why; `get_method` raises it.
    """
    found: dict[str, Method] = {}
    for name, make in list(_REGISTRY.items()):
        try:
            found[name] = make()
        except (RuntimeError, TypeError) as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    return found


def get_method(method: str | Method) -> Method:
    """The Method of a registered name; a Method is passed through.

    Raises:
        ValueError: unknown name (the message lists the nearest).
        TypeError: neither a name nor a Method; or what was registered makes no Method.
        RuntimeError: the function that was registered failed.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(f"method must be a name or a Method, got {type(method).__name__}")
    check_choice(method, _REGISTRY, "method")
    return _REGISTRY[method]()


def _extrapolated(maker: Callable[[int], QuadratureRule], n: int) -> Method:
    return collocation(maker(n), guess="extrapolated")


def _register_all() -> None:
    for name, (tableau, text) in TABLEAUS.items():
        register(name, functools.partial(stages, tableau), description=text)
    text = "Adams PECE of chosen order (Shampine & Gordon 1975)"
    register("adams", adams_variable, description=text)
    register("euler", functools.partial(adams, 1), description="explicit Euler (1768)")
    for k in (2, 3, 4):
        text = f"Adams-Bashforth {k} (Bashforth & Adams 1883)"
        register(f"ab{k}", functools.partial(adams, k), description=text)
    for k in (1, 2, 3, 4):
        for mode in ("PEC", "PECE"):
            text = f"Adams-Bashforth-Moulton {k}, {mode} (Moulton 1926)"
            make = functools.partial(adams, k, mode)
            register(f"{mode.lower()}{k}", make, description=text)
    for family, maker, sizes in (
        ("gauss", gauss_legendre, (2, 3, 4, 6, 8)),
        ("lobatto", gauss_lobatto, (3, 4, 5, 6)),
        ("radau", radau_right, (2, 3, 5)),
    ):
        for n in sizes:
            text = f"sweeps on {n} {family.title()} nodes (Nørsett & Simonsen 1989)"
            sweeps = functools.partial(_extrapolated, maker, n)
            register(f"{family}{n}", sweeps, description=text)
    for family, maker in (("gauss", gauss_legendre), ("lobatto", gauss_lobatto)):
        text = f"1-3 sweeps on {family.title()} nodes, as many as tolerance asks"
        register(family, functools.partial(adaptive_collocation, maker), description=text)


_register_all()

_BUILT_IN = frozenset(_REGISTRY)
