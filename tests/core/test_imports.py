"""Which module may import which, how large rooms and functions are: read from the source alone."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache

from paths import ROOT

ROOTS = {"quadflow": "quadflow", "adapters": "quadflow.adapters", "analysis": "quadflow.analysis"}
"""Folders of the packages, and the names that these are imported by."""

ROOMS = (
    "equations",
    "rules",
    "plans",
    "control",
    "observe",
    "loop",
    "gradients",
    "compiled",
    "torchdiffeq_api",
    "trust",
)
"""The core's rooms: each may import those before it."""

UPWARD = {
    # a step is given its compiled form, and the tolerance: types alone
    "quadflow.plans": {"quadflow.compiled.step", "quadflow.control.control"},
    # a solution is given its gradients; func of the backward solve fails as a solve does
    "quadflow.gradients": {"quadflow.solution"},
    # torchdiffeq's functions are solves
    "quadflow.torchdiffeq_api": {"quadflow.solve", "quadflow.solution"},
    # a check solves
    "quadflow.trust": {"quadflow.solve", "quadflow.solution"},
}
"""What is imported from a later room, or from the files that put the rooms together."""

LONGEST = {"quadflow": 60, "adapters": 80, "analysis": 80}
MOST_FILES = 25


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the library by its name, parsed."""
    found = {}
    for folder, package in ROOTS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def is_package(name: str) -> bool:
    return any(other.startswith(f"{name}.") for other in modules())


@cache
def exports(package: str) -> set[tuple[str, str]]:
    """(module, name) of what a package finds when it is asked for."""
    return {
        (f".{node.module}", alias.name)
        for block in modules()[package].body
        if _is_export(block)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _is_export(node: ast.AST) -> bool:
    return isinstance(node, ast.With) and ast.unparse(node.items[0]) == "exported(__name__)"


@cache
def homes() -> dict[str, str]:
    """The module of every name that one of the three packages exports."""
    return {
        f"{package}.{name}": f"{package}{home}"
        for package in ROOTS.values()
        for home, name in exports(package)
    }


@cache
def imports() -> dict[str, set[str]]:
    """What every module imports, at its top or inside a function, by whole names.

    What a package exports it finds when it is asked for, which is no import.
    """
    found: dict[str, set[str]] = {}
    for name, tree in modules().items():
        inside = name.split(".") if is_package(name) else name.split(".")[:-1]
        wanted: set[str] = set()
        for node in _nodes(tree):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = inside[: len(inside) + 1 - node.level] if node.level else []
                module = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
                for alias in node.names:  # a name of a module, or a module of a package
                    whole = f"{module}.{alias.name}"
                    wanted.add(whole if whole in modules() else homes().get(whole, module))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                wanted |= {
                    ast.literal_eval(x) for x in node.args[:1] if isinstance(x, ast.Constant)
                }
        found[name] = wanted
    return found


def _nodes(tree: ast.Module) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if _is_export(node):
            continue
        waiting.extend(ast.iter_child_nodes(node))


def part(name: str) -> str:
    """Which of the three a module belongs to."""
    head = ".".join(name.split(".")[:2])
    return next((p for p, package in ROOTS.items() if package == head), "quadflow")


def own(wanted: set[str]) -> set[str]:
    return {name for name in wanted if name.split(".")[0] == "quadflow"}


def test_the_three_parts_point_one_way() -> None:
    """The laboratory and the adapters use the core; only judges of images and the benchmarks use
    adapters, and only the command line the laboratory."""
    judges = tuple(f"quadflow.analysis.{room}" for room in ("images", "benchmarks", "report"))
    wrong = []
    for name, wanted in imports().items():
        for other in own(wanted):
            here, there = part(name), part(other)
            allowed = (
                there in (here, "quadflow")
                or (here == "analysis" and name.startswith(judges))
                or (here == "adapters" and name.startswith("quadflow.adapters.cli"))
                or (name == "quadflow.__main__" and other.startswith("quadflow.adapters.cli"))
            )
            if not allowed:
                wrong.append(f"{name} imports {other}")
    assert not wrong


def test_nothing_imports_the_command_line() -> None:
    cli = "quadflow.adapters.cli"
    wrong = [
        name
        for name, wanted in imports().items()
        if any(other.startswith(cli) for other in wanted)
        and not name.startswith(cli)
        and name != "quadflow.__main__"
    ]
    assert not wrong


def test_no_circle() -> None:
    graph = {name: own(wanted) for name, wanted in imports().items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*graph[start]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(graph[name])
        return seen

    circles = {
        frozenset(other for other in reached(name) if name in reached(other))
        for name in graph
        if name in reached(name)
    }
    assert not [sorted(circle) for circle in circles]


def room(name: str) -> int:
    """The place of a core module among the rooms; the files that put them together come last."""
    inner = name.split(".")
    if len(inner) < 2:
        return len(ROOMS)
    if inner[1] in ROOMS:
        return ROOMS.index(inner[1])
    return len(ROOMS) if inner[1] in ("arguments", "assembly", "solve", "solution") else -1


def test_rooms_of_the_core_stand_on_those_before() -> None:
    wrong, used = [], set()
    for name, wanted in imports().items():
        if part(name) != "quadflow" or is_package(name):
            continue
        for other in own(wanted):
            if room(other) <= room(name):
                continue
            allowed = [key for key in UPWARD if name.startswith(key) and other in UPWARD[key]]
            used |= {(key, other) for key in allowed}
            if not allowed:
                wrong.append(f"{name} imports {other}")
    assert not wrong
    assert used == {(key, other) for key, others in UPWARD.items() for other in others}


def test_the_core_needs_torch_numpy_and_scipy_alone() -> None:
    """Other packages are asked for by name, with an error that says how to get them."""
    known = {"quadflow", "torch", "numpy", "scipy", *sys.stdlib_module_names}
    wrong = {
        f"{name} imports {other}"
        for name, wanted in imports().items()
        if part(name) == "quadflow"
        for other in wanted
        if other.split(".")[0] not in known
    }
    assert not wrong


def test_no_room_is_crowded() -> None:
    files = Counter(
        path.parent.relative_to(ROOT).as_posix()
        for folder in (*ROOTS, "tests", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    )
    assert {folder: n for folder, n in files.items() if n > MOST_FILES} == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring not counted."""
    assert function.end_lineno is not None
    first = function.body[0]
    docstring = 0
    if ast.get_docstring(function) is not None and first.end_lineno is not None:
        docstring = first.end_lineno - first.lineno + 1
    return function.end_lineno - function.lineno + 1 - docstring


def test_functions_are_short() -> None:
    long = {
        f"{name}.{node.name}": _length(node)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and _length(node) > LONGEST[part(name)]
    }
    assert not long


def test_every_package_is_installed() -> None:
    """pyproject.toml lists them one by one."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^packages = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert listed is not None
    packages = {name for name in modules() if is_package(name)}
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == packages
