"""Certificates: the order of a method, proved by algebra, against what the method declares."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

import quadflow as qf

from ...plans.adams.method import VariableOrderMethod
from ...plans.anchors.method import AnchorsMethod
from ...plans.stages.method import StagesMethod
from ...plans.sweeps.method import SweepsMethod
from ..exact.held import formula_of, held_methods
from ..exact.methods import ExactStep, exact_step, full_matrix, look_back
from ..exact.multistep import LinearMultistep, predictor_and_corrector
from ..exact.order_conditions import (
    OrderConditions,
    SimplifyingAssumptions,
    judge,
    rule_assumptions,
    simplifying_assumptions,
)
from ..exact.rules import NODAL, exact_rule
from ..exact.runge_kutta import exact_runge_kutta, inertia
from ..exact.trees import (
    Tree,
    TreeTable,
    all_trees,
    bushy_tree,
    parts_of,
    size,
    tree_problem,
    tree_text,
)
from ..report.records import written
from ..solvers.run import Solver
from ..solvers.solver import as_solver
from .running_step import against_algebra, uneven

HIGHEST = 10
"""Order up to which every single tree is checked; beyond, theorems about families of trees."""

THETAS = (Fraction(21, 100), Fraction(1, 2), Fraction(83, 100))
"""Where inside a step interpolants are certified."""

VARYING = Fraction(3, 2)
"""Ratio of neighbouring steps in the certificate for varying steps."""


@dataclass(frozen=True)
class Certificate:
    """What is proved of a method.

    method: its name. kind: what kind of method it is, in words. order: global order p. proof: how.
    arithmetic: "exact", or how far from zero rounded entries leave the conditions. failing, defect:
    the first tree that fails and by how much (None where only a theorem says that one does).
    principal_error: the norm of the defects of order p+1; nan where they were not all computed.
    dense_order: min(p, local order + 1) of the solution between the steps. dense_local: its local
    order p* (the error inside a step is O(h^(p*+1))). error_order: q of the estimate O(h^q), None
    without one. varying_order: the order when every step is 3/2 of the one before; None for
    one-step methods, to which steps are all the same. assumptions: B(p), C(q), D(r). zero_stable:
    by the root condition (multistep). properties: further facts, such as "symmetric", that were
    checked. declared: what the method says of itself. disagreements: every difference between the
    two, in words, and every one between the proved step and the one that the code takes, which is
    run on the problem of all trees up to order 6. formulas: of a multistep method, the orders of
    predictor and corrector by the conditions C_0 = ... = C_p = 0. choices: the certificates of all
    that a method chooses among, its orders or numbers of nodes.
    """

    method: str
    kind: str
    order: int
    proof: str
    arithmetic: str
    failing: Tree | None
    defect: float | None
    principal_error: float
    dense_order: int
    dense_local: int
    error_order: int | None
    varying_order: int | None
    assumptions: SimplifyingAssumptions | None
    zero_stable: bool | None
    properties: dict[str, bool]
    declared: dict[str, Any]
    disagreements: tuple[str, ...]
    formulas: tuple[int, ...] = ()
    choices: tuple[Certificate, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether everything that the method declares is proved."""
        return not self.disagreements

    def to_dict(self) -> dict[str, Any]:
        """Every finding, for JSON; nan becomes None."""
        return written(self) | {
            "failing": None if self.failing is None else tree_text(self.failing),
            "assumptions": None if self.assumptions is None else str(self.assumptions),
        }

    def __str__(self) -> str:
        failing = "" if self.failing is None else f"tree {tree_text(self.failing)}"
        if self.defect is not None:
            failing += f", by {self.defect:.3e}"
        varying = "" if self.varying_order is None else f"{self.varying_order}"
        norm = "" if math.isnan(self.principal_error) else f"{self.principal_error:.3e}"
        rows = [
            ("kind", self.kind),
            ("order", f"{self.order}  ({self.proof})"),
            ("formulas", " and ".join(f"order {p}" for p in self.formulas)),
            ("arithmetic", self.arithmetic),
            ("fails first at", failing),
            ("principal error norm", norm),
            ("order on varying steps", varying),
            ("dense output", f"order {self.dense_order} (within a step {self.dense_local})"),
            ("error estimate", "" if self.error_order is None else f"O(h^{self.error_order})"),
            ("assumptions", "" if self.assumptions is None else str(self.assumptions)),
            ("zero-stable", "" if self.zero_stable is None else str(self.zero_stable).lower()),
            ("properties", ", ".join(k for k, v in self.properties.items() if v)),
            ("declared", ", ".join(f"{k} {v}" for k, v in self.declared.items())),
            ("verdict", "agrees" if self.agrees else "; ".join(self.disagreements)),
        ]
        lines = [self.method, *(f"  {k:<24}{v}" for k, v in rows if v)]
        if self.choices:
            lines += ["", *_choices_text(self.choices)]
        return "\n".join(lines)


def certify(method: str | qf.Method | qf.QuadratureRule, *, highest: int = HIGHEST) -> Certificate:
    """Prove the order of a method, of its dense output and of its error estimate.

    Args:
        method: a registered name, a Method (of any plan with a polynomial interpolant), or a
            QuadratureRule, which stands for collocation on it, solved to convergence.
        highest: every tree up to min(p+1, highest) vertices is checked one by one. Higher orders of
            collocation and sweeps follow from the simplifying assumptions, checked exactly, and
            from the theorem that K sweeps give every tree of at most K + n vertices (K + 1 from a
            constant guess) the value that the collocation method gives it.

    A method that chooses its order or its nodes is certified at each of its choices, see `choices`.
    The certificate returned has the disagreements of all; of variable order, it is that of the
    highest order. Beyond `highest`, Adams methods need the bushy trees alone: all others of as
    many vertices get the same value.

    Raises:
        TypeError: anything else.
        ValueError: a method that claims no order (a trained interpolant), or whose interpolant is
            no polynomial; an unknown name; highest below 2.

    Source: Hairer, Nørsett & Wanner, Solving ODEs I, sections II.2, II.7, III.2 to III.4.
    """
    if highest < 2:
        raise ValueError(f"highest must be an order >= 2, got {highest!r}")
    if not isinstance(method, qf.QuadratureRule):
        method = qf.get_method(method)
        held = held_methods(method)
        if held:
            return _every_choice(method, held, highest)
        if method.order is None:
            raise ValueError(f"{method.name} declares no order: there is nothing to certify")
    return _certified(method, highest)


def _certified(method: qf.Method | qf.QuadratureRule, highest: int) -> Certificate:
    claimed = claimed_order(method)
    table, proof = _trees(method, highest)
    step = exact_step(method, table)
    found = judge(table.trees, step.defects(), step.allowance)
    if highest < claimed + 1:
        found = dataclasses.replace(found, principal_error=math.nan)
    if found.failing is None:
        found, more = _beyond(method, found)
        proof += more
    dense = min(judge(table.trees, step.defects(x), step.dense_allowance).order for x in THETAS)
    varying = _varying(method, claimed)
    order = found.order if varying is None else min(found.order, varying)
    formulas = _formulas(method)
    if isinstance(method, qf.QuadratureRule):
        name = f"collocation on {method.family}, n = {method.n}"
    else:
        name = method.name
    certificate = Certificate(
        method=name,
        kind=_kind(method),
        order=found.order,
        proof=proof,
        arithmetic=_arithmetic(step, found.order),
        failing=found.failing,
        defect=None if found.failing is None else float(found.defect),
        principal_error=found.principal_error,
        dense_order=min(order, dense + 1),
        dense_local=dense,
        error_order=_estimate_order(step),
        varying_order=varying,
        assumptions=_assumptions(method),
        zero_stable=all(f.zero_stable for f in formulas) if formulas else None,
        properties=_properties(method),
        declared=_declared(method),
        disagreements=(),
        formulas=tuple(f.order for f in formulas),
    )
    return dataclasses.replace(certificate, disagreements=_disagreements(method, certificate))


def _every_choice(method: qf.Method, held: dict[int, qf.Method], highest: int) -> Certificate:
    """The certificate of a method that chooses, with that of every choice: order against order."""
    # sweeps: the trees beyond the order are a matter of theorems
    least = 0 if isinstance(method, VariableOrderMethod) else 1
    choices = tuple(
        _certified(choice, min(highest, claimed_order(choice) + 1 - least))
        for choice in held.values()
    )
    wrong = [f"{c.method}: {words}" for c in choices for words in c.disagreements]
    if not isinstance(method, VariableOrderMethod):
        fixed = _certified(method, highest)
        return dataclasses.replace(
            fixed, choices=choices, disagreements=(*fixed.disagreements, *wrong)
        )
    if method.error_order != choices[0].error_order:
        wrong.append(f"error_order declared {method.error_order}, proved {choices[0].error_order}")
    return dataclasses.replace(
        choices[-1],
        method=method.name,
        kind=f"linear multistep of variable order, k = 1 to {method.max_order}, PECE",
        proof=f"{choices[-1].proof}, at k = {method.max_order}; likewise at every lower k",
        declared=_declared(method),
        disagreements=tuple(wrong),
        choices=choices,
    )


def _choices_text(choices: Sequence[Certificate]) -> list[str]:
    """A line a choice; declared and proved orders are the same where it agrees."""
    lines = [
        f"  {'held at':<14}{'formulas':>10}{'order':>7}{'varying steps':>15}{'dense':>7}"
        f"{'estimate':>10}  declared (order, dense, estimate)"
    ]
    for c in choices:
        formulas = ", ".join(map(str, c.formulas)) or "-"
        varying = "-" if c.varying_order is None else str(c.varying_order)
        estimate = "-" if c.error_order is None else f"O(h^{c.error_order})"
        declared = ", ".join(f"{v}" for v in c.declared.values())
        lines.append(
            f"  {c.method:<14}{formulas:>10}{c.order:>7}{varying:>15}{c.dense_order:>7}"
            f"{estimate:>10}  {declared}: {'agrees' if c.agrees else 'DIFFERS'}"
        )
    return lines


def _trees(method: qf.Method | qf.QuadratureRule, highest: int) -> tuple[TreeTable, str]:
    """The trees that are looked at, and what they prove.

    An Adams method that evaluates where it has arrived sees velocities of the exact solution only,
    save one at the predicted end, which has the predictor's order. So up to one order more than the
    predictor's all trees of as many vertices get the value of the bushy one, which stands for them.
    """
    claimed = claimed_order(method)
    looked = min(claimed + 1, highest)
    proof = f"every tree up to order {looked}"
    formulas = _formulas(method)
    exact_anchors = not isinstance(method, AnchorsMethod) or method.correction != "PEC"
    if looked > claimed or not formulas or claimed > formulas[0].order + 1 or not exact_anchors:
        return all_trees(looked), proof
    bushy = [bushy_tree(order) for order in range(looked + 1, claimed + 2)]
    return (
        parts_of(*all_trees(looked).trees, *bushy),
        f"{proof}, and the bushy ones to {claimed + 1}, to which all others are equal",
    )


def _formulas(method: qf.Method | qf.QuadratureRule) -> list[LinearMultistep]:
    """Predictor and corrector of a method of the anchors plan; none of others."""
    method = formula_of(method)
    if not isinstance(method, AnchorsMethod):
        return []
    return [formula for formula in predictor_and_corrector(method) if formula is not None]


def claimed_order(method: qf.Method | qf.QuadratureRule) -> int:
    """What the method says; d + 1 for collocation on a rule."""
    if isinstance(method, qf.QuadratureRule):
        return method.degree + 1
    assert method.order is not None
    return method.order


def _kind(method: qf.Method | qf.QuadratureRule) -> str:
    if isinstance(method, qf.QuadratureRule):
        return "collocation, solved to convergence: an implicit Runge-Kutta method"
    if isinstance(method, SweepsMethod):
        text = f"{method.sweeps} explicit sweeps on {method.rule.family}, n = {method.rule.n}"
        if method.guess == "constant":
            return f"{text}: an explicit Runge-Kutta method"
        return f"{text}, guess extrapolated: a two-step Runge-Kutta method"
    if isinstance(method, StagesMethod):
        return f"explicit Runge-Kutta method of {len(method.tableau.a)} stages"
    if isinstance(method, VariableOrderMethod):
        return f"linear multistep, {method.max_order} anchors at most, PECE"
    assert isinstance(method, AnchorsMethod)
    k = method.interpolant.anchors
    return f"linear multistep, {k} anchor{'s' * (k > 1)}, {method.correction or 'predicted'}"


def _beyond(
    method: qf.Method | qf.QuadratureRule, found: OrderConditions
) -> tuple[OrderConditions, str]:
    """What theorems add where every tree that was looked at holds.

    From below: the simplifying assumptions give collocation its order q, and sweeps share its
    values for trees of at most K + gain vertices. From above: one tree that fails.
    """
    if isinstance(method, qf.QuadratureRule):
        rule, reach = method, None
    elif isinstance(method, SweepsMethod):
        rule = method.rule
        reach = method.sweeps + (1 if method.guess == "constant" else rule.n)
    else:
        return found, "; none fails, so the order may be higher"
    assumptions = rule_assumptions(rule)
    order = assumptions.order if reach is None else min(assumptions.order, reach)
    if order < found.order or not exact_rule(rule).exact:
        return found, "; none fails, so the order may be higher"
    tree = bushy_tree(order + 1)
    if reach == order and order < assumptions.order:
        # the guess is wrong at the smallest tree it does not know, and each sweep hides one more
        assert isinstance(method, SweepsMethod)
        tree = bushy_tree(reach - method.sweeps + 1) if method.guess != "constant" else ((),)
        while size(tree) < order + 1:
            tree = (tree,)
    table = parts_of(tree)
    defect = exact_step(method, table).defects()[table.trees.index(tree)]
    if not defect:
        return found, f"; order {order} at least, by {assumptions}"
    text = f"; beyond, {assumptions}" + ("" if reach is None else f" and {reach} reached by sweeps")
    return OrderConditions(order, tree, defect, math.nan), text


def _estimate_order(step: ExactStep) -> int | None:
    """q of O(h^q); two rows of a tableau are combined as e1^2 / sqrt(e1^2 + 0.01 e2^2)."""
    if not step.estimates:
        return None
    allowances = step.estimate_allowances or [()] * len(step.estimates)
    orders = [
        judge(step.table.trees, row, allowance).order + 1
        for row, allowance in zip(step.estimates, allowances, strict=True)
    ]
    if step.combined and len(orders) == 2:
        return 2 * orders[0] - orders[1]
    return min(orders)


def _varying(method: qf.Method | qf.QuadratureRule, claimed: int) -> int | None:
    """The order on a geometric grid, of methods that look back; trees up to order 8."""
    if not look_back(method):
        return None
    highest = min(claimed + 1, 8)
    table, _ = _trees(method, highest)
    step = exact_step(method, table, VARYING)
    order = judge(table.trees, step.defects(), step.allowance).order
    return claimed if order == highest < claimed + 1 else order


def _arithmetic(step: ExactStep, order: int) -> str:
    if not step.allowance:
        return "exact rational numbers"
    holding = zip(step.table.trees, step.defects(), strict=True)
    worst = max((abs(float(d)) for tree, d in holding if size(tree) <= order), default=0.0)
    return (
        "float64 entries taken as the rational numbers they are; conditions that hold are within "
        f"{worst:.1e} of zero, less than the rounding of the entries allows"
    )


def _assumptions(method: qf.Method | qf.QuadratureRule) -> SimplifyingAssumptions | None:
    if isinstance(method, qf.QuadratureRule):
        return rule_assumptions(method)
    if isinstance(method, StagesMethod):
        a = full_matrix(method.tableau)
        return simplifying_assumptions(a, method.tableau.b)
    return None


def _rule(method: qf.Method | qf.QuadratureRule) -> qf.QuadratureRule | None:
    if isinstance(method, (SweepsMethod, AnchorsMethod)):
        return method.rule
    return method if isinstance(method, qf.QuadratureRule) else None


def _properties(method: qf.Method | qf.QuadratureRule) -> dict[str, bool]:
    rule = _rule(method)
    if rule is not None:
        algebra, nodal = exact_runge_kutta(rule), exact_rule(rule).nodal
        return {
            "symmetric": algebra.is_symmetric(),
            # the form (p, q) -> b·(pq) has as many plus signs as there are positive weights
            "positive weights": inertia(algebra.gram) == (rule.n, 0, 0),
            "contains the start": not nodal[0],
            "contains the end": not sum(nodal),
        }
    if isinstance(method, VariableOrderMethod):
        return {}
    assert isinstance(method, StagesMethod)
    tableau = method.tableau
    last = np.array([*tableau.a[-1], 0.0])
    return {"first same as last": bool(np.array_equal(last, tableau.b))}


def _declared(method: qf.Method | qf.QuadratureRule) -> dict[str, Any]:
    if isinstance(method, qf.QuadratureRule):
        return {"degree": method.degree}
    return {
        "order": method.order,
        "dense_order": method.dense_order,
        "error_order": method.error_order,
    }


def _disagreements(method: qf.Method | qf.QuadratureRule, found: Certificate) -> tuple[str, ...]:
    wrong = []

    def compare(what: str, declared: Any, proved: Any) -> None:
        if declared != proved:
            wrong.append(f"{what} declared {declared}, proved {proved}")

    rule = _rule(method)
    for what, value in _declared(method).items():
        compare(what, value, found.order - 1 if what == "degree" else getattr(found, what))
    if found.varying_order is not None:
        compare("order on varying steps", claimed_order(method), found.varying_order)
    if found.zero_stable is False:
        wrong.append("not zero-stable")
    if rule is not None:
        exact = exact_rule(rule)
        if exact.exact:
            compare("degree of the rule", rule.degree, exact.degree)
            compare("is_symmetric", rule.is_symmetric, found.properties["symmetric"])
        elif rule.family in NODAL:
            wrong.append(f"the nodes are not those of {rule.family}")
        try:  # weights and matrix against the nodes, as when a rule is made
            dataclasses.replace(rule)
        except ValueError as error:
            wrong.append(str(error))
        compare("has_positive_weights", rule.has_positive_weights,
                found.properties["positive weights"])  # fmt: skip
        compare("has_left", rule.has_left, found.properties["contains the start"])
        compare("has_right", rule.has_right, found.properties["contains the end"])
    elif isinstance(method, StagesMethod):
        fsal = method.tableau.first_same_as_last
        compare("first_same_as_last", fsal, found.properties["first same as last"])
    if isinstance(method, qf.Method):
        for ratio in (Fraction(1), uneven(method)) if look_back(method) else (Fraction(1),):
            wrong += [f"running code: {text}" for text in against_algebra(method, ratio=ratio)]
    return tuple(wrong)


@dataclass(frozen=True)
class BlackBoxCertificate:
    """The order of a solver that is known only by what it returns.

    solver: its name. order: all trees up to it hold within tolerance. failing, defect: the first
    that does not, with its relative defect. highest: order of the largest trees looked at; where
    order equals it, the order may be higher. tolerance: relative. failure: why the solver gave
    nothing, in which case order is None.
    """

    solver: str
    order: int | None
    failing: Tree | None
    defect: float
    highest: int
    tolerance: float
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Every finding, for JSON; nan becomes None."""
        failing = None if self.failing is None else tree_text(self.failing)
        return written(self) | {"failing": failing}

    def __str__(self) -> str:
        if self.order is None:
            return f"{self.solver}: no certificate: {self.failure}"
        if self.failing is None:
            return f"{self.solver}: order at least {self.order} (trees up to {self.highest})"
        return (
            f"{self.solver}: order {self.order}; tree {tree_text(self.failing)} fails by "
            f"{self.defect:.2e} of its value"
        )


def certify_solver(
    solver: Any, *, highest: int = 9, steps: int = 1, tolerance: float = 1e-10
) -> BlackBoxCertificate:
    """The order of any fixed-step solver, from one solve of the problem of all rooted trees.

    Nothing is known of the solver but its answer, so the code that runs is certified, not a
    tableau: nodes, matrix, weights and the use made of them.

    Args:
        solver: what `solvers.solver.as_solver` takes: a method, "torchdiffeq:rk4", a callable, ...
        highest: order of the largest trees.
        steps: unit steps to take; one-step methods need one, multistep methods more than they have
            to start with (and a start of their own order).
        tolerance: relative; float64 rounding in the solver is amplified by large coefficients.

    Raises:
        ValueError: the solver takes no fixed steps.
    """
    made: Solver = as_solver(solver)
    if highest < 1 or steps < 1:
        raise ValueError(f"highest and steps must be >= 1, got {highest!r} and {steps!r}")
    if made.fixed is None:
        raise ValueError(f"{made.name} takes no fixed steps, which order conditions are about")
    problem = tree_problem(highest, span=float(steps))
    run = made.fixed(problem, np.arange(steps + 1.0))
    if run.end is None or not bool(run.end.isfinite().all()):
        failure = run.failure or "it returned non-finite values"
        return BlackBoxCertificate(made.name, None, None, math.nan, highest, tolerance, failure)
    assert problem.end is not None
    trees = all_trees(highest).trees
    relative = ((run.end - problem.end) / problem.end).tolist()
    found = judge(trees, relative, [tolerance] * len(trees))
    return BlackBoxCertificate(
        made.name, found.order, found.failing, float(found.defect), highest, tolerance
    )


def summary_line(certificate: Certificate) -> str:
    """Name, orders and verdict in one line."""
    c = certificate
    estimate = "-" if c.error_order is None else str(c.error_order)
    verdict = "agrees" if c.agrees else "; ".join(c.disagreements)
    return (
        f"{c.method:<12} order {c.order:>2}  dense {c.dense_order:>2}  estimate {estimate:>2}  "
        f"{verdict}"
    )
