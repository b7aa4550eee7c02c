"""METHOD of the command line, in every form that it has: names, families, MODULE:NAME, peers."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

import quadflow as qf

from ...errors import nearest
from ...rules.families import NegativeWeightsWarning
from ...rules.quadrature import FAMILIES
from ...rules.rule import QuadratureRule
from .own import kind_of, load_own, takes

if TYPE_CHECKING:
    from ...analysis.solvers.run import Solver

ALIASES = {"radau-iia": "radau-right", "lobatto-iiia": "gauss-lobatto"}
"""Implicit Runge-Kutta methods that are collocation on a rule: their name -> the rule's family."""

OWN = (
    "MODULE:NAME or FILE.py:NAME, a Method or Tableau of one's own, or a function that makes one "
    "(MODULE is in this folder or installed)"
)
"""How METHOD is said to be more than a name."""


def add_method_arguments(parser: argparse.ArgumentParser) -> None:
    """Add METHOD, --nodes, --sweeps and --guess to a command; `read_method` reads them."""
    add = parser.add_argument
    add("method", metavar="METHOD",
        help="a registered method (see `quadflow methods`); adams:K, gauss:N or lobatto:N, held at "
        "order K or N nodes; or with --nodes a family of rules, which means implicit collocation "
        f"on it: {', '.join((*FAMILIES, *ALIASES))}; or {OWN}, a QuadratureRule, or a callable "
        "solve(rhs, y0, grid)")  # fmt: skip
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


def read_method(arguments: argparse.Namespace) -> QuadratureRule | qf.Method | Solver:
    """The method, rule or solver that METHOD, --nodes, --sweeps and --guess mean.

    A family without --sweeps is its rule (implicit collocation, solved to convergence); with
    --sweeps it is that many explicit sweeps, and so it is with a rule of one's own. A registered
    name is its method; MODULE:NAME is what is found there; a peer's solver, or a callable of one's
    own, is a Solver.

    Raises:
        ValueError: unknown METHOD (the nearest are named), a number of nodes or sweeps that there
            is not, or an option that does not go with METHOD.
    """
    from ...analysis.exact.held import held_methods

    name = arguments.method
    if name in FAMILIES or name in ALIASES:
        return _on_rule(named_rule(name, arguments.nodes), arguments)
    subject = read_subject(name, "METHOD", (*FAMILIES, *ALIASES))
    if isinstance(subject, QuadratureRule):
        refuse_rule_arguments(arguments, f"{name} is a rule, whose nodes are fixed", "nodes")
        return _on_rule(subject, arguments)
    what = "a registered method" if name in qf.methods() else "a method of its own"
    hint = "name a family of rules to choose them: " + ", ".join(FAMILIES)
    if not isinstance(subject, qf.Method):
        what = "another library's solver or a callable"
    elif held := held_methods(subject):
        hint = f"hold it at one of its choices: {', '.join(m.name for m in held.values())}"
    refuse_rule_arguments(
        arguments,
        f"{name} is {what}, whose nodes and sweeps are fixed; {hint}",
        "nodes", "sweeps", "guess",
    )  # fmt: skip
    return subject


def _on_rule(rule: QuadratureRule, arguments: argparse.Namespace) -> QuadratureRule | qf.Method:
    if arguments.sweeps is None:
        reason = "says what sweeps start from, and needs --sweeps K"
        refuse_rule_arguments(arguments, reason, "guess")
        return rule
    guess = arguments.guess or "constant"
    try:
        return qf.collocation(rule, arguments.sweeps, guess=guess)
    except ValueError as error:
        raise ValueError(f"--sweeps {arguments.sweeps}: {error}") from error


def read_solver(text: str, option: str) -> Solver:
    """The Solver of a registered method, adams:K, gauss:N, a peer or MODULE:NAME, named as typed.

    Raises:
        ValueError: as `read_subject`; a rule, which is no solver yet.
    """
    from ...analysis.exact.held import released
    from ...analysis.solvers.run import Solver
    from ...analysis.solvers.solver import as_solver

    subject = read_subject(text, option)
    if isinstance(subject, Solver):
        return subject
    if isinstance(subject, QuadratureRule):
        raise ValueError(
            f"{option} {text} is a QuadratureRule: quadflow.collocation makes a method of it"
        )
    return as_solver(released(subject))


def read_subject(
    text: str, option: str, others: tuple[str, ...] = ()
) -> QuadratureRule | qf.Method | Solver:
    """A registered method, adams:K, gauss:N, a peer's solver, or MODULE:NAME.

    What has no name of its own, or one that says little, is shown under `text`.

    Args:
        text: as typed. option: where, for messages. others: further names, for the message about
            an unknown one.

    Raises:
        ValueError: unknown; not of a kind that can be measured.
    """
    from ...analysis.solvers.run import Solver
    from ...analysis.solvers.solver import PEERS, as_solver

    name, colon, rest = text.partition(":")
    if name in PEERS and colon:
        return as_solver(text)
    registered = qf.methods()
    if not colon and not text.endswith(".py"):
        if name not in registered:
            known = (*registered, *others)
            raise ValueError(f"{option} {text!r} is unknown: {nearest(text, known)}")
        return registered[name]
    if name in registered and colon and not rest[:1].isalpha():
        return _held(registered[name], rest, f"{option} {text}")
    found = load_own(text, option, PEERS)
    if isinstance(found, qf.Tableau):
        found = qf.stages(found)
    if isinstance(found, qf.Method):
        return dataclasses.replace(found, name=text)
    if isinstance(found, QuadratureRule):
        return found
    of_diffrax = type(found).__module__.partition(".")[0] == "diffrax"
    if not (takes(found, 3) or isinstance(found, Solver) or of_diffrax):
        raise ValueError(
            f"{option} {text} is {kind_of(found)}: must be a Method, a Tableau, a QuadratureRule, "
            "a function that makes one, or a callable solve(rhs, y0, grid)"
        )
    return dataclasses.replace(as_solver(found), name=text)


def _held(method: qf.Method, size: str, what: str) -> qf.Method:
    from ...analysis.exact.held import held_methods

    held = held_methods(method)
    if not held:
        raise ValueError(f"{what}: {method.name} chooses neither an order nor nodes to hold")
    if not size.isdigit() or int(size) not in held:
        raise ValueError(f"{what}: {method.name} chooses among {', '.join(map(str, held))}")
    return held[int(size)]
