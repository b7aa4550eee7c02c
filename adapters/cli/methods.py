"""METHOD, --nodes, --sweeps and --guess of the commands that certify, draw and measure."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import quadflow

from ...errors import nearest
from ...plans.registry import Method
from ...rules.quadrature import FAMILIES, NegativeWeightsWarning, QuadratureRule

ALIASES = {"radau-iia": "radau-right", "lobatto-iiia": "gauss-lobatto"}
"""Implicit Runge-Kutta methods that are collocation on a rule: their name -> the rule's family."""


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """Add METHOD, --nodes, --sweeps and --guess to a command; `named_method` reads them."""
    add = parser.add_argument
    add("method", metavar="METHOD",
        help="a registered method (see `quadflow methods`), or with --nodes a family of rules, "
        f"which means implicit collocation on it: {', '.join((*FAMILIES, *ALIASES))}")  # fmt: skip
    add("--nodes", type=int, metavar="N", help="number of nodes of a family's rule")
    add("--sweeps", type=int, metavar="K",
        help="K explicit sweeps on the rule instead of implicit collocation")  # fmt: skip
    add("--guess", choices=("constant", "extrapolated"),
        help="what the sweeps start from (constant)")  # fmt: skip


def named_rule(family: str, nodes: int | None, *, name: str | None = None) -> QuadratureRule:
    """The rule of a family (or an alias) with this many nodes; `name` is what the user called it.

    Raises:
        ValueError: no --nodes, or a number that the family does not have.
    """
    info = FAMILIES[ALIASES.get(family, family)]
    most = "any number" if info.maximum is None else str(info.maximum)
    if nodes is None:
        raise ValueError(
            f"METHOD {name or family} is a family: say how many nodes, --nodes {info.minimum} "
            f"to {most}"
        )
    try:
        with warnings.catch_warnings():  # what comes of negative weights is in the answer
            warnings.simplefilter("ignore", NegativeWeightsWarning)
            return info.function(nodes)
    except ValueError as error:
        raise ValueError(f"--nodes {nodes}: {error}") from error


def refuse_rule_arguments(arguments: Any, reason: str, *names: str) -> None:
    """Refuse those of --nodes, --sweeps, --guess that were given although METHOD fixes them.

    Raises:
        ValueError: one was given; the message is its name, its value and the reason.
    """
    for name in names:
        value = getattr(arguments, name)
        if value is not None:
            raise ValueError(f"--{name} {value}: {reason}")


def named_method(arguments: argparse.Namespace) -> QuadratureRule | Method:
    """What METHOD, --nodes, --sweeps and --guess of a command line mean.

    A family without --sweeps is its rule (implicit collocation, solved to convergence); with
    --sweeps it is that many explicit sweeps; a registered name is its method.

    Raises:
        ValueError: unknown METHOD (the nearest are named), a number of nodes or sweeps that there
            is not, or an option that does not go with METHOD.
    """
    name = arguments.method
    if name in FAMILIES or name in ALIASES:
        rule = named_rule(name, arguments.nodes)
        if arguments.sweeps is None:
            refuse_rule_arguments(
                arguments, "says what sweeps start from, and needs --sweeps K", "guess"
            )
            return rule
        guess = arguments.guess or "constant"
        try:
            return quadflow.collocation(rule, arguments.sweeps, guess=guess)
        except ValueError as error:
            raise ValueError(f"--sweeps {arguments.sweeps}: {error}") from error
    registered = quadflow.methods()
    if name not in registered:
        known = (*registered, *FAMILIES, *ALIASES)
        raise ValueError(f"METHOD {name!r} is unknown: {nearest(name, known)}")
    refuse_rule_arguments(
        arguments,
        f"{name} is a registered method, whose nodes and sweeps are fixed; name a family of rules "
        f"to choose them: {', '.join(FAMILIES)}",
        "nodes", "sweeps", "guess",
    )  # fmt: skip
    return registered[name]
