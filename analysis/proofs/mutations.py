"""Mutation testing: faults are planted, and the certificates have to find every one.

A fault is one number of a rule, of a tableau, or of the step's own formulas, changed by 1.5e-6.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

import quadflow as qf

from ...plans import interpolants, segment, sums
from ...plans.anchors import method as anchor_steps
from ...plans.stages import sums as stage_sums
from ...plans.stages.method import StagesMethod
from ...plans.sweeps import sweep
from ...rules import lagrange
from ...rules.quadrature import FAMILIES
from ...rules.tableau import Tableau
from ...storage import write_json
from .certificates import certify, certify_solver
from .running_step import UNEVEN, Watched, against_algebra

FAULT = 1.5e-6
"""Far above rounding, far below what anybody would see in a plot."""

KINDS = ("nodes", "weights", "matrix", "tableau", "embedded weights", "step formula", "interpolant")

RULES = (("gauss-legendre", 3), ("gauss-lobatto", 4), ("radau-right", 3), ("radau-left", 2),
         ("clenshaw-curtis", 5), ("fejer-1", 3), ("fejer-2", 4), ("newton-cotes-closed", 4),
         ("newton-cotes-open", 4))  # fmt: skip
"""Rules that faults are planted in."""

TABLEAUS = ("midpoint", "heun", "rk4", "dopri5", "tsit5", "dopri8")

STEPS: tuple[str | qf.Method, ...] = (
    "midpoint", "heun", "dopri5", "dopri8", "ab3", "pec2", "pece2", "gauss2", "lobatto4",
    # the estimate from a constant guess: of the registered methods, only first intervals have it
    qf.collocation(qf.gauss_legendre(3), 2),
)  # fmt: skip
"""Methods that between them pass through every formula of a step."""

MODULES: dict[str, tuple[Any, ...]] = {
    "step formula": (anchor_steps, stage_sums, sweep, sums),
    "interpolant": (interpolants, segment, lagrange),
}
"""Where formulas stand, by kind of fault: each module names its functions in `FORMULAS`."""


@dataclass(frozen=True)
class Fault:
    """One planted fault. kind: of `KINDS`. where: in words. caught: names of the checks that found
    it; a fault that none did has survived."""

    kind: str
    where: str
    caught: tuple[str, ...]


@dataclass(frozen=True)
class MutationReport:
    """seed, and every fault planted. interrupted: fewer were planted than asked for."""

    seed: int
    faults: tuple[Fault, ...]
    interrupted: bool = False

    @property
    def survivors(self) -> tuple[Fault, ...]:
        """Faults that no check found."""
        return tuple(f for f in self.faults if not f.caught)

    def to_dict(self) -> dict[str, Any]:
        """Every fault, for JSON."""
        return {
            "seed": self.seed,
            "fault": FAULT,
            "planted": len(self.faults),
            "caught": len(self.faults) - len(self.survivors),
            "interrupted": self.interrupted,
            "faults": [dataclasses.asdict(f) for f in self.faults],
        }

    def __str__(self) -> str:
        checks = list(dict.fromkeys(c for f in self.faults for c in f.caught))
        lines = [f"{'kind of fault':<20}{'planted':>8}{'caught':>8}  caught by"]
        for kind in KINDS:
            here = [f for f in self.faults if f.kind == kind]
            by = Counter(c for f in here for c in f.caught)
            found = sum(bool(f.caught) for f in here)
            text = ", ".join(f"{c} {by[c]}" for c in checks if by[c])
            lines.append(f"{kind:<20}{len(here):>8}{found:>8}  {text}")
        total = len(self.faults)
        lines.append(f"{'all':<20}{total:>8}{total - len(self.survivors):>8}")
        lines += [f"SURVIVED: {f.kind}: {f.where}" for f in self.survivors]
        if self.interrupted:
            lines.append("interrupted: fewer faults were planted than asked for")
        return "\n".join(lines)


# -- checks ---------------------------------------------------------------------------------------


def _fails(check: Callable[[], bool]) -> bool:
    """Whether a check finds fault; an object that refuses to be used is found out as well."""
    try:
        return not check()
    except (ValueError, ArithmeticError, RuntimeError):
        return True


def _method_checks(method: qf.Method) -> dict[str, Callable[[], bool]]:
    order = method.order
    assert order is not None

    return {
        "certificate": lambda: certify(method).agrees,
        "black box": lambda: certify_solver(method, highest=order, steps=1).order == order,
    }


def _own_check(original: Any, **changed: Any) -> dict[str, Callable[[], bool]]:
    return {"own check": lambda: dataclasses.replace(original, **changed) is not None}


def _step_checks() -> dict[str, Callable[[], bool]]:
    """What runs against what was proved, and orders of what runs."""

    def agrees(name: str | qf.Method, ratio: Fraction) -> bool:
        if against_algebra(name, ratio=ratio):
            return False
        with Watched():  # type: ignore[no-untyped-call]  # in tensors as well
            return not against_algebra(name, ratio=ratio)

    def black_boxes() -> bool:
        for name in STEPS:
            order = qf.get_method(name).order
            if certify_solver(name, highest=min(order or 1, 6), steps=5).failing is not None:
                return False
        return True

    return {
        "running code": lambda: all(agrees(name, Fraction(1)) for name in STEPS),
        "running code, varying steps": lambda: all(agrees(name, UNEVEN) for name in STEPS),
        "black box": black_boxes,
    }


def _caught(checks: dict[str, Callable[[], bool]]) -> tuple[str, ...]:
    return tuple(name for name, check in checks.items() if _fails(check))


# -- faults in tables -----------------------------------------------------------------------------


def _unchecked(original: Any, **changed: Any) -> Any:
    """A copy of a frozen dataclass that has skipped its own checks."""
    copy = object.__new__(type(original))
    for field in dataclasses.fields(original):
        object.__setattr__(copy, field.name, changed.get(field.name, getattr(original, field.name)))
    return copy


def _rule_fault(kind: str, rng: np.random.Generator) -> Fault:
    family, n = RULES[rng.integers(len(RULES))]
    rule = FAMILIES[family].function(n)
    field = {"nodes": "nodes", "weights": "weights", "matrix": "integration_matrix"}[kind]
    wrong = getattr(rule, field).copy()
    index = tuple(int(rng.integers(k)) for k in wrong.shape)
    wrong[index] += FAULT if wrong[index] < 0.5 else -FAULT
    wrong.setflags(write=False)
    corrupt = _unchecked(rule, **{field: wrong})
    # a method of which all three arrays are part
    method = qf.collocation(rule, max(1, rule.degree))
    checks = _own_check(rule, **{field: wrong})
    checks |= _method_checks(dataclasses.replace(method, rule=corrupt))
    return Fault(kind, f"{family} n={n}, {field}{list(index)}", _caught(checks))


def _tableau_fault(kind: str, rng: np.random.Generator) -> Fault:
    names = [n for n in TABLEAUS if kind == "tableau" or _tableau(n).errors]
    name = names[rng.integers(len(names))]
    tableau = _tableau(name)
    places: list[tuple[str, tuple[int, ...]]] = []
    if kind == "tableau":
        places += [("a", (i, j)) for i, row in enumerate(tableau.a) for j in range(len(row))]
        places += [("extra", (i, j)) for i, e in enumerate(tableau.extra) for j in range(len(e[1]))]
        places += [("b", (i,)) for i in range(len(tableau.b))]
        places += [("dense", i) for i in np.ndindex(tableau.dense.shape)]
    else:
        places += [("errors", (r, i)) for r, e in enumerate(tableau.errors) for i in range(len(e))]
    field, index = places[rng.integers(len(places))]
    # an extra stage is its node and its row
    path = (index[0], 1, *index[1:]) if field == "extra" else index
    changed = {field: _with_fault(getattr(tableau, field), path)}
    method = qf.get_method(name)
    corrupt = _unchecked(tableau, **changed)
    checks = _own_check(tableau, **changed)
    checks |= _method_checks(dataclasses.replace(method, tableau=corrupt))  # type: ignore[call-arg]
    return Fault(kind, f"{name}, {field}{list(index)}", _caught(checks))


def _tableau(name: str) -> Tableau:
    method = qf.get_method(name)
    assert isinstance(method, StagesMethod)
    return method.tableau


def _with_fault(values: Any, index: Sequence[int]) -> Any:
    """`values` (a number, an array, or tuples of these) with a fault at the index."""
    if isinstance(values, np.ndarray):
        wrong = values.copy()
        wrong[tuple(index)] += FAULT
        return wrong
    if not index:
        return values + FAULT
    items = list(values)
    items[index[0]] = _with_fault(items[index[0]], index[1:])
    return tuple(items)


# -- faults in formulas ---------------------------------------------------------------------------

_CALLS = {"add", "addmm", "addmv", "addcmul", "mm", "mv", "sqrt"}
_HOOK = "__planted_fault__"


class _Sites(ast.NodeTransformer):
    """Wraps arithmetic of one function in a call of the hook: all of it, or the chosen site.

    Comparisons and conditions are left alone: a threshold that is off by 1e-6 is no other method.
    """

    def __init__(self, chosen: int | None) -> None:
        self.chosen = chosen
        self.lines: list[str] = []

    def _wrapped(self, node: ast.expr, text: str) -> ast.expr:
        number = len(self.lines)
        self.lines.append(text)
        if self.chosen not in (None, number):
            return node
        call = ast.Call(ast.Name(_HOOK, ast.Load()), [node, ast.Constant(number)], [])
        return ast.copy_location(call, node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        text = ast.unparse(node)
        self.generic_visit(node)
        return self._wrapped(node, text)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        text, arithmetic = ast.unparse(node), isinstance(node.value, ast.BinOp)
        self.generic_visit(node)
        if not arithmetic:  # or it is wrapped already
            node.value = self._wrapped(node.value, text)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        text = ast.unparse(node)
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _CALLS:
            return self._wrapped(node, text)
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        return node  # annotations: X | None is no arithmetic

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [self.visit(part) for part in node.body]
        return node


def _function(module: types.ModuleType, path: str) -> types.FunctionType:
    found: Any = module
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    if isinstance(found, property):
        found = found.fget
    assert isinstance(found, types.FunctionType)
    return found


def _recompiled(
    module: types.ModuleType, path: str, chosen: int | None
) -> tuple[types.CodeType, list[str]]:
    """The function's code with the hook at the chosen site (at every one for None), and its sites.

    The whole module is compiled, since a method's code needs its class around it.
    """
    tree = ast.parse(inspect.getsource(module))
    sites = _Sites(chosen)
    scope: Any = tree
    for name in path.split("."):
        scope = next(n for n in scope.body if getattr(n, "name", None) == name)
    sites.visit(scope)
    file = module.__file__ or module.__name__
    code = compile(ast.fix_missing_locations(tree), file, "exec", dont_inherit=True)
    for name in path.split("."):
        code = next(
            c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name
        )
    return code, sites.lines


def _forget() -> None:
    """Make the constants of methods anew, which are kept from solve to solve."""
    sweep.rule_arrays.cache_clear()
    stage_sums.stage_table.cache_clear()


@contextlib.contextmanager
def _planted(
    module: types.ModuleType, path: str, chosen: int | None, hook: Callable[[Any, int], Any]
) -> Iterator[list[str]]:
    """The function runs with the fault inside the block, wherever it has been imported to."""
    function = _function(module, path)
    code, sites = _recompiled(module, path, chosen)
    sound = function.__code__
    module.__dict__[_HOOK] = hook
    function.__code__ = code
    _forget()
    try:
        yield sites
    finally:
        function.__code__ = sound
        _forget()
        del module.__dict__[_HOOK]


def _is_real(x: Any) -> bool:
    if isinstance(x, torch.Tensor):
        return x.is_floating_point() and bool((x != 0).any())
    if isinstance(x, np.ndarray):
        return x.dtype.kind == "f" and bool((x != 0).any())
    return isinstance(x, float) and x != 0


def formula_sites(kind: str) -> list[tuple[types.ModuleType, str, int, str]]:
    """(module, function, site, source text) of the arithmetic of real numbers of one kind.

    Sites where nothing but integers, or nothing at all, passes while every method of `STEPS` takes
    its steps have no fault to plant: index arithmetic, and branches for states of other kinds.
    """
    live: list[tuple[types.ModuleType, str, int, str]] = []
    places = [(module, path) for module in MODULES[kind] for path in module.FORMULAS]
    for module, path in places:
        seen: set[int] = set()

        def record(x: Any, site: int, seen: set[int] = seen) -> Any:
            if _is_real(x):
                seen.add(site)
            return x

        with _planted(module, path, None, record) as sites:
            for check in _step_checks().values():
                check()
        for site in sorted(seen):
            live.append((module, path, site, sites[site]))
    return live


def _formula_fault(
    kind: str, sites: Sequence[tuple[types.ModuleType, str, int, str]], rng: np.random.Generator
) -> Fault:
    module, path, site, text = sites[int(rng.integers(len(sites)))]

    def wrong(x: Any, _: int) -> Any:
        return x * (1 + FAULT) if _is_real(x) else x

    with _planted(module, path, site, wrong):
        caught = _caught(_step_checks())
    name = module.__name__.rpartition(".")[2]
    return Fault(kind, f"{name}.{path}: {text}", caught)


# -- the command ----------------------------------------------------------------------------------


def plant(
    count: int = 100,
    *,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    save: Path | None = None,
    progress: Callable[[], None] | None = None,
) -> MutationReport:
    """Plant `count` faults, one at a time, at random places, and report which checks find them.

    The kinds take turns, so that each has its share. The sound objects are checked first: a check
    that refuses them finds nothing.

    Args:
        count: faults, >= 1. seed: of the places. kinds: some of `KINDS`.
        save: JSON, rewritten after every fault; an interruption (KeyboardInterrupt) keeps what was
            done, in the file and in the report.
        progress: called after every fault.

    Raises:
        ValueError: count below 1, or an unknown kind.
        RuntimeError: a check refuses the sound library.
    """
    if count < 1:
        raise ValueError(f"count, the number of faults, must be >= 1, got {count!r}")
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kinds has {kind!r}: must be of {', '.join(KINDS)}")
    false_alarms = _caught(_step_checks())
    if false_alarms:
        raise RuntimeError(f"the sound library is refused by: {', '.join(false_alarms)}")
    rng = np.random.default_rng(seed)
    faults: list[Fault] = []
    interrupted = False
    sites: dict[str, Any] = {}
    try:
        for i in range(count):
            kind = kinds[i % len(kinds)]
            if kind in MODULES:
                if kind not in sites:
                    sites[kind] = formula_sites(kind)
                faults.append(_formula_fault(kind, sites[kind], rng))
            elif kind in ("nodes", "weights", "matrix"):
                faults.append(_rule_fault(kind, rng))
            else:
                faults.append(_tableau_fault(kind, rng))
            if save is not None:
                write_json(save, MutationReport(seed, tuple(faults), True).to_dict())
            if progress is not None:
                progress()
    except KeyboardInterrupt:
        interrupted = True
    report = MutationReport(seed, tuple(faults), interrupted)
    if save is not None:
        write_json(save, report.to_dict())
    return report
