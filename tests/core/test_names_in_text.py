"""Docstrings, comments and pages name modules and tests that are there: read from the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

FOLDERS = {
    "quadflow": ROOT / "quadflow",
    "adapters": ROOT / "adapters",
    "analysis": ROOT / "analysis",
}
ROOMS = {
    path.name: path
    for folder in FOLDERS.values()
    for path in folder.rglob("*")
    if path.is_dir() and (path / "__init__.py").is_file()
}


def texts(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for suffix in ("py", "md"):
            yield from sorted((ROOT / folder).rglob(f"*.{suffix}"))


def missing(name: str) -> bool:
    """Whether quadflow.a.b.c leads to no module that mentions what comes after it."""
    parts = name.split(".")[1:]
    here = FOLDERS["quadflow"]
    if parts and parts[0] in FOLDERS:
        here = FOLDERS[parts.pop(0)]
    while parts and (here / parts[0]).is_dir():
        here /= parts.pop(0)
    module = here / "__init__.py"
    if parts and (here / f"{parts[0]}.py").is_file():
        module = here / f"{parts.pop(0)}.py"
    return bool(parts) and not re.search(rf"\b{parts[0]}\b", module.read_text(encoding="utf-8"))


def wrong_names(text: str) -> set[str]:
    """Whole names, and `room.module` in backticks, that lead nowhere; paths of tests likewise."""
    whole = re.findall(r"(?<![\w/.-])quadflow(?:\.[a-zA-Z_]\w*)+", text)
    inner = re.findall(r"`([a-z]\w*)\.([a-z]\w*)(?:\.\w+)*`", text)
    paths = re.findall(r"\btests/[\w/]+\.py\b", text)
    return (
        {name for name in whole if not name.endswith("__") and missing(name)}
        | {
            f"{room}.{name}"
            for room, name in inner
            if room in ROOMS and room not in FOLDERS
            and not (ROOMS[room] / f"{name}.py").is_file()
            and not (ROOMS[room] / name).is_dir()
        }
        | {path for path in paths if not (ROOT / path).is_file()}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see quadflow.plans.stepp and quadflow.solve", {"quadflow.plans.stepp"}),
        ("`solvers.as_solver`, `solvers.solver`", {"solvers.as_solver"}),
        ("tests/core/test_nothing.py, tests/core/test_imports.py", {"tests/core/test_nothing.py"}),
    ],
)
def test_wrong_names_are_found(text: str, found: set[str]) -> None:
    assert wrong_names(text) == found


def test_names_in_text_are_there() -> None:
    wrong = {
        path.relative_to(ROOT).as_posix(): names
        for path in texts("quadflow", "adapters", "analysis", "docs")
        if (names := wrong_names(path.read_text(encoding="utf-8")))
    }
    assert not wrong


def test_tests_name_tests_that_are_there() -> None:
    wrong = {
        path.name: gone
        for path in texts("tests")
        if path.name != Path(__file__).name
        and (
            gone := {
                name
                for name in re.findall(r"\btests/[\w/]+\.py\b", path.read_text(encoding="utf-8"))
                if not (ROOT / name).is_file()
            }
        )
    }
    assert not wrong
